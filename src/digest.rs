//! The SHA-512 of a payload: what a signature vouches for.
//!
//! A [`Digest`] cannot be compared with `==`. The one comparison is [`Digest::matches`], in
//! constant time, so that no second, sloppier one can grow.

pub mod algorithm;
pub mod set;
pub mod stream;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

/// Size of a digest in bytes, and so of a plain signature's plaintext.
pub const LEN: usize = 64;

/// The SHA-512 (FIPS 180-4) of a file's bytes.
///
/// ```
/// use kms_sig::digest::{Digest, Hasher};
///
/// let whole = Digest::of(b"a payload");
/// let mut pieces = Hasher::default();
/// pieces.update(b"a pay");
/// pieces.update(b"load");
/// assert!(whole.matches(pieces.finish().as_bytes()));
/// ```
#[derive(Clone)]
pub struct Digest([u8; LEN]);

impl Digest {
    /// The digest of `bytes`, for data that is already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether `plaintext` is exactly these 64 bytes. Constant time in the content; a wrong length
    /// is simply no match.
    pub fn matches(&self, plaintext: &[u8]) -> bool {
        self.0.ct_eq(plaintext).into()
    }

    /// Whether it is the digest that `text` has in hexadecimal, as somebody may have written it.
    /// Text that is no digest is no match.
    pub fn matches_text(&self, text: &str) -> bool {
        text.parse::<Self>().is_ok_and(|other| self.matches(&other.0))
    }

    /// Whether its first bytes are these. Constant time in the content.
    pub fn begins_with(&self, bytes: &[u8]) -> bool {
        self.0.get(..bytes.len()).is_some_and(|first| first.ct_eq(bytes).into())
    }

    /// The 64 bytes, as they go to KMS.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// 128 lower-case hexadecimal digits, as `sha512sum` prints them.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no SHA-512; one has 128 lower-case hexadecimal digits")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let mut digest = [0; LEN];
        let is_lower_case = !text.bytes().any(|digit| digit.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut digest) {
            Ok(()) if is_lower_case => Ok(Self(digest)),
            Ok(()) | Err(_) => Err(NoDigest),
        }
    }
}

/// Hashes a stream piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha512);

impl Hasher {
    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // NIST CAVP SHA-512 short-message vectors, lengths 0 and 24 bits.
    const EMPTY: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                         47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn known_answers() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let mut pieces = Hasher::default();
        pieces.update(b"a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish().to_string(), ABC);
    }

    // NIST's example of two blocks, and the million of FIPS 180-2, C.3.
    const TWO_BLOCKS: &str = "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018\
                              501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909";
    const MILLION: &str = "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb\
                           de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b";

    #[test]
    fn known_answers_of_several_blocks() {
        let message = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        assert_eq!(Digest::of(message).to_string(), TWO_BLOCKS);
        assert_eq!(Digest::of(&[b'a'; 1_000_000]).to_string(), MILLION);
    }

    proptest! {
        #[test]
        fn p3_any_updates_are_one_message(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..12)) {
            let mut hasher = Hasher::default();
            pieces.iter().for_each(|piece| hasher.update(piece));
            prop_assert!(hasher.finish().matches(Digest::of(&pieces.concat()).as_bytes()));
        }
    }

    #[test]
    fn k6_only_the_same_64_bytes_match() {
        let digest = Digest::of(b"abc");
        let bytes = *digest.as_bytes();
        assert!(digest.matches(&bytes));
        for i in 0..LEN {
            let mut flipped = bytes;
            flipped[i] ^= 1;
            assert!(!digest.matches(&flipped), "byte {i}");
        }
        assert!(!digest.matches(&bytes[..63]));
        assert!(!digest.matches(&[bytes.as_slice(), &[0]].concat()));
        assert!(!digest.matches(b""));
        assert!(!digest.matches(Digest::of(b"abd").as_bytes()));
    }

    #[test]
    fn text_is_a_digest_only_as_it_is_written() {
        let (digest, text) = (Digest::of(b"abc"), Digest::of(b"abc").to_string());
        assert!(digest.matches_text(&text));
        let (mut longer, mut shorter) = (text.clone() + "00", text.clone());
        shorter.truncate(126);
        let other = text.replacen('d', "e", 1);
        for wrong in [&other, &text.to_uppercase(), &longer, &shorter, &text.replacen('d', "g", 1), ""] {
            assert!(!digest.matches_text(wrong), "{wrong}");
        }
        longer.pop();
        assert!(longer.parse::<Digest>().is_err(), "an odd number of digits");
        assert!(other.parse::<Digest>().is_ok());
    }

    #[test]
    fn the_first_bytes_are_compared_with_as_many() {
        let digest = Digest::of(b"abc");
        let (half, _) = digest.as_bytes().split_at(32);
        assert!(digest.begins_with(half) && digest.begins_with(digest.as_bytes()));
        assert!(!Digest::of(b"abd").begins_with(half));
        assert!(!digest.begins_with(&[0; LEN + 1]));
    }
}
