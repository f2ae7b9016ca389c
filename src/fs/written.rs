//! Something written that is to be durable.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::{Action, FsError, Result};

/// Something written that is to be durable: a file or a directory.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    fd: BorrowedFd<'a>,
    /// For a failure: what was being done, and where.
    action: Action,
    path: &'a Path,
}

impl<'a> Written<'a> {
    pub(super) fn new(fd: &'a impl AsFd, action: impl Into<Action>, path: &'a Path) -> Self {
        Self { fd: fd.as_fd(), action: action.into(), path }
    }

    /// Makes this one durable.
    ///
    /// # Errors
    /// What fsync(2) says.
    pub fn flush(&self) -> Result<()> {
        rustix::fs::fsync(self.fd).map_err(|e| FsError::new(self.action, self.path, e))
    }
}
