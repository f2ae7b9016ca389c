//! Boundaries inside one mount that no file can be moved across: between subvolumes of btrfs,
//! directories of different project quotas, branches of a mergerfs.
//!
//! Found out before anything is moved, with what nobody can see. Where that cannot be told, files
//! are taken to be movable.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::io::Errno;

use super::staging::{Staging, fresh_name};
use super::{Action, Dir, FsError, Result, mount, proc_path};

/// Policies of mergerfs begin so that make files only where their directory is, and move them only
/// there.
const PRESERVING: [&[u8]; 2] = [b"ep", b"msp"];

impl Dir {
    /// Checks that files can be moved from here into a directory of ours on the same mount.
    ///
    /// # Errors
    /// [`Action::MoveAcross`] if they cannot; what trying that out with a file without a name says.
    pub(super) fn check_boundary(&self, to: &Self) -> Result<()> {
        let is_other = self.stat()?.identity.dev != to.stat()?.identity.dev;
        self.unless(is_other || !links_across(self, to)?)
    }

    /// Checks the same of what has these names here, where that is a matter of each file.
    ///
    /// # Errors
    /// [`Action::MoveAcross`] if it cannot.
    pub(crate) fn check_branches(&self, names: &[&OsStr], to: &Self) -> Result<()> {
        let Some(there) = attribute(&Path::new(&proc_path(to.as_fd())).join("."), "user.mergerfs.allpaths")
        else {
            return Ok(()); // no mergerfs
        };
        let is_other = |name: &&OsStr| is_on_other_branch(self, name, to, &there).unwrap_or(false);
        self.unless(names.iter().any(is_other))
    }

    fn unless(&self, is_across: bool) -> Result<()> {
        match is_across {
            true => Err(FsError::new(Action::MoveAcross, self.path(), Errno::XDEV)),
            false => Ok(()),
        }
    }
}

/// Whether a file without a name that was made in one directory can be given one in another.
fn links_across(from: &Dir, to: &Dir) -> Result<bool> {
    let Some(staging) = Staging::nameless(from)? else { return Ok(true) };
    let name = fresh_name();
    match staging.publish(to, &name) {
        Ok(_) => to.unlink(&name).map(|()| true),
        Err(e) => Ok(e.source != Errno::XDEV),
    }
}

/// Whether a mergerfs would have to copy a file to move it to a directory that is `there`, which it
/// refuses.
fn is_on_other_branch(from: &Dir, name: &OsStr, to: &Dir, there: &[u8]) -> Option<bool> {
    let file = Path::new(&proc_path(from.as_fd())).join(name);
    let branch = attribute(&file, "user.mergerfs.basepath")?;
    let is_there = there.split(|byte| *byte == 0).any(|path| path.starts_with(&[&*branch, b"/"].concat()));
    if is_there {
        return Some(false);
    }
    let control = mount::point(to.stat().ok()?.mount).ok()??.join(".mergerfs");
    let policy = attribute(&control, "user.mergerfs.func.create")?;
    let is_preserving = PRESERVING.iter().any(|prefix| policy.starts_with(prefix));
    Some(is_preserving && attribute(&control, "user.mergerfs.ignorepponrename")? == b"false")
}

/// An extended attribute, of no symlink's target. What was put under a name meanwhile gives at most
/// a wrong answer.
fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut read = |size| {
        value.resize(size, 0);
        rustix::fs::lgetxattr(path, name, &mut *value)
    };
    let len = match read(4 << 10) {
        Err(Errno::RANGE) => read(64 << 10), // XATTR_SIZE_MAX
        done => done,
    };
    let len = len.ok()?;
    value.truncate(len);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_one_directory_tree_files_can_be_moved_and_trying_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["from", "to"] {
            std::fs::create_dir(temp.path().join(dir)).unwrap();
        }
        let open = |name| Dir::open(&temp.path().join(name)).unwrap();
        let (from, to) = (open("from"), open("to"));
        from.check_boundary(&to).unwrap();
        from.check_branches(&[OsStr::new("f")], &to).unwrap();
        assert_eq!((from.names().unwrap().count(), to.names().unwrap().count()), (0, 0));
    }
}
