//! The control socket: what a running daemon answers to who may ask, and metrics.
//!
//! HTTP/1.1 over a Unix socket of mode 0660. It reads the status, asks the workers what waits and
//! reads the record; it holds no file, decides nothing, and cannot be made to read one. Two orders
//! change what the daemon does next, `rescan` and `reload`, and only the daemon's own user and root
//! may give them. A socket that cannot be opened is logged and retried, and stops nothing else.

mod app;
pub(crate) mod client;
pub(crate) mod events;
mod listen;
mod metrics;
mod order;
mod peer;
mod places;
pub(crate) mod report;
mod routes;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::chain;
use crate::daemon::status::Status;
use crate::escape::quoted;
use crate::message::log;
use crate::policy::Policy;
use listen::{Loopback, Socket};
pub(crate) use listen::{Obstacle, look, try_out};
pub(crate) use order::Order;
use peer::Peer;

/// The socket's name in its directory.
const NAME: &str = "control.sock";

/// Where the package's unit has it.
pub(crate) const SYSTEM_SOCKET: &str = "/run/kms-sig/control.sock";

/// Time between attempts to open a socket.
const RETRY: Duration = Duration::from_secs(60);

/// Where a daemon of this policy makes its socket: where the policy says, else in the directory
/// that the service manager made for it (systemd.exec(5), `RuntimeDirectory=`), else beside its
/// state.
pub(crate) fn socket_of_daemon(policy: &Policy) -> PathBuf {
    let runtime = std::env::var_os("RUNTIME_DIRECTORY");
    // Several are separated by colons; the first is the one of that name.
    let runtime = runtime.as_deref().and_then(|dirs| std::env::split_paths(dirs).next());
    let usual =
        || runtime.filter(|dir| dir.is_absolute()).unwrap_or_else(|| policy.state_dir.clone()).join(NAME);
    policy.control.socket.clone().unwrap_or_else(usual)
}

/// Where to look for the socket of a daemon of this policy, the likeliest first. What systemd makes
/// below `/run` has the name of the state directory, in the units that come with this program.
pub(crate) fn sockets(policy: &Policy) -> Vec<PathBuf> {
    if let Some(socket) = &policy.control.socket {
        return vec![socket.clone()];
    }
    let of_unit = policy.state_dir.file_name().map(|name| Path::new("/run").join(name).join(NAME));
    of_unit.into_iter().chain([policy.state_dir.join(NAME)]).collect()
}

/// Answers until it is dropped. `socket` is where; orders go to `orders`.
pub(crate) async fn serve(status: Arc<Status>, socket: PathBuf, orders: mpsc::Sender<Order>) -> Infallible {
    let routes = Arc::new(app::Routes::new(Arc::clone(&status), orders));
    tokio::join!(serve_socket(&status, &socket, &routes), serve_metrics(&status, &routes)).0
}

async fn serve_socket(status: &Status, path: &Path, routes: &Arc<app::Routes>) -> Infallible {
    // Once there is a policy in force, state is open and its directory there.
    status.plan().wait_for(Option::is_some).await.map(drop).unwrap_or_default();
    let mut told = String::new();
    loop {
        let bound = Socket::bind(path);
        status.control_was_tried();
        let error = match bound {
            Ok(socket) => {
                let _place = socket.place();
                let app = routes::all(Arc::clone(routes)).into_make_service_with_connect_info::<Peer>();
                axum::serve(socket, app).await.err().map(|error| chain::one_line(&error))
            }
            Err(error) => Some(chain::one_line(&error)),
        };
        let reason = error.unwrap_or_default();
        // Once, not every minute: it is tried again until somebody has done something about it.
        if told != reason {
            log!(ControlSocketUnavailable, socket = %quoted(path), reason);
            told = reason;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Serves metrics where the policy in force says, if it does.
async fn serve_metrics(status: &Status, routes: &Arc<app::Routes>) -> Infallible {
    let mut plan = status.plan();
    loop {
        let address = plan.borrow_and_update().as_ref().and_then(|plan| plan.policy.control.metrics);
        let serving = async {
            match address {
                Some(address) => serve_metrics_at(address, routes).await,
                None => std::future::pending().await,
            }
        };
        let moved = async {
            let elsewhere =
                plan.wait_for(|plan| plan.as_ref().and_then(|plan| plan.policy.control.metrics) != address);
            elsewhere.await.map(drop)
        };
        tokio::select! {
            never = serving => match never {},
            moved = moved => if moved.is_err() { std::future::pending().await },
        }
    }
}

async fn serve_metrics_at(address: SocketAddr, routes: &Arc<app::Routes>) -> Infallible {
    loop {
        let error = match Loopback::bind(address).await {
            Ok(listener) => axum::serve(listener, routes::metrics_only(Arc::clone(routes))).await.err(),
            Err(error) => Some(error),
        };
        let reason = error.map(|error| chain::one_line(&error)).unwrap_or_default();
        log!(MetricsUnavailable, %address, reason);
        tokio::time::sleep(RETRY).await;
    }
}
