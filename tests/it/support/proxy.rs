//! A proxy in front of a KMS server that misbehaves on request.
//!
//! Speaks as much HTTP/1.1 as the SDK and moto do. Every request that arrives is remembered; what
//! happens to it is the next fault of the queue, else the lasting fault, else the upstream's honest
//! answer. No fault depends on timing, except the two whose point is to be slow.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::http;

/// A key that nobody has, for [`Fault::OtherKey`].
pub(crate) const OTHER_KEY: &str =
    "arn:aws:kms:eu-west-1:999999999999:key/00000000-0000-0000-0000-000000000000";

/// What happens to a request instead of an honest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error reply of the API with this HTTP status and `__type`.
    Error(u16, &'static str),
    /// The request is read and the connection reset.
    Reset,
    /// The request is read and nothing ever comes back.
    Hang,
    /// An answer that announces its length and then comes at one byte a second.
    Dribble,
    /// The upstream's answer, with [`OTHER_KEY`] as the key that was used.
    OtherKey,
    /// The upstream's answer, with another algorithm.
    OtherAlgorithm,
    /// The upstream's answer, with this field set to that.
    Edited(&'static str, &'static str),
    /// Status 200 and JSON that breaks off.
    BrokenJson,
    /// Status 200 and an empty object.
    EmptyJson,
    /// Status 200 and a web page: a captive portal.
    Html,
    /// The upstream's answer, and a mebibyte that nobody asked for.
    Flood,
    /// This status, no body, no code.
    Status(u16),
    /// This status and a web page, as proxies and portals answer.
    Page(u16),
    /// The upstream's answer, with this as its `Date`.
    Dated(&'static str),
    /// The last answer that the upstream gave, at once: the upstream may be slow.
    Again,
}

impl Fault {
    pub(crate) const THROTTLED: Self = Self::Error(400, "ThrottlingException");
    pub(crate) const INTERNAL: Self = Self::Error(500, "KMSInternalException");
    pub(crate) const UNKNOWN: Self = Self::Error(400, "BrandNewException");
    pub(crate) const ACCESS_DENIED: Self = Self::Error(400, "AccessDeniedException");
    pub(crate) const EXPIRED_TOKEN: Self = Self::Error(400, "ExpiredTokenException");
    pub(crate) const DISABLED: Self = Self::Error(400, "DisabledException");
    pub(crate) const INCORRECT_KEY: Self = Self::Error(400, "IncorrectKeyException");
    pub(crate) const INVALID_CIPHERTEXT: Self = Self::Error(400, "InvalidCiphertextException");
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// `Encrypt`, `Decrypt`, …
    pub(crate) operation: String,
    /// The access key id it was signed with.
    pub(crate) access_key_id: String,
    /// The Region it was signed for.
    pub(crate) region: String,
    /// The `KeyId` of the body.
    pub(crate) key_id: Option<String>,
    /// The whole body.
    pub(crate) body: Value,
}

/// The proxy. Ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    next: VecDeque<Fault>,
    always: Option<Fault>,
    /// Operation, key, and what happens to that.
    of_key: Vec<(&'static str, String, Fault)>,
    /// Access key id, and what happens to requests that were signed with it.
    of_caller: Vec<(String, Fault)>,
    requests: Vec<Request>,
    last: Option<http::Reply>,
    ended: bool,
}

impl Proxy {
    /// Starts on a free port of loopback, honest at first.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&script));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if locked(&shared).ended {
                    break;
                }
                let (upstream, script) = (upstream.clone(), Arc::clone(&shared));
                // A client that goes away in the middle is part of the game.
                thread::spawn(move || serve(client, &upstream, &script).ok());
            }
        });
        Self { address, script }
    }

    /// Where it listens, for `AWS_ENDPOINT_URL`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault for one request that is still to come. Queued faults go before the lasting one.
    pub(crate) fn next(&self, fault: Fault) {
        locked(&self.script).next.push_back(fault);
    }

    /// What happens to every request from now on, until told otherwise. `None`: honest answers.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        locked(&self.script).always = fault;
    }

    /// What happens to every request of this operation under this key from now on.
    pub(crate) fn always_of(&self, operation: &'static str, key: &str, fault: Fault) {
        locked(&self.script).of_key.push((operation, key.to_owned(), fault));
    }

    /// What happens to every request that was signed with this access key from now on, until it is
    /// forgotten.
    pub(crate) fn always_to(&self, access_key_id: &str, fault: Fault) {
        locked(&self.script).of_caller.push((access_key_id.to_owned(), fault));
    }

    /// Nothing happens any more to who signs with whatever access key.
    pub(crate) fn forget_callers(&self) {
        locked(&self.script).of_caller.clear();
    }

    /// The requests so far, in the order of their arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        locked(&self.script).requests.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        locked(&self.script).ended = true;
        // Wakes the listening thread, which then sees that it is over.
        TcpStream::connect(self.address).ok();
    }
}

fn locked(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection until the client or a fault ends it.
fn serve(mut client: TcpStream, upstream: &str, script: &Mutex<Script>) -> io::Result<()> {
    client.set_nodelay(true)?;
    while let Some(head) = http::Head::read(&mut client)? {
        // The last byte is looked at and left in the socket: closing a socket with unread data
        // resets the connection, and that without any race.
        let mut body = vec![0; head.content_length()];
        if let Some((last, most)) = body.split_last_mut() {
            client.read_exact(most)?;
            client.peek(std::slice::from_mut(last))?;
        }
        let fault = {
            let mut script = locked(script);
            let request = Request::new(&head, &body);
            let of_key = script.of_key.iter().find(|(operation, key, _)| {
                request.operation == *operation && request.key_id.as_ref() == Some(key)
            });
            let of_key = of_key.map(|(.., fault)| *fault);
            let of_caller = script.of_caller.iter().find(|(id, _)| *id == request.access_key_id);
            let of_key = of_key.or(of_caller.map(|(_, fault)| *fault));
            script.requests.push(request);
            script.next.pop_front().or(of_key).or(script.always)
        };
        if fault == Some(Fault::Reset) {
            return Ok(());
        }
        if !body.is_empty() {
            client.read_exact(&mut [0])?;
        }
        match fault {
            None => {
                let reply = forward(upstream, &head, &body)?;
                locked(script).last = Some(reply.clone());
                client.write_all(&reply.to_bytes())?;
            }
            Some(Fault::Again) => {
                let last = locked(script).last.clone();
                client.write_all(&last.expect("the upstream has answered before").to_bytes())?;
            }
            Some(fault) => misbehave(fault, &mut client, || forward(upstream, &head, &body))?,
        }
    }
    Ok(())
}

fn forward(upstream: &str, head: &http::Head, body: &[u8]) -> io::Result<http::Reply> {
    let kept = ["content-type", "x-amz-target", "authorization", "x-amz-date"];
    let headers: Vec<_> = kept.iter().filter_map(|&name| Some((name, head.header(name)?))).collect();
    http::post(upstream, &headers, body)
}

fn misbehave(
    fault: Fault,
    client: &mut TcpStream,
    honest: impl FnOnce() -> io::Result<http::Reply>,
) -> io::Result<()> {
    let reply = match fault {
        Fault::Error(status, code) => {
            http::Reply::json(status, &json!({ "__type": code, "message": "said the proxy" }))
        }
        Fault::Edited(field, value) => edited(honest()?, field, value),
        Fault::OtherKey => edited(honest()?, "KeyId", OTHER_KEY),
        Fault::OtherAlgorithm => edited(honest()?, "EncryptionAlgorithm", "RSAES_OAEP_SHA_256"),
        Fault::BrokenJson => {
            http::Reply::new(200, "application/x-amz-json-1.1", b"{\"KeyId\": \"arn:aw".to_vec())
        }
        Fault::EmptyJson => http::Reply::json(200, &json!({})),
        Fault::Html => {
            http::Reply::new(200, "text/html", b"<html>Welcome! Accept the terms.</html>".to_vec())
        }
        Fault::Flood => edited(honest()?, "Padding", &"a".repeat(1 << 20)),
        Fault::Status(status) => http::Reply::new(status, "text/plain", Vec::new()),
        Fault::Page(status) => {
            http::Reply::new(status, "text/html; charset=utf-8", b"<html>No.</html>".to_vec())
        }
        Fault::Dated(date) => {
            let mut reply = honest()?;
            reply.date = Some(date);
            reply
        }
        Fault::Hang => {
            // Until the client has had enough.
            io::copy(client, &mut io::sink())?;
            return Ok(());
        }
        Fault::Dribble => {
            let reply = honest()?;
            client.write_all(reply.head().as_bytes())?;
            for byte in &reply.body {
                client.write_all(std::slice::from_ref(byte))?;
                thread::sleep(Duration::from_secs(1));
            }
            return Ok(());
        }
        Fault::Reset | Fault::Again => unreachable!("BUG: these are seen to before"),
    };
    client.write_all(&reply.to_bytes())
}

/// The reply with one member of its JSON object set.
fn edited(reply: http::Reply, member: &str, value: &str) -> http::Reply {
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    body[member] = value.into();
    http::Reply::json(reply.status(), &body)
}

impl Request {
    fn new(head: &http::Head, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let target = head.header("x-amz-target").unwrap_or_default();
        // `Credential=ID/DATE/REGION/kms/aws4_request` (AWS Signature Version 4)
        let scope = head.header("authorization").unwrap_or_default();
        Self {
            operation: target.trim_start_matches("TrentService.").to_owned(),
            access_key_id: scope
                .split_once("Credential=")
                .and_then(|(_, scope)| scope.split('/').next())
                .unwrap_or_default()
                .to_owned(),
            region: scope.split('/').nth(2).unwrap_or_default().to_owned(),
            key_id: body["KeyId"].as_str().map(str::to_owned),
            body,
        }
    }
}
