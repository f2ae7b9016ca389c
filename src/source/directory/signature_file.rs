//! A file that may be a signature, read no further than any signature is long (A16).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::fs::{Dir, FsError, OpenError};
use crate::signature::{Clue, MAX_LEN, Malformed, Signature};

/// What was read of it.
#[derive(Debug)]
pub(crate) struct SignatureFile {
    /// SHA-512 of the file; `None` if it is longer than any signature, and was not read to its end.
    pub(crate) digest: Option<Digest>,
    /// The signature, if it can be one.
    pub(crate) parsed: Result<Signature, Malformed>,
    /// What it seems to be, if that is something else.
    pub(crate) clue: Option<Clue>,
}

/// Reads an open file that may be a signature: never more than one byte past the limit.
///
/// # Errors
/// What read(2) says.
pub(crate) fn read_open(file: &File, dir: &Dir, name: &OsStr) -> Result<SignatureFile, OpenError> {
    let mut bytes = Vec::with_capacity(MAX_LEN + 1);
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|e| FsError {
        action: "read".into(),
        path: dir.path().join(name),
        source: Errno::from_io_error(&e).unwrap_or(Errno::IO),
    })?;
    let digest = (bytes.len() <= MAX_LEN).then(|| Digest::of(&bytes));
    Ok(SignatureFile { digest, parsed: Signature::parse(&bytes), clue: Clue::of(&bytes) })
}
