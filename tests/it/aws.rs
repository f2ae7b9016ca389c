//! Signing and verifying with KMS over the wire: against moto for what KMS does, through the proxy
//! for what goes wrong, and with boto3 as the client that shares no line with ours.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::support::http;
use crate::support::moto::{Moto, REGION};
use crate::support::place::Place;
use crate::support::proxy::{Fault, OTHER_KEY, Proxy};

/// A place without any AWS configuration, neither its own nor somebody's home's nor the network's.
fn bare_place() -> Place {
    let mut place = Place::new();
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("HOME", place.path(""));
    place
}

/// A place with a Region, and credentials that are good enough for moto.
fn place() -> Place {
    let mut place = bare_place();
    place.set("AWS_REGION", REGION);
    set_credentials(&mut place);
    place
}

fn set_credentials(place: &mut Place) {
    place.set("AWS_ACCESS_KEY_ID", "test");
    place.set("AWS_SECRET_ACCESS_KEY", "test");
}

/// The same, with KMS at this URL.
fn place_at(url: &str) -> Place {
    let mut place = place();
    place.set("AWS_ENDPOINT_URL", url);
    place
}

/// A place at moto behind a proxy, a key, and the file `f` with its valid signature.
fn signed() -> (Place, Proxy, String) {
    let proxy = Proxy::start(Moto::start().url());
    let place = place_at(&proxy.url());
    let key = Moto::start().create_key();
    place.write("f", "payload\n");
    place.run(["sign", &key, "f"]).exits(0).says("").complains("");
    (place, proxy, key)
}

fn valid(key: &str) -> String {
    format!("valid signature from {key}\n")
}

const INVALID: &str = "invalid signature\n";

/// Prints the plaintext of a ciphertext in hexadecimal: ciphertext's path, key, context as `k=v`.
const DECRYPT: &str = "
context = dict(pair.split('=', 1) for pair in sys.argv[3:])
blob = open(sys.argv[1], 'rb').read()
print(kms.decrypt(CiphertextBlob=blob, KeyId=sys.argv[2], EncryptionContext=context)['Plaintext'].hex())
";

/// Encrypts a file's SHA-512: file, ciphertext's path, key, context as `k=v`.
const ENCRYPT: &str = "
import hashlib
context = dict(pair.split('=', 1) for pair in sys.argv[4:])
digest = hashlib.sha512(open(sys.argv[1], 'rb').read()).digest()
blob = kms.encrypt(KeyId=sys.argv[3], Plaintext=digest, EncryptionContext=context)['CiphertextBlob']
open(sys.argv[2], 'wb').write(blob)
";

// The format, shared with everybody else

#[test]
fn what_we_sign_others_decrypt_to_the_sha_512() {
    let (place, _proxy, key) = signed();
    place
        .run(["sign", &key, "f", "with", "--context", "host=web1,version=20", "--context", "note=a\\,b"])
        .exits(0);
    // printf 'payload\n' | sha512sum
    let digest = "1cc3d69fb53c1f5c51fcce0a754b837cdf76de1b2ee39b467bb337b89459ff6f\
                  91bb9888c0546999ae3b87e673bc145201f48a7ae023ca9153a3e783ebb8086a";
    let decrypt = |sig: &str, context: &[&str]| {
        let path = place.path(sig).to_str().unwrap().to_owned();
        Moto::start().boto3(DECRYPT, &[&[path.as_str(), &key], context].concat())
    };
    assert_eq!(decrypt("f.sig", &[]), digest);
    assert_eq!(decrypt("with", &["host=web1", "version=20", "note=a,b"]), digest);
}

#[test]
fn what_others_encrypt_verifies() {
    let (place, _proxy, key) = signed();
    let encrypt = |sig: &str, context: &[&str]| {
        let [file, sig] = ["f", sig].map(|name| place.path(name).to_str().unwrap().to_owned());
        Moto::start().boto3(ENCRYPT, &[&[file.as_str(), &sig, &key], context].concat())
    };
    encrypt("plain", &[]);
    encrypt("with", &["host=web1", "note=a,b"]);
    place.run(["verify", "f", "plain", "--key", &key]).exits(0).says(valid(&key)).complains("");
    let context = ["--context", "note=a\\,b,host=web1"];
    place
        .run([&["verify", "f", "with", "--key", &key], context.as_slice()].concat())
        .exits(0)
        .says(valid(&key));
}

#[test]
fn every_form_of_a_key_signs_and_verifies() {
    let (place, _proxy, arn) = signed();
    let id = arn.rsplit('/').next().unwrap().to_owned();
    // Aliases are the account's: a name of its own for this test process and test.
    let alias = Moto::start().create_alias(&format!("form-{id}"), &id);
    for key in [&arn, &id, &alias] {
        place.run(["sign", key, "f"]).exits(0).says("").complains("");
        for named in [&arn, &id, &alias] {
            place.run(["verify", "f", "--key", named]).exits(0).says(valid(&arn)).complains("");
        }
    }
}

// What a verdict is

#[test]
fn k1_k7_another_context_or_a_damaged_ciphertext_is_invalid() {
    let (place, _proxy, key) = signed();
    place.run(["sign", &key, "f", "with", "--context", "a=1,b=2"]).exits(0);
    let invalid = |sig: &str, context: &[&str]| {
        let arguments = [&["verify", "f", sig, "--key", &key], context].concat();
        place.run(arguments).exits(1).says("").complains(INVALID);
    };
    for context in [&[][..], &["--context", "a=1"], &["--context", "a=1,b=3"], &["--context", "a=1,b=2,c=3"]]
    {
        invalid("with", context);
    }
    invalid("f.sig", &["--context", "a=1"]);

    // moto keeps the key's id in the first 36 bytes and answers AccessDenied when that is damaged;
    // KMS answers InvalidCiphertext for every byte.
    let good = place.read("f.sig");
    for at in [36, good.len() / 2, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        place.write("flipped", flipped);
        invalid("flipped", &[]);
    }
    for len in [1, 35, 60, good.len() - 1] {
        place.write("short", &good[..len]);
        invalid("short", &[]);
    }
}

#[test]
fn k6_the_signature_of_other_bytes_is_invalid() {
    let (place, _proxy, key) = signed();
    place.write("f", "payload!\n");
    place.run(["verify", "f", "--key", &key]).exits(1).says("").complains(INVALID);
}

#[test]
fn k2_another_keys_signature_is_invalid_when_kms_says_so() {
    let (place, proxy, _key) = signed();
    let other = Moto::start().create_key();
    // moto answers AccessDenied where KMS answers IncorrectKey. AccessDenied is no verdict.
    place.run(["verify", "f", "--key", &other]).exits(3).says("").complains_of("access-denied");
    proxy.next(Fault::INCORRECT_KEY);
    place.run(["verify", "f", "--key", &other]).exits(1).says("").complains(INVALID);
}

#[test]
fn k3_a_second_key_is_asked_when_the_first_did_not_make_it() {
    let (place, proxy, key) = signed();
    let other = Moto::start().create_key();
    proxy.next(Fault::INCORRECT_KEY);
    place.run(["verify", "f", "--key", &other, "--key", &key]).exits(0).says(valid(&key)).complains("");
    let asked: Vec<_> = proxy.requests().into_iter().skip(1).map(|request| request.key_id).collect();
    assert_eq!(asked, [Some(other), Some(key)]);
}

#[test]
fn codes_count_with_a_namespace_and_a_trailing_address() {
    let (place, proxy, key) = signed();
    for code in [
        "com.amazonaws.kms#InvalidCiphertextException",
        "InvalidCiphertextException:http://internal.amazon.com/coral/com.amazonaws.kms/",
    ] {
        proxy.next(Fault::Error(400, code));
        place.run(["verify", "f", "--key", &key]).exits(1).says("").complains(INVALID);
    }
}

// What a request says

#[test]
fn k4_a_named_key_is_in_every_request_and_an_empty_context_in_none() {
    let (place, proxy, key) = signed();
    place.run(["verify", "f", "--key", &key]).exits(0);
    proxy.next(Fault::INTERNAL);
    place.run(["verify", "f", "--key", &key]).exits(0);
    place.run(["verify", "f", "--key", &key, "--context", "a=1"]).exits(1);
    let requests = proxy.requests();
    let operations: Vec<_> = requests.iter().map(|request| request.operation.as_str()).collect();
    assert_eq!(operations, ["Encrypt", "Decrypt", "Decrypt", "Decrypt", "Decrypt"], "a retry asks again");
    for request in &requests {
        assert_eq!(request.key_id.as_ref(), Some(&key), "{request:?}");
    }
    let contexts: Vec<_> = requests.iter().map(|request| &request.body["EncryptionContext"]).collect();
    let (none, one) = (&Value::Null, &json!({ "a": "1" }));
    assert_eq!(contexts, [none, none, none, none, one]);
}

#[test]
fn without_a_named_key_kms_finds_it_and_it_is_told() {
    let (place, proxy, key) = signed();
    place.run(["verify", "f"]).exits(0).says(valid(&key));
    assert_eq!(proxy.requests().last().map(|request| request.key_id.clone()), Some(None));
}

#[test]
fn a_key_arn_names_its_region() {
    let key = Moto::start().create_key_in("ap-southeast-2");
    let proxy = Proxy::start(Moto::start().url());
    let mut place = bare_place();
    set_credentials(&mut place);
    place.set("AWS_ENDPOINT_URL", proxy.url());
    place.write("f", "payload\n");
    place.run(["sign", &key, "f"]).exits(0);
    place.run(["verify", "f", "--key", &key]).exits(0).says(valid(&key));
    let id = key.rsplit('/').next().unwrap();
    place.run(["verify", "f", "--key", id]).exits(3).says("").complains(&format!(
        "kms-sig: cannot verify \"f\": bad-request: no AWS Region is known for key {id}; set AWS_REGION, or aws.region in \
         a policy\n"
    ));
    assert!(proxy.requests().iter().all(|request| request.region == "ap-southeast-2"));
    assert_eq!(proxy.requests().len(), 2, "without a Region nothing is sent");
}

// Trouble

/// Faults that are trouble in every operation, and the word for the kind of trouble.
const TROUBLE: [(Fault, &str); 32] = [
    (Fault::THROTTLED, "throttled"),
    (Fault::Error(400, "LimitExceededException"), "throttled"),
    (Fault::INTERNAL, "kms-internal"),
    (Fault::Error(503, "DependencyTimeoutException"), "kms-internal"),
    (Fault::Error(500, "KeyUnavailableException"), "kms-internal"),
    (Fault::ACCESS_DENIED, "access-denied"),
    (Fault::EXPIRED_TOKEN, "credentials"),
    (Fault::Error(403, "InvalidSignatureException"), "credentials"),
    (Fault::DISABLED, "key-state"),
    (Fault::Error(400, "KMSInvalidStateException"), "key-state"),
    (Fault::Error(400, "NotFoundException"), "key-not-found"),
    (Fault::Error(400, "InvalidKeyUsageException"), "key-usage"),
    (Fault::Error(400, "ValidationException"), "bad-request"),
    (Fault::UNKNOWN, "unknown-error"),
    (Fault::Status(302), "malformed-reply"),
    (Fault::Status(400), "malformed-reply"),
    (Fault::Status(401), "malformed-reply"),
    (Fault::Status(403), "malformed-reply"),
    (Fault::Status(404), "malformed-reply"),
    (Fault::Status(405), "malformed-reply"),
    (Fault::Status(407), "malformed-reply"),
    (Fault::Status(413), "malformed-reply"),
    (Fault::Status(418), "malformed-reply"),
    (Fault::Status(502), "unknown-error"),
    (Fault::Page(403), "malformed-reply"),
    (Fault::Page(404), "malformed-reply"),
    (Fault::BrokenJson, "malformed-reply"),
    (Fault::EmptyJson, "malformed-reply"),
    (Fault::Html, "malformed-reply"),
    (Fault::Flood, "malformed-reply"),
    (Fault::OtherAlgorithm, "malformed-reply"),
    (Fault::Reset, "network"),
];

/// Verdicts of Decrypt that arrive as KMS would not send them.
const FALSE_VERDICTS: [(Fault, &str); 2] = [
    (Fault::Error(200, "InvalidCiphertextException"), "malformed-reply"),
    (Fault::Error(503, "IncorrectKeyException"), "malformed-reply"),
];

/// `kms-sig verify` under a lasting fault comes to no verdict.
fn verify_holds(fault: Fault, word: &str) {
    let (place, proxy, key) = signed();
    proxy.always(Some(fault));
    place.run(["verify", "f", "--key", &key]).exits(3).says("").complains_of(word);
    proxy.always(None);
    place.run(["verify", "f", "--key", &key]).exits(0).says(valid(&key)).complains("");
}

/// `kms-sig sign` under a lasting fault leaves nothing behind.
fn sign_holds(fault: Fault, word: &str) {
    let proxy = Proxy::start(Moto::start().url());
    let place = place_at(&proxy.url());
    let key = Moto::start().create_key();
    place.write("f", "payload\n");
    proxy.always(Some(fault));
    place.run(["sign", &key, "f"]).exits(3).says("").complains_of(word);
    assert_eq!(place.names(), ["f"], "{fault:?}");
    proxy.always(None);
    place.run(["sign", &key, "f"]).exits(0).says("").complains("");
}

/// All of them side by side: nearly all their time is the SDK's pause before it tries again.
fn each(cases: &[(Fault, &'static str)], check: fn(Fault, &str)) {
    thread::scope(|scope| {
        for &(fault, word) in cases {
            let named = thread::Builder::new().name(format!("{fault:?}"));
            named.spawn_scoped(scope, move || check(fault, word)).unwrap();
        }
    });
}

#[test]
fn p2_trouble_with_decrypt_is_no_verdict() {
    each(&TROUBLE, verify_holds);
    each(&FALSE_VERDICTS, verify_holds);
}

#[test]
fn p2_trouble_with_encrypt_leaves_no_signature() {
    each(&TROUBLE, sign_holds);
    let only_of_encrypt = [
        (Fault::INVALID_CIPHERTEXT, "malformed-reply"),
        (Fault::INCORRECT_KEY, "malformed-reply"),
        (Fault::OtherKey, "malformed-reply"),
    ];
    each(&only_of_encrypt, sign_holds);
}

#[test]
fn k16_silence_ends_in_time_and_is_no_verdict() {
    let silence = [(Fault::Hang, "timeout"), (Fault::Dribble, "timeout")];
    thread::scope(|scope| {
        scope.spawn(|| each(&silence, verify_holds));
        scope.spawn(|| each(&silence, sign_holds));
    });
}

#[test]
fn k9_what_passes_is_tried_three_times_and_what_does_not_once() {
    let (place, proxy, key) = signed();
    // An attempt is given five seconds: more than the server needs, and less than it may take on a
    // machine with other load. So its answer is asked for once, and told again.
    let mut tries = 0;
    while !place.run(["verify", "f", "--key", &key]).succeeds() {
        tries += 1;
        assert!(tries < 10, "the server never answers in time");
    }
    for fault in [Fault::INTERNAL, Fault::Reset] {
        proxy.next(fault);
        proxy.next(fault);
        proxy.next(Fault::Again);
        place.run(["verify", "f", "--key", &key]).exits(0).says(valid(&key)).complains("");
    }
    let attempts = |fault| {
        let before = proxy.requests().len();
        proxy.always(Some(fault));
        place.run(["verify", "f", "--key", &key]).exits(3);
        proxy.requests().len() - before
    };
    assert_eq!(attempts(Fault::INTERNAL), 3);
    assert_eq!(attempts(Fault::ACCESS_DENIED), 1);
    assert_eq!(attempts(Fault::UNKNOWN), 1);
}

#[test]
fn k4_an_answer_of_another_key_vouches_for_nothing() {
    let (place, proxy, key) = signed();
    proxy.always(Some(Fault::OtherKey));
    let run = place.run(["verify", "f", "--key", &key]).exits(1).says("").complains_of(INVALID);
    run.complains_of("KMS decrypted with another key than the one that was named");
    place.run(["verify", "f", "--key", OTHER_KEY]).exits(3).says("");
}

#[test]
fn k16_nobody_there_is_a_hold() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (place, _proxy, key) = signed();
    let mut away = place_at(&format!("http://{free}"));
    away.write("f", "payload\n");
    away.write("f.sig", place.read("f.sig"));
    away.run(["verify", "f", "--key", &key]).exits(3).says("").complains_of("network");
    away.set("AWS_ENDPOINT_URL", "https://kms.invalid");
    away.run(["verify", "f", "--key", &key]).exits(3).says("").complains_of("network: kms.invalid: ");
}

#[test]
fn k13_missing_credentials_are_a_hold() {
    let proxy = Proxy::start(Moto::start().url());
    let mut place = bare_place();
    place.set("AWS_ENDPOINT_URL", proxy.url());
    place.set("AWS_REGION", REGION);
    place.write("f", "payload\n");
    place.run(["sign", "alias/any", "f"]).exits(3).says("").complains_of("credentials");
    assert_eq!(place.names(), ["f"]);
    assert_eq!(proxy.requests(), []);
}

#[test]
fn k13_slow_credentials_are_waited_for() {
    let mut place = bare_place();
    // Longer than an attempt may take, as when a person has to touch a token.
    place.write("keys", r#"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"}"#);
    place.write("config", "[default]\ncredential_process = sleep 6; cat keys\n");
    place.set("AWS_CONFIG_FILE", "config");
    place.set("AWS_REGION", REGION);
    place.set("AWS_ENDPOINT_URL", Moto::start().url());
    place.write("f", "payload\n");
    place.run(["sign", &Moto::start().create_key(), "f"]).exits(0).says("").complains("");
}

// The way to KMS

#[test]
fn k24_plain_http_to_another_machine_is_refused_wherever_it_is_written() {
    // Nobody is there (RFC 5737), so a request would go unnoticed: the words are the proof.
    let away = "http://192.0.2.1";
    let config = |lines: &str| {
        let mut place = place();
        place.write("config", lines);
        place.set("AWS_CONFIG_FILE", "config");
        place
    };
    let environment = |name| {
        let mut place = place_at(Moto::start().url());
        place.set(name, away);
        place
    };
    for place in [
        environment("AWS_ENDPOINT_URL"),
        environment("AWS_ENDPOINT_URL_KMS"),
        config(&format!("[default]\nendpoint_url = {away}\n")),
        config(&format!("[default]\nservices = s\n[services s]\nkms =\n  endpoint_url = {away}\n")),
    ] {
        place.write("f", "payload\n");
        place.run(["sign", "alias/any", "f"]).exits(3).says("").complains_of("cannot use the KMS endpoint");
        place.write("f.sig", "any");
        place
            .run(["verify", "f", "--key", "alias/any"])
            .exits(3)
            .says("")
            .complains_of("loopback only, as anyone on the path could invent verdicts; write https://\n");
    }
}

#[test]
fn the_endpoint_of_kms_goes_before_the_endpoint_of_all_services() {
    let (mut place, proxy, key) = signed();
    place.set("AWS_ENDPOINT_URL", "http://192.0.2.1");
    place.set("AWS_ENDPOINT_URL_KMS", proxy.url());
    place.run(["verify", "f", "--key", &key]).exits(0).says(valid(&key)).complains("");
}

#[test]
fn k24_loopback_is_never_reached_through_a_proxy() {
    let (mut place, proxy, key) = signed();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        place.set(name, "http://192.0.2.1:3128");
    }
    place.run(["verify", "f", "--key", &key]).exits(0).says(valid(&key)).complains("");
    assert_eq!(proxy.requests().len(), 2);
}

#[test]
fn k17_what_does_not_speak_kms_is_told_so() {
    let (place, proxy, key) = signed();
    let complaint = |fault| {
        proxy.always(Some(fault));
        place.run(["verify", "f", "--key", &key]).exits(3).says("").stderr()
    };
    for (fault, what) in [
        (Fault::Status(302), "malformed-reply: HTTP status 302 without an error code of KMS"),
        (
            Fault::Page(403),
            "malformed-reply: HTTP status 403 without an error code of KMS and with a web page",
        ),
    ] {
        let complaint = complaint(fault);
        assert!(complaint.contains(what), "{complaint}");
        let hint = "\nhint: this endpoint does not speak KMS; check endpoint_url and the proxy\n";
        assert!(complaint.contains(hint), "{complaint}");
    }
    let complaint = complaint(Fault::Status(407));
    assert!(
        complaint.contains("\nhint: the proxy wants a user name and a password; put them into HTTPS_PROXY")
    );
}

#[test]
fn k16_a_proxy_that_refuses_to_connect_is_told_as_the_proxy() {
    for (answer, says, hint) in [
        ("407 Proxy Authentication Required", "answered CONNECT with 407", "put them into HTTPS_PROXY"),
        ("403 Forbidden", "refuses to connect to it", "have the proxy allow CONNECT to kms."),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let Ok(Some(_)) = http::Head::read(&mut client) else { continue };
                client.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).ok();
            }
        });
        let mut place = place();
        place.set("HTTPS_PROXY", format!("http://{address}"));
        place.write("f", "payload\n");
        let complaint = place.run(["sign", "alias/any", "f"]).exits(3).says("").stderr();
        let on_the_way = format!("network: the proxy on the way to kms.{REGION}.amazonaws.com {says}");
        assert!(complaint.contains(&on_the_way) && complaint.contains(hint), "{complaint}");
    }
}

#[test]
fn k16_https_goes_through_the_proxy_of_the_environment_and_its_refusal_is_a_hold() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let Ok(Some(head)) = http::Head::read(&mut client) else { continue };
            said.send(head.start_line().to_owned()).ok();
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").ok();
        }
    });
    let mut place = place();
    place.set("HTTPS_PROXY", format!("http://{address}"));
    place.write("f", "payload\n");
    place.run(["sign", "alias/any", "f"]).exits(3).says("").complains_of("network");
    assert_eq!(heard.try_recv().unwrap(), format!("CONNECT kms.{REGION}.amazonaws.com:443 HTTP/1.1"));
    assert_eq!(place.names(), ["f"]);
}

// The examples

/// The statements of a policy document below `config/`.
fn statements(name: &str) -> Vec<Value> {
    let path = format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let policy: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(policy["Version"], "2012-10-17", "{path}");
    policy["Statement"].as_array().unwrap().clone()
}

fn actions(statement: &Value) -> Vec<&str> {
    let action = &statement["Action"];
    let many = action.as_array().map_or(std::slice::from_ref(action), Vec::as_slice);
    many.iter().map(|action| action.as_str().unwrap()).collect()
}

#[test]
fn the_example_policies_deny_what_forges() {
    for name in ["key-policy.json", "iam-signer.json", "iam-verifier.json"] {
        let statements = statements(name);
        let denied: Vec<&str> =
            statements.iter().filter(|statement| statement["Effect"] == "Deny").flat_map(actions).collect();
        for forging in ["kms:ReEncrypt*", "kms:CreateGrant"] {
            assert!(denied.contains(&forging), "{name} does not deny {forging}");
        }
        for statement in &statements {
            let sid = statement["Sid"].as_str().unwrap();
            assert!(
                sid.chars().all(|c| c.is_ascii_alphanumeric()),
                "IAM takes letters and digits in a Sid: {sid}"
            );
        }
    }
}

#[test]
fn the_example_roles_may_do_one_thing_each() {
    for (name, only) in [("iam-signer.json", "kms:Encrypt"), ("iam-verifier.json", "kms:Decrypt")] {
        let statements = statements(name);
        let allowed: Vec<&str> =
            statements.iter().filter(|statement| statement["Effect"] == "Allow").flat_map(actions).collect();
        assert_eq!(allowed, [only], "{name}");
    }
}
