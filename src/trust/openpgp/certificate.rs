//! A certificate of one key: the key, who it is of, and the signatures that bind both and say until
//! when.
//!
//! A certificate is made or extended by one signature of its own key. The signatures that were
//! there stay: with a newer one alone, Sequoia and others refuse all that was signed before it.

use std::ops::RangeInclusive;

use super::armor::Block;
use super::draft::{Draft, hash_id};
use super::key::PrimaryKey;
use super::packet::{self, CREATED, ISSUER, ISSUER_FINGERPRINT, Packet, Reader, packet, subpacket};
use super::signature::Signature;
use crate::digest::algorithm::{HashAlgorithm, HashState, HashValue};

/// The largest file that is read as one, in bytes.
const MAX_LEN: usize = 1024 * 1024;

/// A positive certification of a user id.
const CERTIFICATION: u8 = 0x13;
/// Certifications of any kind.
const CERTIFICATIONS: RangeInclusive<u8> = 0x10..=0x13;

/// Types of subpackets.
const KEY_EXPIRES_AFTER: u8 = 9;
const PREFERRED_CIPHERS: u8 = 11;
const PREFERRED_HASHES: u8 = 21;
const IS_PRIMARY: u8 = 25;
const KEY_FLAGS: u8 = 27;
const FEATURES: u8 = 30;
/// What else GnuPG and Sequoia say of a key: what it prefers, and who keeps it.
const PREFERENCES: [u8; 4] = [22, 23, 24, 34];

/// The subpackets of such signatures that are understood, or say nothing of signing.
const KNOWN: [u8; 13] = {
    let [compression, server, key_server, aead] = PREFERENCES;
    [
        CREATED,
        KEY_EXPIRES_AFTER,
        PREFERRED_CIPHERS,
        ISSUER,
        PREFERRED_HASHES,
        compression,
        server,
        key_server,
        IS_PRIMARY,
        KEY_FLAGS,
        FEATURES,
        ISSUER_FINGERPRINT,
        aead,
    ]
};

/// The flag of keys that sign.
const SIGNS: u8 = 0x02;

/// It may certify (itself) and sign.
const CERTIFIES_AND_SIGNS: u8 = 0x03;
/// Number of AES-256, which nobody will use with it; without any, some assume Triple-DES.
const AES256: u8 = 9;

/// A certificate of a key.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: PrimaryKey,
    /// All packets, as they were read.
    packets: Vec<(u8, Vec<u8>)>,
    /// Which of them is the user id that is renewed: the first.
    user_id: usize,
    /// What the signatures of the key itself say of it: at least one.
    bindings: Vec<Binding>,
}

/// What a signature of a key over its user id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Binding {
    created: u32,
    expires: Option<u32>,
}

/// Why bytes are no certificate that can be used to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More than any has.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// None.
    #[error("it is no OpenPGP certificate, or more than one, or a damaged one")]
    None,
    /// Secret keys have no place here.
    #[error("it holds a secret key; export the public one")]
    Secret,
    /// Another version or algorithm.
    #[error("its key is not of version 4, or of no algorithm that is known here: RSA, ECDSA and Ed25519 are")]
    Key,
    /// Nothing of the key itself binds a user id to it.
    #[error("no user id is bound to its key")]
    Unbound,
}

/// A signature that a key is yet to make over a user id, and the certificate that it belongs into.
#[derive(Debug)]
pub struct SelfSignature<'a> {
    draft: Draft<'a>,
    digest: HashValue,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl<'a> SelfSignature<'a> {
    /// Of a new certificate. Times are in seconds since 1970; the certificate counts from when the
    /// key was made.
    pub fn of_new(key: &'a PrimaryKey, user_id: &str, expires: Option<u32>) -> Self {
        let before = [key.to_packet(), packet(packet::USER_ID, user_id.as_bytes())].concat();
        Self::new(key, user_id.as_bytes(), key.created(), expires, before, Vec::new())
    }

    fn new(
        key: &'a PrimaryKey,
        user_id: &[u8],
        created: u32,
        expires: Option<u32>,
        before: Vec<u8>,
        after: Vec<u8>,
    ) -> Self {
        let ids = [HashAlgorithm::Sha512, HashAlgorithm::Sha384, HashAlgorithm::Sha256].map(hash_id);
        let after_creation = expires.map(|at| at.saturating_sub(key.created()).to_be_bytes());
        let more = [
            after_creation.map(|after| subpacket(KEY_EXPIRES_AFTER, &after)).unwrap_or_default(),
            subpacket(KEY_FLAGS, &[CERTIFIES_AND_SIGNS]),
            subpacket(IS_PRIMARY, &[1]),
            subpacket(PREFERRED_CIPHERS, &[AES256]),
            subpacket(PREFERRED_HASHES, &ids),
            subpacket(FEATURES, &[1]),
        ];
        let draft = Draft::new(key, CERTIFICATION, created, &more.concat());
        let digest = draft.digest(bound(key, user_id, key.hash()));
        Self { draft, digest, before, after }
    }

    /// What the key is to sign.
    pub const fn digest(&self) -> &HashValue {
        &self.digest
    }

    /// The certificate, armored, with what the key made of that. `None`: it is no signature of this
    /// kind of key.
    pub fn finish(self, answer: &[u8]) -> Option<String> {
        let signature = self.draft.finish(&self.digest, answer)?;
        Some(Block::PublicKey.armor(&[self.before, signature, self.after].concat()))
    }
}

impl Certificate {
    /// Reads a certificate, armored or not.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_LEN {
            return Err(CertificateError::TooLarge);
        }
        let is_private = |text: &str| text.contains("-----BEGIN PGP PRIVATE KEY BLOCK-----");
        if std::str::from_utf8(bytes).is_ok_and(is_private) {
            return Err(CertificateError::Secret);
        }
        let bytes = Block::PublicKey.open(bytes).ok_or(CertificateError::None)?;
        let mut reader = Reader::new(&bytes);
        let mut packets: Vec<Packet<'_>> = Vec::new();
        while !reader.is_empty() {
            packets.push(reader.packet().ok_or(CertificateError::None)?);
        }
        let (first, others) = packets.split_first().ok_or(CertificateError::None)?;
        match first.tag {
            packet::PUBLIC_KEY => {}
            packet::SECRET_KEY => return Err(CertificateError::Secret),
            _ => return Err(CertificateError::None),
        }
        if others.iter().any(|other| [packet::PUBLIC_KEY, packet::SECRET_KEY].contains(&other.tag)) {
            return Err(CertificateError::None);
        }
        let key = PrimaryKey::parse(first.body).ok_or(CertificateError::Key)?;
        let (user_id, bindings) = bindings(&key, &packets).ok_or(CertificateError::Unbound)?;
        let packets = packets.iter().map(|packet| (packet.tag, packet.whole.to_vec())).collect();
        Ok(Self { key, packets, user_id, bindings })
    }

    /// Its key.
    pub const fn key(&self) -> &PrimaryKey {
        &self.key
    }

    /// Whose it says it is. It may hold anything.
    pub fn user_id(&self) -> String {
        let whole = self.packets.get(self.user_id).map(|(_, whole)| whole.as_slice()).unwrap_or_default();
        let name = Reader::new(whole).packet().map(|packet| packet.body).unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// Whether it is all of one key: no subkeys, no revocations, nothing that others signed. What
    /// else a certificate may say, only a verifier with a policy can weigh.
    pub fn is_of_one_key(&self) -> bool {
        // Its key, the user id, and what was bound above are all there is.
        self.packets.len() == 2 + self.bindings.len()
    }

    /// Until when it is good, in seconds since 1970, by the newest signature of its key; `None`:
    /// for ever.
    pub fn expires(&self) -> Option<u32> {
        self.ends_at(self.bound_since())
    }

    /// When the newest signature of its key was made. A file that is signed earlier than that would
    /// be refused by some.
    pub fn bound_since(&self) -> u32 {
        self.bindings.iter().map(|binding| binding.created).max().unwrap_or_default()
    }

    /// Whether the key was bound to its owner at a moment, by what had been signed until then.
    pub fn is_bound_at(&self, moment: u32) -> bool {
        self.bindings.iter().any(|binding| binding.created <= moment)
    }

    /// Until when it was good by what had been signed until a moment. Of two signatures of one
    /// second, the earlier end counts.
    pub fn ends_at(&self, moment: u32) -> Option<u32> {
        let until = || self.bindings.iter().filter(|binding| binding.created <= moment);
        let newest = until().map(|binding| binding.created).max()?;
        until().filter(|binding| binding.created == newest).filter_map(|binding| binding.expires).min()
    }

    /// A further signature over the user id, made at `created`, that moves the end.
    pub fn renewal(&self, created: u32, expires: Option<u32>) -> Option<SelfSignature<'_>> {
        let is_signature = |(tag, _): &(u8, Vec<u8>)| *tag == packet::SIGNATURE;
        let (_, user_id) = self.packets.get(self.user_id)?;
        let user_id = Reader::new(user_id).packet()?.body;
        let later = self.packets.get(self.user_id + 1..)?;
        let end = self.user_id + 1 + later.iter().take_while(|packet| is_signature(packet)).count();
        let (before, after) = self.packets.split_at_checked(end)?;
        let bytes =
            |packets: &[(u8, Vec<u8>)]| packets.iter().flat_map(|(_, whole)| whole).copied().collect();
        Some(SelfSignature::new(&self.key, user_id, created, expires, bytes(before), bytes(after)))
    }
}

/// What a signature over a user id hashes before itself.
fn bound(key: &PrimaryKey, user_id: &[u8], hash: HashAlgorithm) -> HashState {
    let len = u32::try_from(user_id.len()).unwrap_or(u32::MAX); // a file has at most a megabyte
    HashState::new(hash).and(&key.hashed()).and(&[0xB4]).and(&len.to_be_bytes()).and(user_id)
}

/// The first user id that the key itself has bound, and what each such signature says.
fn bindings(key: &PrimaryKey, packets: &[Packet<'_>]) -> Option<(usize, Vec<Binding>)> {
    let mut found: Option<(usize, Vec<Binding>)> = None;
    let mut user_id = None;
    for (i, packet) in packets.iter().enumerate() {
        match packet.tag {
            packet::USER_ID => user_id = Some((i, packet.body)),
            packet::SIGNATURE => {}
            _ => user_id = None,
        }
        let Some((at, name)) = user_id.filter(|_| packet.tag == packet::SIGNATURE) else { continue };
        let Some(binding) = binding(key, name, packet.body) else { continue };
        match &mut found {
            None => found = Some((at, vec![binding])),
            Some((first, bindings)) if *first == at => bindings.push(binding),
            Some(_) => {}
        }
    }
    found
}

/// What a signature packet says, if the key made it over this user id.
fn binding(key: &PrimaryKey, user_id: &[u8], body: &[u8]) -> Option<Binding> {
    let signature = Signature::parse(body).filter(|signature| CERTIFICATIONS.contains(&signature.kind))?;
    let (mut created, mut expires, mut may_sign) = (None, None, false);
    for (kind, body) in signature.subpackets(&KNOWN)? {
        match kind {
            CREATED => created = Some(u32::from_be_bytes(body.try_into().ok()?)),
            KEY_EXPIRES_AFTER => {
                let after = u32::from_be_bytes(body.try_into().ok()?);
                expires = (after != 0).then(|| key.created().saturating_add(after));
            }
            KEY_FLAGS => may_sign = body.first().is_some_and(|flags| flags & SIGNS != 0),
            ISSUER_FINGERPRINT if body.get(1..) != Some(&key.fingerprint()[..]) => return None,
            ISSUER if body != key.key_id() => return None,
            _ => {}
        }
    }
    let created = created.filter(|created| *created >= key.created())?;
    let is_its = may_sign && signature.is_by(key, bound(key, user_id, signature.hash));
    is_its.then_some(Binding { created, expires })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::trust::PublicKey;

    const CREATED: u32 = 1_735_689_600;

    fn owner() -> (Ed25519KeyPair, PrimaryKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = PublicKey::ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap();
        (pair, PrimaryKey::new(public, CREATED))
    }

    fn made(draft: SelfSignature<'_>, pair: &Ed25519KeyPair) -> String {
        let answer = pair.sign(draft.digest().as_bytes());
        draft.finish(answer.as_ref()).unwrap()
    }

    #[test]
    fn a_certificate_is_read_as_it_was_made_and_is_the_same_each_time() {
        let (pair, key) = owner();
        for expires in [None, Some(CREATED + 86_400)] {
            let text = made(SelfSignature::of_new(&key, "Releases <r@example.com>", expires), &pair);
            assert_eq!(text, made(SelfSignature::of_new(&key, "Releases <r@example.com>", expires), &pair));
            let read = Certificate::parse(text.as_bytes()).unwrap();
            assert_eq!((read.key(), read.expires(), read.bound_since()), (&key, expires, CREATED));
            let binary = Block::PublicKey.dearmor(&text).unwrap();
            assert_eq!(Certificate::parse(&binary).unwrap().key().fingerprint(), key.fingerprint());
        }
        assert_ne!(PrimaryKey::new(key.public().clone(), CREATED + 1).fingerprint(), key.fingerprint());
    }

    #[test]
    fn a_renewed_certificate_keeps_its_earlier_signatures() {
        let (pair, key) = owner();
        let first = made(SelfSignature::of_new(&key, "a", Some(CREATED + 100)), &pair);
        let certificate = Certificate::parse(first.as_bytes()).unwrap();
        let second = made(certificate.renewal(CREATED + 50, Some(CREATED + 900)).unwrap(), &pair);
        let renewed = Certificate::parse(second.as_bytes()).unwrap();
        assert_eq!((renewed.expires(), renewed.bound_since()), (Some(CREATED + 900), CREATED + 50));
        let packets = |text: &str| Block::PublicKey.dearmor(text).unwrap();
        assert!(packets(&second).starts_with(&packets(&first)));
        // An older signature does not move the end, wherever it stands.
        let third = made(renewed.renewal(CREATED + 10, None).unwrap(), &pair);
        assert_eq!(Certificate::parse(third.as_bytes()).unwrap().expires(), Some(CREATED + 900));
    }

    #[test]
    fn what_the_key_did_not_sign_binds_nothing() {
        let (pair, key) = owner();
        let text = made(SelfSignature::of_new(&key, "a", None), &pair);
        let good = Block::PublicKey.dearmor(&text).unwrap();
        let key_len = key.to_packet().len();
        for at in key_len + 2..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let read = Certificate::parse(&bytes);
            // Two digits of the digest stand before the numbers, and the issuer beside what is
            // hashed: neither is signed, and neither is believed.
            let is_same = read.as_ref().is_ok_and(|read| read.key() == &key && read.expires().is_none());
            assert!(read.is_err() || is_same, "{at}: {read:?}");
        }
        let other = SelfSignature::of_new(&key, "a", None);
        let forged = other.finish(&[7; 64]).unwrap();
        assert_eq!(Certificate::parse(forged.as_bytes()).unwrap_err(), CertificateError::Unbound);
    }

    #[test]
    fn what_is_no_certificate_is_told_apart() {
        let (pair, key) = owner();
        let text = made(SelfSignature::of_new(&key, "a", None), &pair);
        let packets = Block::PublicKey.dearmor(&text).unwrap();
        let secret = [&packet(packet::SECRET_KEY, &[4])[..], &packets].concat();
        for (bytes, error) in [
            (Vec::new(), CertificateError::None),
            (b"text".to_vec(), CertificateError::None),
            (text.replace("PUBLIC", "PRIVATE").into(), CertificateError::Secret),
            (secret, CertificateError::Secret),
            ([packets.clone(), packets.clone()].concat(), CertificateError::None),
            (packets[..packets.len() - 1].to_vec(), CertificateError::None),
            (key.to_packet(), CertificateError::Unbound),
            (packet(packet::PUBLIC_KEY, &[6, 0, 0, 0, 0, 27]), CertificateError::Key),
            (vec![0xC6; MAX_LEN + 1], CertificateError::TooLarge),
        ] {
            assert_eq!(Certificate::parse(&bytes).unwrap_err(), error);
        }
    }
}
