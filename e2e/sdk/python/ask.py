"""Asks for a token with azure-identity or msal twice, and prints what came as one JSON line.

usage: ask.py azure-identity|msal default|named
"""

import base64
import importlib.metadata
import json
import os
import sys
import time

RESOURCE = "https://vault.azure.net"


def azure_identity(named):
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    if named:
        credential = ManagedIdentityCredential(client_id=os.environ["PODID_CLIENT_ID"])
    else:
        credential = DefaultAzureCredential()
    return lambda: credential.get_token(RESOURCE + "/.default").token


def msal(named):
    import msal
    import requests

    if named:
        identity = msal.UserAssignedManagedIdentity(client_id=os.environ["PODID_CLIENT_ID"])
    else:
        identity = msal.SystemAssignedManagedIdentity()
    client = msal.ManagedIdentityClient(identity, http_client=requests.Session())

    def ask():
        answer = client.acquire_token_for_client(resource=RESOURCE)
        if "access_token" not in answer:
            raise SystemExit(f"{answer.get('error')}: {answer.get('error_description')}")
        return answer["access_token"]

    return ask


def timed(ask):
    start = time.perf_counter()
    token = ask()
    return token, round((time.perf_counter() - start) * 1000, 1)


library, mode = sys.argv[1:3]
ask = {"azure-identity": azure_identity, "msal": msal}[library](mode == "named")
token, first = timed(ask)
_, again = timed(ask)
payload = token.split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
print(
    json.dumps(
        {
            "version": importlib.metadata.version(library),
            "appid": claims["appid"],
            "aud": claims["aud"],
            "first_ms": first,
            "again_ms": again,
        }
    )
)
