//! `kms-sig verify`: read the signature, hash the file, Decrypt, compare. Takes every format
//! without being told.
//!
//! What it prints is the original's, to the byte: scripts read it. Never takes a local key because
//! a signature says so, and never calls trouble a verdict (P2).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::answer::answer_verdict;
use super::input::{self, Payload};
use super::{Failure, block_on, complain, complain_missing, need_keyring, verify_public};
use crate::cli::{Stream, Verify};
use crate::context::Context;
use crate::exit::Exit;
use crate::key::{KeyArn, KeyId, Provider};
use crate::kms::AwsSettings;
use crate::kms::local;
use crate::kms::provider::Providers;
use crate::signature::{Clue, Format, Signature};
use crate::signing::{Formats, Reason, Verdict, Verifier};
use crate::terminal::{self, progress};

/// Verifies one file.
///
/// # Errors
/// [`Failure`]: no verdict was possible.
pub(crate) fn run(arguments: &Verify, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    if !arguments.trust.is_empty() {
        return verify_public::run(arguments);
    }
    let trusted: Vec<KeyId> = arguments.keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
    let context = Context::parse(&arguments.context.pairs)?;
    let sig = arguments.sig.clone().unwrap_or_else(|| arguments.file.beside(Format::Kms.suffix()));
    if sig == Stream::Standard && arguments.file == Stream::Standard {
        return Err(Failure::BothStandard);
    }
    need_keyring(&trusted, keyring.is_some())?;

    let mut payload = Payload::open(&arguments.file)?;
    let Some(bytes) = input::signature(&sig)? else {
        complain_missing(&sig);
        if let (None, Stream::File(file)) = (&arguments.sig, &arguments.file) {
            hint(misnamed(file).as_ref());
        }
        return Ok(Exit::Invalid);
    };
    let signature = match Signature::parse(&bytes) {
        Ok(signature) => signature,
        Err(malformed) => {
            let exit = invalid(arguments.verbose.then(|| malformed.to_string()));
            hint(Clue::of(&bytes).as_ref());
            return Ok(exit);
        }
    };
    if trusted.is_empty()
        && let Some(key) = local::claimed_key(signature.ciphertext())
    {
        return Err(Failure::LocalUnnamed { file: payload.shown().to_owned(), key });
    }

    let kms = Providers::new(AwsSettings::default(), keyring);
    let verifier = match trusted.as_slice() {
        [] => Verifier::of_any_key(&kms),
        keys => Verifier::new(&kms, keys, Formats::Any),
    };
    let digests = payload.hash_unchanged(verifier.digests())?;
    let asking = progress::asking_kms();
    let opened = block_on(verifier.open(&context, &signature))?;
    drop(asking);
    let verdict = opened.and_then(|opened| opened.judge(&digests)).map_err(|source| Failure::Verify {
        file: payload.shown().to_owned(),
        provider: provider(&trusted),
        source,
    })?;
    payload.check_unchanged()?; // KMS may take its time, and a verdict is about the file as it is
    match verdict {
        Verdict::Invalid(reason) => {
            let exit = invalid(arguments.verbose.then(|| explain(reason, &signature).to_owned()));
            hint(Clue::of(&bytes).as_ref());
            Ok(exit)
        }
        Verdict::Valid(valid) => {
            answer_verdict(&format!("{} from {}", terminal::stdout().good("valid signature"), valid.key()))?;
            if trusted.is_empty() {
                warn_unpinned(valid.key());
            }
            Ok(Exit::Done)
        }
    }
}

/// The original's words, alone on standard error; a reason only for who asked.
fn invalid(reason: Option<String>) -> Exit {
    complain("invalid signature");
    if let Some(reason) = reason {
        complain(&format!("reason: {reason}"));
    }
    Exit::Invalid
}

/// What looks like a mistake, on a line of its own: the words above are the original's.
fn hint(clue: Option<&Clue>) {
    if let Some(clue) = clue {
        complain(&format!("hint: {clue}"));
    }
}

/// What lies beside a file that may be its signature under another name.
fn misnamed(file: &Path) -> Option<Clue> {
    let is_there = |name: &OsStr| file.with_file_name(name).symlink_metadata().is_ok();
    Clue::beside(file.file_name()?, is_there)
}

fn explain(reason: Reason, signature: &Signature) -> &'static str {
    match reason {
        Reason::Mismatch if signature.batch().is_some() => {
            "the signature is genuine, but not of these bytes, or not with this context"
        }
        Reason::Mismatch => "the signature is genuine, but not of these bytes",
        Reason::Rejected => "the signature is damaged, or the context is not the one it was made with",
        Reason::WrongKey => "none of the named keys made the signature",
        Reason::Malformed => "it cannot be a signature",
        Reason::Missing => "there is no signature",
    }
}

/// Anyone can make a key, let you use it, and sign with it.
fn warn_unpinned(key: &KeyArn) {
    complain(&format!("warning: any key that you may use was accepted; --key {key} accepts only this one"));
}

/// Whose hints fit trouble with these keys.
fn provider(trusted: &[KeyId]) -> Provider {
    match trusted {
        [] => Provider::Aws,
        keys if keys.iter().all(|key| key.provider() == Provider::Local) => Provider::Local,
        _ => Provider::Aws,
    }
}
