//! Asking a daemon at its control socket.
//!
//! Who is asked is the process that made the socket, in a directory where nobody but root and the
//! daemon's user can make one. What it answers is taken for what it is: text is escaped by the
//! daemon, and nothing of it is acted on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::listen::{BindError, Obstacle, look, short, split};
use super::report::Outcome;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;

/// How long a daemon may take for an answer; it gives itself less.
const PATIENCE: Duration = Duration::from_secs(100);
/// The largest answer that is taken whole: twenty thousand files of each of some rules.
const MAX_ANSWER: usize = 256 << 20;

/// Why a daemon was not asked, or did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody is there.
    #[error("no daemon answers at {}", shown(.0))]
    NoDaemon(Vec<(PathBuf, Option<String>)>),
    /// The socket is not for this user.
    #[error("user {} may not ask the daemon at {}", rustix::process::geteuid().as_raw(), quoted(.0))]
    Denied(PathBuf),
    /// The connection broke, or what answers is no kms-sig.
    #[error("the daemon at {} did not answer: {what}", quoted(path))]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        what: String,
    },
    /// The order is not for this user.
    #[error("{0}")]
    Forbidden(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// What was asked for is not to be had any more.
    #[error("{0}")]
    Gone(String),
    /// It cannot, now.
    #[error("{0}")]
    NotNow(String),
    /// This user has all the places that one may have.
    #[error("{0}")]
    NoPlace(String),
}

/// Each place, with what keeps a daemon from having its socket there, if anything.
fn shown(places: &[(PathBuf, Option<String>)]) -> String {
    let shown = places.iter().map(|(path, obstacle)| match obstacle {
        Some(obstacle) => format!("{} (where it can have no socket: {obstacle})", quoted(path)),
        None => quoted(path),
    });
    shown.collect::<Vec<_>>().join(" or ")
}

/// What keeps a daemon from having its socket there, as far as this user can see. That others could
/// put one there, or that this user could not, says nothing about the daemon's.
fn obstacle(path: &Path, is_only_one: bool) -> Option<String> {
    match look(path) {
        // Of several places, it has made the directory of one.
        Err(Obstacle::NoDirectory) if is_only_one => Some("its directory is not there".to_owned()),
        Err(Obstacle::Bind(error @ (BindError::Foreign(_) | BindError::TooLong(_)))) => {
            Some(error.to_string())
        }
        Ok(()) | Err(Obstacle::NoDirectory | Obstacle::Untrusted(_) | Obstacle::Bind(_)) => None,
    }
}

impl ControlError {
    /// The exit code it ends the process with.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Usage,
            Self::NoDaemon(_)
            | Self::Denied(_)
            | Self::Broken { .. }
            | Self::Forbidden(_)
            | Self::Gone(_)
            | Self::NotNow(_)
            | Self::NoPlace(_) => Exit::Unfinished,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoDaemon(places) if places.iter().any(|(_, obstacle)| obstacle.is_some()) => Some(
                "do what it says, or name another path with [control] socket; the daemon tries again every minute",
            ),
            Self::NoDaemon(_) => Some(
                "see whether it runs (systemctl status kms-sig); --policy or --socket say which daemon is meant",
            ),
            Self::Denied(_) => Some("run it as root or as the daemon's user, or join the daemon's group"),
            Self::Broken { .. } => Some("try again; if it lasts, see the daemon's log"),
            Self::Forbidden(_) => Some("run it with sudo, or as the daemon's user"),
            Self::Refused(_) | Self::Gone(_) | Self::NotNow(_) | Self::NoPlace(_) => None,
        }
    }
}

/// A daemon that answers.
#[derive(Debug)]
pub(crate) struct Daemon {
    path: PathBuf,
    stream: UnixStream,
}

impl Daemon {
    /// Connects to the first socket at which somebody answers.
    ///
    /// # Errors
    /// `NoDaemon`, `Denied`.
    pub(crate) async fn at(sockets: &[PathBuf]) -> Result<Self, ControlError> {
        let mut denied = None;
        for path in sockets {
            match connect(path).await {
                Ok(stream) => return Ok(Self { path: path.clone(), stream }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied.get_or_insert_with(|| path.clone());
                }
                Err(_) => {} // not there, or left by a killed one
            }
        }
        let is_only_one = sockets.len() == 1;
        let silent = || sockets.iter().map(|path| (path.clone(), obstacle(path, is_only_one))).collect();
        Err(denied.map_or_else(|| ControlError::NoDaemon(silent()), ControlError::Denied))
    }

    /// Asks for something in JSON.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn get<T: DeserializeOwned>(self, target: &str) -> Result<T, ControlError> {
        let path = self.path.clone();
        let broken = |what: String| ControlError::Broken { path: path.clone(), what };
        let body = self.text(Method::GET, target).await?;
        serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))
    }

    /// Orders something.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn order(self, target: &str) -> Result<Outcome, ControlError> {
        let path = self.path.clone();
        let body = self.text(Method::POST, target).await?;
        serde_json::from_slice(&body).map_err(|error| ControlError::Broken { path, what: error.to_string() })
    }

    async fn text(self, method: Method, target: &str) -> Result<Bytes, ControlError> {
        let path = self.path.clone();
        let broken = |what: &dyn std::fmt::Display| ControlError::Broken {
            path: path.clone(),
            what: what.to_string(),
        };
        let asked = async {
            let answer = self.ask(method, target).await?;
            let body =
                Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&e))?;
            Ok(body.to_bytes())
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(asked) => asked,
            Err(_) => Err(broken(&"it took too long")),
        }
    }

    /// Asks for something, and hands out the answer as it comes.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn ask(self, method: Method, target: &str) -> Result<Response<Incoming>, ControlError> {
        let Self { path, stream } = self;
        let broken =
            |error: &hyper::Error| ControlError::Broken { path: path.clone(), what: error.to_string() };
        let (mut sender, connection): (SendRequest<Empty<Bytes>>, _) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        // It ends when the answer has been read or is dropped; what breaks it shows in the answer.
        tokio::spawn(async move { connection.await.ok() });
        let request = Request::builder().method(method).uri(target).header(header::HOST, "kms-sig");
        let request = request
            .body(Empty::new())
            .map_err(|error| ControlError::Broken { path: path.clone(), what: error.to_string() })?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        if status.is_success() && status != StatusCode::ACCEPTED {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), 1 << 20).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said = serde_json::from_slice::<Outcome>(&body).map(|outcome| outcome.message);
        // The daemon escapes what is not its own; a line stays a line.
        let said = said.map_or_else(|_| status.to_string(), |text| by_line(&text));
        Err(match status {
            StatusCode::FORBIDDEN => ControlError::Forbidden(said),
            StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE => ControlError::NotNow(said),
            StatusCode::GONE => ControlError::Gone(said),
            StatusCode::TOO_MANY_REQUESTS => ControlError::NoPlace(said),
            _ => ControlError::Refused(said),
        })
    }
}

fn by_line(text: &str) -> String {
    text.lines().map(escaped_once).collect::<Vec<_>>().join("\n")
}

/// Text that is escaped already, but for what no such text has.
fn escaped_once(line: &str) -> String {
    match line.contains(char::is_control) {
        true => Escaped::text(line).to_string(),
        false => line.to_owned(),
    }
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (dir, name) = split(path)?;
    UnixStream::connect(short(&dir, &name)).await
}
