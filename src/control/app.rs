//! What the routes work with, and how they refuse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::mpsc;

use super::Order;
use super::places::{Bounds, Places};
use super::report::Outcome;
use crate::clock::Moment;
use crate::daemon::status::{RuleStatus, Status};

/// The shortest time between two questions to the loops that looks at metrics bring about.
const ASKING: Duration = Duration::from_secs(10);

/// How many times events are told at the same time: fewer than there are connections, so that
/// status and orders of the same user have places left.
const FOLLOWERS: Bounds = Bounds { owner: 32, user: 8, users: 32 };

/// What the routes work with.
pub(super) struct Routes {
    pub(super) status: Arc<Status>,
    pub(super) orders: mpsc::Sender<Order>,
    /// Who is told events.
    pub(super) followers: Arc<Places>,
    /// When the loops were asked last whether they turn because somebody looked at metrics.
    asked: Mutex<Moment>,
}

impl Routes {
    pub(super) fn new(status: Arc<Status>, orders: mpsc::Sender<Order>) -> Self {
        Self { status, orders, followers: Places::new(FOLLOWERS), asked: Mutex::new(Moment::ZERO) }
    }

    /// The rule_status of one rule, or of each; `None` if the policy in force has no such rule.
    pub(super) fn rule_statuses(&self, rule: Option<&str>) -> Option<BTreeMap<String, Arc<RuleStatus>>> {
        let mut rule_statuses = self.status.rule_statuses();
        match rule {
            Some(rule) => rule_statuses.remove_entry(rule).map(|only| BTreeMap::from([only])),
            None => Some(rule_statuses),
        }
    }

    /// Asks the loops to respond, as a watchdog does; the result is shown to whoever looks next.
    /// However often somebody looks, as anybody on this host may, they are not asked more often
    /// than so.
    pub(super) fn ask_loops(&self) {
        let now = self.status.clock.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*asked) >= ASKING {
            *asked = now;
            self.status.watchdog.ask();
        }
    }
}

/// A refusal in words.
pub(super) fn refusal(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(Outcome { message: message.into() })).into_response()
}
