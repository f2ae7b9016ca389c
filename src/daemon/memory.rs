//! Returns memory to the system after many files were processed.

#![expect(unsafe_code, reason = "no safe wrapper of malloc_trim exists")]

use std::time::Duration;

/// After this long without work, tokio's blocking threads have ended.
const QUIET: Duration = Duration::from_secs(15);

/// Returns free memory to the system: at once, and again when the blocking threads have ended.
pub(crate) async fn give_back() {
    for wait in [Duration::ZERO, QUIET] {
        tokio::time::sleep(wait).await;
        tokio::task::spawn_blocking(trim).await.unwrap_or_default(); // the runtime is going down
    }
}

/// The C library keeps free memory that lies below an allocation in use (malloc_trim(3)). Takes
/// some milliseconds.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes no memory in use, and may be called by any thread at any time
    // (malloc_trim(3), "ATTRIBUTES").
    unsafe {
        libc::malloc_trim(0);
    }
}
