#!/usr/bin/env python3
"""Verifies a batch signature. Written from docs/formats.md alone, with nothing but the standard library.

    batch.py FILE SIGNATURE [KEY=VALUE]...

Asks for the one thing that it cannot do: prints the Decrypt that KMS should be asked for, as a line of JSON, and reads
the answer, a line that is the plaintext in hexadecimal, or the word that the verdict is then. The last line of its
output is the verdict, in the words of README.md beside this file.
"""

import hashlib
import hmac
import json
import re
import sys
from urllib.parse import quote, unquote_to_bytes

MAX_SIZE = 65536
MAX_CIPHERTEXT = 6144
MAX_NAMES = 8192 - len("kms-sig:batch")
NUMBER = rb"(0|[1-9][0-9]*)"
HEADER = re.compile(
    rb"kms-sig batch 1\nsize %b\nindex %b\nleaf-context (\[[!-~]*\])\nciphertext %b\n\n" % (NUMBER, NUMBER, NUMBER)
)


class Malformed(Exception):
    pass


def sha512(*parts):
    return hashlib.sha512(b"".join(parts)).digest()


def parse(signature):
    """Size, index, names, path and ciphertext."""
    header = HEADER.match(signature)
    if not header:
        raise Malformed("header")
    size, index, length = (int(header[group]) for group in (1, 2, 4))
    if not 1 <= size <= MAX_SIZE or index >= size or not 1 <= length <= MAX_CIPHERTEXT:
        raise Malformed("numbers")
    body = signature[header.end() :]
    levels = list(siblings(index, size))
    if len(body) != 64 * len(levels) + length:
        raise Malformed("length")
    path = [body[64 * n : 64 * n + 64] for n in range(len(levels))]
    return size, index, names(header[3]), path, body[64 * len(levels) :]


def names(text):
    """The names of the keys that live in the leaf."""
    try:
        inside = text[1:-1].decode("ascii")
        found = [unquote_to_bytes(name).decode("utf-8") for name in inside.split(",")] if inside else []
    except UnicodeDecodeError as error:
        raise Malformed("names") from error
    if len(text) > MAX_NAMES or any(not name or name.startswith("kms-sig:") for name in found):
        raise Malformed("names")
    if text.decode("ascii") != spelt(found):
        raise Malformed("names")
    return found


def spelt(found):
    """The one text of these names. Sorted by their UTF-8, each once."""
    ordered = sorted(set(found), key=lambda name: name.encode("utf-8"))
    # quote() would leave the tilde alone.
    return "[" + ",".join(quote(name, safe="").replace("~", "%7E") for name in ordered) + "]"


def siblings(index, size):
    """On which side the sibling stands, for each level of the tree that has one."""
    last = size - 1
    while last > 0:
        if index % 2:
            yield "left"
        elif index < last:
            yield "right"
        index, last = index // 2, last // 2


def canonical(context):
    pairs = sorted((key.encode("utf-8"), value.encode("utf-8")) for key, value in context.items())
    return b"".join(len(part).to_bytes(4, "big") + part for pair in pairs for part in pair)


def verdict(payload, signature, context, decrypt):
    try:
        size, index, leaf_keys, path, ciphertext = parse(signature)
    except Malformed:
        return "malformed"
    if not all(key in context for key in leaf_keys):
        return "rejected"
    shared = {key: value for key, value in context.items() if key not in leaf_keys}
    shared["kms-sig:batch"] = spelt(leaf_keys)
    answer = decrypt(ciphertext, shared)
    if answer in ("rejected", "wrong-key", "hold"):
        return answer
    node = sha512(b"\0", sha512(payload), canonical(context))
    for side, sibling in zip(siblings(index, size), path):
        node = sha512(b"\1", sibling, node) if side == "left" else sha512(b"\1", node, sibling)
    signed = b"kms-sig:batch:" + size.to_bytes(8, "big") + node
    return "valid" if hmac.compare_digest(signed, bytes.fromhex(answer)) else "mismatch"


def ask(ciphertext, context):
    print(json.dumps({"ciphertext": ciphertext.hex(), "context": context}), flush=True)
    return sys.stdin.readline().strip()


def main(payload, signature, *pairs):
    with open(payload, "rb") as file, open(signature, "rb") as sig:
        context = dict(pair.split("=", 1) for pair in pairs)
        print(verdict(file.read(), sig.read(), context, ask))


if __name__ == "__main__":
    main(*sys.argv[1:])
