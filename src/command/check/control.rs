//! Whether the daemon could be asked how it stands: its control socket, and metrics over TCP.
//!
//! Neither keeps it from working.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::chain;
use crate::control::{self, Obstacle};
use crate::diagnose::inspect::{Depth, Finding};
use crate::escape::quoted;
use crate::fs::trust::TrustError;
use crate::policy::Policy;

/// What findings about the socket are about.
const SOCKET: &str = "control";

/// What findings about metrics over TCP are about.
const METRICS: &str = "metrics";

/// Looks at the socket; with [`Depth::Whole`] also at the address for metrics.
pub(super) fn inspect(policy: &Policy, depth: Depth) -> Vec<Finding> {
    let socket = control::socket_of_daemon(policy);
    let mut findings = vec![of_socket(policy, &socket, depth)];
    if depth == Depth::Whole {
        let is_running = || control::sockets(policy).iter().any(|path| is_answered(path));
        findings.extend(policy.control.metrics.map(|address| of_metrics(address, is_running)));
    }
    findings
}

fn of_socket(policy: &Policy, socket: &Path, depth: Depth) -> Finding {
    let looked = match depth {
        Depth::Start => control::look(socket),
        Depth::Whole => control::try_out(socket),
    };
    match looked {
        Ok(()) => Finding::fine(SOCKET, format!("{} can be made, or is there", quoted(socket))),
        // The daemon makes that directory.
        Err(Obstacle::NoDirectory) if socket.parent() == Some(&*policy.state_dir) => {
            Finding::fine(SOCKET, format!("{} will be made", quoted(socket)))
        }
        Err(Obstacle::NoDirectory) => {
            let says = format!("the directory of the control socket {} is not there", quoted(socket));
            let to_do = "make it, and give it to the daemon's user, unless its unit does (RuntimeDirectory=)";
            // A policy may be looked at before there is anything on this host.
            match depth {
                Depth::Start => Finding::note(SOCKET, says, to_do),
                Depth::Whole => Finding::fix(SOCKET, says, to_do),
            }
        }
        Err(Obstacle::Untrusted(TrustError::Io(error))) => {
            Finding::unknown(SOCKET, chain::one_line(&error), "run this as the daemon's user")
        }
        // In the words of the policy's other places: one directory is often at fault for several.
        Err(Obstacle::Untrusted(error)) => {
            Finding::fix(SOCKET, format!("not trusted: {}", chain::one_line(&error)), "")
        }
        Err(Obstacle::Bind(error)) => Finding::fix(SOCKET, chain::one_line(&error), ""),
    }
}

fn of_metrics(address: SocketAddr, is_running: impl Fn() -> bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::fine(METRICS, format!("metrics can be served at {address}")),
        Err(_) if is_running() => {
            Finding::fine(METRICS, format!("metrics: {address} is in use, and the daemon is running"))
        }
        Err(error) => Finding::fix(
            METRICS,
            format!("metrics cannot be served at {address}: {error}"),
            "find out who listens there (ss -ltnp), or name another address with [control] metrics",
        ),
    }
}

fn is_answered(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}
