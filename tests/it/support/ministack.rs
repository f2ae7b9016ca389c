//! A real server of the KMS protocol for keys that sign: ministack, which makes RSA, ECDSA and
//! Ed25519 signatures as KMS does. moto has no Ed25519, and hashes a digest once more.
//!
//! What ministack does not do as KMS does: it takes messages of any length, and signs in a dry run.

use std::process::ChildStdin;
use std::sync::OnceLock;

use serde_json::json;

use super::moto::{REGION, call};
use super::python::{serve, with_ministack};

/// Serves on a free port, says which when it answers, and ends with its standard input. What it
/// prints itself goes to the log.
const SERVER: &str = "
import os, socket, sys, threading, time
with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
os.environ.update(BIND_HOST='127.0.0.1', GATEWAY_PORT=str(port), IOT_MTLS_ENABLED='0')
out = os.dup(1)
os.dup2(2, 1)
def tell():
    while True:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    os.write(out, f'{port}\\n'.encode())
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=tell, daemon=True).start()
sys.argv = ['ministack']
from ministack.app import main
main()
";

/// The server.
pub(crate) struct Ministack {
    url: String,
    /// Held open for as long as this process lives.
    _stdin: ChildStdin,
}

impl Ministack {
    /// The server of this test process, started if it does not run yet. What failed once is not
    /// tried again.
    #[track_caller]
    pub(crate) fn start() -> &'static Self {
        static MINISTACK: OnceLock<Result<Ministack, String>> = OnceLock::new();
        let started = MINISTACK.get_or_init(|| {
            let (url, stdin) = serve(&with_ministack()?, "ministack", SERVER)?;
            Ok(Self { url, _stdin: stdin })
        });
        match started {
            Ok(ministack) => ministack,
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Where it listens, for `AWS_ENDPOINT_URL`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes a key; see [`create_key`].
    pub(crate) fn create_key(&self, spec: &str, usage: &str) -> String {
        create_key(&self.url, spec, usage)
    }
}

/// Makes a key of this spec and usage (`KeySpec`, `KeyUsage` of the API) at the server of another
/// process, and gives its ARN.
pub(crate) fn create_key(url: &str, spec: &str, usage: &str) -> String {
    let made = call(url, REGION, "CreateKey", &json!({ "KeySpec": spec, "KeyUsage": usage }));
    made["KeyMetadata"]["Arn"].as_str().expect("CreateKey answers with an ARN").to_owned()
}
