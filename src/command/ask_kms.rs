//! What the commands that talk to KMS have in common.

use super::Failure;
use crate::key::{KeyId, Provider};

/// Fails early, and as a matter of usage, where local keys are named and no keyring is.
pub(super) fn need_keyring(keys: &[KeyId], has_keyring: bool) -> Result<(), Failure> {
    match keys.iter().find(|key| key.provider() == Provider::Local) {
        Some(key) if !has_keyring => Err(Failure::NoKeyring(key.to_string())),
        Some(_) | None => Ok(()),
    }
}

/// Runs what talks to KMS. A look-up of a name that still hangs when the answer is known is not
/// waited for.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}
