//! A real server of the KMS protocol for the tests: moto, and boto3 as the client that is not ours.
//!
//! Both live in the virtual environment of `python`. One server per test process: it ends when the
//! process does, however that happens, because it reads its standard input until the end.
//!
//! What moto does not do as KMS does: it answers AccessDenied where KMS answers IncorrectKey, and
//! goes on encrypting under disabled keys. The tests inject those answers with `proxy`; `findings`
//! has a script for each.

use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::http;
use super::python::{serve, virtual_environment};

/// The Region of keys made without naming one.
pub(crate) const REGION: &str = "eu-west-1";

/// Serves on a free port, says which, and ends with its standard input.
const SERVER: &str = "
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.buffer.read()
os._exit(0)
";

/// The server.
pub(crate) struct Moto {
    url: String,
    python: PathBuf,
    /// Held open for as long as this process lives.
    _stdin: ChildStdin,
}

impl Moto {
    /// The server of this test process, started if it does not run yet. What failed once is not
    /// tried again: every test would wait for an index that cannot be reached.
    #[track_caller]
    pub(crate) fn start() -> &'static Self {
        static MOTO: OnceLock<Result<Moto, String>> = OnceLock::new();
        let started = MOTO.get_or_init(|| {
            let python = virtual_environment()?;
            let (url, stdin) = serve(&python, "moto", SERVER)?;
            Ok(Self { url, python, _stdin: stdin })
        });
        match started {
            Ok(moto) => moto,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Where it listens, for `AWS_ENDPOINT_URL`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes a symmetric key in [`REGION`] and gives its ARN.
    pub(crate) fn create_key(&self) -> String {
        self.create_key_in(REGION)
    }

    /// Makes a symmetric key in a Region and gives its ARN.
    pub(crate) fn create_key_in(&self, region: &str) -> String {
        let made = self.call(region, "CreateKey", &json!({}));
        made["KeyMetadata"]["Arn"].as_str().expect("CreateKey answers with an ARN").to_owned()
    }

    /// Makes `alias/NAME` for a key of [`REGION`] and gives it back.
    pub(crate) fn create_alias(&self, name: &str, key: &str) -> String {
        let alias = format!("alias/{name}");
        self.call(REGION, "CreateAlias", &json!({ "AliasName": alias, "TargetKeyId": key }));
        alias
    }

    /// Runs a Python program with boto3 at hand. `kms` is a client of this server in [`REGION`];
    /// `sys.argv[1:]` are the arguments. Gives what it prints, without the last newline.
    pub(crate) fn boto3(&self, program: &str, arguments: &[&str]) -> String {
        let program = format!("import boto3, sys\nkms = boto3.client('kms')\n{program}");
        let output = Command::new(&self.python)
            .args(["-c", &program])
            .args(arguments)
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .output()
            .expect("Python runs");
        assert!(output.status.success(), "boto3: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("Python prints UTF-8");
        text.trim_end_matches('\n').to_owned()
    }

    fn call(&self, region: &str, operation: &str, body: &Value) -> Value {
        call(&self.url, region, operation, body)
    }
}

/// One call of the KMS API. The servers read the Region from the signature and check nothing else
/// of it.
pub(super) fn call(url: &str, region: &str, operation: &str, body: &Value) -> Value {
    let scope = format!("AWS4-HMAC-SHA256 Credential=test/20260101/{region}/kms/aws4_request");
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &format!("TrentService.{operation}")),
        ("authorization", &format!("{scope}, SignedHeaders=host, Signature=0")),
    ];
    let reply = http::post(url, &headers, body.to_string().as_bytes()).expect("the server answers");
    assert_eq!(reply.status(), 200, "{operation}: {}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}
