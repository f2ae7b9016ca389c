//! Memory that was needed for many files, and is not any more.

#![expect(unsafe_code, reason = "no safe wrapper of malloc_trim exists")]

/// Gives the system back what is free. The C library keeps it otherwise, for as long as a little of what was taken after it is
/// in use (malloc_trim(3)). Takes some milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that is in use, and may be called by any thread at any time (malloc_trim(3), "ATTRIBUTES").
    unsafe {
        libc::malloc_trim(0);
    }
}
