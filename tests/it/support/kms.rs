//! KMS for a daemon: moto behind a proxy, a key there, and the rules that name it.

use super::moto::{Moto, REGION};
use super::place::Place;
use super::policy::{SIGN, VERIFY, place, set_policy, with};
use super::proxy::Proxy;

/// A place whose KMS is moto behind a proxy, and a key there.
pub(crate) fn at_proxy() -> (Place, Proxy, String) {
    let proxy = Proxy::start(Moto::start().url());
    let mut place = place(SIGN);
    set_credentials(&mut place);
    let key = Moto::start().create_key();
    (place, proxy, key)
}

/// The rules with `[aws]` pointed at the proxy.
pub(crate) fn policy(place: &Place, proxy: &Proxy, rules: &str) {
    aws_policy(place, &proxy.url(), rules);
}

/// The rules with `[aws]` pointed somewhere.
pub(crate) fn aws_policy(place: &Place, url: &str, rules: &str) {
    let aws = format!("aws.region = \"{REGION}\"\naws.endpoint_url = \"{url}\"\n");
    set_policy(place, &format!("{aws}{rules}"));
}

pub(crate) fn verify_rule(key: &str) -> String {
    with(VERIFY, &format!("trusted_keys = [\"{key}\"]"))
}

pub(crate) fn sign_rule(key: &str) -> String {
    with(SIGN, &format!("key = \"{key}\""))
}

/// Credentials that are good enough for moto, and nobody else's configuration.
pub(crate) fn set_credentials(place: &mut Place) {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        place.set(name, value);
    }
    place.set("HOME", place.path(""));
}

/// Signs a file of a place by command line, under a key of the KMS at this address.
pub(crate) fn sign_at(place: &Place, url: &str, key: &str, file: &str, signature: &str, context: &str) {
    let variables = format!("AWS_REGION={REGION} AWS_ENDPOINT_URL={url}");
    let script = format!("{variables} \"$KMS_SIG\" sign {key} {file} {signature} --context {context}");
    place.shell(&script).exits(0);
}
