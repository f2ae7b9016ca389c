//! Lets calls begin, when there is a place and a token for them and it is their turn.
//!
//! There is no task for that: of those who wait, one sleeps until the next token is good, and then
//! lets begin whose turn it is. A wait may be called off at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::call_queue::{CallQueue, Step};
use super::observer::RateNow;
use super::quota::{KeyClass, Quota};
use crate::clock::{Clock, Moment};
use crate::fair::Sender;
use crate::key::{KeyArn, KeyId};

/// The one way to a call.
#[derive(Debug)]
pub(super) struct Admission {
    desk: Arc<Desk>,
    /// Had by the one of those who wait that sees to the time.
    timekeeper: tokio::sync::Mutex<()>,
}

/// What those who wait share with those who have a place.
#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    /// Wakes the timekeeper when something may begin sooner than it thinks.
    sooner: Notify,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    queue: CallQueue<oneshot::Sender<Place>>,
    /// Until when the timekeeper sleeps; `None` until it is woken.
    wakes: Option<Moment>,
}

/// A place among the calls in flight, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Desk>);

/// The daemon ends, or another policy takes over, before the call could begin.
#[derive(Debug)]
pub(super) struct TooLate;

impl Admission {
    /// So many calls at a time, and the policy's limit on calls in a second, if it has one.
    pub(super) fn new(in_flight: usize, per_second: Option<u32>, clock: Clock) -> Self {
        let state = Mutex::new(State { queue: CallQueue::new(in_flight, per_second), wakes: None });
        let desk = Arc::new(Desk { state, sooner: Notify::new(), clock });
        Self { desk, timekeeper: tokio::sync::Mutex::default() }
    }

    /// The quota that a call under this key counts against, as far as is known.
    pub(super) fn quota(&self, key: Option<&KeyId>, class: KeyClass) -> Quota {
        self.desk.state().queue.quota(key, class)
    }

    /// Waits for a place and a token.
    ///
    /// # Errors
    /// [`TooLate`]: they would come after the end.
    pub(super) async fn enter(&self, quota: &Quota, sender: &Sender) -> Result<Place, TooLate> {
        let (give, place) = oneshot::channel();
        self.desk.state().queue.enter(quota, sender, give);
        self.desk.serve();
        tokio::select! {
            biased;
            place = place => place.map_err(|_none| TooLate),
            never = self.keep_time() => match never {},
        }
    }

    /// Ends all waits that would be longer than until then.
    pub(super) fn end_at(&self, until: Moment) {
        self.desk.state().queue.end_at(until);
        self.desk.serve();
    }

    /// A call of this quota was answered.
    pub(super) fn answered(&self, quota: &Quota, began: Moment) {
        self.desk.state().queue.answered(quota, began, self.desk.clock.now());
        self.desk.serve();
    }

    /// A call of this quota was throttled.
    pub(super) fn throttled(&self, quota: &Quota, began: Moment) {
        self.desk.state().queue.throttled(quota, began, self.desk.clock.now());
    }

    /// Learns from the key that answered which quota counted.
    pub(super) fn learn(&self, asked: &KeyId, answered: &KeyArn) {
        self.desk.state().queue.learn(asked, answered);
    }

    /// Tells the rates, if there is anything new about them.
    pub(super) fn tell(&self, observe: impl FnOnce(BTreeMap<Quota, RateNow>)) {
        let mut state = self.desk.state();
        if let Some(rates) = state.queue.news() {
            observe(rates); // under the lock, or an older one might be told last
        }
    }

    /// Sees to the time, as soon as nobody else does and until this is called off.
    async fn keep_time(&self) -> std::convert::Infallible {
        let _only = self.timekeeper.lock().await;
        loop {
            match self.desk.serve() {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.desk.clock.instant(at)) => {}
                    () = self.desk.sooner.notified() => {}
                },
                None => self.desk.sooner.notified().await,
            }
        }
    }
}

impl Desk {
    /// Lets begin what may, and says when something may next.
    fn serve(self: &Arc<Self>) -> Option<Moment> {
        loop {
            let now = self.clock.now();
            let mut state = self.state();
            let next = match state.queue.next(now, oneshot::Sender::is_closed) {
                Step::Begin(give) => {
                    drop(state);
                    give.send(Place(Arc::clone(self))).ok(); // refused: it is dropped, and free again
                    continue;
                }
                Step::At(at) => Some(at),
                Step::Rest => None,
            };
            let is_sooner = next.is_some_and(|next| state.wakes.is_none_or(|wakes| next < wakes));
            state.wakes = next;
            drop(state);
            if is_sooner {
                self.sooner.notify_one();
            }
            return next;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every update leaves the data consistent, so a poisoned lock is safe to use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().queue.leave();
        self.0.serve();
    }
}
