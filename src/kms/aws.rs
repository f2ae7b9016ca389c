//! AWS KMS through the AWS SDK; this file and those below it are the only ones that name the SDK.
//!
//! Region, credentials, profile and endpoint are found as the SDK finds them; what the policy says goes
//! first. One Encrypt or Decrypt becomes one call with bounded time, and its failure a [`KmsError`] by
//! error code. Never decides what a failure means for a file, never caches an answer, and never sends
//! anything over plain HTTP to another machine (K24).

mod explain;
mod host;
mod identity;
mod refresh;
mod rehearsal;
mod source;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder as KmsConfig, IdentityCache};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::EncryptionAlgorithmSpec;
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector, http_client_fn};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::kms::caller::Caller;
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind};
use crate::policy::{AwsSettings, EndpointError, check_endpoint};
use explain::with_request;
use host::Hosts;
use refresh::{Held, Keeper, Open, Origin};
use source::Source;
use wire::{Dates, Wire};

/// All attempts and the pauses between them. Credentials are loaded before.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// What messages call it.
const SERVICE: &str = "KMS";
/// Attempts of one call, the first included. Longer patience is the caller's.
const ATTEMPTS: u32 = 3;

/// AWS KMS in whatever Regions the keys name. Cheap to clone; clones share connections and credentials.
#[derive(Debug, Clone)]
pub struct Aws(Arc<Shared>);

struct Shared {
    sdk: SdkConfig,
    endpoint: Option<String>,
    http: SharedHttpClient,
    /// The dates of the answers.
    clock: Dates,
    credentials: Keeper,
    /// One client per Region, made when a key of that Region is first used, and anew for other credentials.
    clients: Mutex<HashMap<String, (Arc<Held>, Client)>>,
}

/// Why AWS cannot be used as it is configured. Somebody must edit something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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

/// Reads the AWS configuration of this host. Asks KMS nothing and loads no credentials yet; without a
/// Region in settings, environment and profile, the SDK asks the instance metadata service for one.
///
/// # Errors
/// [`AwsError`]. Missing credentials or a missing Region are no error here but trouble of the first call
/// that needs them: credentials come and go while a daemon runs.
pub async fn connect(settings: &AwsSettings) -> Result<Aws, AwsError> {
    if let Some(url) = &settings.endpoint_url {
        check_endpoint(url)
            .map_err(|source| AwsError::Endpoint { origin: EndpointOrigin::Settings, source })?;
    }
    let sdk = surroundings(settings).await;
    let (endpoint, origin) = match &settings.endpoint_url {
        Some(url) => (Some(url.clone()), EndpointOrigin::Settings),
        None => (endpoint_around(&sdk), EndpointOrigin::Surroundings),
    };
    if let Some(url) = &endpoint {
        check_endpoint(url).map_err(|source| AwsError::Endpoint { origin, source })?;
        if sdk.use_fips() == Some(true) {
            return Err(AwsError::FipsEndpoint(origin));
        }
    }
    let clock = Dates::default();
    let wire = SharedHttpConnector::new(Hosts(Wire::new(clock.clone())));
    let http = http_client_fn(move |_, _| wire.clone());
    let credentials = Keeper::new(open(settings));
    Ok(Aws(Arc::new(Shared { sdk, endpoint, http, clock, credentials, clients: Mutex::default() })))
}

/// What environment and profile say, after what the settings say.
async fn surroundings(settings: &AwsSettings) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(use_fips) = settings.use_fips {
        loader = loader.use_fips(use_fips);
    }
    loader.load().await
}

/// Opens the source of credentials, anew each time: the SDK's providers read their files once.
fn open(settings: &AwsSettings) -> Open {
    let settings = settings.clone();
    Box::new(move || {
        let settings = settings.clone();
        Box::pin(async move {
            let provider = surroundings(&settings).await.credentials_provider();
            Origin { provider, source: Source::find(settings.profile.as_deref()).await }
        })
    })
}

/// The endpoint that environment or profile name, found by the rule of the SDK: the one of the service goes
/// before the one of all services, unless `ignore_configured_endpoint_urls` is set.
fn endpoint_around(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("KMS")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let of_kms = sdk.service_config().and_then(|config| config.load_config(key));
    of_kms.or_else(|| sdk.endpoint_url().map(str::to_owned))
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the SDK's configuration: nobody knows what it prints next year.
        f.debug_struct("Shared").field("region", &self.sdk.region()).finish_non_exhaustive()
    }
}

impl Aws {
    /// Makes a call with the credentials in use; and once more with others, if KMS does not know those and there are
    /// others.
    async fn call<T, F>(&self, key: Option<&KeyId>, send: impl Fn(Client) -> F + Send) -> Result<T, KmsError>
    where
        T: Send,
        F: Future<Output = Result<T, KmsError>> + Send,
    {
        let region = self.region(key)?;
        let held = self.0.credentials.get().await?;
        let answer = send(self.client(region, &held)).await;
        match &answer {
            Err(KmsError::Trouble(trouble)) if trouble.disowns_credentials() => {}
            Ok(_) | Err(_) => return answer,
        }
        match self.0.credentials.renew(&held).await {
            Some(others) => send(self.client(region, &others)).await,
            None => answer,
        }
    }

    /// The key's Region, or the configured one.
    fn region<'a>(&'a self, key: Option<&'a KeyId>) -> Result<&'a str, Trouble> {
        key.and_then(KeyId::region).or_else(|| self.0.sdk.region().map(Region::as_ref)).ok_or_else(|| {
            let what = key.map_or_else(|| "the signature's key".to_owned(), |key| format!("key {key}"));
            Trouble::new(
                TroubleKind::Request,
                format!("no AWS Region is known for {what}; set AWS_REGION, or aws.region in a policy"),
            )
        })
    }

    /// The client of a Region that signs with these credentials.
    fn client(&self, region: &str, held: &Arc<Held>) -> Client {
        let Shared { sdk, endpoint, http, clients, credentials: _, clock: _ } = &*self.0;
        // A panic elsewhere cannot leave a map of finished clients half written.
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.get(region).filter(|(with, _)| Arc::ptr_eq(with, held)) {
            return client.clone();
        }
        let mut config = KmsConfig::from(sdk)
            .region(Region::new(region.to_owned()))
            .http_client(http.clone())
            .credentials_provider(held.credentials.clone())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                // The wire keeps the other three.
                TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build(),
            );
        // What was checked is what is used, even if the environment changes meanwhile.
        config.set_endpoint_url(endpoint.clone());
        // CloudTrail then shows `app/kms-sig` as the user agent.
        config.set_app_name(AppName::new("kms-sig").ok());
        let client = Client::from_conf(config.build());
        clients.insert(region.to_owned(), (Arc::clone(held), client.clone()));
        client
    }
}

impl Kms for Aws {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let reply = self
            .call(Some(key), |client| {
                let call = client.encrypt().key_id(key.as_str()).plaintext(Blob::new(plaintext));
                let call = call.set_encryption_context(pairs(context)).send();
                async { call.await.map_err(|error| no_verdict(explain::failure(&error, SERVICE))) }
            })
            .await?;
        let request = reply.request_id().map(str::to_owned);
        let malformed = |what| malformed("Encrypt", what, request.as_deref());
        if !is_symmetric(reply.encryption_algorithm.as_ref()) {
            return Err(malformed("another algorithm than SYMMETRIC_DEFAULT"));
        }
        let ciphertext = reply.ciphertext_blob.ok_or_else(|| malformed("no ciphertext"))?.into_inner();
        let key = reply.key_id.as_deref().ok_or_else(|| malformed("no key"))?;
        let key = KeyArn::from_reply(key).map_err(|_| malformed("a key that is none"))?;
        Ok(Encrypted { ciphertext, key })
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let key = match asked {
            Asked::Key(key) => Some(key),
            Asked::AnyKey => None,
        };
        let reply = self
            .call(key, |client| {
                let call = client.decrypt().set_key_id(key.map(ToString::to_string));
                let call = call.ciphertext_blob(Blob::new(ciphertext));
                let call = call.set_encryption_context(pairs(context)).send();
                async { call.await.map_err(|error| explain::failure(&error, SERVICE)) }
            })
            .await?;
        let request = reply.request_id().map(str::to_owned);
        let malformed = |what| malformed("Decrypt", what, request.as_deref());
        if !is_symmetric(reply.encryption_algorithm.as_ref()) {
            return Err(malformed("another algorithm than SYMMETRIC_DEFAULT"));
        }
        let plaintext =
            Zeroizing::new(reply.plaintext.ok_or_else(|| malformed("no plaintext"))?.into_inner());
        let key = reply.key_id.as_deref().ok_or_else(|| malformed("no key"))?;
        let key = KeyArn::from_reply(key).map_err(|_| malformed("a key that is none"))?;
        Ok(Decrypted { plaintext, key })
    }

    fn caller(&self) -> Option<Caller> {
        Aws::caller(self)
    }
}

/// The context as the SDK takes it. An empty one is left out, as the original does.
fn pairs(context: &Context) -> Option<HashMap<String, String>> {
    (!context.is_empty())
        .then(|| context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Older implementations of the API do not name the algorithm.
fn is_symmetric(algorithm: Option<&EncryptionAlgorithmSpec>) -> bool {
    algorithm.is_none_or(|algorithm| *algorithm == EncryptionAlgorithmSpec::SymmetricDefault)
}

fn malformed(operation: &str, what: &str, request: Option<&str>) -> KmsError {
    Trouble::new(
        TroubleKind::MalformedReply,
        with_request(format!("{operation} answered with {what}"), request),
    )
    .into()
}

/// An error of Encrypt, which gives no verdicts whatever the code says.
fn no_verdict(error: KmsError) -> KmsError {
    let code = match error {
        KmsError::Trouble(_) => return error,
        KmsError::Rejected => "InvalidCiphertextException",
        KmsError::IncorrectKey => "IncorrectKeyException",
    };
    let message = "Encrypt answered with an error of Decrypt".to_owned();
    Trouble { code: Some(code.to_owned()), ..Trouble::new(TroubleKind::MalformedReply, message) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn k24_a_plain_http_endpoint_in_the_settings_is_refused() {
        let settings =
            AwsSettings { endpoint_url: Some("http://kms.example.com".to_owned()), ..Default::default() };
        let source = EndpointError::PlainHttp;
        assert_eq!(
            connect(&settings).await.map(|_| ()),
            Err(AwsError::Endpoint { origin: EndpointOrigin::Settings, source })
        );
    }
}
