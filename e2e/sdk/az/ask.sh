#!/usr/bin/env bash
# `az login --identity` in an az that knows nothing yet, then a token from it; prints what came as one JSON line.
#
# usage: ask.sh AZ default|named
set -euo pipefail
az=$1 mode=$2
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export HOME=$home AZURE_CONFIG_DIR=$home/azure AZURE_CORE_COLLECT_TELEMETRY=false
# az cannot ask Microsoft's login service about an authority that it does not know.
export AZURE_CORE_INSTANCE_DISCOVERY=false
as=()
[ "$mode" = default ] || as=(--client-id "$PODID_CLIENT_ID")
{
  "$az" cloud register -n podid --endpoint-resource-manager "$AZURE_RESOURCE_MANAGER_ENDPOINT"
  "$az" cloud set -n podid
} >&2
from=$(date +%s%3N)
"$az" login --identity "${as[@]}" --allow-no-subscriptions -o none >&2
took=$(($(date +%s%3N) - from))
"$az" account get-access-token --resource https://vault.azure.net -o json >"$home/token"
"$az" version -o json >"$home/version"
"$(dirname "$az")/python" - "$home" "$took" <<'PYTHON'
import base64, json, sys
home, took = sys.argv[1:]
token = json.load(open(f"{home}/token"))["accessToken"].split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
version = json.load(open(f"{home}/version"))["azure-cli"]
print(json.dumps({"version": version, "appid": claims["appid"], "aud": claims["aud"], "first_ms": float(took)}))
PYTHON
