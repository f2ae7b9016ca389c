//! Removing a source that has been dealt with, although its directory belongs to the sender.
//!
//! Between looking at a name and removing it, the sender may put another file there. So the name is first
//! moved into a folder of ours, `.kms-sig/CLAIM/`, which mirrors the path; there it is compared with what was
//! judged, and only then removed. Something else is put back. Renaming the folder to `CLAIM.done` is the
//! moment of decision: a restart puts back what is in undecided folders and removes what is in decided ones,
//! and needs no other memory. What finds its name taken waits in `CLAIM.back`, on which nobody works any more.
//!
//! What exchanges leave there is [`super::exchange`]'s, and what the private folder is [`crate::fs::private`]'s.

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
use crate::sink::{Removed, Sheltered};

const DONE: &str = ".done";
const BACK: &str = ".back";

/// How many of the files that wait are told by name.
const TOLD: usize = 1000;

/// One file of a source: where it lies and which version was judged.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its path below the root.
    pub path: RelPath,
    /// The version that may be removed.
    pub identity: Identity,
}

/// The claims of one watched directory: removes sources from it, many with one decision.
#[derive(Debug)]
pub struct Removal {
    private: Arc<Private>,
    /// Never held while the disk works.
    ready: Mutex<Ready>,
    /// Held by whoever makes a folder ready.
    making: Mutex<()>,
}

/// A folder that is ready for the next ones, and has nothing in it yet.
#[derive(Debug, Default)]
struct Ready {
    id: Option<OsString>,
    /// How many may still want it.
    customers: usize,
}

/// Somebody who may want to remove something. Once there is nobody, no folder is kept ready.
#[derive(Debug)]
pub struct RemovalGuard(Option<Arc<Removal>>);

/// A folder that was ready, and that nobody wants any more. Goes away when this is dropped, which may wait for the disk;
/// what is left of it the next [`recover`] removes.
#[derive(Debug)]
pub struct Unwanted {
    claims: Arc<Removal>,
    id: OsString,
}

impl Removal {
    /// Those in this private folder.
    pub fn new(private: Arc<Private>) -> Arc<Self> {
        Arc::new(Self { private, ready: Mutex::default(), making: Mutex::default() })
    }

    /// To be had before [`Removal::prepare`], and kept until after [`Removal::remove`]. Waits for no disk.
    pub fn enter(self: &Arc<Self>) -> RemovalGuard {
        self.ready().customers += 1;
        RemovalGuard(Some(Arc::clone(self)))
    }

    /// Sees to it that a source can be removed once its copy is published, as far as that can be known before: or it
    /// would be published, and not removed. Moves nothing yet.
    ///
    /// # Errors
    /// The parts could not be moved: no room for claims, no permission, another's `.kms-sig`, or a sticky directory
    /// ([`Action::MoveOutOfSticky`]).
    pub fn prepare(&self, parts: &[Part]) -> Result<(), FsError> {
        for part in parts {
            check_movable(&Place::open(self.private.root(), part.path.parent())?, part.path.name())?;
        }
        let folder = self.private.open()?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ready().id.is_none() {
            let (id, _) = make_folder(folder.dir())?;
            self.ready().id = Some(id);
        }
        Ok(())
    }

    /// Removes each of several sources: all its parts or none of them. How each ended, in their order.
    ///
    /// # Errors
    /// Any step's before the decision; then the parts are back, or the next [`recover`] puts them back.
    pub fn remove(&self, sources: &[Vec<Part>]) -> Vec<Result<Removed, FsError>> {
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
    pub fn remove_one(&self, parts: Vec<Part>) -> Result<Removed, FsError> {
        self.remove(&[parts]).pop().unwrap_or(Ok(Removed::Changed)) // as many answers as sources
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemovalGuard {
    /// Goes without waiting for a disk. The last one gets what is then to be dropped where one may.
    pub fn leave(mut self) -> Option<Unwanted> {
        self.0.take().and_then(Self::one_less)
    }

    fn one_less(claims: Arc<Removal>) -> Option<Unwanted> {
        let mut ready = claims.ready();
        ready.customers -= 1;
        let id = if ready.customers == 0 { ready.id.take() } else { None };
        drop(ready);
        id.map(|id| Unwanted { claims, id })
    }
}

impl Drop for RemovalGuard {
    fn drop(&mut self) {
        drop(self.0.take().and_then(Self::one_less));
    }
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        if let Some(folder) = self.claims.private.current() {
            folder.dir().remove_dir(&self.id).unwrap_or_default();
        }
    }
}

/// A new folder among the claims.
fn make_folder(claims: &Dir) -> Result<(OsString, Dir), FsError> {
    let id = OsString::from(random_hex());
    let dir = claims.make_new_dir(&id, 0o700)?;
    Ok((id, dir))
}

/// Removes sources by the folder `id`, which is `dir`.
fn remove_by(
    private: &Private,
    claims: &Dir,
    dir: &Dir,
    id: &OsStr,
    sources: &[Vec<Part>],
) -> Vec<Result<Removed, FsError>> {
    let mut ends = Vec::with_capacity(sources.len());
    for parts in sources {
        let mut there = Vec::with_capacity(parts.len());
        let taken = take_all(private.root(), dir, parts, &mut there);
        // One that is to stay must not be in the folder when that is decided upon.
        if !matches!(taken, Ok(true))
            && let Err(error) = give_back(private, dir, &there)
        {
            undo(private, claims, dir, id);
            return sources.iter().map(|_| Err(error.clone())).collect();
        }
        ends.push(taken.map(|are_taken| if are_taken { Removed::Done } else { Removed::Changed }));
    }
    let mut done = id.to_owned();
    done.push(DONE);
    if let Err(error) = claims.rename_to_ours(id, claims, &done) {
        // As far as possible; the next scan sees to the rest. The first error is the one to tell.
        undo(private, claims, dir, id);
        return sources.iter().map(|_| Err(error.clone())).collect();
    }
    // The parts are gone as far as anyone is concerned. A caller that were told of a failure here might throw its copy
    // away, while the next `recover` removes the source.
    for part in sources.iter().flatten().filter(|part| part.path.parent().as_os_str().is_empty()) {
        dir.unlink(part.path.name()).unwrap_or_default(); // quicker than by listing, which finds the rest
    }
    if claims.remove_dir(&done).is_err() {
        tree::empty(dir).and_then(|()| claims.remove_dir(&done)).unwrap_or_default();
    }
    ends
}

/// Puts everything in an undecided folder back, as far as possible.
fn undo(private: &Private, claims: &Dir, dir: &Dir, id: &OsStr) {
    tree::put_back(dir, private.root()).unwrap_or_default();
    close(claims, id).unwrap_or_default();
}

/// A part that may have come to a claim, and the directory that it was moved out of.
type Taken<'p> = (&'p Part, Place);

/// Puts the parts of one source back from an undecided folder, to the very directories that they came from; what finds its
/// name taken waits in a folder of its own.
fn give_back(private: &Private, dir: &Dir, parts: &[Taken<'_>]) -> Result<(), FsError> {
    for (Part { path, .. }, place) in parts {
        let from = match dir.descend(path.parent()) {
            Err(e) if e.is_not_found() => continue, // nothing came there
            from => from?,
        };
        let name = path.name();
        match place.put_back(&from, name, name) {
            Err(e) if tree::is_taken(&e) && from.stat_of(name)?.is_some() => {
                shelter(private, path, &from, name)?
            }
            Err(e) if e.is_not_found() => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// Checks that this process may move `name` out of its directory, as far as that can be known before.
///
/// # Errors
/// It may not.
pub(crate) fn check_movable(parent: &Place, name: &OsStr) -> Result<(), FsError> {
    parent.check_writable()?;
    let (me, dir) = (rustix::process::geteuid().as_raw(), parent.looking().stat()?);
    // In a sticky directory a file is moved by its owner, the directory's, or root (rename(2), EPERM).
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

/// Takes in what stands at `name` in `from`, on the same mount, and belongs at `path`, where something else is by
/// now: it waits here until that is gone.
///
/// # Errors
/// Any step's; then it is still where it was.
pub fn shelter(private: &Private, path: &RelPath, from: &Dir, name: &OsStr) -> Result<(), FsError> {
    let folder = private.open()?;
    let id = OsString::from(random_hex() + BACK);
    let to = folder.dir().make_new_dir(&id, 0o700)?.descend_creating(path.parent())?;
    from.rename_to_ours(name, &to, path.name())?;
    to.sync()
}

/// Puts back what waits for its name to be free, and what exchanges left that were cut short, as far as it goes by now.
/// Unlike [`recover`] it may run at any time, but not twice at once. Returns what still waits.
///
/// # Errors
/// The claims cannot be listed.
pub fn bring_back(private: &Private) -> Result<Sheltered, FsError> {
    let mut waiting = Sheltered::default();
    if !private::is_there(private.root())? {
        return Ok(waiting);
    }
    let folder = private.open()?;
    for id in folder.dir().names()? {
        let id = id?;
        let is_back = id.as_encoded_bytes().ends_with(BACK.as_bytes());
        let is_gone = match Removable::of_folder(&id) {
            Some(removable) => {
                let _making = folder.making();
                exchange::settle(folder.dir(), &id, &removable, private.root())
            }
            None if is_back => recover_one(private.root(), folder.dir(), &id),
            None => Ok(true), // somebody may be at it
        };
        if !is_gone.unwrap_or(false) {
            // What resists waits as well.
            folder.dir().descend(Path::new(&id)).and_then(|dir| waiting.add(&dir)).unwrap_or_default();
        }
    }
    Ok(waiting)
}

impl Sheltered {
    fn add(&mut self, dir: &Dir) -> Result<(), FsError> {
        tree::waiting(dir, &mut |path| {
            self.count += 1;
            if self.first.len() < TOLD {
                self.first.push(path);
            }
        })
    }
}

/// Ends work on an undecided claim, whether or not everything could be put back.
fn close(claims: &Dir, id: &OsStr) -> Result<(), FsError> {
    match claims.remove_dir(id) {
        Err(e) if e.source == Errno::NOTEMPTY => {
            let mut back = id.to_owned();
            back.push(BACK);
            claims.rename_to_ours(id, claims, &back)
        }
        closed => closed,
    }
}

/// Moves the parts into the claim; false if one is not what was judged. `there` are then those that may have come there.
fn take_all<'p>(
    root: &Dir,
    claim: &Dir,
    parts: &'p [Part],
    there: &mut Vec<Taken<'p>>,
) -> Result<bool, FsError> {
    for part in parts {
        let (from, name) = (Place::open(root, part.path.parent())?, part.path.name());
        match from.stat_of(name)? {
            None => continue, // removed by the sender: that is what we wanted
            // Before the rename, which sets the ctime: the one time that a sender cannot set back (S3).
            Some(stat) if stat.identity != part.identity => return Ok(false),
            Some(_) => {}
        }
        let to = claim.descend_creating(part.path.parent())?;
        match from.take(name, &to, name) {
            Err(e) if e.is_not_found() => continue,
            Err(e) if e.is_moved() => return Ok(false),
            // A folder for other sources has the name: the sender made a file of what was a directory. It is not his.
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

/// Finishes what a killed process left: removes decided claims, puts back undecided ones. What cannot be put
/// back because its name is taken stays until it is free. Must not run while [`Removal`] are at work. Returns what went
/// wrong with single claims, which stay: a sender who gets a directory of his claimed must not stop the rule.
///
/// # Errors
/// The claims cannot be listed.
pub fn recover(private: &Private) -> Result<Vec<FsError>, FsError> {
    if !private::is_there(private.root())? {
        return Ok(Vec::new());
    }
    recover_in(private.root(), private.open()?.dir())
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
fn recover_one(root: &Dir, claims: &Dir, id: &OsStr) -> Result<bool, FsError> {
    let claim = claims.descend(Path::new(id))?;
    if id.as_encoded_bytes().ends_with(DONE.as_bytes()) {
        tree::empty(&claim)?;
    } else {
        tree::put_back(&claim, root)?;
    }
    tree::remove_if_empty(claims, id)
}

/// Finishes what lies in a private folder of this watched directory's that somebody has moved to `path`, and takes the
/// folder itself away. Returns the names of what lay in it, which may be at their places again; `None` if it is none, or
/// somebody still works in it. What still waits in it waits in the one at its name from then on.
///
/// # Errors
/// Any step's; then the next scan comes upon it again.
pub fn adopt(private: &Private, path: &RelPath) -> Result<Option<Vec<RelPath>>, FsError> {
    let place = Place::open(private.root(), path.parent())?;
    let moved = place.looking().descend(Path::new(path.name()))?;
    if private::kinship(&moved)? != Kinship::Own {
        return Ok(None);
    }
    let folder = private.open()?; // one at its name; the other one is let go of when nobody works in it
    let Some(lock) = moved.lock_file(OsStr::new(LOCK))? else { return Ok(None) };
    let mut were_there = Vec::new();
    for id in moved.names()?.filter(|name| !matches!(name, Ok(name) if name == LOCK)) {
        if let Ok(claim) = moved.descend(Path::new(&id?)) {
            tree::waiting(&claim, &mut |path| were_there.push(path))?;
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
    let (id, claim) = make_folder(folder.dir())?;
    let name = path.name();
    let taken = place.take(name, &claim, name);
    if taken.is_ok() && claim.descend(Path::new(name))?.stat()?.is_same_place(&moved.stat()?) {
        moved.unlink(OsStr::new(LOCK))?;
        drop(lock);
        claim.remove_dir(name)?;
    } else if taken.is_ok() {
        place.put_back(&claim, name, name)?;
    }
    close(folder.dir(), &id)?;
    taken.map(|()| Some(were_there))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::chown;

    use super::*;
    use crate::fs::tests::{USER, as_user, chmod, is_root};

    struct Fixture {
        temp: tempfile::TempDir,
        root: Dir,
        private: Arc<Private>,
    }

    impl Fixture {
        fn new(files: &[&str]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            for file in files {
                let path = temp.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
            let root = Dir::open(temp.path()).unwrap();
            let private = Arc::new(Private::new(root.clone()));
            Self { temp, root, private }
        }

        fn part(&self, path: &str) -> Part {
            let path = RelPath::new(path).unwrap();
            let dir = self.root.descend(path.parent()).unwrap();
            let identity = dir.stat_of(path.name()).unwrap().unwrap().identity;
            Part { path, identity }
        }

        fn there(&self, path: &str) -> bool {
            self.temp.path().join(path).exists()
        }

        fn claims(&self) -> usize {
            let entries = fs::read_dir(self.temp.path().join(".kms-sig"));
            entries.map_or(0, |all| all.filter(|entry| entry.as_ref().unwrap().file_name() != "lock").count())
        }

        /// The private folder's directory, as this process has it.
        fn folder(&self) -> Dir {
            self.private.open().unwrap().dir().clone()
        }

        fn bring_back(&self) -> usize {
            bring_back(&self.private).unwrap().count
        }
    }

    fn remove(f: &Fixture, parts: &[Part]) -> Result<Removed, FsError> {
        let claims = Removal::new(Arc::clone(&f.private));
        let _customer = claims.enter();
        claims.prepare(parts)?;
        claims.remove_one(parts.to_vec())
    }

    #[test]
    fn what_was_judged_is_removed() {
        let f = Fixture::new(&["d/a", "d/a.sig", "b"]);
        assert_eq!(remove(&f, &[f.part("d/a"), f.part("d/a.sig")]).unwrap(), Removed::Done);
        assert!(!f.there("d/a") && !f.there("d/a.sig") && f.there("b"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn of_many_each_is_removed_or_stays_by_itself() {
        let f = Fixture::new(&["a", "a.sig", "d/b", "d/b.sig", "c", "c.sig", "e", "gone"]);
        let sources = [
            vec![f.part("a"), f.part("a.sig")],
            vec![f.part("d/b"), f.part("d/b.sig")],
            vec![f.part("c"), f.part("c.sig")],
            vec![f.part("gone")],
            vec![f.part("e")],
        ];
        fs::remove_file(f.temp.path().join("gone")).unwrap();
        fs::write(f.temp.path().join("d/b.sig"), "another, after the payload was moved").unwrap();
        let claims = Removal::new(Arc::clone(&f.private));
        claims.prepare(&sources[0]).unwrap();
        let ends: Vec<_> = claims.remove(&sources).into_iter().map(Result::unwrap).collect();
        let [done, changed] = [Removed::Done, Removed::Changed];
        assert_eq!(ends, [done, changed, done, done, done]);
        let there = ["a", "a.sig", "d/b", "d/b.sig", "c", "c.sig", "e"].map(|path| f.there(path));
        assert_eq!(there, [false, false, true, true, false, false, false]);
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn a20_what_cannot_go_back_waits_and_the_others_are_removed() {
        let f = Fixture::new(&["a", "b"]);
        let (a, b) = (vec![f.part("a")], vec![f.part("b")]);
        let claims = f.folder();
        let (_, dir) = make_folder(&claims).unwrap();
        let mut there = Vec::new();
        assert!(take_all(&f.root, &dir, &a, &mut there).unwrap());
        assert!(take_all(&f.root, &dir, &b, &mut Vec::new()).unwrap());
        fs::write(f.temp.path().join("a"), "somebody was quicker").unwrap();
        give_back(&f.private, &dir, &there).unwrap();
        assert!(!dir.path().join("a").exists() && dir.path().join("b").exists());
        assert_eq!(f.bring_back(), 1, "its name is taken");
        fs::remove_file(f.temp.path().join("a")).unwrap();
        assert_eq!(f.bring_back(), 0);
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "a");
    }

    #[test]
    fn p4_what_cannot_be_decided_goes_back_as_far_as_it_can() {
        let f = Fixture::new(&["a", "b"]);
        let sources = [vec![f.part("a")], vec![f.part("b")]];
        let claims = f.folder();
        let (id, dir) = make_folder(&claims).unwrap();
        let mut done = id.clone();
        done.push(DONE);
        fs::write(claims.path().join(&done), "in the way").unwrap();
        assert!(remove_by(&f.private, &claims, &dir, &id, &sources).iter().all(Result::is_err));
        assert!(f.there("a") && f.there("b"));
        assert_eq!(f.claims(), 1, "only what is in the way");
        // One whose name is taken by then waits.
        let (id, dir) = make_folder(&claims).unwrap();
        fs::rename(f.temp.path().join("a"), dir.path().join("a")).unwrap();
        fs::write(f.temp.path().join("a"), "another").unwrap();
        undo(&f.private, &claims, &dir, &id);
        assert_eq!(f.bring_back(), 1);
    }

    #[test]
    fn p4_a_part_that_can_be_moved_neither_there_nor_back_is_an_error() {
        let f = Fixture::new(&["a", "d/b"]);
        let (_, dir) = make_folder(&f.folder()).unwrap();
        fs::write(dir.path().join("a"), "has the name").unwrap();
        take_all(&f.root, &dir, &[f.part("a")], &mut Vec::new()).unwrap_err();
        assert!(f.there("a"));
        fs::write(dir.path().join("d"), "no directory").unwrap();
        give_back(&f.private, &dir, &[(&f.part("d/b"), Place::open(&f.root, Path::new("d")).unwrap())])
            .unwrap_err();
        fs::remove_file(dir.path().join("d")).unwrap();
        give_back(&f.private, &dir, &[(&f.part("d/b"), Place::open(&f.root, Path::new("d")).unwrap())])
            .unwrap(); // nothing came there
    }

    #[test]
    fn a19_a_file_in_place_of_a_directory_that_was_just_emptied_stays_and_brings_nothing_back() {
        let f = Fixture::new(&["d/a"]);
        let first = f.part("d/a");
        let claims = f.folder();
        let (id, dir) = make_folder(&claims).unwrap();
        assert!(take_all(&f.root, &dir, std::slice::from_ref(&first), &mut Vec::new()).unwrap());
        fs::remove_dir(f.temp.path().join("d")).unwrap();
        fs::write(f.temp.path().join("d"), "a file by now").unwrap();
        let ends = remove_by(&f.private, &claims, &dir, &id, &[vec![f.part("d")]]);
        ends[0].as_ref().unwrap_err();
        assert_eq!(fs::read_to_string(f.temp.path().join("d")).unwrap(), "a file by now");
        assert_eq!(f.claims(), 0, "the other is removed, and waits nowhere");
    }

    #[test]
    fn every_directory_of_a_source_is_looked_at_before_it_is_delivered() {
        let f = Fixture::new(&["a", "d/b"]);
        let parts = [f.part("a"), f.part("d/b")];
        let claims = Removal::new(Arc::clone(&f.private));
        let _customer = claims.enter();
        assert!(!private::is_there(&f.root).unwrap());
        claims.prepare(&parts).unwrap();
        assert!(private::is_there(&f.root).unwrap());
        fs::remove_dir_all(f.temp.path().join("d")).unwrap();
        assert!(claims.prepare(&parts).unwrap_err().is_not_found());
    }

    #[test]
    fn p4_what_a_sticky_directory_would_keep_is_known_before() {
        if !is_root() {
            return; // who has one user only has no file of another
        }
        for (mode, whose_dir, whose_file, can_be_moved) in [
            (0o1777, 0, 0, false),
            (0o1777, 0, USER, true),
            (0o1777, USER, 0, true),
            (0o777, 0, 0, true),
            (0o755, 0, USER, false),
        ] {
            let f = Fixture::new(&["f"]);
            for (path, whose) in
                [(f.temp.path().join("f"), whose_file), (f.temp.path().to_owned(), whose_dir)]
            {
                chown(path, Some(whose), None).unwrap();
            }
            chmod(f.temp.path(), mode);
            let place = Place::open(&f.root, Path::new("")).unwrap();
            let checked = as_user(|| check_movable(&place, OsStr::new("f")));
            assert_eq!(checked.is_ok(), can_be_moved, "{mode:o} of {whose_dir}, with a file of {whose_file}");
            let gone = as_user(|| check_movable(&place, OsStr::new("gone")));
            assert_eq!(gone.is_ok(), mode & 0o002 != 0, "{mode:o}");
            check_movable(&place, OsStr::new("f")).unwrap(); // root may
        }
    }

    #[test]
    fn a_prepared_folder_is_used_once_goes_away_when_nobody_wants_it_and_may_be_missing() {
        let f = Fixture::new(&["a", "b", "c"]);
        let claims = Removal::new(Arc::clone(&f.private));
        let (first, second) = (claims.enter(), claims.enter());
        claims.prepare(&[f.part("a")]).unwrap();
        claims.prepare(&[f.part("b")]).unwrap();
        assert_eq!(f.claims(), 1);
        for entry in fs::read_dir(f.temp.path().join(".kms-sig")).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                fs::remove_dir(entry.path()).unwrap();
            }
        }
        assert_eq!(claims.remove_one(vec![f.part("a")]).unwrap(), Removed::Done);
        assert_eq!((f.claims(), f.there("a")), (0, false));
        claims.prepare(&[f.part("b")]).unwrap();
        assert_eq!(claims.remove_one(vec![f.part("b")]).unwrap(), Removed::Done);
        assert_eq!((f.claims(), f.there("b")), (0, false));
        claims.prepare(&[f.part("c")]).unwrap();
        drop(first);
        assert_eq!(f.claims(), 1);
        drop(second);
        assert_eq!((f.claims(), f.there("c")), (0, true));
    }

    #[test]
    fn p9_what_a_sender_put_in_place_of_the_claims_is_not_used() {
        for planted in ["file", "link"] {
            let f = Fixture::new(&["a", "elsewhere/x"]);
            match planted {
                "file" => fs::write(f.temp.path().join(".kms-sig"), "").unwrap(),
                _ => std::os::unix::fs::symlink("elsewhere", f.temp.path().join(".kms-sig")).unwrap(),
            }
            let said = remove(&f, &[f.part("a")]).unwrap_err();
            assert_eq!(recover(&f.private).unwrap_err().to_string(), said.to_string());
            assert!(said.to_string().starts_with(
                "cannot use (it must be a directory of the daemon's own, mode 0700; remove it)"
            ));
            assert!(f.there("a") && f.there(".kms-sig"));
            assert_eq!(fs::read_dir(f.temp.path().join("elsewhere")).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_put_there_meanwhile_is_put_back() {
        let f = Fixture::new(&["a", "a.sig"]);
        let parts = [f.part("a"), f.part("a.sig")];
        fs::write(f.temp.path().join("new"), "another").unwrap();
        fs::rename(f.temp.path().join("new"), f.temp.path().join("a")).unwrap();
        assert_eq!(remove(&f, &parts).unwrap(), Removed::Changed);
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "another");
        assert!(f.there("a.sig"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn s3_what_was_rewritten_and_dated_back_is_not_removed() {
        let f = Fixture::new(&["a", "a.sig"]);
        let parts = [f.part("a"), f.part("a.sig")];
        let before = fs::metadata(f.temp.path().join("a")).unwrap().modified().unwrap();
        fs::write(f.temp.path().join("a"), "b").unwrap();
        let file = fs::File::options().write(true).open(f.temp.path().join("a")).unwrap();
        file.set_modified(before).unwrap();
        // Until the clock that ctime is taken from has moved on (a tick of it is some milliseconds).
        while f.part("a").identity.ctime == parts[0].identity.ctime {
            file.set_modified(before).unwrap();
        }
        assert_eq!(remove(&f, &parts).unwrap(), Removed::Changed);
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "b");
    }

    #[test]
    fn p4_a_step_that_fails_puts_the_others_back() {
        let f = Fixture::new(&["a", "d/a.sig"]);
        let parts = [f.part("a"), f.part("d/a.sig")];
        fs::rename(f.temp.path().join("d"), f.temp.path().join("e")).unwrap();
        remove(&f, &parts).unwrap_err();
        assert!(f.there("a") && f.there("e/a.sig"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn a_directory_that_took_a_files_place_is_put_back_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let f = Fixture::new(&[".kms-sig/one/d/f/theirs/deep", ".kms-sig/two/g/theirs", "g"]);
        fs::create_dir(f.temp.path().join("d")).unwrap();
        fs::set_permissions(f.temp.path().join(".kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(recover(&f.private).unwrap().len(), 0, "and a name that is taken is no trouble");
        assert!(f.there("d/f/theirs/deep") && f.there("g") && f.there(".kms-sig/two/g/theirs"));
        fs::remove_file(f.temp.path().join("g")).unwrap();
        recover(&f.private).unwrap();
        assert!(f.there("g/theirs"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn what_finds_its_name_taken_comes_back_when_it_is_free() {
        let f = Fixture::new(&["d/f", "q/payload"]);
        let path = RelPath::new("d/f").unwrap();
        let from = f.root.descend(Path::new("q")).unwrap();
        shelter(&f.private, &path, &from, OsStr::new("payload")).unwrap();
        // Work under way is not disturbed.
        f.folder().make_new_dir(OsStr::new("running"), 0o700).unwrap();
        fs::write(f.temp.path().join(".kms-sig/running/g"), "g").unwrap();
        assert_eq!(f.bring_back(), 1);
        assert_eq!(fs::read_to_string(f.temp.path().join("d/f")).unwrap(), "d/f", "never replaced");
        assert_eq!(f.claims(), 2);
        fs::remove_file(f.temp.path().join("d/f")).unwrap();
        assert_eq!(f.bring_back(), 0);
        assert_eq!(fs::read_to_string(f.temp.path().join("d/f")).unwrap(), "q/payload");
        assert!(f.there(".kms-sig/running/g") && !f.there("g"));
        assert_eq!(f.claims(), 1);
    }

    #[test]
    fn p4_a_restart_finishes_or_undoes() {
        let f =
            Fixture::new(&["a", ".kms-sig/one/d/b", ".kms-sig/two.done/c", ".kms-sig/three/a", ".kms-sig/0"]);
        fs::create_dir(f.temp.path().join("d")).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(f.temp.path().join(".kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(recover(&f.private).unwrap().len(), 1, "what is no claim stops nothing");
        fs::remove_file(f.temp.path().join(".kms-sig/0")).unwrap();
        assert!(f.there("d/b") && !f.there("c"));
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "a", "never replaced");
        assert!(f.there(".kms-sig/three/a"), "kept until its name is free");
        fs::remove_file(f.temp.path().join("a")).unwrap();
        recover(&f.private).unwrap();
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), ".kms-sig/three/a");
        assert_eq!(f.claims(), 0);
    }
}
