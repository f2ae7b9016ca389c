#!/usr/bin/env bash
# moto 5.2.5 (seen 2026-11-29 with boto3 1.44.8, Python 3.11): Encrypt works under a disabled key.
#
# Expected, as KMS documents it for Encrypt: DisabledException. Seen:
#
#   KeyState Disabled
#   Encrypt under the disabled key: no error
#
# Matters for: tests/it/support/moto.rs. Tests of disabled keys have the proxy put the error in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

{ python3 -m venv venv && venv/bin/pip install -q 'moto[kms]==5.2.5' boto3==1.44.8; } || exit 2

seen=$(AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_EC2_METADATA_DISABLED=true venv/bin/python3 - <<'PYTHON'
import boto3, botocore
from moto import mock_aws

with mock_aws():
    kms = boto3.client("kms", region_name="eu-west-1")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    print("KeyState", kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"])
    try:
        kms.encrypt(KeyId=key, Plaintext=b"text")
        print("Encrypt under the disabled key: no error")
    except botocore.exceptions.ClientError as error:
        print("Encrypt under the disabled key:", error.response["Error"]["Code"])
PYTHON
)
expected='KeyState Disabled
Encrypt under the disabled key: no error'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
