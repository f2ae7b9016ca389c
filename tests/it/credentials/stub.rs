//! HTTP services on loopback that hand out credentials and remember what they were asked. Also what
//! a proxy would be that answers such requests itself.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::http::Head;
use crate::support::moto::REGION;

/// A service. Lasts as long as the process.
pub(super) struct Stub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// Answers each request with these bytes.
    pub(super) fn start(answer: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || serve(client, &*answer, &log));
            }
        });
        Self { address, asked }
    }

    /// A proxy that is not to be used.
    pub(super) fn silent() -> Self {
        Self::start(|_| reply(502, "", ""))
    }

    /// The instance metadata service, version 2, of an instance in [`REGION`] with a role.
    pub(super) fn instance(access_key: &str) -> Self {
        let keys = credentials(access_key);
        Self::start(move |head| {
            let line = head.start_line();
            let json = "content-type: application/json\r\n";
            // As a proxy, it is asked with the whole URL.
            if line.starts_with("PUT ") && line.contains("/latest/api/token ") {
                reply(200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", "TOKEN-OF-THE-INSTANCE")
            } else if line.contains("/security-credentials/role ") {
                reply(200, json, &keys)
            } else if line.contains("/security-credentials/ ") {
                reply(200, "", "role")
            } else if line.contains("/placement/region ") {
                reply(200, "", REGION)
            } else {
                reply(404, "", "")
            }
        })
    }

    /// The agent of ECS or EKS, which wants this in `Authorization`; empty: nothing.
    pub(super) fn container(access_key: &str, token: &'static str) -> Self {
        let keys = credentials(access_key);
        Self::start(move |head| {
            if head.header("authorization").unwrap_or_default() == token {
                reply(200, "content-type: application/json\r\n", &keys)
            } else {
                reply(403, "", r#"{"code": "AccessDenied", "message": "who are you"}"#)
            }
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of the requests so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, answer: &dyn Fn(&Head) -> Vec<u8>, log: &Mutex<Vec<String>>) {
    while let Ok(Some(head)) = Head::read(&mut client) {
        log.lock().unwrap().push(head.start_line().to_owned());
        if client.write_all(&answer(&head)).is_err() {
            return;
        }
    }
}

/// A reply with these header fields, each with its line end.
pub(super) fn reply(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn credentials(access_key: &str) -> String {
    format!(
        r#"{{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "{access_key}", "SecretAccessKey": "SECRET",
            "Token": "SESSION", "Expiration": "2099-01-01T00:00:00Z"}}"#
    )
}
