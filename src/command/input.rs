//! What commands read: a payload as a stream, a signature as at most a few kilobytes.
//!
//! Memory does not grow with the file (P10). Pipes are read like files; a directory is refused.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, IsTerminal as _, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::cli::Stream;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::digest::stream;
use crate::escape::quoted;
use crate::signature::{MAX_LEN, MAX_PUBLIC};
use crate::terminal::progress::Reading;
use crate::terminal::streams;
use crate::trust::key_file;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A payload.
    #[error("cannot read {file}")]
    Payload {
        /// As messages show it.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A signature.
    #[error("cannot read signature {file}")]
    Signature {
        /// As messages show it.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file of public keys.
    #[error("cannot read {file}")]
    Keys {
        /// As messages show it.
        file: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The bytes that were hashed may never have been the file's at one time.
    #[error("{file} changed while it was read")]
    Changed {
        /// As messages show it.
        file: String,
    },
}

/// An open payload.
#[derive(Debug)]
pub(crate) struct Payload {
    file: File,
    shown: String,
    opened: Metadata,
}

impl Payload {
    /// Opens a file, or takes standard input.
    ///
    /// # Errors
    /// `Payload`, also for a directory.
    pub(crate) fn open(from: &Stream) -> Result<Self, ReadError> {
        let shown = from.as_input();
        let failed = |source| ReadError::Payload { file: shown.clone(), source };
        let file = open(from).map_err(failed)?;
        let opened = file.metadata().map_err(failed)?;
        if opened.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        Ok(Self { file, shown, opened })
    }

    /// Its name in messages.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether `other` is the same regular file.
    pub(crate) fn is(&self, other: &Metadata) -> bool {
        self.opened.is_file() && (self.opened.dev(), self.opened.ino()) == (other.dev(), other.ino())
    }

    /// Reads and hashes it to its end. Whether the bytes were the file's at one time,
    /// [`Self::check_unchanged`] tells.
    ///
    /// # Errors
    /// `Payload`.
    pub(crate) fn hash(&mut self, request: DigestRequest) -> Result<DigestSet, ReadError> {
        let reading = self.reading();
        stream::hash(request, |piece| {
            loop {
                match self.file.read(piece) {
                    Ok(len) => {
                        reading.add(len);
                        return Ok(len);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(source) => return Err(ReadError::Payload { file: self.shown.clone(), source }),
                }
            }
        })
    }

    /// Shows how much was read, but not to who types it.
    fn reading(&self) -> Reading {
        match self.file.is_terminal() {
            true => Reading::unseen(),
            false => Reading::of(self.opened.is_file().then(|| self.opened.size())),
        }
    }

    /// As [`Self::hash`], and makes sure that nobody changed the file meanwhile.
    ///
    /// # Errors
    /// `Payload`, `Changed`.
    pub(crate) fn hash_unchanged(&mut self, request: DigestRequest) -> Result<DigestSet, ReadError> {
        let digests = self.hash(request)?;
        self.check_unchanged().map(|()| digests)
    }

    /// Makes sure that nobody changed the file since it was opened: neither its content, nor that
    /// it has its name. What is no regular file (a pipe, a device) has no state to compare: it is
    /// what was read of it.
    ///
    /// # Errors
    /// `Payload`, `Changed`.
    pub(crate) fn check_unchanged(&self) -> Result<(), ReadError> {
        let failed = |source| ReadError::Payload { file: self.shown.clone(), source };
        let is_changed = is_changed(&self.file, &self.opened).map_err(failed)?;
        if is_changed { Err(ReadError::Changed { file: self.shown.clone() }) } else { Ok(()) }
    }
}

fn is_changed(file: &File, opened: &Metadata) -> io::Result<bool> {
    let now = file.metadata()?;
    Ok(now.is_file() && state(&now) != state(opened))
}

/// What changes with the content, or when another file takes the name: ctime cannot be set back.
fn state(metadata: &Metadata) -> [i64; 5] {
    let size = metadata.size().cast_signed();
    [size, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

/// Reads a signature, and one byte more than a signature has at most. `None`: there is no such
/// file.
///
/// # Errors
/// `Signature`, `Changed`.
pub(crate) fn signature(from: &Stream) -> Result<Option<Vec<u8>>, ReadError> {
    small(from, MAX_LEN)
}

/// The same of a signature that a public key verifies.
///
/// # Errors
/// As of [`signature`].
pub(crate) fn public_signature(from: &Stream) -> Result<Option<Vec<u8>>, ReadError> {
    small(from, MAX_PUBLIC)
}

/// Reads a file of public keys, and one byte more than it has at most.
///
/// # Errors
/// `Keys`.
pub(crate) fn key_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(key_file::MAX_LEN as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|source| ReadError::Keys { file: quoted(path), source })?;
    Ok(bytes)
}

fn small(from: &Stream, max: usize) -> Result<Option<Vec<u8>>, ReadError> {
    let failed = |source| ReadError::Signature { file: from.as_input(), source };
    let file = match open(from) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let opened = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    (&file).take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    match is_changed(&file, &opened).map_err(failed)? {
        true => Err(ReadError::Changed { file: from.as_input() }),
        false => Ok(Some(bytes)),
    }
}

fn open(from: &Stream) -> io::Result<File> {
    match from {
        Stream::Standard => streams::stdin(),
        Stream::File(path) => streams::check_path(path).and_then(|()| File::open(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::digest::Digest;
    use crate::digest::stream::PIECE;
    use crate::signature::Format;

    fn payload(path: &Path) -> Payload {
        Payload::open(&Stream::File(path.to_owned())).unwrap()
    }

    fn write(path: &Path, bytes: &[u8]) {
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn hashes_what_is_there_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes = vec![5; len];
            write(&path, &bytes);
            let digest = payload(&path).hash_unchanged(Format::Kms.digests()).unwrap();
            assert!(Digest::of(&bytes).matches(digest.sha512().unwrap().as_bytes()), "{len}");
        }
    }

    #[test]
    fn s4_a_file_that_changes_while_it_is_read_is_not_signed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"before");
        let mut grown = payload(&path);
        File::options().append(true).open(&path).unwrap().write_all(b" and after").unwrap();
        assert!(matches!(grown.hash_unchanged(Format::Kms.digests()), Err(ReadError::Changed { .. })));

        let mut replaced = payload(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(replaced.hash_unchanged(Format::Kms.digests()), Err(ReadError::Changed { .. })));
    }

    #[test]
    fn a16_no_more_of_a_signature_is_read_than_can_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.sig");
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let from = Stream::File(path);
        assert_eq!(signature(&from).unwrap().unwrap().len(), MAX_LEN + 1);
    }
}
