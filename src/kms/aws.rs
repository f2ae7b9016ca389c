//! AWS KMS through the AWS SDK; this file and those below it are the only ones that name the SDK.
//!
//! Region, credentials, profile and endpoint are found as the SDK finds them; what the policy says
//! goes first. One operation becomes one call with bounded time, and its failure a
//! [`KmsError`] by error code. Never decides what a failure means for a file, never caches an
//! answer, and never sends anything over plain HTTP to another machine (K24).

mod container;
mod credentials;
mod dry_run;
mod explain;
mod host;
mod identity;
mod proxy;
mod refresh;
mod shared_config;
mod source;
mod surroundings;
mod trust_store;
mod wire;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{AppName, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder as KmsConfig, IdentityCache};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{EncryptionAlgorithmSpec, KeyUsageType, MessageType, SigningAlgorithmSpec};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::kms::caller::Caller;
use crate::kms::{
    Asked, AwsSettings, Decrypted, Encrypted, Kms, KmsError, Operation, PublicKeyReply, SignReply, Trouble,
    TroubleKind, check_message,
};
use crate::trust::{Message, PublicKey, PublicKeyError, SigningAlgorithm};
use explain::with_request;
use refresh::{CredentialCache, Held};
pub use surroundings::AwsError;
use surroundings::Surroundings;
use wire::{OPERATION_TIMEOUT, Peer};

/// What messages call it.
const SERVICE: &str = "KMS";

/// Attempts of one call, the first included, unless the caller sees to that. Longer patience is the
/// caller's.
const ATTEMPTS: u32 = 3;

/// AWS KMS in whatever Regions the keys name. Cheap to clone; clones share connections and
/// credentials.
#[derive(Debug, Clone)]
pub struct Aws(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    surroundings: Arc<Surroundings>,
    credentials: CredentialCache,
    /// One client per Region, made when a key of that Region is first used, and anew for other
    /// credentials.
    clients: Mutex<HashMap<String, (Arc<Held>, Client)>>,
    /// Attempts of one call, the first included.
    attempts: u32,
}

impl Aws {
    fn new(surroundings: Surroundings, attempts: u32) -> Self {
        let surroundings = Arc::new(surroundings);
        let credentials = CredentialCache::new(surroundings.opener());
        Self(Arc::new(Shared { surroundings, credentials, clients: Mutex::default(), attempts }))
    }

    /// Makes a call with the credentials in use; and once more with others, if KMS does not know
    /// those and there are others.
    async fn call<T, F>(&self, key: Option<&KeyId>, send: impl Fn(Client) -> F + Send) -> Result<T, KmsError>
    where
        T: Send,
        F: Future<Output = Result<T, KmsError>> + Send,
    {
        let region = self.region(key).await?;
        let held = self.0.credentials.get().await?;
        let answer = send(self.client(&region, &held)).await;
        match &answer {
            Err(KmsError::Trouble(trouble)) if trouble.disowns_credentials() => {}
            Ok(_) | Err(_) => return answer,
        }
        match self.0.credentials.renew(&held).await {
            Some(others) => send(self.client(&region, &others)).await,
            None => answer,
        }
    }

    /// The key's Region, or the configured one. The first is lent to where credentials come from,
    /// if none is configured.
    async fn region(&self, key: Option<&KeyId>) -> Result<Region, Trouble> {
        let surroundings = &self.0.surroundings;
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
            .that_says_what_to_do()
        })?;
        surroundings.lend(&region);
        Ok(region)
    }

    /// The client of a Region that signs with these credentials.
    fn client(&self, region: &Region, held: &Arc<Held>) -> Client {
        let Shared { surroundings, clients, credentials: _, attempts } = &*self.0;
        // A panic elsewhere cannot leave a map of finished clients half written.
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.get(region.as_ref()).filter(|(with, _)| Arc::ptr_eq(with, held)) {
            return client.clone();
        }
        let mut config = KmsConfig::from(surroundings.sdk())
            .region(region.clone())
            .http_client(surroundings.transport().client(Peer::Kms))
            .credentials_provider(held.credentials.clone())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::standard().with_max_attempts(*attempts))
            .timeout_config(
                // The wire keeps the other three.
                TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build(),
            );
        // What was checked is what is used, even if the environment changes meanwhile.
        config.set_endpoint_url(surroundings.endpoint().map(str::to_owned));
        // CloudTrail then shows `app/kms-sig` as the user agent.
        config.set_app_name(AppName::new("kms-sig").ok());
        let client = Client::from_conf(config.build());
        clients.insert(region.to_string(), (Arc::clone(held), client.clone()));
        client
    }
}

impl Kms for Aws {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let reply = self
            .call(Some(key), |client| {
                let call = client.encrypt().key_id(key.as_str()).plaintext(Blob::new(plaintext));
                let call = call.set_encryption_context(pairs(context)).send();
                async {
                    call.await
                        .map_err(|error| no_verdict(Operation::Encrypt, explain::failure(&error, SERVICE)))
                }
            })
            .await?;
        let request = reply.request_id().map(str::to_owned);
        let malformed = |what| malformed(Operation::Encrypt, what, request.as_deref());
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
        let malformed = |what| malformed(Operation::Decrypt, what, request.as_deref());
        if !is_symmetric(reply.encryption_algorithm.as_ref()) {
            return Err(malformed("another algorithm than SYMMETRIC_DEFAULT"));
        }
        let plaintext =
            Zeroizing::new(reply.plaintext.ok_or_else(|| malformed("no plaintext"))?.into_inner());
        let key = reply.key_id.as_deref().ok_or_else(|| malformed("no key"))?;
        let key = KeyArn::from_reply(key).map_err(|_| malformed("a key that is none"))?;
        Ok(Decrypted { plaintext, key })
    }

    async fn sign(
        &self,
        key: &KeyId,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> Result<SignReply, KmsError> {
        check_message(message, algorithm)?;
        let (bytes, message_type) = match message {
            Message::Raw(bytes) => (bytes, MessageType::Raw),
            Message::Digest(value) => (value.as_bytes(), MessageType::Digest),
        };
        let of_sign = |error| of_operation(Operation::Sign, error);
        let reply = self
            .call(Some(key), |client| {
                let call = client.sign().key_id(key.as_str()).message(Blob::new(bytes));
                let call = call.message_type(message_type.clone()).signing_algorithm(spec(algorithm)).send();
                async { call.await.map_err(|error| explain::failure(&error, SERVICE)) }
            })
            .await
            .map_err(of_sign)?;
        let request = reply.request_id().map(str::to_owned);
        let malformed = |what| malformed(Operation::Sign, what, request.as_deref());
        // Older implementations of the API do not name the algorithm.
        if reply.signing_algorithm.is_some_and(|other| other != spec(algorithm)) {
            return Err(malformed("another algorithm than the one that was asked for"));
        }
        let signature = reply.signature.map(Blob::into_inner).filter(|signature| !signature.is_empty());
        let signature = signature.ok_or_else(|| malformed("no signature"))?;
        let key = reply.key_id.as_deref().ok_or_else(|| malformed("no key"))?;
        let key = KeyArn::from_reply(key).map_err(|_| malformed("a key that is none"))?;
        Ok(SignReply { signature, key })
    }

    async fn get_public_key(&self, key: &KeyId) -> Result<PublicKeyReply, KmsError> {
        let of_get = |error| of_operation(Operation::GetPublicKey, error);
        let reply = self
            .call(Some(key), |client| {
                let call = client.get_public_key().key_id(key.as_str()).send();
                async { call.await.map_err(|error| explain::failure(&error, SERVICE)) }
            })
            .await
            .map_err(of_get)?;
        let request = reply.request_id().map(str::to_owned);
        let malformed = |what: &str| malformed(Operation::GetPublicKey, what, request.as_deref());
        let unfit = |says| of_get(Trouble::new(TroubleKind::KeyUsage, says).into());
        let by = reply.key_id.as_deref().ok_or_else(|| malformed("no key"))?;
        let by = KeyArn::from_reply(by).map_err(|_| malformed("a key that is none"))?;
        if let Some(usage) = reply.key_usage.filter(|usage| *usage != KeyUsageType::SignVerify) {
            return Err(unfit(format!("the key {key} is for {}, and signs nothing", usage.as_str())));
        }
        let spki = reply.public_key.ok_or_else(|| malformed("no public key"))?;
        let public_key = PublicKey::from_spki(spki.as_ref()).map_err(|error| {
            // A kind that KMS has and we have not is no fault of the answer.
            match matches!(error, PublicKeyError::Algorithm(_) | PublicKeyError::Curve(_)) {
                true => unfit(format!("the key {key} is of a kind that signs no format: {error}")),
                false => malformed(&format!("a public key that is none: {error}")),
            }
        })?;
        Ok(PublicKeyReply { public_key, key: by })
    }

    fn caller(&self) -> Option<Caller> {
        Aws::caller(self)
    }
}

/// Reads the AWS configuration of this host. Asks nobody, and loads no credentials yet.
///
/// # Errors
/// [`AwsError`]. Missing credentials or a missing Region are no error here but trouble of the first
/// call that needs them: credentials come and go while a daemon runs.
pub async fn connect(settings: &AwsSettings) -> Result<Aws, AwsError> {
    Surroundings::read(settings).await.map(|surroundings| Aws::new(surroundings, ATTEMPTS))
}

/// The same, which makes one attempt for each call: whoever asks counts them, and decides on more.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_without_retries(settings: &AwsSettings) -> Result<Aws, AwsError> {
    Surroundings::read(settings).await.map(|surroundings| Aws::new(surroundings, 1))
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

/// The algorithm as the SDK names it.
fn spec(algorithm: SigningAlgorithm) -> SigningAlgorithmSpec {
    SigningAlgorithmSpec::from(algorithm.as_str())
}

fn malformed(operation: Operation, what: &str, request: Option<&str>) -> KmsError {
    let says = format!("{} answered with {what}", operation.as_str());
    Trouble::new(TroubleKind::MalformedReply, with_request(says, request)).into()
}

/// An error of Sign or `GetPublicKey`, with what a person can do about that.
fn of_operation(operation: Operation, error: KmsError) -> KmsError {
    match no_verdict(operation, error) {
        KmsError::Trouble(trouble) => trouble.of_operation(operation).into(),
        verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => verdict,
    }
}

/// An error of an operation that gives no verdicts, whatever the code says.
fn no_verdict(operation: Operation, error: KmsError) -> KmsError {
    let code = match error {
        KmsError::Trouble(_) => return error,
        KmsError::Rejected => "InvalidCiphertextException",
        KmsError::IncorrectKey => "IncorrectKeyException",
    };
    let message = format!("{} answered with an error of Decrypt", operation.as_str());
    Trouble { code: Some(code.to_owned()), ..Trouble::new(TroubleKind::MalformedReply, message) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::endpoint::EndpointError;

    #[tokio::test]
    async fn k24_a_plain_http_endpoint_in_the_settings_is_refused() {
        let settings =
            AwsSettings { endpoint_url: Some("http://kms.example.com".to_owned()), ..Default::default() };
        let refused = connect(&settings).await.unwrap_err();
        let origin = surroundings::EndpointOrigin::Settings;
        assert!(
            matches!(refused, AwsError::Endpoint { origin: o, source: EndpointError::PlainHttp } if o == origin),
            "{refused:?}"
        );
    }
}
