//! Public keys as OpenSSH has them: blobs (RFC 4253, section 6.6; RFC 5656; RFC 8709), and lines of
//! text.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::KeyKind;
use super::PublicKey;
use super::ssh_wire::{Reader, mpint, string};

/// Names of key types with that of their curve.
const CURVES: [(KeyKind, &str, &str); 3] = [
    (KeyKind::P256, "ecdsa-sha2-nistp256", "nistp256"),
    (KeyKind::P384, "ecdsa-sha2-nistp384", "nistp384"),
    (KeyKind::P521, "ecdsa-sha2-nistp521", "nistp521"),
];
const ED25519: &str = "ssh-ed25519";
const RSA: &str = "ssh-rsa";

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Another type.
    #[error("its type is none of ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521 and ssh-rsa")]
    Type,
    /// A certificate of a key.
    #[error("it is a certificate; name the key itself")]
    Certificate,
    /// Damaged, or a key that is none.
    #[error("it is damaged, or no key that somebody can have the private key of")]
    Malformed,
}

/// The name of a key's type.
pub fn type_of(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Ed25519 => ED25519,
        KeyKind::Rsa { .. } => RSA,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            CURVES.into_iter().find(|curve| curve.0 == kind).map_or(RSA, |curve| curve.1)
        }
    }
}

/// Whether a word is the name of a type of keys.
pub(crate) fn is_type(word: &str) -> bool {
    [ED25519, RSA].contains(&word) || CURVES.iter().any(|curve| curve.1 == word)
}

/// A key as a blob.
pub fn to_blob(key: &PublicKey) -> Vec<u8> {
    let name = string(type_of(key.kind()).as_bytes());
    let curve = CURVES.into_iter().find(|curve| curve.0 == key.kind());
    match (curve, key.ec_point(), key.ed25519_bytes(), key.rsa_numbers()) {
        (Some((_, _, curve)), Some(point), ..) => [name, string(curve.as_bytes()), string(point)].concat(),
        (_, _, Some(raw), _) => [name, string(raw)].concat(),
        (_, _, _, Some((n, e))) => [name, mpint(e), mpint(n)].concat(),
        _ => name,
    }
}

/// The key of a blob.
///
/// # Errors
/// [`SshKeyError`].
pub fn from_blob(blob: &[u8]) -> Result<PublicKey, SshKeyError> {
    let mut reader = Reader::new(blob);
    let name =
        reader.string().and_then(|name| std::str::from_utf8(name).ok()).ok_or(SshKeyError::Malformed)?;
    if name.contains("-cert-v01@") {
        return Err(SshKeyError::Certificate);
    }
    let mut read = || {
        let key = match name {
            ED25519 => PublicKey::ed25519(reader.string()?.try_into().ok()?).ok(),
            RSA => {
                let e = reader.mpint()?;
                PublicKey::rsa(reader.mpint()?, e).ok()
            }
            _ => {
                let (kind, _, curve) = CURVES.into_iter().find(|curve| curve.1 == name)?;
                let is_its = reader.string()? == curve.as_bytes();
                PublicKey::ec(kind, reader.string()?).ok().filter(|_| is_its)
            }
        };
        key.filter(|_| reader.is_empty())
    };
    match is_type(name) {
        true => read().ok_or(SshKeyError::Malformed),
        false => Err(SshKeyError::Type),
    }
}

/// A key as the line that `ssh-keygen` writes to a `.pub`, without a line break.
pub fn to_line(key: &PublicKey, comment: &str) -> String {
    let line = format!("{} {}", type_of(key.kind()), STANDARD.encode(to_blob(key)));
    if comment.is_empty() { line } else { format!("{line} {comment}") }
}

/// The key of such a line, with what follows it.
///
/// # Errors
/// [`SshKeyError`].
pub fn from_line(line: &str) -> Result<(PublicKey, &str), SshKeyError> {
    let (name, rest) = line.trim_start().split_once([' ', '\t']).ok_or(SshKeyError::Malformed)?;
    let rest = rest.trim_start();
    let (body, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let blob = STANDARD.decode(body.trim_end()).map_err(|_| SshKeyError::Malformed)?;
    let key = from_blob(&blob)?;
    if type_of(key.kind()) != name {
        return Err(SshKeyError::Malformed);
    }
    Ok((key, comment.trim()))
}

/// The fingerprint that `ssh-keygen -l` shows.
pub fn fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &to_blob(key))))
}
