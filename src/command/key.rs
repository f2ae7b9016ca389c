//! `kms-sig key`: the keys of this host's keyring. Never shows a secret.

use std::path::PathBuf;

use super::{Failure, answer};
use crate::cli::Key;
use crate::exit::Exit;
use crate::fs::atomic_write;
use crate::key::{KeyError, KeyId};
use crate::kms::local::Keyring;
use crate::service::ending;

/// Makes or lists keys.
///
/// # Errors
/// [`Failure`]; the keyring is then as it was.
pub(crate) fn run(arguments: &Key, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    match arguments {
        Key::Create { key } => {
            let key = local(key)?;
            let path = keyring.ok_or_else(|| Failure::NoKeyring(key.to_string()))?;
            let made = ending::cleaning_up(atomic_write::abandon, || Keyring::create_key(&path, &key))?;
            answer(&format!("created {made}"))?;
        }
        Key::List => {
            let path = keyring.ok_or_else(|| Failure::NoKeyring("listing keys".to_owned()))?;
            for listed in Keyring::open(&path)?.list() {
                let created = humantime::format_rfc3339_seconds(listed.created);
                answer(&format!("{}\t{created}", listed.key))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Only names of local keys: a bare `demo` would read as an AWS key id.
fn local(text: &str) -> Result<KeyId, Failure> {
    let key: KeyId = text.parse()?;
    match key.local_name() {
        Some(_) => Ok(key),
        None => Err(KeyError::Local(text.to_owned()).into()),
    }
}
