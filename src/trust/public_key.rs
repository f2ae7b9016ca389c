//! A public key, and the one place that verifies a signature with it.
//!
//! Whatever form a key comes in, it is kept as its canonical SubjectPublicKeyInfo (RFC 5280;
//! RFC 3279 for RSA, RFC 5480 for the curves of NIST, RFC 8410 for Ed25519). Equal keys are equal
//! bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    VerificationAlgorithm,
};

use super::algorithm::SigningAlgorithm;
use super::der::{self, NotDer, Reader};
use super::ed25519;
use super::error::PublicKeyError;
use super::kind::KeyKind;
use super::message::{Message, library_digest};
use super::number::without_zeros;
use super::pem;
use crate::digest::algorithm::{HashAlgorithm, HashState};

/// id-Ed25519, 1.3.101.112 (RFC 8410).
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// id-ecPublicKey, 1.2.840.10045.2.1 (RFC 5480).
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// secp256r1, 1.2.840.10045.3.1.7.
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp384r1, 1.3.132.0.34.
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// secp521r1, 1.3.132.0.35.
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
/// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 3279).
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Bits of moduli that are taken: what is shorter can be factored, what is longer only costs time.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// A public key that signatures are verified with.
///
/// ```
/// use kms_sig::trust::{KeyKind, Message, PublicKey, SigningAlgorithm};
///
/// let pem = "-----BEGIN PUBLIC KEY-----
/// MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
/// -----END PUBLIC KEY-----";
/// let key = PublicKey::from_pem(pem)?;
/// assert_eq!(key.kind(), KeyKind::Ed25519);
/// assert!(!key.verify(SigningAlgorithm::Ed25519, Message::Raw(b"a payload"), &[0; 64]));
/// # Ok::<(), kms_sig::trust::PublicKeyError>(())
/// ```
#[derive(Clone)]
pub struct PublicKey {
    kind: KeyKind,
    /// The canonical DER. All else follows from it.
    spki: Arc<[u8]>,
    numbers: Numbers,
}

/// Where in the SPKI lies what formats write down.
#[derive(Debug, Clone)]
enum Numbers {
    /// The 32 bytes of Ed25519, or the uncompressed point of another curve.
    Point(Range<usize>),
    /// Modulus and exponent.
    Rsa(Range<usize>, Range<usize>),
}

impl PublicKey {
    /// Takes the DER of a SubjectPublicKeyInfo, as KMS's `GetPublicKey` answers it.
    ///
    /// # Errors
    /// [`PublicKeyError`]: it is no DER, of a kind that is not known, or no safe key.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let (algorithm, mut parameters, key) = split(der).map_err(|NotDer| PublicKeyError::NotSpki)?;
        let not_spki = |NotDer| PublicKeyError::NotSpki;
        match algorithm {
            OID_ED25519 => {
                parameters.end().map_err(not_spki)?;
                Self::ed25519(key.try_into().map_err(|_| PublicKeyError::NotSpki)?)
            }
            OID_EC => {
                let curve = parameters
                    .take(der::OBJECT_IDENTIFIER)
                    .map_err(|NotDer| PublicKeyError::ExplicitCurve)?;
                parameters.end().map_err(not_spki)?;
                Self::ec(curve_of(curve)?, key)
            }
            OID_RSA => {
                let null = parameters.take(der::NULL).map_err(not_spki)?;
                let mut key = Reader::new(key);
                let mut numbers = key.sequence().map_err(not_spki)?;
                let (n, e) = (numbers.positive().map_err(not_spki)?, numbers.positive().map_err(not_spki)?);
                if !(null.is_empty() && parameters.is_empty() && numbers.is_empty() && key.is_empty()) {
                    return Err(PublicKeyError::NotSpki);
                }
                Self::rsa(n, e)
            }
            other => Err(PublicKeyError::Algorithm(der::dotted(other))),
        }
    }

    /// Takes the text of a PEM file with one block `PUBLIC KEY`. What stands around that is not
    /// read, and lines may end in CRLF.
    ///
    /// # Errors
    /// [`PublicKeyError`]; of private keys, certificates and PKCS#1 it says how to get the public
    /// key out of them.
    pub fn from_pem(text: &str) -> Result<Self, PublicKeyError> {
        Self::from_spki(&pem::decode(text)?)
    }

    /// The key of these 32 bytes (RFC 8032 section 5.1.5). Bytes that are no point at all are
    /// taken, as other programs take them: no signature verifies under them.
    ///
    /// # Errors
    /// [`PublicKeyError::SmallOrder`] and [`PublicKeyError::NotCanonical`].
    pub fn ed25519(raw: &[u8; 32]) -> Result<Self, PublicKeyError> {
        ed25519::check(raw)?;
        Self::new(KeyKind::Ed25519, SigningAlgorithm::Ed25519, &[&oid(OID_ED25519)], raw)
            .ok_or(PublicKeyError::NotOnCurve(KeyKind::Ed25519))
    }

    /// The key of an uncompressed point (SEC 1 section 2.3.3: 4, x, y) of a curve of NIST.
    ///
    /// # Errors
    /// [`PublicKeyError`]: the kind is no such curve, or the point none of its points.
    pub fn ec(kind: KeyKind, point: &[u8]) -> Result<Self, PublicKeyError> {
        let (curve, algorithm) = match kind {
            KeyKind::P256 => (OID_P256, SigningAlgorithm::EcdsaSha256),
            KeyKind::P384 => (OID_P384, SigningAlgorithm::EcdsaSha384),
            KeyKind::P521 => (OID_P521, SigningAlgorithm::EcdsaSha512),
            KeyKind::Ed25519 | KeyKind::Rsa { .. } => return Err(PublicKeyError::NoCurve(kind)),
        };
        let coordinate = kind.coordinate_len().ok_or(PublicKeyError::NoCurve(kind))?;
        match point {
            [4, numbers @ ..] if numbers.len() == 2 * coordinate => {}
            [2 | 3, x @ ..] if x.len() == coordinate => return Err(PublicKeyError::Compressed(kind)),
            [] | [_, ..] => return Err(PublicKeyError::NotOnCurve(kind)),
        }
        Self::new(kind, algorithm, &[&oid(OID_EC), &oid(curve)], point)
            .ok_or(PublicKeyError::NotOnCurve(kind))
    }

    /// The key of a modulus and an exponent, both big-endian; leading zeros count for nothing.
    ///
    /// # Errors
    /// [`PublicKeyError`]: too few or too many bits, or no numbers of an RSA key.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, PublicKeyError> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = bits(n);
        if !RSA_BITS.contains(&bits) {
            return Err(PublicKeyError::RsaSize(bits));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(n) || !is_odd(e) || e == [1] {
            return Err(PublicKeyError::RsaNumbers);
        }
        let kind = KeyKind::Rsa { bits: u32::try_from(bits).map_err(|_| PublicKeyError::RsaSize(bits))? };
        let key = der::value(der::SEQUENCE, &[&der::positive(n), &der::positive(e)]);
        let null = der::value(der::NULL, &[]);
        // The library refuses exponents that are even or longer than 33 bits.
        let algorithm = SigningAlgorithm::RsaPkcs1Sha256;
        let mut made =
            Self::new(kind, algorithm, &[&oid(OID_RSA), &null], &key).ok_or(PublicKeyError::RsaNumbers)?;
        let end = made.spki.len();
        // The exponent is the end of it; between it and the modulus lie its tag and length.
        let exponent = end - e.len()..end;
        let before = end - der::positive(e).len();
        made.numbers = Numbers::Rsa(before - n.len()..before, exponent);
        Ok(made)
    }

    /// The key whose encoding ends in `key`, if the library takes it.
    fn new(kind: KeyKind, algorithm: SigningAlgorithm, identifier: &[&[u8]], key: &[u8]) -> Option<Self> {
        let identifier = der::value(der::SEQUENCE, identifier);
        let key_bits = der::value(der::BIT_STRING, &[&[0], key]);
        let spki = der::value(der::SEQUENCE, &[&identifier, &key_bits]);
        ParsedPublicKey::new(verification(algorithm), &spki).ok()?;
        let numbers = Numbers::Point(spki.len() - key.len()..spki.len());
        Some(Self { kind, spki: spki.into(), numbers })
    }

    /// Its kind.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The canonical DER of its SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The same as PEM, with a final newline.
    pub fn to_pem(&self) -> String {
        pem::encode(&self.spki)
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> [u8; 32] {
        let digest = HashState::new(HashAlgorithm::Sha256).and(&self.spki).finish();
        // 32 bytes are what SHA-256 has.
        digest.as_bytes().try_into().unwrap_or_default()
    }

    /// The 32 bytes of an Ed25519 key.
    pub fn ed25519_bytes(&self) -> Option<&[u8]> {
        matches!(self.kind, KeyKind::Ed25519).then(|| self.point()).flatten()
    }

    /// The uncompressed point of a key on a curve of NIST: 4, x, y.
    pub fn ec_point(&self) -> Option<&[u8]> {
        self.kind.coordinate_len().and_then(|_| self.point())
    }

    /// Modulus and exponent of an RSA key, big-endian and without leading zeros.
    pub fn rsa_numbers(&self) -> Option<(&[u8], &[u8])> {
        match &self.numbers {
            Numbers::Rsa(n, e) => Some((self.spki.get(n.clone())?, self.spki.get(e.clone())?)),
            Numbers::Point(_) => None,
        }
    }

    fn point(&self) -> Option<&[u8]> {
        match &self.numbers {
            Numbers::Point(at) => self.spki.get(at.clone()),
            Numbers::Rsa(..) => None,
        }
    }

    /// Whether this key made `signature` of `message` with `algorithm`. ECDSA signatures are DER,
    /// as KMS answers them; those of Ed25519 have 64 bytes, those of RSA exactly as many as the
    /// modulus. What does not fit together, key, algorithm and digest, is `false`.
    pub fn verify(&self, algorithm: SigningAlgorithm, message: Message<'_>, signature: &[u8]) -> bool {
        if !algorithm.fits(self.kind) || !message.fits(algorithm) || !self.has_form_of(signature) {
            return false;
        }
        let Ok(parsed) = ParsedPublicKey::new(verification(algorithm), &self.spki) else { return false };
        let answer = match message {
            Message::Raw(bytes) => parsed.verify_sig(bytes, signature),
            Message::Digest(value) => {
                let Some(digest) = library_digest(value) else { return false };
                parsed.verify_digest_sig(&digest, signature)
            }
        };
        answer.is_ok()
    }

    /// Whether signatures of this key can be as long as this one and, of Ed25519, begin so. A point
    /// of small order there takes the owner of the key to make it on purpose: libsodium, and so
    /// minisign, refuses what others accept (P11).
    fn has_form_of(&self, signature: &[u8]) -> bool {
        match self.kind {
            KeyKind::Ed25519 => {
                signature.len() == 64 && signature.first_chunk().is_some_and(|r| ed25519::check(r).is_ok())
            }
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => true,
            KeyKind::Rsa { bits } => usize::try_from(bits.div_ceil(8)) == Ok(signature.len()),
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spki.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, SHA-256 {})", self.kind, hex::encode(self.fingerprint()))
    }
}

/// How the library verifies what was signed so.
fn verification(algorithm: SigningAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SigningAlgorithm::Ed25519 => &ED25519,
        SigningAlgorithm::EcdsaSha256 => &ECDSA_P256_SHA256_ASN1,
        SigningAlgorithm::EcdsaSha384 => &ECDSA_P384_SHA384_ASN1,
        SigningAlgorithm::EcdsaSha512 => &ECDSA_P521_SHA512_ASN1,
        SigningAlgorithm::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        SigningAlgorithm::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        SigningAlgorithm::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    }
}

/// An algorithm, its parameters and the bits of the key: what a SubjectPublicKeyInfo holds.
fn split(der: &[u8]) -> Result<(&[u8], Reader<'_>, &[u8]), NotDer> {
    let mut whole = Reader::new(der);
    let mut spki = whole.sequence()?;
    whole.end()?;
    let mut identifier = spki.sequence()?;
    let algorithm = identifier.take(der::OBJECT_IDENTIFIER)?;
    let key = spki.bytes()?;
    spki.end()?;
    Ok((algorithm, identifier, key))
}

fn curve_of(identifier: &[u8]) -> Result<KeyKind, PublicKeyError> {
    match identifier {
        OID_P256 => Ok(KeyKind::P256),
        OID_P384 => Ok(KeyKind::P384),
        OID_P521 => Ok(KeyKind::P521),
        other => Err(PublicKeyError::Curve(der::dotted(other))),
    }
}

fn oid(content: &[u8]) -> Vec<u8> {
    der::value(der::OBJECT_IDENTIFIER, &[content])
}

/// Bits of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| 8 * number.len() - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests;
