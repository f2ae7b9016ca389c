//! A signature's packet of version 4, read (RFC 9580, section 5.2.3).

use super::draft::hash_id;
use super::key::PrimaryKey;
use super::packet::Reader;
use crate::digest::algorithm::{HashAlgorithm, HashState};

/// What is in it.
pub(super) struct Signature<'a> {
    /// Its type.
    pub(super) kind: u8,
    /// The hash function that it is over.
    pub(super) hash: HashAlgorithm,
    algorithm: u8,
    /// What is hashed of it, after the content.
    head: &'a [u8],
    /// Subpackets that are signed.
    hashed: &'a [u8],
    numbers: Reader<'a>,
}

impl<'a> Signature<'a> {
    /// `None`: it is of another version, or over another hash function than SHA-2.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (4, kind, algorithm, hash) = (reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?)
        else {
            return None;
        };
        let hash = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512]
            .into_iter()
            .find(|known| hash_id(*known) == hash)?;
        let len = usize::from(reader.u16()?);
        let hashed = reader.take(len)?;
        let head = body.get(..6 + len)?;
        let len = usize::from(reader.u16()?);
        let (_unhashed, _first_digits) = (reader.take(len)?, reader.take(2)?);
        Some(Self { kind, hash, algorithm, head, hashed, numbers: reader })
    }

    /// The subpackets that are signed, by kind. `None`: they are damaged, or one is of another kind
    /// than these, or is there twice. What is not understood may take away what the rest says: an
    /// end of the signature, a revoker, whatever its author marked as critical.
    pub(super) fn subpackets(&self, known: &[u8]) -> Option<Vec<(u8, &'a [u8])>> {
        let (mut reader, mut subpackets) = (Reader::new(self.hashed), Vec::<(u8, &[u8])>::new());
        while !reader.is_empty() {
            let (kind, body) = reader.subpacket()?;
            if !known.contains(&kind) || subpackets.iter().any(|(other, _)| *other == kind) {
                return None;
            }
            subpackets.push((kind, body));
        }
        Some(subpackets)
    }

    /// Whether a key made it over a content, which the state has taken.
    pub(super) fn is_by(&self, key: &PrimaryKey, content: HashState) -> bool {
        let Ok(len) = u32::try_from(self.head.len()) else { return false };
        let digest = content.and(self.head).and(&[4, 0xFF]).and(&len.to_be_bytes()).finish();
        self.algorithm == key.algorithm()
            && digest.algorithm() == self.hash
            && key.verifies(&digest, self.numbers)
    }
}
