//! Delivery: publishing the private copy that was hashed, signature first, never over anything.
//!
//! Every step may be repeated after a kill (P4): an equal pair at the destination is success, as
//! soon as it is durable and if nobody else could change it. Nothing is published without a
//! [`Warrant`], which only a valid verdict or a signature just made gives (P1).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use crate::fs::chown::Owner;
use crate::fs::copy::{Hashed, Pass};
use crate::fs::flush::Flusher;
use crate::fs::{Dir, Fitness, FsError, OpenError, Place, Publish, RelPath, Staging, Stat, trust};
use crate::hold::Conflict;
use crate::signature::{MAX_LEN, Signature};
use crate::sink::Delivered;
use crate::sink::warrant::Warrant;
use crate::source::directory::signature_file::read_open;

/// Publishes `staging`, whose content has the digest `hashed`, as `path` below `root` with its
/// signature.
///
/// # Errors
/// Any step's. Then nothing new is visible, or the signature alone, which the next attempt
/// continues from.
pub(crate) fn deliver(
    root: &Dir,
    path: &RelPath,
    staging: &Staging,
    hashed: &Hashed,
    warrant: &Warrant,
    mode: u32,
    disk: &Flusher,
) -> Result<Delivered, FsError> {
    if !hashed.digest.matches(warrant.digest().as_bytes()) {
        return Ok(Delivered::NotWarranted);
    }
    let place = match open_place(root, path.parent()) {
        // Nothing goes through it (A22), and only a person can take it away.
        Err(e) if e.is_no_directory() => {
            return Ok(Delivered::Conflict(Conflict::NoWay));
        }
        opened => opened?,
    };
    let mut put = Vec::new();
    let delivered = deliver_to(&place, root, path, staging, hashed, warrant, mode, disk, &mut put);
    if delivered.as_ref().is_err_and(FsError::is_moved) {
        // It is not where it belongs, and was not reported as delivered.
        for (name, stat) in put.iter().rev() {
            place.remove_own(name, stat)?;
        }
    }
    delivered
}

/// [`deliver`], in a directory that is open. `put` is then what was published in it.
#[expect(clippy::too_many_arguments, reason = "one step of `deliver`, which has them all")]
fn deliver_to(
    place: &Place,
    root: &Dir,
    path: &RelPath,
    staging: &Staging,
    hashed: &Hashed,
    warrant: &Warrant,
    mode: u32,
    disk: &Flusher,
    put: &mut Vec<(OsString, Stat)>,
) -> Result<Delivered, FsError> {
    let (dir, name) = (place.looking(), path.name());
    let signature_name = warrant.signature().name_beside(name);
    let wanted = Wanted { owner: Owner::current(), mode };
    let there = look_at_payload(dir, name, hashed, wanted)?;
    if let Some(what) = there.conflict() {
        return Ok(Delivered::Conflict(what));
    }
    let payload_is_there = there == Existing::Equal;

    let signature = Staging::below(root, path.parent())?.and_holding(warrant.signature().as_bytes())?;
    place.give_group(&signature)?;
    signature.set_mode(mode & 0o666)?; // a signature is not executable
    place.give_group(staging)?;
    staging.set_mode(mode)?;
    disk.flush(&[signature.written(), staging.written()])?;
    let published = place.publish(&signature, &signature_name);
    if !matches!(published, Ok(Publish::Exists)) {
        warrant.publishing();
    }
    if published? == Publish::Done {
        put.push((signature_name.clone(), signature.stat()?));
    } else {
        let there = read_signature(dir, &signature_name, wanted)?;
        match there.met_by(Some(warrant.signature()), payload_is_there) {
            None => {}
            Some(beside @ Delivered::Beside(_)) => return disk.flush(&[place.written()]).map(|()| beside),
            Some(other) => return Ok(other),
        }
    }
    if !payload_is_there {
        if place.publish(staging, name)? == Publish::Done {
            put.push((name.to_owned(), staging.stat()?));
        } else {
            // Another process was first; our signature stays only if it is for the payload that is
            // there.
            let taken = match look_at_payload(dir, name, hashed, wanted)? {
                Existing::Equal => return disk.flush(&[place.written()]).map(|()| Delivered::Done),
                Existing::Loose => Conflict::Loose,
                Existing::Nothing | Existing::Other => Conflict::Taken,
            };
            for (name, stat) in put.drain(..) {
                place.remove_own(&name, &stat)?;
            }
            return Ok(Delivered::Conflict(taken));
        }
    }
    disk.flush(&[place.written()])?;
    place.confirm().map(|()| Delivered::Done)
}

/// Opens the directory that a file goes to, making what is missing, all of it durable: what is
/// there may have been made by a process that was killed before it could see to that.
fn open_place(root: &Dir, below: &Path) -> Result<Place, FsError> {
    let mut dir = root.clone();
    for component in below.components() {
        let next = dir.descend_creating(Path::new(component.as_os_str()))?;
        dir.sync()?;
        dir = next;
    }
    Place::of(root, below, dir)
}

/// What would keep `hashed` from being published as `path` below `root`, as things stand: another
/// file has its name.
///
/// # Errors
/// What opening and reading what is there says.
pub(crate) fn obstacle(
    root: &Dir,
    path: &RelPath,
    hashed: &Hashed,
    mode: u32,
) -> Result<Option<Conflict>, FsError> {
    let wanted = Wanted { owner: Owner::current(), mode };
    Ok(match destination(root, path)? {
        Destination::Missing => None,
        Destination::NoWay => Some(Conflict::NoWay),
        Destination::There(dir) => look_at_payload(&dir, path.name(), hashed, wanted)?.conflict(),
    })
}

/// A pair that may be published, as far as it is known without reading its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prospective<'a> {
    /// Where, below the destination.
    pub(crate) path: &'a RelPath,
    /// The size of the payload.
    pub(crate) size: u64,
    /// What the signature would be called.
    pub(crate) signature_name: &'a OsStr,
    /// The signature, unless it is still to be made.
    pub(crate) signature: Option<&'a Signature>,
    /// The mode that the payload would have.
    pub(crate) mode: u32,
}

/// Every result that publishing a pair below `root` may have now; more than one where contents
/// would be compared. Changes nothing, and reads no payload.
///
/// # Errors
/// What opening and reading what is there says.
pub(crate) fn foresee(root: &Dir, pair: Prospective<'_>) -> Result<Vec<Delivered>, FsError> {
    let dir = match destination(root, pair.path)? {
        Destination::Missing => return Ok(vec![Delivered::Done]),
        Destination::NoWay => return Ok(vec![Delivered::Conflict(Conflict::NoWay)]),
        Destination::There(dir) => dir,
    };
    let wanted = Wanted { owner: Owner::current(), mode: pair.mode };
    let name = pair.path.name();
    let payloads: &[Existing] = match of_size(&dir, name, pair.size)? {
        OfSize::Nothing => &[Existing::Nothing],
        OfSize::Other => &[Existing::Other],
        OfSize::Same(_, stat) if wanted.is_met_by(&stat, &dir.path().join(name)) => {
            &[Existing::Equal, Existing::Other]
        }
        OfSize::Same(..) => &[Existing::Loose, Existing::Other],
    };
    let signature = match dir.stat_of(pair.signature_name)? {
        None => None,
        Some(_) => Some(look_at_signature(&dir, pair.signature_name, wanted)?.0),
    };
    let published = |there: &Existing| match (there.conflict(), &signature) {
        (Some(what), _) => Delivered::Conflict(what),
        (None, None) => Delivered::Done,
        (None, Some(beside)) => {
            beside.met_by(pair.signature, *there == Existing::Equal).unwrap_or(Delivered::Done)
        }
    };
    Ok(payloads.iter().map(published).collect())
}

/// The directory that something is published in.
enum Destination {
    There(Dir),
    /// It would be made.
    Missing,
    /// It cannot be.
    NoWay,
}

fn destination(root: &Dir, path: &RelPath) -> Result<Destination, FsError> {
    match root.descend(path.parent()) {
        Ok(dir) => Ok(Destination::There(dir)),
        Err(e) if e.is_not_found() => Ok(Destination::Missing),
        Err(e) if e.is_no_directory() => Ok(Destination::NoWay),
        Err(e) => Err(e),
    }
}

/// Removes a signature without payload that the caller knows for its own leftover; `false` if that
/// cannot be done without the risk of removing another file, which somebody puts in its place at
/// that moment.
///
/// # Errors
/// Any step's.
pub(crate) fn remove_orphan(root: &Dir, path: &RelPath, known: &Signature) -> Result<bool, FsError> {
    let place = Place::open(root, path.parent())?;
    let name = known.name_beside(path.name());
    let fitness = Fitness { max_size: MAX_LEN as u64, max_links: u32::MAX, owners: None };
    let (file, stat) = match place.open_file(&name, &fitness) {
        Err(OpenError::Gone) => return Ok(true),
        Err(OpenError::Unfit(_)) => return Ok(false),
        Err(OpenError::Io(e)) => return Err(e),
        Ok(opened) => opened,
    };
    match read_open(&file, place.looking(), &name) {
        Ok(read) if read.parsed.as_ref() == Ok(known) => place.remove_own(&name, &stat),
        Err(OpenError::Io(e)) => Err(e),
        Ok(_) | Err(OpenError::Gone | OpenError::Unfit(_)) => Ok(false),
    }
}

/// What has a name at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Nothing,
    /// Equal, durable, and nobody else's to change.
    Equal,
    /// Equal, but others could change it.
    Loose,
    Other,
}

impl Existing {
    /// What keeps another file from being published there, or the same from counting as published.
    const fn conflict(self) -> Option<Conflict> {
        match self {
            Self::Nothing | Self::Equal => None,
            Self::Loose => Some(Conflict::Loose),
            Self::Other => Some(Conflict::Taken),
        }
    }
}

/// Whose an equal file has to be, and which permissions it may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) owner: Owner,
    pub(crate) mode: u32,
}

impl Wanted {
    /// Whether a file is as safe from others as the one that would be published in its place.
    fn is_met_by(self, stat: &Stat, path: &Path) -> bool {
        let beyond = Stat { mode: stat.mode & !self.mode, ..*stat };
        stat.links == 1
            && trust::check_owner(path, stat, self.owner).is_ok()
            && trust::check_mode(path, &beyond, self.owner, false).is_ok()
    }
}

/// Compares what is there, if anything, with a file that was hashed, and makes it durable if it is
/// equal: whoever put it there may not have, and the source is removed on its account (P4).
pub(crate) fn look_at_payload(
    dir: &Dir,
    name: &OsStr,
    hashed: &Hashed,
    wanted: Wanted,
) -> Result<Existing, FsError> {
    let (file, stat) = match of_size(dir, name, hashed.size)? {
        OfSize::Nothing => return Ok(Existing::Nothing),
        OfSize::Other => return Ok(Existing::Other),
        OfSize::Same(file, stat) => (file, stat),
    };
    let path = dir.path().join(name);
    match Pass::new(&path, hashed.size).hash(&file) {
        Ok(there) if !there.digest.matches(hashed.digest.as_bytes()) => Ok(Existing::Other),
        Ok(_) if wanted.is_met_by(&stat, &path) => sync(&file, &path).map(|()| Existing::Equal),
        Ok(_) => Ok(Existing::Loose),
        Err(OpenError::Unfit(_) | OpenError::Gone) => Ok(Existing::Other),
        Err(OpenError::Io(e)) => Err(e),
    }
}

/// What has a name, as far as its size tells.
enum OfSize {
    Nothing,
    Same(File, Stat),
    Other,
}

fn of_size(dir: &Dir, name: &OsStr, size: u64) -> Result<OfSize, FsError> {
    let same_size = Fitness { max_size: size, max_links: u32::MAX, owners: None };
    match dir.open_file(name, &same_size) {
        Ok((file, stat)) if stat.identity.size == size => Ok(OfSize::Same(file, stat)),
        Ok(_) | Err(OpenError::Unfit(_)) => Ok(OfSize::Other),
        Err(OpenError::Gone) => Ok(OfSize::Nothing),
        Err(OpenError::Io(e)) => Err(e),
    }
}

fn sync(file: &File, path: &Path) -> Result<(), FsError> {
    rustix::fs::fsync(file).map_err(|source| FsError { action: "sync".into(), path: path.to_owned(), source })
}

/// What has a signature's name at a destination.
enum ExistingSignature {
    /// What can be one, durable and nobody else's to change.
    Of(Signature),
    /// What can be one, but others could change it.
    Loose,
    /// What can be none.
    None,
}

impl ExistingSignature {
    /// What comes of it where `ours` is to stand, which may still have to be made. `None`: it is
    /// `ours`.
    fn met_by(&self, ours: Option<&Signature>, payload_is_there: bool) -> Option<Delivered> {
        match self {
            Self::Of(there) if Some(there) == ours => None,
            Self::Of(there) if payload_is_there => Some(Delivered::Beside(there.clone())),
            Self::Of(there) => Some(Delivered::Orphan(there.clone())),
            Self::Loose => Some(Delivered::Conflict(Conflict::LooseSignature)),
            Self::None => Some(Delivered::Conflict(Conflict::NoSignature)),
        }
    }
}

/// What has a signature's name, made durable if it can be one.
fn read_signature(dir: &Dir, name: &OsStr, wanted: Wanted) -> Result<ExistingSignature, FsError> {
    let (there, file) = look_at_signature(dir, name, wanted)?;
    if let (ExistingSignature::Of(_), Some(file)) = (&there, file) {
        sync(&file, &dir.path().join(name))?;
    }
    Ok(there)
}

/// What has a signature's name, and the file if it is one.
fn look_at_signature(
    dir: &Dir,
    name: &OsStr,
    wanted: Wanted,
) -> Result<(ExistingSignature, Option<File>), FsError> {
    let fitness = Fitness { max_size: MAX_LEN as u64, max_links: u32::MAX, owners: None };
    let read = dir.open_file(name, &fitness).and_then(|(file, stat)| {
        let there = match read_open(&file, dir, name)?.parsed {
            Err(_) => ExistingSignature::None,
            Ok(_) if !wanted.is_met_by(&stat, &dir.path().join(name)) => ExistingSignature::Loose,
            Ok(signature) => ExistingSignature::Of(signature),
        };
        Ok((there, Some(file)))
    });
    match read {
        Err(OpenError::Unfit(_) | OpenError::Gone) => Ok((ExistingSignature::None, None)),
        Err(OpenError::Io(e)) => Err(e),
        Ok(read) => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A destination, and a staged payload with its signature.
    struct Fixture {
        temp: tempfile::TempDir,
        root: Dir,
        staging: Staging,
        hashed: Hashed,
        signature: Signature,
    }

    impl Fixture {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let root = Dir::open(temp.path()).unwrap();
            let staging = Staging::holding(&root, b"content").unwrap();
            let hashed = hash_of(b"content");
            Self { temp, root, staging, hashed, signature: Signature::parse(b"its signature").unwrap() }
        }

        fn put(&self, name: &str, content: &str) {
            let path = self.temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = fs::File::create(path).unwrap();
            std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        }

        fn deliver(&self, path: &str) -> Result<Delivered, FsError> {
            let warrant = Warrant::of(&self.hashed.digest, &self.signature);
            let path = RelPath::new(path).unwrap();
            deliver(
                &self.root,
                &path,
                &self.staging,
                &self.hashed,
                &warrant,
                0o755,
                &Flusher::new(&self.root).unwrap(),
            )
        }

        fn obstacle(&self, path: &str) -> Option<Conflict> {
            obstacle(&self.root, &RelPath::new(path).unwrap(), &self.hashed, 0o755).unwrap()
        }

        /// Mode and content of what is at a name.
        fn there(&self, name: &str) -> Option<(u32, String)> {
            let path = self.temp.path().join(name);
            let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o7777;
            Some((mode, fs::read_to_string(path).unwrap()))
        }
    }

    fn hash_of(bytes: &[u8]) -> Hashed {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Pass::new(Path::new("f"), u64::MAX).hash(&file).unwrap()
    }

    #[test]
    fn publishing_has_one_of_the_foreseen_results() {
        for (path, payload, signature) in [
            ("f", None, None),
            ("f", Some("content"), None),
            ("f", Some("CONTENT"), None),
            ("f", Some("another size"), None),
            ("f", Some("content"), Some("its signature")),
            ("f", Some("content"), Some("another")),
            ("f", Some("content"), Some("")),
            ("f", None, Some("its signature")),
            ("f", None, Some("another")),
            ("f", None, Some("")),
            ("new/f", None, None),
            ("f/below", Some("content"), None),
        ] {
            let f = Fixture::new();
            let beside = |text: Option<&str>, name| text.into_iter().for_each(|text| f.put(name, text));
            beside(payload, "f");
            beside(signature, "f.sig");
            let to = RelPath::new(path).unwrap();
            let pair = Prospective {
                path: &to,
                size: f.hashed.size,
                signature_name: &f.signature.name_beside(to.name()),
                signature: Some(&f.signature),
                mode: 0o755,
            };
            let foreseen: Vec<_> =
                foresee(&f.root, pair).unwrap().iter().map(|way| format!("{way:?}")).collect();
            let done = format!("{:?}", f.deliver(path).unwrap());
            assert!(foreseen.contains(&done), "{path} {payload:?} {signature:?}: {foreseen:?} {done}");
            // Only what is in the way by its content is not foreseen for sure.
            assert_eq!(foreseen.len() > 1, payload.is_some_and(|there| there.len() == 7) && path == "f");
        }
    }

    #[test]
    fn both_are_published_with_their_modes() {
        let f = Fixture::new();
        assert_eq!(f.obstacle("d/f"), None, "where nothing is, not even the directory");
        assert!(matches!(f.deliver("d/f").unwrap(), Delivered::Done));
        assert_eq!(f.there("d/f").unwrap(), (0o755, "content".into()));
        assert_eq!(f.there("d/f.sig").unwrap(), (0o644, "its signature".into()), "not executable");
    }

    #[test]
    fn p4_whatever_a_kill_left_is_completed() {
        for left in [&["f.sig"][..], &["f"], &["f", "f.sig"]] {
            let f = Fixture::new();
            for name in left {
                f.put(name, if *name == "f" { "content" } else { "its signature" });
            }
            assert_eq!(f.obstacle("f"), None);
            assert!(matches!(f.deliver("f").unwrap(), Delivered::Done), "{left:?}");
            assert_eq!(f.there("f").unwrap().1, "content");
            assert_eq!(f.there("f.sig").unwrap().1, "its signature");
        }
    }

    #[test]
    fn a20_an_equal_file_with_another_signature_is_for_the_caller_to_judge() {
        let f = Fixture::new();
        f.put("f", "content");
        f.put("f.sig", "another");
        let Delivered::Beside(there) = f.deliver("f").unwrap() else { panic!("not beside") };
        assert_eq!(there.as_bytes(), b"another");
        assert_eq!(f.there("f.sig").unwrap().1, "another");
    }

    #[test]
    fn a20_an_equal_file_that_others_could_change_is_a_conflict() {
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for what in ["mode", "links", "set-id"] {
            let loosen = |path: &Path| match what {
                "mode" => chmod(path, 0o757),
                "links" => fs::hard_link(path, path.with_file_name("other")).unwrap(),
                _ => chmod(path, 0o4755),
            };
            for name in ["f", "f.sig"] {
                let f = Fixture::new();
                f.put("f", "content");
                f.put("f.sig", "its signature");
                loosen(&f.temp.path().join(name));
                assert_eq!(f.obstacle("f").is_some(), name == "f", "{what} of {name}");
                assert!(matches!(f.deliver("f").unwrap(), Delivered::Conflict(_)), "{what} of {name}");
            }
        }
        // What the rule itself would make so is no looser.
        let f = Fixture::new();
        f.put("f", "content");
        fs::set_permissions(f.temp.path().join("f"), fs::Permissions::from_mode(0o666)).unwrap();
        let wanted = |mode| Wanted { owner: Owner::current(), mode };
        let look = |mode| look_at_payload(&f.root, OsStr::new("f"), &f.hashed, wanted(mode)).unwrap();
        assert!(matches!((look(0o666), look(0o664)), (Existing::Equal, Existing::Loose)));
    }

    #[test]
    fn a_signature_alone_that_is_another_is_left_until_the_caller_knows_it() {
        let f = Fixture::new();
        f.put("f.sig", "another");
        assert!(matches!(f.deliver("f").unwrap(), Delivered::Orphan(_)));
        assert_eq!((f.there("f"), f.there("f.sig").unwrap().1), (None, "another".into()));
        let (path, another) = (RelPath::new("f").unwrap(), Signature::parse(b"another").unwrap());
        assert!(!remove_orphan(&f.root, &path, &f.signature).unwrap(), "one that nobody knows");
        let chmod = |mode| fs::set_permissions(f.temp.path(), fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o777);
        assert!(!remove_orphan(&f.root, &path, &another).unwrap(), "others could have swapped it");
        assert!(f.there("f.sig").is_some());
        chmod(0o755);
        assert!(remove_orphan(&f.root, &path, &another).unwrap());
        assert!(matches!(f.deliver("f").unwrap(), Delivered::Done));
    }

    #[test]
    fn p9_what_was_published_in_a_directory_that_was_moved_away_is_taken_back() {
        let f = Fixture::new();
        let place = open_place(&f.root, Path::new("sub")).unwrap();
        let (stat, name) = (f.staging.stat().unwrap(), OsStr::new("f"));
        assert_eq!(place.publish(&f.staging, name).unwrap(), Publish::Done);
        fs::rename(f.temp.path().join("sub"), f.temp.path().join("old")).unwrap();
        assert!(place.confirm().unwrap_err().is_moved());
        assert!(place.remove_own(name, &stat).unwrap() && f.there("old/f").is_none());
        let warrant = Warrant::of(&f.hashed.digest, &f.signature);
        let disk = Flusher::new(&f.root).unwrap();
        let path = RelPath::new("sub/f").unwrap();
        let (mut put, staging) = (Vec::new(), Staging::holding(&f.root, b"content").unwrap());
        let moved = deliver_to(&place, &f.root, &path, &staging, &f.hashed, &warrant, 0o644, &disk, &mut put);
        assert!(moved.unwrap_err().is_moved() && put.is_empty());
        assert_eq!(fs::read_dir(f.temp.path().join("old")).unwrap().count(), 0);
    }

    #[test]
    fn a21_a_name_that_is_taken_is_a_conflict_and_nothing_is_changed() {
        // The same size, so that only its content tells.
        for other in ["CONTENT", "content and more", ""] {
            let f = Fixture::new();
            f.put("f", other);
            assert_eq!(f.obstacle("f"), Some(Conflict::Taken), "{other}");
            assert!(matches!(f.deliver("f").unwrap(), Delivered::Conflict(Conflict::Taken)), "{other}");
            assert_eq!((f.there("f").unwrap().1, f.there("f.sig")), (other.into(), None));
        }
    }

    #[test]
    fn a22_links_and_files_in_the_way_are_conflicts_and_not_gone_through() {
        let f = Fixture::new();
        f.put("elsewhere/f", "content");
        symlink("elsewhere/f", f.temp.path().join("f")).unwrap();
        symlink("elsewhere", f.temp.path().join("d")).unwrap();
        f.put("file", "");
        for path in ["f", "d/f", "file/f"] {
            assert!(f.obstacle(path).is_some(), "{path}");
            assert!(matches!(f.deliver(path).unwrap(), Delivered::Conflict(_)), "{path}");
        }
        symlink("nowhere", f.temp.path().join("g.sig")).unwrap();
        assert!(matches!(f.deliver("g").unwrap(), Delivered::Conflict(_)));
        assert_eq!(f.there("g"), None);
        assert_eq!(fs::read_dir(f.temp.path().join("elsewhere")).unwrap().count(), 1);
    }

    #[test]
    fn p1_a_warrant_for_other_bytes_delivers_nothing() {
        let f = Fixture::new();
        let other = hash_of(b"other");
        let warrant = Warrant::of(&other.digest, &f.signature);
        let path = RelPath::new("f").unwrap();
        let delivered =
            deliver(&f.root, &path, &f.staging, &f.hashed, &warrant, 0o644, &Flusher::new(&f.root).unwrap())
                .unwrap();
        assert!(matches!(delivered, Delivered::NotWarranted));
        assert_eq!((f.there("f"), f.there("f.sig")), (None, None));
    }

    #[test]
    fn a_directory_that_cannot_be_opened_is_an_error_and_no_conflict() {
        let f = Fixture::new();
        let name = "d".repeat(256); // ENAMETOOLONG
        f.deliver(&format!("{name}/f")).unwrap_err();
        obstacle(&f.root, &RelPath::new(format!("{name}/f")).unwrap(), &f.hashed, 0o755).unwrap_err();
    }
}
