//! Credentials of AWS: replaced when KMS disowns them, told apart, and named when there are none.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::check::Found;
use crate::support::control::status;
use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::kms::{policy, sign_rule};
use crate::support::moto::{Moto, REGION};
use crate::support::place::Place;
use crate::support::policy::{SIGN, place};
use crate::support::proxy::{Fault, Proxy};

/// The answer by which a dry run is allowed.
const ALLOWED: Fault = Fault::Error(412, "DryRunOperationException");

/// Every code by which KMS says that it does not know the credentials, or not any more.
const DISOWNED: [&str; 4] =
    ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"];

/// A place whose KMS is moto behind a proxy, a key there, and a rule that signs with it. Without
/// any credentials.
fn without_credentials() -> (Place, Proxy, String) {
    let proxy = Proxy::start(Moto::start().url());
    let mut place = place(SIGN);
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("HOME", place.path(""));
    place.set("AWS_CONFIG_FILE", "config");
    place.set("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    let key = Moto::start().create_key();
    policy(&place, &proxy, &sign_rule(&key));
    (place, proxy, key)
}

fn keys_as_json(id: &str) -> String {
    format!(r#"{{"Version": 1, "AccessKeyId": "{id}", "SecretAccessKey": "hush-{id}"}}"#)
}

fn keys_as_profile(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = hush-{id}\n")
}

/// Has `credential_process` hand out the file `keys`, and note each time that it was asked.
fn with_process(place: &Place) {
    place.write("process", "#!/bin/sh\necho asked >> asked\nexec cat keys\n");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("process"), executable).unwrap();
    place.write("asked", "");
    place.write("config", format!("[default]\ncredential_process = {}\n", place.path("process").display()));
}

/// How often that was.
fn asked(place: &Place) -> usize {
    String::from_utf8(place.read("asked")).unwrap().lines().count()
}

fn callers(proxy: &Proxy) -> Vec<String> {
    proxy.requests().into_iter().map(|request| request.access_key_id).collect()
}

/// A daemon that signs goes on when KMS disowns its credentials and `hand_out` has others.
fn goes_on_with_others(
    code: &'static str,
    prepare: impl FnOnce(&mut Place),
    hand_out: impl Fn(&Place, &str),
) {
    let (mut place, proxy, _) = without_credentials();
    prepare(&mut place);
    hand_out(&place, "OLD");
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    proxy.always_to("OLD", Fault::Error(400, code));
    hand_out(&place, "NEW");
    place.write("in/g", "content");
    daemon.waits_for_nth("signed", 2);
    assert_eq!(callers(&proxy), ["OLD", "OLD", "NEW"], "{code}");
    assert_eq!(daemon.count("held") + daemon.count("held; will be tried again"), 0, "{code}");
}

#[test]
fn k13_a_credential_process_is_asked_again_when_kms_disowns_what_it_gave() {
    for code in DISOWNED {
        goes_on_with_others(
            code,
            |place| with_process(place),
            |place, id| place.write("keys", keys_as_json(id)),
        );
    }
}

#[test]
fn k13_an_edited_credentials_file_is_read_again_when_kms_disowns_its_keys() {
    for code in DISOWNED {
        goes_on_with_others(code, |_| {}, |place, id| place.write("credentials", keys_as_profile(id)));
    }
}

/// Hands out keys as a container's endpoint does, with the access key id that is there by then.
fn serve_keys(mut client: TcpStream, id: &Mutex<String>) {
    while let Ok(Some(_)) = http::Head::read(&mut client) {
        let id = id.lock().unwrap().clone();
        let keys = json!({
            "AccessKeyId": id, "SecretAccessKey": "hush", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"
        });
        client.write_all(&http::Reply::json(200, &keys).to_bytes()).ok();
    }
}

#[test]
fn k13_a_container_endpoint_is_asked_again_when_kms_disowns_what_it_gave() {
    let handed_out = Arc::new(Mutex::new(String::new()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let served = Arc::clone(&handed_out);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let served = Arc::clone(&served);
            thread::spawn(move || serve_keys(client, &served));
        }
    });
    goes_on_with_others(
        "ExpiredTokenException",
        |place| place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        |_, id| *handed_out.lock().unwrap() = id.to_owned(),
    );
}

#[test]
fn k13_a_source_without_other_keys_is_not_asked_twice_in_a_minute() {
    let (place, proxy, _) = without_credentials();
    with_process(&place);
    place.write("keys", keys_as_json("OLD"));
    // As a Region that is not enabled answers, for ever.
    proxy.always(Some(Fault::Error(403, "UnrecognizedClientException")));
    let daemon = Daemon::start(&place);
    (0..5).for_each(|n| place.write(format!("in/f{n}"), "content"));
    assert_eq!(daemon.waits_for("held")["cause"], "credentials");
    daemon.until("tried again", || proxy.requests().len() >= 12);
    assert_eq!(asked(&place), 2, "at the start, and when KMS disowned them");
    // The old ones stay, and are good as soon as KMS says so.
    proxy.always(None);
    daemon.waits_for_nth("signed", 5);
    assert_eq!(asked(&place), 2);
}

/// Other credentials would be denied the same. (True before there was any renewal, too.)
#[test]
fn k13_a_denial_asks_for_no_other_credentials() {
    let (place, proxy, _) = without_credentials();
    with_process(&place);
    place.write("keys", keys_as_json("OLD"));
    proxy.always(Some(Fault::ACCESS_DENIED));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("held");
    daemon.until("tried again", || proxy.requests().len() >= 3);
    assert_eq!(asked(&place), 1);
}

#[test]
fn k13_when_the_source_fails_the_old_credentials_stay() {
    let (place, proxy, _) = without_credentials();
    with_process(&place);
    place.write("keys", keys_as_json("OLD"));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    std::fs::remove_file(place.path("keys")).unwrap();
    proxy.always_to("OLD", Fault::EXPIRED_TOKEN);
    place.write("in/g", "content");
    daemon.waits_for("KMS does not know the credentials, and new ones cannot be had");
    daemon.waits_for("held");
    proxy.forget_callers();
    daemon.waits_for_nth("signed", 2);
    assert!(callers(&proxy).iter().all(|caller| caller == "OLD"));
}

#[test]
fn k13_a_source_that_is_away_for_a_moment_is_a_passing_hold() {
    let (place, _proxy, _) = without_credentials();
    with_process(&place);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    let held = daemon.waits_for("held; will be tried again");
    assert_eq!((&held["cause"], &held["level"]), (&"credential-source".into(), &"WARN".into()), "{held}");
    assert!(held["reason"].as_str().unwrap().contains("profile \"default\" (credential_process)"), "{held}");
    daemon.until("shown", || status(&place)["concerns"].as_array().is_some_and(|all| !all.is_empty()));
    assert_eq!(status(&place)["concerns"][0]["needs_operator"], false);
    place.write("keys", keys_as_json("NEW"));
    daemon.waits_for("signed");
    assert_eq!(daemon.count("held"), 0, "nobody was called");
}

// What is said when there are none

const PROFILES: &str = "
[profile corp]
sso_session = company
sso_account_id = 111122223333
sso_role_name = signer
[sso-session company]
sso_region = eu-west-1
sso_start_url = https://company.awsapps.com/start
sso_registration_scopes = sso:account:access
[profile old-corp]
sso_start_url = https://company.awsapps.com/start
sso_region = eu-west-1
sso_account_id = 111122223333
sso_role_name = signer
[profile release]
role_arn = arn:aws:iam::111122223333:role/release
source_profile = corp
[profile console]
login_session = arn:aws:iam::111122223333:user/eve
[profile pod]
web_identity_token_file = gone/token
role_arn = arn:aws:iam::111122223333:role/pod
[profile far]
role_arn = arn:aws:iam::111122223333:role/far
source_profile = keys
[profile keys]
aws_access_key_id = AKIA
aws_secret_access_key = hush
";

/// What `sign` says with this profile, and STS where nobody is.
fn complaint(profile: &str) -> String {
    let mut place = Place::new();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    for (name, value) in [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "config"),
        ("AWS_REGION", REGION),
        ("AWS_PROFILE", profile),
        ("AWS_ENDPOINT_URL_STS", &format!("http://{free}")),
        ("AWS_ENDPOINT_URL_KMS", Moto::start().url()),
    ] {
        place.set(name, value);
    }
    place.set("HOME", place.path(""));
    place.write("config", PROFILES);
    place.write("f", "payload\n");
    let complaint = place.run(["sign", "alias/any", "f"]).exits(3).says("").stderr();
    assert!(!complaint.contains("hush"), "{complaint}");
    complaint
}

#[test]
fn k13_a_profile_without_a_session_names_the_command_that_begins_one() {
    for (profile, command) in [
        ("corp", "aws sso login --profile corp"),
        ("old-corp", "aws sso login --profile old-corp"),
        ("release", "aws sso login --profile corp"),
        ("console", "aws login --profile console"),
    ] {
        let complaint = complaint(profile);
        assert!(
            complaint.contains(&format!("credentials: no credentials from profile \"{profile}\"")),
            "{complaint}"
        );
        assert!(complaint.contains(&format!("\nhint: {command}\n")), "{complaint}");
    }
}

#[test]
fn k13_a_token_file_that_is_not_there_is_named_with_its_role() {
    let complaint = complaint("pod");
    for part in
        ["credential-source: ", "cannot read \"gone/token\"", "role arn:aws:iam::111122223333:role/pod"]
    {
        assert!(complaint.contains(part), "{complaint}");
    }
}

#[test]
fn k13_an_sts_that_does_not_answer_is_named_with_the_role() {
    let complaint = complaint("far");
    for part in ["credential-source: ", "STS does not answer: ", "role arn:aws:iam::111122223333:role/far"] {
        assert!(complaint.contains(part), "{complaint}");
    }
}

// As whom

/// As [`without_credentials`], with keys in the environment, and STS at this URL.
fn with_sts(url: &str) -> (Place, Proxy, String) {
    let (mut place, proxy, key) = without_credentials();
    place.set("AWS_ACCESS_KEY_ID", "AKIATEST");
    place.set("AWS_SECRET_ACCESS_KEY", "hush");
    place.set("AWS_ENDPOINT_URL_STS", url);
    (place, proxy, key)
}

#[test]
fn check_online_says_as_whom_aws_is_asked() {
    let (place, proxy, _) = with_sts(Moto::start().url());
    proxy.always(Some(ALLOWED));
    let found = Found::online(&place, 0);
    let (level, _) = found.says("policy", "AWS is asked as arn:aws:");
    assert_eq!(level, "fine");
    found.is("policy", "(account 123456789012), with access key AKIATEST from the environment", "fine");
    found.never_says("hush");
}

#[test]
fn check_online_says_which_role_is_assumed() {
    let (mut place, proxy, _) = without_credentials();
    place.set("AWS_ENDPOINT_URL_STS", Moto::start().url());
    place.set("AWS_PROFILE", "far");
    place.write("config", PROFILES.replace("111122223333:role/far", "123456789012:role/far"));
    proxy.always(Some(ALLOWED));
    let found = Found::online(&place, 0);
    found.is("policy", "AWS is asked as arn:aws:sts::123456789012:assumed-role/far/", "fine");
    found.is(
        "policy",
        "from profile \"far\" (access keys) for role arn:aws:iam::123456789012:role/far",
        "fine",
    );
}

#[test]
fn an_sts_that_is_away_keeps_nobody_from_being_well() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (place, proxy, _) = with_sts(&format!("http://{free}"));
    proxy.always(Some(ALLOWED));
    let found = Found::online(&place, 0);
    found.is("policy", "AWS is asked with access key AKIATEST from the environment", "note");
}

#[test]
fn check_online_without_credentials_is_not_well() {
    let (place, proxy, _) = without_credentials();
    proxy.always(Some(ALLOWED));
    Found::online(&place, 3).is("policy", "AWS cannot be asked: credentials: no credentials", "unknown");
    assert_eq!(proxy.requests(), []);
}

#[test]
fn status_says_as_whom_aws_is_asked_and_whose_keys_answered() {
    let (place, _proxy, _) = without_credentials();
    place.write("credentials", keys_as_profile("AKIATEST"));
    let daemon = Daemon::start(&place);
    assert_eq!(status(&place)["kms"]["caller"], Value::Null, "nobody was asked yet");
    place.write("in/f", "content");
    daemon.waits_for("signed");
    let said = status(&place);
    let caller = &said["kms"]["caller"];
    assert_eq!(caller["access_key_id"], "AKIATEST", "{said:#}");
    assert_eq!(caller["source"], "profile \"default\" (access keys)", "{said:#}");
    assert_eq!(said["kms"]["accounts"], json!(["123456789012"]), "{said:#}");
    let words = place.run(["status", "--policy", "policy.toml"]).exits(0);
    let words = String::from_utf8_lossy(words.stdout()).into_owned();
    assert!(
        words.contains("AWS is asked with access key AKIATEST, from profile \"default\" (access keys)"),
        "{words}"
    );
    assert!(!words.contains("hush") && !said.to_string().contains("hush"));
}
