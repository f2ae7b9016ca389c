//! The proxy that the environment names for HTTPS, checked before it is used.
//!
//! The SDK reads the same variables by the same rules, and goes without a proxy where it cannot
//! make sense of one (hyper-util, `client::proxy::matcher`). Never shows a value: it may hold a
//! password.

use std::env::VarError;

use hyper::Uri;

/// Upper case goes before lower case, and the proxy of HTTPS before the one of everything.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// A proxy that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the proxy of {variable}: {fault}; write http://HOST:PORT, or unset it")]
pub struct ProxyError {
    variable: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it is no URL")]
    NotUrl,
    #[error("it has no host")]
    NoHost,
    #[error("its port is none")]
    Port,
    #[error("only http and https proxies are known")]
    Scheme,
}

/// Checks the proxy that HTTPS would go through, if there is one.
pub(super) fn check_environment() -> Result<(), ProxyError> {
    check(|name| match std::env::var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
    })
}

fn check(value_of: impl Fn(&str) -> Option<String>) -> Result<(), ProxyError> {
    let named = VARIABLES.into_iter().find_map(|variable| Some((variable, value_of(variable)?)));
    let Some((variable, value)) = named else { return Ok(()) };
    check_url(&value).map_err(|fault| ProxyError { variable, fault })
}

fn check_url(value: &str) -> Result<(), Fault> {
    let url: Uri = value.parse().map_err(|_| Fault::NotUrl)?;
    // Without a scheme, it is taken for http.
    if !matches!(url.scheme_str(), None | Some("http" | "https")) {
        return Err(Fault::Scheme);
    }
    let authority = url.authority().ok_or(Fault::NotUrl)?;
    if authority.host().is_empty() {
        return Err(Fault::NoHost);
    }
    let after_user = authority.as_str().rsplit('@').next().unwrap_or_default();
    let has_port = after_user.len() > authority.host().len();
    if has_port && !matches!(authority.port_u16(), Some(1..)) {
        return Err(Fault::Port);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_of_http_and_its_scheme_may_be_left_out() {
        for value in [
            "http://proxy.example.com:3128",
            "https://user:pass@proxy.example.com:8443/",
            "http://10.0.0.1",
            "http://[2001:db8::1]:3128",
            "proxy.example.com:3128",
            "proxy",
        ] {
            assert_eq!(check_url(value), Ok(()), "{value}");
        }
        for (value, fault) in [
            ("socks5://proxy.example.com:1080", Fault::Scheme),
            ("ftp://proxy.example.com", Fault::Scheme),
            ("not a url", Fault::NotUrl),
            ("/proxy", Fault::NotUrl),
            ("http://", Fault::NotUrl),
            ("http://proxy:99999", Fault::Port),
            ("http://proxy:", Fault::Port),
            ("http://proxy:0", Fault::Port),
        ] {
            assert_eq!(check_url(value), Err(fault), "{value}");
        }
    }

    #[test]
    fn the_variable_that_is_used_is_the_one_that_is_checked_and_no_value_is_shown() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            check(|name| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(&[]), Ok(()));
        assert_eq!(of(&[("ALL_PROXY", "socks5://a"), ("https_proxy", "http://b")]), Ok(()));
        assert_eq!(
            of(&[("ALL_PROXY", "socks5://user:secret@a")]).unwrap_err(),
            "cannot use the proxy of ALL_PROXY: only http and https proxies are known; write http://HOST:PORT, or \
             unset it"
        );
        assert!(
            of(&[("HTTPS_PROXY", "://"), ("ALL_PROXY", "http://a")]).unwrap_err().contains("HTTPS_PROXY")
        );
    }
}
