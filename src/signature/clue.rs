//! What somebody seems to have meant by a file that is no signature of ours, or is not where one
//! would be.
//!
//! For words alone: a clue decides nothing, and no verdict depends on one. It is looked for in what
//! was read or found anyway, bounded, and told to whoever has to find out what went wrong.

use std::ffi::{OsStr, OsString};
use std::fmt;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

use super::ciphertext;
use super::format::Format;
use super::suffix::Suffix;
use crate::escape::Escaped;

/// What a file seems to be that is no signature, or is not where one would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clue {
    /// Its bytes are those of a signature in another form.
    Encoded(Encoding),
    /// A line of `sha512sum` or its like: a digest that nobody vouches for.
    Checksum,
    /// A file of nearly the signature's name lies beside the payload.
    Misnamed(OsString),
    /// A signature of another program lies beside the payload, by its name.
    OtherProgram(OsString),
}

/// How the bytes of a signature are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As base64, in either alphabet, on any number of lines.
    Base64,
    /// As base64 somewhere in other text: JSON, YAML, a table.
    Embedded,
    /// As hexadecimal digits.
    Hex,
    /// As any of these, in UTF-16: what `>` of Windows PowerShell writes.
    Utf16,
}

/// What is encrypted has 64 bytes, and no ciphertext adds fewer than 28 to it (a nonce and a tag).
/// So the text of a bare digest is no encoded signature.
const MIN_LEN: usize = 92;

impl Clue {
    /// What bytes seem to be that have a signature's name.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match utf16(bytes) {
            Some(text) => Encoding::of(&text).map(|_| Self::Encoded(Encoding::Utf16)),
            // What is read is cut at a length, maybe in the middle of a character.
            None => {
                let text =
                    bytes.utf8_chunks().next().filter(|chunk| chunk.valid().len() + 3 >= bytes.len())?;
                let text = text.valid();
                if is_checksum(text) {
                    return Some(Self::Checksum);
                }
                Encoding::of(text).map(Self::Encoded)
            }
        }
    }

    /// What has nearly the name of a payload's signature, where none has the name itself.
    /// `is_there` says whether something has a name.
    pub(crate) fn beside(payload: &OsStr, mut is_there: impl FnMut(&OsStr) -> bool) -> Option<Self> {
        let suffix = Format::Kms.suffix();
        let exact = suffix.signature_of(payload);
        let near = misnamed(payload, suffix).into_iter().find(|name| *name != exact && is_there(name));
        if let Some(name) = near {
            return Some(Self::Misnamed(name));
        }
        let others = OTHER_PROGRAMS.into_iter().map(|end| with(payload, end));
        others.into_iter().find(|name| is_there(name)).map(Self::OtherProgram)
    }

    /// The code, for records and programs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Encoded(Encoding::Base64) => "base64",
            Self::Encoded(Encoding::Embedded) => "base64-in-text",
            Self::Encoded(Encoding::Hex) => "hex",
            Self::Encoded(Encoding::Utf16) => "utf-16",
            Self::Checksum => "checksum",
            Self::Misnamed(_) => "misnamed",
            Self::OtherProgram(_) => "other-program",
        }
    }

    /// The file that it names.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        match self {
            Self::Encoded(_) | Self::Checksum => None,
            Self::Misnamed(name) | Self::OtherProgram(name) => Some(name),
        }
    }

    /// The clue of a code, and of the name that goes with it.
    pub(crate) fn parse(code: &str, name: Option<OsString>) -> Option<Self> {
        let alone = match code {
            "base64" => Self::Encoded(Encoding::Base64),
            "base64-in-text" => Self::Encoded(Encoding::Embedded),
            "hex" => Self::Encoded(Encoding::Hex),
            "utf-16" => Self::Encoded(Encoding::Utf16),
            "checksum" => Self::Checksum,
            "misnamed" => return name.map(Self::Misnamed),
            "other-program" => return name.map(Self::OtherProgram),
            _ => return None,
        };
        name.is_none().then_some(alone)
    }
}

/// What it is and what to do about it, for people.
impl fmt::Display for Clue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(Encoding::Base64) => f.write_str(
                "the signature file is base64 text, as aws kms encrypt prints it, and a signature is the bytes \
                 that it stands for: decode it (base64 -d)",
            ),
            Self::Encoded(Encoding::Embedded) => f.write_str(
                "the signature file is text with a ciphertext in it as base64, as aws kms encrypt prints it, and a \
                 signature is the bytes alone: take CiphertextBlob (--query CiphertextBlob --output text) and decode \
                 it (base64 -d)",
            ),
            Self::Encoded(Encoding::Hex) => f.write_str(
                "the signature file is hexadecimal text, and a signature is the bytes that it stands for: decode it \
                 (xxd -r -p)",
            ),
            Self::Encoded(Encoding::Utf16) => f.write_str(
                "the signature file is text in UTF-16, as > of Windows PowerShell writes it, and a signature is the \
                 bytes that the text stands for: decode it (iconv -f UTF-16 -t UTF-8, then base64 -d)",
            ),
            Self::Checksum => f.write_str(
                "the signature file is a checksum, which anybody can make and nobody vouches for: sign the file \
                 (kms-sig sign)",
            ),
            Self::Misnamed(name) => write!(
                f,
                "\"{}\" is there: a signature has the name of its file and {} after it, in exactly these \
                 characters; rename it if it is the signature",
                Escaped::new(name),
                Format::Kms.suffix()
            ),
            Self::OtherProgram(name) => write!(
                f,
                "\"{}\" is there, by its name a signature that a public key verifies (--trust KEYFILE)",
                Escaped::new(name)
            ),
        }
    }
}

/// Endings of other programs' signatures.
const OTHER_PROGRAMS: [&str; 5] = [".asc", ".minisig", ".sign", ".gpg", ".sigstore.json"];

/// Endings that other tools leave after the suffix.
const AFTER_SUFFIX: [&str; 6] = [".txt", ".b64", ".base64", ".hex", ".json", ".bin"];

fn with(name: &OsStr, end: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(end);
    name
}

/// Names that a signature of this payload may have got by mistake: another case, another Unicode
/// normalization of the payload's name, an ending after the suffix. Few, as each of them is looked
/// for.
fn misnamed(payload: &OsStr, suffix: Suffix) -> Vec<OsString> {
    let mut payloads = vec![payload.to_owned()];
    if let Some(text) = payload.to_str() {
        let others = [
            text.to_lowercase(),
            text.to_uppercase(),
            ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned(),
            DecomposingNormalizerBorrowed::new_nfd().normalize(text).into_owned(),
        ];
        payloads.extend(others.into_iter().map(OsString::from));
    }
    payloads.dedup();
    let suffixes = suffix.in_each_case();
    let mut names: Vec<OsString> = Vec::new();
    for payload in &payloads {
        names.extend(suffixes.iter().map(|suffix| with(payload, suffix)));
    }
    names.extend(AFTER_SUFFIX.map(|end| with(&suffix.signature_of(payload), end)));
    names
}

impl Encoding {
    fn of(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let bare = text.trim_matches(['"', '\'']);
        let digits = bare.strip_prefix("0x").unwrap_or(bare);
        let digits: String = digits.chars().filter(|c| !c.is_ascii_whitespace() && *c != ':').collect();
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let even = digits.get(..digits.len() / 2 * 2).unwrap_or_default();
            return hex::decode(even).ok().filter(|bytes| may_be_signature(bytes)).map(|_| Self::Hex);
        }
        let joined: String = bare.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if base64(&joined).is_some_and(|bytes| may_be_signature(&bytes)) {
            return Some(Self::Base64);
        }
        // As encoders of JSON write these characters when they are careful.
        let text = [
            ("\\/", "/"),
            ("\\n", ""),
            ("\\u002b", "+"),
            ("\\u002B", "+"),
            ("\\u003d", "="),
            ("\\u003D", "="),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, meant)| text.replace(escaped, meant));
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/=_-".contains(c)));
        let is_signature = |word: &str| base64(word).is_some_and(|bytes| is_signature(&bytes));
        words.into_iter().any(is_signature).then_some(Self::Embedded)
    }
}

/// Whether bytes are known to be a signature of ours.
fn is_signature(bytes: &[u8]) -> bool {
    ciphertext::form(bytes).is_some()
        || bytes.starts_with(super::batch::MAGIC)
        || (bytes.starts_with(b"KSL1") && bytes.len() >= MIN_LEN)
}

/// Whether they may be one: also of a service that nobody knows here, or encoded once more.
fn may_be_signature(bytes: &[u8]) -> bool {
    is_signature(bytes)
        || bytes.len() >= MIN_LEN
            && match std::str::from_utf8(bytes) {
                Ok(text) => Encoding::of(text).is_some(),
                Err(_) => true,
            }
}

/// The digest of a file in hexadecimal, alone or as `sha512sum` and its like print it: with a name
/// after it, or (`--tag`) a name before.
fn is_checksum(text: &str) -> bool {
    let is_digest =
        |word: &str| [64, 96, 128].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let line = line.trim();
    line.split_whitespace().next().is_some_and(is_digest) || line.rsplit(" = ").next().is_some_and(is_digest)
}

/// Text in UTF-16, by its byte order mark.
fn utf16(bytes: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, _) = bytes.get(2..)?.as_chunks::<2>();
    String::from_utf16(&units.iter().map(|pair| unit(*pair)).collect::<Vec<_>>()).ok()
}

/// As lenient as what people paste: padded or not, and cut anywhere.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes that base64 stands for (RFC 4648, sections 4 and 5), with or without padding; what a
/// cut has left over at the end is ignored.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.is_empty() || text.contains("-----") {
        return None;
    }
    let text = text.replace('-', "+").replace('_', "/");
    let whole = if text.len() % 4 == 1 { text.len() - 1 } else { text.len() };
    LENIENT.decode(text.get(..whole)?).ok()
}

impl Suffix {
    /// The suffix with its letters in each case.
    fn in_each_case(self) -> Vec<String> {
        self.to_string().chars().fold(vec![String::new()], |starts, c| {
            let cases = if c.is_ascii_alphabetic() {
                vec![c.to_ascii_lowercase(), c.to_ascii_uppercase()]
            } else {
                vec![c]
            };
            starts.iter().flat_map(|start| cases.iter().map(move |c| format!("{start}{c}"))).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ciphertext as those of AWS KMS are.
    fn ciphertext() -> Vec<u8> {
        let noise = (0..179).map(|at| 0x80 | (at * 37 % 128) as u8);
        [1, 2, 2, 0, 0x78].into_iter().chain(noise).collect()
    }

    fn encoded(bytes: &[u8]) -> String {
        base64::prelude::BASE64_STANDARD.encode(bytes)
    }

    fn lines(text: &str, width: usize, end: &str) -> String {
        text.as_bytes().chunks(width).map(|line| String::from_utf8(line.to_vec()).unwrap() + end).collect()
    }

    #[test]
    fn what_stands_for_a_signature_is_told_by_how_it_is_written() {
        let base64 = encoded(&ciphertext());
        let hex = hex::encode(ciphertext());
        let escaped = base64.replace('/', "\\/").replace('+', "\\u002b");
        let utf16 = |text: &str| -> Vec<u8> {
            [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        };
        let batch = encoded(b"kms-sig batch 1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n!");
        let local = encoded(&[b"KSL1\x04demo".as_slice(), &ciphertext()[5..]].concat());
        for (bytes, code) in [
            (base64.clone().into_bytes(), "base64"),
            (format!("{base64}\n").into_bytes(), "base64"),
            (format!("\"{base64}\"\r\n").into_bytes(), "base64"),
            (lines(&base64, 76, "\n").into_bytes(), "base64"),
            (lines(&base64, 64, "\r\n").into_bytes(), "base64"),
            (base64.replace('+', "-").replace('/', "_").trim_end_matches('=').into(), "base64"),
            (format!("\u{feff}{base64}").into_bytes(), "base64"),
            (encoded(lines(&base64, 76, "\n").as_bytes()).into_bytes(), "base64"), // twice
            (batch.into_bytes(), "base64"),
            (local.into_bytes(), "base64"),
            (
                format!("{{\n    \"CiphertextBlob\": \"{base64}\",\n    \"KeyId\": \"k\"\n}}\n").into_bytes(),
                "base64-in-text",
            ),
            (format!("{{\"CiphertextBlob\":\"{escaped}\"}}").into_bytes(), "base64-in-text"),
            (format!("CiphertextBlob: {base64}\nKeyId: k\n").into_bytes(), "base64-in-text"),
            (
                format!("{base64}\tarn:aws:kms:eu-west-1:111122223333:key/k\tSYMMETRIC_DEFAULT\n")
                    .into_bytes(),
                "base64-in-text",
            ),
            (format!("|  CiphertextBlob |  {base64}  |\n").into_bytes(), "base64-in-text"),
            (hex.clone().into_bytes(), "hex"),
            (lines(&hex.to_uppercase(), 60, "\n").into_bytes(), "hex"),
            (format!("0x{hex}").into_bytes(), "hex"),
            (lines(&hex, 2, ":").into_bytes(), "hex"),
            (utf16(&format!("{base64}\r\n")), "utf-16"),
            (format!("{}  app.tar.gz\n", "0a".repeat(64)).into_bytes(), "checksum"),
            (format!("SHA2-512(f) = {}\n", "0a".repeat(64)).into_bytes(), "checksum"),
            ("0a".repeat(32).into_bytes(), "checksum"),
        ] {
            let clue = Clue::of(&bytes);
            assert_eq!(clue.as_ref().map(Clue::as_str), Some(code), "{:?}", String::from_utf8_lossy(&bytes));
        }
        // Cut where reading ends.
        let long = encoded(&[ciphertext(), vec![0x80; 20_000]].concat());
        assert_eq!(Clue::of(&long.as_bytes()[..15_418]).unwrap().as_str(), "base64");
    }

    #[test]
    fn what_may_be_anything_is_no_clue() {
        for bytes in [
            &b""[..],
            &ciphertext(),
            b"hello, world\n",
            b"not a signature",
            &[b'A'; 50],
            &[b' '; 300],
            "größer".repeat(40).as_bytes(),
            encoded(&[7; 64]).as_bytes(), // a bare digest
            b"-----BEGIN PGP SIGNATURE-----\n\niQEzBAABCgAdFiEE\n-----END PGP SIGNATURE-----\n",
            b"kms-sig batch 1\n",
            &[0xff; 300],
        ] {
            assert_eq!(Clue::of(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_has_nearly_the_name_of_a_signature_is_found() {
        let beside = |payload: &str, there: &str| {
            let clue = Clue::beside(OsStr::new(payload), |name| name == OsStr::new(there));
            clue.map(|clue| (clue.as_str(), clue.name().unwrap().to_str().unwrap().to_owned()))
        };
        for (payload, there) in [
            ("X.TXT", "X.TXT.SIG"),
            ("X.TXT", "X.TXT.Sig"),
            ("X.TXT", "x.txt.sig"),
            ("x.txt", "X.TXT.SIG"),
            ("x.txt", "x.txt.sig.txt"),
            ("caf\u{e9}", "cafe\u{301}.sig"),
            ("cafe\u{301}", "caf\u{e9}.sig"),
        ] {
            assert_eq!(beside(payload, there), Some(("misnamed", there.to_owned())), "{payload}");
        }
        assert_eq!(beside("f", "f.minisig"), Some(("other-program", "f.minisig".to_owned())));
        for there in ["f.sig", "g.SIG", "f", ".SIG"] {
            assert_eq!(beside("f", there), None, "{there}");
        }
    }

    #[test]
    fn each_clue_is_known_by_its_code() {
        let name = || OsString::from("f.SIG");
        for clue in [
            Clue::Encoded(Encoding::Base64),
            Clue::Encoded(Encoding::Embedded),
            Clue::Encoded(Encoding::Hex),
            Clue::Encoded(Encoding::Utf16),
            Clue::Checksum,
            Clue::Misnamed(name()),
            Clue::OtherProgram(name()),
        ] {
            assert_eq!(Clue::parse(clue.as_str(), clue.name().map(OsStr::to_owned)), Some(clue));
        }
        assert_eq!(Clue::parse("misnamed", None), None);
        assert_eq!(Clue::parse("base64", Some(name())), None);
        assert_eq!(Clue::parse("of-a-later-version", None), None);
    }
}
