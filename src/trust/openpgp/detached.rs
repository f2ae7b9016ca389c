//! A detached signature as this program makes them: whose it says it is, and whether it is.
//!
//! For recognising our own, nothing else: what others made is judged by a library with a policy.

use super::armor::Block;
use super::draft::BINARY;
use super::key::PrimaryKey;
use super::packet::{self, CREATED, ISSUER, ISSUER_FINGERPRINT, NOTATION, Reader};
use super::signature::Signature;
use crate::digest::algorithm::{HashAlgorithm, HashState};

/// Whose user id signed, which GnuPG writes.
const SIGNERS_USER_ID: u8 = 28;

/// The subpackets of ours, and of GnuPG's and Sequoia's without options.
const KNOWN: [u8; 5] = [CREATED, ISSUER, NOTATION, SIGNERS_USER_ID, ISSUER_FINGERPRINT];

/// A signature over a file.
#[derive(Debug, Clone)]
pub struct Detached {
    /// Its packet.
    body: Vec<u8>,
    hash: HashAlgorithm,
    created: u32,
    issuer: [u8; 20],
    /// Texts that it notes, by name.
    notations: Vec<(String, String)>,
}

impl Detached {
    /// Reads one signature of version 4 over a binary file, armored or not. `None`: it is something
    /// else, or does not say in what is signed which key made it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = Block::Signature.open(bytes)?;
        let mut packets = Reader::new(&bytes);
        let packet = packets.packet()?;
        if packet.tag != packet::SIGNATURE || !packets.is_empty() {
            return None;
        }
        let signature = Signature::parse(packet.body).filter(|signature| signature.kind == BINARY)?;
        let (mut created, mut issuer, mut notations) = (None, None, Vec::new());
        for subpacket in signature.subpackets(&KNOWN)? {
            match subpacket {
                (CREATED, time) => created = Some(u32::from_be_bytes(time.try_into().ok()?)),
                (ISSUER_FINGERPRINT, [4, fingerprint @ ..]) => issuer = Some(fingerprint.try_into().ok()?),
                (NOTATION, body) => notations.push(notation(body)?),
                _ => {}
            }
        }
        let (hash, body) = (signature.hash, packet.body.to_vec());
        Some(Self { body, hash, created: created?, issuer: issuer?, notations })
    }

    /// The fingerprint of the key that it says made it.
    pub const fn issuer(&self) -> &[u8; 20] {
        &self.issuer
    }

    /// When it says it was made, in seconds since 1970.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// The hash function that the file must be read with.
    pub const fn hash(&self) -> HashAlgorithm {
        self.hash
    }

    /// The text that it notes under a name.
    pub fn notation(&self, name: &str) -> Option<String> {
        self.notations.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Whether bytes are this signature as it is written here, and nothing besides.
    pub fn is_all_of(&self, bytes: &[u8]) -> bool {
        let packet = packet::packet(packet::SIGNATURE, &self.body);
        bytes == packet || bytes == Block::Signature.armor(&packet).as_bytes()
    }

    /// Whether this key made it over a file, of which a state of that function has taken all.
    pub fn is_by(&self, key: &PrimaryKey, content: HashState) -> bool {
        let is_its = self.issuer == key.fingerprint();
        is_its && Signature::parse(&self.body).is_some_and(|signature| signature.is_by(key, content))
    }
}

/// Name and text of a notation that people can read.
fn notation(body: &[u8]) -> Option<(String, String)> {
    let mut reader = Reader::new(body);
    let (0x80.., _flags) = (reader.byte()?, reader.take(3)?) else { return None };
    let (name, value) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let pair = text(reader.take(name)?).zip(text(reader.take(value)?));
    pair.filter(|_| reader.is_empty())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::super::draft::Draft;
    use super::*;
    use crate::trust::PublicKey;

    #[test]
    fn our_own_signatures_are_recognised_and_others_are_not() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = PublicKey::ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let key = PrimaryKey::new(public, 1_735_689_600);
        let state = HashState::new(HashAlgorithm::Sha512).and(b"a file");
        let draft = Draft::of_file(&key, 1_735_689_700, &[("file@kms-sig", "a")]);
        let digest = draft.digest(state.clone());
        let packet = draft.finish(&digest, pair.sign(digest.as_bytes()).as_ref()).unwrap();
        for bytes in [packet.clone(), Block::Signature.armor(&packet).into_bytes()] {
            let read = Detached::parse(&bytes).unwrap();
            assert_eq!((read.created(), *read.issuer()), (1_735_689_700, key.fingerprint()));
            assert_eq!(read.notation("file@kms-sig").as_deref(), Some("a"));
            assert!(read.is_by(&key, state.clone()));
            assert!(!read.is_by(&key, state.clone().and(b"x")));
            let later = PrimaryKey::new(key.public().clone(), 1_735_689_601);
            assert!(!read.is_by(&later, state.clone()), "the same key in another certificate");
        }
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            // The first digits of the digest and the issuer's id are not signed.
            let is_ours = Detached::parse(&changed).is_some_and(|read| read.is_by(&key, state.clone()));
            let unsigned = packet.len() - 2 - 2 * 34 - 10..packet.len() - 2 * 34;
            assert!(!is_ours || unsigned.contains(&at), "{at} of {}", packet.len());
        }
        assert!(Detached::parse(&[packet.clone(), packet].concat()).is_none());
    }
}
