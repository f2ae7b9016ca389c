//! The keyring file: the secrets of this host's `local:` keys, as TOML.
//!
//! Whoever can read the file can sign, so one that others could read or that belongs to someone
//! else is refused, and so is a symbolic link. Secrets never show: not in errors, not in `Debug`,
//! not in a parser's quotation of the line.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hex::FromHexError;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use zeroize::Zeroizing;

use crate::clock;
use crate::escape::quoted;
use crate::fs::atomic_write;
use crate::fs::atomic_write::{Access, WriteError};
use crate::fs::modes;
use crate::fs::trust::or_mount;
use crate::key::{KeyArn, KeyId};

/// Bytes of an AES-256 key.
pub(super) const SECRET_LEN: usize = 32;

/// A key's secret; wiped from memory when it goes.
pub(super) type Secret = Zeroizing<[u8; SECRET_LEN]>;

/// The largest keyring that is read, in bytes: thousands of keys.
const MAX_LEN: u64 = 1024 * 1024;

/// The one version of the format so far.
const VERSION: i64 = 1;

/// The keys of a keyring file, read once.
pub struct Keyring {
    keys: BTreeMap<String, Key>,
    identity: Identity,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key's name, as `local:NAME`.
    pub key: KeyArn,
    /// When it was made.
    pub created: SystemTime,
}

struct Key {
    arn: KeyArn,
    secret: Secret,
    created: SystemTime,
}

/// Which file, in which state, was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It cannot be opened or read.
    #[error("cannot read keyring {}", quoted(path))]
    Read {
        /// The keyring.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A link could be turned to another file by whoever owns the link.
    #[error("keyring {} is a symbolic link; name the file itself", quoted(.0))]
    Link(PathBuf),
    /// A directory, a pipe, a device.
    #[error("keyring {} is not a regular file", quoted(.0))]
    NotAFile(PathBuf),
    /// Others could read the secrets, or replace them.
    #[error(
        "keyring {0} is open to others (mode {mode:04o}); run chmod 600 {0}{1}",
        quoted(path),
        or_mount(*options)
    )]
    Open {
        /// The keyring.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Options for its mount, in case its file system does not keep modes as they are set.
        options: Option<&'static str>,
    },
    /// Its owner could replace the secrets.
    #[error(
        "keyring {} belongs to user id {owner}; it must belong to root or to user id {caller}, who runs this",
        quoted(path)
    )]
    Owner {
        /// The keyring.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        caller: u32,
    },
    /// Larger than any keyring.
    #[error("keyring {} is larger than 1 MiB", quoted(.0))]
    TooLarge(PathBuf),
    /// Written by a later release.
    #[error("keyring {} has version {version}; this program knows version {VERSION}", quoted(path))]
    Version {
        /// The keyring.
        path: PathBuf,
        /// What it says.
        version: i64,
    },
    /// Not a keyring. The line is not quoted: it may hold a secret.
    #[error("line {line} of keyring {} is not what a keyring holds", quoted(path))]
    Syntax {
        /// The keyring.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A key of that name would be lost.
    #[error("keyring {} already has a key {key}; choose another name", quoted(path))]
    Exists {
        /// The keyring.
        path: PathBuf,
        /// The key.
        key: KeyId,
    },
    /// The keyring keeps no keys of others.
    #[error("{0} is not a local key; write local:NAME")]
    NotLocal(KeyId),
    /// The directory of the keyring is not there or cannot be locked.
    #[error("cannot lock the directory of keyring {}", quoted(path))]
    Lock {
        /// The keyring.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The operating system gives no random numbers.
    #[error("no random numbers to make a key from")]
    Random,
}

impl KeyringError {
    /// Whether its words end with what a person can do.
    pub(crate) const fn says_what_to_do(&self) -> bool {
        match self {
            Self::Link(_)
            | Self::Open { .. }
            | Self::Owner { .. }
            | Self::Exists { .. }
            | Self::NotLocal(_) => true,
            Self::Read { .. }
            | Self::Version { .. }
            | Self::NotAFile(_)
            | Self::TooLarge(_)
            | Self::Syntax { .. }
            | Self::Lock { .. }
            | Self::Write(_)
            | Self::Random => false,
        }
    }

    /// What a person can do, where the message does not say so.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                Some("kms-sig key create local:NAME makes a keyring")
            }
            Self::Read { .. } => Some("run this as its owner, or name another keyring"),
            Self::NotAFile(_) | Self::TooLarge(_) => Some("name a file that kms-sig key create made"),
            Self::Version { .. } => Some("use the kms-sig that wrote it, or a newer one"),
            Self::Syntax { .. } => Some("put back a copy of it, or begin another keyring"),
            Self::Lock { source, .. } if source.kind() == ErrorKind::NotFound => {
                Some("make the directory first")
            }
            Self::Lock { .. } => Some("run this as a user who may write there"),
            Self::Random => Some("try again"),
            Self::Link(_)
            | Self::Open { .. }
            | Self::Owner { .. }
            | Self::Exists { .. }
            | Self::NotLocal(_)
            | Self::Write(_) => None,
        }
    }
}

impl Keyring {
    /// Reads a keyring.
    ///
    /// # Errors
    /// [`KeyringError`]: it is missing, may not be trusted, or is no keyring.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        Self::open_for(path, rustix::process::geteuid().as_raw())
    }

    /// As [`Keyring::open`], for who acts on behalf of a user: root, for the daemon's. That user's
    /// keyrings are good.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn open_for(path: &Path, caller: u32) -> Result<Self, KeyringError> {
        let (mut file, metadata) = open_trusted(path, caller)?;
        let mut text = Zeroizing::new(String::with_capacity(capacity(&metadata)));
        let mut bounded = (&mut file).take(MAX_LEN + 1);
        match bounded.read_to_string(&mut text) {
            Ok(_) if text.len() as u64 > MAX_LEN => return Err(KeyringError::TooLarge(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(syntax(path, &text, None)),
            Err(source) => return Err(KeyringError::Read { path: path.to_owned(), source }),
        }
        Ok(Self { keys: parse(path, &text)?, identity: Identity::of(&metadata) })
    }

    /// Makes a new key in the keyring at `path`, and the keyring (mode 0600) if there is none; the
    /// directory must exist. Callers at the same time wait for each other.
    ///
    /// # Errors
    /// [`KeyringError`]; the keyring is then as it was.
    pub fn create_key(path: &Path, key: &KeyId) -> Result<KeyArn, KeyringError> {
        let not_local = || KeyringError::NotLocal(key.clone());
        let name = key.local_name().ok_or_else(not_local)?;
        let arn: KeyArn = key.as_str().parse().map_err(|_| not_local())?;
        // The directory is what is locked: the file itself is another one after each change.
        let locked = |source| KeyringError::Lock { path: path.to_owned(), source };
        let directory = File::open(atomic_write::parent(path)).map_err(locked)?;
        directory.lock().map_err(locked)?;

        let mut keys = match Self::open(path) {
            Ok(keyring) => keyring.keys,
            Err(KeyringError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        if keys.contains_key(name) {
            return Err(KeyringError::Exists { path: path.to_owned(), key: key.clone() });
        }
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| KeyringError::Random)?;
        keys.insert(name.to_owned(), Key { arn: arn.clone(), secret, created: clock::system_time() });
        atomic_write::replace(path, render(&keys).as_bytes(), Access::Owner)?;
        Ok(arn)
    }

    /// The keys, sorted by name. Secrets stay inside.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.keys.values().map(|key| Listed { key: key.arn.clone(), created: key.created })
    }

    pub(super) fn secret(&self, name: &str) -> Option<&Secret> {
        self.keys.get(name).map(|key| &key.secret)
    }

    /// Whether the file at `path` is the one that was read, unchanged.
    pub(super) fn is_still(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|now| Identity::of(&now) == self.identity)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn open_trusted(path: &Path, caller: u32) -> Result<(File, Metadata), KeyringError> {
    // O_NONBLOCK: a pipe in its place must not hold us up before fstat has shown what it is.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let read = |source| KeyringError::Read { path: path.to_owned(), source };
    let file: File = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => fd.into(),
        Err(Errno::LOOP) => return Err(KeyringError::Link(path.to_owned())),
        Err(error) => return Err(read(error.into())),
    };
    let metadata = file.metadata().map_err(read)?;
    check(path, &file, &metadata, caller)?;
    Ok((file, metadata))
}

fn check(path: &Path, file: &File, metadata: &Metadata, caller: u32) -> Result<(), KeyringError> {
    if !metadata.is_file() {
        return Err(KeyringError::NotAFile(path.to_owned()));
    }
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != caller {
        return Err(KeyringError::Owner { path: path.to_owned(), owner, caller });
    }
    if mode & 0o077 != 0 {
        let options = modes::options_for(file);
        return Err(KeyringError::Open { path: path.to_owned(), mode, options });
    }
    if metadata.len() > MAX_LEN {
        return Err(KeyringError::TooLarge(path.to_owned()));
    }
    Ok(())
}

/// Room for the whole text at once: a string that grows leaves copies of secrets behind. One byte
/// more than the file has, for the read that finds its end.
fn capacity(metadata: &Metadata) -> usize {
    usize::try_from(metadata.len().min(MAX_LEN) + 1).unwrap_or_default()
}

/// What every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version1 {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    keys: BTreeMap<String, RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    #[serde(deserialize_with = "secret")]
    secret: Secret,
    #[serde(deserialize_with = "time")]
    created: SystemTime,
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Key>, KeyringError> {
    let fault = |error: toml::de::Error| syntax(path, text, error.span().map(|span| span.start));
    let AnyVersion { version } = toml::from_str(text).map_err(fault)?;
    if version != VERSION {
        return Err(KeyringError::Version { path: path.to_owned(), version });
    }
    let raw: Version1 = toml::from_str(text).map_err(fault)?;
    let mut keys = BTreeMap::new();
    for (name, RawKey { secret, created }) in raw.keys {
        let arn = format!("local:{name}").parse().map_err(|_| syntax(path, text, text.find(&name)))?;
        keys.insert(name, Key { arn, secret, created });
    }
    Ok(keys)
}

fn syntax(path: &Path, text: &str, at: Option<usize>) -> KeyringError {
    let before = text.get(..at.unwrap_or_default()).unwrap_or_default();
    KeyringError::Syntax { path: path.to_owned(), line: 1 + before.matches('\n').count() }
}

/// 64 hexadecimal digits.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let digits = Zeroizing::new(String::deserialize(deserializer)?);
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    match hex::decode_to_slice(&*digits, &mut *secret) {
        Ok(()) => Ok(secret),
        Err(FromHexError::InvalidHexCharacter { .. }) => Err(D::Error::custom("a secret is hexadecimal")),
        Err(FromHexError::InvalidStringLength | FromHexError::OddLength) => {
            Err(D::Error::custom("a secret has 64 digits"))
        }
    }
}

/// RFC 3339, in UTC.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn render(keys: &BTreeMap<String, Key>) -> Zeroizing<String> {
    // More than any key takes (a name, 64 digits, a time), for the reason that `capacity` gives.
    let mut text = Zeroizing::new(String::with_capacity(256 + keys.len() * 320));
    text.push_str("# Keys of kms-sig on this host. Who can read this file can sign.\n");
    writeln!(text, "version = {VERSION}").unwrap_or_default();
    for (name, key) in keys {
        let quote = if name.contains('.') { "\"" } else { "" };
        let created = humantime::format_rfc3339_seconds(key.created);
        write!(text, "\n[keys.{quote}{name}{quote}]\ncreated = \"{created}\"\nsecret = \"")
            .unwrap_or_default();
        for byte in key.secret.iter() {
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text.push_str("\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};

    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn keyring(text: &str) -> (tempfile::TempDir, PathBuf) {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        (dir, path)
    }

    fn key(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        Keyring::open(path).unwrap().list().map(|l| l.key.to_string()).collect()
    }

    #[test]
    fn keys_are_added_one_by_one_and_keep_their_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        Keyring::create_key(&path, &key("local:b.2026")).unwrap();
        let first = Keyring::open(&path).unwrap();
        Keyring::create_key(&path, &key("local:a")).unwrap();
        let both = Keyring::open(&path).unwrap();
        assert_eq!(names(&path), ["local:a", "local:b.2026"]);
        assert_eq!(first.secret("b.2026"), both.secret("b.2026"));
        assert_ne!(both.secret("a"), both.secret("b.2026"));
        assert!(first.list().all(|l| both.list().any(|m| m.key == l.key)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file, no lock file");
    }

    #[test]
    fn an_existing_name_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        Keyring::create_key(&path, &key("local:a")).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(Keyring::create_key(&path, &key("local:a")), Err(KeyringError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(matches!(Keyring::create_key(&path, &key("alias/a")), Err(KeyringError::NotLocal(_))));
    }

    #[test]
    fn creators_at_the_same_time_lose_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || Keyring::create_key(path, &key(&format!("local:k{n}"))).unwrap());
            }
        });
        assert_eq!(names(&path).len(), 8);
    }

    #[test]
    fn a_keyring_that_others_could_read_is_refused() {
        let (_dir, path) = keyring("version = 1\n");
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Keyring::open(&path), Err(KeyringError::Open { mode: m, .. }) if m == mode));
            assert!(Keyring::create_key(&path, &key("local:a")).is_err(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(Keyring::open(&path).unwrap().list().count(), 0);
    }

    #[test]
    fn a_keyring_of_someone_else_is_refused() {
        let (_dir, path) = keyring("version = 1\n");
        let file = File::open(&path).unwrap();
        let metadata = file.metadata().unwrap();
        check(&path, &file, &metadata, metadata.uid()).unwrap();
        let answer = check(&path, &file, &metadata, metadata.uid() + 1);
        // Run by root, the file is root's, whom everyone trusts.
        assert_eq!(answer.is_ok(), metadata.uid() == 0);
    }

    #[test]
    fn links_directories_and_giants_are_refused() {
        let (dir, path) = keyring("version = 1\n");
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(Keyring::open(&link), Err(KeyringError::Link(_))));
        assert!(matches!(Keyring::create_key(&link, &key("local:a")), Err(KeyringError::Link(_))));
        assert!(matches!(Keyring::open(dir.path()), Err(KeyringError::NotAFile(_))));
        File::options().write(true).open(&path).unwrap().set_len(MAX_LEN + 1).unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyringError::TooLarge(_))));
    }

    #[test]
    fn a_fault_is_told_by_line_and_never_shows_the_secret() {
        let time = "created = \"2026-01-02T03:04:05Z\"";
        let cases = [
            (String::new(), 1),
            ("version = \"1\"".into(), 1),
            ("\nversion = 1\nkey = 1".into(), 3),
            (format!("version = 1\n[keys.a]\n{time}\nsecret = \"{SECRET}00\""), 4),
            (format!("version = 1\n[keys.a]\n{time}\nsecret = \"{}\"", SECRET.replace('A', "x")), 4),
            (format!("version = 1\n[keys.a]\n{time}\nsecret = {SECRET}"), 4),
            (format!("version = 1\n[keys.a]\n{time}\nsecrets = \"{SECRET}\""), 4),
            (format!("version = 1\n[keys.a]\nsecret = \"{SECRET}\"\ncreated = \"yesterday\""), 4),
            (format!("version = 1\n[keys.\"a b\"]\n{time}\nsecret = \"{SECRET}\""), 2),
            (format!("version = 1\n[keys.a]\nsecret = \"{SECRET}\""), 2),
        ];
        for (text, expected) in cases {
            let (_dir, path) = keyring(&text);
            let error = Keyring::open(&path).unwrap_err();
            let shown = format!("{error} {error:?}").to_lowercase();
            assert!(!shown.contains("00112233"), "{shown}");
            assert!(
                matches!(error, KeyringError::Syntax { line, .. } if line == expected),
                "{text}\n{error}"
            );
        }
        let (_dir, path) = keyring("version = 2\nnew = true\n");
        assert!(matches!(Keyring::open(&path), Err(KeyringError::Version { version: 2, .. })));
    }

    #[test]
    fn a_keyring_written_by_hand_is_read() {
        let (_dir, path) = keyring(&format!(
            "version = 1\n[keys.a]\ncreated = \"2026-01-02T03:04:05Z\"\nsecret = \"{SECRET}\"\n"
        ));
        let keyring = Keyring::open(&path).unwrap();
        assert_eq!(keyring.secret("a").unwrap()[..3], [0, 0x11, 0x22]);
        assert_eq!(keyring.secret("a").unwrap()[31], 0xff);
        assert_eq!(format!("{keyring:?}"), "{\"a\"}");
    }
}
