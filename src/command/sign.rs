//! `kms-sig sign`: hash, Encrypt, and only then write the signature.
//!
//! Whatever fails, nothing is left behind and a signature that was there stays as it was.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use super::input::{Payload, ReadError};
use super::occupant::Stranger;
use super::{Failure, block_on, need_keyring, occupant};
use crate::cli::{Sign, Stream};
use crate::context::Context;
use crate::exit::Exit;
use crate::fs::atomic_write;
use crate::fs::atomic_write::{Over, Place, WriteError};
use crate::key::KeyId;
use crate::kms::AwsSettings;
use crate::kms::provider::Providers;
use crate::service::ending;
use crate::signature::Format;
use crate::signing::Signer;
use crate::terminal::{progress, streams};

/// What it makes.
const FORMAT: Format = Format::Kms;

/// Signs one file.
///
/// # Errors
/// [`Failure`]; then nothing was written.
pub(crate) fn run(arguments: &Sign, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let key: KeyId = arguments.key.parse()?;
    let context = Context::parse(&arguments.context.pairs)?;
    need_keyring(std::slice::from_ref(&key), keyring.is_some())?;
    let mut payload = Payload::open(&arguments.file)?;
    let is_named = arguments.sig.is_some();
    let sig = arguments.sig.clone().unwrap_or_else(|| arguments.file.beside(FORMAT.suffix()));
    let place = Destination { file: arguments.file.clone(), sig, is_named, force: arguments.force };
    let mut target = place.find(&payload)?;

    let digests = payload.hash_unchanged(FORMAT.digests())?;
    let kms = Providers::new(AwsSettings::default(), keyring);
    let asking = progress::asking_kms();
    let signed = block_on(Signer::new(&kms, &key).sign(&context, &digests))?;
    drop(asking);
    let signed = signed.map_err(|source| Failure::Sign {
        file: payload.shown().to_owned(),
        provider: key.provider(),
        source,
    })?;
    payload.check_unchanged()?; // KMS may take its time (S4)
    for _ in 1..MAX_TRIES {
        match target.publish(signed.signature.as_bytes()) {
            // Somebody else was there meanwhile: another kms-sig, or what must be left as it is.
            Err(Failure::Write(WriteError::Changed(_))) => target = place.find(&payload)?,
            published => return published.map(|()| Exit::Done),
        }
    }
    target.publish(signed.signature.as_bytes()).map(|()| Exit::Done)
}

/// How often what has the place is looked at anew, if it changes all the time.
const MAX_TRIES: usize = 8;

/// Where the signature is to go.
struct Destination {
    /// What is signed.
    file: Stream,
    sig: Stream,
    /// Whether somebody named it.
    is_named: bool,
    /// Whether to replace any file.
    force: bool,
}

/// Where it goes, and what it may replace there.
enum Target {
    Standard,
    Place(Place, Over),
}

impl Destination {
    /// Finds out where that is, and what is known to be wrong with it before KMS is asked (P8).
    fn find(&self, payload: &Payload) -> Result<Target, Failure> {
        let path = match &self.sig {
            Stream::Standard if io::stdout().is_terminal() => return Err(Failure::Terminal),
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
        match occupant::replaceable(&place).map_err(cannot_read)? {
            Ok(Over::Seen(_)) if is_beside_another(path, &self.file) => {
                Err(Failure::Occupied { file: file(), what: Stranger::OfAnother, is_named: self.is_named })
            }
            Ok(over) => Ok(Target::Place(place, over)),
            Err(what) => Err(Failure::Occupied { file: file(), what, is_named: self.is_named }),
        }
    }
}

/// Whether a signature's name is that of another file's: it has the suffix, and a file of another
/// name than the one that is signed is there. A copy of that one, in another directory, is no
/// other.
fn is_beside_another(sig: &Path, file: &Stream) -> bool {
    let (Stream::File(file), Some(stem)) = (file, FORMAT.suffix().payload_of(sig.as_os_str())) else {
        return false;
    };
    let stem = Path::new(stem);
    stem.file_name() != file.file_name() && fs::metadata(stem).is_ok_and(|there| there.is_file())
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
