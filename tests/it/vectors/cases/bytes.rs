//! Signature vectors whose bytes are not those of a signer: damaged, forged, or of another program.

use super::super::format::Content;
use super::super::make::{Case, PAYLOAD, canonical, case, header, nonce_of, seal, secret, sha512};
use super::{base64, hex};

/// A good signature that met with something.
pub(super) fn damaged() -> Vec<Case> {
    let mut cases = Vec::new();
    for (len, what) in [
        (1, "of the magic only its first byte"),
        (4, "the magic alone"),
        (5, "up to the length of the name"),
        (7, "up to the middle of the name"),
        (9, "the header alone"),
        (15, "up to the middle of the nonce"),
        (21, "header and nonce, and nothing in it"),
        (22, "one byte of what is encrypted"),
        (36, "what is left is shorter than a tag"),
        (37, "what is left is as long as a tag, so holds nothing"),
        (38, "what is left holds one byte"),
        (85, "the whole body and no tag"),
        (84, "most of the body"),
        (100, "the last byte is missing"),
    ] {
        let comment = format!("cut to {len} bytes: {what}");
        cases.push(case("rejected", &format!("cut-{len:03}"), &comment).turn(|good| good[..len].to_vec()));
    }
    for (at, mask, class, name, what) in [
        (0, 1, "rejected", "magic", "the first byte of the magic"),
        (3, 3, "rejected", "version", "version 1 of the format became 2"),
        (4, 1, "rejected", "length-longer", "the name takes a byte of the nonce, which is no letter"),
        (4, 7, "wrong-key", "length-shorter", "the name is cut to `dem`"),
        (4, 4, "rejected", "length-zero", "a name without a letter"),
        (4, 0xfb, "rejected", "length-255", "a name longer than the signature"),
        (5, 1, "wrong-key", "name-first", "the first letter of the name"),
        (8, 1, "wrong-key", "name-last", "the last letter of the name"),
        (5, 0x20, "wrong-key", "name-case", "the case of a letter of the name"),
        (9, 1, "rejected", "nonce-first", "the first byte of the nonce"),
        (20, 0x80, "rejected", "nonce-last", "the last byte of the nonce"),
        (21, 1, "rejected", "body-first", "the first byte of what is encrypted"),
        (53, 0x10, "rejected", "body-middle", "a byte in the middle of it"),
        (84, 0x80, "rejected", "body-last", "the last byte of it"),
        (85, 1, "rejected", "tag-first", "the first byte of the tag"),
        (100, 1, "rejected", "tag-last", "the last byte of the tag"),
    ] {
        let comment = format!("changed: {what}");
        let flip = |mut good: Vec<u8>| {
            good[at] ^= mask;
            good
        };
        cases.push(case(class, &format!("flip-{name}"), &comment).nonce(&[0xf8]).turn(flip));
    }
    let after = |name: &str, comment, tail: &[u8]| {
        case("rejected", &format!("after-{name}"), comment).turn(|good| [good, tail.to_vec()].concat())
    };
    let before = |name: &str, comment, head: &[u8]| {
        case("rejected", &format!("before-{name}"), comment).turn(|good| [head.to_vec(), good].concat())
    };
    let turned =
        |name: &str, comment, turn: fn(Vec<u8>) -> Vec<u8>| case("rejected", name, comment).turn(turn);
    cases.extend([
        case(
            "wrong-key",
            "flip-length-longer-letter",
            "the name takes a byte of the nonce, which is a letter",
        )
        .nonce(b"x")
        .turn(|mut good| {
            good[4] += 1;
            good
        }),
        turned("tag-zero", "a tag of zeros", |good| [&good[..85], &[0; 16]].concat()),
        turned("tag-inverted", "every bit of the tag", |good| {
            [good[..85].to_vec(), good[85..].iter().map(|byte| !byte).collect()].concat()
        }),
        turned("magic-lower-case", "the magic in lower case", |good| [b"ksl1", &good[4..]].concat()),
        turned("reversed", "back to front", |good| good.into_iter().rev().collect()),
        turned("without-header", "nonce, body and tag alone", |good| good[9..].to_vec()),
        turned("seven-bits", "sent where the eighth bit is lost", |good| {
            good.iter().map(|b| b & 0x7f).collect()
        }),
        turned("as-utf-8", "taken for Latin-1 and written as UTF-8", |good| {
            good.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes()
        }),
        case("rejected", "newlines-changed", "sent as text: each line feed became two bytes")
            .nonce(b"\n")
            .turn(|good| {
                good.iter().flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] }).collect()
            }),
        after("newline", "a newline after it", b"\n"),
        after("crlf", "a line end of DOS after it", b"\r\n"),
        after("nul", "a zero byte after it", b"\0"),
        after("space", "a space after it", b" "),
        before("newline", "a newline before it", b"\n"),
        before("bom", "a byte order mark before it", b"\xef\xbb\xbf"),
        before("nul", "a zero byte before it", b"\0"),
        turned("twice", "two good ones in one file", |good| [good.clone(), good].concat()),
        turned("good-after-foreign-bytes", "a good one after 16 other bytes", |good| {
            [vec![0x5a; 16], good].concat()
        }),
        case("rejected", "padded-6144", "zeros after it, up to the largest size").zeros(6043),
        case("malformed", "padded-6145", "zeros after it, a byte more than the largest size")
            .says("the signature is longer than 6144 bytes")
            .zeros(6044),
    ]);
    cases
}

/// Made by someone who knows the format and not the key, or has seen good signatures.
pub(super) fn forged() -> Vec<Case> {
    let demo = || secret("public", "demo");
    let good = |name: &str, payload: &[u8]| {
        let bound = header("demo");
        let nonce = nonce_of(name);
        [bound.clone(), nonce.to_vec(), seal(&demo(), nonce, &bound, &sha512(payload))].concat()
    };
    let framed = |name: &str, sealed: Vec<u8>| [header("demo"), nonce_of(name).to_vec(), sealed].concat();
    let bytes = |expect, name: &str, comment, bytes: Vec<u8>| {
        case(expect, name, comment).content(Content::Hex(bytes))
    };
    let named = |name: &str, key: &[u8], comment| {
        let head = [b"KSL1".as_slice(), &[u8::try_from(key.len()).unwrap()], key].concat();
        bytes("rejected", name, comment, [head, vec![1; 92]].concat())
    };
    let (one, two) = (good("one", PAYLOAD), good("two", b"other"));
    let pair = [("a".to_owned(), "1".to_owned())];
    vec![
        case("rejected", "relabelled-as-twin", "relabelled as a key of the very same secret")
            .keys(&["local:twin"])
            .turn(|good| [header("twin"), good[9..].to_vec()].concat()),
        case("rejected", "relabelled-as-demo", "another key's, relabelled as the trusted one's")
            .by("public", "other")
            .turn(|good| [header("demo"), good[10..].to_vec()].concat()),
        bytes(
            "rejected",
            "spliced-body",
            "the encrypted digest of another signature",
            [&one[..21], &two[21..85], &one[85..]].concat(),
        ),
        bytes("rejected", "spliced-tag", "the tag of another signature", [&one[..85], &two[85..]].concat()),
        bytes(
            "rejected",
            "spliced-nonce",
            "the nonce of another signature",
            [&one[..9], &two[9..21], &one[21..]].concat(),
        ),
        bytes(
            "rejected",
            "same-nonce-digest-exchanged",
            "the digest of another file, exchanged in the encrypted text: that needs no key, only both files",
            {
                let (here, there) = (sha512(PAYLOAD), sha512(b"other"));
                let mut bytes = two.clone();
                bytes[21..85]
                    .iter_mut()
                    .zip(here.iter().zip(there))
                    .for_each(|(byte, (a, b))| *byte ^= a ^ b);
                bytes
            },
        ),
        bytes(
            "rejected",
            "header-not-bound",
            "sealed without binding the header",
            framed("header-not-bound", seal(&demo(), nonce_of("header-not-bound"), b"", &sha512(PAYLOAD))),
        ),
        bytes(
            "rejected",
            "context-not-bound",
            "sealed without binding the context that is asked for",
            framed(
                "context-not-bound",
                seal(&demo(), nonce_of("context-not-bound"), &header("demo"), &sha512(PAYLOAD)),
            ),
        )
        .asks(&["a=1"]),
        bytes(
            "rejected",
            "context-before-header",
            "context and header bound in the other order",
            framed(
                "context-before-header",
                seal(
                    &demo(),
                    nonce_of("context-before-header"),
                    &[canonical(&pair), header("demo")].concat(),
                    &sha512(PAYLOAD),
                ),
            ),
        )
        .asks(&["a=1"]),
        case("rejected", "sealed-nothing", "a genuine seal of no bytes, which KMS would not make")
            .plaintext(""),
        bytes(
            "rejected",
            "digest-in-clear",
            "the digest where its ciphertext should be",
            framed("clear", [sha512(PAYLOAD), vec![0; 16]].concat()),
        ),
        bytes("rejected", "digest-alone", "the bare digest", sha512(PAYLOAD)),
        bytes(
            "rejected",
            "zeros-in-frame",
            "header, and zeros in all that follows",
            [header("demo"), vec![0; 92]].concat(),
        ),
        named("name-path", b"../demo", "a name that is a path"),
        named("name-terminal", b"\x1b[2Jx", "a name that would clear the terminal"),
        named("name-newline", b"demo\n", "the trusted name and a newline"),
        named("name-nul", b"demo\0", "the trusted name and a zero byte"),
        named("name-not-utf-8", b"dem\xff", "a name that is no text"),
        named("name-too-long", &[b'a'; 65], "a name longer than a key's may be"),
        named("name-empty", b"", "no name"),
        bytes(
            "wrong-key",
            "name-unknown",
            "a name that no keyring has, and noise",
            [header("nobody"), vec![1; 92]].concat(),
        ),
    ]
}

/// What else is called `.sig`, or is found under that name.
pub(super) fn foreign() -> Vec<Case> {
    let text = |name: &str, comment, text: &[u8]| case("rejected", name, comment).text(text);
    let malformed = |name: &str, says: &str, comment| case("malformed", name, comment).says(says);
    let fill = |count| Content::Repeat(1, count);
    let (empty, long) = ("the signature is empty", "the signature is longer than 6144 bytes");
    let (pgp, minisign, ssh) = (
        "this is an OpenPGP signature; verify it with a public key (--trust)",
        "this is a minisign or signify signature; verify it with a public key (--trust)",
        "this is an SSH signature; verify it with a public key (--trust)",
    );
    let armor = "-----BEGIN PGP SIGNATURE-----\n\niHUEABYKAB0WIQ==\n-----END PGP SIGNATURE-----\n";
    vec![
        case("missing", "absent", "there is no signature").absent(),
        case("missing", "absent-no-keyring", "that needs no key to be told").absent().keyring("absent"),
        case("missing", "absent-no-key", "nor one to be named").absent().keys(&[]),
        malformed("empty", empty, "nothing in it").text(""),
        malformed("empty-no-keyring", empty, "that needs no key to be told").text("").keyring("absent"),
        malformed("empty-no-key", empty, "nor one to be named").text("").keys(&[]),
        malformed("size-6145", long, "a byte more than KMS ever makes").content(fill(6145)),
        malformed("size-1-mebibyte", long, "far more than is read").content(fill(1_048_576)),
        malformed("openpgp", pgp, "OpenPGP, armored").text(armor),
        malformed("openpgp-dos", pgp, "the same with other line ends").text(armor.replace('\n', "\r\n")),
        malformed("openpgp-message", pgp, "another block of OpenPGP").text(armor.replace("SIGNATURE", "MESSAGE")),
        malformed("openpgp-no-keyring", pgp, "no key is needed to tell").text(armor).keyring("absent"),
        malformed("openpgp-then-good", pgp, "armor, and a good signature after it")
            .turn(|good| [armor.as_bytes().to_vec(), good].concat()),
        malformed("minisign", minisign, "minisign").text(
            "untrusted comment: signature from minisign secret key\nRUQf6LRCGA9i5x==\ntrusted comment: timestamp:1\nAAAA\n",
        ),
        malformed("signify", minisign, "signify").text("untrusted comment: verify with key.pub\nRWQ1LP8Qq==\n"),
        malformed("ssh", ssh, "ssh-keygen -Y sign")
            .text("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"),
        case("rejected", "size-1", "one zero byte").content(Content::Repeat(0, 1)),
        case("rejected", "size-6144", "as much as KMS may make").content(fill(6144)),
        case("rejected", "like-aws", "a ciphertext that could be of AWS KMS, under a local key")
            .content(Content::Hex([b"\x01\x02\x02\x00x".to_vec(), vec![0x42; 179]].concat())),
        case("rejected", "like-moto", "a key id as text, as other services that speak the protocol put it")
            .text("1234abcd-12ab-34cd-56ef-1234567890ab0123456789ab0123456789abcdef"),
        text("openpgp-space-before", "not quite armor", format!(" {armor}").as_bytes()),
        text("openpgp-lower-case", "nor this", armor.to_lowercase().as_bytes()),
        text("pem", "a PKCS #7 signature in PEM", b"-----BEGIN PKCS7-----\nMIIB\n-----END PKCS7-----\n"),
        text("der", "a signature in DER", b"\x30\x45\x02\x21\x00\xab\x02\x20\x01"),
        text("openpgp-binary", "OpenPGP, not armored", b"\x88\x75\x04\x00\x16\x0a\x00\x1d"),
        text("sha512sum", "a line of sha512sum", format!("{}  f\n", hex(&sha512(PAYLOAD))).as_bytes()),
        text("html", "what a server says instead of a file", b"<!DOCTYPE html>\n<title>404 Not Found</title>\n"),
        text("batch-header", "a readable header, as of a batch", b"kms-sig-batch-v1\nleaf 0 of 1\n\n"),
        case("rejected", "aws-cli-output", "what `aws kms encrypt` prints, not decoded")
            .turn_to_text(|good| format!("{{\n    \"CiphertextBlob\": \"{}\"\n}}\n", base64(&good))),
        case("rejected", "base64", "a good one in base64").turn_to_text(|good| base64(&good)),
        case("rejected", "base64-newline", "the same as a line").turn_to_text(|good| base64(&good) + "\n"),
        case("rejected", "hex", "a good one in hexadecimal").turn_to_text(|good| hex(&good)),
        case("rejected", "armored", "a good one between lines of our own")
            .turn_to_text(|good| format!("-----BEGIN KMS SIGNATURE-----\n{}\n-----END KMS SIGNATURE-----\n", base64(&good))),
        // One stored block (RFC 1951 section 3.2.4), its length, and no checksum: enough for who
        // looks at the magic.
        case("rejected", "gzip", "a good one, compressed")
            .turn(|good| [b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x65\0\x9a\xff".to_vec(), good].concat()),
    ]
}
