//! The only way out to AWS KMS: one connector, whatever the Region.
//!
//! Looks at the address of every request as it is about to leave, wherever the SDK got that address from
//! (K24), and bounds every reply in time and size. Notes the date of every reply. Knows nothing of what a request
//! says, and never tries again.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::{DateTime, Format};

use crate::clock;
use crate::kms::rehearsal::ClockError;
use crate::policy::{EndpointError, check_endpoint};

/// TCP and TLS together. KMS is in the same Region or one ocean away; what takes longer is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// From the request to the first byte of the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt, from connecting to the answer's last byte. Loading credentials is not part of it, as it is
/// in the SDK's own attempt timeout: a credential process that takes six seconds would never come to an end.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections that a firewall has forgotten stall until a timeout (awslabs/aws-sdk-rust#1417). NAT
/// gateways and load balancers forget after a minute or more; we forget sooner.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest reply that is read, in bytes. The longest that KMS has reason to send is Encrypt's: 6,144
/// bytes in base64 and a few names.
const MAX_REPLY: usize = 64 << 10;

/// The connector.
#[derive(Debug)]
pub(super) struct Wire {
    /// TLS, through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name: a tunnel, so the proxy
    /// sees nothing. Made on first use, as it reads the host's certificates.
    tls: LazyLock<Connector>,
    /// Plain HTTP on loopback. Never through a proxy: `HTTP_PROXY` would take it off this machine.
    loopback: LazyLock<Connector>,
    dates: Dates,
}

/// What the replies say about the time. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Dates(Arc<Mutex<Option<ClockError>>>);

impl Dates {
    /// How far this host's clock was from that of the last reply that had a date.
    pub(super) fn last(&self) -> Option<ClockError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the date of a reply that arrives now (RFC 9110, section 6.6.1). What is none says nothing.
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

impl Wire {
    /// Opens nothing yet.
    pub(super) const fn new(dates: Dates) -> Self {
        Self {
            dates,
            tls: LazyLock::new(|| connector(ProxyConfig::from_env())),
            loopback: LazyLock::new(|| connector(ProxyConfig::disabled())),
        }
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let url = request.uri();
        if let Err(refused) = check_endpoint(url) {
            let error = Refused { url: url.to_owned(), source: refused };
            return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
        }
        let scheme = url.get(.."https:".len()).unwrap_or_default();
        let connector = if scheme.eq_ignore_ascii_case("https:") { &self.tls } else { &self.loopback };
        let reply = whole(connector.call(request));
        let dates = self.dates.clone();
        HttpConnectorFuture::new(async move {
            match tokio::time::timeout(ATTEMPT_TIMEOUT, reply).await {
                Ok(reply) => reply.inspect(|reply| dates.note(reply)),
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

/// A reply that is longer than any of KMS.
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

fn connector(proxy: ProxyConfig) -> Connector {
    let settings =
        HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
    let mut builder = ConnectorBuilder::default();
    builder.set_pool_idle_timeout(Some(Some(POOL_IDLE_TIMEOUT)));
    builder
        .connector_settings(settings)
        .proxy_config(proxy)
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .build()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn k24_a_plain_http_request_to_another_machine_does_not_leave() {
        for url in
            ["http://kms.eu-west-1.amazonaws.com/", "http://192.0.2.1/", "http://127.0.0.1.example.com/"]
        {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_uri(url).unwrap();
            let error = Wire::new(Dates::default()).call(request).await.unwrap_err();
            assert!(error.is_user(), "{error:?}");
            let refused = error.source().unwrap();
            assert_eq!(refused.to_string(), format!("the request to {url} was not sent"));
            assert!(refused.source().unwrap().to_string().contains("loopback"));
        }
    }
}
