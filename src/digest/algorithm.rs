//! The hash functions that formats of signatures ask for, and what each of them gives.

use std::fmt;

use blake2::Blake2b512;
use sha2::{Digest as _, Sha256, Sha384};
use subtle::ConstantTimeEq as _;

use super::{Digest, Hasher};

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// BLAKE2b with 64 bytes and without a key (RFC 7693), as `b2sum` and minisign compute it.
    Blake2b512,
}

impl HashAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Blake2b512];

    /// Bytes of its digests.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 | Self::Blake2b512 => MAX_LEN,
        }
    }
}

/// Its usual name, for messages.
impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Blake2b512 => "BLAKE2b-512",
        })
    }
}

/// Bytes of the longest digest.
const MAX_LEN: usize = 64;

/// The digest of some bytes, and which function gave it. As a [`Digest`], it is compared with
/// [`HashValue::matches`] alone.
#[derive(Clone)]
pub struct HashValue {
    algorithm: HashAlgorithm,
    /// Of which only so many are used as the algorithm gives.
    bytes: [u8; MAX_LEN],
}

impl HashValue {
    fn new(algorithm: HashAlgorithm, digest: &[u8]) -> Self {
        let mut bytes = [0; MAX_LEN];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        Self { algorithm, bytes }
    }

    /// Which function gave it.
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes: 32, 48 or 64.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.digest_len()).unwrap_or_default()
    }

    /// Whether `bytes` are exactly these. Constant time in the content; a wrong length is simply no
    /// match.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.as_bytes().ct_eq(bytes).into()
    }

    /// The same as a [`Digest`], if it is of SHA-512.
    pub const fn sha512(&self) -> Option<Digest> {
        match self.algorithm {
            HashAlgorithm::Sha512 => Some(Digest(self.bytes)),
            HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Blake2b512 => None,
        }
    }
}

impl From<Digest> for HashValue {
    fn from(digest: Digest) -> Self {
        Self { algorithm: HashAlgorithm::Sha512, bytes: digest.0 }
    }
}

/// Lower-case hexadecimal digits, as `sha256sum` and `b2sum` print them.
impl fmt::Display for HashValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for HashValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({self})", self.algorithm)
    }
}

/// A hash function at work. A clone goes on by itself: what is signed may be a payload and then a
/// trailer that is only known later (OpenPGP, RFC 9580 section 5.2.4), and one read of the payload
/// serves any number of those.
///
/// ```
/// use kms_sig::digest::algorithm::{HashAlgorithm, HashState};
///
/// let mut payload = HashState::new(HashAlgorithm::Sha256);
/// payload.update(b"a large file, ");
/// let signed = payload.clone().and(b"and the trailer of its signature").finish();
/// let whole = HashState::new(HashAlgorithm::Sha256)
///     .and(b"a large file, and the trailer of its signature")
///     .finish();
/// assert!(signed.matches(whole.as_bytes()));
/// ```
#[derive(Debug, Clone)]
pub enum HashState {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Hasher),
    /// BLAKE2b-512.
    Blake2b512(Blake2b512),
}

impl HashState {
    /// One that has taken nothing.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Sha256 => Self::Sha256(Sha256::default()),
            HashAlgorithm::Sha384 => Self::Sha384(Sha384::default()),
            HashAlgorithm::Sha512 => Self::Sha512(Hasher::default()),
            HashAlgorithm::Blake2b512 => Self::Blake2b512(Blake2b512::default()),
        }
    }

    /// Of which function.
    pub const fn algorithm(&self) -> HashAlgorithm {
        match self {
            Self::Sha256(_) => HashAlgorithm::Sha256,
            Self::Sha384(_) => HashAlgorithm::Sha384,
            Self::Sha512(_) => HashAlgorithm::Sha512,
            Self::Blake2b512(_) => HashAlgorithm::Blake2b512,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha384(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
            Self::Blake2b512(state) => state.update(bytes),
        }
    }

    /// The same, having taken these bytes as well.
    #[must_use]
    pub fn and(mut self, bytes: &[u8]) -> Self {
        self.update(bytes);
        self
    }

    /// The digest of everything taken.
    pub fn finish(self) -> HashValue {
        let algorithm = self.algorithm();
        match self {
            Self::Sha256(state) => HashValue::new(algorithm, &state.finalize()),
            Self::Sha384(state) => HashValue::new(algorithm, &state.finalize()),
            Self::Sha512(state) => state.finish().into(),
            Self::Blake2b512(state) => HashValue::new(algorithm, &state.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each function gives of nothing, of `abc`, of FIPS 180-4's messages of two blocks, and
    /// of a million `a`. Sources: FIPS 180-4 and its examples (NIST), RFC 7693 appendix A; the rest
    /// by coreutils' sums.
    const ANSWERS: [(HashAlgorithm, [&str; 4]); 4] = [
        (
            HashAlgorithm::Sha256,
            [
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ],
        ),
        (
            HashAlgorithm::Sha384,
            [
                "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da\
                 274edebfe76f65fbd51ad2f14898b95b",
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7",
                "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712\
                 fcc7c71a557e2db966c3e9fa91746039",
                "9d0e1809716474cb086e834e310a4a1ced149e9c00f248527972cec5704c2a5b\
                 07b8b3dc38ecc4ebae97ddd87f3d8985",
            ],
        ),
        (
            HashAlgorithm::Sha512,
            [
                "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                 47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
                "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018\
                 501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909",
                "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb\
                 de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b",
            ],
        ),
        (
            HashAlgorithm::Blake2b512,
            [
                "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419\
                 d25e1031afee585313896444934eb04b903a685b1448b755d56f701afe9be2ce",
                "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                 7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
                "ce741ac5930fe346811175c5227bb7bfcd47f42612fae46c0809514f9e0e3a11\
                 ee1773287147cdeaeedff50709aa716341fe65240f4ad6777d6bfaf9726e5e52",
                "98fb3efb7206fd19ebf69b6f312cf7b64e3b94dbe1a17107913975a793f177e1\
                 d077609d7fba363cbba00d05f7aa4e4fa8715d6428104c0a75643b0ff3fd3eaf",
            ],
        ),
    ];

    const TWO_BLOCKS_OF_64: &[u8] = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    const TWO_BLOCKS_OF_128: &[u8] =
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";

    fn hash(algorithm: HashAlgorithm, bytes: &[u8]) -> HashValue {
        HashState::new(algorithm).and(bytes).finish()
    }

    #[test]
    fn known_answers_of_every_function() {
        for (algorithm, [empty, abc, two_blocks, million]) in ANSWERS {
            let blocks = match algorithm {
                HashAlgorithm::Sha256 => TWO_BLOCKS_OF_64,
                HashAlgorithm::Sha384 | HashAlgorithm::Sha512 | HashAlgorithm::Blake2b512 => {
                    TWO_BLOCKS_OF_128
                }
            };
            for (bytes, expected) in
                [(&b""[..], empty), (b"abc", abc), (blocks, two_blocks), (&[b'a'; 1_000_000], million)]
            {
                let value = hash(algorithm, bytes);
                assert_eq!((value.algorithm(), value.to_string()), (algorithm, expected.to_owned()));
                assert_eq!(value.as_bytes().len(), algorithm.digest_len());
            }
        }
        assert_eq!(format!("{:?}", hash(HashAlgorithm::Sha384, b"")).get(..11), Some("SHA-384(38b"));
    }

    #[test]
    fn k6_only_the_same_bytes_match_and_only_sha512_is_a_digest() {
        for algorithm in HashAlgorithm::ALL {
            let value = hash(algorithm, b"abc");
            let bytes = value.as_bytes().to_vec();
            assert!(value.matches(&bytes));
            for i in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[i] ^= 1;
                assert!(!value.matches(&flipped), "{algorithm}, byte {i}");
            }
            assert!(!value.matches(&bytes[1..]));
            assert!(!value.matches(&[bytes.as_slice(), &[0]].concat()));
            let digest = value.sha512().map(|digest| digest.to_string());
            let expected = (algorithm == HashAlgorithm::Sha512).then(|| Digest::of(b"abc").to_string());
            assert_eq!(digest, expected);
        }
    }

    proptest! {
        #[test]
        fn p3_any_pieces_and_a_trailer_are_one_message(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
            trailers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..3),
        ) {
            for algorithm in HashAlgorithm::ALL {
                let mut state = HashState::new(algorithm);
                pieces.iter().for_each(|piece| state.update(piece));
                let payload = pieces.concat();
                for trailer in &trailers {
                    let signed = state.clone().and(trailer).finish();
                    let whole = hash(algorithm, &[payload.as_slice(), trailer].concat());
                    prop_assert!(signed.matches(whole.as_bytes()));
                }
                prop_assert!(state.finish().matches(hash(algorithm, &payload).as_bytes()));
            }
        }
    }
}
