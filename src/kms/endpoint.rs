//! Which KMS endpoints are taken: `https://` anywhere, `http://` on this machine only.
//!
//! Whoever sits between the daemon and a plain-HTTP endpoint could invent verdicts, or read
//! credentials (K24). The policy, the environment and every single request go through this one
//! check. Never resolves a name: what a name means can change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where AWS hands out credentials to instances and containers. These addresses are link-local or
/// kept on the instance by the network; no router forwards them. (EC2 user guide, "Instance
/// metadata service"; ECS developer guide, "Task IAM role"; EKS user guide, "Pod identity".)
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Why an endpoint is refused. The URL itself is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Something else than a URL of HTTP.
    #[error("the endpoint is no http or https URL; write one like https://kms.eu-west-1.amazonaws.com")]
    NotHttp,
    /// A part that an endpoint has no use for, and that URL parsers disagree about.
    #[error("the endpoint has {0}; write only https://HOST, https://HOST:PORT or https://HOST:PORT/PATH")]
    Part(&'static str),
    /// No host, or none that could exist.
    #[error("the endpoint has no valid host; write https://HOST, with an IPv6 address in brackets")]
    Host,
    /// A port that is none.
    #[error("the endpoint has no valid port; write a number from 1 to 65535 after the colon")]
    Port,
    /// HTTP that leaves the machine.
    #[error(
        "a plain http endpoint is taken on loopback only, as anyone on the path could invent verdicts; write https://"
    )]
    PlainHttp,
    /// Credentials over HTTP that leaves the machine.
    #[error(
        "plain http to another machine carries no credentials, as anyone on the path could read them; write https://"
    )]
    PlainHttpCredentials,
}

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `http`: readable by whoever is on the path.
    Http,
    /// `https`.
    Https,
}

/// How far a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It stays on this machine.
    Loopback,
    /// To where AWS hands out credentials to instances and containers.
    Metadata,
    /// To another machine.
    Network,
}

/// Checks a KMS endpoint, wherever it comes from.
///
/// Stricter than RFC 3986: what two parsers could read differently (user names, backslashes,
/// blanks, queries) is refused, so that the host checked here is the host connected to.
///
/// # Errors
/// [`EndpointError`].
pub fn check_endpoint(url: &str) -> Result<(), EndpointError> {
    if url.contains(['?', '#']) && scheme(url).is_ok() {
        return Err(EndpointError::Part("a query or fragment"));
    }
    match destination(url)? {
        (Scheme::Https, _) | (Scheme::Http, Reach::Loopback) => Ok(()),
        (Scheme::Http, Reach::Metadata | Reach::Network) => Err(EndpointError::PlainHttp),
    }
}

/// Checks the URL of a request that asks for credentials or carries them.
///
/// # Errors
/// [`EndpointError`].
#[cfg_attr(not(any(feature = "aws", test)), expect(dead_code, reason = "only AWS asks for credentials"))]
pub(crate) fn check_credentials_url(url: &str) -> Result<(), EndpointError> {
    match destination(url)? {
        (Scheme::Https, _) | (Scheme::Http, Reach::Loopback | Reach::Metadata) => Ok(()),
        (Scheme::Http, Reach::Network) => Err(EndpointError::PlainHttpCredentials),
    }
}

/// Where the URL of a request leads. Takes a query, which requests have and endpoints have not.
///
/// # Errors
/// [`EndpointError`], but neither of those about plain HTTP.
pub(crate) fn destination(url: &str) -> Result<(Scheme, Reach), EndpointError> {
    let (scheme, rest) = scheme(url)?;
    if rest.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err(EndpointError::Part("a backslash, blank or control character"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(EndpointError::Part("a user name"));
    }
    let (host, port) = split_port(authority)?;
    if !is_host(host) {
        return Err(EndpointError::Host);
    }
    // `u16::from_str` would take a sign.
    if port.is_some_and(|p| !p.bytes().all(|b| b.is_ascii_digit()) || p.parse::<u16>().unwrap_or(0) == 0) {
        return Err(EndpointError::Port);
    }
    let reach = if is_loopback(host) {
        Reach::Loopback
    } else if is_metadata(host) {
        Reach::Metadata
    } else {
        Reach::Network
    };
    Ok((scheme, reach))
}

fn scheme(url: &str) -> Result<(Scheme, &str), EndpointError> {
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Scheme::Http, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Scheme::Https, rest)),
        Some(_) | None => Err(EndpointError::NotHttp),
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`. The host keeps its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), EndpointError> {
    let host_len = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, after) = authority.split_at(host_len);
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(EndpointError::Host),
    }
}

fn is_host(host: &str) -> bool {
    match unbracketed(host) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
    }
}

fn unbracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']'))
}

/// Whether `host` (as it stands in a URL) is this machine's loopback. Names other than `localhost`
/// are not looked up: what a name means can change.
pub fn is_loopback(host: &str) -> bool {
    let bare = unbracketed(host).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_metadata(host: &str) -> bool {
    let bare = unbracketed(host).unwrap_or(host);
    bare.parse().is_ok_and(|ip: IpAddr| METADATA.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k24_plain_http_is_taken_on_loopback_only() {
        for url in [
            "http://localhost",
            "http://LocalHost:4566/",
            "HTTP://127.0.0.1:8080",
            "http://127.8.9.1/path/below",
            "http://[::1]",
            "http://[::1]:5000/",
        ] {
            assert_eq!(check_endpoint(url), Ok(()), "{url}");
        }
        for url in [
            "http://kms.eu-west-1.amazonaws.com",
            "HTTP://example.com",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://localhost.",
            "http://0.0.0.0",
            "http://127.1",
            "http://2130706433",
            "http://10.0.0.1",
            "http://[::]",
            "http://[::2]:443",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert_eq!(check_endpoint(url), Err(EndpointError::PlainHttp), "{url}");
        }
    }

    #[test]
    fn k24_credentials_travel_in_plain_http_to_the_metadata_addresses_and_no_further() {
        for url in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest/meta-data/",
            "http://169.254.170.2/v2/credentials?id=1",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:0ec2:0::23]:80/v1/credentials",
            "http://localhost:51679/creds",
            "https://sts.eu-west-1.amazonaws.com/",
            "https://portal.sso.eu-west-1.amazonaws.com/federation/credentials?role_name=r&account_id=1",
        ] {
            assert_eq!(check_credentials_url(url), Ok(()), "{url}");
        }
        for url in [
            "http://sts.eu-west-1.amazonaws.com/",
            "http://169.254.169.253/",
            "http://169.254.169.254.example.com/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::253]/",
            "http://2852039166/",
            "http://instance-data/",
            "http://10.0.0.1?@169.254.169.254/",
        ] {
            assert_eq!(check_credentials_url(url), Err(EndpointError::PlainHttpCredentials), "{url}");
        }
        assert_eq!(
            check_credentials_url("http://169.254.169.254@10.0.0.1/"),
            Err(EndpointError::Part("a user name"))
        );
        // KMS is none of those who hand out credentials.
        assert_eq!(check_endpoint("http://169.254.169.254"), Err(EndpointError::PlainHttp));
    }

    #[test]
    fn k24_what_parsers_read_differently_is_refused() {
        for url in [
            "http://127.0.0.1@evil.com",
            "http://localhost:80@evil.com/",
            "https://user:secret@kms.example.com",
            "http://localhost\\@evil.com",
            "http://localhost\\.evil.com",
            "http://localhost?@evil.com",
            "http://localhost#@evil.com",
            "https://kms.example.com/ x",
            "https://kms.example.com\r\nhost: evil.com",
            "https://kms.example.com/?x=1",
        ] {
            assert!(matches!(check_endpoint(url), Err(EndpointError::Part(_))), "{url}");
        }
    }

    #[test]
    fn an_endpoint_is_a_url_with_host_and_port() {
        for url in [
            "https://kms.example.com",
            "https://10.0.0.1:8443",
            "HttpS://[2001:db8::1]:443/kms",
            "https://a:1",
        ] {
            assert_eq!(check_endpoint(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "kms.example.com",
            "//localhost",
            "ftp://localhost",
            "http:/localhost",
            "file:///etc",
            " http://localhost",
        ] {
            assert_eq!(check_endpoint(url), Err(EndpointError::NotHttp), "{url}");
        }
        for url in [
            "https://",
            "https:///x",
            "http://:80",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[localhost]",
            "https://a]",
            "https://k%6ds.example.com",
            "https://b\u{fc}cher.example",
        ] {
            assert!(matches!(check_endpoint(url), Err(EndpointError::Host | EndpointError::Port)), "{url}");
        }
        for url in [
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://a:+80",
            "https://a:80:80",
            "https://a:http",
        ] {
            assert_eq!(check_endpoint(url), Err(EndpointError::Port), "{url}");
        }
    }
}
