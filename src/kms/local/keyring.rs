//! The keyring file: the secrets of this host's `local:` keys, as TOML.
//!
//! Whoever can read the file can sign, so one that others could read or that belongs to someone
//! else is refused, and so is a symbolic link. Secrets never show: not in errors, not in `Debug`,
//! not in a parser's quotation of the line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::error::Unspecified;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::key_type::KeyType;
use super::keyring_file::{self, Fault, KNOWN_VERSIONS, Key};
use super::material::Material;
use crate::clock;
use crate::escape::quoted;
use crate::fs::atomic_write;
use crate::fs::atomic_write::{Access, WriteError};
use crate::fs::modes;
use crate::fs::trust::or_mount;
use crate::key::{KeyArn, KeyId};

/// The largest keyring that is read, in bytes: thousands of keys.
const MAX_LEN: u64 = 1024 * 1024;

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
    /// What it is good for.
    pub key_type: KeyType,
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
    /// With another key it would be larger than any that is read.
    #[error("keyring {} has no room for another key; begin another keyring", quoted(.0))]
    Full(PathBuf),
    /// Written by a later release.
    #[error("keyring {} has version {version}; this program knows {KNOWN_VERSIONS}", quoted(path))]
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
            | Self::Full(_)
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
            | Self::Full(_)
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
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(KeyringError::Syntax { path: path.to_owned(), line: 1 });
            }
            Err(source) => return Err(KeyringError::Read { path: path.to_owned(), source }),
        }
        let keys = keyring_file::parse(&text).map_err(|fault| match fault {
            Fault::Version(version) => KeyringError::Version { path: path.to_owned(), version },
            Fault::Line(line) => KeyringError::Syntax { path: path.to_owned(), line },
        })?;
        Ok(Self { keys, identity: Identity::of(&metadata) })
    }

    /// Makes a new key of the type `aes`; see [`Keyring::create`].
    ///
    /// # Errors
    /// [`KeyringError`]; the keyring is then as it was.
    pub fn create_key(path: &Path, key: &KeyId) -> Result<KeyArn, KeyringError> {
        Self::create(path, key, KeyType::Aes)
    }

    /// Makes a new key in the keyring at `path`, and the keyring (mode 0600) if there is none; the
    /// directory must exist. Callers at the same time wait for each other.
    ///
    /// # Errors
    /// [`KeyringError`]; the keyring is then as it was.
    pub fn create(path: &Path, key: &KeyId, key_type: KeyType) -> Result<KeyArn, KeyringError> {
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
        let material = Material::generate(key_type).map_err(|Unspecified| KeyringError::Random)?;
        keys.insert(name.to_owned(), Key { arn: arn.clone(), material, created: clock::system_time() });
        let text = keyring_file::render(&keys);
        // What would not be read again must not be written.
        if text.len() as u64 > MAX_LEN {
            return Err(KeyringError::Full(path.to_owned()));
        }
        atomic_write::replace(path, text.as_bytes(), Access::Owner)?;
        Ok(arn)
    }

    /// The keys, sorted by name. Secrets stay inside.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.keys.values().map(|key| Listed {
            key: key.arn.clone(),
            created: key.created,
            key_type: key.material.key_type(),
        })
    }

    pub(super) fn material(&self, name: &str) -> Option<&Material> {
        self.keys.get(name).map(|key| &key.material)
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

    fn secret(keyring: &Keyring, name: &str) -> Vec<u8> {
        keyring.material(name).unwrap().stored().to_vec()
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
        assert_eq!(secret(&first, "b.2026"), secret(&both, "b.2026"));
        assert_ne!(secret(&both, "a"), secret(&both, "b.2026"));
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
    fn a_keyring_that_could_not_be_read_again_is_not_written() {
        let padding = format!("version = 1\n{}", "#".repeat(MAX_LEN as usize - 20));
        let (_dir, path) = keyring(&padding);
        // Comments are not kept: what counts is what would be written.
        Keyring::create_key(&path, &key("local:a")).unwrap();
        let many: String = (0..8_560)
            .map(|n| format!("[keys.k{n}]\ncreated = \"2026-01-02T03:04:05Z\"\nsecret = \"{SECRET}\"\n"))
            .collect();
        let text = format!("version = 1\n{many}");
        assert!(text.len() as u64 <= MAX_LEN, "{}", text.len());
        let (_dir, path) = keyring(&text);
        assert!(matches!(Keyring::create_key(&path, &key("local:a")), Err(KeyringError::Full(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
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
        let (_dir, path) = keyring("version = 3\nnew = true\n");
        assert!(matches!(Keyring::open(&path), Err(KeyringError::Version { version: 3, .. })));
    }

    #[test]
    fn keys_of_every_type_come_back_and_only_those_beside_aes_make_it_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let version = || {
            let text = fs::read_to_string(&path).unwrap();
            text.lines().find(|line| line.starts_with("version")).unwrap().to_owned()
        };
        for key_type in KeyType::ALL.into_iter().filter(|of| !matches!(of, KeyType::Rsa4096)) {
            let key = key(&format!("local:{key_type}"));
            Keyring::create(&path, &key, key_type).unwrap();
            let expected = if key_type == KeyType::Aes { "version = 1" } else { "version = 2" };
            assert_eq!(version(), expected, "{key_type}");
        }
        let keyring = Keyring::open(&path).unwrap();
        for listed in keyring.list() {
            assert_eq!(listed.key.as_str(), format!("local:{}", listed.key_type));
        }
        Keyring::create_key(&path, &key("local:another")).unwrap();
        let again = Keyring::open(&path).unwrap();
        assert!(keyring.list().all(|of| again.list().any(|other| other == of)));
        assert_eq!(secret(&keyring, "p521"), secret(&again, "p521"));
        let shown = format!("{again:?}");
        assert!(!shown.contains(&hex::encode(secret(&again, "aes"))), "{shown}");
    }

    #[test]
    fn a_key_that_is_not_of_its_type_is_a_fault_of_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        Keyring::create(&path, &key("local:a"), KeyType::Ed25519).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let cases = [
            (good.replace("\"ed25519\"", "\"p256\""), 7),
            (good.replace("\"ed25519\"", "\"aes\""), 7),
            (good.replace("\"ed25519\"", "\"dsa\""), 5),
            (good.replace("type = \"ed25519\"\n", ""), 4),
            (good.replace("secret = \"30", "secret = \"31"), 7),
            (good.replace("secret = \"30", "secret = \"3"), 7),
            (good.replace("version = 2", "version = 1"), 5),
        ];
        for (text, expected) in cases {
            assert_ne!(text, good);
            fs::write(&path, &text).unwrap();
            let error = Keyring::open(&path).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                matches!(error, KeyringError::Syntax { line, .. } if line == expected),
                "{text}\n{shown}"
            );
            assert!(!shown.contains(&secret_digits(&good)[..8]), "{shown}");
        }
    }

    fn secret_digits(text: &str) -> String {
        text.lines().find_map(|line| line.strip_prefix("secret = \"")).unwrap().to_owned()
    }

    #[test]
    fn a_keyring_written_by_hand_is_read() {
        let (_dir, path) = keyring(&format!(
            "version = 1\n[keys.a]\ncreated = \"2026-01-02T03:04:05Z\"\nsecret = \"{SECRET}\"\n"
        ));
        let keyring = Keyring::open(&path).unwrap();
        assert_eq!(secret(&keyring, "a")[..3], [0, 0x11, 0x22]);
        assert_eq!(secret(&keyring, "a")[31], 0xff);
        assert_eq!(format!("{keyring:?}"), "{\"a\"}");
    }
}
