//! How tests wait: for what comes, never for a time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Far more than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What another thread has read so far, in its order, and whether more can come. Clones share it.
pub(crate) struct Heard<T>(Arc<(Mutex<State<T>>, Condvar)>);

struct State<T> {
    items: Vec<T>,
    has_ended: bool,
}

impl<T> Heard<T> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(State { items: Vec::new(), has_ended: false }), Condvar::new())))
    }

    /// Adds what was read.
    pub(crate) fn add(&self, items: impl IntoIterator<Item = T>) {
        self.state().items.extend(items);
        self.0.1.notify_all();
    }

    /// No more will come: who waits need not wait longer.
    pub(crate) fn end(&self) {
        self.state().has_ended = true;
        self.0.1.notify_all();
    }

    /// Looks at what has come so far, or takes it.
    pub(crate) fn so_far<R>(&self, look: impl FnOnce(&mut Vec<T>) -> R) -> R {
        look(&mut self.state().items)
    }

    /// Waits until something is found. `None`: it did not come in [`PATIENCE`], or cannot come any
    /// more.
    pub(crate) fn wait_for<R>(&self, mut find: impl FnMut(&mut Vec<T>) -> Option<R>) -> Option<R> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = find(&mut state.items) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.has_ended {
                return None;
            }
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.0.lock().unwrap()
    }
}

impl<T> Clone for Heard<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
