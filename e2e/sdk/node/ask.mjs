// Asks for a token with @azure/identity twice, and prints what came as one JSON line.
// usage: node ask.mjs default|named

import { readFileSync } from "node:fs";
import { DefaultAzureCredential, ManagedIdentityCredential } from "@azure/identity";

const credential =
  process.argv[2] === "named"
    ? new ManagedIdentityCredential({ clientId: process.env.PODID_CLIENT_ID })
    : new DefaultAzureCredential();

async function timed() {
  const start = performance.now();
  const { token } = await credential.getToken("https://vault.azure.net/.default");
  return [token, Math.round((performance.now() - start) * 10) / 10];
}

const [token, first_ms] = await timed();
const [, again_ms] = await timed();
const { appid, aud } = JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
const manifest = new URL("node_modules/@azure/identity/package.json", import.meta.url);
const { version } = JSON.parse(readFileSync(manifest, "utf8"));
console.log(JSON.stringify({ version, appid, aud, first_ms, again_ms }));
