//! Reading a payload once: hashing it, and where it will be delivered, copying it meanwhile.
//!
//! Constant memory. Never reads past the limit, however fast the file grows (A10).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::{FsError, OpenError, Staging, Unfit};
use crate::digest::{Digest, stream};

/// What was read.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// SHA-512 of all of it.
    pub digest: Digest,
    /// How many bytes it had.
    pub size: u64,
}

/// Hashes an open file from where it stands.
///
/// # Errors
/// `Unfit::TooLarge` past `limit` bytes; what read(2) says.
pub fn hash(file: &File, path: &Path, limit: u64) -> Result<Hashed, OpenError> {
    hash_counted(file, path, limit, &|_| ())
}

/// As [`hash`], and tells `count` how many bytes each read gave.
///
/// # Errors
/// As [`hash`].
pub fn hash_counted(
    file: &File,
    path: &Path,
    limit: u64,
    count: &dyn Fn(usize),
) -> Result<Hashed, OpenError> {
    through(file, path, limit, |bytes| {
        count(bytes.len());
        Ok(())
    })
}

/// Copies an open file into `staging` and hashes the very bytes that went there (P3). Shares the blocks
/// where the file system can (ioctl_ficlone(2)), and then hashes the clone.
///
/// # Errors
/// As [`hash`], and of write(2).
pub fn copy(file: &File, path: &Path, limit: u64, staging: &Staging) -> Result<Hashed, OpenError> {
    copy_counted(file, path, limit, staging, &|_| ())
}

/// As [`copy`], and tells `count` how many bytes each read gave.
///
/// # Errors
/// As [`copy`].
pub fn copy_counted(
    file: &File,
    path: &Path,
    limit: u64,
    staging: &Staging,
    count: &dyn Fn(usize),
) -> Result<Hashed, OpenError> {
    if rustix::fs::ioctl_ficlone(staging.file(), file).is_ok() {
        return hash_counted(staging.file(), path, limit, count);
    }
    let mut out = staging.file();
    through(file, path, limit, |bytes| {
        count(bytes.len());
        out.write_all(bytes).map_err(|e| FsError::new("copy into", staging.dir().path(), errno(&e)))
    })
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn through(
    mut file: &File,
    path: &Path,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), FsError>,
) -> Result<Hashed, OpenError> {
    // Advice only; a file system that takes none reads all the same.
    rustix::fs::fadvise(file, 0, None, Advice::Sequential).unwrap_or_default();
    let mut size = 0_u64;
    let digest = stream::hash(|piece| {
        let read = loop {
            match file.read(piece) {
                Ok(read) => break read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(OpenError::from(FsError::new("read", path, errno(&e)))),
            }
        };
        size += read as u64;
        if size > limit {
            return Err(Unfit::TooLarge { size, max: limit }.into());
        }
        sink(piece.get(..read).unwrap_or_default())?;
        Ok(read)
    })?;
    Ok(Hashed { digest, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Dir;

    #[test]
    fn p3_the_copy_is_what_was_hashed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = temp.path().join("f");
        let content: Vec<u8> = (0..600_000).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let staging = Staging::new(&dir).unwrap();
        let file = File::open(&path).unwrap();
        let hashed = copy(&file, &path, u64::MAX, &staging).unwrap();
        assert_eq!(hashed.size, content.len() as u64);
        assert_eq!(staging.read_back(u64::MAX).unwrap(), content);
        assert_eq!(hashed.digest.to_string(), Digest::of(&content).to_string());
    }

    #[test]
    fn a10_reading_stops_at_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        assert!(hash(&File::open(&path).unwrap(), &path, 5).is_ok());
        let error = hash(&File::open(&path).unwrap(), &path, 4).unwrap_err();
        assert!(matches!(error, OpenError::Unfit(Unfit::TooLarge { max: 4, .. })));
        // What cannot be read is no empty file, and is not tried for ever.
        let error = hash(&File::open(temp.path()).unwrap(), temp.path(), 5).unwrap_err();
        assert!(matches!(error, OpenError::Io(e) if e.source == Errno::ISDIR));
    }
}
