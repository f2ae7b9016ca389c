//! The record of an item: why it is in quarantine, and what it was.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::clock::{self, FileTime};
use crate::escape::Escaped;
use crate::fs::{Dir, Fitness, FsError, RelPath, Staging, Stat};
use crate::signature::Clue;

pub(super) const RECORD: &str = "record.json";

/// The largest record that is read back, in bytes; ours have about 2,000.
const MAX_RECORD: u64 = 64 * 1024;

/// Why something is in quarantine, and what it was. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of this shape.
    pub version: u32,
    /// The item's folder.
    pub id: String,
    /// When it was put there.
    pub quarantined_at: String,
    /// Always `invalid`; there for readers of many records.
    pub verdict: String,
    /// `mismatch`, `rejected`, `wrong-key`, `malformed`, `missing`.
    pub reason: String,
    /// The rule that judged.
    pub rule: String,
    /// The keys that were asked.
    pub keys: Vec<String>,
    /// SHA-512 of the payload as it was judged.
    pub digest: String,
    /// SHA-512 of the signature as it was judged, unless it is longer than any signature.
    pub signature_digest: Option<String>,
    /// Whether the kernel could say that nobody was writing: `granted` or `unavailable`.
    pub lease: String,
    /// The watched directory, escaped for reading.
    pub root: String,
    /// The payload below it, escaped for reading.
    pub path: String,
    /// The same, byte-exact, in hexadecimal.
    pub path_hex: String,
    /// The watched directory, byte-exact, in hexadecimal.
    pub root_hex: String,
    /// The payload.
    pub payload: PartRecord,
    /// What had its signature's name, if anything. Across mounts, what is longer than any signature
    /// was left there.
    pub signature: Option<PartRecord>,
    /// What looks like a mistake about the signature. Earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clue: Option<ClueRecord>,
}

/// What a signature seems to be that is none, or what seems to be the one that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClueRecord {
    /// `base64`, `base64-in-text`, `hex`, `utf-16`, `checksum`, `misnamed`, `other-program`.
    pub(crate) code: String,
    /// The file that the last two are about, escaped for reading.
    pub(crate) name: Option<String>,
    /// The same, byte-exact, in hexadecimal.
    pub(crate) name_hex: Option<String>,
}

impl From<&Clue> for ClueRecord {
    fn from(clue: &Clue) -> Self {
        Self {
            code: clue.as_str().to_owned(),
            name: clue.name().map(|name| Escaped::new(name).to_string()),
            name_hex: clue.name().map(|name| hex::encode(name.as_bytes())),
        }
    }
}

impl ClueRecord {
    /// What it says; `None` for what this version does not write.
    pub(crate) fn clue(&self) -> Option<Clue> {
        let name = match &self.name_hex {
            Some(digits) => Some(path_of(digits)?.into_os_string()),
            None => None,
        };
        Clue::parse(&self.code, name)
    }
}

/// What one file was when it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Size in bytes.
    pub(crate) size: u64,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Permission bits, octal.
    pub(crate) mode: String,
    /// Last modification.
    pub(crate) modified: String,
    /// Last change of the inode.
    pub(crate) changed: String,
    /// Inode number.
    pub(crate) inode: u64,
}

impl From<&Stat> for PartRecord {
    fn from(stat: &Stat) -> Self {
        Self {
            size: stat.identity.size,
            uid: stat.uid,
            gid: stat.gid,
            mode: format!("{:04o}", stat.mode),
            modified: clock::file_timestamp(stat.identity.mtime),
            changed: clock::file_timestamp(stat.identity.ctime),
            inode: stat.identity.ino,
        }
    }
}

impl PartRecord {
    /// Whether a file is the one described, as far as a rename lets one tell.
    pub(super) fn describes(&self, stat: &Stat) -> bool {
        let now = Self::from(stat);
        (now.inode, now.size, &now.modified) == (self.inode, self.size, &self.modified)
    }

    /// Whether a file is the one described, and nobody has touched it: what its owner cannot set
    /// back is as it was (S3).
    pub(super) fn is_still(&self, stat: &Stat) -> bool {
        self.describes(stat) && Self::from(stat).changed == self.changed
    }
}

impl Record {
    /// The payload's path below its root, byte-exact; `None` if the record does not hold one.
    pub fn relative_path(&self) -> Option<RelPath> {
        RelPath::new(path_of(&self.path_hex)?)
    }

    /// The watched directory it came from, byte-exact; `None` if the record does not hold one.
    pub(crate) fn root_path(&self) -> Option<PathBuf> {
        path_of(&self.root_hex).filter(|root| root.is_absolute())
    }
}

pub(super) fn write_record(item: &Dir, record: &Record) -> Result<(), FsError> {
    let failed =
        |source| FsError { action: "write the record of".into(), path: item.path().to_owned(), source };
    let mut json = serde_json::to_vec_pretty(record).map_err(|_| failed(Errno::INVAL))?;
    json.push(b'\n');
    let staging = Staging::holding(item, &json)?;
    staging.set_mode_and_sync(0o400)?;
    staging.publish_to_ours(item, OsStr::new(RECORD))?;
    item.sync()
}

pub(super) fn read_record(item: &Dir) -> Option<Record> {
    use std::io::Read as _;
    let fitness = Fitness { max_size: MAX_RECORD, max_links: 1, owners: None };
    let (file, _) = item.open_file(OsStr::new(RECORD), &fitness).ok()?;
    let mut json = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The path that a record has in hexadecimal.
pub(super) fn path_of(digits: &str) -> Option<PathBuf> {
    hex::decode(digits).ok().map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

impl Record {
    /// The payload's path, if this is a record that the daemon wrote for the item `id`.
    pub(super) fn hold_together(&self, id: &str) -> Result<RelPath, &'static str> {
        if self.version != 1 {
            return Err("another version of this program wrote its record");
        }
        if self.id != id {
            return Err("its record is about another item");
        }
        let path = self.relative_path().filter(|path| !path.as_bytes().contains(&0));
        if self.root_path().is_none_or(|root| root.as_os_str().as_bytes().contains(&0)) {
            return Err("its record does not say where it came from");
        }
        path.ok_or("its record does not hold a path inside the watched directory")
    }

    /// Whether it was put away longer ago than that, by the wall clock. One whose time cannot be
    /// read is not.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        let at = humantime::parse_rfc3339(&self.quarantined_at).ok();
        at.is_some_and(|at| clock::system_time().duration_since(at).is_ok_and(|gone| gone > age))
    }

    /// The rule's name as it may be shown: it is our own, but so is the record that says so.
    pub(crate) fn shown_rule(&self) -> String {
        Escaped::text(&self.rule).to_string()
    }

    /// The reason as it may be shown.
    pub(crate) fn shown_reason(&self) -> String {
        Escaped::text(&self.reason).to_string()
    }
}

impl PartRecord {
    /// The permission bits that may be given back: none of set-id or sticky, and no right for
    /// others to write. What was verified must not be theirs to change.
    pub(crate) fn safe_mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).map_or(0o600, |mode| mode & 0o755)
    }

    /// The time of last modification, if the record holds one.
    pub(crate) fn modified_at(&self) -> Option<FileTime> {
        if let Some(seconds) = self.modified.strip_suffix("s since the epoch") {
            return Some(FileTime { seconds: seconds.parse().ok()?, nanos: 0 });
        }
        let since =
            humantime::parse_rfc3339(&self.modified).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(FileTime { seconds: i64::try_from(since.as_secs()).ok()?, nanos: since.subsec_nanos() })
    }
}
