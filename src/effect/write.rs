//! Writing one small file so that its name shows either what was there before or all of the new bytes.
//!
//! The bytes go to a temporary file in the same directory, are flushed to the disk, and take the name by
//! rename. On any failure before that the temporary file is removed and the name is untouched. Never
//! reads, and never decides whether a file ought to be replaced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::escape::quoted;

/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// How often another random name is tried before the directory is taken to be broken.
const MAX_NAMES: usize = 8;

/// What every temporary name begins with. Names that begin so are never taken for payloads (P6).
pub const TEMPORARY_PREFIX: &str = ".kms-sig-";

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whomever the umask lets: mode 0666 without its bits.
    Umask,
    /// The owner alone: mode 0600.
    Owner,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Before the name was touched; or, for a pipe or device, at any time.
    #[error("cannot write {}", quoted(path))]
    Write {
        /// The file as the caller named it.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The new bytes stand under the name, but a power failure might bring the old ones back.
    #[error("{} is written, but its directory cannot be flushed to the disk", quoted(path))]
    Flush {
        /// The file as the caller named it.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Writes `bytes` to what `path` means to a shell that redirects to it.
///
/// A regular file, or none yet, is replaced at once; a symbolic link stays, and what it points to is
/// replaced. A pipe, a device or an open descriptor (`/dev/stdout`) has no name to replace, and is written
/// to as it is.
///
/// # Errors
/// [`WriteError`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let failed = |source| WriteError::Write { path: path.to_owned(), source };
    match target(path).map_err(failed)? {
        Target::Name(name) => replace(&name, bytes, Access::Umask).map_err(|error| match error {
            WriteError::Write { source, .. } => failed(source),
            WriteError::Flush { source, .. } => WriteError::Flush { path: path.to_owned(), source },
        }),
        Target::Stream(stream) => stream_to(&stream, bytes).map_err(failed),
    }
}

/// Replaces whatever is named `path`, or makes it; a symbolic link there is itself replaced. The parent
/// directory must exist.
///
/// # Errors
/// [`WriteError`].
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), WriteError> {
    let failed = |source| WriteError::Write { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    let dir = Directory::open(parent(path)).map_err(|e| failed(e.into()))?;
    let mut staged = Staged::create(&dir, access).map_err(|e| failed(e.into()))?;
    staged.file.write_all(bytes).map_err(failed)?;
    staged.file.sync_all().map_err(failed)?;
    staged.publish(name).map_err(|e| failed(e.into()))?;
    dir.flush().map_err(|e| WriteError::Flush { path: path.to_owned(), source: e.into() })
}

/// The directory that holds `path`'s name: never empty, so that it can be opened.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

enum Target {
    /// A name that a regular file has or can get.
    Name(PathBuf),
    /// Something that is written to in place.
    Stream(PathBuf),
}

fn target(path: &Path) -> io::Result<Target> {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(ErrorKind::IsADirectory.into());
    }
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        // First the kernel's own look through the link: it refuses one that another user planted in a
        // sticky directory (fs.protected_symlinks), which reading the link by hand would not.
        match fs::metadata(&at) {
            // A directory too: it refuses to be written to.
            Ok(there) if !there.is_file() => return Ok(Target::Stream(at)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match fs::read_link(&at) {
            // An open descriptor. The path it reads as may be gone or another file by now.
            Ok(_) if is_in_proc(&at)? => return Ok(Target::Stream(at)),
            Ok(link) => at = parent(&at).join(link),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(Target::Name(at));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::LOOP.into())
}

fn is_in_proc(link: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(parent(link))?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

fn stream_to(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::NOCTTY.bits().cast_signed();
    let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(flags).open(path)?;
    file.write_all(bytes)
}

/// A directory, held so that a rename of it half-way cannot lead elsewhere.
struct Directory(OwnedFd);

impl Directory {
    fn open(path: &Path) -> Result<Self, Errno> {
        // O_PATH: writing names needs no permission to list them.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Self)
    }

    /// Makes the names in it survive a power failure.
    fn flush(&self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, ".", flags, Mode::empty()) {
            Ok(listing) => match rustix::fs::fsync(listing) {
                // File systems that have nothing to flush for a directory say so (fsync(2)).
                Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
                Err(error) => Err(error),
            },
            // A drop box (mode -wx): only who may list a directory can flush it.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A temporary file that goes away unless it is published.
struct Staged<'a> {
    dir: &'a Directory,
    name: OsString,
    file: File,
    published: bool,
}

impl<'a> Staged<'a> {
    fn create(dir: &'a Directory, access: Access) -> Result<Self, Errno> {
        let mode = match access {
            Access::Umask => Mode::from_raw_mode(0o666),
            Access::Owner => Mode::from_raw_mode(0o600),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..MAX_NAMES {
            let name = temporary_name()?;
            match rustix::fs::openat(&dir.0, &name, flags, mode) {
                Ok(fd) => return Ok(Self { dir, name, file: fd.into(), published: false }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    fn publish(&mut self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat(&self.dir.0, &self.name, &self.dir.0, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The failure that led here is the one worth telling.
            rustix::fs::unlinkat(&self.dir.0, &self.name, AtFlags::empty()).ok();
        }
    }
}

fn temporary_name() -> Result<OsString, Errno> {
    let mut random = [0; 8];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes always come whole.
    debug_assert_eq!(filled, random.len());
    Ok(format!("{TEMPORARY_PREFIX}{:016x}.tmp", u64::from_ne_bytes(random)).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::fs::tests::{as_user, chmod, users};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_holds_the_bytes_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.sig"), b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("a.sig")).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a.sig"]);
    }

    #[test]
    fn p4_an_existing_file_is_replaced_not_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sig");
        write(&path, b"a longer old signature").unwrap();
        let mut reader = File::open(&path).unwrap();
        let old = fs::metadata(&path).unwrap().ino();
        write(&path, b"new").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), old);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "a longer old signature");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn p4_nothing_is_left_when_the_name_cannot_be_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        let error = replace(&dir.path().join("taken"), b"x", Access::Umask).unwrap_err();
        assert!(matches!(error, WriteError::Write { .. }), "{error}");
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn a_name_of_255_bytes_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        write(&dir.path().join(&name), b"x").unwrap();
        assert_eq!(names(dir.path()), [name]);
    }

    #[test]
    fn links_stay_and_their_target_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("sub/b", dir.path().join("a")).unwrap();
        symlink("c", dir.path().join("sub/b")).unwrap();
        write(&dir.path().join("a"), b"dangling at first").unwrap();
        write(&dir.path().join("a"), b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("sub/c")).unwrap(), b"new");
        assert!(fs::symlink_metadata(dir.path().join("a")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(dir.path().join("sub/b")).unwrap().is_symlink());
        assert_eq!(names(&dir.path().join("sub")), ["b", "c"]);
    }

    #[test]
    fn a_loop_of_links_and_a_directory_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        for (path, expected) in [
            ("a", Errno::LOOP.kind()),
            ("", ErrorKind::IsADirectory),
            (".", ErrorKind::IsADirectory),
            ("new/", ErrorKind::IsADirectory),
            ("missing/a", ErrorKind::NotFound),
        ] {
            let error = write(&dir.path().join(path), b"x").unwrap_err();
            let WriteError::Write { source, .. } = error else { panic!("{path:?}: {error}") };
            assert_eq!(source.kind(), expected, "{path:?}");
        }
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn a_pipe_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write(&pipe, b"signature").unwrap();
        assert_eq!(reader.join().unwrap(), b"signature");
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    #[test]
    fn every_name_has_a_directory_that_can_be_opened() {
        for (path, expected) in [("a.sig", "."), ("d/a.sig", "d"), ("/a.sig", "/"), ("/", "."), ("", ".")] {
            assert_eq!(parent(Path::new(path)), Path::new(expected), "{path:?}");
        }
    }

    #[test]
    fn an_open_descriptor_is_written_to_and_keeps_its_file() {
        use std::os::fd::AsRawFd as _;
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("out")).unwrap();
        let before = file.metadata().unwrap().ino();
        write(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), b"new").unwrap();
        assert_eq!(fs::metadata(dir.path().join("out")).unwrap().ino(), before);
        assert_eq!(fs::read(dir.path().join("out")).unwrap(), b"new");
    }

    #[test]
    fn a_drop_box_is_written_to_by_who_may_not_list_it() {
        let dir = users();
        chmod(dir.path(), 0o300);
        as_user(|| write(&dir.path().join("a.sig"), b"new")).unwrap();
        chmod(dir.path(), 0o700);
        assert_eq!(names(dir.path()), ["a.sig"]);
    }

    #[test]
    fn a_private_file_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("keyring"), b"secret", Access::Owner).unwrap();
        let mode = fs::metadata(dir.path().join("keyring")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
