//! Every signature vector, in one table: what somebody could put beside a file, and what has to
//! come of it.
//!
//! A signature of `local:demo` has 101 bytes: 4 magic, 1 length of the name, 4 name (0 to 9: the
//! header), 12 nonce (9 to 21), 64 encrypted digest (21 to 85), 16 tag (85 to 101).

mod batch;
mod bytes;

use aws_lc_rs::digest;
use sha2::Digest as _;

use super::format::Content;
use super::make::{Case, PAYLOAD, case, header, sha512};

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [
        valid(),
        payloads(),
        plaintexts(),
        keys(),
        contexts(),
        bytes::damaged(),
        bytes::forged(),
        bytes::foreign(),
        batch::all(),
        holds(),
        usage(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let padded = [chunk, &[0; 2]].concat();
        let all = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        let digit = |n: usize| char::from(DIGITS[(all >> (18 - 6 * n)) as usize & 63]);
        (0..4).map(|n| if n <= chunk.len() { digit(n) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

fn valid() -> Vec<Case> {
    let mut cases = vec![
        case("valid", "plain", "the plainest one: one key, no context"),
        case("valid", "payload-empty", "an empty file has a digest too").payload(""),
        case("valid", "payload-large", "a mebibyte and a byte, so more than is read at once")
            .repeat(0x61, 1_048_577),
        case("valid", "payload-is-a-signature", "a file that is itself a signature")
            .payload([header("demo"), vec![7; 92]].concat()),
        case("valid", "payload-is-its-digest-elsewhere", "a file that is the digest of another file")
            .payload(sha512(PAYLOAD)),
        case("valid", "key-name-one-letter", "the shortest name of a key").by("public", "x"),
        case("valid", "key-name-longest", "a key's name of 64 bytes").by("public", &"a".repeat(64)),
        case("valid", "key-name-with-dot", "a name that the keyring has to quote")
            .by("public", "release.2026"),
        case("valid", "keys-good-first", "the second key is never needed")
            .keys(&["local:demo", "local:other"]),
        case("valid", "keys-good-second", "the first key disowns it").keys(&["local:other", "local:demo"]),
        case("valid", "keys-good-last", "three keys disown it first").keys(&[
            "local:other",
            "local:x",
            "local:demo2",
            "local:demo",
        ]),
        case("valid", "keys-good-twice", "the same key named twice").keys(&["local:demo", "local:demo"]),
        case("valid", "keys-unknown-first", "a key that nobody can ask does not stop one that vouches")
            .keys(&["local:nobody", "local:demo"]),
        case("valid", "keys-unknown-last", "nor does one that comes after it")
            .keys(&["local:demo", "local:nobody"]),
        case("valid", "keys-twin", "another key of the same secret disowns it, the right one vouches")
            .keys(&["local:twin", "local:demo"]),
        case("valid", "nonce-zero", "nothing is wrong with a nonce of zeros").nonce(&[0; 12]),
        case("valid", "nonce-ones", "nor with one of ones").nonce(&[0xff; 12]),
        case("valid", "context-one", "one pair").made(&[("file", "a")]).asks(&["file=a"]),
        case("valid", "context-order", "pairs have no order")
            .made(&[("a", "1"), ("b", "2")])
            .asks(&["b=2,a=1"]),
        case("valid", "context-two-arguments", "two arguments are one context")
            .made(&[("a", "1"), ("b", "2")])
            .asks(&["a=1", "b=2"]),
        case("valid", "context-comma", "an escaped comma belongs to the value")
            .made(&[("a", "1,b=2")])
            .asks(&[r"a=1\,b=2"]),
        case("valid", "context-equals", "a value may have an equals sign")
            .made(&[("a", "b=c")])
            .asks(&["a=b=c"]),
        case("valid", "context-backslash", "any other backslash is itself")
            .made(&[("path", r"C:\dir\")])
            .asks(&[r"path=C:\dir\"]),
        case("valid", "context-empty-value", "a value may be empty").made(&[("a", "")]).asks(&["a="]),
        case("valid", "context-empty-argument", "an empty argument is no pair").asks(&[""]),
        case("valid", "context-not-ascii", "text beyond ASCII, composed (NFC)")
            .made(&[("file", "gr\u{fc}n")])
            .asks(&["file=gr\u{fc}n"]),
        case("valid", "context-percent", "a name with a percent sign, encoded as the daemon does")
            .made(&[("file", "100%25.txt")])
            .asks(&["file=100%25.txt"]),
        case("valid", "context-spaces", "spaces at both ends are part of the value")
            .made(&[("a", " 1 ")])
            .asks(&["a= 1 "]),
        case("valid", "context-longest", "8,192 bytes of keys and values are allowed")
            .made(&[("k", &"x".repeat(8191))])
            .asks(&[&format!("k={}", "x".repeat(8191))]),
    ];
    // SHA-512 works on blocks of 128 bytes, and its padding needs 17 of the last one.
    for len in [1, 63, 64, 111, 112, 127, 128, 129, 239, 240, 255, 256] {
        let comment = format!("{len} bytes: near a boundary of SHA-512");
        cases.push(case("valid", &format!("payload-{len:03}"), &comment).repeat(0x61, len));
    }
    cases
}

/// The signature is good; the file is another.
fn payloads() -> Vec<Case> {
    let other = |name, comment, payload: &[u8]| {
        case("mismatch", name, comment).plaintext(sha512(PAYLOAD)).payload(payload)
    };
    let long = |name, comment, count| {
        case("mismatch", name, comment).plaintext(sha512(&vec![0x61; 1_048_577])).repeat(0x61, count)
    };
    vec![
        other("payload-bit", "one bit of the file was flipped", b"qayload\n"),
        other("payload-case", "one letter has another case", b"Payload\n"),
        other("payload-cut", "the last byte is missing", b"payload"),
        other("payload-cut-to-nothing", "the file was emptied", b""),
        other("payload-longer", "a newline was added", b"payload\n\n"),
        other("payload-nul", "a zero byte was added", b"payload\n\0"),
        other("payload-crlf", "line ends were changed", b"payload\r\n"),
        other("payload-bom", "a byte order mark was put before it", b"\xef\xbb\xbfpayload\n"),
        other("payload-twice", "the file twice over", b"payload\npayload\n"),
        other("payload-other", "another file altogether", b"something else"),
        other("payload-is-the-digest", "the file is the very digest that was signed", &sha512(PAYLOAD)),
        other("payload-is-the-digest-in-hex", "the same in hexadecimal", hex(&sha512(PAYLOAD)).as_bytes()),
        case("mismatch", "payload-no-longer-empty", "signed empty, filled afterwards").plaintext(sha512(b"")),
        long("payload-large-cut", "a large file lacks its last byte", 1_048_576),
        long("payload-large-longer", "a large file has a byte more", 1_048_578),
        case("mismatch", "payload-other-under-second-key", "the second key made it, for another file")
            .plaintext(sha512(b"other"))
            .keys(&["local:other", "local:demo"]),
        case("mismatch", "payload-other-beside-unknown-key", "it opened, so nothing is left to be asked")
            .plaintext(sha512(b"other"))
            .keys(&["local:nobody", "local:demo"]),
        case("mismatch", "payload-other-same-context", "the context is right, the file is another")
            .plaintext(sha512(b"other"))
            .made(&[("file", "a")])
            .asks(&["file=a"]),
    ]
}

/// Sealed under the right key, and not the 64 bytes that it has to be. Whoever may encrypt under a
/// key that is used for other things too can make such.
fn plaintexts() -> Vec<Case> {
    let sealed = |name: &str, comment, plaintext: Vec<u8>| {
        case("mismatch", &format!("plaintext-{name}"), comment).plaintext(plaintext)
    };
    let good = sha512(PAYLOAD);
    let of = |algorithm: &'static digest::Algorithm| digest::digest(algorithm, PAYLOAD).as_ref().to_vec();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let root = |plaintext: &[u8]| [b"kms-sig:batch\0".as_slice(), &1_u64.to_be_bytes(), plaintext].concat();
    vec![
        sealed("1", "one byte", good[..1].to_vec()),
        sealed("63", "the digest without its last byte", good[..63].to_vec()),
        sealed("65", "the digest and a zero byte", [good.clone(), vec![0]].concat()),
        sealed("65-before", "a zero byte and the digest", [vec![0], good.clone()].concat()),
        sealed("65-newline", "the digest and a newline", [good.clone(), vec![b'\n']].concat()),
        sealed("128", "the digest twice", [good.clone(), good.clone()].concat()),
        sealed(
            "4096",
            "the digest, and zeros up to the most that KMS takes",
            [good.clone(), vec![0; 4032]].concat(),
        ),
        sealed("bit-first", "the first bit of the digest flipped", flipped(0)),
        sealed("bit-last", "the last bit of the digest flipped", flipped(63)),
        sealed("zeros", "64 zeros", vec![0; 64]),
        sealed("reversed", "the digest back to front", good.iter().rev().copied().collect()),
        sealed("hex", "the digest in hexadecimal, as sha512sum prints it", hex(&good).into_bytes()),
        sealed("hex-64", "the first 64 of its hexadecimal digits", hex(&good).into_bytes()[..64].to_vec()),
        sealed("sha512sum", "a whole line of sha512sum", format!("{}  f\n", hex(&good)).into_bytes()),
        sealed("base64", "the digest in base64", base64(&good).into_bytes()),
        sealed("twice-hashed", "the digest of the digest", sha512(&good)),
        sealed("of-hex", "the digest of the digest's hexadecimal digits", sha512(hex(&good).as_bytes())),
        sealed("of-name", "the digest of the file's name", sha512(b"f")),
        sealed("payload-itself", "no digest, but the file", PAYLOAD.to_vec()),
        sealed("payload-itself-64", "no digest, but the file, which has 64 bytes", vec![b'a'; 64])
            .repeat(b'a', 64),
        sealed("sha256", "SHA-256", of(&digest::SHA256)),
        sealed("sha256-padded", "SHA-256 and 32 zeros", [of(&digest::SHA256), vec![0; 32]].concat()),
        sealed("sha384", "SHA-384", of(&digest::SHA384)),
        sealed("sha512-256", "SHA-512/256", of(&digest::SHA512_256)),
        sealed("sha3-512", "SHA3-512: as long, and another function", of(&digest::SHA3_512)),
        sealed("sha1", "SHA-1", of(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
        sealed("sha224", "SHA-224", sha2::Sha224::digest(PAYLOAD).to_vec()),
        sealed("merkle-leaf", "the leaf of a tree as in RFC 9162", sha512(&[vec![0], good.clone()].concat())),
        sealed("batch-root", "what the root of a batch might look like", root(&good)),
        sealed("of-root", "the same as a file: its digest is not what it holds", root(&good))
            .payload(root(&good)),
    ]
}

fn keys() -> Vec<Case> {
    vec![
        case("wrong-key", "key-other", "another key of the keyring is trusted").keys(&["local:other"]),
        case("wrong-key", "keys-all-other", "three are, and none made it").keys(&[
            "local:other",
            "local:x",
            "local:demo2",
        ]),
        case("wrong-key", "key-twin", "the trusted key has the same secret and another name")
            .keys(&["local:twin"]),
        case("wrong-key", "key-longer-name", "the trusted key's name begins with the signer's")
            .keys(&["local:demo2"]),
        case("wrong-key", "key-shorter-name", "the signer's name begins with the trusted key's")
            .by("public", "demo2"),
        case("wrong-key", "key-other-case", "names of keys have a case")
            .by("public", "demo2")
            .keys(&["local:Demo2"]),
        case("wrong-key", "key-of-attacker", "a key that the verifier does not have")
            .by("elsewhere", "mallory"),
        case("wrong-key", "key-other-and-context", "another key and another context")
            .by("public", "other")
            .asks(&["a=1"]),
        case("wrong-key", "key-other-and-payload", "another key and another file")
            .by("public", "other")
            .plaintext(sha512(b"")),
        case("rejected", "key-same-name-elsewhere", "the same name, and another host's secret")
            .by("elsewhere", "demo"),
        case("rejected", "key-same-name-here", "signed here, verified with another host's keyring")
            .keyring("elsewhere"),
        case("rejected", "keys-same-name-and-others", "several keys change nothing about that")
            .by("elsewhere", "demo")
            .keys(&["local:other", "local:demo", "local:x"]),
    ]
}

fn contexts() -> Vec<Case> {
    let other = |name: &str, comment, made: &[(&str, &str)], asked: &[&str]| {
        case("rejected", &format!("context-{name}"), comment).made(made).asks(asked)
    };
    vec![
        other("missing", "signed with a context, verified without", &[("a", "1")], &[]),
        other("extra", "signed without, verified with one", &[], &["a=1"]),
        other("one-missing", "one of two pairs is not given", &[("a", "1"), ("b", "2")], &["a=1"]),
        other("one-extra", "a pair too many", &[("a", "1")], &["a=1,b=2"]),
        other("other-value", "another value", &[("a", "1")], &["a=2"]),
        other("other-key", "another key", &[("a", "1")], &["b=1"]),
        other("key-for-value", "key and value changed places", &[("a", "b")], &["b=a"]),
        other("values-swapped", "two values changed places", &[("a", "1"), ("b", "2")], &["a=2,b=1"]),
        other("case-of-value", "values have a case", &[("channel", "stable")], &["channel=Stable"]),
        other("case-of-key", "keys have a case", &[("channel", "stable")], &["Channel=stable"]),
        other("space-after", "a space after the value", &[("a", "1")], &["a=1 "]),
        other(
            "space-after-comma",
            "a space is part of the key that follows it",
            &[("a", "1"), ("b", "2")],
            &["a=1, b=2"],
        ),
        other("newline", "a newline after the value", &[("a", "1")], &["a=1\n"]),
        other("nul", "text ends where it ends, not at a zero byte", &[("a", "1\0x")], &["a=1"]),
        other("prefix", "the value begins alike", &[("version", "2")], &["version=20"]),
        other("number", "a number written otherwise", &[("version", "2")], &["version=02"]),
        other(
            "decomposed",
            "composed when signing (NFC), decomposed when verifying (NFD)",
            &[("file", "gr\u{fc}n")],
            &["file=gru\u{308}n"],
        ),
        other("composed", "the other way round", &[("file", "gru\u{308}n")], &["file=gr\u{fc}n"]),
        other("ligature", "compatible is not equal (NFKC)", &[("file", "\u{fb01}le")], &["file=file"]),
        other("homoglyph", "a Cyrillic letter that looks Latin", &[("file", "\u{430}")], &["file=a"]),
        other(
            "encoded-when-verifying",
            "percent-encoded when verifying only",
            &[("file", "a b")],
            &["file=a%20b"],
        ),
        other(
            "encoded-when-signing",
            "percent-encoded when signing only",
            &[("file", "a%20b")],
            &["file=a b"],
        ),
        other("encoded-twice", "percent-encoded twice", &[("file", "100%25")], &["file=100%2525"]),
        other("hex-case", "percent-encoding in the other case", &[("file", "%0A")], &["file=%0a"]),
        other("boundary", "the boundary of key and value elsewhere", &[("ab", "c")], &["a=bc"]),
        other(
            "pair-in-value",
            "two pairs, and one with the second in its value",
            &[("a", "1"), ("b", "2")],
            &[r"a=1\,b=2"],
        ),
        other("value-in-pair", "one pair, and two", &[("a", "1,b=2")], &["a=1,b=2"]),
        other("empty-for-missing", "an empty value is not none", &[("a", "")], &[]),
        other("quoted", "quotation marks are part of the value", &[("a", "1")], &["a=\"1\""]),
        other(
            "reserved-when-signing",
            "a context that only the program itself could give",
            &[("kms-sig:batch", "")],
            &[],
        ),
        other("keys-and", "each of two keys rejects it, or disowns it", &[("a", "1")], &["a=2"])
            .keys(&["local:other", "local:demo"]),
    ]
}

/// No verdict is possible: never valid, and never called bad.
fn holds() -> Vec<Case> {
    let hold = |name: &str, comment| case("hold", &format!("hold-{name}"), comment);
    let no_key = "key-not-found: the keyring has no key";
    let nobody = format!("{no_key} local:nobody");
    let unnamed = "the signature says that local:demo made it, and local keys are used only when named";
    vec![
        hold("no-keyring", "the keyring is not there")
            .keyring("absent")
            .held("credentials", "credentials: cannot read keyring \"keyring\": no such file or directory"),
        hold("no-keyring-damaged", "whether a damaged one is bad cannot be told without it either")
            .keyring("absent")
            .turn(|good| good[..50].to_vec())
            .held("credentials", "credentials: cannot read keyring \"keyring\": no such file or directory"),
        hold("open-keyring", "others can read the keyring").keyring_mode(0o644).held(
            "credentials",
            "credentials: keyring \"keyring\" is open to others (mode 0644); run chmod 600 \"keyring\"",
        ),
        hold("writable-keyring", "others can write to the keyring").keyring_mode(0o620).held(
            "credentials",
            "credentials: keyring \"keyring\" is open to others (mode 0620); run chmod 600 \"keyring\"",
        ),
        hold("damaged-keyring", "a line of the keyring cannot be read")
            .keyring("damaged")
            .held("credentials", "credentials: line 6 of keyring \"keyring\" is not what a keyring holds"),
        hold("newer-keyring", "a keyring of a later version").keyring("version-3").held(
            "credentials",
            "credentials: keyring \"keyring\" has version 3; this program knows versions 1 and 2",
        ),
        hold("unknown-key", "the trusted key is not in the keyring")
            .keys(&["local:nobody"])
            .held("key-not-found", &nobody),
        hold("unknown-key-that-signed", "it is, by its name, the one that signed")
            .by("elsewhere", "mallory")
            .keys(&["local:mallory"])
            .held("key-not-found", &format!("{no_key} local:mallory")),
        hold("unknown-key-noise", "noise is not called bad where the key cannot be asked")
            .keys(&["local:nobody"])
            .content(Content::Repeat(1, 101))
            .held("key-not-found", &nobody),
        hold("unknown-key-other-case", "names of keys have a case")
            .keys(&["local:DEMO"])
            .held("key-not-found", &format!("{no_key} local:DEMO")),
        hold("unknown-before-wrong", "the unknown key might have made it; the other did not")
            .keys(&["local:nobody", "local:other"])
            .held("key-not-found", &nobody),
        hold("unknown-after-wrong", "in either order")
            .keys(&["local:other", "local:nobody"])
            .held("key-not-found", &nobody),
        hold("unknown-beside-rejected", "one key calls it damaged, the other cannot be asked")
            .asks(&["a=1"])
            .keys(&["local:demo", "local:nobody"])
            .held("key-not-found", &nobody),
        hold("unknown-twice", "the first trouble is what is told")
            .keys(&["local:nobody", "local:noone"])
            .held("key-not-found", &nobody),
        hold("no-key-named", "a local key is never used because a signature says so")
            .keys(&[])
            .held("bad-request", unnamed),
        hold("no-key-named-other-payload", "not even to call it bad")
            .keys(&[])
            .plaintext(sha512(b"other"))
            .held("bad-request", unnamed),
    ]
}

/// The question makes no sense.
fn usage() -> Vec<Case> {
    let usage = |name: &str, comment| case("usage", &format!("usage-{name}"), comment);
    let key = |name: &str, comment, key: &str| {
        let told = format!(
            "\"{}\" is no local key; after local: come 1 to 64 letters, digits, '.', '_' or '-', the first of them a \
             letter or digit",
            key.replace('\n', "\\x0a")
        );
        usage(name, comment).keys(&[key]).says(told)
    };
    let reserved =
        "context key \"kms-sig:batch\" begins with \"kms-sig:\", which is reserved; choose another";
    let twice = "context key \"a\" is given twice; give it once";
    vec![
        usage("key-empty", "no key at all")
            .keys(&[""])
            .says("the key is empty; write a key id, key ARN, alias/NAME, alias ARN or local:NAME"),
        key("key-nameless", "a local key without a name", "local:"),
        key("key-path", "a name that is a path", "local:../demo"),
        key("key-space", "a space after the name", "local:demo "),
        key("key-newline", "a newline after the name", "local:demo\n"),
        usage("key-second", "one bad key among good ones")
            .keys(&["local:demo", "no key"])
            .says("\"no key\" is no key; write a key id, key ARN, alias/NAME, alias ARN or local:NAME"),
        usage("context-no-equals", "a pair without a value")
            .asks(&["a"])
            .says("context pair \"a\" has no '='; write key=value, and a comma inside a value as \\,"),
        usage("context-no-key", "a value without a key")
            .asks(&["=1"])
            .says("context pair \"=1\" has an empty key; write key=value"),
        usage("context-twice", "a key twice in one argument").asks(&["a=1,a=1"]).says(twice),
        usage("context-twice-apart", "a key twice in two").asks(&["a=1", "a=2"]).says(twice),
        usage("context-reserved", "a key that is the program's own")
            .asks(&["kms-sig:batch=x"])
            .says(reserved),
        usage("context-8193", "a byte more than KMS takes")
            .asks(&[&format!("k={}", "x".repeat(8192))])
            .says("the context has 8193 bytes; KMS takes at most 8192 for keys and values together"),
    ]
}
