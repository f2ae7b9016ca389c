//! `kms-sig check --online` with KMS: every call made once as a dry run, whatever comes back told
//! with what to do, and nothing ever signed.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::check::Found;
use crate::support::kms::{at_proxy, policy, sign_rule, verify_rule};
use crate::support::moto::{Moto, REGION};
use crate::support::policy::{SIGN, VERIFY, with};
use crate::support::proxy::{Fault, Request};

/// The code by which KMS allows a dry run (AWS KMS API reference).
const ALLOWED: Fault = Fault::Error(412, "DryRunOperationException");

/// Operation, key and context of each request, sorted.
fn calls(requests: &[Request]) -> Vec<(String, String, Value)> {
    let call = |r: &Request| {
        let key = r.key_id.clone().unwrap_or_default();
        (r.operation.clone(), key, r.body["EncryptionContext"].clone())
    };
    let mut calls: Vec<_> = requests.iter().map(call).collect();
    calls.sort_by_key(|call| format!("{call:?}"));
    calls
}

#[test]
fn every_call_is_dry_run_once_with_the_context_of_the_rule() {
    let (place, proxy, key) = at_proxy();
    fs::create_dir(place.path("other")).unwrap();
    fs::create_dir(place.path("third")).unwrap();
    let seal = Moto::start().create_key();
    let again = with(&with(&sign_rule(&key), "path = \"other\""), "name = \"again\"");
    let verify = with(&with(&verify_rule(&key), "path = \"third\""), "context = { channel = \"stable\" }");
    policy(&place, &proxy, &format!("state.seal_key = \"{seal}\"\n{}{again}{verify}", sign_rule(&key)));
    place.write("in/f", "content");
    proxy.always(Some(ALLOWED));
    let found = Found::online(&place, 0);
    for (part, what) in [
        ("policy", format!("Encrypt with {seal} is allowed")),
        ("sign", format!("Encrypt with {key} is allowed")),
        ("sign", format!("Decrypt with {key} is allowed")),
        ("again", format!("Encrypt with {key} is allowed")),
        ("verify", format!("Decrypt with {key} is allowed")),
    ] {
        found.is(part, &what, "fine");
    }
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request.body["DryRun"] == true), "{requests:?}");
    let (of_seal, of_rules): (Vec<_>, Vec<_>) =
        calls(&requests).into_iter().partition(|(_, asked, _)| *asked == seal);
    let call = |operation: &str, context| (operation.to_owned(), key.clone(), context);
    assert_eq!(
        of_rules,
        [
            call("Decrypt", json!({ "channel": "stable" })),
            call("Decrypt", json!({ "file": "example" })),
            call("Encrypt", json!({ "file": "example" })),
        ]
    );
    assert_eq!(of_seal.len(), 1);
    let keys: Vec<_> = of_seal[0].2.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["kms-sig:chain", "kms-sig:head", "kms-sig:seq"]);
    assert!(!place.path("in/f.sig").exists() && !place.path("state").exists());
}

#[test]
fn a_batch_rule_is_dry_run_with_the_context_that_kms_would_get() {
    let (place, proxy, key) = at_proxy();
    fs::create_dir(place.path("other")).unwrap();
    let context = "context = { channel = \"stable\", file = \"{name}\" }";
    let batch = "batch = { window = \"50ms\", max_files = 9 }";
    let sign = with(&with(&sign_rule(&key), context), batch);
    let verify = with(&verify_rule(&key), "path = \"other\"\naccept_batch = true");
    policy(&place, &proxy, &format!("{sign}{verify}"));
    proxy.always(Some(ALLOWED));
    let found = Found::online(&place, 0);
    found.is("sign", &format!("Encrypt of batches with {key} is allowed"), "fine");
    found.is("sign", &format!("Decrypt of batches with {key} is allowed"), "fine");
    found.is("sign", &format!("Decrypt with {key} is allowed"), "fine");
    found.is("verify", &format!("Decrypt of batches with {key} is allowed"), "fine");
    found.is("verify", &format!("Decrypt with {key} is allowed"), "fine");
    let dry_run = calls(&proxy.requests());
    let call = |operation: &str, context| (operation.to_owned(), key.clone(), context);
    assert_eq!(
        dry_run,
        [
            call("Decrypt", json!({ "channel": "stable", "file": "example" })),
            call("Decrypt", json!({ "channel": "stable", "kms-sig:batch": "[file]" })),
            call("Decrypt", json!({ "file": "example" })),
            call("Decrypt", json!({ "kms-sig:batch": "[file]" })),
            call("Encrypt", json!({ "channel": "stable", "kms-sig:batch": "[file]" })),
        ]
    );
    // The daemon sends what the dry run sent.
    place.write("in/f", "content");
    proxy.always(None);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    let made = calls(&proxy.requests()[dry_run.len()..]);
    assert_eq!(made, dry_run[4..]);
    // A signer who may not open batches learns what that means.
    proxy.always(Some(Fault::ACCESS_DENIED));
    let found = Found::online(&place, 3);
    found.is("sign", &format!("Decrypt of batches with {key}: access-denied"), "note");
    found.is("sign", &format!("Encrypt of batches with {key}: access-denied"), "unknown");
    found.is("verify", &format!("Decrypt of batches with {key}: access-denied"), "unknown");
}

#[test]
fn a_service_without_dry_run_counts_as_reached() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    let found = Found::online(&place, 0);
    found.is("sign", &format!("Encrypt with {key} is allowed"), "fine");
    found.is("sign", &format!("Decrypt with {key}: KMS answers, and does not deny it"), "fine");
    policy(&place, &proxy, &verify_rule(&key));
    for fault in [Fault::INVALID_CIPHERTEXT, Fault::INCORRECT_KEY] {
        proxy.always(Some(fault));
        Found::online(&place, 0).is("verify", "KMS answers, and does not deny it", "fine");
    }
}

#[test]
fn a_denied_key_is_told_with_what_to_do_and_the_others_are_not_its_victims() {
    let (place, proxy, key) = at_proxy();
    let other = Moto::start().create_key();
    let keys = format!("trusted_keys = [\"{key}\", \"{other}\"]");
    policy(&place, &proxy, &with(VERIFY, &keys));
    proxy.always(Some(ALLOWED));
    proxy.always_of("Decrypt", &other, Fault::ACCESS_DENIED);
    let found = Found::online(&place, 3);
    found.is("verify", &format!("Decrypt with {key} is allowed"), "fine");
    let (level, to_do) = found.says("verify", &format!("Decrypt with {other}: access-denied"));
    assert_eq!(level, "unknown");
    assert!(to_do.contains("kms:Decrypt to verifiers"), "{to_do}");
    for (fault, word) in [
        (Fault::DISABLED, "key-state"),
        (Fault::Error(400, "NotFoundException"), "key-not-found"),
        (Fault::EXPIRED_TOKEN, "credentials"),
        (Fault::UNKNOWN, "unknown-error"),
        (Fault::Html, "malformed-reply"),
        // Not from a service that means it: a dry run is refused, not answered with success.
        (Fault::Error(200, "DryRunOperationException"), "malformed-reply"),
    ] {
        proxy.always(Some(fault));
        let found = Found::online(&place, 3);
        found.is("verify", &format!("Decrypt with {key}: {word}"), "unknown");
    }
}

#[test]
fn a_signer_without_decrypt_is_well_and_learns_what_that_means() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    proxy.always(Some(ALLOWED));
    proxy.always_of("Decrypt", &key, Fault::ACCESS_DENIED);
    let found = Found::online(&place, 0);
    found.is("sign", &format!("Encrypt with {key} is allowed"), "fine");
    found.is("sign", "without kms:Decrypt a signature that is not remembered is held", "note");
    proxy.always_of("Encrypt", &key, Fault::ACCESS_DENIED);
    Found::online(&place, 3).is("sign", &format!("Encrypt with {key}: access-denied"), "unknown");
}

#[test]
fn k16_silence_costs_the_time_of_one_call_however_many_keys_there_are() {
    let (place, proxy, _) = at_proxy();
    let key =
        |n: u32| format!("\"arn:aws:kms:{REGION}:111122223333:key/{n:08}-0000-0000-0000-000000000000\"");
    let keys: Vec<_> = (0..6).map(key).collect();
    policy(&place, &proxy, &with(VERIFY, &format!("trusted_keys = [{}]", keys.join(", "))));
    proxy.always(Some(Fault::Hang));
    let began = SystemTime::now();
    let found = Found::online(&place, 3);
    // One call takes up to 20 s, six would take a minute and a half.
    assert!(began.elapsed().unwrap() < Duration::from_secs(45));
    found.is("verify", "timeout: no answer from KMS", "unknown");
    found.is("host", "no answer of KMS told the time", "note");
}

#[test]
fn k13_a_clock_that_kms_would_not_take_is_told() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    // An honest answer by way of the proxy has no date.
    Found::online(&place, 0).is("host", "no answer of KMS told the time", "note");
    proxy.always(Some(Fault::Dated("Sun, 06 Nov 1994 08:49:37 GMT")));
    let (level, to_do) = Found::online(&place, 2).says("host", "ahead of that of KMS");
    assert_eq!(level, "fix");
    assert!(to_do.contains("set the clock"), "{to_do}");
    proxy.always(Some(Fault::Dated("Fri, 31 Dec 9999 23:59:59 GMT")));
    Found::online(&place, 2).is("host", "more than five minutes off", "fix");
    proxy.always(Some(Fault::Dated("no date at all")));
    Found::online(&place, 0).is("host", "no answer of KMS told the time", "note");
    // moto itself tells the time of this host.
    let aws = format!("aws.region = \"{REGION}\"\naws.endpoint_url = \"{}\"\n", Moto::start().url());
    crate::support::policy::set_policy(&place, &format!("{aws}{}", with(SIGN, &format!("key = \"{key}\""))));
    Found::online(&place, 0).is("host", "this host's clock is within", "fine");
}
