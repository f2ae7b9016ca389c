//! Room on the file systems that copies go to.
//!
//! Each copy takes out its size before it begins and gives it back when the kernel has counted its
//! blocks. So copies made at the same time do not together eat into what is to stay free. Only what
//! goes through here is counted; others may still fill the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{Dir, Staging};
use crate::hold::{AttemptError, Hold};

/// What is taken out.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Bytes, by device.
    taken: Mutex<HashMap<u64, u64>>,
}

/// A file that a private copy is about to be written to, and the room for it.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The file.
    pub(crate) staging: Staging,
    room: Room,
}

impl Stage {
    /// An empty file with room for a copy.
    pub(crate) const fn new(staging: Staging, room: Room) -> Self {
        Self { staging, room }
    }

    /// The copy is there: the kernel counts its blocks from now on.
    pub(crate) fn filled(self) -> Staging {
        drop(self.room);
        self.staging
    }
}

/// A stage that is yet to be made, by whoever reads what goes there: on the same thread, as a
/// change of threads for each step would be felt with small files.
pub(crate) struct StageRequest(Box<dyn FnOnce() -> Result<Stage, AttemptError> + Send>);

impl StageRequest {
    /// One that is made so.
    pub(crate) fn new(make: impl FnOnce() -> Result<Stage, AttemptError> + Send + 'static) -> Self {
        Self(Box::new(make))
    }

    /// Makes it. Blocks.
    ///
    /// # Errors
    /// There is too little space, or the file cannot be made.
    pub(crate) fn make(self) -> Result<Stage, AttemptError> {
        (self.0)()
    }
}

/// Room for one copy.
#[derive(Debug)]
pub(crate) struct Room {
    space: Arc<Space>,
    device: u64,
    size: u64,
}

impl Space {
    /// Takes out room for `size` bytes where `dir` is, leaving `floor` bytes free, where that can
    /// be known.
    ///
    /// # Errors
    /// There is too little, or it cannot be determined.
    pub(crate) fn take(self: &Arc<Self>, dir: &Dir, size: u64, floor: u64) -> Result<Room, AttemptError> {
        let device = dir.stat()?.identity.dev;
        let mut taken = self.taken();
        let free = dir.free_space()?;
        let others = taken.entry(device).or_default();
        if let Some(free) = free.filter(|free| free.saturating_sub(*others).saturating_sub(size) < floor) {
            return Err(AttemptError::Hold(Hold::NoSpace { path: dir.path().to_owned(), free }));
        }
        *others += size;
        drop(taken);
        Ok(Room { space: Arc::clone(self), device, size })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        // Right after every single step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.space.taken();
        if let Some(others) = taken.get_mut(&self.device) {
            *others = others.saturating_sub(self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_counts_no_blocks_is_not_full() {
        let dir = Dir::open(std::path::Path::new("/proc")).unwrap();
        Arc::new(Space::default()).take(&dir, 1, 1 << 30).unwrap();
    }

    #[test]
    fn copies_at_the_same_time_leave_the_floor_free_together() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let space = Arc::new(Space::default());
        // Half of what is free, so that what others do to the disk meanwhile does not matter.
        let half = dir.free_space().unwrap().unwrap() / 2;
        let first = space.take(&dir, half, half / 4).unwrap();
        let stop = space.take(&dir, half, half / 4).unwrap_err();
        assert!(matches!(stop, AttemptError::Hold(Hold::NoSpace { .. })), "{stop:?}");
        drop(first);
        space.take(&dir, half, half / 4).unwrap();
    }
}
