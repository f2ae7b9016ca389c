//! The only way out to AWS: the connectors of every client the SDK makes, for KMS and for whoever
//! hands out credentials (STS, SSO, sign-in, the services of instances and containers).
//!
//! Looks at the address of every request as it is about to leave, wherever the SDK got that address
//! from (K24), and bounds every reply in time and size. Notes the date of every reply of KMS. Knows
//! nothing of what a request says, and never tries again.
//!
//! | to | over | by way of |
//! | --- | --- | --- |
//! | another machine | TLS only | the proxy of the environment, in a tunnel of which the proxy reads the host's name |
//! | this machine | TLS or plain HTTP | no proxy |
//! | the addresses where AWS hands out credentials | TLS or plain HTTP; never for KMS | no proxy |

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::{DateTime, Format};

use super::container::shown;
use super::host::Hosts;
use super::proxy;
use crate::clock;
use crate::kms::dry_run::ClockError;
use crate::kms::endpoint::{EndpointError, Reach, check_credentials_url, check_endpoint, destination};

/// TCP and TLS together. KMS is in the same Region or one ocean away; what takes longer is not
/// coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// To this machine and its link. Where there is no instance metadata service, nobody refuses: each
/// attempt waits.
const NEAR_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From the request to the first byte of the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// All attempts and the pauses between them. Credentials are loaded before.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// One attempt, from connecting to the answer's last byte. Loading credentials is not part of it,
/// as it is in the SDK's own attempt timeout: a credential process that takes six seconds would
/// never come to an end.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections that a firewall has forgotten stall until a timeout
/// (awslabs/aws-sdk-rust#1417). NAT gateways and load balancers forget after a minute or more; we
/// forget sooner.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest reply that is read, in bytes. The longest that KMS has reason to send is Encrypt's:
/// 6,144 bytes in base64 and a few names. Credentials are shorter than that.
const MAX_REPLY: usize = 64 << 10;

/// The connectors, shared by all clients. Clones share connections.
#[derive(Debug, Clone)]
pub(super) struct Transport(Arc<Connectors>);

#[derive(Debug)]
struct Connectors {
    trust: TrustStore,
    /// Through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name, if any. Made on first
    /// use, as it reads the host's certificates.
    far: OnceLock<Connector>,
    /// Never through a proxy: `HTTP_PROXY` would take a token or a secret key off this machine in
    /// clear.
    near: OnceLock<Connector>,
    dates: Dates,
}

/// Whom a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// AWS KMS.
    Kms,
    /// Any service that hands out credentials.
    Credentials,
}

/// The way of one client.
#[derive(Debug)]
struct Wire {
    transport: Transport,
    peer: Peer,
    /// For one attempt.
    patience: Duration,
}

/// What the replies say about the time. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Dates(Arc<Mutex<Option<ClockError>>>);

impl Dates {
    /// How far this host's clock was from that of the last reply that had a date.
    pub(super) fn last(&self) -> Option<ClockError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the date of a reply that arrives now (RFC 9110, section 6.6.1). What is none says
    /// nothing.
    fn note(&self, reply: &HttpResponse) {
        let date =
            reply.headers().get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        if let Some(theirs) = date {
            let ours = i64::try_from(clock::since_epoch().as_secs()).unwrap_or(i64::MAX);
            let error = ClockError::between(ours, theirs.secs());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
        }
    }
}

impl Transport {
    /// Opens nothing yet.
    pub(super) fn new(trust: TrustStore) -> Self {
        Self(Arc::new(Connectors {
            trust,
            far: OnceLock::new(),
            near: OnceLock::new(),
            dates: Dates::default(),
        }))
    }

    /// What the replies of KMS say about the time.
    pub(super) fn dates(&self) -> &Dates {
        &self.0.dates
    }

    /// The way to `peer`, for the SDK's clients.
    pub(super) fn client(&self, peer: Peer) -> SharedHttpClient {
        let transport = self.clone();
        http_client_fn(move |settings, _| transport.connector_within(peer, patience(settings)))
    }

    /// The way to `peer`, for a client of our own.
    pub(super) fn connector(&self, peer: Peer) -> SharedHttpConnector {
        self.connector_within(peer, ATTEMPT_TIMEOUT)
    }

    fn connector_within(&self, peer: Peer, patience: Duration) -> SharedHttpConnector {
        SharedHttpConnector::new(Hosts(Wire { transport: self.clone(), peer, patience }))
    }

    /// The connector for a URL, if there may be a request to it.
    fn way_to(&self, url: &str, peer: Peer) -> Result<&Connector, ConnectorError> {
        let checked = match peer {
            // An endpoint that has passed, and the path of the API.
            Peer::Kms => check_endpoint(url),
            Peer::Credentials => check_credentials_url(url),
        };
        let Connectors { trust, far, near, dates: _ } = &*self.0;
        match checked.and_then(|()| destination(url)) {
            Err(source) => Err(ConnectorError::user(Refused { url: shown(url), source }.into())),
            Ok((_, Reach::Network)) => {
                proxy::check_environment().map_err(|error| ConnectorError::user(error.into()))?;
                let connector = || connector(ProxyConfig::from_env(), CONNECT_TIMEOUT, trust);
                Ok(far.get_or_init(connector))
            }
            Ok((_, Reach::Loopback | Reach::Metadata)) => {
                let connector = || connector(ProxyConfig::disabled(), NEAR_CONNECT_TIMEOUT, trust);
                Ok(near.get_or_init(connector))
            }
        }
    }
}

/// How long an attempt may take for a client that has its own idea: the instance metadata service
/// is to answer within two seconds, or it is not there.
fn patience(settings: &HttpConnectorSettings) -> Duration {
    match (settings.connect_timeout(), settings.read_timeout()) {
        (Some(connect), Some(read)) => ATTEMPT_TIMEOUT.min(connect + read),
        (_, None) | (None, _) => ATTEMPT_TIMEOUT,
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = match self.transport.way_to(request.uri(), self.peer) {
            Ok(connector) => connector,
            Err(refused) => return HttpConnectorFuture::ready(Err(refused)),
        };
        let reply = whole(connector.call(request));
        let patience = self.patience;
        let dates = (self.peer == Peer::Kms).then(|| self.transport.dates().clone());
        HttpConnectorFuture::new(async move {
            match tokio::time::timeout(patience, reply).await {
                Ok(reply) => reply.inspect(|reply| {
                    if let Some(dates) = dates {
                        dates.note(reply);
                    }
                }),
                Err(elapsed) => Err(ConnectorError::timeout(elapsed.into())),
            }
        })
    }
}

/// Waits for the reply's last byte.
async fn whole(reply: HttpConnectorFuture) -> Result<HttpResponse, ConnectorError> {
    let mut reply = reply.await?;
    let mut stream = ByteStream::new(reply.take_body());
    let mut body = Vec::new();
    while let Some(chunk) = stream.try_next().await.map_err(|error| ConnectorError::io(error.into()))? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(ConnectorError::other(Oversized.into(), None));
        }
        body.extend_from_slice(&chunk);
    }
    *reply.body_mut() = SdkBody::from(body);
    Ok(reply)
}

/// A reply that is longer than any that is due.
#[derive(Debug, thiserror::Error)]
#[error("the reply is longer than {MAX_REPLY} bytes")]
pub(super) struct Oversized;

/// A request that was about to leave over plain HTTP.
#[derive(Debug, thiserror::Error)]
#[error("the request to {url} was not sent")]
struct Refused {
    url: String,
    source: EndpointError,
}

fn connector(proxy: ProxyConfig, connect_timeout: Duration, trust: &TrustStore) -> Connector {
    let settings =
        HttpConnectorSettings::builder().connect_timeout(connect_timeout).read_timeout(READ_TIMEOUT).build();
    let mut builder = ConnectorBuilder::default();
    builder.set_pool_idle_timeout(Some(Some(POOL_IDLE_TIMEOUT)));
    let builder = builder
        .connector_settings(settings)
        .proxy_config(proxy)
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
    match TlsContext::builder().with_trust_store(trust.clone()).build() {
        Ok(context) => builder.tls_context(context).build(),
        Err(error) => unreachable!("BUG: a trust store alone makes a TLS context: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    async fn refusal(peer: Peer, url: &str) -> String {
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(url).unwrap();
        let transport = Transport::new(TrustStore::default());
        let error = transport.connector(peer).call(request).await.unwrap_err();
        assert!(error.is_user(), "{error:?}");
        let refused = error.source().and_then(|host| host.source()).unwrap();
        assert_eq!(refused.to_string(), format!("the request to {} was not sent", shown(url)));
        refused.source().unwrap().to_string()
    }

    #[tokio::test]
    async fn k24_a_plain_http_request_to_another_machine_does_not_leave() {
        for url in
            ["http://kms.eu-west-1.amazonaws.com/", "http://192.0.2.1/", "http://127.0.0.1.example.com/"]
        {
            assert!(refusal(Peer::Kms, url).await.contains("loopback"), "{url}");
            assert!(refusal(Peer::Credentials, url).await.contains("carries no credentials"), "{url}");
        }
        // Whoever is there hands out credentials, and no verdicts.
        assert!(refusal(Peer::Kms, "http://169.254.169.254/").await.contains("loopback"));
    }

    #[test]
    fn a_client_may_be_less_patient_and_not_more() {
        let settings = |connect, read| {
            HttpConnectorSettings::builder()
                .connect_timeout(Duration::from_secs(connect))
                .read_timeout(Duration::from_secs(read))
                .build()
        };
        assert_eq!(patience(&settings(1, 1)), Duration::from_secs(2));
        assert_eq!(patience(&settings(2, 5)), ATTEMPT_TIMEOUT);
        assert_eq!(patience(&HttpConnectorSettings::default()), ATTEMPT_TIMEOUT);
    }
}
