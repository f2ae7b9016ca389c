//! Where credentials come from, over what they travel, and what is never taken for any: every
//! source behind a proxy on another host, named profiles, Regions, certificates, and what is wrong
//! with each of them.
//!
//! `stub` has the services that hand out credentials, on loopback; `aws` has AWS as a proxy between
//! it and the host sees it, behind TLS.

mod aws;
mod stub;

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, SystemTime};

use crate::support::moto::{Moto, REGION};
use crate::support::place::Place;
use crate::support::policy::{self, SIGN, set_policy, with};
use crate::support::proxy::Proxy;
use stub::Stub;

/// Nobody is there (RFC 5737).
const AWAY: &str = "http://192.0.2.1";

/// A place without any AWS configuration, with an empty configuration file, and with KMS at moto
/// behind a proxy.
fn bare() -> (Place, Proxy) {
    let proxy = Proxy::start(Moto::start().url());
    let mut place = Place::new();
    at(&mut place, &proxy);
    place.write("f", "payload\n");
    (place, proxy)
}

fn at(place: &mut Place, proxy: &Proxy) {
    place.set("HOME", place.path(""));
    place.set("AWS_CONFIG_FILE", "config");
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("AWS_ENDPOINT_URL_KMS", proxy.url());
    place.write("config", "");
}

/// Credentials in the environment.
fn set_keys(place: &mut Place, id: &str) {
    place.set("AWS_ACCESS_KEY_ID", id);
    place.set("AWS_SECRET_ACCESS_KEY", "secret");
}

/// Whose credentials the requests of KMS were signed with, one after the other.
fn signers(proxy: &Proxy) -> Vec<String> {
    let mut signers: Vec<_> = proxy.requests().into_iter().map(|request| request.access_key_id).collect();
    signers.dedup();
    signers
}

fn set_proxy(place: &mut Place, url: &str) {
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        place.set(name, url);
    }
}

// What a proxy sees

#[test]
fn k24_what_instances_and_containers_are_given_never_passes_through_a_proxy() {
    // Whatever is asked of it, it invents: token, role and credentials.
    let inventor = Stub::instance("AKIDINVENTED");
    let key = Moto::start().create_key();
    // Port 9 of the real addresses: nobody answers there, on an instance neither.
    let sources = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254:9"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]:9"),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://169.254.170.2:9/latest/meta-data/iam/security-credentials/role",
        ),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://169.254.170.23:9/latest/meta-data/iam/security-credentials/role",
        ),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://[fd00:ec2::23]:9/latest/meta-data/iam/security-credentials/role",
        ),
    ];
    std::thread::scope(|scope| {
        for (name, url) in sources {
            for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
                let (inventor, key) = (&inventor, &key);
                scope.spawn(move || {
                    let (mut place, proxy) = bare();
                    place.set("AWS_EC2_METADATA_DISABLED", "false");
                    place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "TOKEN-OF-THE-CONTAINER");
                    place.set(name, url);
                    place.set(variable, inventor.url());
                    place.run(["sign", key, "f"]).exits(3).says("").complains_of("no credentials from ");
                    assert_eq!(signers(&proxy), [""; 0], "{variable} {url}");
                });
            }
        }
    });
    assert_eq!(inventor.asked(), [""; 0]);
}

#[test]
fn an_instance_role_is_used_beside_a_proxy_that_sees_nothing_of_it() {
    let (mut place, kms) = bare();
    let (instance, proxy) = (Stub::instance("AKIDINSTANCE"), Stub::silent());
    place.set("AWS_EC2_METADATA_DISABLED", "false");
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url());
    set_proxy(&mut place, &proxy.url());
    place.run(["sign", &Moto::start().create_key(), "f"]).exits(0).complains("");
    assert_eq!(signers(&kms), ["AKIDINSTANCE"]);
    assert_eq!(
        instance.asked(),
        [
            "PUT /latest/api/token HTTP/1.1",
            "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1",
            "GET /latest/meta-data/iam/security-credentials/role HTTP/1.1",
        ]
    );
    assert_eq!(proxy.asked(), [""; 0]);
    // The SDK of a host without a role: the answer says so.
    let without = Stub::start(|_| stub::reply(404, "", ""));
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", without.url());
    place.run(["sign", &Moto::start().create_key(), "f"]).exits(3).complains_of("credentials");
}

#[test]
fn a_container_role_is_used_beside_a_proxy_that_sees_nothing_of_it() {
    let (mut place, kms) = bare();
    let (agent, proxy) = (Stub::container("AKIDCONTAINER", "Bearer abc"), Stub::silent());
    set_proxy(&mut place, &proxy.url());
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials?id=1", agent.url()));
    // As `echo` writes it, and as it is without a newline.
    for token in ["Bearer abc\n", "Bearer abc\r\n", "Bearer abc"] {
        place.write("token", token);
        place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "token");
        place.run(["sign", &Moto::start().create_key(), "f"]).exits(0).complains("");
    }
    assert_eq!(signers(&kms), ["AKIDCONTAINER"]);
    assert_eq!(agent.asked(), ["GET /v1/credentials?id=1 HTTP/1.1"; 3]);
    assert_eq!(proxy.asked(), [""; 0]);
    // A container's role may be what a profile starts from.
    place.write("config", "[profile p]\ncredential_source = EcsContainer\n");
    place.set("AWS_PROFILE", "p");
    place.run(["sign", &Moto::start().create_key(), "f"]).exits(0).complains("");
    assert_eq!(agent.asked().len(), 4);
}

#[test]
fn what_fails_of_a_container_is_named() {
    let (mut place, kms) = bare();
    let agent = Stub::container("AKIDCONTAINER", "good");
    let key = Moto::start().create_key();
    let url = format!("{}/v1/credentials?id=1", agent.url());
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url);
    place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "bad");
    let shown = url.split('?').next().unwrap();
    let refused = format!("no credentials from {shown}: HTTP status 403: AccessDenied: who are you");
    place.run(["sign", &key, "f"]).exits(3).complains_of(&refused);
    place.write("broken", "a\nb\n");
    place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "broken");
    place.run(["sign", &key, "f"]).exits(3).complains_of("it has a line break");
    place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "gone");
    place
        .run(["sign", &key, "f"])
        .exits(3)
        .complains_of("cannot read the token \"gone\" of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{free}/"));
    place.set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "");
    place.run(["sign", &key, "f"]).exits(3).complains_of(&format!("it does not answer: {free}: "));
    place.set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/");
    place.run(["sign", &key, "f"]).exits(3).complains_of("does not begin with a slash");
    assert_eq!(kms.requests(), []);
}

#[test]
fn k24_no_credential_service_is_asked_in_plain_http_on_another_machine() {
    let role = "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Environment\n";
    let sso = "[profile s]\nsso_session = dev\nsso_account_id = 111122223333\nsso_role_name = r\n\
               [sso-session dev]\nsso_region = eu-west-1\nsso_start_url = https://d.awsapps.com/start\n";
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("AWS_PROFILE", "r"), ("AWS_ENDPOINT_URL_STS", AWAY)], role),
        (&[("AWS_PROFILE", "r"), ("AWS_ENDPOINT_URL", AWAY)], role),
        (&[("AWS_PROFILE", "r")], &format!("{role}endpoint_url = {AWAY}\n")),
        (
            &[("AWS_PROFILE", "r")],
            &format!("{role}services = x\n[services x]\nsts =\n  endpoint_url = {AWAY}\n"),
        ),
        (
            &[
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "f"),
                ("AWS_ENDPOINT_URL_STS", AWAY),
            ],
            "",
        ),
        (&[("AWS_PROFILE", "s"), ("AWS_ENDPOINT_URL_SSO", AWAY)], sso),
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", AWAY)], ""),
        (&[("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", AWAY)], ""),
        (
            &[("AWS_EC2_METADATA_DISABLED", "false")],
            &format!("[default]\nec2_metadata_service_endpoint = {AWAY}\n"),
        ),
    ];
    for (variables, config) in cases {
        let (mut place, kms) = bare();
        if config.contains("credential_source") {
            // Only a source for the role: the environment's keys go before AWS_PROFILE.
            place.write("config", config.replace("credential_source = Environment", "source_profile = b"));
            place.shell("printf '[b]\naws_access_key_id = b\naws_secret_access_key = b\n' > credentials");
            place.set("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        } else {
            place.write("config", config);
        }
        place.shell("mkdir -p .aws/sso/cache");
        // SHA-1 of `dev`.
        let token = r#"{"accessToken": "SSO-TOKEN", "expiresAt": "2099-01-01T00:00:00Z", "startUrl": "https://d.awsapps.com/start", "region": "eu-west-1"}"#;
        place.write(".aws/sso/cache/34c6fceca75e456f25e7e99531e2425c6c1de443.json", token);
        for (name, value) in variables {
            place.set(name, value);
        }
        let key = Moto::start().create_key();
        let began = SystemTime::now();
        place
            .run(["sign", &key, "f"])
            .exits(3)
            .complains_of("was not sent: plain http to another machine carries no credentials");
        // Three attempts of three seconds each are made where there is nobody.
        assert!(began.elapsed().unwrap() < Duration::from_secs(8), "{variables:?}: it was tried");
        assert_eq!(kms.requests(), []);
    }
}

// Named profiles

const SIGNER: &str = "[profile signer]\naws_access_key_id = AKIDSIGNER\naws_secret_access_key = secret\n";

/// A policy with a sign rule for an AWS key and this line in `[aws]`, with keys in the environment
/// and an instance role.
fn with_policy(line: &str, config: &str) -> (Place, Proxy, Stub) {
    let proxy = Proxy::start(Moto::start().url());
    let instance = Stub::instance("AKIDINSTANCE");
    let mut place = policy::place(SIGN);
    at(&mut place, &proxy);
    place.set("AWS_EC2_METADATA_DISABLED", "false");
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url());
    set_keys(&mut place, "AKIDENVIRONMENT");
    place.write("config", config);
    place.write("in/f", "content");
    let key = Moto::start().create_key();
    set_policy(&place, &format!("{line}\n{}", with(SIGN, &format!("key = \"{key}\""))));
    (place, proxy, instance)
}

const ONCE: [&str; 4] = ["watch", "--policy", "policy.toml", "--once"];
const CHECK: [&str; 3] = ["check", "--policy", "policy.toml"];

#[test]
fn the_profile_of_the_policy_signs_whatever_lies_in_the_environment() {
    let (place, kms, instance) = with_policy("aws.profile = \"signer\"", SIGNER);
    place.run(CHECK).exits(0);
    place.run(ONCE).exits(0);
    assert_eq!(signers(&kms), ["AKIDSIGNER"]);
    assert_eq!(instance.asked(), [""; 0]);
}

#[test]
fn a_misspelt_profile_of_the_policy_is_a_fault_and_a_hold_and_nobody_elses_identity() {
    let (place, kms, instance) = with_policy("aws.profile = \"singer\"", SIGNER);
    let fault = "the AWS profile \"singer\" of aws.profile is neither in \"config\" nor in \"";
    let run = place.run(CHECK).exits(2);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains(fault), "{said}");
    assert!(
        said.contains("/.aws/credentials\" (no such file or directory); add it, or name another"),
        "{said}"
    );
    place.run([&CHECK[..], &["--online"]].concat()).exits(2);
    place.run(ONCE).exits(3).complains_of("singer");
    assert!(!place.path("in/f.sig").exists());
    assert_eq!((kms.requests(), instance.asked()), (vec![], vec![]));
}

#[test]
fn a_profile_of_the_policy_without_credentials_is_a_hold() {
    let (mut place, kms, instance) =
        with_policy("aws.profile = \"signer\"", "[profile signer]\nregion = eu-west-1\n");
    let agent = Stub::container("AKIDCONTAINER", "");
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url());
    place.run(ONCE).exits(3).complains_of("has no credentials of its own");
    assert_eq!((kms.requests(), instance.asked(), agent.asked()), (vec![], vec![], vec![]));
}

#[test]
fn a_profile_that_is_mended_is_seen_without_a_restart() {
    let (place, kms, _) = with_policy("aws.profile = \"signer\"", "");
    let daemon = crate::support::daemon::Daemon::start(&place);
    daemon.waits_for("held");
    place.write("config", SIGNER);
    daemon.waits_for("signed");
    assert_eq!(signers(&kms), ["AKIDSIGNER"]);
}

#[test]
fn the_profile_of_the_environment_goes_behind_its_keys_and_before_the_instance() {
    let (mut place, kms, instance) = with_policy("", SIGNER);
    // As the SDK and the CLI have it.
    place.set("AWS_PROFILE", "signer");
    place.run(ONCE).exits(0);
    assert_eq!(signers(&kms), ["AKIDENVIRONMENT"]);
    place.set("AWS_PROFILE", "singer");
    place.run(CHECK).exits(0);
    // Empty is none.
    set_keys(&mut place, "");
    place.write("in/g", "content");
    place.run(CHECK).exits(2);
    let run = place.run(ONCE).exits(3);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains("the AWS profile \"singer\" of AWS_PROFILE is neither in"), "{said}");
    assert_eq!(instance.asked(), [""; 0], "a profile that is not there is not the instance's role");
    place.set("AWS_PROFILE", "signer");
    place.run(ONCE).exits(0);
    assert_eq!(signers(&kms), ["AKIDENVIRONMENT", "AKIDSIGNER"]);
    // A profile for settings alone leaves the credentials to the instance.
    place.write("in/h", "content");
    place.write("config", "[profile signer]\nregion = eu-west-1\n");
    place.run(ONCE).exits(0);
    assert_eq!(signers(&kms), ["AKIDENVIRONMENT", "AKIDSIGNER", "AKIDINSTANCE"]);
}

#[test]
fn a_profile_that_is_set_up_by_half_is_not_the_role_of_the_instance() {
    let (mut place, kms) = bare();
    let instance = Stub::instance("AKIDINSTANCE");
    place.set("AWS_EC2_METADATA_DISABLED", "false");
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url());
    let key = Moto::start().create_key();
    for (config, words) in [
        (
            "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = gone",
            "could not find source profile gone",
        ),
        (
            "sso_start_url = https://d.awsapps.com/start\nsso_account_id = 1\nsso_role_name = r",
            "`sso_region` was missing",
        ),
        (
            "sso_start_url = https://d.awsapps.com/start\nsso_region = eu-west-1",
            "will resolve an access token",
        ),
        ("aws_access_key_id = a", "missing aws_secret_access_key"),
    ] {
        place.write("config", format!("[default]\n{config}\n"));
        place.run(["sign", &key, "f"]).exits(3).complains_of(words);
    }
    assert_eq!((kms.requests(), instance.asked()), (vec![], vec![]));
}

#[test]
fn what_else_the_profile_of_the_policy_says_counts_too_and_goes_first() {
    let proxy = Proxy::start(Moto::start().url());
    let (mut place, elsewhere, _) = with_policy(
        "aws.profile = \"signer\"",
        &format!(
            "{SIGNER}region = ap-southeast-2\nservices = s\n[services s]\nkms =\n  endpoint_url = {}\n",
            proxy.url()
        ),
    );
    place.set("AWS_REGION", "us-east-1");
    let key = Moto::start().create_key_in("ap-southeast-2");
    let id = key.rsplit('/').next().unwrap();
    let rule = with(SIGN, &format!("key = \"{id}\""));
    set_policy(&place, &format!("aws.profile = \"signer\"\n{rule}"));
    place.run(ONCE).exits(0);
    assert_eq!(proxy.requests().first().map(|request| request.region.clone()).unwrap(), "ap-southeast-2");
    assert_eq!(elsewhere.requests(), []);
    // The policy itself goes before its profile.
    place.write("in/g", "content");
    set_policy(
        &place,
        &format!("aws.profile = \"signer\"\naws.endpoint_url = \"{}\"\n{rule}", elsewhere.url()),
    );
    place.run(ONCE).exits(0);
    assert_eq!(elsewhere.requests().len(), 1);
}

#[test]
fn use_fips_with_an_endpoint_of_whatever_origin_is_a_fault() {
    let endpoint = Moto::start().url();
    let fault = |place: &Place| {
        let said = String::from_utf8(place.run(CHECK).exits(2).stdout().to_vec()).unwrap();
        assert!(said.contains("use_fips and the KMS endpoint of AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL or the AWS profile exclude each other; remove one"), "{said}");
    };
    fault(&with_policy("aws.use_fips = true", "").0);
    let config = format!("{SIGNER}endpoint_url = {endpoint}\n");
    let (mut place, ..) = with_policy("aws.profile = \"signer\"\naws.use_fips = true", &config);
    place.set("AWS_ENDPOINT_URL_KMS", "");
    fault(&place);
    let config = format!("{SIGNER}use_fips_endpoint = true\nendpoint_url = {endpoint}\n");
    fault(&with_policy("aws.profile = \"signer\"", &config).0);
    let (mut place, ..) = with_policy("", "");
    place.set("AWS_USE_FIPS_ENDPOINT", "true");
    fault(&place);
}

// Regions

/// A configuration whose credentials come from a role, without a Region anywhere. The account is
/// the one of moto's keys.
fn role(source: &str) -> String {
    let role = "[profile r]\nrole_arn = arn:aws:iam::123456789012:role/r\n";
    let base = "[profile b]\naws_access_key_id = b\naws_secret_access_key = b\n";
    format!("{base}{role}{source}\n")
}

#[test]
fn the_region_of_a_key_is_lent_to_the_role_that_reaches_it() {
    let key = Moto::start().create_key_in("ap-southeast-2");
    let other = Moto::start().create_key_in("us-east-1");
    for source in
        ["source_profile = b", "credential_source = EcsContainer", "credential_source = Ec2InstanceMetadata"]
    {
        let (mut place, kms) = bare();
        let sts = Proxy::start(Moto::start().url());
        let (agent, instance) = (Stub::container("AKIDCONTAINER", ""), Stub::instance("AKIDINSTANCE"));
        place.write("config", role(source));
        place.set("AWS_PROFILE", "r");
        place.set("AWS_ENDPOINT_URL_STS", sts.url());
        place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url());
        place.set("AWS_EC2_METADATA_DISABLED", "false");
        place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url());
        place.run(["sign", &key, "f"]).exits(0).complains("");
        let of_sts = sts.requests();
        assert_eq!(of_sts.len(), 1, "{source}");
        assert_eq!(of_sts[0].region, "ap-southeast-2", "{source}");
        // Keys of two Regions, one set of credentials.
        place.run(["verify", "f", "--key", &key, "--key", &other]).exits(0);
        assert_eq!(sts.requests().len(), 2, "{source}");
        assert!(kms.requests().iter().all(|request| request.access_key_id.starts_with("ASIA")), "{source}");
        // A Region that is configured stays the one of STS.
        place.set("AWS_REGION", "eu-west-1");
        place.run(["verify", "f", "--key", &key]).exits(0);
        assert_eq!(sts.requests()[2].region, "eu-west-1", "{source}");
    }
}

#[test]
fn two_regions_share_one_set_of_credentials() {
    let (mut place, kms) = bare();
    let sts = Proxy::start(Moto::start().url());
    place.write("config", role("source_profile = b"));
    place.set("AWS_PROFILE", "r");
    place.set("AWS_ENDPOINT_URL_STS", sts.url());
    let [one, two] = ["us-east-1", "eu-central-1"].map(|region| Moto::start().create_key_in(region));
    place.run(["sign", &two, "f"]).exits(0);
    let asked = sts.requests().len();
    // The first key did not make it: moto says AccessDenied for that.
    kms.next(crate::support::proxy::Fault::INCORRECT_KEY);
    place.run(["verify", "f", "--key", &one, "--key", &two]).exits(0);
    assert_eq!(sts.requests().len(), asked + 1);
    let regions: Vec<_> = kms.requests().into_iter().skip(1).map(|request| request.region).collect();
    assert_eq!(regions, ["us-east-1", "eu-central-1"]);
}

#[test]
fn a_web_identity_without_a_region_reaches_its_key() {
    let key = Moto::start().create_key_in("ap-southeast-2");
    let arn = "arn:aws:iam::123456789012:role/r";
    let in_profile = format!("[profile w]\nrole_arn = {arn}\nweb_identity_token_file = token\n");
    let environment = [("AWS_ROLE_ARN", arn), ("AWS_WEB_IDENTITY_TOKEN_FILE", "token")];
    let profile = [("AWS_PROFILE", "w"), ("AWS_ROLE_SESSION_NAME", "s")];
    // The endpoint of STS may stand in the profile, whoever says where the token is.
    for (config, variables) in [("[default]\n", environment), (in_profile.as_str(), profile)] {
        let (mut place, kms) = bare();
        let sts = Proxy::start(Moto::start().url());
        let services = format!("services = s\n[services s]\nsts =\n  endpoint_url = {}\n", sts.url());
        place.write("config", format!("{config}{services}"));
        place.write("token", "a.b.c");
        for (name, value) in variables {
            place.set(name, value);
        }
        place.run(["sign", &key, "f"]).exits(0).complains("");
        assert_eq!(sts.requests().len(), 1);
        assert!(signers(&kms)[0].starts_with("ASIA"));
    }
}

#[test]
fn the_instance_is_asked_for_a_region_only_if_one_is_needed() {
    let (mut place, kms) = bare();
    let instance = Stub::instance("AKIDINSTANCE");
    place.set("AWS_EC2_METADATA_DISABLED", "false");
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url());
    set_keys(&mut place, "AKIDENVIRONMENT");
    let key = Moto::start().create_key();
    place.run(["sign", &key, "f"]).exits(0).complains("");
    assert_eq!(instance.asked(), [""; 0]);
    let id = key.rsplit('/').next().unwrap();
    place.run(["verify", "f", "--key", id]).exits(0);
    let region = "GET /latest/meta-data/placement/region HTTP/1.1";
    assert_eq!(instance.asked(), ["PUT /latest/api/token HTTP/1.1", region]);
    assert!(kms.requests().iter().all(|request| request.region == REGION));
}

#[test]
fn k14_a_silent_instance_metadata_service_costs_a_key_arn_nothing() {
    let (mut place, _kms) = bare();
    // Takes connections, and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    place.set("AWS_EC2_METADATA_DISABLED", "false");
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    set_keys(&mut place, "AKIDENVIRONMENT");
    let key = Moto::start().create_key();
    place.run(["sign", &key, "f"]).exits(0).complains("");
    // Not by the time that it took, which other load makes longer as well.
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "it was asked");
}

// What is wrong, and what only looks so

#[test]
fn half_of_a_source_in_the_environment_is_an_error_and_not_another_identity() {
    let (mut place, kms) = bare();
    let key = Moto::start().create_key();
    place.write("config", SIGNER.replace("profile signer", "default"));
    place.set("AWS_ACCESS_KEY_ID", "half");
    place
        .run(["sign", &key, "f"])
        .exits(3)
        .complains_of("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
    place.set("AWS_ACCESS_KEY_ID", "");
    place.set("AWS_WEB_IDENTITY_TOKEN_FILE", "token");
    place.write("token", "token");
    place.write("config", "");
    let told = "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not";
    place.run(["sign", &key, "f"]).exits(3).complains_of(told);
    assert_eq!(signers(&kms), <[&str; 0]>::default());
}

#[test]
fn what_is_empty_counts_as_unset() {
    let (mut place, kms) = bare();
    let key = Moto::start().create_key();
    let id = key.rsplit('/').next().unwrap();
    place.write("config", format!("[default]\nregion = {REGION}\n{}", &SIGNER[17..]));
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CA_BUNDLE",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
    ] {
        place.set(name, "");
    }
    place.run(["sign", id, "f"]).exits(0).complains("");
    assert_eq!(signers(&kms), ["AKIDSIGNER"]);
    // An empty endpoint of KMS leaves the one of all services.
    place.set("AWS_ENDPOINT_URL_KMS", "");
    place.set("AWS_ENDPOINT_URL", kms.url());
    place.run(["verify", "f", "--key", id]).exits(0).complains("");
    assert_eq!(kms.requests().len(), 2);
    // A role, with an empty endpoint of STS.
    let sts = Proxy::start(Moto::start().url());
    place.write("config", role("source_profile = b"));
    place.set("AWS_PROFILE", "r");
    place.set("AWS_ENDPOINT_URL", sts.url());
    place.run(["verify", "f", "--key", &key]).exits(0).complains("");
    assert_eq!(sts.requests().len(), 2, "STS and KMS");
}

#[test]
fn credentials_that_expired_before_they_came_are_a_fault_that_is_named() {
    let (mut place, kms) = bare();
    let key = Moto::start().create_key();
    let keys = |expiration: &str| {
        format!(
            r#"{{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "b", "Token": "t", "Expiration": "{expiration}"}}"#
        )
    };
    place.write("config", "[profile p]\ncredential_process = cat keys\n");
    place.set("AWS_PROFILE", "p");
    place.write("keys", keys("2019-01-01T00:00:00Z"));
    place
        .run(["sign", &key, "f"])
        .exits(3)
        .complains_of("credentials: ")
        .complains_of(
            "the credentials from profile \"p\" (credential_process) expired at 2019-01-01T00:00:00",
        )
        .complains_of("see why what hands them out has no newer ones, and check this host's clock");
    place.write("keys", keys("2099-01-01T00:00:00Z"));
    place.run(["sign", &key, "f"]).exits(0).complains("");
    assert_eq!(signers(&kms), ["AKIDPROCESS"]);
    // The same of a container.
    let old = keys("2019-01-01T00:00:00Z");
    let agent = Stub::start(move |_| stub::reply(200, "content-type: application/json\r\n", &old));
    place.set("AWS_PROFILE", "");
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url());
    place
        .run(["sign", &key, "f"])
        .exits(3)
        .complains_of("the credentials from the container credentials endpoint expired at 2019-");
}

#[test]
fn a_proxy_that_is_none_is_an_error_that_names_the_variable() {
    for (variable, value) in [
        ("HTTPS_PROXY", "not a url"),
        ("https_proxy", "socks5://user:secret@proxy.example.com:1080"),
        ("ALL_PROXY", "ftp://proxy.example.com"),
    ] {
        let (mut place, ..) = with_policy("", "");
        place.set("AWS_ENDPOINT_URL_KMS", "https://kms.invalid");
        place.set(variable, value);
        let said = String::from_utf8(place.run(CHECK).exits(2).stdout().to_vec()).unwrap();
        assert!(said.contains(&format!("cannot use the proxy of {variable}: ")), "{said}");
        assert!(!said.contains("secret"), "{said}");
        place.run(ONCE).exits(3).complains_of(variable);
        // What stays on this machine needs none.
        place.set("AWS_ENDPOINT_URL_KMS", Moto::start().url());
        place.run(CHECK).exits(0);
        place.run(ONCE).exits(0);
    }
}

#[test]
fn certificates_that_cannot_be_used_are_an_error_that_names_them() {
    let (mut place, ..) = with_policy("", "");
    place.write("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let fault = |place: &Place, fault: &str| {
        let said = String::from_utf8(place.run(CHECK).exits(2).stdout().to_vec()).unwrap();
        assert!(said.contains(fault), "{said}");
    };
    place.set("AWS_CA_BUNDLE", "gone");
    fault(
        &place,
        "cannot use the certificates \"gone\" of AWS_CA_BUNDLE: cannot read it: no such file or directory",
    );
    place.set("AWS_CA_BUNDLE", "junk");
    fault(&place, "\"junk\" of AWS_CA_BUNDLE: certificate 1 in it is damaged");
    place.set("AWS_CA_BUNDLE", "in/f");
    fault(&place, "\"in/f\" of AWS_CA_BUNDLE: there is no certificate in PEM in it");
    let (place, ..) = with_policy("aws.profile = \"signer\"", &format!("{SIGNER}ca_bundle = gone\n"));
    fault(&place, "cannot use the certificates \"gone\" of ca_bundle in the AWS profile \"signer\"");
}
