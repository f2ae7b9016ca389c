//! Says which host a request was for, in every error on the way there. The errors below it name
//! none.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;

/// A connector whose errors name the host.
#[derive(Debug)]
pub(super) struct Hosts<C>(pub(super) C);

/// The host that a request was for. Its source is what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{host}")]
pub(super) struct At {
    /// With its port, where that is not the usual one.
    pub(super) host: String,
    source: BoxError,
}

#[cfg(test)]
impl At {
    /// As the connector makes it.
    pub(super) fn new(host: &str, source: &str) -> Self {
        Self { host: host.to_owned(), source: source.into() }
    }
}

impl<C: HttpConnector> HttpConnector for Hosts<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let host = host(request.uri()).to_owned();
        let reply = self.0.call(request);
        HttpConnectorFuture::new(async move { reply.await.map_err(|error| named(host, error)) })
    }
}

fn named(host: String, error: ConnectorError) -> ConnectorError {
    let (is_timeout, is_io, is_user, other) =
        (error.is_timeout(), error.is_io(), error.is_user(), error.as_other());
    let metadata = error.connection_metadata().cloned();
    let at: BoxError = At { host, source: error.into_source() }.into();
    let named = if is_timeout {
        ConnectorError::timeout(at)
    } else if is_io {
        ConnectorError::io(at)
    } else if is_user {
        ConnectorError::user(at)
    } else {
        ConnectorError::other(at, other)
    };
    match metadata {
        Some(metadata) => named.with_connection(metadata),
        None => named,
    }
}

/// The authority of a URL. Endpoints with a user name or a password are refused before they are
/// used.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_cause_and_gains_the_host() {
        type Kind = fn(&ConnectorError) -> bool;
        let cases: [(ConnectorError, Kind); 4] = [
            (ConnectorError::timeout("t".into()), ConnectorError::is_timeout),
            (ConnectorError::io("t".into()), ConnectorError::is_io),
            (ConnectorError::user("t".into()), ConnectorError::is_user),
            (ConnectorError::other("t".into(), None), ConnectorError::is_other),
        ];
        for (error, is_kind) in cases {
            let error = named("kms.example.com".to_owned(), error);
            assert!(is_kind(&error), "{error:?}");
            let at = error.source().unwrap();
            assert_eq!(at.to_string(), "kms.example.com");
            assert_eq!(at.source().unwrap().to_string(), "t");
        }
        assert_eq!(host("https://sts.eu-west-1.amazonaws.com/?Action=x"), "sts.eu-west-1.amazonaws.com");
        assert_eq!(host("http://127.0.0.1:8080/path"), "127.0.0.1:8080");
    }
}
