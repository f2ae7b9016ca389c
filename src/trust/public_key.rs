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
        if !algorithm.fits(self.kind) || !message.fits(algorithm) || !self.has_length_of(signature) {
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

    /// Whether signatures of this key can be as long as this one.
    fn has_length_of(&self, signature: &[u8]) -> bool {
        match self.kind {
            KeyKind::Ed25519 => signature.len() == 64,
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
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    /// The keys, each with its kind and with what signed for it.
    const KEYS: [(&str, KeyKind, SigningAlgorithm); 7] = [
        ("ed25519", KeyKind::Ed25519, SigningAlgorithm::Ed25519),
        ("ec-p256", KeyKind::P256, SigningAlgorithm::EcdsaSha256),
        ("ec-p384", KeyKind::P384, SigningAlgorithm::EcdsaSha384),
        ("ec-p521", KeyKind::P521, SigningAlgorithm::EcdsaSha512),
        ("rsa2048", KeyKind::Rsa { bits: 2048 }, SigningAlgorithm::RsaPkcs1Sha256),
        ("rsa3072", KeyKind::Rsa { bits: 3072 }, SigningAlgorithm::RsaPkcs1Sha384),
        ("rsa4096", KeyKind::Rsa { bits: 4096 }, SigningAlgorithm::RsaPkcs1Sha512),
    ];

    fn vectors() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys")
    }

    fn read(name: &str) -> Vec<u8> {
        fs::read(vectors().join(name)).unwrap()
    }

    fn pem(name: &str) -> String {
        String::from_utf8(read(&format!("{name}.pem"))).unwrap()
    }

    fn key(name: &str) -> PublicKey {
        PublicKey::from_pem(&pem(name)).unwrap()
    }

    #[test]
    fn keys_of_every_kind_verify_what_openssl_signed() {
        let message = read("message");
        for (name, kind, algorithm) in KEYS {
            let key = key(name);
            assert_eq!(key.kind(), kind);
            let good = read(&format!("{name}.good.sig"));
            let digest = algorithm.hash().map(|hash| HashState::new(hash).and(&message).finish());
            let forms = [Some(Message::Raw(&message)), digest.as_ref().map(Message::Digest)];
            for form in forms.into_iter().flatten() {
                assert!(key.verify(algorithm, form, &good), "{name}");
                for bad in ["other-message", "other-key"] {
                    let bad = read(&format!("{name}.{bad}.sig"));
                    assert!(!key.verify(algorithm, form, &bad), "{name}");
                }
                for at in 0..good.len() {
                    let mut flipped = good.clone();
                    flipped[at] ^= 1;
                    assert!(!key.verify(algorithm, form, &flipped), "{name}, byte {at}");
                }
                let longer = [good.as_slice(), &[0]].concat();
                assert!(!key.verify(algorithm, form, &longer), "{name}");
                assert!(!key.verify(algorithm, form, &good[..good.len() - 1]), "{name}");
                assert!(!key.verify(algorithm, form, &[]), "{name}");
            }
        }
    }

    #[test]
    fn an_algorithm_of_another_kind_or_hash_verifies_nothing() {
        let message = read("message");
        for (name, kind, algorithm) in KEYS {
            let (key, good) = (key(name), read(&format!("{name}.good.sig")));
            for other in SigningAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                assert!(!key.verify(other, Message::Raw(&message), &good), "{kind}, {other}");
            }
            for hash in HashAlgorithm::ALL.into_iter().filter(|hash| algorithm.hash() != Some(*hash)) {
                let digest = HashState::new(hash).and(&message).finish();
                assert!(!key.verify(algorithm, Message::Digest(&digest), &good), "{kind}, {hash}");
            }
        }
    }

    #[test]
    fn two_forms_of_one_key_are_equal() {
        for (name, kind, _) in KEYS {
            let key = key(name);
            assert_eq!(PublicKey::from_spki(key.spki()).as_ref(), Ok(&key));
            assert_eq!(key.to_pem(), pem(name), "as OpenSSL writes it");
            let again = match kind {
                KeyKind::Ed25519 => PublicKey::ed25519(key.ed25519_bytes().unwrap().try_into().unwrap()),
                KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => PublicKey::ec(kind, key.ec_point().unwrap()),
                KeyKind::Rsa { bits } => {
                    let (n, e) = key.rsa_numbers().unwrap();
                    assert_eq!((n.len() * 8, e), (bits as usize, &[1, 0, 1][..]));
                    PublicKey::rsa(&[&[0, 0], n].concat(), &[&[0], e].concat())
                }
            };
            assert_eq!(again, Ok(key));
        }
        let shown = format!("{:?}", key("ec-p256"));
        let expected = format!("PublicKey(P-256, SHA-256 {})", hex::encode(key("ec-p256").fingerprint()));
        assert_eq!(shown, expected);
    }

    #[test]
    fn pem_is_read_however_it_was_stored() {
        let (pem, key) = (pem("ec-p384"), key("ec-p384"));
        let other = key_text("RSA PRIVATE KEY");
        for text in [
            pem.replace('\n', "\r\n"),
            pem.trim_end().to_owned(),
            format!("the key of 2026:\n\n{pem}\nkept by Ada\n"),
            format!("{other}{pem}"),
        ] {
            assert_eq!(PublicKey::from_pem(&text).as_ref(), Ok(&key), "{text}");
        }
        for (text, error) in [
            (String::new(), PublicKeyError::NoPem),
            ("MCowBQYDK2VwAyEA".into(), PublicKeyError::NoPem),
            (pem.repeat(2), PublicKeyError::SeveralPem),
            (pem.replace("-----END", "----END"), PublicKeyError::DamagedPem),
            (pem.replace("-----END PUBLIC", "-----END PRIVATE"), PublicKeyError::DamagedPem),
            (pem.replacen('M', "!", 1), PublicKeyError::DamagedPem),
            (key_text("PUBLIC KEY"), PublicKeyError::NotSpki),
            (key_text("OPENSSH PRIVATE KEY"), PublicKeyError::PrivateKey),
            (key_text("ENCRYPTED PRIVATE KEY"), PublicKeyError::PrivateKey),
            (key_text("PGP PUBLIC KEY BLOCK"), PublicKeyError::OtherPem("PGP PUBLIC KEY BLOCK".into())),
        ] {
            assert_eq!(PublicKey::from_pem(&text), Err(error), "{text}");
        }
    }

    fn key_text(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    #[test]
    fn what_is_no_safe_key_is_refused_by_name() {
        use PublicKeyError as E;
        let cases = [
            ("certificate", E::Certificate),
            ("ed25519-not-canonical", E::NotCanonical),
            ("ed25519-order-8", E::SmallOrder),
            ("ed25519-zero", E::SmallOrder),
            ("ed448", E::Algorithm("1.3.101.113".into())),
            ("compressed-p256", E::Compressed(KeyKind::P256)),
            ("explicit-p256", E::ExplicitCurve),
            ("off-curve-p256", E::NotOnCurve(KeyKind::P256)),
            ("pkcs1", E::Pkcs1),
            ("private", E::PrivateKey),
            ("rsa1024", E::RsaSize(1024)),
            ("secp256k1", E::Curve("1.3.132.0.10".into())),
            ("x25519", E::Algorithm("1.3.101.110".into())),
        ];
        for (name, error) in &cases {
            assert_eq!(PublicKey::from_pem(&pem(&format!("refused/{name}"))).as_ref(), Err(error), "{name}");
        }
        assert_eq!(fs::read_dir(vectors().join("refused")).unwrap().count(), cases.len(), "one for each");
    }

    #[test]
    fn numbers_that_are_no_rsa_key_are_refused() {
        let key = key("rsa2048");
        let (n, e) = key.rsa_numbers().unwrap();
        let even = [&n[..n.len() - 1], &[0]].concat();
        let long = [&[1][..], &[0; 3], &[1, 1]].concat();
        for (n, e) in [(n, &[][..]), (n, &[0]), (n, &[1]), (n, &[2]), (n, &[1, 0, 0]), (n, &long), (&even, e)]
        {
            assert_eq!(PublicKey::rsa(n, e), Err(PublicKeyError::RsaNumbers), "{e:?}");
        }
        assert!(PublicKey::rsa(n, &[3]).is_ok());
        assert_eq!(PublicKey::rsa(&[0xff; 1025], e), Err(PublicKeyError::RsaSize(8200)));
        assert_eq!(PublicKey::rsa(&[0; 300], e), Err(PublicKeyError::RsaSize(0)));
    }

    #[test]
    fn points_are_of_the_curve_that_is_named() {
        let (p256, p384) = (key("ec-p256"), key("ec-p384"));
        let point = p256.ec_point().unwrap();
        for kind in [KeyKind::P384, KeyKind::P521] {
            assert_eq!(PublicKey::ec(kind, point), Err(PublicKeyError::NotOnCurve(kind)));
        }
        let kind = KeyKind::P256;
        for point in [&[][..], &[0], &[4; 65], p384.ec_point().unwrap()] {
            assert_eq!(PublicKey::ec(kind, point), Err(PublicKeyError::NotOnCurve(kind)));
        }
        assert_eq!(PublicKey::ec(KeyKind::Ed25519, point), Err(PublicKeyError::NoCurve(KeyKind::Ed25519)));
        assert_eq!((p256.ed25519_bytes(), p256.rsa_numbers()), (None, None));
        assert_eq!(key("ed25519").ec_point(), None);
    }

    proptest! {
        /// A second encoding of a key would be a second key.
        #[test]
        fn a_changed_encoding_is_refused_or_another_key(name in 0..KEYS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let key = key(KEYS[name].0);
            let mut spki = key.spki().to_vec();
            let at = at.index(spki.len());
            spki[at] = byte;
            if let Ok(other) = PublicKey::from_spki(&spki) {
                prop_assert_eq!(other.spki(), spki.as_slice());
                prop_assert_eq!(other == key, spki == key.spki());
            }
        }
    }
}
