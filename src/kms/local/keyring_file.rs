//! The text of a keyring: TOML, in two versions.
//!
//! Version 1 has keys for AES only, and is what is written as long as there are no others: an older
//! program goes on reading it. Version 2 says the type of each key. Faults are told by line and
//! never by its text, which may hold a secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;
use zeroize::Zeroizing;

use super::key_type::KeyType;
use super::material::Material;
use crate::key::KeyArn;

/// The versions that are read, in words.
pub(super) const KNOWN_VERSIONS: &str = "versions 1 and 2";

/// A key of a keyring.
pub(super) struct Key {
    pub(super) arn: KeyArn,
    pub(super) material: Material,
    pub(super) created: SystemTime,
}

/// Why a text is no keyring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is of another version.
    Version(i64),
    /// This line, from 1, is not what a keyring holds.
    Line(usize),
}

/// What every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version1 {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    keys: BTreeMap<String, KeyOf1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOf1 {
    secret: Spanned<Secret>,
    #[serde(deserialize_with = "time")]
    created: SystemTime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version2 {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    keys: BTreeMap<String, KeyOf2>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyOf2 {
    #[serde(rename = "type", deserialize_with = "key_type")]
    key_type: KeyType,
    secret: Spanned<Secret>,
    #[serde(deserialize_with = "time")]
    created: SystemTime,
}

/// Bytes in hexadecimal.
struct Secret(Zeroizing<Vec<u8>>);

/// The keys in a text, by name.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Key>, Fault> {
    let fault = |error: toml::de::Error| line(text, error.span().map(|span| span.start));
    let AnyVersion { version } = toml::from_str(text).map_err(fault)?;
    let raw: BTreeMap<String, KeyOf2> = match version {
        1 => {
            let of_aes = |(name, KeyOf1 { secret, created })| {
                (name, KeyOf2 { key_type: KeyType::Aes, secret, created })
            };
            toml::from_str::<Version1>(text).map_err(fault)?.keys.into_iter().map(of_aes).collect()
        }
        2 => toml::from_str::<Version2>(text).map_err(fault)?.keys,
        other => return Err(Fault::Version(other)),
    };
    let mut keys = BTreeMap::new();
    for (name, KeyOf2 { key_type, secret, created }) in raw {
        let arn = format!("local:{name}").parse().map_err(|_| line(text, text.find(&name)))?;
        let at = secret.span().start;
        let Secret(stored) = secret.into_inner();
        let material = Material::of(key_type, stored).ok_or_else(|| line(text, Some(at)))?;
        keys.insert(name, Key { arn, material, created });
    }
    Ok(keys)
}

fn line(text: &str, at: Option<usize>) -> Fault {
    let before = text.get(..at.unwrap_or_default()).unwrap_or_default();
    Fault::Line(1 + before.matches('\n').count())
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = Zeroizing::new(String::deserialize(deserializer)?);
        let mut bytes = Zeroizing::new(vec![0; digits.len() / 2]);
        // Its error names a digit of the secret.
        hex::decode_to_slice(&*digits, &mut bytes)
            .map_err(|_| D::Error::custom("a secret is hexadecimal, two digits a byte"))?;
        Ok(Self(bytes))
    }
}

fn key_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyType, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// RFC 3339, in UTC.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The text of these keys.
pub(super) fn render(keys: &BTreeMap<String, Key>) -> Zeroizing<String> {
    // More than it takes (names, types, times, and two digits for each byte), because a string that
    // grows leaves copies of secrets behind.
    let stored: usize = keys.values().map(|key| 2 * key.material.stored().len() + 320).sum();
    let mut text = Zeroizing::new(String::with_capacity(256 + stored));
    let has_types = keys.values().any(|key| key.material.key_type() != KeyType::Aes);
    text.push_str("# Keys of kms-sig on this host. Who can read this file can sign.\n");
    writeln!(text, "version = {}", if has_types { 2 } else { 1 }).unwrap_or_default();
    for (name, key) in keys {
        let quote = if name.contains('.') { "\"" } else { "" };
        writeln!(text, "\n[keys.{quote}{name}{quote}]").unwrap_or_default();
        if has_types {
            writeln!(text, "type = \"{}\"", key.material.key_type()).unwrap_or_default();
        }
        let created = humantime::format_rfc3339_seconds(key.created);
        write!(text, "created = \"{created}\"\nsecret = \"").unwrap_or_default();
        for byte in key.material.stored() {
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text.push_str("\"\n");
    }
    text
}
