#!/usr/bin/env bash
# ministack 1.5.33 (seen 2026-12-01): Sign with `DryRun` signs.
#
# Expected, by the AWS KMS API reference (Sign, `DryRun`): the request ends with
# DryRunOperationException if it would have succeeded, and nothing is signed. Seen:
#
#   a dry run of Sign: answered with a signature
#   a message of 5000 bytes: signed
#
# Nor does it limit a message to the 4,096 bytes that the reference names.
#
# Matters for: tests/it/support/ministack.rs. A dry run, and the limit of a message, cannot be tested
# against it; src/kms.rs checks the limit before anybody is asked.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check \
    ministack==1.5.33 cryptography==50.0.2 boto3==1.43.106 || exit 2
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port IOT_MTLS_ENABLED=0 venv/bin/ministack >log 2>&1 &
seen=$(PORT=$port venv/bin/python - <<'PYTHON'
import os, time
import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

kms = boto3.client(
    "kms",
    endpoint_url=f"http://127.0.0.1:{os.environ['PORT']}",
    region_name="eu-west-1",
    aws_access_key_id="a",
    aws_secret_access_key="b",
)
for _ in range(100):
    try:
        key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        break
    except EndpointConnectionError:
        time.sleep(0.3)


def sign(message, dry):
    try:
        kms.sign(KeyId=key, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256", DryRun=dry)
        return True
    except ClientError:
        return False


print("a dry run of Sign: " + ("answered with a signature" if sign(b"a", True) else "refused"))
print("a message of 5000 bytes: " + ("signed" if sign(b"a" * 5000, False) else "refused"))
PYTHON
) || exit 2
expected='a dry run of Sign: answered with a signature
a message of 5000 bytes: signed'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
