//! `kms-sig key`: the keys of this host's keyring. Never shows a secret.

use std::path::{Path, PathBuf};

use super::{Failure, answer, public_key};
use crate::cli::Key;
use crate::exit::Exit;
use crate::fs::atomic_write;
use crate::key::{KeyError, KeyId};
use crate::kms::local::{KeyType, Keyring};
use crate::service::ending;

/// Makes or lists keys, or shows a public one.
///
/// # Errors
/// [`Failure`]; the keyring is then as it was.
pub(crate) fn run(arguments: &Key, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    match arguments {
        Key::Create { key, key_type } => create(&local(key)?, *key_type, keyring)?,
        Key::List => list(&keyring.ok_or_else(|| Failure::NoKeyring("listing keys".to_owned()))?)?,
        Key::Public(arguments) => return public_key::run(arguments, keyring),
    }
    Ok(Exit::Done)
}

fn create(key: &KeyId, key_type: KeyType, keyring: Option<PathBuf>) -> Result<(), Failure> {
    let path = keyring.ok_or_else(|| Failure::NoKeyring(key.to_string()))?;
    let made = ending::cleaning_up(atomic_write::abandon, || Keyring::create(&path, key, key_type))?;
    answer(&format!("created {made}"))
}

fn list(keyring: &Path) -> Result<(), Failure> {
    for listed in Keyring::open(keyring)?.list() {
        let created = humantime::format_rfc3339_seconds(listed.created);
        answer(&format!("{}\t{created}\t{}", listed.key, listed.key_type))?;
    }
    Ok(())
}

/// Only names of local keys: a bare `demo` would read as an AWS key id.
fn local(text: &str) -> Result<KeyId, Failure> {
    let key: KeyId = text.parse()?;
    match key.local_name() {
        Some(_) => Ok(key),
        None => Err(KeyError::Local(text.to_owned()).into()),
    }
}
