//! Trouble: KMS could not or would not answer. What kind of it, and what a person can do.

use std::fmt;
use std::time::Duration;

use super::operation::Operation;
use crate::escape::Escaped;

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

const ALLOW_SIGNING: &str = "allow kms:Sign and kms:GetPublicKey to signers, in the key policy or IAM";
const USE_A_SIGNING_KEY: &str =
    "use a SIGN_VERIFY key: ECC_NIST_EDWARDS25519, ECC_NIST_P256, P384 or P521, or RSA of 2048 bits or more";

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
    /// The key is not of the kind that the operation takes (symmetric to encrypt, asymmetric to
    /// sign), or the grant is wrong.
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

    /// The same, with what a person can do where that depends on the operation that was asked for.
    #[must_use]
    pub fn of_operation(self, operation: Operation) -> Self {
        if self.hint != Hint::OfKind {
            return self;
        }
        match (operation, self.kind) {
            (Operation::Sign | Operation::GetPublicKey, TroubleKind::Denied) => self.with_hint(ALLOW_SIGNING),
            (Operation::Sign | Operation::GetPublicKey, TroubleKind::KeyUsage) => {
                self.with_hint(USE_A_SIGNING_KEY)
            }
            (Operation::Sign | Operation::GetPublicKey | Operation::Encrypt | Operation::Decrypt, _) => self,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn p9_a_providers_words_are_escaped() {
        let trouble = Trouble::new(TroubleKind::Network, "no\nroute\x1b[2J");
        assert_eq!(trouble.to_string(), "network: no\\x0aroute\\x1b[2J");
    }
    #[test]
    fn what_to_do_depends_on_the_operation_where_nobody_said_it() {
        let hint = |operation, kind| Trouble::new(kind, "").of_operation(operation).hint().to_owned();
        for operation in [Operation::Sign, Operation::GetPublicKey] {
            assert!(hint(operation, TroubleKind::Denied).starts_with("allow kms:Sign"));
            assert!(hint(operation, TroubleKind::KeyUsage).starts_with("use a SIGN_VERIFY key"));
            assert_eq!(hint(operation, TroubleKind::Network), TroubleKind::Network.hint());
        }
        for operation in [Operation::Encrypt, Operation::Decrypt] {
            assert_eq!(hint(operation, TroubleKind::Denied), TroubleKind::Denied.hint());
        }
        let told = Trouble::new(TroubleKind::Denied, "").with_hint("ask Ada");
        assert_eq!(told.of_operation(Operation::Sign).hint(), "ask Ada");
    }
}
