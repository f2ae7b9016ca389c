//! The key management service as this program sees it: two operations, and errors that say what
//! they mean.
//!
//! The trait mirrors the AWS API. Providers translate their failures to [`KmsError`] by code; the
//! table of codes is [`classify`], in one `match`, because taking an outage for a verdict (P2) or a
//! verdict for an outage happens exactly there.

pub(crate) mod caller;
pub(crate) mod dry_run;
pub mod endpoint;
pub mod local;
pub(crate) mod provider;
pub(crate) mod throttle;

#[cfg(feature = "aws")]
pub mod aws;
mod settings;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::context::Context;
use crate::escape::Escaped;
use crate::key::{KeyArn, KeyId};
use caller::Caller;
pub use settings::AwsSettings;

/// Encrypt and Decrypt of AWS KMS, or of something that behaves like it.
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

    /// As whom it asks, as far as that is known without asking anybody. Keys of this host need
    /// nobody.
    fn caller(&self) -> Option<Caller> {
        None
    }
}

/// The two operations. A key may allow one and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
}

impl Operation {
    /// Its name in the AWS API; with `kms:` before it, the right to it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
        }
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

/// An answer that KMS did not give, and why: always a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble.
    pub kind: TroubleKind,
    /// The provider's error code, where there was one.
    pub code: Option<String>,
    /// The provider's words.
    pub message: String,
    /// What a person can do, where more is known than the kind says.
    pub hint: Hint,
}

/// Who says what a person can do about trouble.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hint {
    /// Its kind.
    #[default]
    OfKind,
    /// Its message ends with it.
    InMessage,
    /// This does.
    Own(String),
}

impl Hint {
    /// The text, if it is one of its own.
    pub fn own(&self) -> Option<&str> {
        match self {
            Self::Own(text) => Some(text),
            Self::OfKind | Self::InMessage => None,
        }
    }
}

/// How long an outage may last before a person is called. Most are over by then; and until then
/// nobody who is called could do more than wait.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The same for what a restart or a proxy's log-in page may cause for a moment, and a wrong setting
/// for ever.
const SETUP_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Kinds of trouble, by who can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// Too many calls; ends by itself.
    Throttled,
    /// An internal error or a dependency of KMS; ends by itself.
    Internal,
    /// The network, DNS or TLS.
    Network,
    /// No answer in time.
    Timeout,
    /// An answer that cannot be understood.
    MalformedReply,
    /// A code that nobody here has heard of.
    Unknown,
    /// The caller may not.
    Denied,
    /// The key is disabled or in a state that cannot be used.
    KeyState,
    /// There is no such key.
    NotFound,
    /// The key is not a symmetric encryption key, or the grant is wrong.
    KeyUsage,
    /// Credentials that are wrong or not configured, or the clock.
    Credentials,
    /// What hands out the credentials does not answer, or not as it should; may end by itself.
    CredentialSource,
    /// KMS calls the request itself wrong.
    Request,
}

impl TroubleKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Throttled,
        Self::Internal,
        Self::Network,
        Self::Timeout,
        Self::MalformedReply,
        Self::Unknown,
        Self::Denied,
        Self::KeyState,
        Self::NotFound,
        Self::KeyUsage,
        Self::Credentials,
        Self::CredentialSource,
        Self::Request,
    ];

    /// Whether a person is needed, once it has lasted so long. Such trouble is logged once, as an
    /// error.
    pub fn needs_operator(self, lasted: Duration) -> bool {
        self.patience().is_some_and(|patience| lasted >= patience)
    }

    /// How long it may last before a person is called: not at all where only a person can end it,
    /// and `None` where waiting is all that helps.
    const fn patience(self) -> Option<Duration> {
        match self {
            // The rate follows what KMS takes; a long queue is no fault.
            Self::Throttled => None,
            Self::Internal | Self::Network | Self::Timeout | Self::Unknown => Some(OUTAGE_PATIENCE),
            Self::MalformedReply | Self::CredentialSource => Some(SETUP_PATIENCE),
            Self::Denied
            | Self::KeyState
            | Self::NotFound
            | Self::KeyUsage
            | Self::Credentials
            | Self::Request => Some(Duration::ZERO),
        }
    }

    /// One or two words for logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Internal => "kms-internal",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::MalformedReply => "malformed-reply",
            Self::Unknown => "unknown-error",
            Self::Denied => "access-denied",
            Self::KeyState => "key-state",
            Self::NotFound => "key-not-found",
            Self::KeyUsage => "key-usage",
            Self::Credentials => "credentials",
            Self::CredentialSource => "credential-source",
            Self::Request => "bad-request",
        }
    }

    /// What a person can do about it, as far as the kind tells; see [`Trouble::hint`].
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Throttled => {
                "KMS is rate limiting; the daemon slows down by itself; if it lasts, ask for a higher quota"
            }
            Self::Internal | Self::Unknown => "KMS had a problem of its own; try again",
            Self::Network => "check the network, DNS, proxy and endpoint_url",
            Self::Timeout => "check the network and that KMS is reachable from here",
            Self::MalformedReply => "this endpoint does not speak KMS; check endpoint_url and the proxy",
            Self::Denied => {
                "allow kms:Encrypt to signers and kms:Decrypt to verifiers, in the key policy or IAM"
            }
            Self::KeyState => "enable the key or cancel its deletion",
            Self::NotFound => "check the key's name, Region and account",
            Self::KeyUsage => "use a symmetric ENCRYPT_DECRYPT key",
            Self::Credentials => "check the credentials and this host's clock; for a local key, its keyring",
            Self::CredentialSource => {
                "it is asked again; if that lasts, check what hands out the credentials"
            }
            Self::Request => "check the key's name, the context and the AWS settings",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(code) = &self.code {
            write!(f, " ({})", Escaped::text(code))?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", Escaped::text(&self.message))?;
        }
        Ok(())
    }
}

impl std::error::Error for Trouble {}

impl Trouble {
    /// Trouble that carries no code of the provider.
    pub fn new(kind: TroubleKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), hint: Hint::OfKind }
    }

    /// The same, with what a person can do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Hint::Own(hint.into()), ..self }
    }

    /// The same, whose message ends with what a person can do.
    #[must_use]
    pub fn that_says_what_to_do(self) -> Self {
        Self { hint: Hint::InMessage, ..self }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &str {
        self.hint.own().unwrap_or(self.kind.hint())
    }

    /// Whether KMS says of the credentials that it does not know them, or not any more. Never of
    /// what they may do: other credentials would be denied the same.
    pub fn disowns_credentials(&self) -> bool {
        let codes = [
            "ExpiredToken",
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException", // another secret
        ];
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
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
    fn trouble_that_may_pass_calls_a_person_when_it_lasts() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        for kind in TroubleKind::ALL {
            let (at_once, after_five, after_fifteen) = (
                kind.needs_operator(Duration::ZERO),
                kind.needs_operator(minutes(5)),
                kind.needs_operator(minutes(15)),
            );
            let expected = match kind {
                TroubleKind::Throttled => (false, false, false),
                TroubleKind::Internal
                | TroubleKind::Network
                | TroubleKind::Timeout
                | TroubleKind::Unknown => (false, false, true),
                TroubleKind::MalformedReply | TroubleKind::CredentialSource => (false, true, true),
                TroubleKind::Denied
                | TroubleKind::KeyState
                | TroubleKind::NotFound
                | TroubleKind::KeyUsage
                | TroubleKind::Credentials
                | TroubleKind::Request => (true, true, true),
            };
            assert_eq!((at_once, after_five, after_fifteen), expected, "{kind:?}");
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

    #[test]
    fn p9_a_providers_words_are_escaped() {
        let trouble = Trouble::new(TroubleKind::Network, "no\nroute\x1b[2J");
        assert_eq!(trouble.to_string(), "network: no\\x0aroute\\x1b[2J");
    }
}
