//! What a caller may say about AWS KMS.

/// `[aws]` of a policy: what is given here goes before the environment and the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// Region for keys whose name has none.
    pub region: Option<String>,
    /// Profile of the shared configuration files.
    pub profile: Option<String>,
    /// Another endpoint. Plain `http://` is taken on loopback only.
    pub endpoint_url: Option<String>,
    /// Whether to use the FIPS endpoints.
    pub use_fips: Option<bool>,
}
