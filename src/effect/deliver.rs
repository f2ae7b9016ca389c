//! Delivery: publishing the private copy that was hashed, signature first, never over anything.
//!
//! Every step may be repeated after a kill (P4): an equal pair at the destination is success. Nothing is
//! published without a [`Warrant`], which only a valid verdict or a signature just made gives (P1).

use std::ffi::{OsStr, OsString};
use std::io::Read as _;

use crate::digest::Digest;
use crate::fs::copy::{self, Hashed};
use crate::fs::{Dir, Fitness, FsError, OpenError, Publish, RelPath, Staging};
use crate::seal::{Sealed, Valid};
use crate::signature::{MAX_LEN, Malformed, Signature};
use crate::watch::scan::signature_name;

/// What allows delivery: a digest, and the signature that vouches for it.
#[derive(Debug)]
pub struct Warrant<'a> {
    digest: &'a Digest,
    signature: &'a Signature,
}

impl<'a> Warrant<'a> {
    /// From a valid verdict on this signature.
    pub fn verified(valid: &'a Valid, signature: &'a Signature) -> Self {
        Self { digest: valid.digest(), signature }
    }

    /// From a signature just made for this digest.
    pub fn signed(digest: &'a Digest, sealed: &'a Sealed) -> Self {
        Self { digest, signature: &sealed.signature }
    }
}

/// How a delivery ended.
#[derive(Debug)]
pub enum Delivered {
    /// Both are there, durably.
    Done,
    /// An equal payload is there with this other signature, which the caller must judge: ciphertexts are
    /// randomised, so there are many valid ones.
    Beside(Signature),
    /// Only a signature that is not ours to remove, unless the caller knows it for a leftover of its own.
    Orphan(Signature),
    /// Something else has one of the names. Nothing was changed.
    Conflict(&'static str),
}

/// Publishes `staging`, whose content has the digest `hashed`, as `path` below `root` with its signature.
///
/// # Errors
/// Any step's. Then nothing new shows, or the signature alone, which the next try takes up.
pub fn deliver(
    root: &Dir,
    path: &RelPath,
    staging: &Staging,
    hashed: &Hashed,
    warrant: &Warrant<'_>,
    mode: u32,
) -> Result<Delivered, FsError> {
    if !hashed.digest.matches(warrant.digest.as_bytes()) {
        // BUG: no caller pairs a copy with another copy's verdict. Delivering nothing is always safe.
        return Ok(Delivered::Conflict("the verdict is about other bytes"));
    }
    let dir = root.descend_creating(path.parent())?;
    let (name, signature_name) = (path.name(), signature_name(path.name()));
    let payload_is_there = match look_at_payload(&dir, name, hashed)? {
        Existing::Nothing => false,
        Existing::Equal => true,
        Existing::Other => return Ok(Delivered::Conflict("another file has the name")),
    };

    let signature = Staging::holding(root, warrant.signature.as_bytes())?;
    signature.seal(mode & 0o666)?; // a signature is not executable
    staging.seal(mode)?;
    if signature.publish(&dir, &signature_name)? == Publish::Exists {
        match read_signature(&dir, &signature_name)? {
            Some(there) if there == *warrant.signature => {}
            Some(there) if payload_is_there => return Ok(Delivered::Beside(there)),
            Some(there) => return Ok(Delivered::Orphan(there)),
            None => {
                return Ok(Delivered::Conflict("something that is no signature has the signature's name"));
            }
        }
    }
    if !payload_is_there && staging.publish(&dir, name)? == Publish::Exists {
        // Somebody was quicker; our signature stays only if it belongs to what they put there.
        return match look_at_payload(&dir, name, hashed)? {
            Existing::Equal => dir.sync().map(|()| Delivered::Done),
            Existing::Nothing | Existing::Other => {
                dir.unlink(&signature_name)?;
                Ok(Delivered::Conflict("another file has the name"))
            }
        };
    }
    dir.sync()?;
    Ok(Delivered::Done)
}

/// Removes a signature without payload that the caller knows for its own leftover.
///
/// # Errors
/// Any step's.
pub fn remove_orphan(root: &Dir, path: &RelPath) -> Result<(), FsError> {
    root.descend(path.parent())?.unlink(&signature_name(path.name()))
}

enum Existing {
    Nothing,
    Equal,
    Other,
}

fn look_at_payload(dir: &Dir, name: &OsStr, hashed: &Hashed) -> Result<Existing, FsError> {
    let same_size = Fitness { max_size: hashed.size, max_links: u32::MAX, owners: None };
    match dir.open_file(name, &same_size) {
        Ok((file, stat)) if stat.identity.size == hashed.size => {
            match copy::hash(&file, &dir.path().join(name), hashed.size) {
                Ok(there) if there.digest.matches(hashed.digest.as_bytes()) => Ok(Existing::Equal),
                Ok(_) | Err(OpenError::Unfit(_) | OpenError::Gone) => Ok(Existing::Other),
                Err(OpenError::Io(e)) => Err(e),
            }
        }
        Ok(_) | Err(OpenError::Unfit(_)) => Ok(Existing::Other),
        Err(OpenError::Gone) => Ok(Existing::Nothing),
        Err(OpenError::Io(e)) => Err(e),
    }
}

/// The signature at a name, if what is there can be one.
fn read_signature(dir: &Dir, name: &OsString) -> Result<Option<Signature>, FsError> {
    let fitness = Fitness { max_size: MAX_LEN as u64, max_links: u32::MAX, owners: None };
    match read_bounded(dir, name, &fitness) {
        Ok(signature) => Ok(signature.ok()),
        Err(OpenError::Unfit(_) | OpenError::Gone) => Ok(None),
        Err(OpenError::Io(e)) => Err(e),
    }
}

/// Opens and reads what may be a signature: never more than one byte past the limit (A16).
///
/// # Errors
/// [`OpenError`]; what it holds not being a signature is the inner result.
pub fn read_bounded(
    dir: &Dir,
    name: &OsStr,
    fitness: &Fitness,
) -> Result<Result<Signature, Malformed>, OpenError> {
    let (file, _) = dir.open_file(name, fitness)?;
    read_open(&file, dir, name)
}

/// Reads an open file that may be a signature.
///
/// # Errors
/// What read(2) says.
pub fn read_open(
    file: &std::fs::File,
    dir: &Dir,
    name: &OsStr,
) -> Result<Result<Signature, Malformed>, OpenError> {
    let mut bytes = Vec::with_capacity(MAX_LEN + 1);
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|e| FsError {
        action: "read",
        path: dir.path().join(name),
        source: rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO),
    })?;
    Ok(Signature::parse(&bytes))
}
