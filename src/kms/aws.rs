//! AWS KMS through the AWS SDK; this file and those below it are the only ones that name the SDK.
//!
//! Region, credentials, profile and endpoint are found as the SDK finds them (`connect`, `credentials`); what the
//! policy says goes first. One Encrypt or Decrypt becomes one call with bounded time, and its failure a [`KmsError`] by
//! error code. Never decides what a failure means for a file, never caches an answer, and never sends
//! anything over plain HTTP to another machine (K24).

mod connect;
mod container;
mod credentials;
mod proxy;
mod rehearsal;
mod shared_config;
mod trust_store;
mod wire;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{AppName, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder as KmsConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::EncryptionAlgorithmSpec;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::DispatchFailure;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind, classify};
use connect::Surroundings;
use wire::{ATTEMPT_TIMEOUT, Oversized, Peer};

pub use connect::{AwsError, EndpointOrigin, connect};

/// All attempts, the pauses between them and the loading of credentials.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// Attempts of one call, the first included. Longer patience is the caller's.
const ATTEMPTS: u32 = 3;

/// The HTTP status of every modelled error of KMS that is a verdict (AWS KMS API reference, Decrypt).
const BAD_REQUEST: u16 = 400;

/// AWS KMS in whatever Regions the keys name. Cheap to clone; clones share connections and credentials.
#[derive(Debug, Clone)]
pub struct Aws(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    surroundings: Surroundings,
    /// One client per Region, made when a key of that Region is first used.
    clients: Mutex<HashMap<String, Client>>,
}

impl Aws {
    fn new(surroundings: Surroundings) -> Self {
        Self(Arc::new(Shared { surroundings, clients: Mutex::default() }))
    }

    /// The client of the key's Region, or of the configured one.
    async fn client(&self, key: Option<&KeyId>) -> Result<Client, Trouble> {
        let Shared { surroundings, clients } = &*self.0;
        let region = match key.and_then(KeyId::region) {
            Some(region) => Some(Region::new(region.to_owned())),
            None => surroundings.region().await,
        };
        let region = region.ok_or_else(|| {
            let what = key.map_or_else(|| "the signature's key".to_owned(), |key| format!("key {key}"));
            Trouble::new(
                TroubleKind::Request,
                format!("no AWS Region is known for {what}; set AWS_REGION, or aws.region in a policy"),
            )
        })?;
        // A panic elsewhere cannot leave a map of finished clients half written.
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(region.as_ref()) {
            return Ok(client.clone());
        }
        let mut config = KmsConfig::from(surroundings.sdk(&region))
            .region(region.clone())
            .http_client(surroundings.transport().client(Peer::Kms))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                // The wire keeps the other three.
                TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build(),
            );
        // What was checked is what is used, even if the environment changes meanwhile.
        config.set_endpoint_url(surroundings.endpoint().map(str::to_owned));
        // CloudTrail then shows `app/kms-sig` as the user agent.
        config.set_app_name(AppName::new("kms-sig").ok());
        let client = Client::from_conf(config.build());
        clients.insert(region.to_string(), client.clone());
        Ok(client)
    }
}

impl Kms for Aws {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let reply = self
            .client(Some(key))
            .await?
            .encrypt()
            .key_id(key.as_str())
            .plaintext(Blob::new(plaintext))
            .set_encryption_context(pairs(context))
            .send()
            .await
            .map_err(|error| no_verdict(explain(&error)))?;
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
            .client(key)
            .await?
            .decrypt()
            .set_key_id(key.map(ToString::to_string))
            .ciphertext_blob(Blob::new(ciphertext))
            .set_encryption_context(pairs(context))
            .send()
            .await
            .map_err(|error| explain(&error))?;
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
    Trouble { kind: TroubleKind::MalformedReply, code: Some(code.to_owned()), message }.into()
}

/// What a failed call means. Only an error reply of the service itself can be a verdict (P2).
fn explain<E>(error: &SdkError<E, HttpResponse>) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (kind, message) = match error {
        SdkError::ServiceError(service) => {
            return reply_error(service.err(), service.raw().status().as_u16(), service.raw().request_id());
        }
        SdkError::TimeoutError(_) => (TroubleKind::Timeout, timeout_message()),
        SdkError::DispatchFailure(failure) => dispatch_error(failure),
        SdkError::ResponseError(response) => {
            (TroubleKind::MalformedReply, with_request(chain(error), response.raw().request_id()))
        }
        SdkError::ConstructionFailure(_) => (TroubleKind::Request, chain(error)),
        _ => (TroubleKind::Unknown, chain(error)),
    };
    Trouble::new(kind, message).into()
}

/// A reply that is an error, or that the SDK could not read as anything else.
fn reply_error<E>(error: &E, status: u16, request: Option<&str>) -> KmsError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    // A "success" that is no KMS reply, such as the log-in page of a captive portal.
    if (200..300).contains(&status) {
        return Trouble::new(TroubleKind::MalformedReply, with_request(chain(error), request)).into();
    }
    let Some(code) = error.code() else {
        let message = with_request(format!("HTTP status {status} without an error code"), request);
        return Trouble::new(TroubleKind::Unknown, message).into();
    };
    let message = with_request(error.message().unwrap_or_default().to_owned(), request);
    match classify(code, &message) {
        KmsError::Rejected | KmsError::IncorrectKey if status != BAD_REQUEST => {
            let message =
                with_request(format!("HTTP status {status}, where KMS sends {BAD_REQUEST}"), request);
            Trouble { kind: TroubleKind::MalformedReply, code: Some(code.to_owned()), message }.into()
        }
        meaning @ (KmsError::Rejected | KmsError::IncorrectKey | KmsError::Trouble(_)) => meaning,
    }
}

/// A request that got no reply.
fn dispatch_error(failure: &DispatchFailure) -> (TroubleKind, String) {
    let Some(error) = failure.as_connector_error() else {
        return (TroubleKind::Network, "the request could not be sent".to_owned());
    };
    let kind = if find::<CredentialsError>(error).is_some() {
        TroubleKind::Credentials
    } else if find::<Oversized>(error).is_some() {
        TroubleKind::MalformedReply
    } else if error.is_timeout() {
        return (TroubleKind::Timeout, timeout_message());
    } else if error.is_user() {
        TroubleKind::Request
    } else {
        TroubleKind::Network
    };
    // The outermost layer says no more than "io error" or "other".
    (kind, chain(error.source().unwrap_or(error)))
}

fn timeout_message() -> String {
    format!(
        "no answer from KMS within {} s, or not within {} s with retries and loading credentials",
        ATTEMPT_TIMEOUT.as_secs(),
        OPERATION_TIMEOUT.as_secs()
    )
}

/// The error and what caused it, outermost first and on one line. Causes that the layer before them has
/// already told are left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for layer in layers(error) {
        let layer = layer.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.ends_with(&layer) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&layer);
    }
    text
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    layers(error).find_map(|layer| layer.downcast_ref())
}

fn layers<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&layer| layer.source())
}

/// AWS support asks for the request id first.
fn with_request(message: String, request: Option<&str>) -> String {
    match request {
        Some(id) if message.is_empty() => format!("request {id}"),
        Some(id) => format!("{message} (request {id})"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;
    use aws_sdk_kms::operation::decrypt::DecryptError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::policy::{AwsSettings, EndpointError};

    fn reply(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::empty())
    }

    /// An error with this code in a reply of this status.
    fn service_error(code: Option<&str>, status: u16) -> KmsError {
        let mut metadata = ErrorMetadata::builder().message("words");
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        explain(&SdkError::service_error(DecryptError::generic(metadata.build()), reply(status)))
    }

    fn kind(error: KmsError) -> TroubleKind {
        match error {
            KmsError::Trouble(trouble) => trouble.kind,
            verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn p2_a_verdict_is_an_error_reply_with_status_400_and_nothing_else() {
        let verdicts = ["InvalidCiphertextException", "IncorrectKeyException"];
        assert!(matches!(service_error(Some(verdicts[0]), 400), KmsError::Rejected));
        assert!(matches!(service_error(Some(verdicts[1]), 400), KmsError::IncorrectKey));
        for code in verdicts {
            for status in [200, 204, 302, 403, 500, 503] {
                assert_eq!(
                    kind(service_error(Some(code), status)),
                    TroubleKind::MalformedReply,
                    "{code} {status}"
                );
            }
            let in_encrypt = no_verdict(service_error(Some(code), 400));
            assert_eq!(kind(in_encrypt), TroubleKind::MalformedReply, "{code}");
        }
    }

    #[test]
    fn k17_replies_that_say_nothing_are_trouble() {
        assert_eq!(kind(service_error(None, 418)), TroubleKind::Unknown);
        assert_eq!(kind(service_error(Some("BrandNewException"), 400)), TroubleKind::Unknown);
        assert_eq!(kind(service_error(None, 200)), TroubleKind::MalformedReply);
    }

    #[test]
    fn k16_a_request_without_reply_is_trouble() {
        let dispatched = |error| kind(explain(&SdkError::<DecryptError, _>::dispatch_failure(error)));
        assert_eq!(dispatched(ConnectorError::timeout("t".into())), TroubleKind::Timeout);
        assert_eq!(dispatched(ConnectorError::io("t".into())), TroubleKind::Network);
        assert_eq!(dispatched(ConnectorError::user("t".into())), TroubleKind::Request);
        assert_eq!(dispatched(ConnectorError::other("t".into(), None)), TroubleKind::Network);
        let unloaded = CredentialsError::not_loaded("none");
        assert_eq!(dispatched(ConnectorError::other(unloaded.into(), None)), TroubleKind::Credentials);
        let other = [
            (SdkError::<DecryptError, _>::timeout_error("t"), TroubleKind::Timeout),
            (SdkError::response_error("t", reply(400)), TroubleKind::MalformedReply),
            (SdkError::construction_failure("t"), TroubleKind::Request),
        ];
        for (error, expected) in other {
            assert_eq!(kind(explain(&error)), expected);
        }
    }

    #[tokio::test]
    async fn k24_a_plain_http_endpoint_in_the_settings_is_refused() {
        let settings =
            AwsSettings { endpoint_url: Some("http://kms.example.com".to_owned()), ..Default::default() };
        let refused = connect(&settings).await.unwrap_err();
        let origin = EndpointOrigin::Settings;
        assert!(
            matches!(refused, AwsError::Endpoint { origin: o, source: EndpointError::PlainHttp } if o == origin),
            "{refused:?}"
        );
    }
}
