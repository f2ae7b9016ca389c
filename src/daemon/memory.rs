//! Keeps the C library from keeping more memory than is in use, and has it return that after many
//! files were processed.

#![expect(unsafe_code, reason = "no safe wrappers of mallopt and malloc_trim exist")]

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

/// Heaps of the C library, at most. By default there are eight for each processor, and each keeps
/// what its threads once needed.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Has all threads that are not started yet share a few heaps.
pub(crate) fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number that malloc reads when a thread first needs a heap (mallopt(3)).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
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
