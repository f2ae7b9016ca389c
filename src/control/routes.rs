//! What may be asked, and who may ask.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`StatusReport`] |
//! | `GET /backlog?rule=&cause=&held=&path_hex=&most=` | [`Backlog`] |
//! | `GET /events?after=&follow=` | lines of JSON, one for each row of the record |
//! | `GET /metrics` | OpenMetrics text |
//! | `POST /rescan?rule=`, `POST /reload` | [`Outcome`]; for the daemon's own user and root |

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::app::{Routes, refusal};
use super::peer::Peer;
use super::report::{Backlog, Outcome, Silence, StatusReport};
use super::{Order, events, metrics};
use crate::daemon::ask::{self, Ask, Which};
use crate::daemon::status::{Phase, Plan};
use crate::message::log;
use crate::policy::Policy;

/// How long a worker may take to answer a request: longer than a scan takes from one batch to the
/// next.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may take to be taken or refused: files in hand are finished first, for a
/// minute at most.
const RELOAD_PATIENCE: Duration = Duration::from_secs(90);

/// Files listed of a rule unless fewer are asked for; no rule has more in memory.
const MOST: usize = 20_000;

/// Everything, for the control socket.
pub(super) fn all(routes: Arc<Routes>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/backlog", get(backlog))
        .route("/events", get(events::events))
        .route("/metrics", get(metrics))
        .route("/rescan", post(rescan))
        .route("/reload", post(reload))
        .with_state(routes)
}

/// Metrics, for loopback, where anybody of this host may ask.
pub(super) fn metrics_only(routes: Arc<Routes>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(routes)
}

async fn status(State(routes): State<Arc<Routes>>) -> Json<StatusReport> {
    let status = StatusReport::of(&routes.status);
    routes.status.watchdog.ask(); // loops that do not answer are shown at the next request
    Json(status)
}

async fn metrics(State(routes): State<Arc<Routes>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    routes.ask_loops();
    match metrics::text(&routes.status, accept.unwrap_or_default()) {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `GET /backlog`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BacklogQuery {
    rule: Option<String>,
    cause: Option<String>,
    #[serde(default)]
    held: bool,
    path_hex: Option<String>,
    most: Option<usize>,
}

async fn backlog(State(routes): State<Arc<Routes>>, Query(query): Query<BacklogQuery>) -> Response {
    let Ok(path) = query.path_hex.as_deref().map(hex::decode).transpose() else {
        return refusal(StatusCode::BAD_REQUEST, "path_hex is not hexadecimal");
    };
    let which = Which { cause: query.cause, held_only: query.held, path };
    let most = query.most.unwrap_or(MOST);
    let Some(rule_statuses) = routes.rule_statuses(query.rule.as_deref()) else {
        return refusal(StatusCode::NOT_FOUND, "the policy in force has no such rule");
    };
    // All at once: one that does not answer delays the others' answer once, and not each in turn.
    let asked: Vec<_> = rule_statuses
        .into_iter()
        .map(|(rule, rule_status)| {
            let (answer, wait) = oneshot::channel();
            (rule, rule_status.ask(Ask::Backlog { which: which.clone(), most, answer }).map(|()| wait))
        })
        .collect();
    let deadline = routes.status.clock.instant(routes.status.clock.now() + PATIENCE);
    let mut answers = Vec::new();
    for (rule, asked) in asked {
        let answer = match asked {
            Ok(wait) => answered(wait, deadline).await,
            Err(unanswered) => Err(unanswered.into()),
        };
        answers.push((rule, answer));
    }
    Json(Backlog::of(&routes.status, answers)).into_response()
}

async fn answered<T>(wait: oneshot::Receiver<T>, deadline: tokio::time::Instant) -> Result<T, Silence> {
    match tokio::time::timeout_at(deadline, wait).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(ask::Unanswered::Gone.into()),
        Err(_) => Err(Silence::Late),
    }
}

/// `POST /rescan`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RescanQuery {
    rule: Option<String>,
}

async fn rescan(
    State(routes): State<Arc<Routes>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<RescanQuery>,
) -> Response {
    if !peer.commands() {
        return not_for_you();
    }
    let Some(rule_statuses) = routes.rule_statuses(query.rule.as_deref()) else {
        return refusal(StatusCode::NOT_FOUND, "the policy in force has no such rule");
    };
    let (mut begun, mut late) = (Vec::new(), Vec::new());
    let deadline = routes.status.clock.instant(routes.status.clock.now() + PATIENCE);
    for (rule, rule_status) in rule_statuses {
        let (done, wait) = oneshot::channel();
        let asked = match rule_status.ask(Ask::Rescan(done)) {
            Ok(()) => answered(wait, deadline).await,
            Err(unanswered) => Err(unanswered.into()),
        };
        match asked {
            Ok(()) => begun.push(rule),
            Err(silence) => late.push(format!("{rule}: {silence}")),
        }
    }
    if late.is_empty() {
        log!(ScanRequested, rules = begun.join(","));
        let message = format!("scanning, and trying again what is held: {}", begun.join(", "));
        return Json(Outcome { message }).into_response();
    }
    refusal(StatusCode::SERVICE_UNAVAILABLE, late.join("; "))
}

fn not_for_you() -> Response {
    refusal(StatusCode::FORBIDDEN, "only the daemon's own user and root may order that")
}

async fn reload(State(routes): State<Arc<Routes>>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    if !peer.commands() {
        return not_for_you();
    }
    let mut life = routes.status.life();
    let before = life.borrow().reloads;
    if routes.orders.send(Order::Reload).await.is_err() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending");
    }
    let over =
        life.wait_for(|life| life.reloads > before && matches!(life.phase, Phase::Ready | Phase::Stopping));
    let refused = match tokio::time::timeout(RELOAD_PATIENCE, over).await {
        Ok(Ok(life)) if life.phase == Phase::Stopping => Some("the daemon is ending".to_owned()),
        Ok(Ok(life)) => life.refused.clone(),
        Ok(Err(_)) => Some("the daemon is ending".to_owned()),
        Err(_) => {
            let message = "it waits for files in hand; the new policy takes over when they are done";
            return refusal(StatusCode::ACCEPTED, message);
        }
    };
    let plan = routes.status.plan().borrow().clone();
    match (refused, plan) {
        (Some(why), plan) => {
            // The faults themselves, where it is them.
            let load =
                |plan: Arc<Plan>| tokio::task::spawn_blocking(move || Policy::load(&plan.policy.file).err());
            let faults = match plan.map(load) {
                Some(loading) => loading.await.ok().flatten(),
                None => None,
            };
            let why = faults.map_or(why, |faults| faults.to_string());
            refusal(StatusCode::UNPROCESSABLE_ENTITY, why)
        }
        (None, plan) => {
            let generation = plan.map_or(0, |plan| plan.generation);
            Json(Outcome { message: format!("policy reloaded (generation {generation})") }).into_response()
        }
    }
}
