//! From settings, environment and profile to the SDK's configuration.
//!
//! Reads files and variables, and asks nobody. What is asked for later is asked for once and only
//! if it is needed: the instance metadata service for a Region, when a key without one is used and
//! nothing else names one; credentials, when the first request is signed.
//!
//! All clients share one configuration, so one set of credentials. Where no Region is configured,
//! the first key whose ARN has one lends it to the services that credentials come from (STS). Which
//! key that is does not matter to the others: credentials are good in every Region of their
//! partition.

use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::service_config::ServiceConfigKey;
use tokio::sync::OnceCell;

use super::credentials::Sources;
use super::proxy::{self, ProxyError};
use super::refresh::{Open, Origin};
use super::shared_config::{NamedBy, ProfileError, SharedConfig};
use super::source::Source;
use super::trust_store::{self, CaBundleError};
use super::wire::{Peer, Transport};
use crate::kms::AwsSettings;
use crate::kms::endpoint::{EndpointError, Reach, check_endpoint, destination};

/// Why AWS cannot be used as it is configured. Somebody must edit something.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// An endpoint that is no URL, or plain HTTP to another machine.
    #[error("cannot use the KMS endpoint of {origin}")]
    Endpoint {
        /// Who said so.
        origin: EndpointOrigin,
        /// What is wrong with it.
        source: EndpointError,
    },
    /// There is no FIPS variant of somebody's own endpoint; the SDK would refuse every single call.
    #[error("use_fips and the KMS endpoint of {0} exclude each other; remove one")]
    FipsEndpoint(EndpointOrigin),
    /// A profile that is named and not there, or files that cannot be read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Certificates that cannot be read.
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
    /// A proxy that cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

impl AwsError {
    /// Whether its words end with what a person can do.
    pub(crate) fn says_what_to_do(&self) -> bool {
        match self {
            Self::Endpoint { .. } | Self::FipsEndpoint(_) | Self::Proxy(_) => true,
            Self::Profile(error) => !matches!(error, ProfileError::Load(_)),
            Self::CaBundle(error) => error.says_what_to_do(),
        }
    }
}

/// Who named an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// The policy or the command line.
    Settings,
    /// `AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL`, or a profile's `endpoint_url`.
    Surroundings,
}

impl fmt::Display for EndpointOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "aws.endpoint_url",
            Self::Surroundings => "AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL or the AWS profile",
        })
    }
}

/// The AWS configuration of this host.
pub(super) struct Surroundings {
    /// Without credentials and a Region.
    base: SdkConfig,
    /// The profile that the policy names.
    profile: Option<String>,
    /// The Region that settings, environment or profile name.
    region: Option<Region>,
    /// The Region of this instance, once it was needed and known.
    instance_region: OnceCell<Region>,
    endpoint: Option<String>,
    transport: Transport,
    /// The Region of the first key that was used, for the services that credentials come from.
    lent: OnceLock<Region>,
}

impl Surroundings {
    pub(super) async fn read(settings: &AwsSettings) -> Result<Self, AwsError> {
        if let Some(url) = &settings.endpoint_url {
            check_endpoint(url)
                .map_err(|source| AwsError::Endpoint { origin: EndpointOrigin::Settings, source })?;
        }
        let config = SharedConfig::load(settings.profile.as_deref()).await?;
        // The environment's own credentials go before AWS_PROFILE, which then need not exist.
        if config.named_by() == NamedBy::Policy || !has_keys_in_environment() {
            config.check_profile()?;
        }
        let transport = Transport::new(trust_store::trust_store(&config)?);
        let region = configured_region(settings, &config).await;
        let base = load_base(settings, &config, region.clone(), &transport).await;
        let endpoint = endpoint(settings, &config, &base)?;
        if endpoint.as_deref().is_none_or(|url| !matches!(destination(url), Ok((_, Reach::Loopback)))) {
            proxy::check_environment()?;
        }
        Ok(Self {
            base,
            profile: settings.profile.clone(),
            region,
            instance_region: OnceCell::new(),
            endpoint,
            transport,
            lent: OnceLock::new(),
        })
    }

    /// The Region for a key that has none: the configured one, or the one of this instance.
    pub(super) async fn region(&self) -> Option<Region> {
        if self.region.is_some() {
            return self.region.clone();
        }
        let of_instance = async || {
            let config =
                ProviderConfig::without_region().with_http_client(self.transport.client(Peer::Credentials));
            ImdsRegionProvider::builder().configure(&config).build().region().await.ok_or(())
        };
        self.instance_region.get_or_try_init(of_instance).await.ok().cloned()
    }

    /// Lends the Region of a key to where credentials come from, if none is configured and none was
    /// lent.
    pub(super) fn lend(&self, region: &Region) {
        self.lent.get_or_init(|| region.clone());
    }

    /// The SDK's configuration, without credentials and a Region.
    pub(super) const fn sdk(&self) -> &SdkConfig {
        &self.base
    }

    /// What opens the source of credentials, anew each time.
    pub(super) fn opener(self: &Arc<Self>) -> Open {
        let surroundings = Arc::clone(self);
        Box::new(move || {
            let surroundings = Arc::clone(&surroundings);
            Box::pin(async move {
                let Self { profile, base, region, lent, transport, .. } = &*surroundings;
                let region = region.as_ref().or(lent.get()).cloned();
                let sources = Sources::new(profile.clone(), base, region, transport);
                Origin {
                    provider: SharedCredentialsProvider::new(sources),
                    source: Source::find(profile.as_deref()).await,
                }
            })
        })
    }

    /// Somebody's own endpoint, checked.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The way out.
    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the SDK's configuration: nobody knows what it prints next year.
        f.debug_struct("Surroundings").field("region", &self.region).finish_non_exhaustive()
    }
}

fn has_keys_in_environment() -> bool {
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].iter().all(|name| std::env::var_os(name).is_some())
}

/// The Region that somebody names. Asks nobody.
async fn configured_region(settings: &AwsSettings, config: &SharedConfig) -> Option<Region> {
    if let Some(region) = &settings.region {
        return Some(Region::new(region.clone()));
    }
    let in_environment = EnvironmentVariableRegionProvider::new().region().await;
    let mut in_profile = ProfileFileRegionProvider::builder();
    if let Some(profile) = &settings.profile {
        in_profile = in_profile.profile_name(profile);
    }
    let in_profile = in_profile.build().region().await;
    let region = match config.named_by() {
        NamedBy::Policy => in_profile.or(in_environment),
        NamedBy::Environment | NamedBy::Nobody => in_environment.or(in_profile),
    };
    region.filter(|region| !region.as_ref().is_empty())
}

/// The SDK's configuration as its loader has it, but for credentials and Region.
async fn load_base(
    settings: &AwsSettings,
    config: &SharedConfig,
    region: Option<Region>,
    transport: &Transport,
) -> SdkConfig {
    // The loader asks the instance metadata service, for three seconds where there is none, unless
    // it is told a Region. This one is used for nothing.
    let region = region.unwrap_or(Region::from_static("none"));
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(region)
        .no_credentials()
        .http_client(transport.client(Peer::Credentials));
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    let in_profile = || {
        let (_, value) = config.setting("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")?;
        Some(value.eq_ignore_ascii_case("true"))
    };
    if let Some(use_fips) = settings.use_fips.or_else(in_profile) {
        loader = loader.use_fips(use_fips);
    }
    loader.load().await.into_builder().region(None).build()
}

/// The endpoint of KMS, if it is not AWS's own.
fn endpoint(
    settings: &AwsSettings,
    config: &SharedConfig,
    sdk: &SdkConfig,
) -> Result<Option<String>, AwsError> {
    let (endpoint, origin) = match &settings.endpoint_url {
        Some(url) => (Some(url.clone()), EndpointOrigin::Settings),
        None => (endpoint_around(config, sdk), EndpointOrigin::Surroundings),
    };
    if let Some(url) = &endpoint {
        check_endpoint(url).map_err(|source| AwsError::Endpoint { origin, source })?;
        if sdk.use_fips() == Some(true) {
            return Err(AwsError::FipsEndpoint(origin));
        }
    }
    Ok(endpoint)
}

/// The endpoint that environment or profile name, found by the rule of the SDK: the one of the
/// service goes before the one of all services, unless `ignore_configured_endpoint_urls` is set.
fn endpoint_around(config: &SharedConfig, sdk: &SdkConfig) -> Option<String> {
    let found = |variable| {
        let key = ServiceConfigKey::builder().service_id("KMS").env(variable).profile("endpoint_url");
        let url = sdk.service_config()?.load_config(key.build().ok()?)?;
        Some(url).filter(|url| !url.is_empty())
    };
    let in_profile = || match config.named_by() {
        // A variable that nobody sets, as the rule has one.
        NamedBy::Policy => found("KMS_SIG_NO_ENDPOINT_URL"),
        NamedBy::Environment | NamedBy::Nobody => None,
    };
    in_profile().or_else(|| found("AWS_ENDPOINT_URL"))
}
