//! Public keys as OpenSSH has them: blobs (RFC 4253, section 6.6; RFC 5656; RFC 8709), and lines of
//! text.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::ssh_wire::{Reader, mpint, string};
use super::{KeyKind, PublicKey, PublicKeyError};

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
    /// A key of a FIDO device. What it signs holds flags and a counter besides.
    #[error("it is a key of a security key (sk-…), which are not supported")]
    SecurityKey,
    /// Too few bits to be safe, or too many to be quick.
    #[error("it is an RSA key of {0} bits; 2048 to 8192 are taken")]
    RsaSize(usize),
    /// Damaged, or a key that is none.
    #[error("it is damaged, or no key that somebody can have the private key of")]
    Malformed,
}

impl From<PublicKeyError> for SshKeyError {
    fn from(error: PublicKeyError) -> Self {
        if let PublicKeyError::RsaSize(bits) = error { Self::RsaSize(bits) } else { Self::Malformed }
    }
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
    let key = match name {
        ED25519 => {
            let raw = reader.string().and_then(|raw| raw.try_into().ok()).ok_or(SshKeyError::Malformed)?;
            PublicKey::ed25519(raw)?
        }
        RSA => {
            let (e, n) = (reader.mpint(), reader.mpint());
            PublicKey::rsa(n.ok_or(SshKeyError::Malformed)?, e.ok_or(SshKeyError::Malformed)?)?
        }
        _ => {
            let curve = CURVES.into_iter().find(|curve| curve.1 == name);
            let (kind, _, curve) = curve.ok_or_else(|| unknown_type(name))?;
            let (said, point) = (reader.string(), reader.string().ok_or(SshKeyError::Malformed)?);
            if said != Some(curve.as_bytes()) {
                return Err(SshKeyError::Malformed);
            }
            PublicKey::ec(kind, point)?
        }
    };
    if reader.is_empty() { Ok(key) } else { Err(SshKeyError::Malformed) }
}

/// What a type is that is not taken.
fn unknown_type(name: &str) -> SshKeyError {
    if name.contains("-cert-v01@") {
        SshKeyError::Certificate
    } else if name.starts_with("sk-") {
        SshKeyError::SecurityKey
    } else {
        SshKeyError::Type
    }
}

/// Whether a word looks like the name of a type, be it one of those that are taken or not: then it
/// is no option of allowed signers, and no principal.
pub(super) fn looks_like_type(word: &str) -> bool {
    is_type(word)
        || ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|begin| word.starts_with(begin))
}

/// A key as the line that `ssh-keygen` writes to a `.pub`, without a line break.
pub fn to_line(key: &PublicKey, comment: &str) -> String {
    let line = format!("{} {}", type_of(key.kind()), STANDARD.encode(to_blob(key)));
    if comment.is_empty() { line } else { format!("{line} {comment}") }
}

/// The key of such a line, with what follows it. Blanks are those of ASCII, as for OpenSSH.
///
/// # Errors
/// [`SshKeyError`].
pub fn from_line(line: &str) -> Result<(PublicKey, &str), SshKeyError> {
    let (name, rest) = line.trim_ascii().split_once([' ', '\t']).ok_or(SshKeyError::Malformed)?;
    let rest = rest.trim_ascii_start();
    let (body, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    if !is_type(name) && looks_like_type(name) {
        return Err(unknown_type(name)); // whatever its blob is like
    }
    let key = from_blob(&STANDARD.decode(body).map_err(|_| SshKeyError::Malformed)?)?;
    if type_of(key.kind()) != name {
        return Err(SshKeyError::Malformed);
    }
    Ok((key, comment.trim_ascii()))
}

/// The fingerprint that `ssh-keygen -l` shows.
pub fn fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &to_blob(key))))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Lines that `ssh-keygen` wrote, and the fingerprints that `ssh-keygen -l` shows of them.
    fn stock() -> Vec<(String, String)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/public");
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        let fingerprints = read("fingerprints");
        let lines = fingerprints.lines().map(|line| line.split_once(' ').unwrap());
        lines.map(|(name, fingerprint)| (read(name), fingerprint.to_owned())).collect()
    }

    #[test]
    fn lines_and_fingerprints_are_those_of_openssh() {
        let stock = stock();
        assert_eq!(stock.len(), 5, "one of each type");
        for (line, shown) in stock {
            let (key, comment) = from_line(&line).unwrap();
            assert_eq!(to_line(&key, comment) + "\n", line);
            assert_eq!(fingerprint(&key), shown);
            assert_eq!(from_blob(&to_blob(&key)), Ok(key.clone()));
            // Words may be wide apart, and the comment is nothing to the key.
            let wide = format!("\t {} \r\n", line.trim().replacen(' ', " \t", 2));
            assert_eq!(from_line(&wide).unwrap().0, key);
            let blob = to_blob(&key);
            for at in 0..blob.len() {
                assert!(from_blob(&blob[..at]).is_err(), "{line} cut at {at}");
                let mut changed = blob.clone();
                changed[at] ^= 0x10;
                assert_ne!(from_blob(&changed).as_ref(), Ok(&key), "{line}, byte {at}");
            }
            assert_eq!(from_blob(&[&blob[..], &[0]].concat()), Err(SshKeyError::Malformed));
        }
    }

    #[test]
    fn a_key_that_is_not_taken_is_told_by_what_it_is() {
        let blob = |name: &str| STANDARD.encode([string(name.as_bytes()), string(&[1; 32])].concat());
        let small = STANDARD.encode([string(b"ssh-rsa"), mpint(&[1, 0, 1]), mpint(&[0xff; 128])].concat());
        for (line, error) in [
            (format!("ssh-dss {}", blob("ssh-dss")), SshKeyError::Type),
            (
                format!("ssh-ed25519-cert-v01@openssh.com {}", blob("ssh-ed25519-cert-v01@openssh.com")),
                SshKeyError::Certificate,
            ),
            (
                format!("sk-ssh-ed25519@openssh.com {}", blob("sk-ssh-ed25519@openssh.com")),
                SshKeyError::SecurityKey,
            ),
            (format!("ssh-ed25519 {}", blob("sk-ssh-ed25519@openssh.com")), SshKeyError::SecurityKey),
            (format!("ssh-rsa {small}"), SshKeyError::RsaSize(1024)),
            (format!("ssh-rsa {}", blob("ssh-ed25519")), SshKeyError::Malformed),
            (format!("ssh-ed25519 {}", &blob("ssh-ed25519")[1..]), SshKeyError::Malformed),
            ("ssh-ed25519".to_owned(), SshKeyError::Malformed),
        ] {
            assert_eq!(from_line(&line), Err(error), "{line}");
        }
    }
}
