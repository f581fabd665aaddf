"""Lets the Azure MCP server, which is a .NET program with Azure.Identity inside, list subscriptions, and prints with whose
token it did so as one JSON line. `management.azure.com` is played here, behind a proxy on the loopback interface that
ends TLS with the certificate given: so the token is seen that the library got and sent.

usage: ask.py AZMCP CERTIFICATE KEY default|named
"""

import base64
import json
import os
import re
import socketserver
import ssl
import subprocess
import sys
import threading
import time

ARM = "management.azure.com"
program, certificate, key, mode = sys.argv[1:5]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(certificate, key)
tokens = []


def head(stream):
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return None
        read += byte
    return read.decode("latin-1")


class Proxy(socketserver.BaseRequestHandler):
    def handle(self):
        asked = head(self.request)
        if not asked or not asked.startswith(f"CONNECT {ARM}:443 "):
            # Telemetry and the like: not from here.
            return
        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with tls.wrap_socket(self.request, server_side=True) as stream:
            while asked := head(stream):
                token = re.search(r"(?im)^authorization: bearer (\S+)", asked)
                if token:
                    tokens.append(token[1])
                body = b'{"value":[]}'
                stream.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body)
                )


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


def version():
    with open(program, "rb") as file:
        found = re.search(rb"Azure\.Identity/(\d+\.\d+\.\d+)", file.read())
    return found[1].decode() if found else ""


server = Server(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
environment = {
    **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    "HTTPS_PROXY": f"http://127.0.0.1:{server.server_address[1]}",
    "SSL_CERT_FILE": certificate,
    # Else the chain has developers' credentials only.
    "AZURE_MCP_INCLUDE_PRODUCTION_CREDENTIALS": "true",
    "AZURE_TOKEN_CREDENTIALS": "prod" if mode == "default" else "ManagedIdentityCredential",
    "AZURE_MCP_COLLECT_TELEMETRY": "false",
    "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
}
if mode == "named":
    environment["AZURE_CLIENT_ID"] = os.environ["PODID_CLIENT_ID"]
start = time.perf_counter()
ran = subprocess.run(
    [program, "subscription", "list"], env=environment, capture_output=True, text=True, timeout=120
)
took = round((time.perf_counter() - start) * 1000, 1)
if not tokens:
    raise SystemExit(f"no token reached {ARM}: {ran.stdout} {ran.stderr}")
payload = tokens[0].split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
print(json.dumps({"version": version(), "appid": claims["appid"], "aud": claims["aud"], "first_ms": took}))
