#!/usr/bin/env bash
# moto 5.2.5 (seen 2026-11-29 with boto3 1.44.8, Python 3.11): Decrypt with the KeyId of a key that
# did not make the ciphertext is AccessDeniedException.
#
# Expected, as KMS documents it for Decrypt: IncorrectKeyException. Seen:
#
#   Decrypt under another key: AccessDeniedException
#
# Matters for: tests/it/support/moto.rs. To kms-sig AccessDenied is no verdict, so tests of wrong keys have
# the proxy put IncorrectKeyException in.
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
    maker, other = [kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2)]
    made = kms.encrypt(KeyId=maker, Plaintext=b"text")["CiphertextBlob"]
    try:
        kms.decrypt(KeyId=other, CiphertextBlob=made)
        print("Decrypt under another key: no error")
    except botocore.exceptions.ClientError as error:
        print("Decrypt under another key:", error.response["Error"]["Code"])
PYTHON
)
expected='Decrypt under another key: AccessDeniedException'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
