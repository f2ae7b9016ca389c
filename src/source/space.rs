//! Room on the file systems that copies go to.
//!
//! Each copy takes out its size before it begins, and gives back what it has written as it writes:
//! that the kernel counts from then on. So copies made at the same time do not together eat into
//! what is to stay free, and nothing is counted twice. What shares the blocks of its original takes
//! no room. Only what goes through here is counted; others may still fill the disk.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::copy::{self, Hashed, Pass};
use crate::fs::{Dir, OpenError, Staging};
use crate::hold::{AttemptError, Hold};

/// What is taken out.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Bytes, by device.
    taken: Mutex<HashMap<u64, u64>>,
}

/// A file that a private copy is about to be written to.
#[derive(Debug)]
pub(crate) struct Stage {
    staging: Staging,
    space: Arc<Space>,
    /// What is to stay free where it is.
    floor: u64,
    /// The room for it, once it is known to need some.
    room: Option<Room>,
}

impl Stage {
    /// An empty file, on a file system where this much is to stay free.
    pub(crate) const fn new(staging: Staging, space: Arc<Space>, floor: u64) -> Self {
        Self { staging, space, floor, room: None }
    }

    /// Has it share the blocks of a file, or takes out room for a copy of this size.
    ///
    /// # Errors
    /// There is too little.
    pub(crate) fn begin(&mut self, file: &File, size: u64) -> Result<(), AttemptError> {
        if !copy::share(file, &self.staging) {
            self.room = Some(self.space.take(self.staging.dir(), size, self.floor)?);
        }
        Ok(())
    }

    /// Hashes what it shares, or copies the file there and hashes it meanwhile. Tells `count` how
    /// many bytes each read gave.
    ///
    /// # Errors
    /// As of [`Pass::copy`].
    pub(crate) fn fill(
        &self,
        pass: Pass<'_>,
        file: &File,
        count: &dyn Fn(usize),
    ) -> Result<Hashed, OpenError> {
        let Some(room) = &self.room else { return pass.counted(count).hash(self.staging.file()) };
        let wrote = |bytes| {
            room.wrote(bytes as u64);
            count(bytes);
        };
        pass.counted(&wrote).write(file, &self.staging)
    }

    /// The copy.
    pub(crate) fn filled(self) -> Staging {
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
    /// What is not yet written of it.
    left: AtomicU64,
}

impl Room {
    /// So much of it is written: the kernel counts that.
    fn wrote(&self, bytes: u64) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left - self.space.give_back(self.device, bytes.min(left)), Ordering::Relaxed);
    }
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
        Ok(Room { space: Arc::clone(self), device, left: AtomicU64::new(size) })
    }

    /// Gives back so much; returns it.
    fn give_back(&self, device: u64, bytes: u64) -> u64 {
        if let Some(others) = self.taken().get_mut(&device) {
            *others = others.saturating_sub(bytes);
        }
        bytes
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        // Right after every single step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.space.give_back(self.device, *self.left.get_mut());
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

    #[test]
    fn what_a_copy_has_written_is_not_counted_twice_and_what_it_has_not_is_given_back() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let space = Arc::new(Space::default());
        let room = space.take(&dir, 100, 0).unwrap();
        let taken = || space.taken().values().sum::<u64>();
        room.wrote(30);
        assert_eq!(taken(), 70);
        let other = space.take(&dir, 5, 0).unwrap();
        room.wrote(200); // it grew
        assert_eq!(taken(), 5);
        drop((room, other));
        assert_eq!(taken(), 0);
        // What shares its blocks asks for none; here at most a copy does, until it is there.
        std::fs::write(temp.path().join("f"), [1; 5000]).unwrap();
        let file = File::open(temp.path().join("f")).unwrap();
        let mut stage = Stage::new(Staging::new(&dir).unwrap(), Arc::clone(&space), 0);
        stage.begin(&file, 5000).unwrap();
        assert_eq!(taken(), stage.room.as_ref().map_or(0, |_| 5000));
        let hashed = stage.fill(Pass::new(&temp.path().join("f"), 5000), &file, &|_| ()).unwrap();
        assert_eq!((taken(), hashed.size), (0, 5000));
        assert_eq!(stage.filled().read_back(5000).unwrap(), [1; 5000]);
    }
}
