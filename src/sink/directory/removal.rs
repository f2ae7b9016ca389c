//! Removing a source that is delivered, from a directory that belongs to the sender.
//!
//! Between checking a name and removing it, the sender may put another file there. So each removal
//! is a transaction: the name is moved into a folder of the daemon, `.kms-sig/ID/`, which mirrors
//! the path; there it is compared with the version that was judged, and only then removed. Anything
//! else is put back. Renaming the folder to `ID.done` commits: a restart puts back what is in
//! uncommitted folders and removes what is in committed ones, and needs no other memory. A file
//! whose name is taken meanwhile waits in `ID.back`, which belongs to no transaction any more.
//!
//! The leftovers of exchanges belong to [`super::exchange`], the private folder itself to
//! [`crate::fs::private`].

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::fs::private;
use crate::fs::private::{Kinship, LOCK, Private};
use crate::fs::staging::{RESERVED_PREFIX, random_hex};
use crate::fs::{Action, Dir, FsError, Identity, Place, RelPath};
use crate::sink::directory::exchange;
use crate::sink::directory::exchange::Removable;
use crate::sink::directory::tree;
use crate::sink::{NameTaken, Removed};

const DONE: &str = ".done";
const BACK: &str = ".back";

/// How many of the files that wait are reported by name.
const MAX_NAMED: usize = 1000;

/// One file of a source: where it lies and which version was judged.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Its path below the root.
    pub(crate) path: RelPath,
    /// The version that may be removed.
    pub(crate) identity: Identity,
}

/// Removes sources from one watched directory, many in one transaction.
#[derive(Debug)]
pub(crate) struct Removal {
    private: Arc<Private>,
    /// Never held while the disk works.
    ready: Mutex<Ready>,
    /// Held while a folder is prepared.
    preparing: Mutex<()>,
}

/// The empty folder of the next transaction, if it is prepared.
#[derive(Debug, Default)]
struct Ready {
    id: Option<OsString>,
    /// How many removals may still use it.
    guards: usize,
}

/// Held by whoever may remove something. With the last guard, the prepared folder goes away.
#[derive(Debug)]
pub(crate) struct RemovalGuard(Option<Arc<Removal>>);

/// A prepared folder that no guard needs any more. Removed when this is dropped, which may wait for
/// the disk; the next [`recover`] removes what is left of it.
#[derive(Debug)]
pub(crate) struct UnusedFolder {
    removal: Arc<Removal>,
    id: OsString,
}

impl Removal {
    /// With transactions in this private folder.
    pub(crate) fn new(private: Arc<Private>) -> Arc<Self> {
        Arc::new(Self { private, ready: Mutex::default(), preparing: Mutex::default() })
    }

    /// A guard, to be taken before [`Removal::prepare`] and kept until after [`Removal::remove`].
    /// Waits for no disk.
    pub(crate) fn guard(self: &Arc<Self>) -> RemovalGuard {
        self.ready().guards += 1;
        RemovalGuard(Some(Arc::clone(self)))
    }

    /// Checks that a source can be removed once its copy is published, as far as that can be known
    /// before, and prepares the folder: otherwise it would be published and not removed. Moves
    /// nothing yet.
    ///
    /// # Errors
    /// The parts could not be moved: no room for the folder, no permission, a sticky directory
    /// ([`Action::MoveOutOfSticky`]), or a boundary ([`Action::MoveAcross`]).
    pub(crate) fn prepare(&self, parts: &[Part]) -> Result<(), FsError> {
        let mut places: Vec<(Place, Vec<&OsStr>)> = Vec::with_capacity(1);
        for part in parts {
            let (below, name) = (part.path.parent(), part.path.name());
            let at = places.iter().position(|(place, _)| place.below() == below);
            match at.and_then(|at| places.get_mut(at)) {
                Some((place, names)) => {
                    check_movable(place, name)?;
                    names.push(name);
                }
                None => {
                    let place = Place::open(self.private.root(), below)?;
                    check_movable(&place, name)?;
                    places.push((place, vec![name]));
                }
            }
        }
        let folder = self.private.open()?;
        for (place, names) in &places {
            place.check_boundary(names, folder.dir())?;
        }
        let _preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ready().id.is_none() {
            let (id, _) = make_folder(folder.dir())?;
            self.ready().id = Some(id);
        }
        Ok(())
    }

    /// Removes several sources in one transaction, of each all its parts or none of them. Returns
    /// the results in order.
    ///
    /// # Errors
    /// Any step's before the commit; then the parts are back, or the next [`recover`] puts them
    /// back.
    pub(crate) fn remove(&self, sources: &[Vec<Part>]) -> Vec<Result<Removed, FsError>> {
        let ready = self.ready().id.take();
        let folder = self.private.open().and_then(|folder| {
            let there = match ready {
                Some(id) => folder.dir().descend(Path::new(&id)).map(|dir| (id, dir)),
                None => make_folder(folder.dir()),
            };
            // It was made a while ago, in a directory that is a sender's.
            let (id, dir) = there.or_else(|_| make_folder(folder.dir()))?;
            Ok((folder, dir, id))
        });
        match folder {
            Ok((folder, dir, id)) => remove_by(&self.private, folder.dir(), &dir, &id, sources),
            Err(error) => sources.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// [`Removal::remove`] for one source.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn remove_one(&self, parts: Vec<Part>) -> Result<Removed, FsError> {
        self.remove(&[parts]).pop().unwrap_or(Ok(Removed::Changed)) // as many answers as sources
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemovalGuard {
    /// Releases the guard without waiting for a disk. The last one gets the folder, to be dropped
    /// where that may wait.
    pub(crate) fn release(mut self) -> Option<UnusedFolder> {
        self.0.take().and_then(Self::release_one)
    }

    fn release_one(removal: Arc<Removal>) -> Option<UnusedFolder> {
        let mut ready = removal.ready();
        ready.guards -= 1;
        let id = if ready.guards == 0 { ready.id.take() } else { None };
        drop(ready);
        id.map(|id| UnusedFolder { removal, id })
    }
}

impl Drop for RemovalGuard {
    fn drop(&mut self) {
        drop(self.0.take().and_then(Self::release_one));
    }
}

impl Drop for UnusedFolder {
    fn drop(&mut self) {
        if let Some(folder) = self.removal.private.current() {
            folder.dir().remove_dir(&self.id).unwrap_or_default();
        }
    }
}

/// A new folder of a transaction, in the private folder.
fn make_folder(folder: &Dir) -> Result<(OsString, Dir), FsError> {
    let id = OsString::from(random_hex());
    let dir = folder.make_new_dir(&id, 0o700)?;
    Ok((id, dir))
}

/// Removes sources by the folder `id`, which is `dir`.
fn remove_by(
    private: &Private,
    folder: &Dir,
    dir: &Dir,
    id: &OsStr,
    sources: &[Vec<Part>],
) -> Vec<Result<Removed, FsError>> {
    let mut ends = Vec::with_capacity(sources.len());
    for parts in sources {
        let mut there = Vec::with_capacity(parts.len());
        let taken = take_all(private.root(), dir, parts, &mut there);
        // A source that is to stay must not be in the folder when that is committed.
        if !matches!(taken, Ok(true))
            && let Err(error) = put_back_parts(private, dir, &there)
        {
            undo(private, folder, dir, id);
            return sources.iter().map(|_| Err(error.clone())).collect();
        }
        ends.push(taken.map(|are_taken| if are_taken { Removed::Done } else { Removed::Changed }));
    }
    let mut done = id.to_owned();
    done.push(DONE);
    if let Err(error) = folder.rename_to_ours(id, folder, &done) {
        // As far as possible; the next scan does the rest. The first error is the one to report.
        undo(private, folder, dir, id);
        return sources.iter().map(|_| Err(error.clone())).collect();
    }
    // The parts are gone as far as anyone is concerned. A caller that got an error here might
    // discard its copy, while the next `recover` removes the source.
    for part in sources.iter().flatten().filter(|part| part.path.parent().as_os_str().is_empty()) {
        dir.unlink(part.path.name()).unwrap_or_default(); // quicker than by listing, which finds the rest
    }
    if folder.remove_dir(&done).is_err() {
        dir.remove_contents().and_then(|()| folder.remove_dir(&done)).unwrap_or_default();
    }
    ends
}

/// Rolls a transaction back, as far as possible.
fn undo(private: &Private, folder: &Dir, dir: &Dir, id: &OsStr) {
    tree::put_back(dir, private.root()).unwrap_or_default();
    close(folder, id).unwrap_or_default();
}

/// A part that may have come into the transaction's folder, and the directory that it was moved out
/// of.
type Taken<'p> = (&'p Part, Place);

/// Puts the parts of one source back from an uncommitted folder, to the very directories that they
/// came from; what finds its name taken waits in a folder of its own.
fn put_back_parts(private: &Private, dir: &Dir, parts: &[Taken<'_>]) -> Result<(), FsError> {
    for (Part { path, .. }, place) in parts {
        let from = match dir.descend(path.parent()) {
            Err(e) if e.is_not_found() => continue, // nothing came there
            from => from?,
        };
        let name = path.name();
        match place.put_back(&from, name, name) {
            Err(e) if tree::is_taken(&e) && from.stat_of(name)?.is_some() => {
                set_aside(private, path, &from, name)?
            }
            Err(e) if e.is_not_found() => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Checks that this process may move `name` out of its directory, as far as that can be known
/// before.
///
/// # Errors
/// It may not.
pub(crate) fn check_movable(parent: &Place, name: &OsStr) -> Result<(), FsError> {
    parent.check_writable()?;
    let (me, dir) = (rustix::process::geteuid().as_raw(), parent.looking().stat()?);
    // In a sticky directory a file is moved by its owner, the directory's, or root (rename(2),
    // EPERM).
    if me == 0 || dir.uid == me || dir.mode & 0o1000 == 0 {
        return Ok(());
    }
    match parent.stat_of(name)? {
        Some(file) if file.uid != me => Err(FsError {
            action: Action::MoveOutOfSticky,
            path: parent.path().to_owned(),
            source: Errno::PERM,
        }),
        _ => Ok(()),
    }
}

/// Sets a file aside: `name` in `from`, on the same mount, belongs at `path`, but another file has
/// that name. It waits in the private folder until the name is free.
///
/// # Errors
/// Any step's; then it is still where it was.
pub(crate) fn set_aside(private: &Private, path: &RelPath, from: &Dir, name: &OsStr) -> Result<(), FsError> {
    let folder = private.open()?;
    let id = OsString::from(random_hex() + BACK);
    let to = folder.dir().make_new_dir(&id, 0o700)?.descend_creating(path.parent())?;
    from.rename_to_ours(name, &to, path.name())?;
    to.sync()
}

/// Puts back files whose names are free again, and what interrupted exchanges left. Unlike
/// [`recover`] it may run at any time, but not twice at once. Returns what still waits.
///
/// # Errors
/// The private folder cannot be listed.
pub(crate) fn bring_back(private: &Private) -> Result<NameTaken, FsError> {
    let mut waiting = NameTaken::default();
    let Some(folder) = private.open_if_there()? else { return Ok(waiting) };
    for id in folder.dir().names()? {
        let id = id?;
        let is_back = id.as_encoded_bytes().ends_with(BACK.as_bytes());
        let is_gone = match Removable::of_folder(&id) {
            Some(removable) => {
                let _preparing = folder.making();
                exchange::settle(folder.dir(), &id, &removable, private.root())
            }
            None if is_back => recover_one(private.root(), folder.dir(), &id),
            None => Ok(true), // another process may be working on it
        };
        if !is_gone.unwrap_or(false) {
            // A folder that fails waits as well.
            folder.dir().descend(Path::new(&id)).and_then(|dir| waiting.add(&dir)).unwrap_or_default();
        }
    }
    Ok(waiting)
}

impl NameTaken {
    fn add(&mut self, dir: &Dir) -> Result<(), FsError> {
        tree::waiting(dir, &mut |path| {
            self.count += 1;
            if self.first.len() < MAX_NAMED {
                self.first.push(path);
            }
        })
    }
}

/// Ends an uncommitted transaction, whether or not everything could be put back.
fn close(folder: &Dir, id: &OsStr) -> Result<(), FsError> {
    match folder.remove_dir(id) {
        Err(e) if e.source == Errno::NOTEMPTY => {
            let mut back = id.to_owned();
            back.push(BACK);
            folder.rename_to_ours(id, folder, &back)
        }
        closed => closed,
    }
}

/// Moves the parts into the transaction's folder; false if one is not what was judged. `there` are
/// then those that may have come there.
fn take_all<'p>(
    root: &Dir,
    transaction: &Dir,
    parts: &'p [Part],
    there: &mut Vec<Taken<'p>>,
) -> Result<bool, FsError> {
    for part in parts {
        let (from, name) = (Place::open(root, part.path.parent())?, part.path.name());
        match from.stat_of(name)? {
            None => continue, // removed by the sender: that is what we wanted
            // Before the rename, which sets the ctime: the one time that a sender cannot set back
            // (S3).
            Some(stat) if stat.identity != part.identity => return Ok(false),
            Some(_) => {}
        }
        let to = transaction.descend_creating(part.path.parent())?;
        match from.take(name, &to, name) {
            Err(e) if e.is_not_found() => continue,
            Err(e) if e.is_moved() => return Ok(false),
            // A folder for other sources has the name: the sender made a file of what was a
            // directory. It is not his.
            Err(e) if e.source == Errno::EXIST => return Err(e),
            renamed => {
                // After other failures too: some file systems do not know whether they moved it.
                there.push((part, from));
                renamed?;
            }
        }
        if !to.stat_of(name)?.is_some_and(|stat| stat.identity.is_renamed_from(&part.identity)) {
            return Ok(false);
        }
    }
    // What was moved away in the instant before is none of ours to remove.
    for (_, from) in &*there {
        if !from.is_in_place()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Finishes what a killed process left: removes what is in committed folders, puts back what is in
/// the others. What cannot be put back because its name is taken stays until it is free. Must not
/// run while a [`Removal`] works. Returns what failed in single folders, which stay: a sender who
/// gets a directory of theirs moved there must not stop the rule.
///
/// # Errors
/// The private folder cannot be listed.
pub fn recover(private: &Private) -> Result<Vec<FsError>, FsError> {
    let Some(folder) = private.open_if_there()? else { return Ok(Vec::new()) };
    recover_in(private.root(), folder.dir())
}

/// [`recover`], of a private folder by whatever name.
fn recover_in(root: &Dir, folder: &Dir) -> Result<Vec<FsError>, FsError> {
    let mut resisting = Vec::new();
    for id in folder.names()?.filter(|name| !matches!(name, Ok(name) if name == LOCK)) {
        let id = id?;
        let is_stand_in = id.as_encoded_bytes().starts_with(RESERVED_PREFIX.as_bytes());
        let recovered = match Removable::of_folder(&id) {
            _ if is_stand_in => folder.unlink(&id).map(|()| true), // of the lock, before it had its name
            Some(removable) => exchange::settle(folder, &id, &removable, root),
            None => recover_one(root, folder, &id),
        };
        resisting.extend(recovered.err());
    }
    Ok(resisting)
}

/// Whether nothing of it is left.
fn recover_one(root: &Dir, folder: &Dir, id: &OsStr) -> Result<bool, FsError> {
    let transaction = folder.descend(Path::new(id))?;
    if id.as_encoded_bytes().ends_with(DONE.as_bytes()) {
        transaction.remove_contents()?;
    } else {
        tree::put_back(&transaction, root)?;
    }
    tree::remove_if_empty(folder, id)
}

/// Finishes what lies in a private folder of this watched directory's that somebody has moved to
/// `path`, and takes the folder itself away. Returns the names of what lay in it, which may be at
/// their places again; `None` if it is none, or somebody still works in it. What still waits in it
/// waits in the one at its name from then on.
///
/// # Errors
/// Any step's; then the next scan comes upon it again.
pub(crate) fn adopt(private: &Private, path: &RelPath) -> Result<Option<Vec<RelPath>>, FsError> {
    let place = Place::open(private.root(), path.parent())?;
    let moved = place.looking().descend(Path::new(path.name()))?;
    let is_in_use = private.current().is_some_and(|folder| folder.is_called(path));
    if is_in_use || private::kinship(&moved)? != Kinship::Own {
        return Ok(None);
    }
    let folder = private.open()?; // one at its name; the other one is let go of when nobody works in it
    let Some(lock) = moved.lock_file(OsStr::new(LOCK))? else { return Ok(None) };
    let mut were_there = Vec::new();
    for id in moved.names()?.filter(|name| !matches!(name, Ok(name) if name == LOCK)) {
        if let Ok(transaction) = moved.descend(Path::new(&id?)) {
            tree::waiting(&transaction, &mut |path| were_there.push(path))?;
        }
    }
    let resisting = recover_in(private.root(), &moved)?;
    for id in moved.names()?.filter(|name| !matches!(name, Ok(name) if name == LOCK)) {
        let id = id?;
        moved.rename_to_ours(&id, folder.dir(), &id)?;
    }
    if let Some(error) = resisting.into_iter().next() {
        return Err(error);
    }
    // Nobody else can put anything into it; but another directory may have its name by now.
    let (id, transaction) = make_folder(folder.dir())?;
    let name = path.name();
    let taken = place.take(name, &transaction, name);
    if taken.is_ok() && transaction.descend(Path::new(name))?.stat()?.is_same_place(&moved.stat()?) {
        moved.unlink(OsStr::new(LOCK))?;
        drop(lock);
        transaction.remove_dir(name)?;
    } else if taken.is_ok() {
        place.put_back(&transaction, name, name)?;
    }
    close(folder.dir(), &id)?;
    taken.map(|()| Some(were_there))
}
