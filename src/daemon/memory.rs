//! Memory that was needed for many files, and is not any more.

#![expect(unsafe_code, reason = "no safe wrapper of malloc_trim exists")]

use std::time::Duration;

/// After so long without work, the threads that did it have ended.
const QUIET: Duration = Duration::from_secs(15);

/// Gives the system back what is free: at once, and once more what the threads had that did the
/// work.
pub(crate) async fn give_back() {
    for wait in [Duration::ZERO, QUIET] {
        tokio::time::sleep(wait).await;
        tokio::task::spawn_blocking(trim).await.unwrap_or_default(); // the runtime is going down
    }
}

/// The C library keeps what is free, for as long as a little of what was taken after it is in use
/// (malloc_trim(3)). Takes some milliseconds.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that is in use, and may be called by any thread at any time
    // (malloc_trim(3), "ATTRIBUTES").
    unsafe {
        libc::malloc_trim(0);
    }
}
