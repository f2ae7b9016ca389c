//! Public keys as minisign has them: `Ed`, a key id of eight bytes, and the 32 bytes of an Ed25519
//! key (minisign's page, "Public key format").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::PublicKey;
use crate::digest::algorithm::{HashAlgorithm, HashState};

/// The algorithm that keys name, whatever their signatures do.
const ALGORITHM: &[u8] = b"Ed";

/// What the first line begins with.
const COMMENT: &str = "untrusted comment:";

/// A key id: chosen by whoever made the key, shown the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyNumber(pub [u8; 8]);

/// As minisign shows it.
impl std::fmt::Display for KeyNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode_upper(u64::from_le_bytes(self.0).to_be_bytes()))
    }
}

/// The number of a key of ours: what it is made from is the key alone, so it is always the same.
pub fn number_of(key: &PublicKey) -> Option<KeyNumber> {
    let digest = HashState::new(HashAlgorithm::Sha256).and(key.ed25519_bytes()?).finish();
    digest.as_bytes().first_chunk().copied().map(KeyNumber)
}

/// A key as the file that minisign writes. `None`: it is of another kind.
pub fn to_file(key: &PublicKey) -> Option<String> {
    let number = number_of(key)?;
    let body = STANDARD.encode([ALGORITHM, &number.0, key.ed25519_bytes()?].concat());
    Some(format!("{COMMENT} minisign public key {number}\n{body}\n"))
}

/// The key of such a file, or of its second line alone, as `minisign -P` takes it.
pub fn from_file(text: &str) -> Option<(KeyNumber, PublicKey)> {
    let mut lines = text.lines();
    let first = lines.next()?;
    let body = if first.starts_with(COMMENT) { lines.next()? } else { first };
    if lines.any(|line| !line.trim().is_empty()) {
        return None;
    }
    let bytes = STANDARD.decode(body.trim_end_matches('\r')).ok()?;
    let (number, raw) = bytes.strip_prefix(ALGORITHM)?.split_first_chunk::<8>()?;
    Some((KeyNumber(*number), PublicKey::ed25519(raw.try_into().ok()?).ok()?))
}
