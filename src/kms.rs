//! The key management service as this program sees it: four operations, and errors that say what
//! they mean.
//!
//! The trait mirrors the AWS API. Providers translate their failures to [`KmsError`] by code; the
//! table of codes is [`classify`], in one `match`, because taking an outage for a verdict (P2) or a
//! verdict for an outage happens exactly there.

pub(crate) mod caller;
pub(crate) mod dry_run;
pub mod endpoint;
pub mod local;
mod operation;
pub(crate) mod provider;
pub(crate) mod throttle;
mod trouble;

#[cfg(feature = "aws")]
pub mod aws;
mod settings;

use std::future::Future;

use zeroize::Zeroizing;

use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::trust::{Message, PublicKey, SigningAlgorithm};
use caller::Caller;
pub use operation::Operation;
pub use settings::AwsSettings;
pub use trouble::{Hint, Trouble, TroubleKind};

/// Encrypt, Decrypt, Sign and `GetPublicKey` of AWS KMS, or of something that behaves like it.
pub trait Kms: Send + Sync + 'static {
    /// Encrypts `plaintext` (1 to 4,096 bytes) under `key`, bound to `context`.
    ///
    /// # Errors
    /// Never `Rejected` or `IncorrectKey`: encrypting gives no verdicts.
    fn encrypt(
        &self,
        key: &KeyId,
        plaintext: &[u8],
        context: &Context,
    ) -> impl Future<Output = Result<Encrypted, KmsError>> + Send;

    /// Decrypts `ciphertext` (1 to 6,144 bytes), bound to `context`, under the key that `asked`
    /// names.
    ///
    /// # Errors
    /// [`KmsError`]; only `Rejected` and `IncorrectKey` say anything about the ciphertext.
    fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> impl Future<Output = Result<Decrypted, KmsError>> + Send;

    /// Signs `message` (at most 4,096 bytes, or a digest) with the private half of `key`. The
    /// answer is no more than what KMS says: whoever publishes it verifies it with the public key
    /// before.
    ///
    /// # Errors
    /// Never `Rejected` or `IncorrectKey`: signing gives no verdicts. A message that cannot be
    /// signed with this algorithm is trouble before anybody is asked.
    fn sign(
        &self,
        key: &KeyId,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> impl Future<Output = Result<SignReply, KmsError>> + Send;

    /// The public half of `key`.
    ///
    /// # Errors
    /// Never `Rejected` or `IncorrectKey`. A key that signs nothing is trouble.
    fn get_public_key(&self, key: &KeyId) -> impl Future<Output = Result<PublicKeyReply, KmsError>> + Send;

    /// As whom it asks, as far as that is known without asking anybody. Keys of this host need
    /// nobody.
    fn caller(&self) -> Option<Caller> {
        None
    }
}

/// Under which key a Decrypt is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// This one; another key's ciphertext is then refused by KMS. The only form the daemon uses.
    Key(&'a KeyId),
    /// Whatever AWS key made the ciphertext and the caller may use: the original's behaviour, kept
    /// for `kms-sig verify` without `--key`, where a person reads which key it was.
    AnyKey,
}

/// What Encrypt answers.
#[derive(Debug)]
pub struct Encrypted {
    /// The ciphertext, as the provider made it.
    pub ciphertext: Vec<u8>,
    /// The key that was used.
    pub key: KeyArn,
}

/// What Decrypt answers.
pub struct Decrypted {
    /// The plaintext.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The key that was used.
    pub key: KeyArn,
}

/// What Sign answers.
#[derive(Debug)]
pub struct SignReply {
    /// The signature: DER for ECDSA, else as many bytes as the algorithm gives.
    pub signature: Vec<u8>,
    /// The key that was used.
    pub key: KeyArn,
}

/// What `GetPublicKey` answers.
#[derive(Debug)]
pub struct PublicKeyReply {
    /// The public key.
    pub public_key: PublicKey,
    /// Whose it is.
    pub key: KeyArn,
}

/// The most that Sign takes of a message, in bytes (AWS KMS API reference, Sign, `Message`).
pub const MAX_MESSAGE: usize = 4096;

/// What cannot be signed, whoever is asked.
fn check_message(message: Message<'_>, algorithm: SigningAlgorithm) -> Result<(), Trouble> {
    let says = match message {
        Message::Raw(bytes) if bytes.len() > MAX_MESSAGE => {
            format!("a message to be signed has at most {MAX_MESSAGE} bytes; this one has {}", bytes.len())
        }
        Message::Digest(value) if !message.fits(algorithm) => {
            format!("a digest by {} cannot be signed with {algorithm}", value.algorithm())
        }
        Message::Raw(_) | Message::Digest(_) => return Ok(()),
    };
    Err(Trouble::new(TroubleKind::Request, says).that_says_what_to_do())
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KmsError {
    /// The ciphertext is damaged or the context is another (`InvalidCiphertextException`).
    #[error("the ciphertext is not valid under this key and context")]
    Rejected,
    /// Another key made the ciphertext (`IncorrectKeyException`).
    #[error("another key made this ciphertext")]
    IncorrectKey,
    /// KMS could not or would not answer. Says nothing about the ciphertext.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// What an error code of the KMS API means (AWS KMS API reference, "Errors" of Encrypt and Decrypt,
/// and "Common Errors"). A code that is not in the table is trouble, never a verdict (P2).
pub fn classify(code: &str, message: &str) -> KmsError {
    use TroubleKind as T;
    let kind = match code {
        "InvalidCiphertextException" => return KmsError::Rejected,
        "IncorrectKeyException" => return KmsError::IncorrectKey,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown" => T::Throttled,
        "KMSInternalException"
        | "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => T::Internal,
        "RequestTimeout" | "RequestTimeoutException" => T::Timeout,
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => T::Denied,
        "DisabledException" | "KMSInvalidStateException" => T::KeyState,
        "NotFoundException" => T::NotFound,
        "InvalidKeyUsageException" | "InvalidGrantTokenException" | "UnsupportedOperationException" => {
            T::KeyUsage
        }
        "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "RequestInTheFuture"
        | "AuthFailure" => T::Credentials,
        "ValidationException"
        | "ValidationError"
        | "MalformedQueryString"
        | "InvalidAction"
        | "InvalidParameterCombination"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "MalformedHttpRequestException"
        | "SerializationException"
        | "DryRunOperationException" => T::Request,
        _ => T::Unknown,
    };
    let code = Some(code.to_owned());
    KmsError::Trouble(Trouble { code, ..Trouble::new(kind, message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_only_two_codes_are_verdicts() {
        assert!(matches!(classify("InvalidCiphertextException", ""), KmsError::Rejected));
        assert!(matches!(classify("IncorrectKeyException", ""), KmsError::IncorrectKey));
        for (code, kind) in [
            ("ThrottlingException", TroubleKind::Throttled),
            ("LimitExceededException", TroubleKind::Throttled),
            ("KMSInternalException", TroubleKind::Internal),
            ("DependencyTimeoutException", TroubleKind::Internal),
            ("KeyUnavailableException", TroubleKind::Internal),
            ("ServiceUnavailableException", TroubleKind::Internal),
            ("RequestTimeout", TroubleKind::Timeout),
            ("AccessDeniedException", TroubleKind::Denied),
            ("DisabledException", TroubleKind::KeyState),
            ("KMSInvalidStateException", TroubleKind::KeyState),
            ("NotFoundException", TroubleKind::NotFound),
            ("InvalidKeyUsageException", TroubleKind::KeyUsage),
            ("InvalidGrantTokenException", TroubleKind::KeyUsage),
            ("ExpiredTokenException", TroubleKind::Credentials),
            ("UnrecognizedClientException", TroubleKind::Credentials),
            ("InvalidSignatureException", TroubleKind::Credentials),
            ("IncompleteSignature", TroubleKind::Credentials),
            ("RequestTimeTooSkewed", TroubleKind::Credentials),
            ("ValidationException", TroubleKind::Request),
            ("DryRunOperationException", TroubleKind::Request),
            ("TeapotException", TroubleKind::Unknown),
            ("invalidciphertextexception", TroubleKind::Unknown),
            ("", TroubleKind::Unknown),
        ] {
            match classify(code, "words") {
                KmsError::Trouble(trouble) => assert_eq!(trouble.kind, kind, "{code}"),
                verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => {
                    panic!("{code} became {verdict:?}")
                }
            }
        }
    }

    #[test]
    fn k13_kms_disowns_credentials_by_five_codes_and_never_by_a_denial() {
        let disowned = |code| match classify(code, "") {
            KmsError::Trouble(trouble) => trouble.disowns_credentials(),
            verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
        };
        for code in [
            "ExpiredToken",
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
        ] {
            assert!(disowned(code), "{code}");
        }
        for code in ["AccessDeniedException", "RequestTimeTooSkewed", "OptInRequired"] {
            assert!(!disowned(code), "{code}");
        }
    }
}
