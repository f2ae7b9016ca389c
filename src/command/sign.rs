//! `kms-sig sign`: hash, Encrypt, and only then write the signature.
//!
//! Whatever fails, nothing is left behind and a signature that was there stays as it was.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::input::{self, Payload};
use super::{Failure, block_on, need_keyring};
use crate::cli::{Sign, Stream};
use crate::context::Context;
use crate::effect::write;
use crate::exit::Exit;
use crate::key::KeyId;
use crate::kms::provider::Providers;
use crate::policy::AwsSettings;
use crate::seal;
use crate::signature::{Malformed, Signature};
use crate::terminal::progress;

/// Signs one file.
///
/// # Errors
/// [`Failure`]; then nothing was written.
pub fn run(arguments: &Sign, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let key: KeyId = arguments.key.parse()?;
    let context = Context::parse(&arguments.context.pairs)?;
    need_keyring(std::slice::from_ref(&key), keyring.is_some())?;
    let mut payload = Payload::open(&arguments.file)?;
    let sig = match &arguments.sig {
        Some(sig) => sig.clone(),
        None => spare_foreign(arguments.file.beside())?,
    };
    check_place(&sig, &payload)?;

    let digest = payload.hash_unchanged()?;
    let kms = Providers::new(AwsSettings::default(), keyring);
    let asking = progress::asking_kms();
    let sealed = block_on(seal::sign(&kms, &key, &context, &digest))?;
    drop(asking);
    let sealed = sealed.map_err(|source| Failure::Sign {
        file: payload.shown().to_owned(),
        provider: key.provider(),
        source,
    })?;
    publish(&sig, sealed.signature.as_bytes())?;
    Ok(Exit::Done)
}

/// Nobody named this place, so what another program keeps there is not ours to replace (P8).
fn spare_foreign(sig: Stream) -> Result<Stream, Failure> {
    let Stream::File(path) = &sig else { return Ok(sig) };
    // Only files: opening a pipe would wait for its writer.
    if fs::metadata(path).is_ok_and(|there| there.is_file())
        && let Some(bytes) = input::signature(&sig)?
        && let Err(Malformed::Foreign(format)) = Signature::parse(&bytes)
    {
        return Err(Failure::Foreign { file: sig.as_output(), format });
    }
    Ok(sig)
}

/// What can be known to be wrong before KMS is asked.
fn check_place(sig: &Stream, payload: &Payload) -> Result<(), Failure> {
    match sig {
        Stream::Standard if io::stdout().is_terminal() => Err(Failure::Terminal),
        Stream::File(path) if fs::metadata(path).is_ok_and(|there| payload.is(&there)) => {
            Err(Failure::Itself)
        }
        Stream::Standard | Stream::File(_) => Ok(()),
    }
}

fn publish(sig: &Stream, bytes: &[u8]) -> Result<(), Failure> {
    match sig {
        Stream::File(path) => Ok(write::write(path, bytes)?),
        Stream::Standard => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
        }
    }
}
