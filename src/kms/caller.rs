//! As whom a provider asks. Never the secret: what is here is shown to whoever may see the daemon's
//! status.

/// What is known of the caller without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Where the credentials come from: the profile, the kind of source, the role that is assumed.
    pub(crate) source: String,
    /// The access key id, which CloudTrail shows beside each call.
    pub(crate) access_key_id: String,
    /// The account, where the credentials name it.
    pub(crate) account: Option<String>,
}

/// What STS says of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// The account.
    pub(crate) account: String,
    /// The user, or the role with the name of its session.
    pub(crate) arn: String,
}
