//! What lies in a private folder: put back where it belongs, or removed.
//!
//! A folder there mirrors the paths of what was moved into it. Nobody else can change a name in it,
//! so what is looked at is what is moved or removed.

use std::ffi::OsStr;
use std::path::Path;

use rustix::io::Errno;

use crate::fs::{Dir, FsError, Kind, RelPath, private};

/// Whether a place to put something back to is something else's by now, or gone.
pub(crate) fn is_taken(error: &FsError) -> bool {
    error.is_not_found() || error.is_no_directory() || matches!(error.source, Errno::EXIST | Errno::NOTEMPTY)
}

/// Moves everything in a folder of ours back to its place below `root`; what finds its place taken
/// stays.
pub(crate) fn put_back(dir: &Dir, root: &Dir) -> Result<(), FsError> {
    for_each(dir, Path::new(""), &mut |dir, name, below| match private::descend(root, below)
        .and_then(|to| dir.rename(name, &to, name))
    {
        Err(e) if is_taken(&e) => Ok(()),
        moved => moved,
    })
}

/// Calls `act` on everything below a folder of ours that is no directory mirroring a path, with its
/// directory and the path of that; removes those directories as they get empty.
pub(crate) fn for_each(
    dir: &Dir,
    below: &Path,
    act: &mut impl FnMut(&Dir, &OsStr, &Path) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let me = rustix::process::geteuid().as_raw();
    for name in dir.names()?.collect::<Result<Vec<_>, _>>()? {
        let Some(stat) = dir.stat_of(&name)? else { continue };
        // Ours mirror the path. One of the sender's took the place of a file in the instant before
        // it was moved here: it goes back as it is, however much is in it and whoever may read it.
        if stat.kind == Kind::Directory && stat.uid == me {
            for_each(&dir.descend(Path::new(&name))?, &below.join(&name), act)?;
            match dir.remove_dir(&name) {
                Err(e) if e.source == Errno::NOTEMPTY => {}
                removed => {
                    removed?;
                    continue;
                }
            }
        }
        act(dir, &name, below)?;
    }
    Ok(())
}

/// The paths of what waits in a folder of ours, as they were below the watched directory.
pub(crate) fn waiting(dir: &Dir, found: &mut impl FnMut(RelPath)) -> Result<(), FsError> {
    waiting_below(dir, Path::new(""), found)
}

fn waiting_below(dir: &Dir, below: &Path, found: &mut impl FnMut(RelPath)) -> Result<(), FsError> {
    let me = rustix::process::geteuid().as_raw();
    for name in dir.names()? {
        let name = name?;
        let path = below.join(&name);
        let Some(stat) = dir.stat_of(&name)? else { continue };
        if stat.kind == Kind::Directory && stat.uid == me {
            waiting_below(&dir.descend(Path::new(&name))?, &path, found)?;
        } else if let Some(path) = RelPath::new(path) {
            found(path);
        }
    }
    Ok(())
}

/// Removes a folder of ours, unless something is left in it; whether it is gone.
pub(crate) fn remove_if_empty(parent: &Dir, id: &OsStr) -> Result<bool, FsError> {
    match parent.remove_dir(id) {
        Err(e) if e.source == Errno::NOTEMPTY => Ok(false),
        other => other.map(|()| true),
    }
}
