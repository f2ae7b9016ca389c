//! PEM (RFC 7468): one block of a label, wherever in a text it stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::PublicKeyError;
use super::lines::base64_lines;

const LABEL: &str = "PUBLIC KEY";

/// The DER of the one public key in `text`. Lines may end in CRLF, and what stands around the block
/// is not read: explanatory text is allowed there (RFC 7468 section 2).
pub(super) fn decode(text: &str) -> Result<Vec<u8>, PublicKeyError> {
    let mut lines = text.lines().map(str::trim_end);
    let (mut key, mut other) = (None, None);
    while let Some(line) = lines.next() {
        let Some(label) = label(line, "-----BEGIN ") else { continue };
        if label != LABEL {
            other.get_or_insert(label);
            continue;
        }
        if key.replace(body(&mut lines)?).is_some() {
            return Err(PublicKeyError::SeveralPem);
        }
    }
    key.ok_or_else(|| other.map_or(PublicKeyError::NoPem, instead))
}

/// The block of `der`, in lines of 64 characters, as OpenSSL writes it.
pub(super) fn encode(der: &[u8]) -> String {
    format!("-----BEGIN {LABEL}-----\n{}-----END {LABEL}-----\n", base64_lines(der, 64))
}

fn label<'t>(line: &'t str, begin: &str) -> Option<&'t str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}

/// What the lines up to the end of the block hold.
fn body<'t>(lines: &mut impl Iterator<Item = &'t str>) -> Result<Vec<u8>, PublicKeyError> {
    let mut digits = String::new();
    for line in lines {
        match label(line, "-----END ") {
            Some(LABEL) => return STANDARD.decode(digits).map_err(|_| PublicKeyError::DamagedPem),
            Some(_) => break,
            None => digits.push_str(line.trim()),
        }
    }
    Err(PublicKeyError::DamagedPem)
}

/// What stands there instead of a public key.
fn instead(label: &str) -> PublicKeyError {
    match label {
        "RSA PUBLIC KEY" => PublicKeyError::Pkcs1,
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => PublicKeyError::Certificate,
        private if private.ends_with("PRIVATE KEY") => PublicKeyError::PrivateKey,
        other => PublicKeyError::OtherPem(other.to_owned()),
    }
}
