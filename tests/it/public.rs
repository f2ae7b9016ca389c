//! Signatures that everybody can verify: each stock verifier accepts what we make, and refuses it
//! after one flipped byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

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

/// A place with a key of each type, and each key in every form that somebody verifies with.
fn place_with_keys() -> Place {
    let place = Place::with_keyring();
    for kind in TYPES {
        let key = format!("local:{kind}");
        place.run(["key", "create", &key, "--type", kind]).exits(0).says(format!("created {key}\n"));
        for (format, _, form, _) in FORMATS {
            if !fits(kind, format) {
                continue;
            }
            let mut arguments = vec!["key", "public", &key, "--format", form];
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
    }
    // gpgv takes no armored keyring.
    for kind in TYPES {
        let script = format!("gpg --dearmor < {kind}.openpgp > {kind}.keyring");
        place.shell(&format!("GNUPGHOME=$(mktemp -d) && export GNUPGHOME && {script}")).exits(0);
    }
    place
}

fn key_file(kind: &str, form: &str, stock: Stock) -> String {
    match stock {
        Stock::Gpgv => format!("{kind}.keyring"),
        Stock::Minisign | Stock::SshKeygen | Stock::OpenSsl | Stock::Sqv => format!("{kind}.{form}"),
    }
}

#[test]
fn p11_stock_verifiers_accept_what_we_sign_and_refuse_it_after_one_flipped_byte() {
    let place = place_with_keys();
    let payloads: [(&str, Vec<u8>); 4] = [
        ("empty", Vec::new()),
        ("one", vec![7]),
        ("large", (0..5_000_000_u32).map(|at| (at * 31 % 251) as u8).collect()),
        ("100% of \u{e9}t\u{e9}, a=b\u{7}", b"a name that needs escaping".to_vec()),
    ];
    let mut table = BTreeMap::new();
    for (name, content) in &payloads {
        place.write(name, content);
        for kind in TYPES {
            for (format, suffix, form, tools) in FORMATS {
                if !fits(kind, format) {
                    continue;
                }
                let signature = format!("{name}{suffix}");
                fs::remove_file(place.path(&signature)).ok();
                let certificate = format!("{kind}.openpgp");
                let key = format!("local:{kind}");
                let mut arguments = vec!["sign", &key, name, "--format", format];
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
                        stock.accepts(&place, &key, name, &signature),
                        "{what} refuses\n{}",
                        shown(&place, &signature)
                    );
                    for flipped in flips(format, &place.read(&signature)) {
                        place.write("flipped", &flipped);
                        assert!(!stock.accepts(&place, &key, name, "flipped"), "{what} accepts {flipped:?}");
                    }
                    let other = [content.as_slice(), b"x"].concat();
                    place.write("other", other);
                    assert!(!stock.accepts(&place, &key, "other", &signature), "{what} accepts another file");
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
