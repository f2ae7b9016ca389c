//! Whether a signature can have been seen. Whoever makes it visible says so; what follows from that
//! is decided elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::state::Seen;

/// Whether somebody may have seen a signature: set by whoever makes it visible.
#[derive(Debug, Default)]
pub(crate) struct Sight(AtomicBool);

impl Sight {
    /// It may be seen from now on.
    pub(crate) fn begins(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn seen(&self) -> Seen {
        if self.0.load(Ordering::Acquire) { Seen::Perhaps } else { Seen::Never }
    }
}
