//! The credentials of a container: an ECS task's role, an EKS pod identity, or another service that
//! answers so.
//!
//! Written here and not left to the SDK because its provider refuses a token that ends in a
//! newline, names neither the file nor the URL when it fails, and looks names up to decide whether
//! plain HTTP may carry the token. Here only addresses count (`check_credentials_url`). Follows the
//! AWS SDKs reference guide, "Container credential provider".

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::date_time::{DateTime, Format};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::escape::{Escaped, quoted};

const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// The agent of ECS, which relative URIs are relative to.
const ECS_AGENT: &str = "http://169.254.170.2";

/// An agent that starts with the container may not listen yet.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Longer words of an error reply are cut.
const MAX_WORDS: usize = 200;

/// Asks the container's credential service each time it is asked.
#[derive(Debug, Clone)]
pub(super) struct Container {
    http: SharedHttpConnector,
}

/// What went wrong. Never holds anything of a good reply.
#[derive(Debug, thiserror::Error)]
enum ContainerError {
    #[error("{RELATIVE} does not begin with a slash")]
    Relative,
    #[error("cannot read the token {} of {TOKEN_FILE}", quoted(path))]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error("the token of {0} is no header value: it has a line break or another control character in it")]
    Token(&'static str),
    #[error("{FULL} is no URL")]
    Url,
    #[error("no credentials from {url}")]
    Request { url: String, source: ConnectorError },
    #[error("no credentials from {url}: HTTP status {status}{}", words(code, message))]
    Status { url: String, status: u16, code: String, message: String },
    #[error("no credentials from {url}: the reply is no JSON with AccessKeyId and SecretAccessKey")]
    Reply { url: String },
    #[error("no credentials from {url}: the reply's Expiration is no time")]
    Expiration { url: String },
}

/// `: CODE: message`, of what there is.
fn words(code: &str, message: &str) -> String {
    let said = [code, message].into_iter().filter(|part| !part.is_empty());
    said.map(|part| {
        let cut: String = part.chars().take(MAX_WORDS).collect();
        format!(": {}", Escaped::text(&cut))
    })
    .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
    account_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(alias = "Code")]
    code: String,
    #[serde(alias = "Message")]
    message: String,
}

impl Container {
    /// `http` refuses what must not be asked, see [`super::wire`].
    pub(super) const fn new(http: SharedHttpConnector) -> Self {
        Self { http }
    }

    async fn load(&self) -> provider::Result {
        let url = url().map_err(CredentialsError::invalid_configuration)?;
        let Some(url) = url else {
            return Err(CredentialsError::not_loaded("no container names a service for credentials"));
        };
        let token = token().map_err(CredentialsError::provider_error)?;
        self.ask(&url, token.as_ref()).await.map_err(CredentialsError::provider_error)
    }

    async fn ask(
        &self,
        url: &str,
        token: Option<&(&'static str, Zeroizing<String>)>,
    ) -> Result<Credentials, ContainerError> {
        let mut attempt = 1;
        let reply = loop {
            let reply = self.http.call(request(url, token)?).await;
            let may_pass = match &reply {
                Ok(reply) => reply.status().as_u16() >= 500,
                Err(error) => !error.is_user(),
            };
            if !may_pass || attempt == ATTEMPTS {
                break reply;
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        };
        let url = shown(url);
        match reply {
            Ok(reply) => read(&reply, url),
            Err(source) => Err(ContainerError::Request { url, source }),
        }
    }
}

impl ProvideCredentials for Container {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

/// The service's URL. `None`: this is no container with a role.
fn url() -> Result<Option<String>, ContainerError> {
    match std::env::var(RELATIVE) {
        // Anything else could change the host.
        Ok(path) if !path.starts_with('/') => Err(ContainerError::Relative),
        Ok(path) => Ok(Some(format!("{ECS_AGENT}{path}"))),
        Err(_) => Ok(std::env::var(FULL).ok()),
    }
}

/// What the service knows this container by, and where it was found. EKS writes a new one into the
/// file every hour.
fn token() -> Result<Option<(&'static str, Zeroizing<String>)>, ContainerError> {
    let Some(path) = std::env::var_os(TOKEN_FILE).map(PathBuf::from) else {
        return Ok(std::env::var(TOKEN).ok().map(|token| (TOKEN, trimmed(token))));
    };
    match fs::read_to_string(&path) {
        Ok(token) => Ok(Some((TOKEN_FILE, trimmed(token)))),
        Err(source) => Err(ContainerError::TokenFile { path, source }),
    }
}

/// Without the newline that editors and `echo` put at the end.
fn trimmed(token: String) -> Zeroizing<String> {
    let token = Zeroizing::new(token);
    Zeroizing::new(token.trim_end_matches(['\r', '\n']).to_owned())
}

fn request(
    url: &str,
    token: Option<&(&'static str, Zeroizing<String>)>,
) -> Result<HttpRequest, ContainerError> {
    let mut request = HttpRequest::get(url).map_err(|_| ContainerError::Url)?;
    let headers = request.headers_mut();
    headers.insert("accept", "application/json");
    if let Some((origin, token)) = token {
        headers.try_insert("authorization", token.to_string()).map_err(|_| ContainerError::Token(origin))?;
    }
    Ok(request)
}

fn read(reply: &HttpResponse, url: String) -> Result<Credentials, ContainerError> {
    let status = reply.status().as_u16();
    let body = reply.body().bytes().unwrap_or_default();
    if status != 200 {
        let Refusal { code, message } = serde_json::from_slice(body).unwrap_or_default();
        return Err(ContainerError::Status { url, status, code, message });
    }
    // The error of the parser may show what it parsed.
    let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
        return Err(ContainerError::Reply { url });
    };
    let mut credentials = Credentials::builder()
        .access_key_id(reply.access_key_id)
        .secret_access_key(reply.secret_access_key)
        .provider_name("EcsContainer");
    credentials.set_session_token(reply.token);
    credentials.set_account_id(reply.account_id.map(Into::into));
    if let Some(expiration) = reply.expiration {
        let time = DateTime::from_str(&expiration, Format::DateTime).ok();
        let time = time.and_then(|time| SystemTime::try_from(time).ok());
        credentials.set_expiry(Some(time.ok_or(ContainerError::Expiration { url })?));
    }
    Ok(credentials.build())
}

/// The URL without what may be a secret in it: a user name, and the query.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            Escaped::text(&format!("{scheme}://{host}{path}")).to_string()
        }
        None => Escaped::text(url).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answered(status: u16, body: &'static str) -> Result<Credentials, String> {
        let reply = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        read(&reply, "http://h/".to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_reply_is_credentials_or_an_error_that_shows_none() {
        let good = answered(
            200,
            r#"{"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z", "RoleArn": "r"}"#,
        )
        .unwrap();
        assert_eq!(
            (good.access_key_id(), good.secret_access_key(), good.session_token()),
            ("a", "s", Some("t"))
        );
        assert!(good.expiry().is_some());
        for body in ["", "{}", "<html>", r#"{"AccessKeyId": "a", "SecretAccessKey": ["hidden"]}"#] {
            assert_eq!(
                answered(200, body).unwrap_err(),
                "no credentials from http://h/: the reply is no JSON with AccessKeyId and SecretAccessKey"
            );
        }
        assert_eq!(
            answered(200, r#"{"AccessKeyId": "a", "SecretAccessKey": "s", "Expiration": "soon"}"#)
                .unwrap_err(),
            "no credentials from http://h/: the reply's Expiration is no time"
        );
        assert_eq!(
            answered(403, r#"{"code": "Denied", "message": "no\nrole"}"#).unwrap_err(),
            "no credentials from http://h/: HTTP status 403: Denied: no\\x0arole"
        );
        assert_eq!(answered(302, "").unwrap_err(), "no credentials from http://h/: HTTP status 302");
    }

    #[test]
    fn a_token_loses_its_last_newline_and_no_other() {
        assert_eq!(*trimmed("abc\r\n".to_owned()), "abc");
        let broken = (TOKEN, trimmed("a\nb\n".to_owned()));
        assert!(matches!(request("http://h/", Some(&broken)), Err(ContainerError::Token(TOKEN))));
    }

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        assert_eq!(shown("http://user:secret@h:1/p?token=x#y"), "http://h:1/p");
        assert_eq!(shown("https://h"), "https://h");
        assert_eq!(shown("junk?x"), "junk");
    }
}
