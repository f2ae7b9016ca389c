//! A primary key: a public key and when it was made, which its fingerprint covers.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::packet::{self, Reader};
use crate::digest::algorithm::{HashAlgorithm, HashValue};
use crate::trust::PublicKey;
use crate::trust::ecdsa;
use crate::trust::{KeyKind, Message, SigningAlgorithm};

/// The one version that is made.
const VERSION: u8 = 4;

/// Object identifiers of curves (RFC 9580, section 9.2).
const ED25519: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0xDA, 0x47, 0x0F, 0x01];
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x23];

/// RSA, for whatever use.
const RSA_ALGORITHM: u8 = 1;
const ECDSA_ALGORITHM: u8 = 19;
/// `EdDSALegacy`: what GnuPG knows Ed25519 by.
const EDDSA_ALGORITHM: u8 = 22;

/// What comes before a point of Ed25519.
const NATIVE_POINT: u8 = 0x40;

/// A public key as the primary key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryKey {
    public: PublicKey,
    created: u32,
    body: Vec<u8>,
}

impl PrimaryKey {
    /// A key that was made so many seconds after 1970. The same key and time always give the same
    /// fingerprint.
    pub fn new(public: PublicKey, created: u32) -> Self {
        let mut body = vec![VERSION];
        body.extend(created.to_be_bytes());
        body.push(algorithm(public.kind()));
        body.extend(material(&public));
        Self { public, created, body }
    }

    /// The key of a packet. `None`: it is of another version or algorithm, or not as this program
    /// would write it; then its fingerprint would be another.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (version, created, algorithm) = (reader.byte()?, reader.u32()?, reader.byte()?);
        if version != VERSION {
            return None;
        }
        let public = match algorithm {
            RSA_ALGORITHM => PublicKey::rsa(reader.mpi()?, reader.mpi()?).ok()?,
            ECDSA_ALGORITHM | EDDSA_ALGORITHM => {
                let len = reader.byte()?;
                let oid = reader.take(usize::from(len))?;
                of_curve(oid, reader.mpi()?)?
            }
            _ => return None,
        };
        let key = Self::new(public, created);
        (key.body == body).then_some(key)
    }

    /// The key itself.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// When it was made, in seconds since 1970.
    pub const fn created(&self) -> u32 {
        self.created
    }

    /// Its packet.
    pub(super) fn to_packet(&self) -> Vec<u8> {
        packet::packet(packet::PUBLIC_KEY, &self.body)
    }

    /// What a signature over the key hashes of it.
    pub(super) fn hashed(&self) -> Vec<u8> {
        // A body is shorter than 64 KiB: an RSA modulus has a kilobyte.
        let len = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        [&[0x99][..], &len.to_be_bytes(), &self.body].concat()
    }

    /// Its fingerprint (RFC 9580, section 5.5.4.2), which is a SHA-1 for this version.
    pub fn fingerprint(&self) -> [u8; 20] {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.hashed());
        digest.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Its key id: the end of the fingerprint.
    pub fn key_id(&self) -> [u8; 8] {
        self.fingerprint().last_chunk().copied().unwrap_or_default()
    }

    /// Which algorithm its signatures name.
    pub(super) fn algorithm(&self) -> u8 {
        algorithm(self.public.kind())
    }

    /// The hash function that its signatures are over: the key's own where it has one.
    pub fn hash(&self) -> HashAlgorithm {
        self.signing_algorithm().hash().unwrap_or(HashAlgorithm::Sha512)
    }

    /// What is asked of whoever has the key, to sign a digest.
    pub fn signing_algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::of(self.public.kind())
    }

    /// Whether the numbers at the end of a signature's packet are this key's, over this digest.
    pub(super) fn verifies(&self, digest: &HashValue, mut numbers: Reader<'_>) -> bool {
        let mut padded = |len: usize| {
            let number = numbers.mpi()?;
            let zeros = len.checked_sub(number.len())?;
            Some([vec![0; zeros], number.to_vec()].concat())
        };
        let signature = match self.public.kind() {
            KeyKind::Ed25519 => padded(32).zip(padded(32)).map(|(r, s)| [r, s].concat()),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                padded(66).zip(padded(66)).map(|(r, s)| ecdsa::to_der(&r, &s))
            }
            KeyKind::Rsa { bits } => padded(usize::try_from(bits.div_ceil(8)).unwrap_or(0)),
        };
        let algorithm = match (self.public.kind(), digest.algorithm()) {
            (KeyKind::Rsa { .. }, HashAlgorithm::Sha256) => SigningAlgorithm::RsaPkcs1Sha256,
            (KeyKind::Rsa { .. }, HashAlgorithm::Sha384) => SigningAlgorithm::RsaPkcs1Sha384,
            _ => self.signing_algorithm(),
        };
        signature.is_some_and(|signature| {
            numbers.is_empty() && self.public.verify(algorithm, self.message(digest), &signature)
        })
    }

    /// A digest as it is signed: Ed25519 takes it for a message.
    pub fn message<'a>(&self, digest: &'a HashValue) -> Message<'a> {
        match self.public.kind() {
            KeyKind::Ed25519 => Message::Raw(digest.as_bytes()),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Rsa { .. } => Message::Digest(digest),
        }
    }
}

const fn algorithm(kind: KeyKind) -> u8 {
    match kind {
        KeyKind::Ed25519 => EDDSA_ALGORITHM,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => ECDSA_ALGORITHM,
        KeyKind::Rsa { .. } => RSA_ALGORITHM,
    }
}

fn material(public: &PublicKey) -> Vec<u8> {
    let curve = |oid: &[u8], point: &[u8]| {
        let len = u8::try_from(oid.len()).unwrap_or_default(); // of the four above
        [&[len][..], oid, &packet::mpi(point)].concat()
    };
    let point = || public.ec_point().unwrap_or_default();
    match public.kind() {
        KeyKind::Ed25519 => {
            curve(ED25519, &[&[NATIVE_POINT], public.ed25519_bytes().unwrap_or_default()].concat())
        }
        KeyKind::P256 => curve(P256, point()),
        KeyKind::P384 => curve(P384, point()),
        KeyKind::P521 => curve(P521, point()),
        KeyKind::Rsa { .. } => {
            let (n, e) = public.rsa_numbers().unwrap_or_default();
            [packet::mpi(n), packet::mpi(e)].concat()
        }
    }
}

fn of_curve(oid: &[u8], point: &[u8]) -> Option<PublicKey> {
    let kind = match oid {
        ED25519 => {
            let (NATIVE_POINT, raw) = point.split_first().map(|(first, raw)| (*first, raw))? else {
                return None;
            };
            return PublicKey::ed25519(raw.try_into().ok()?).ok();
        }
        P256 => KeyKind::P256,
        P384 => KeyKind::P384,
        P521 => KeyKind::P521,
        _ => return None,
    };
    PublicKey::ec(kind, point).ok()
}
