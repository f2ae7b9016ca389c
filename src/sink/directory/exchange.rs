//! One exchange with a directory that is somebody else's, by way of the private folder.
//!
//! What comes out of such a directory may be anything: between a look at a name and the next step
//! its owner may put another file there. So a new signature is laid into a folder
//! `.kms-sig/HEX.DIGESTS.swap`, and swapped from there: whatever comes out lies in the private
//! folder at every instant, under the path it came from, and is compared there, where nobody can
//! change it. The folder's name says what in it may be removed, by the digests (SHA-512, its first
//! half) of the signatures that this program made or was to replace. All else goes back to where it
//! came from, or waits until it can; and that is all that a restart has to know after a kill at any
//! point.
//!
//! The folder is locked while it is in use, so that nobody takes it for a leftover.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::Path;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::fs::lease;
use crate::fs::lease::Writer;
use crate::fs::private::{Folder, Private};
use crate::fs::staging::{RESERVED_PREFIX, random_hex};
use crate::fs::{Dir, Fitness, FsError, OpenError, Place, RelPath};
use crate::signature::{MAX_LEN, Signature};
use crate::sink::directory::tree;

const SWAP: &str = "swap";

/// Bytes of each digest in a folder's name: 256 bits, and two of them fit a name in hexadecimal.
const HALF: usize = 32;

/// The digests of what may be removed, their first halves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removable(Vec<[u8; HALF]>);

impl Removable {
    pub(crate) fn of(signatures: &[&Signature]) -> Self {
        Self(signatures.iter().map(|signature| first_half(&signature.digest())).collect())
    }

    /// A file whose SHA-512 is this.
    pub(crate) fn one(digest: &Digest) -> Self {
        Self(vec![first_half(digest)])
    }

    /// What the name of a folder says; `None` if it is none of an exchange.
    pub(crate) fn of_folder(id: &OsStr) -> Option<Self> {
        let mut parts = id.to_str()?.split('.');
        let (_hex, last) = (parts.next()?, parts.next_back()?);
        let half = |part: &str| hex::decode(part).ok()?.try_into().ok(); // what is no digest is that of no file
        (last == SWAP).then(|| Self(parts.filter_map(half).collect()))
    }

    fn folder(&self) -> OsString {
        let parts = self.0.iter().map(hex::encode).chain([SWAP.to_owned()]);
        OsString::from(parts.fold(random_hex(), |name, part| name + "." + &part))
    }

    /// Whether a file in a directory holds just that, and nobody has it open to change it. A file
    /// that may not be read counts as another one.
    ///
    /// # Errors
    /// It cannot be read, so it is unknown.
    pub(crate) fn holds(&self, dir: &Dir, name: &OsStr) -> Result<bool, FsError> {
        let fitness = Fitness { max_size: MAX_LEN as u64, max_links: u32::MAX, owners: None };
        let file = match dir.open_file(name, &fitness) {
            Err(OpenError::Gone | OpenError::Unfit(_)) => return Ok(false),
            Err(OpenError::Io(e)) if [Errno::ACCESS, Errno::PERM, Errno::WOULDBLOCK].contains(&e.source) => {
                return Ok(false); // another user's unreadable file, or one with a lease
            }
            Err(OpenError::Io(e)) => return Err(e),
            Ok((file, _)) => file,
        };
        if lease::probe(&file) == Writer::Present {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|e| FsError {
            action: "read".into(),
            path: dir.path().join(name),
            source: Errno::from_io_error(&e).unwrap_or(Errno::IO),
        })?;
        let digest = Digest::of(&bytes);
        Ok(self.0.iter().any(|half| digest.begins_with(half)))
    }
}

fn first_half(digest: &Digest) -> [u8; HALF] {
    let mut half = [0; HALF];
    half.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

/// A folder for one exchange. Whoever drops it without [`Work::finish`] leaves it to [`settle`].
#[derive(Debug)]
pub(crate) struct Work {
    folder: Folder,
    id: OsString,
    dir: Dir,
    removable: Removable,
}

impl Work {
    /// A new one, locked.
    ///
    /// # Errors
    /// The private folder cannot be used, or nothing made in it.
    pub(crate) fn new(private: &Private, removable: Removable) -> Result<Self, FsError> {
        let (folder, id) = (private.open()?, removable.folder());
        let dir = {
            let _preparing = folder.making();
            let dir = folder.dir().make_new_dir(&id, 0o700)?;
            dir.lock().inspect_err(|_| folder.dir().remove_dir(&id).unwrap_or_default())?;
            dir
        };
        Ok(Self { folder, id, dir, removable })
    }

    /// Its directory. What lies directly in it under a name of this program's own is this
    /// program's.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The directory in it that mirrors the one of a path.
    ///
    /// # Errors
    /// What mkdir(2) and fsync(2) say.
    pub(crate) fn mirror(&self, path: &RelPath) -> Result<Dir, FsError> {
        self.dir.descend_creating(path.parent())
    }

    /// Makes durable that it is there, with its name.
    ///
    /// # Errors
    /// What fsync(2) says.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        self.dir.sync()?;
        self.folder.dir().sync()
    }

    /// Removes what may be removed and puts back the rest, to the directory that it came from; what
    /// cannot go back waits for [`settle`]. Whether nothing does.
    ///
    /// # Errors
    /// Any step's; then the rest waits as well.
    pub(crate) fn finish(self, from: &Place) -> Result<bool, FsError> {
        // Of the folders that mirror the way to it nothing goes there.
        let give = |dir: &Dir, name: &OsStr, below: &Path| match below == from.below() {
            true => give(&self.removable, dir, name, from),
            false => Ok(()),
        };
        settle_by(&self.dir, &self.removable, give)?;
        tree::remove_if_empty(self.folder.dir(), &self.id)
    }
}

/// Ends an exchange that was cut short, in the folder `id` of `parent`, unless somebody is at it.
/// Whether nothing of it is left.
///
/// # Errors
/// Any step's; then the rest waits.
pub(crate) fn settle(parent: &Dir, id: &OsStr, removable: &Removable, root: &Dir) -> Result<bool, FsError> {
    let dir = match parent.descend(Path::new(id)) {
        Err(e) if e.is_not_found() => return Ok(true), // ended meanwhile
        dir => dir?,
    };
    if !dir.lock()? {
        return Ok(true); // another process is working on it
    }
    settle_by(&dir, removable, |dir, name, below| match Place::open(root, below) {
        Err(e) if tree::is_taken(&e) => Ok(()),
        to => give(removable, dir, name, &to?),
    })?;
    tree::remove_if_empty(parent, id)
}

fn settle_by(
    dir: &Dir,
    removable: &Removable,
    mut give: impl FnMut(&Dir, &OsStr, &Path) -> Result<(), FsError>,
) -> Result<(), FsError> {
    tree::for_each(dir, Path::new(""), &mut |dir, name, below| {
        let is_reserved = name.as_encoded_bytes().starts_with(RESERVED_PREFIX.as_bytes());
        if is_reserved && below.as_os_str().is_empty() || removable.holds(dir, name)? {
            return dir.unlink(name);
        }
        give(dir, name, below)
    })
}

/// Puts something back to its name. If what stands there is removable, an exchange was cut short,
/// and is made undone.
fn give(removable: &Removable, from: &Dir, name: &OsStr, to: &Place) -> Result<(), FsError> {
    match to.put_back(from, name, name) {
        Err(e) if e.source == Errno::EXIST && removable.holds(to.looking(), name)? => {
            match to.swap_back(name, from, name) {
                Err(e) if e.is_not_found() || e.source == Errno::INVAL => return Ok(()), // next time
                swapped => swapped?,
            }
            // Of a file that was put there since the look, the name is taken by now.
            if removable.holds(from, name)? { from.unlink(name) } else { Ok(()) }
        }
        Err(e) if tree::is_taken(&e) => Ok(()),
        given => given,
    }
}

/// Removes a temporary name of an earlier version from a directory if the file is `ours`. Any other
/// file gets a name that a person and a scan find, because its former name is unknown.
///
/// # Errors
/// Any step's.
pub(crate) fn dissolve(private: &Private, path: &RelPath, ours: Option<&Digest>) -> Result<(), FsError> {
    let place = Place::open(private.root(), path.parent())?;
    let work = Work::new(private, ours.map(Removable::one).unwrap_or_default())?;
    let to = work.mirror(path)?;
    let visible = recovered_name(path.name());
    match place.take(path.name(), &to, &visible) {
        Err(e) if e.is_not_found() => {}
        taken => taken?,
    }
    work.finish(&place).map(drop)
}

fn recovered_name(stand_in: &OsStr) -> OsString {
    let mut name = OsString::from("kms-sig-recovered");
    let rest = stand_in.as_encoded_bytes().strip_prefix(RESERVED_PREFIX.as_bytes()).unwrap_or_default();
    name.push(String::from_utf8_lossy(rest).as_ref());
    name
}

/// The digest of what has a stand-in name, if it is a file of our own user and no longer than any
/// signature.
pub(crate) fn digest_of_stand_in(private: &Private, path: &RelPath) -> Option<Digest> {
    let owners = Some(vec![rustix::process::geteuid().as_raw()]);
    let fitness = Fitness { max_size: MAX_LEN as u64, max_links: u32::MAX, owners };
    let place = Place::open(private.root(), path.parent()).ok()?;
    let (file, _) = place.open_file(path.name(), &fitness).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(Digest::of(&bytes))
}
