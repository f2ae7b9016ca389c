//! Signatures that everybody can verify: each stock verifier accepts what we make, and refuses it
//! after one flipped byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

#[cfg(feature = "aws")]
use crate::support::kms::set_credentials;
#[cfg(feature = "aws")]
use crate::support::ministack::Ministack;
use crate::support::place::Place;
use crate::support::stock::Stock;

/// Types of local keys that sign.
const TYPES: [&str; 6] = ["ed25519", "p256", "p384", "p521", "rsa3072", "rsa4096"];

/// Formats, with the suffix of their files, the form of the key that their verifiers take, and the
/// verifiers.
const FORMATS: [(&str, &str, &str, &[Stock]); 4] = [
    ("ssh", ".sig", "allowed-signers", &[Stock::SshKeygen]),
    ("minisign", ".minisig", "minisign", &[Stock::Minisign]),
    ("der", ".sig", "pem", &[Stock::OpenSsl]),
    ("openpgp", ".asc", "openpgp", &[Stock::Gpgv, Stock::Sqv]),
];

/// Whether keys of a type have signatures of a format.
fn fits(kind: &str, format: &str) -> bool {
    match format {
        "minisign" => kind == "ed25519",
        "der" => kind != "ed25519",
        "sigstore" => kind == "p256" || kind.starts_with("rsa"),
        _ => true,
    }
}

/// A key to sign with: its type, by our name, and what it is named by.
type Key = (&'static str, String);

/// A place with a local key of each type.
fn place_with_keys() -> (Place, Vec<Key>) {
    let place = Place::with_keyring();
    let keys: Vec<Key> = TYPES.map(|kind| (kind, format!("local:{kind}"))).into();
    for (kind, key) in &keys {
        place.run(["key", "create", key, "--type", kind]).exits(0).says(format!("created {key}\n"));
    }
    (place, keys)
}

/// Writes each key in every form that somebody verifies with: `KIND.FORM`.
fn publish(place: &Place, keys: &[Key]) {
    for (kind, key) in keys {
        for (format, _, form, _) in FORMATS {
            if !fits(kind, format) {
                continue;
            }
            let mut arguments = vec!["key", "public", key, "--format", form];
            match form {
                "allowed-signers" => arguments.extend(["--principal", "release@example.com"]),
                "openpgp" => {
                    arguments.extend(["--user-id", "Releases <release@example.com>"]);
                    arguments.extend(["--created", "2025-01-01T00:00:00Z"]);
                }
                _ => {}
            }
            let public = place.run(arguments).exits(0).complains("");
            place.write(format!("{kind}.{form}"), public.stdout());
        }
        // gpgv takes no armored keyring.
        let script = format!("gpg --dearmor < {kind}.openpgp > {kind}.keyring");
        place.shell(&format!("GNUPGHOME=$(mktemp -d) && export GNUPGHOME && {script}")).exits(0);
    }
}

fn key_file(kind: &str, form: &str, stock: Stock) -> String {
    match stock {
        Stock::Gpgv => format!("{kind}.keyring"),
        Stock::Minisign | Stock::SshKeygen | Stock::OpenSsl | Stock::Sqv => format!("{kind}.{form}"),
    }
}

#[test]
fn p11_stock_verifiers_accept_what_local_keys_sign_and_refuse_it_after_one_flipped_byte() {
    let (place, keys) = place_with_keys();
    stock_verifiers_agree(&place, &keys);
}

/// The same with keys of KMS: AWS documents the same bytes, and ministack makes them.
#[cfg(feature = "aws")]
#[test]
fn p11_stock_verifiers_accept_what_kms_signs_and_refuse_it_after_one_flipped_byte() {
    let ministack = Ministack::start();
    let mut place = Place::new();
    set_credentials(&mut place);
    place.set("AWS_ENDPOINT_URL", ministack.url());
    let specs = [
        ("ed25519", "ECC_NIST_EDWARDS25519"),
        ("p256", "ECC_NIST_P256"),
        ("p384", "ECC_NIST_P384"),
        ("p521", "ECC_NIST_P521"),
        ("rsa3072", "RSA_3072"),
        ("rsa4096", "RSA_4096"),
    ];
    let keys = specs.map(|(kind, spec)| (kind, ministack.create_key(spec, "SIGN_VERIFY")));
    stock_verifiers_agree(&place, &keys);
}

/// Signs payloads of every size and oddity in every format, and has each judged.
fn stock_verifiers_agree(place: &Place, keys: &[Key]) {
    publish(place, keys);
    let payloads: [(&str, Vec<u8>); 4] = [
        ("empty", Vec::new()),
        ("one", vec![7]),
        ("large", (0..5_000_000_u32).map(|at| (at * 31 % 251) as u8).collect()),
        ("100% of \u{e9}t\u{e9}, a=b\u{7}", b"a name that needs escaping".to_vec()),
    ];
    let mut table = BTreeMap::new();
    for (name, content) in &payloads {
        place.write(name, content);
        for (kind, key) in keys {
            for (format, suffix, form, tools) in FORMATS {
                if !fits(kind, format) {
                    continue;
                }
                let signature = format!("{name}{suffix}");
                fs::remove_file(place.path(&signature)).ok();
                let certificate = format!("{kind}.openpgp");
                let mut arguments = vec!["sign", key, name, "--format", format];
                if format == "openpgp" {
                    arguments.extend(["--certificate", &certificate]);
                }
                place.run(arguments).exits(0).says("").complains("");
                for stock in tools {
                    // OpenSSL cannot check what is empty with a key of an elliptic curve of
                    // Edwards.
                    let key = key_file(kind, form, *stock);
                    let what = format!("{} of {kind} {format} for {name:?}", stock.name());
                    assert!(
                        stock.accepts(place, &key, name, &signature),
                        "{what} refuses\n{}",
                        shown(place, &signature)
                    );
                    for flipped in flips(format, &place.read(&signature)) {
                        place.write("flipped", &flipped);
                        assert!(!stock.accepts(place, &key, name, "flipped"), "{what} accepts {flipped:?}");
                    }
                    let other = [content.as_slice(), b"x"].concat();
                    place.write("other", other);
                    assert!(!stock.accepts(place, &key, "other", &signature), "{what} accepts another file");
                    *table.entry((kind, format, stock.name())).or_insert(0) += 1;
                }
            }
        }
    }
    let mut text = String::new();
    for ((kind, format, tool), payloads) in &table {
        writeln!(text, "{kind:8} {format:9} {tool:11} accepts {payloads}, refuses each flipped").unwrap();
    }
    println!("{text}");
    assert_eq!(table.len(), 6 + 1 + 5 + 12, "{text}");
}

/// The signature with one byte changed, each time another one that is signed: at the beginning, at
/// the end, and in minisign's comment.
fn flips(format: &str, signature: &[u8]) -> Vec<Vec<u8>> {
    let places = match std::str::from_utf8(signature) {
        Err(_) => vec![signature.len() / 2, signature.len() - 1],
        Ok(text) => {
            let mut at = 0;
            let mut lines = Vec::new();
            for line in text.split_inclusive('\n') {
                lines.push((at, line.trim_end()));
                at += line.len();
            }
            let is_body = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with(['-', '=', '{']);
            let body: Vec<_> = lines.into_iter().filter(is_body).collect();
            match format {
                // The first line of its four is signed by nobody.
                "minisign" => [1, 2, 3].map(|n| body[n].0 + body[n].1.len() / 2).to_vec(),
                // What stands between the beginning and the numbers at the end names the key again.
                _ => vec![body[0].0 + 20, body[body.len() - 1].0],
            }
        }
    };
    let flip = |at: usize| {
        let mut changed = signature.to_vec();
        changed[at] = if changed[at].is_ascii_alphabetic() { changed[at] ^ 0x20 } else { changed[at] ^ 1 };
        changed
    };
    places.into_iter().map(flip).collect()
}

fn shown(place: &Place, signature: &str) -> String {
    String::from_utf8_lossy(&place.read(signature)).into_owned()
}

/// A place with the payload `f`, an Ed25519 key and a P-256 key, and their public files.
fn small_place() -> Place {
    let place = Place::with_keyring();
    for kind in ["ed25519", "p256"] {
        place.run(["key", "create", &format!("local:{kind}"), "--type", kind]).exits(0);
    }
    publish(&place, &[("ed25519", "local:ed25519".into()), ("p256", "local:p256".into())]);
    place.write("f", "payload\n");
    place
}

#[test]
fn p11_verify_trust_says_who_signed_and_takes_whatever_format_lies_there() {
    let place = small_place();
    for (format, suffix, form, who) in [
        (
            "ssh",
            ".sig",
            "allowed-signers",
            "valid signature from release@example.com with Ed25519 key SHA256:",
        ),
        ("minisign", ".minisig", "minisign", "valid signature from minisign key "),
        (
            "openpgp",
            ".asc",
            "openpgp",
            "valid signature from Releases <release@example.com> with OpenPGP key ",
        ),
    ] {
        let certificate = ["--certificate", "ed25519.openpgp"];
        let more = if format == "openpgp" { &certificate[..] } else { &[] };
        place.run([&["sign", "local:ed25519", "f", "--format", format], more].concat()).exits(0);
        let trust = format!("ed25519.{form}");
        let told = place.run(["verify", "f", "--trust", &trust]).exits(0).complains("");
        let shown = place.run(["show", &format!("f{suffix}")]).exits(0).complains("");
        let shown = String::from_utf8_lossy(shown.stdout()).into_owned();
        assert!(shown.contains("\nclaims key: ") && shown.contains("\nsha512: "), "{shown}");
        assert!(told.stdout().starts_with(who.as_bytes()), "{:?}", String::from_utf8_lossy(told.stdout()));
        let other = format!("p256.{}", if form == "minisign" { "openpgp" } else { form });
        let told = place.run(["verify", "f", &format!("f{suffix}"), "--trust", &other]).exits(1).says("");
        assert!(told.stderr().starts_with("invalid signature\nreason: "), "{}", told.stderr());
        place.write("g", "another\n");
        let told = place.run(["verify", "g", &format!("f{suffix}"), "--trust", &trust]).exits(1).says("");
        assert!(told.stderr().contains("not a signature of these bytes"), "{}", told.stderr());
        place.run(["verify", "-", &format!("f{suffix}"), "--trust", &trust]).exits(1);
        place.run_with(["verify", "-", &format!("f{suffix}"), "--trust", &trust], "payload\n").exits(0);
        fs::remove_file(place.path(format!("f{suffix}"))).unwrap();
    }
    for format in ["der", "sigstore"] {
        place.run(["sign", "local:p256", "f", "--format", format]).exits(0);
        let told = place.run(["verify", "f", "--trust", "p256.pem"]).exits(0).complains("");
        assert!(told.stdout().starts_with(b"valid signature from P-256 key "));
    }
    place
        .run(["verify", "f", "--trust", "ed25519.minisign"])
        .exits(1)
        .says("")
        .complains("no signature: \"f.minisig\" does not exist\n");
}

#[test]
fn p11_what_a_signature_binds_is_compared() {
    let place = small_place();
    place.run(["sign", "local:ed25519", "f", "--format", "minisign"]).exits(0);
    fs::copy(place.path("f"), place.path("renamed")).unwrap();
    let verify = ["verify", "renamed", "f.minisig", "--trust", "ed25519.minisign"];
    place.run(verify).exits(1).complains_of("it is of a file named \"f\"").complains_of("--any-name");
    place.run([&verify[..], &["--any-name"]].concat()).exits(0);
    place
        .run(["sign", "local:ed25519", "f", "--format", "openpgp", "--certificate", "ed25519.openpgp"])
        .exits(0);
    let verify = ["verify", "renamed", "f.asc", "--trust", "ed25519.openpgp"];
    place.run(verify).exits(1).complains_of("it is of a file named \"f\"");
    place.run(["sign", "local:ed25519", "f", "--format", "ssh", "--namespace", "git"]).exits(0);
    let verify = ["verify", "f", "f.sig", "--trust", "ed25519.allowed-signers"];
    place.run(verify).exits(1).complains_of("its namespace is \"git\"").complains_of("--namespace");
    let git = [&verify[..], &["--namespace", "git"]].concat();
    place.run(git).exits(1).complains_of("do not allow its key for this namespace");
    let other_use = place.run(["sign", "local:ed25519", "f", "--format", "ssh"]).exits(2);
    other_use.complains_of("for another use");
    fs::remove_file(place.path("f.sig")).unwrap();
    place.run(["sign", "local:ed25519", "f", "--format", "ssh"]).exits(0);
    place
        .run([&verify[..], &["--principal", "other@example.com"]].concat())
        .exits(1)
        .complains_of("no list of allowed signers allows its key for this principal");
    place.run([&verify[..], &["--principal", "release@example.com"]].concat()).exits(0);
}

#[test]
fn a_key_file_that_says_nobody_to_trust_is_a_matter_of_usage() {
    let place = small_place();
    place.run(["sign", "local:ed25519", "f", "--format", "minisign"]).exits(0);
    place.write("private", "-----BEGIN PRIVATE KEY-----\n");
    for (file, part) in
        [("private", "name the file with the public one"), ("f", "line 1: "), ("keyring", "line 2: ")]
    {
        place.run(["verify", "f", "--trust", file]).exits(2).says("").complains_of(part);
    }
    place.run(["verify", "f", "--trust", "missing"]).exits(3).complains_of("cannot read \"missing\"");
    place.run(["verify", "f", "--trust", "ed25519.minisign", "--key", "local:demo"]).exits(2);
    place.run(["verify", "f", "--namespace", "git"]).exits(2);
    place
        .run(["verify", "-", "--trust", "ed25519.minisign"])
        .exits(2)
        .complains_of("cannot both be standard input");
    place
        .run(["verify", "f", "--trust", "ed25519.minisign", "--principal", "a"])
        .exits(2)
        .complains_of("no --trust file is a list of allowed signers");
}

#[test]
fn p4_several_signatures_are_made_from_one_read_and_none_is_written_before_all_are() {
    let place = small_place();
    let formats = |first: &str, second: &str| {
        place.run(["sign", "f", "--format", first, "--format", second, "--certificate", "ed25519.openpgp"])
    };
    formats("local:ed25519=openpgp", "local:p256=minisign")
        .exits(2)
        .complains_of("minisign takes Ed25519 keys, and this key is P-256");
    formats("local:ed25519=openpgp", "local:missing=ssh").exits(3);
    assert!(
        !place.names().iter().any(|name| name.to_string_lossy().starts_with("f.")),
        "{:?}",
        place.names()
    );
    formats("local:ed25519=openpgp", "local:p256=ssh").exits(0).says("").complains("");
    place.run(["verify", "f", "--trust", "p256.allowed-signers"]).exits(0);
    place.run(["verify", "f", "--trust", "ed25519.openpgp"]).exits(0);
    place
        .run(["sign", "local:p256", "f", "--format", "ssh", "--format", "der"])
        .exits(2)
        .complains_of("two of the signatures would have one name, FILE.sig");
    place
        .run(["sign", "local:p256", "f", "s", "--format", "ssh", "--format", "sigstore"])
        .exits(2)
        .complains_of("several signatures cannot go to one place");
    place
        .run(["sign", "local:p256", "f", "--format", "ssh", "--context", "a=b"])
        .exits(2)
        .complains_of("--context is for signatures of the format kms");
    place.run(["sign", "local:p256", "--format", "ssh"]).exits(2).complains_of("no FILE is named");
    place
        .run(["sign", "local:p256", "f", "s", "--format", "local:p256=ssh"])
        .exits(2)
        .complains_of("leave KEY out");
    place.run(["sign", "f", "--format", "local:demo=ssh"]).exits(3).complains_of("local:demo");
}

#[test]
fn p8_only_an_older_signature_of_the_same_format_and_key_is_replaced() {
    let place = small_place();
    let sign = |key: &str, format: &str| {
        let mut arguments = vec!["sign", key, "f", "f.sig", "--format", format];
        if format == "openpgp" {
            arguments.extend(["--certificate", "ed25519.openpgp"]);
        }
        place.run(arguments)
    };
    for format in ["ssh", "minisign", "openpgp"] {
        sign("local:ed25519", format).exits(0);
        place.write("f", format);
        sign("local:ed25519", format).exits(0);
        let there = place.read("f.sig");
        sign("local:p256", "sigstore").exits(2).complains_of("f.sig\" is a signature of the format");
        place.run(["sign", "local:demo", "f"]).exits(2).complains_of("it is left as it is");
        if format == "ssh" {
            sign("local:p256", "ssh").exits(2).complains_of("a signature by another key");
        }
        assert_eq!(place.read("f.sig"), there, "{format}");
        let with_notes = [there.as_slice(), &vec![b'\n'; 20_000], b"three years of notes\n"].concat();
        place.write("f.sig", &with_notes);
        sign("local:ed25519", format).exits(2).complains_of("it is left as it is");
        assert_eq!(place.read("f.sig"), with_notes, "{format}");
        fs::remove_file(place.path("f.sig")).unwrap();
    }
    // Nothing in these bytes says whose they are.
    sign("local:p256", "der").exits(0);
    sign("local:p256", "der").exits(2).complains_of("not known to be a signature").complains_of("--force");
    place.run(["sign", "local:p256", "f", "--format", "der", "--force"]).exits(0);
}

#[test]
fn a_certificate_is_the_same_for_the_same_arguments_and_its_end_can_be_moved() {
    let place = small_place();
    let public = ["key", "public", "local:ed25519", "--format", "openpgp"];
    let make = |more: &[&str]| place.run([&public[..], more].concat());
    let who = ["--user-id", "R <r@example.com>", "--created", "2025-01-01"];
    let first = make(&who).exits(0).stdout().to_vec();
    assert_eq!(make(&who).exits(0).stdout(), first);
    let ends = [&who[..], &["--expires", "2099-01-01"]].concat();
    place.write("old.asc", make(&ends).exits(0).stdout());
    let renewed = make(&["--renew", "old.asc", "--expires", "2100-01-01"]).exits(0).stdout().to_vec();
    place.write("new.asc", renewed);
    let certificate = |name: &str| {
        ["sign", "local:ed25519", "f", "--format", "openpgp", "--certificate", name].map(str::to_owned)
    };
    for name in ["old.asc", "new.asc"] {
        place.run(certificate(name)).exits(0);
        place.run(["verify", "f", "--trust", "new.asc"]).exits(0);
        assert!(Stock::Sqv.accepts(&place, "new.asc", "f", "f.asc"), "{name}");
    }
    make(&["--renew", "p256.openpgp"]).exits(2).complains_of("the certificate is of another key");
    make(&[&who[..], &["--expires", "2025-06-01"]].concat()).exits(2).complains_of("--expires is over");
    make(&["--created", "2025-01-01"]).exits(2).complains_of("no --user-id is named");
    make(&["--user-id", "R", "--created", "2999-01-01"]).exits(2).complains_of("--created is in the future");
    make(&["--user-id", "R", "--created", "soon"]).exits(2).complains_of("write YYYY-MM-DD");
    // The time of a local key is known.
    assert_eq!(make(&["--user-id", "R"]).exits(0).stdout(), make(&["--user-id", "R"]).exits(0).stdout());
    place
        .run(["key", "public", "local:p256", "--format", "minisign"])
        .exits(2)
        .complains_of("takes Ed25519 keys");
    place.run(["key", "public", "local:p256", "--user-id", "R"]).exits(2).complains_of("--user-id is for");
    place
        .run(["key", "public", "local:p256", "--format", "allowed-signers"])
        .exits(2)
        .complains_of("--principal");
    place.run(["key", "public", "local:demo"]).exits(3).complains_of("local:demo");
    place
        .run(["sign", "local:ed25519", "f", "--format", "openpgp"])
        .exits(2)
        .complains_of("needs the certificate");
    place
        .run(["sign", "local:ed25519", "f", "--format", "openpgp", "--certificate", "p256.openpgp"])
        .exits(2)
        .complains_of("the certificate is of another key");
    place
        .run(["sign", "local:ed25519", "f", "--format", "openpgp", "--certificate", "f"])
        .exits(2)
        .complains_of("is no certificate to sign with");
}
