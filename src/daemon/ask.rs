//! Questions to a rule's driver, which alone knows its pairs: what waits, and why. And one order:
//! scan now.
//!
//! A driver answers between two steps of its work, so that nobody who asks can make it do two
//! things at once. Who asks waits for as long as they like; a driver that waits for a file server
//! answers when that does.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::fs::RelPath;

/// What a driver may be asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// The pairs that wait, those that have waited longest first, at most so many.
    Backlog {
        /// Which.
        which: Which,
        /// How many.
        most: usize,
        /// Where to.
        answer: oneshot::Sender<Backlog>,
    },
    /// Scan the directory now, and try again what is held.
    Rescan(oneshot::Sender<()>),
}

/// Which pairs are meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// Only those that wait for this cause.
    pub(crate) cause: Option<String>,
    /// Only those that are held.
    pub(crate) held_only: bool,
    /// Only this one, by its path below the root, byte for byte.
    pub(crate) path: Option<Vec<u8>>,
}

/// Pairs that wait.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// The first of them.
    pub(crate) pairs: Vec<Waiting>,
    /// How many there are that were asked for.
    pub(crate) total: usize,
    /// Still more lie in the directory, for which there was no room in memory.
    pub(crate) more: bool,
}

/// A pair that something is still to be done about.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// In a word: the cause of a hold, or what it waits for.
    pub(crate) cause: &'static str,
    /// Whether it is held.
    pub(crate) is_held: bool,
    /// Whether a person is needed: only a person can end it, or it has lasted too long.
    pub(crate) needs_operator: bool,
    /// In full.
    pub(crate) reason: String,
    /// What a person can do.
    pub(crate) hint: String,
    /// Since when, since the epoch.
    pub(crate) since: Duration,
    /// Tries that ended in a hold.
    pub(crate) attempts: u32,
    /// When it is looked at next; `None` for when something happens to it.
    pub(crate) next_try: Option<Moment>,
    /// The payload's size in bytes, if there is one.
    pub(crate) size: Option<u64>,
}

/// Why a driver does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It is not there: it starts, or ends.
    Gone,
    /// It is asked too much already.
    Busy,
}
