//! What a local key is made of: the secret, and what the library makes of it.
//!
//! Secrets are wiped from memory when they go, and show nowhere. A key pair is parsed once, when
//! its keyring is opened: that an RSA key is one takes longer to find out than to sign.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RsaKeyPair, RsaSignatureEncoding,
};
use zeroize::Zeroizing;

use super::key_type::KeyType;
use crate::trust::{Message, PublicKey, SigningAlgorithm, library_digest};

/// Bytes of an AES-256 key.
pub(super) const SECRET_LEN: usize = 32;

/// An AES-256 key; wiped from memory when it goes.
pub(super) type Secret = Zeroizing<[u8; SECRET_LEN]>;

/// What a key is made of.
pub(super) enum Material {
    /// A secret to encrypt with.
    Aes(Secret),
    /// A secret to sign with.
    Pair(Box<Pair>),
}

/// A secret to sign with, and its public half.
pub(super) struct Pair {
    key_type: KeyType,
    /// PKCS#8 (RFC 5958), in DER.
    pkcs8: Zeroizing<Vec<u8>>,
    secret: PairSecret,
    public: PublicKey,
}

/// As the library takes it.
enum PairSecret {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Material {
    /// A new key of this type.
    ///
    /// # Errors
    /// The library has no random numbers.
    pub(super) fn generate(key_type: KeyType) -> Result<Self, Unspecified> {
        let of_rsa = |size| -> Result<_, Unspecified> {
            let pkcs8: Pkcs8V1Der<'static> = RsaKeyPair::generate(size)?.as_der()?;
            Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
        };
        let of_curve = |algorithm| -> Result<_, Unspecified> {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())?;
            Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
        };
        let stored = match key_type {
            KeyType::Aes => {
                let mut secret = Zeroizing::new(vec![0; SECRET_LEN]);
                aws_lc_rs::rand::fill(&mut secret)?;
                secret
            }
            KeyType::Ed25519 => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())?;
                Zeroizing::new(pkcs8.as_ref().to_vec())
            }
            KeyType::P256 => of_curve(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyType::P384 => of_curve(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyType::P521 => of_curve(&ECDSA_P521_SHA512_ASN1_SIGNING)?,
            KeyType::Rsa3072 => of_rsa(KeySize::Rsa3072)?,
            KeyType::Rsa4096 => of_rsa(KeySize::Rsa4096)?,
        };
        Self::of(key_type, stored).ok_or(Unspecified)
    }

    /// The key of this type that was stored so; `None` if it is none.
    pub(super) fn of(key_type: KeyType, stored: Zeroizing<Vec<u8>>) -> Option<Self> {
        let curve = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, &stored).ok().map(PairSecret::Ecdsa)
        };
        let secret = match key_type {
            KeyType::Aes => {
                let mut secret = Zeroizing::new([0; SECRET_LEN]);
                if stored.len() != SECRET_LEN {
                    return None;
                }
                secret.copy_from_slice(&stored);
                return Some(Self::Aes(secret));
            }
            KeyType::Ed25519 => Ed25519KeyPair::from_pkcs8(&stored).ok().map(PairSecret::Ed25519)?,
            KeyType::P256 => curve(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyType::P384 => curve(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyType::P521 => curve(&ECDSA_P521_SHA512_ASN1_SIGNING)?,
            KeyType::Rsa3072 | KeyType::Rsa4096 => {
                RsaKeyPair::from_pkcs8(&stored).ok().map(PairSecret::Rsa)?
            }
        };
        let public = secret.public()?;
        // An RSA key of another size, for one.
        if Some(public.kind()) != key_type.kind() {
            return None;
        }
        Some(Self::Pair(Box::new(Pair { key_type, pkcs8: stored, secret, public })))
    }

    /// Its type.
    pub(super) fn key_type(&self) -> KeyType {
        match self {
            Self::Aes(_) => KeyType::Aes,
            Self::Pair(pair) => pair.key_type,
        }
    }

    /// What is stored of it.
    pub(super) fn stored(&self) -> &[u8] {
        match self {
            Self::Aes(secret) => secret.as_slice(),
            Self::Pair(pair) => &pair.pkcs8,
        }
    }
}

/// Never the secret.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key_type().as_str())
    }
}

impl Pair {
    /// The public half.
    pub(super) const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs.
    ///
    /// # Errors
    /// The algorithm is not one of this key's, or not of this message.
    pub(super) fn sign(
        &self,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> Result<Vec<u8>, Unspecified> {
        if !algorithm.fits(self.public.kind()) || !message.fits(algorithm) {
            return Err(Unspecified);
        }
        let random = SystemRandom::new();
        let digest = match message {
            Message::Raw(_) => None,
            Message::Digest(value) => Some(library_digest(value).ok_or(Unspecified)?),
        };
        match (&self.secret, message, digest) {
            (PairSecret::Ed25519(pair), Message::Raw(bytes), _) => {
                Ok(pair.try_sign(bytes)?.as_ref().to_vec())
            }
            (PairSecret::Ed25519(_), Message::Digest(_), _) => Err(Unspecified),
            (PairSecret::Ecdsa(pair), _, Some(digest)) => Ok(pair.sign_digest(&digest)?.as_ref().to_vec()),
            (PairSecret::Ecdsa(pair), Message::Raw(bytes), None) => {
                Ok(pair.sign(&random, bytes)?.as_ref().to_vec())
            }
            (PairSecret::Rsa(pair), message, digest) => {
                let padding = padding(algorithm).ok_or(Unspecified)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                match (message, digest) {
                    (_, Some(digest)) => pair.sign_digest(padding, &digest, &mut signature)?,
                    (Message::Raw(bytes), None) => pair.sign(padding, &random, bytes, &mut signature)?,
                    (Message::Digest(_), None) => return Err(Unspecified),
                }
                Ok(signature)
            }
            (PairSecret::Ecdsa(_), Message::Digest(_), None) => Err(Unspecified),
        }
    }
}

impl PairSecret {
    fn public(&self) -> Option<PublicKey> {
        let spki: Result<PublicKeyX509Der<'static>, Unspecified> = match self {
            Self::Ed25519(pair) => pair.public_key().as_der(),
            Self::Ecdsa(pair) => pair.public_key().as_der(),
            Self::Rsa(pair) => pair.public_key().as_der(),
        };
        PublicKey::from_spki(spki.ok()?.as_ref()).ok()
    }
}

/// How an RSA key signs with this algorithm, if that is one of its own.
const fn padding(algorithm: SigningAlgorithm) -> Option<&'static RsaSignatureEncoding> {
    match algorithm {
        SigningAlgorithm::RsaPkcs1Sha256 => Some(&RSA_PKCS1_SHA256),
        SigningAlgorithm::RsaPkcs1Sha384 => Some(&RSA_PKCS1_SHA384),
        SigningAlgorithm::RsaPkcs1Sha512 => Some(&RSA_PKCS1_SHA512),
        SigningAlgorithm::Ed25519
        | SigningAlgorithm::EcdsaSha256
        | SigningAlgorithm::EcdsaSha384
        | SigningAlgorithm::EcdsaSha512 => None,
    }
}
