//! A signature that is not yet made: what is hashed after the content, and how an answer becomes a
//! packet (RFC 9580, sections 5.2.3 and 5.2.4).

use super::key::PrimaryKey;
use super::packet::{self, CREATED, ISSUER, ISSUER_FINGERPRINT, NOTATION, packet, subpacket};
use crate::digest::algorithm::{HashAlgorithm, HashState, HashValue};
use crate::trust::KeyKind;
use crate::trust::ecdsa;

/// A signature over a file, byte for byte.
pub(super) const BINARY: u8 = 0x00;

/// A notation's value is text.
const HUMAN_READABLE: [u8; 4] = [0x80, 0, 0, 0];

/// A signature of a key, up to the answer of whoever has the key.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    key: &'a PrimaryKey,
    /// What is hashed of the signature itself.
    head: Vec<u8>,
}

impl<'a> Draft<'a> {
    /// A signature over a file, that says when it was made, in seconds since 1970, and notes what
    /// else is given, as pairs of a name and a text.
    pub fn of_file(key: &'a PrimaryKey, created: u32, notations: &[(&str, &str)]) -> Self {
        let notes: Vec<u8> = notations.iter().flat_map(|(name, value)| notation(name, value)).collect();
        Self::new(key, BINARY, created, &notes)
    }

    /// A signature of any type, with further subpackets.
    pub(super) fn new(key: &'a PrimaryKey, kind: u8, created: u32, more: &[u8]) -> Self {
        let fingerprint = [&[4][..], &key.fingerprint()].concat();
        let mut hashed = subpacket(ISSUER_FINGERPRINT, &fingerprint);
        hashed.extend(subpacket(CREATED, &created.to_be_bytes()));
        hashed.extend_from_slice(more);
        let mut head = vec![4, kind, key.algorithm(), hash_id(key.hash())];
        head.extend(len_of(&hashed));
        head.extend(hashed);
        Self { key, head }
    }

    /// The digest to sign: of the content, which the state has taken, and of what this signature
    /// says.
    pub fn digest(&self, content: HashState) -> HashValue {
        let len = u32::try_from(self.head.len()).unwrap_or(u32::MAX); // some hundred bytes
        content.and(&self.head).and(&[4, 0xFF]).and(&len.to_be_bytes()).finish()
    }

    /// The signature's packet, with what the key made of the digest: ECDSA as DER, RSA and Ed25519
    /// as they are. `None`: that is no signature of the key's kind.
    pub fn finish(&self, digest: &HashValue, answer: &[u8]) -> Option<Vec<u8>> {
        let numbers = match self.key.public().kind() {
            KeyKind::Rsa { .. } => packet::mpi(answer),
            KeyKind::Ed25519 => {
                let (r, s) = answer.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
                [packet::mpi(r), packet::mpi(s)].concat()
            }
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let (r, s) = ecdsa::numbers(answer)?;
                [packet::mpi(r), packet::mpi(s)].concat()
            }
        };
        let unhashed = subpacket(ISSUER, &self.key.key_id());
        let mut body = self.head.clone();
        body.extend(len_of(&unhashed));
        body.extend(unhashed);
        body.extend_from_slice(digest.as_bytes().first_chunk::<2>()?);
        body.extend(numbers);
        Some(packet(packet::SIGNATURE, &body))
    }
}

fn len_of(subpackets: &[u8]) -> [u8; 2] {
    // The longest hold one name of at most 255 bytes.
    u16::try_from(subpackets.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn notation(name: &str, value: &str) -> Vec<u8> {
    let mut body = HUMAN_READABLE.to_vec();
    body.extend(len_of(name.as_bytes()));
    body.extend(len_of(value.as_bytes()));
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(value.as_bytes());
    subpacket(NOTATION, &body)
}

/// Numbers of hash functions (RFC 9580, section 9.5). The last has none.
pub(super) const fn hash_id(hash: HashAlgorithm) -> u8 {
    match hash {
        HashAlgorithm::Sha256 => 8,
        HashAlgorithm::Sha384 => 9,
        HashAlgorithm::Sha512 => 10,
        HashAlgorithm::Blake2b512 => 0,
    }
}
