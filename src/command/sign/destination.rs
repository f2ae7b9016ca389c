//! Where a signature goes, and what it may replace there.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use super::super::Failure;
use super::super::input::{Payload, ReadError};
use super::super::occupant::{self, Ours, Stranger};
use super::maker::Maker;
use crate::cli::Stream;
use crate::fs::atomic_write;
use crate::fs::atomic_write::{Over, Place, WriteError};
use crate::service::ending;
use crate::signature::Suffix;
use crate::terminal::streams;

/// How often what has the place is looked at anew, if it changes all the time.
const MAX_TRIES: usize = 8;

/// Where a signature is to go.
pub(super) struct Destination<'a> {
    /// What is signed.
    pub(super) file: &'a Stream,
    /// Where its signature goes.
    pub(super) sig: Stream,
    /// Whether somebody named it.
    pub(super) is_named: bool,
    /// Whether to replace any file.
    pub(super) force: bool,
    /// What signatures of this format are named by.
    pub(super) suffix: Suffix,
    /// Whether the signature is text, which may go to a terminal.
    pub(super) is_text: bool,
    /// What may be replaced without being told to.
    pub(super) ours: Ours<'a>,
}

/// Where it goes, and what it may replace there.
pub(super) enum Target {
    Standard,
    Place(Place, Over),
}

impl<'a> Destination<'a> {
    /// Where the signature of a maker goes: to `sig`, or beside the file.
    pub(super) fn new(file: &'a Stream, sig: Option<&Stream>, maker: &'a Maker<'_>, force: bool) -> Self {
        let suffix = maker.suffix();
        Self {
            file,
            sig: sig.cloned().unwrap_or_else(|| file.beside(suffix)),
            is_named: sig.is_some(),
            force,
            suffix,
            is_text: maker.is_text(),
            ours: maker.ours(),
        }
    }

    /// Finds out where that is, and what is known to be wrong with it before KMS is asked (P8).
    pub(super) fn find(&self, payload: &Payload) -> Result<Target, Failure> {
        let path = match &self.sig {
            Stream::Standard if !self.is_text && io::stdout().is_terminal() => {
                return Err(Failure::Terminal);
            }
            Stream::Standard => {
                streams::stdout().map_err(Failure::Output)?;
                return Ok(Target::Standard);
            }
            Stream::File(path) => path,
        };
        streams::check_path(path).map_err(|source| WriteError::Write { path: path.clone(), source })?;
        // A redirection to the file itself, too.
        if fs::metadata(path).is_ok_and(|there| payload.is(&there)) {
            return Err(Failure::Itself);
        }
        let place = Place::find(path)?;
        if self.force {
            return Ok(Target::Place(place, Over::Anything));
        }
        let file = || self.sig.as_output();
        let cannot_read = |source| ReadError::Signature { file: file(), source };
        match occupant::replaceable(&place, self.ours).map_err(cannot_read)? {
            Ok(Over::Seen(_)) if self.is_beside_another(path) => {
                Err(Failure::Occupied { file: file(), what: Stranger::OfAnother, is_named: self.is_named })
            }
            Ok(over) => Ok(Target::Place(place, over)),
            Err(what) => Err(Failure::Occupied { file: file(), what, is_named: self.is_named }),
        }
    }

    /// Puts the signature there, and looks anew at what has the place if that changed meanwhile:
    /// another kms-sig, or what must be left as it is.
    pub(super) fn publish(&self, payload: &Payload, mut target: Target, bytes: &[u8]) -> Result<(), Failure> {
        for _ in 1..MAX_TRIES {
            match target.publish(bytes) {
                Err(Failure::Write(WriteError::Changed(_))) => target = self.find(payload)?,
                published => return published,
            }
        }
        target.publish(bytes)
    }

    /// Whether a signature's name is that of another file's: it has the suffix, and a file of
    /// another name than the one that is signed is there. A copy of that one, in another directory,
    /// is no other.
    fn is_beside_another(&self, sig: &Path) -> bool {
        let (Stream::File(file), Some(stem)) = (self.file, self.suffix.payload_of(sig.as_os_str())) else {
            return false;
        };
        let stem = Path::new(stem);
        stem.file_name() != file.file_name() && fs::metadata(stem).is_ok_and(|there| there.is_file())
    }
}

impl Target {
    fn publish(&self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Place(place, over) => {
                Ok(ending::cleaning_up(atomic_write::abandon, || place.write(bytes, *over))?)
            }
            Self::Standard => streams::write_stdout(bytes).map_err(Failure::Output),
        }
    }
}
