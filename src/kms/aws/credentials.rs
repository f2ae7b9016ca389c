//! Where credentials come from, in which order, and what is not taken for any.
//!
//! | who names a profile | asked, in this order; the first that has credentials gives them |
//! | --- | --- |
//! | the policy | that profile, and nothing else |
//! | nobody, or `AWS_PROFILE` | environment, profile, web identity, container, instance metadata: as the SDK and the CLI |
//!
//! A source that is set up and fails is an error and not passed over, and so is a profile that is
//! named and does not exist: or the role of the instance would sign in its place. The profile and
//! the token files are read anew each time, so that what was mended is seen. How long credentials
//! are kept is said in [`super::refresh`]. Every request goes through [`super::wire`].

use std::error::Error;
use std::fmt;

use aws_config::Region;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::container::Container;
use super::shared_config::SharedConfig;
use super::wire::{Peer, Transport};
use crate::escape::Escaped;
use crate::kms::endpoint::{EndpointError, check_credentials_url};

/// A service that hands out credentials.
struct Service {
    id: &'static str,
    name: &'static str,
    variable: &'static str,
}

/// Those whose endpoints can be named.
const SERVICES: [Service; 4] = [
    Service { id: "STS", name: "STS", variable: "AWS_ENDPOINT_URL_STS" },
    Service { id: "SSO", name: "IAM Identity Center", variable: "AWS_ENDPOINT_URL_SSO" },
    Service { id: "SSO OIDC", name: "IAM Identity Center (OIDC)", variable: "AWS_ENDPOINT_URL_SSO_OIDC" },
    Service { id: "Signin", name: "AWS sign-in", variable: "AWS_ENDPOINT_URL_SIGNIN" },
];

/// The endpoint that environment or profile name for a service, or for all of them.
pub(super) fn endpoint_of(service_id: &str, sdk: &SdkConfig) -> Option<String> {
    let key =
        ServiceConfigKey::builder().service_id(service_id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let own = key.build().ok().and_then(|key| sdk.service_config()?.load_config(key));
    own.or_else(|| sdk.endpoint_url().map(str::to_owned)).filter(|url| !url.is_empty())
}

/// All sources of credentials, as one.
pub(super) struct Sources {
    /// The profile that the policy names.
    profile: Option<String>,
    settings: Settings,
    /// Where environment and profile say that the services are.
    endpoints: Vec<(&'static Service, String)>,
    container: Container,
    /// Kept, as it has the session's token and the last good credentials.
    instance: ImdsCredentialsProvider,
}

/// What every client of a credential service is made from.
#[derive(Clone)]
struct Settings {
    region: Option<Region>,
    use_fips: Option<bool>,
    use_dual_stack: Option<bool>,
    http: SharedHttpClient,
}

impl Settings {
    /// New, as the SDK keeps in it what it has read of the configuration files, for ever.
    fn provider_config(&self) -> ProviderConfig {
        ProviderConfig::without_region()
            .with_region(self.region.clone())
            .with_use_fips(self.use_fips)
            .with_use_dual_stack(self.use_dual_stack)
            .with_http_client(self.http.clone())
    }
}

/// Why credentials that came are not used, or none were asked for.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(
        "the AWS profile \"{}\" of aws.profile has no credentials of its own, and others are not used in their place; \
         add them, or leave out aws.profile",
        Escaped::text(.0)
    )]
    EmptyProfile(String),
    #[error(
        "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not, and credentials of another source are not used in \
         their place"
    )]
    HalfInEnvironment,
    #[error(
        "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not, and credentials of another source are not used in \
         their place"
    )]
    NoRole,
    #[error(
        "cannot use the endpoint of {service}, which {variable}, AWS_ENDPOINT_URL or the AWS profile names"
    )]
    Endpoint { service: &'static str, variable: &'static str, source: EndpointError },
}

/// Why the SDK counts a source as not set up, without the words for that.
#[derive(Debug)]
struct NotSetUp(CredentialsError);

impl fmt::Display for NotSetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(reason) => fmt::Display::fmt(reason, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Error for NotSetUp {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}

impl Sources {
    /// The sources, for keys of `region` if none is configured. Asks nobody yet.
    pub(super) fn new(
        profile: Option<String>,
        sdk: &SdkConfig,
        region: Option<Region>,
        transport: &Transport,
    ) -> Self {
        let settings = Settings {
            region,
            use_fips: sdk.use_fips(),
            use_dual_stack: sdk.use_dual_stack(),
            http: transport.client(Peer::Credentials),
        };
        let instance = ImdsCredentialsProvider::builder().configure(&settings.provider_config()).build();
        let endpoint = |service: &'static Service| Some((service, endpoint_of(service.id, sdk)?));
        Self {
            profile,
            settings,
            endpoints: SERVICES.iter().filter_map(endpoint).collect(),
            container: Container::new(transport.connector(Peer::Credentials)),
            instance,
        }
    }

    /// What is wrong with an endpoint that the SDK could not use. Its own error has the request in
    /// it, with its token.
    fn blame(&self, error: CredentialsError) -> CredentialsError {
        let unusable = self.endpoints.iter().find_map(|(service, url)| match check_credentials_url(url) {
            // These are refused with an error when a request is about to leave.
            Ok(()) | Err(EndpointError::PlainHttp | EndpointError::PlainHttpCredentials) => None,
            Err(source) => Some((service, source)),
        });
        match unusable {
            Some((Service { name, variable, .. }, source)) => {
                CredentialsError::invalid_configuration(SourceError::Endpoint {
                    service: name,
                    variable,
                    source,
                })
            }
            None => error,
        }
    }

    async fn load(&self) -> provider::Result {
        self.find().await.map_err(|error| {
            let was_asked = !matches!(error, CredentialsError::CredentialsNotLoaded(_));
            if was_asked { self.blame(error) } else { error }
        })
    }

    async fn find(&self) -> provider::Result {
        let config = SharedConfig::load(self.profile.as_deref())
            .await
            .map_err(CredentialsError::invalid_configuration)?;
        match &self.profile {
            Some(profile) => {
                config.check_profile().map_err(CredentialsError::invalid_configuration)?;
                set_up(self.of_profile().await).unwrap_or_else(|| {
                    let empty = SourceError::EmptyProfile(profile.clone());
                    Err(CredentialsError::invalid_configuration(empty))
                })
            }
            None => self.of_first(&config).await,
        }
    }

    /// The default chain: the first source that is set up.
    async fn of_first(&self, config: &SharedConfig) -> provider::Result {
        if let Some(found) = set_up(EnvironmentVariableCredentialsProvider::new().provide_credentials().await)
        {
            return found;
        }
        let is_set = |name: &str| std::env::var_os(name).is_some();
        check_environment(is_set)?;
        config.check_profile().map_err(CredentialsError::invalid_configuration)?;
        if let Some(found) = set_up(self.of_profile().await) {
            return found;
        }
        check_web_identity(is_set)?;
        if let Some(found) = set_up(self.of_web_identity().await) {
            return found;
        }
        if let Some(found) = set_up(self.container.provide_credentials().await) {
            return found;
        }
        self.instance.provide_credentials().await
    }

    /// Of the profile in use. Not set up is one without a word about credentials, and no other: the
    /// SDK says the same of one that refers to a profile that is not there, or has half of what SSO
    /// needs, and then gives a reason.
    async fn of_profile(&self) -> provider::Result {
        let mut builder = ProfileFileCredentialsProvider::builder()
            .configure(&self.settings.provider_config())
            .with_custom_provider("EcsContainer", self.container.clone());
        if let Some(profile) = &self.profile {
            builder = builder.profile_name(profile);
        }
        match builder.build().provide_credentials().await {
            Err(error @ CredentialsError::CredentialsNotLoaded(_)) if error.source().is_some() => {
                Err(CredentialsError::invalid_configuration(NotSetUp(error)))
            }
            found => found,
        }
    }

    /// Of `AWS_WEB_IDENTITY_TOKEN_FILE`.
    async fn of_web_identity(&self) -> provider::Result {
        let config = self.settings.provider_config();
        // Has the files read into `config`; this provider alone does not, and would miss a
        // profile's endpoint of STS.
        ProfileFileRegionProvider::builder().configure(&config).build().region().await;
        WebIdentityTokenCredentialsProvider::builder().configure(&config).build().provide_credentials().await
    }
}

/// An id without its secret is a mistake, and no reason to sign as somebody else. The AWS CLI says
/// the same.
fn check_environment(is_set: impl Fn(&str) -> bool) -> Result<(), CredentialsError> {
    match is_set("AWS_ACCESS_KEY_ID") && !is_set("AWS_SECRET_ACCESS_KEY") {
        true => Err(CredentialsError::invalid_configuration(SourceError::HalfInEnvironment)),
        false => Ok(()),
    }
}

/// The same of a token without the role that it is for.
fn check_web_identity(is_set: impl Fn(&str) -> bool) -> Result<(), CredentialsError> {
    match is_set("AWS_WEB_IDENTITY_TOKEN_FILE") && !is_set("AWS_ROLE_ARN") {
        true => Err(CredentialsError::invalid_configuration(SourceError::NoRole)),
        false => Ok(()),
    }
}

/// What a source says, unless it is not set up.
fn set_up(found: provider::Result) -> Option<provider::Result> {
    match found {
        Err(CredentialsError::CredentialsNotLoaded(_)) => None,
        found => Some(found),
    }
}

impl ProvideCredentials for Sources {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        // Filled only if the instance was asked.
        self.instance.fallback_on_interrupt()
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the SDK's providers: nobody knows what they print next year.
        f.debug_struct("Sources").field("profile", &self.profile).finish_non_exhaustive()
    }
}
