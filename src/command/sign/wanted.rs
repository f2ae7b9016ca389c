//! Which signatures are asked for: keys and formats, from the arguments.

use std::ffi::OsString;
use std::path::Path;

use super::super::Failure;
use crate::cli::{FormatArg, Sign, SignFormat, Stream};
use crate::key::KeyId;
use crate::kms::Trouble;
use crate::signature::Suffix;
use crate::terminal::streams;

/// A signature that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) key: KeyId,
    pub(super) format: SignFormat,
    /// What the signature is named by.
    pub(super) suffix: Suffix,
}

impl Wanted {
    /// The key did not sign.
    pub(super) fn failed(&self, file: &str, source: Trouble) -> Failure {
        Failure::Sign { file: file.to_owned(), provider: self.key.provider(), source }
    }
}

/// The arguments without options, told apart.
#[derive(Debug)]
pub(super) struct Operands {
    pub(super) file: Stream,
    /// Where the signature goes, if somebody named a place.
    pub(super) sig: Option<Stream>,
    pub(super) wanted: Vec<Wanted>,
}

/// What is asked for. Where each format names its key, no argument does.
///
/// # Errors
/// `Key`, `NoFile`, `OnePlace`, `SameName`.
pub(super) fn of(arguments: &Sign) -> Result<Operands, Failure> {
    let Sign { first, second, third, formats, .. } = arguments;
    let names_all_keys = !formats.is_empty() && formats.iter().all(|format| format.key.is_some());
    let (key, file, sig) = match names_all_keys {
        true if third.is_some() => return Err(Failure::KeyTwice),
        true => (None, Some(first.clone()), second.clone()),
        false => (Some(first), second.clone(), third.clone()),
    };
    let file = Stream::from(file.ok_or(Failure::NoFile)?);
    let key = key.map(|key| key.to_str().ok_or(Failure::KeyNotText)).transpose()?;
    let key = key.map(str::parse::<KeyId>).transpose()?;
    let default = [FormatArg { key: None, format: SignFormat::Kms }];
    let formats = if formats.is_empty() { &default[..] } else { formats };
    let mut wanted: Vec<Wanted> = Vec::new();
    for FormatArg { key: own, format } in formats {
        let key = match own {
            Some(own) => own.parse()?,
            None => key.clone().ok_or(Failure::NoFile)?,
        };
        let is_binary = *format == SignFormat::Openpgp && arguments.binary;
        let suffix = if is_binary { SignFormat::Kms.suffix() } else { format.suffix() };
        if wanted.iter().any(|other| other.suffix == suffix) {
            return Err(Failure::SameName(suffix.to_string()));
        }
        wanted.push(Wanted { key, format: *format, suffix });
    }
    let sig = sig.map(destination);
    if wanted.len() > 1 && (sig.is_some() || file == Stream::Standard) {
        return Err(Failure::OnePlace);
    }
    Ok(Operands { file, sig, wanted })
}

/// Where a signature goes. Standard output under a name of its own is standard output: opened anew,
/// what it is redirected to would be written from its beginning (`>> log`).
fn destination(argument: OsString) -> Stream {
    if streams::is_stdout(Path::new(&argument)) { Stream::Standard } else { Stream::from(argument) }
}
