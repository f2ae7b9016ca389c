//! The names in a directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use super::{FsError, Result};

/// The names in a directory, as they are read.
pub(crate) struct Names {
    entries: rustix::fs::Dir,
    path: Arc<Path>,
}

/// A name as the directory has it.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The name.
    pub(crate) name: OsString,
    /// Whether a directory may have it: as the file system says while it lists, or yes where it
    /// does not say.
    pub(crate) may_be_directory: bool,
}

impl Names {
    pub(super) const fn new(entries: rustix::fs::Dir, path: Arc<Path>) -> Self {
        Self { entries, path }
    }

    /// The next name, with what listing tells about it.
    pub(crate) fn next_listed(&mut self) -> Option<Result<Listed>> {
        loop {
            match self.entries.next()? {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => {
                        let kind = entry.file_type();
                        let may_be_directory = kind.is_dir() || kind == rustix::fs::FileType::Unknown;
                        let name = OsStr::from_bytes(name).to_owned();
                        return Some(Ok(Listed { name, may_be_directory }));
                    }
                },
                Err(e) => return Some(Err(FsError::new("list", &*self.path, e))),
            }
        }
    }
}

impl Iterator for Names {
    type Item = Result<OsString>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_listed().map(|listed| listed.map(|listed| listed.name))
    }
}
