//! Where a file lies below a rule's directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A path below a rule's directory: one or more ordinary names, never empty, absolute, `.` or `..`.
///
/// Shared by all who hold it: thousands wait at a time, each in more than one list, and may have
/// 4,095 bytes (P10).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Arc<Path>);

impl RelPath {
    /// Takes a relative path of ordinary names with one `/` between them; anything else is `None`.
    /// So equal paths have equal bytes, which `components` would not give: it overlooks `//`, `/.`
    /// and a `/` at the end.
    pub fn new(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        let mut names = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let ordinary = names.all(|name| !matches!(name, b"" | b"." | b".."));
        ordinary.then(|| Self(path.into()))
    }

    /// [`RelPath::new`] of the bytes of a path.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::new(OsStr::from_bytes(bytes))
    }

    /// The last component.
    pub fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    /// The directories before the last component; empty for a file directly in the root.
    pub fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(""))
    }

    /// The path itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The bytes of the path, for state.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
}

impl std::borrow::Borrow<Path> for RelPath {
    fn borrow(&self) -> &Path {
        &self.0
    }
}
