//! Sigstore bundles of version 0.3 with a plain public key (sigstore's protobuf specifications,
//! `sigstore_bundle.proto`): JSON that says which key, which digest, and its signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::suffix::Suffix;
use crate::digest::algorithm::{HashAlgorithm, HashValue};
use crate::digest::set::DigestSet;
use crate::escape::Escaped;
use crate::trust::PublicKey;
use crate::trust::{KeyKind, Message, SigningAlgorithm};

/// What its signatures are named by.
pub(super) const SUFFIX: Suffix = Suffix::new(".sigstore.json");

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The same version, as the first versions had it (`sigstore_bundle.proto`, `media_type`).
const OLD_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
const SHA256: &str = "SHA2_256";

/// A bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    hint: String,
    digest: Vec<u8>,
    signature: Vec<u8>,
}

/// Why bytes are no bundle that can be judged with a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleMalformed {
    /// Not the form, or something in it that is not known. The words quote the bundle, and so do
    /// its senders.
    #[error("it is no sigstore bundle of a public key: {}", Escaped::text(.0))]
    Json(String),
    /// Another version.
    #[error("it is a sigstore bundle of another version than 0.3")]
    Version,
    /// X.509: who signed is to be told from an identity, and a log.
    #[error("certificate bundles are not supported yet; sign with a key (cosign sign-blob --key)")]
    Certificate,
    /// Entries of a transparency log, or timestamps. To take no notice of them would be to say that
    /// they were checked.
    #[error(
        "bundles with entries of a transparency log or timestamps are not supported yet; sign without uploading to a log"
    )]
    Log,
    /// An in-toto attestation.
    #[error("it is an attestation (dsseEnvelope) and no signature of a file")]
    Attestation,
    /// Another digest.
    #[error("its digest is not a SHA-256")]
    Digest,
    /// No base64.
    #[error("its digest or its signature is no base64")]
    Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Json {
    media_type: String,
    verification_material: Material,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageSignature>,
    /// Here and below: what is known, and not supported.
    #[serde(default, skip_serializing)]
    dsse_envelope: Option<IgnoredAny>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
    #[serde(default, skip_serializing)]
    certificate: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    x509_certificate_chain: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    tlog_entries: Vec<IgnoredAny>,
    #[serde(default, skip_serializing)]
    timestamp_verification_data: Timestamps,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hint {
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageSignature {
    message_digest: MessageDigest,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

impl Bundle {
    /// One that a key made of a SHA-256, as KMS answered with it.
    pub fn new(key: &PublicKey, digest: &HashValue, signature: &[u8]) -> Self {
        Self { hint: hint_of(key), digest: digest.as_bytes().to_vec(), signature: signature.to_vec() }
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`BundleMalformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleMalformed> {
        let json: Json =
            serde_json::from_slice(bytes).map_err(|error| BundleMalformed::Json(error.to_string()))?;
        if ![MEDIA_TYPE, OLD_MEDIA_TYPE].contains(&json.media_type.as_str()) {
            return Err(BundleMalformed::Version);
        }
        let material = json.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(BundleMalformed::Certificate);
        }
        // Empty lists say nothing; some programs write them.
        let Timestamps { rfc3161_timestamps: timestamps } = material.timestamp_verification_data;
        if !(material.tlog_entries.is_empty() && timestamps.is_empty()) {
            return Err(BundleMalformed::Log);
        }
        if json.dsse_envelope.is_some() {
            return Err(BundleMalformed::Attestation);
        }
        let missing = |field: &str| BundleMalformed::Json(format!("there is no {field} in it"));
        let Hint { hint } = material.public_key.ok_or_else(|| missing("publicKey"))?;
        let MessageSignature { message_digest, signature } =
            json.message_signature.ok_or_else(|| missing("messageSignature"))?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| BundleMalformed::Base64);
        let digest = decode(&message_digest.digest)?;
        if message_digest.algorithm != SHA256 || digest.len() != HashAlgorithm::Sha256.digest_len() {
            return Err(BundleMalformed::Digest);
        }
        Ok(Self { hint, digest, signature: decode(&signature)? })
    }

    /// As JSON, on one line.
    ///
    /// # Errors
    /// None: strings are all it holds.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let json = Json {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material {
                public_key: Some(Hint { hint: self.hint.clone() }),
                ..Material::default()
            },
            message_signature: Some(MessageSignature {
                message_digest: MessageDigest {
                    algorithm: SHA256.to_owned(),
                    digest: STANDARD.encode(&self.digest),
                },
                signature: STANDARD.encode(&self.signature),
            }),
            dsse_envelope: None,
        };
        Ok(serde_json::to_string(&json)? + "\n")
    }

    /// Which key it says made it.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Whether this key made it of these digests, and the digest in it is that one. `None`: they
    /// lack their SHA-256.
    pub fn is_of(&self, key: &PublicKey, digests: &DigestSet) -> Option<bool> {
        let digest = digests.value(HashAlgorithm::Sha256)?;
        let algorithm = match key.kind() {
            KeyKind::P256 => SigningAlgorithm::EcdsaSha256,
            KeyKind::Rsa { .. } => SigningAlgorithm::RsaPkcs1Sha256,
            KeyKind::P384 | KeyKind::P521 | KeyKind::Ed25519 => return Some(false),
        };
        let is_its = digest.matches(&self.digest);
        Some(is_its && key.verify(algorithm, Message::Digest(digest), &self.signature))
    }
}

/// How a bundle names a key: SHA-256 of its `SubjectPublicKeyInfo`.
pub fn hint_of(key: &PublicKey) -> String {
    STANDARD.encode(key.fingerprint())
}
