#!/usr/bin/env bash
# Makes `public/` anew with the stock tools: keys, which are thrown away, and what they signed. Needs minisign 0.11,
# OpenSSH 9, OpenSSL 3 and Python 3. Every file changes, as the keys do; the cases in public/cases.toml stay as they are.
set -euo pipefail
export LC_ALL=C
out=$(cd "$(dirname "$0")" && pwd)/public
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf 'what the public vectors are signatures of\n' >payload
printf 'what they are not signatures of\n' >other

# SSH. A name on the key's own line, and in the list of signers.
: >allowed_signers
: >fingerprints
for kind in ed25519 ecdsa-256 ecdsa-384 ecdsa-521 rsa-3072; do
    name=ssh-${kind%-*}-${kind#*-}
    [[ $kind != ed25519 ]] || name=ssh-ed25519
    bits=()
    [[ $kind == ed25519 ]] || bits=(-b "${kind#*-}")
    ssh-keygen -q -t "${kind%-*}" "${bits[@]}" -N '' -C "$name@example.com" -f "$name"
    ssh-keygen -q -Y sign -n file -f "$name" payload && mv payload.sig "$name.sig"
    ssh-keygen -q -Y sign -n file -f "$name" other && mv other.sig "$name.other-payload.sig"
    echo "$name@example.com namespaces=\"file\" $(cut -d' ' -f1,2 "$name.pub")" >>allowed_signers
    echo "$name.pub $(ssh-keygen -l -f "$name.pub" | cut -d' ' -f2)" >>fingerprints
done
ssh-keygen -q -Y sign -n file -O hashalg=sha256 -f ssh-ed25519 payload && mv payload.sig ssh-ed25519.sha256.sig
ssh-keygen -q -Y sign -n git -f ssh-ed25519 payload && mv payload.sig ssh-ed25519.git.sig
ssh-keygen -q -t ed25519 -N '' -f stranger
ssh-keygen -q -Y sign -n file -f stranger payload && mv payload.sig ssh-ed25519.stranger.sig
ssh-keygen -q -s stranger -I ca -n ssh-ed25519@example.com -z 1 -V 20200101Z:20991231Z ssh-ed25519.pub 2>/dev/null
ssh-keygen -q -Y sign -n file -f ssh-ed25519-cert.pub payload 2>/dev/null && mv payload.sig ssh-ed25519.certificate.sig
ssh-keygen -q -t rsa -b 1024 -N '' -f small
ssh-keygen -q -Y sign -n file -f small payload && mv payload.sig ssh-rsa-1024.sig

# minisign: hashed, of the old form, and by another key.
for name in minisign minisign-other; do
    minisign -G -W -f -p $name.pub -s $name.key >/dev/null
done
minisign -S -s minisign.key -m payload -t $'timestamp:1764547200\tfile:payload\thashed' && mv payload.minisig minisign.minisig
minisign -S -s minisign.key -m payload -t '' && mv payload.minisig minisign.no-comment.minisig
minisign -S -l -s minisign.key -m payload -t 'old' && mv payload.minisig minisign.legacy.minisig
minisign -S -s minisign.key -m other -t 'of another payload' && mv other.minisig minisign.other-payload.minisig
minisign -S -s minisign-other.key -m payload -t 'by another key' && mv payload.minisig minisign.other-key.minisig

# OpenSSL.
openssl ecparam -name prime256v1 -genkey -noout -out der-p256.key
openssl ecparam -name secp384r1 -genkey -noout -out der-p384.key
openssl ecparam -name secp521r1 -genkey -noout -out der-p521.key
openssl genrsa -out der-rsa3072.key 3072 2>/dev/null
for name in p256:sha256 p384:sha384 p521:sha512 rsa3072:sha256; do
    hash=${name#*:} name=der-${name%:*}
    openssl pkey -in "$name.key" -pubout -out "$name.pem"
    openssl dgst "-$hash" -sign "$name.key" -out "$name.sig" payload
    openssl dgst "-$hash" -sign "$name.key" -out "$name.other-payload.sig" other
done
openssl dgst -sha512 -sign der-rsa3072.key -out der-rsa3072.sha512.sig payload
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sign der-rsa3072.key -out der-rsa3072.pss.sig payload

# What is made out of these: spoiled text, spoiled blobs, bundles.
python3 - <<'PYTHON'
import base64, hashlib, json, struct

read = lambda name: open(name, "rb").read()
write = lambda name, data: open(name, "wb").write(data if isinstance(data, bytes) else data.encode())
b64 = lambda data: base64.b64encode(data).decode()

# SSH, as text.
good = read("ssh-ed25519.sig").decode()
lines = good.splitlines()
write("ssh-ed25519.crlf.sig", good.replace("\n", "\r\n"))
write("ssh-ed25519.text-after.sig", good.rstrip("\n") + " and more\nand more\n")
write("ssh-ed25519.one-line.sig", "\n".join([lines[0], "".join(lines[1:-1]), lines[-1]]))
write("ssh-ed25519.text-before.sig", "a signature:\n" + good)
write("ssh-ed25519.blank-after-begin.sig", good.replace("\n", " \n", 1))
write("ssh-ed25519.no-break-space.sig", good.replace("\n", "\n\u00a0", 1))
write("ssh-ed25519.two.sig", good + read("ssh-ed25519.other-payload.sig").decode())
write("ssh-ed25519.no-end.sig", "\n".join(lines[:-1]) + "\n")


# SSH, as bytes.
def text(data):
    return struct.pack(">I", len(data)) + data


def fields(blob, count):
    found = []
    for _ in range(count):
        (length,) = struct.unpack(">I", blob[:4])
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    assert not blob
    return found


def opened(name):
    blob = base64.b64decode("".join(read(name).decode().splitlines()[1:-1]))
    return fields(blob[10:], 5)


def ssh(name, parts, version=1, end=b""):
    whole = b64(b"SSHSIG" + struct.pack(">I", version) + b"".join(map(text, parts)) + end)
    body = [whole[i : i + 70] for i in range(0, len(whole), 70)]
    write(name, "\n".join(["-----BEGIN SSH SIGNATURE-----", *body, "-----END SSH SIGNATURE-----", ""]))


key, namespace, reserved, hash_name, inner = opened("ssh-ed25519.sig")
ssh("ssh-ed25519.version-2.sig", (key, namespace, reserved, hash_name, inner), version=2)
ssh("ssh-ed25519.reserved.sig", (key, namespace, b"r", hash_name, inner))
ssh("ssh-ed25519.trailing.sig", (key, namespace, reserved, hash_name, inner), end=b"\0")
ssh("ssh-ed25519.trailing-inside.sig", (key, namespace, reserved, hash_name, inner + b"\0"))
ssh("ssh-ed25519.sha384.sig", (key, namespace, reserved, b"sha384", inner))
ssh("ssh-ed25519.no-namespace.sig", (key, b"", reserved, hash_name, inner))
security = text(b"sk-ssh-ed25519@openssh.com") + key[15:] + text(b"ssh:")
ssh("ssh-ed25519.security-key.sig", (security, namespace, reserved, hash_name, inner))
flipped = bytearray(inner)
flipped[-1] ^= 1
ssh("ssh-ed25519.flipped.sig", (key, namespace, reserved, hash_name, bytes(flipped)))
key, namespace, reserved, hash_name, inner = opened("ssh-rsa-3072.sig")
_, rsa = fields(inner, 2)
ssh("ssh-rsa-3072.sha1.sig", (key, namespace, reserved, hash_name, text(b"ssh-rsa") + text(rsa)))
ssh("ssh-rsa-3072.as-sha256.sig", (key, namespace, reserved, hash_name, text(b"rsa-sha2-256") + text(rsa)))
ssh("ssh-rsa-3072.as-ed25519.sig", (key, namespace, reserved, hash_name, text(b"ssh-ed25519") + text(rsa)))
for size in ("256", "384", "521"):
    key, namespace, reserved, hash_name, inner = opened(f"ssh-ecdsa-{size}.sig")
    kind, numbers = fields(inner, 2)
    r, s = fields(numbers, 2)
    for what, numbers in (("swapped", text(s) + text(r)), ("zero", text(b"") + text(s)), ("negative", text(b"\xff" + r) + text(s))):
        ssh(f"ssh-ecdsa-{size}.{what}.sig", (key, namespace, reserved, hash_name, text(kind) + text(numbers)))

# minisign.
good = read("minisign.minisig").decode()
write("minisign.crlf.minisig", good.replace("\n", "\r\n"))
write("minisign.no-final-newline.minisig", good[:-1])
write("minisign.renamed-comment.minisig", good.replace("file:payload", "file:another"))
write("minisign.as-legacy.minisig", good.replace("\nRU", "\nRW", 1))
write("minisign.text-after.minisig", good + "more\n")
write("minisign.blank-line.minisig", good.replace("\n", "\n\n", 1))
write("minisign.no-padding.minisig", good.replace("==\n", "\n"))
write("minisign.control.minisig", good.replace("file:", "\x1b[2Kfile:"))
write("minisign.nul.minisig", good.replace("\thashed", "\thashed\0"))
write("minisign.long-untrusted.minisig", "untrusted comment: " + "a" * 1004 + good[good.index("\n"):])
write("minisign.longest-untrusted.minisig", "untrusted comment: " + "a" * 1003 + good[good.index("\n"):])
first, second, third, fourth = good.splitlines()
other = read("minisign.other-payload.minisig").decode().splitlines()
write("minisign.other-comment.minisig", "\n".join([first, second, other[2], other[3], ""]))
flipped = bytearray(base64.b64decode(second))
flipped[-1] ^= 1
write("minisign.flipped.minisig", "\n".join([first, b64(flipped), third, fourth, ""]))

# A signature that only the owner of the key can make, and that libsodium refuses: its R is the neutral element.
secret = base64.b64decode(read("minisign.key").splitlines()[1])[62:126]
half = hashlib.sha512(secret[:32]).digest()[:32]
scalar = int.from_bytes(bytes([half[0] & 248]) + half[1:31] + bytes([half[31] & 127 | 64]), "little")
order = 2**252 + 27742317777372353535851937790883648493
r = bytes([1]) + bytes(31)


def of_small_order(message):
    h = int.from_bytes(hashlib.sha512(r + secret[32:] + message).digest(), "little")
    return r + (h * scalar % order).to_bytes(32, "little")


number = base64.b64decode(second)[2:10]
signature, comment = of_small_order(hashlib.blake2b(read("payload")).digest()), "of small order"
covering = of_small_order(signature + comment.encode())
lines = [first, b64(b"ED" + number + signature), "trusted comment: " + comment, b64(covering), ""]
write("minisign.small-order.minisig", "\n".join(lines))

# DER: longer forms of the same two numbers, which OpenSSL refuses as well.
for name in ("der-p256", "der-p384", "der-p521"):
    der = read(name + ".sig")
    head = 3 if der[1] & 0x80 else 2
    write(name + ".trailing.sig", der + b"\0")
    length = der[head + 1]
    padded = bytes([2, length + 1, 0]) + der[head + 2 :]
    total = len(padded)
    write(name + ".padded.sig", b"\x30" + (bytes([0x81, total]) if total > 127 else bytes([total])) + padded)
write("der-rsa3072.short.sig", read("der-rsa3072.sig")[1:])

# Bundles. No cosign here; `oracles/formats.py` of the notes had it accept these.
def bundle(key, digest, signature, **more):
    pem = "".join(read(key + ".pem").decode().splitlines()[1:-1])
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": b64(hashlib.sha256(base64.b64decode(pem)).digest())}},
        "messageSignature": {"messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)}, "signature": b64(signature)},
        **more,
    }


digest, other = hashlib.sha256(read("payload")).digest(), hashlib.sha256(read("other")).digest()
for name in ("p256", "rsa3072"):
    signature, of_other = read(f"der-{name}.sig"), read(f"der-{name}.other-payload.sig")
    make = lambda what, value: write(f"bundle-{name}{what}.sigstore.json", json.dumps(value) + "\n")
    good = bundle("der-" + name, digest, signature)
    make("", good)
    make(".other-payload", bundle("der-" + name, other, of_other))
    make(".digest-of-other", bundle("der-" + name, other, signature))
good = bundle("der-p256", digest, read("der-p256.sig"))
make = lambda what, value: write(f"bundle-p256.{what}.sigstore.json", json.dumps(value) + "\n")
write("bundle-p256.pretty.sigstore.json", json.dumps(good, indent=2).replace("\n", "\r\n"))
make("version-parameter", {**good, "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.3"})
make("version-0.2", {**good, "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"})
make("version-0.4", {**good, "mediaType": "application/vnd.dev.sigstore.bundle.v0.4+json"})
make("unknown-field", {**good, "\x1b[31mmore": 1})
make("certificate", {**good, "verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}})
make("log", {**good, "verificationMaterial": {**good["verificationMaterial"], "tlogEntries": [{"logIndex": "1"}]}})
dsse = {key: value for key, value in good.items() if key != "messageSignature"}
make("attestation", {**dsse, "dsseEnvelope": {"payload": "AAAA", "payloadType": "a", "signatures": []}})
make("sha512", {**good, "messageSignature": {**good["messageSignature"], "messageDigest": {"algorithm": "SHA2_512", "digest": b64(hashlib.sha512(read("payload")).digest())}}})
snake = json.dumps(good).replace("mediaType", "media_type")
write("bundle-p256.snake-case.sigstore.json", snake + "\n")
twice = json.dumps(good)[:-1] + ', "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
write("bundle-p256.twice.sigstore.json", twice + "\n")
PYTHON

mkdir -p "$out"
find "$out" -type f ! -name cases.toml ! -name signers.json -delete
cp payload allowed_signers fingerprints ssh-ed25519.pub ssh-ecdsa-*.pub ssh-rsa-3072.pub minisign.pub der-*.pem \
    ./*.sig ./*.minisig ./*.sigstore.json "$out"
rm -f "$out"/*-cert.pub
