//! A KMS that has a quota: the protocol, a bucket of tokens, and no cryptography to speak of.
//!
//! Quicker than moto, so that what is measured is who gets the tokens. Each request that arrives is
//! remembered, with what became of it.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::http;

/// The key of every answer.
pub(crate) const QUOTA_KEY: &str =
    "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// A ciphertext is this and the plaintext, in base64. Three bytes are four letters, so the rest
/// stays what it is.
const PREFIX: &str = concat!(
    "AQICAHgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);

/// A request, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The encryption context's `file`.
    pub(crate) file: String,
    /// Whether there was a token for it. Otherwise it was throttled.
    pub(crate) is_admitted: bool,
}

/// The server. Ends when dropped.
pub(crate) struct QuotaKms {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    per_second: f64,
    tokens: f64,
    at: Instant,
    asked: Vec<Asked>,
    has_ended: bool,
}

impl State {
    /// A tenth of a second's worth of tokens is saved up.
    fn admits(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min((self.per_second / 10.0).max(1.0));
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}

impl QuotaKms {
    /// Admits so many calls a second, of whomever.
    pub(crate) fn start(per_second: f64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state =
            State { per_second, tokens: 0.0, at: Instant::now(), asked: Vec::new(), has_ended: false };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if locked(&shared).has_ended {
                    break;
                }
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&client, &state).ok()); // a client may go at any time
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, in the order of their arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        locked(&self.state).asked.clone()
    }

    /// Asks for a call as another client; whether there was a token for it.
    pub(crate) fn call_as_other(&self, file: &str) -> bool {
        let body = json!({ "Plaintext": "AAAA", "EncryptionContext": { "file": file } }).to_string();
        let headers = [("x-amz-target", "TrentService.Encrypt")];
        http::post(&self.url(), &headers, body.as_bytes()).expect("the stub answers").status() == 200
    }
}

impl Drop for QuotaKms {
    fn drop(&mut self) {
        locked(&self.state).has_ended = true;
        TcpStream::connect(self.address).ok(); // wakes the thread that listens
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut requests, mut replies) = (BufReader::new(client), client);
    while let Some(head) = http::Head::read(&mut requests)? {
        let mut body = vec![0; head.content_length()];
        requests.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body)?;
        let is_admitted = {
            let mut state = locked(state);
            let is_admitted = state.admits();
            let file = body["EncryptionContext"]["file"].as_str().unwrap_or_default().to_owned();
            state.asked.push(Asked { file, is_admitted });
            is_admitted
        };
        let reply = match is_admitted {
            true => http::Reply::json(200, &answer(head.header("x-amz-target"), &body)),
            false => http::Reply::json(
                400,
                &json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }),
            ),
        };
        replies.write_all(&reply.to_bytes())?;
    }
    Ok(())
}

fn answer(target: Option<&str>, body: &Value) -> Value {
    let mut reply = json!({ "KeyId": QUOTA_KEY, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" });
    match target {
        Some("TrentService.Encrypt") => {
            reply["CiphertextBlob"] = format!("{PREFIX}{}", body["Plaintext"].as_str().unwrap()).into();
        }
        _ => {
            let ciphertext = body["CiphertextBlob"].as_str().unwrap();
            reply["Plaintext"] = ciphertext.strip_prefix(PREFIX).unwrap().into();
        }
    }
    reply
}
