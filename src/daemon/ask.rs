//! Requests to a rule's worker: list the pairs that wait, or scan now.
//!
//! A worker answers between two steps of its work. The caller chooses its own timeout: a worker
//! that waits for a file server answers only when the server does.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::fs::RelPath;

/// A request to a worker.
#[derive(Debug)]
pub(crate) enum Ask {
    /// List the pairs that wait, longest first, up to a limit.
    Backlog {
        /// Which pairs.
        which: Which,
        /// The limit.
        most: usize,
        /// Receives the answer.
        answer: oneshot::Sender<Backlog>,
    },
    /// Scan the directory now, and attempt held pairs again.
    Rescan(oneshot::Sender<()>),
}

/// A filter on pairs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// Only those that wait for this cause.
    pub(crate) cause: Option<String>,
    /// Only those that are held.
    pub(crate) held_only: bool,
    /// Only this one, by its path below the root, byte for byte.
    pub(crate) path: Option<Vec<u8>>,
}

impl Which {
    /// Whether a file of this path is meant, for what it waits for.
    pub(crate) fn means(&self, path: &RelPath, is_held: bool, cause: &str) -> bool {
        self.path.as_ref().is_none_or(|asked| asked == path.as_bytes())
            && (!self.held_only || is_held)
            && self.cause.as_ref().is_none_or(|asked| asked == cause)
    }
}

/// Pairs that wait.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// The first of them.
    pub(crate) pairs: Vec<Waiting>,
    /// How many pairs match.
    pub(crate) total: usize,
    /// The directory has more files than fit in memory.
    pub(crate) more: bool,
}

/// A pair that is not decided yet.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// The code of what it waits for: the cause of a hold, or a wait.
    pub(crate) cause: &'static str,
    /// Whether it is held.
    pub(crate) is_held: bool,
    /// Whether a person is needed: only a person can end it, or it has lasted too long.
    pub(crate) needs_operator: bool,
    /// The reason as a sentence.
    pub(crate) reason: String,
    /// What a person can do.
    pub(crate) hint: String,
    /// When the wait began, since the Unix epoch.
    pub(crate) since: Duration,
    /// How many attempts ended in a hold.
    pub(crate) attempts: u32,
    /// When it is looked at next; `None`: only when it changes.
    pub(crate) next_attempt: Option<Moment>,
    /// The payload's size in bytes, if there is one.
    pub(crate) size: Option<u64>,
}

/// Why a worker does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It is not running: it is starting or ending.
    Gone,
    /// Its queue of requests is full.
    Busy,
}
