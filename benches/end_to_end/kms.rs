//! A KMS that takes its time: the protocol, an answer after a fixed delay, and no cryptography to
//! speak of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};

/// The key of every answer.
pub(crate) const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// The server, for as long as it is there.
pub(crate) struct SlowKms {
    pub(crate) url: String,
    calls: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl SlowKms {
    /// Answers each call after `delay`.
    pub(crate) fn start(delay: Duration) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let app = axum::Router::new().route("/", post(answer)).with_state((delay, Arc::clone(&calls)));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, calls, _runtime: runtime }
    }

    /// Calls since the last time this was asked.
    pub(crate) fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }
}

/// The ciphertext is the plaintext (as the protocol has it, in base64) with something before it: it
/// is long enough to look like one, and needs no state to be opened.
async fn answer(
    State((delay, calls)): State<(Duration, Arc<AtomicUsize>)>,
    headers: HeaderMap,
    body: String,
) -> Json<Value> {
    calls.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(delay).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let common = json!({ "KeyId": KEY, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" });
    let mut reply = common;
    if headers["x-amz-target"] == "TrentService.Encrypt" {
        // Three bytes are four letters of base64: the rest stays what it is.
        reply["CiphertextBlob"] = format!("{}{}", PREFIX, body["Plaintext"].as_str().unwrap()).into();
    } else {
        let blob = body["CiphertextBlob"].as_str().unwrap();
        reply["Plaintext"] = blob.strip_prefix(PREFIX).unwrap().into();
    }
    Json(reply)
}

/// 96 bytes of ciphertext.
const PREFIX: &str = concat!(
    "AQICAHgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);
