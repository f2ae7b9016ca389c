//! Reading a payload once: hashing it, and where it will be delivered, copying it meanwhile.
//!
//! Constant memory. Never reads past the limit, however fast the file grows (A10).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::{FsError, OpenError, Staging, Unfit};
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::digest::{Digest, stream};

/// What was read.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// SHA-512 of all of it: what state, records and deliveries know content by.
    pub(crate) digest: Digest,
    /// All that was asked for, and that one.
    pub(crate) digests: DigestSet,
    /// How many bytes it had.
    pub(crate) size: u64,
}

/// Makes an empty file share the blocks of another, where the file system can
/// (ioctl_ficlone(2)); whether it does.
pub(crate) fn share(file: &File, staging: &Staging) -> bool {
    rustix::fs::ioctl_ficlone(staging.file(), file).is_ok()
}

/// One read of an open file, from where it stands to its end.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    path: &'a Path,
    limit: u64,
    digests: DigestRequest,
    count: &'a dyn Fn(usize),
}

impl<'a> Pass<'a> {
    /// Of no more than `limit` bytes; `path` is what errors name.
    pub fn new(path: &'a Path, limit: u64) -> Self {
        Self { path, limit, digests: DigestRequest::digest(HashAlgorithm::Sha512), count: &|_| () }
    }

    /// Computes these digests as well.
    #[must_use]
    pub(crate) const fn with_digests(self, request: DigestRequest) -> Self {
        Self { digests: self.digests.and(request), ..self }
    }

    /// Tells `count` how many bytes each read gave.
    #[must_use]
    pub(crate) const fn counted(self, count: &'a dyn Fn(usize)) -> Self {
        Self { count, ..self }
    }

    /// Hashes the file.
    ///
    /// # Errors
    /// `Unfit::TooLarge` past the limit; what read(2) says.
    pub fn hash(self, file: &File) -> Result<Hashed, OpenError> {
        self.through(file, |_| Ok(()))
    }

    /// Copies the file into `staging` and hashes the very bytes that went there (P3). Shares the
    /// blocks where the file system can, and then hashes the clone.
    ///
    /// # Errors
    /// As [`Pass::hash`], and of write(2).
    pub(crate) fn copy(self, file: &File, staging: &Staging) -> Result<Hashed, OpenError> {
        match share(file, staging) {
            true => self.hash(staging.file()),
            false => self.write(file, staging),
        }
    }

    /// [`Pass::copy`] where no blocks are shared.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn write(self, file: &File, staging: &Staging) -> Result<Hashed, OpenError> {
        let mut out = staging.file();
        self.through(file, |bytes| {
            out.write_all(bytes).map_err(|e| FsError::new("copy into", staging.dir().path(), errno(&e)))
        })
    }

    fn through(
        self,
        mut file: &File,
        mut sink: impl FnMut(&[u8]) -> Result<(), FsError>,
    ) -> Result<Hashed, OpenError> {
        // Advice only; a file system that takes none reads all the same. What one piece holds is
        // read at once.
        if self.limit > stream::PIECE as u64 {
            rustix::fs::fadvise(file, 0, None, Advice::Sequential).unwrap_or_default();
        }
        let mut size = 0_u64;
        let digests = stream::hash(self.digests, |piece| {
            let read = loop {
                match file.read(piece) {
                    Ok(read) => break read,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(OpenError::from(FsError::new("read", self.path, errno(&e)))),
                }
            };
            size += read as u64;
            if size > self.limit {
                return Err(Unfit::TooLarge { size, max: self.limit }.into());
            }
            let bytes = piece.get(..read).unwrap_or_default();
            sink(bytes)?;
            (self.count)(bytes.len());
            Ok(read)
        })?;
        let digest = digests.sha512().expect("BUG: every pass asks for SHA-512");
        Ok(Hashed { digest, digests, size })
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
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
        let hashed = Pass::new(&path, u64::MAX).copy(&file, &staging).unwrap();
        assert_eq!(hashed.size, content.len() as u64);
        assert_eq!(staging.read_back(u64::MAX).unwrap(), content);
        assert_eq!(hashed.digest.to_string(), Digest::of(&content).to_string());
    }

    #[test]
    fn p3_a_pass_gives_what_is_asked_for_and_the_sha512_of_the_same_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        let content = vec![9; 700_000];
        std::fs::write(&path, &content).unwrap();
        let staging = Staging::new(&Dir::open(temp.path()).unwrap()).unwrap();
        let asked = DigestRequest::digest(HashAlgorithm::Blake2b512);
        let expected = DigestSet::of(asked, &content);
        let expected = expected.value(HashAlgorithm::Blake2b512).unwrap();
        let counted = std::cell::Cell::new(0);
        let count = |len| counted.set(counted.get() + len);
        let pass = Pass::new(&path, u64::MAX).with_digests(asked).counted(&count);
        let file = || File::open(&path).unwrap();
        for hashed in [pass.hash(&file()).unwrap(), pass.copy(&file(), &staging).unwrap()] {
            assert!(hashed.digests.value(HashAlgorithm::Blake2b512).unwrap().matches(expected.as_bytes()));
            assert!(hashed.digest.matches(Digest::of(&content).as_bytes()));
            assert!(hashed.digests.value(HashAlgorithm::Sha256).is_none(), "nobody asked for it");
        }
        assert_eq!(counted.get(), 2 * content.len());
    }

    #[test]
    fn a10_reading_stops_at_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        let hash = |path: &Path, limit| Pass::new(path, limit).hash(&File::open(path).unwrap());
        assert!(hash(&path, 5).is_ok());
        let error = hash(&path, 4).unwrap_err();
        assert!(matches!(error, OpenError::Unfit(Unfit::TooLarge { max: 4, .. })));
        // What cannot be read is no empty file, and is not tried for ever.
        let error = hash(temp.path(), 5).unwrap_err();
        assert!(matches!(error, OpenError::Io(e) if e.source == Errno::ISDIR));
    }
}
