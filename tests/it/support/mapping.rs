//! A file mapped for writing.

#![allow(unsafe_code, reason = "mmap(2) has no safe wrapper")]

use std::fs::File;
use std::io;

/// A file mapped for writing, for as long as this lives: stores reach the file without any system
/// call.
pub(crate) struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps all of a file that is open for reading and writing.
    pub(crate) fn of(file: &File) -> Self {
        use std::os::fd::AsRawFd as _;
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, placed by the kernel; it does not outlive this value.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { start, len }
    }

    /// Stores one byte.
    pub(crate) fn store(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: inside the mapping, whose file nobody makes shorter; volatile, because others
        // read it.
        unsafe { self.start.cast::<u8>().add(at).write_volatile(byte) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody has a reference into it.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
