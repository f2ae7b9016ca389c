//! AWS behind TLS and a proxy: which requests a proxy between the host and AWS sees for each source
//! of credentials, and whose certificates are believed.
//!
//! The proxy answers CONNECT only, takes every tunnel to one server, and keeps the names that it
//! was given: that is all a proxy learns. The server has certificates for the names of AWS, of an
//! authority that `AWS_CA_BUNDLE` names. Behind it, KMS and STS are moto; SSO and sign-in are
//! answered as their API references say.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::{fs, thread};

use super::set_keys;
use super::stub::Stub;
use crate::support::http::Head;
use crate::support::moto::{Moto, REGION};
use crate::support::place::Place;

/// The names of AWS that are asked here, as a certificate has them.
const NAMES: &str = "DNS:localhost,DNS:*.eu-west-1.amazonaws.com,DNS:*.sso.eu-west-1.amazonaws.com,\
                     DNS:*.signin.aws.amazon.com";

/// Serves TLS with the certificate in a directory, prints its port, then each request's host, line
/// and access key.
const SERVER: &str = "
import http.server, json, ssl, sys, urllib.error, urllib.request
upstream, directory = sys.argv[1:]
KEYS = {'accessKeyId': 'AKIDSERVICE', 'secretAccessKey': 's', 'sessionToken': 't'}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        host = self.headers['host'].split(':')[0]
        scope = self.headers.get('authorization', '')
        signer = scope.split('Credential=')[-1].split('/')[0] if 'Credential=' in scope else '-'
        print(host, self.command, self.path.split('?')[0], signer, flush=True)
        status, kind = 200, 'application/json'
        if host.startswith('portal.sso.'):
            good = self.headers.get('x-amz-sso_bearer_token') in ('SSO-TOKEN', 'SSO-FRESH')
            status = 200 if good else 401
            reply = json.dumps({'roleCredentials': {**KEYS, 'expiration': 4070908800000}}).encode()
        elif host.startswith('oidc.'):
            reply = b'{\"accessToken\": \"SSO-FRESH\", \"expiresIn\": 28800, \"tokenType\": \"Bearer\"}'
        elif '.signin.' in host:
            reply = json.dumps({'accessToken': KEYS, 'expiresIn': 900, 'refreshToken': 'r', 'tokenType': 'aws_sigv4'}).encode()
        else:
            kept = ('content-type', 'x-amz-target', 'authorization', 'x-amz-date')
            headers = {name: self.headers[name] for name in kept if name in self.headers}
            try:
                answer = urllib.request.urlopen(urllib.request.Request(upstream, body, headers))
            except urllib.error.HTTPError as error:
                answer = error
            status, kind, reply = answer.status, answer.headers['content-type'], answer.read()
        self.send_response(status)
        self.send_header('content-type', kind)
        self.send_header('content-length', str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
    do_GET = do_POST = answer
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
server.handle_error = lambda *_: None
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory + '/server.pem', directory + '/server.key')
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// The server behind TLS. Ends when dropped.
struct Tls {
    child: Child,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tls {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVER, Moto::start().url(), certificates().to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests of AWS need Python: apt-get install python3");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port: u16 = lines.next().expect("the server says its port").parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || lines.for_each(|line| log.lock().unwrap().push(line)));
        Self { child, address: ([127, 0, 0, 1], port).into(), asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A directory with `ca.pem`, and the server's `server.pem` and `server.key`.
fn certificates() -> PathBuf {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
            openssl req -x509 $new -keyout ca.key -out ca.pem -days 2 -subj /CN=ca &&
            openssl req $new -keyout server.key -out server.csr -subj /CN=server &&
            echo 'subjectAltName={NAMES}' > names &&
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem"
        );
        let made = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        assert!(
            made.status.success(),
            "{}\nthe tests of TLS need openssl: apt-get install openssl",
            String::from_utf8_lossy(&made.stderr)
        );
        dir
    });
    dir.path().to_owned()
}

/// A proxy that takes every tunnel to one address and remembers where it was to lead.
fn tunnels(to: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let log = Arc::clone(&log);
            thread::spawn(move || tunnel(client, to, &log).ok());
        }
    });
    (url, asked)
}

fn tunnel(mut client: TcpStream, to: SocketAddr, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let Some(head) = Head::read(&mut client)? else { return Ok(()) };
    log.lock().unwrap().push(head.start_line().to_owned());
    if !head.start_line().starts_with("CONNECT ") {
        return client.write_all(b"HTTP/1.1 502 -\r\ncontent-length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 -\r\n\r\n")?;
    let (mut from, mut back) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        io::copy(&mut from, &mut back).and_then(|_| back.shutdown(std::net::Shutdown::Write))
    });
    io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Write)
}

/// A place with AWS behind the proxy, without any source of credentials.
fn place(proxy: &str) -> Place {
    let mut place = Place::new();
    place.set("HOME", place.path(""));
    place.set("AWS_CONFIG_FILE", "config");
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("AWS_CA_BUNDLE", certificates().join("ca.pem"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        place.set(name, proxy);
    }
    place.write("config", "");
    place.write("f", "payload\n");
    place.shell("mkdir -p .aws/sso/cache .aws/login/cache").exits(0);
    place
}

/// A source of credentials.
struct Source {
    name: &'static str,
    config: String,
    variables: Vec<(&'static str, String)>,
    files: Vec<(&'static str, String)>,
    /// The hosts that a proxy is asked to reach, one after the other.
    hosts: &'static [&'static str],
    /// How the access key id begins that KMS sees.
    signer: &'static str,
}

const KMS: &str = "kms.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const PORTAL: &str = "portal.sso.eu-west-1.amazonaws.com";
const OIDC: &str = "oidc.eu-west-1.amazonaws.com";
const SIGN_IN: &str = "eu-west-1.signin.aws.amazon.com";

const ROLE: &str = "role_arn = arn:aws:iam::123456789012:role/r\n";
const BASE: &str = "[profile b]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n";
const SESSION: &str =
    "[sso-session dev]\nsso_region = eu-west-1\nsso_start_url = https://d.awsapps.com/start\n";
const SSO_ROLE: &str = "sso_account_id = 111122223333\nsso_role_name = r\n";

/// SHA-1 of `dev`, and of the start URL: where the AWS CLI keeps what it is given.
const OF_SESSION: &str = ".aws/sso/cache/34c6fceca75e456f25e7e99531e2425c6c1de443.json";
const OF_START_URL: &str = ".aws/sso/cache/START_URL.json";
/// SHA-256 of the session's ARN.
const OF_LOGIN: &str = ".aws/login/cache/LOGIN.json";
const LOGIN: &str = "[default]\nlogin_session = arn:aws:iam::111122223333:user/admin\n";

fn sso_token(token: &str, expires: &str) -> String {
    format!(
        r#"{{"accessToken": "{token}", "expiresAt": "{expires}", "startUrl": "https://d.awsapps.com/start",
            "region": "eu-west-1", "clientId": "c", "clientSecret": "s", "refreshToken": "r",
            "registrationExpiresAt": "2099-01-01T00:00:00Z"}}"#
    )
}

fn login_token(expires: &str) -> String {
    let key = Command::new("openssl")
        .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout"])
        .output()
        .expect("the tests of TLS need openssl: apt-get install openssl");
    let key = String::from_utf8(key.stdout).unwrap().replace('\n', "\\n");
    format!(
        r#"{{"accessToken": {{"accessKeyId": "AKIDLOGIN", "secretAccessKey": "s", "sessionToken": "t",
            "accountId": "111122223333", "expiresAt": "{expires}"}}, "tokenType": "aws_sigv4", "refreshToken": "r",
            "clientId": "arn:aws:signin:::devtools/same-device", "dpopKey": "{key}"}}"#
    )
}

const PAST: &str = "2019-01-01T00:00:00Z";
const FUTURE: &str = "2099-01-01T00:00:00Z";

/// Every line of the table in the documentation.
fn sources(instance: &Stub, container: &Stub) -> Vec<Source> {
    let source = |name, config: &str, hosts, signer| Source {
        name,
        config: config.to_owned(),
        variables: Vec::new(),
        files: Vec::new(),
        hosts,
        signer,
    };
    let with =
        |source: Source, variables: &[(&'static str, &str)], files: &[(&'static str, String)]| Source {
            variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            files: files.to_vec(),
            ..source
        };
    let process = r#"{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "s"}"#;
    let uri = format!("{}/v1/credentials", container.url());
    let metadata =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &instance.url())];
    let token = ("token", "a.b.c".to_owned());
    vec![
        with(
            source("static", "", &[KMS], "AKIDSTATIC"),
            &[("AWS_ACCESS_KEY_ID", "AKIDSTATIC"), ("AWS_SECRET_ACCESS_KEY", "s")],
            &[],
        ),
        with(source("profile", BASE, &[KMS], "AKIDBASE"), &[("AWS_PROFILE", "b")], &[]),
        with(
            source(
                "SSO session",
                &format!("[default]\nsso_session = dev\n{SSO_ROLE}{SESSION}"),
                &[PORTAL, KMS],
                "AKIDSERVICE",
            ),
            &[],
            &[(OF_SESSION, sso_token("SSO-TOKEN", FUTURE))],
        ),
        with(
            source(
                "SSO session, refreshed",
                &format!("[default]\nsso_session = dev\n{SSO_ROLE}{SESSION}"),
                &[OIDC, PORTAL, KMS],
                "AKIDSERVICE",
            ),
            &[],
            &[(OF_SESSION, sso_token("SSO-OLD", PAST))],
        ),
        with(
            source(
                "SSO without a session",
                &format!(
                    "[default]\n{SSO_ROLE}sso_region = eu-west-1\nsso_start_url = https://d.awsapps.com/start\n"
                ),
                &[PORTAL, KMS],
                "AKIDSERVICE",
            ),
            &[],
            &[(OF_START_URL, sso_token("SSO-TOKEN", FUTURE))],
        ),
        with(source("aws login", LOGIN, &[KMS], "AKIDLOGIN"), &[], &[(OF_LOGIN, login_token(FUTURE))]),
        with(
            source("aws login, refreshed", LOGIN, &[SIGN_IN, KMS], "AKIDSERVICE"),
            &[],
            &[(OF_LOGIN, login_token(PAST))],
        ),
        with(
            source(
                "source_profile",
                &format!("{BASE}[profile r]\n{ROLE}source_profile = b\n"),
                &[STS, KMS],
                "ASIA",
            ),
            &[("AWS_PROFILE", "r")],
            &[],
        ),
        with(
            source(
                "credential_source = EcsContainer",
                &format!("[default]\n{ROLE}credential_source = EcsContainer\n"),
                &[STS, KMS],
                "ASIA",
            ),
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t")],
            &[],
        ),
        with(
            source(
                "credential_source = Ec2InstanceMetadata",
                &format!("[default]\n{ROLE}credential_source = Ec2InstanceMetadata\n"),
                &[STS, KMS],
                "ASIA",
            ),
            &metadata,
            &[],
        ),
        with(
            source("credential_process", "[default]\ncredential_process = cat keys\n", &[KMS], "AKIDPROCESS"),
            &[],
            &[("keys", process.to_owned())],
        ),
        with(
            source(
                "web identity of a profile",
                &format!("[default]\n{ROLE}web_identity_token_file = token\n"),
                &[STS, KMS],
                "ASIA",
            ),
            &[],
            std::slice::from_ref(&token),
        ),
        with(
            source("web identity of the environment", "", &[STS, KMS], "ASIA"),
            &[("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "token")],
            std::slice::from_ref(&token),
        ),
        with(
            source("container", "", &[KMS], "AKIDCONTAINER"),
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "token"),
            ],
            &[("token", "t\n".to_owned())],
        ),
        with(source("instance", "", &[KMS], "AKIDINSTANCE"), &metadata, &[]),
    ]
}

/// Where the CLI keeps the token of a start URL and of a login session.
fn cache_file(name: &str) -> String {
    let hash = |program: &str, text: &str| {
        let script = format!("printf %s '{text}' | {program} | cut -d' ' -f1");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    name.replace("START_URL", &hash("sha1sum", "https://d.awsapps.com/start"))
        .replace("LOGIN", &hash("sha256sum", "arn:aws:iam::111122223333:user/admin"))
}

#[test]
fn k24_a_proxy_sees_the_names_of_the_hosts_and_nothing_else_of_every_source() {
    let (instance, container) = (Stub::instance("AKIDINSTANCE"), Stub::container("AKIDCONTAINER", "t"));
    let key = Moto::start().create_key();
    let tls = Tls::start();
    for source in sources(&instance, &container) {
        let (proxy, seen) = tunnels(tls.address);
        let mut place = place(&proxy);
        place.write("config", &source.config);
        for (name, value) in &source.variables {
            place.set(name, value);
        }
        for (name, content) in &source.files {
            place.write(cache_file(name), content);
        }
        let run = place.run(["sign", &key, "f"]);
        assert!(run.succeeds(), "{}: {}", source.name, run.stderr());
        let expected: Vec<_> =
            source.hosts.iter().map(|host| format!("CONNECT {host}:443 HTTP/1.1")).collect();
        assert_eq!(*seen.lock().unwrap(), expected, "{}", source.name);
        let asked = tls.asked();
        let by = asked.last().unwrap().rsplit(' ').next().unwrap();
        assert!(by.starts_with(source.signer), "{}: {asked:?}", source.name);
    }
}

#[test]
fn an_endpoint_that_is_none_is_named_and_no_token_is_shown() {
    let key = Moto::start().create_key();
    let sso = format!("[default]\nsso_session = dev\n{SSO_ROLE}{SESSION}");
    let role = format!("[default]\n{ROLE}web_identity_token_file = token\n");
    for (config, variable, service) in [
        (sso.as_str(), "AWS_ENDPOINT_URL_SSO", "IAM Identity Center"),
        (role.as_str(), "AWS_ENDPOINT_URL_STS", "STS"),
        (LOGIN, "AWS_ENDPOINT_URL_SIGNIN", "AWS sign-in"),
    ] {
        for url in ["portal.sso.eu-west-1.amazonaws.com", "garbage", "http://a b/"] {
            let mut place = Place::new();
            place.set("HOME", place.path(""));
            place.set("AWS_CONFIG_FILE", "config");
            place.set("AWS_EC2_METADATA_DISABLED", "true");
            place.set(variable, url);
            place.write("config", config);
            place.write("token", "TOP-SECRET-TOKEN");
            for dir in [".aws/sso/cache", ".aws/login/cache"] {
                fs::create_dir_all(place.path(dir)).unwrap();
            }
            place.write(cache_file(OF_SESSION), sso_token("TOP-SECRET-TOKEN", FUTURE));
            let login =
                login_token(PAST).replace(r#""refreshToken": "r""#, r#""refreshToken": "TOP-SECRET-TOKEN""#);
            place.write(cache_file(OF_LOGIN), login);
            place.write("f", "payload\n");
            let told = format!("cannot use the endpoint of {service}, which {variable}");
            let run =
                place.run(["sign", &key, "f"]).exits(3).complains_of("credentials: ").complains_of(&told);
            assert!(!run.stderr().contains("TOP-SECRET-TOKEN"), "{}", run.stderr());
        }
    }
}

#[test]
fn what_each_source_says_when_it_fails() {
    let key = Moto::start().create_key();
    let tls = Tls::start();
    let says = |config: &str, files: &[(&str, String)], words: &str| {
        let (proxy, _) = tunnels(tls.address);
        let place = place(&proxy);
        place.write("config", config);
        for (name, content) in files {
            place.write(cache_file(name), content);
        }
        place.run(["sign", &key, "f"]).exits(3).says("").complains_of("credentials: ").complains_of(words);
    };
    says(LOGIN, &[], &cache_file(OF_LOGIN));
    let sso = format!("[default]\nsso_session = dev\n{SSO_ROLE}{SESSION}");
    says(&sso, &[], "the cached SSO token");
    says(&format!("[default]\n{ROLE}source_profile = gone\n"), &[], "gone");
    says("[default]\ncredential_process = echo no ticket >&2; false\n", &[], "no ticket");
    says("", &[], "no credentials from the instance metadata service: none are configured");
}

#[test]
fn the_certificates_that_are_named_are_believed_and_no_others() {
    let tls = Tls::start();
    let key = Moto::start().create_key();
    let ca = certificates().join("ca.pem");
    let place = |name: &str, value: &str, config: &str| {
        let mut place = Place::new();
        place.set("HOME", place.path(""));
        place.set("AWS_CONFIG_FILE", "config");
        place.set("AWS_ENDPOINT_URL_KMS", format!("https://localhost:{}", tls.address.port()));
        set_keys(&mut place, "AKIDSTATIC");
        place.set(name, value);
        place.write("config", config);
        place.write("f", "payload\n");
        place
    };
    let ca = ca.to_str().unwrap();
    place("AWS_CA_BUNDLE", ca, "").run(["sign", &key, "f"]).exits(0).complains("");
    let of_profile = format!("[profile p]\nca_bundle = {ca}\n");
    place("AWS_PROFILE", "p", &of_profile).run(["sign", &key, "f"]).exits(0).complains("");
    place("AWS_PROFILE", "", "").run(["sign", &key, "f"]).exits(3).complains_of("network");
    // A bundle replaces the host's certificates; the server's own certificate signs for nobody.
    let other = certificates().join("other.pem");
    fs::copy(certificates().join("server.pem"), &other).unwrap();
    place("AWS_CA_BUNDLE", other.to_str().unwrap(), "").run(["sign", &key, "f"]).exits(3);
    assert!(tls.asked().iter().all(|line| line.starts_with("localhost POST / ")), "{REGION}");
}
