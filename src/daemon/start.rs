//! What is asked and opened before a daemon begins to work by a policy.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::{DaemonError, Options};
use crate::escape::quoted;
use crate::fs::Lock;
use crate::fs::host;
use crate::fs::trust;
use crate::policy::Policy;
use crate::sink::directory::quarantine::store::Store;
use crate::state::{Found, State};

/// Whether this process may and can work by this policy at all: not as root unasked, not by a
/// policy or keyring that others can write, and not where the host lacks what every file needs. To
/// be asked before anything is made that the policy names.
///
/// # Errors
/// `Root`, `Host`, `Trust`.
pub(crate) fn admit(policy: &Policy, options: Options) -> Result<(), DaemonError> {
    if rustix::process::geteuid().is_root() && !(policy.allow_root || options.allow_root) {
        return Err(DaemonError::Root);
    }
    host::probe()?;
    trust::check(&policy.file)?;
    Ok(policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there)?)
}

/// Opens what a policy names for all of its rules: the quarantine store.
pub(super) fn prepare(
    policy: &Policy,
    options: Options,
    held: &[Arc<Store>],
) -> Result<Option<Arc<Store>>, DaemonError> {
    match &policy.quarantine_dir {
        Some(dir) if !options.dry_run => Ok(Some(Arc::new(Store::open(dir, held)?))),
        _ => Ok(None),
    }
}

/// Opens state and takes its lock.
pub(super) fn open_state(dir: &Path, dry_run: bool) -> Result<(State, Option<Lock>), DaemonError> {
    if dry_run {
        return Ok((State::rehearsal(dir)?, None));
    }
    let lock = trust::create(dir, 0o700)?.lock_file(OsStr::new("lock"))?;
    let lock = lock.ok_or_else(|| DaemonError::Locked(dir.to_owned()))?;
    let (state, found) = State::open(dir)?;
    match found {
        Found::Whole => {}
        Found::New => tracing::info!(dir = %quoted(dir), "state begun"),
        Found::SetAside(aside) => tracing::error!(
            aside = %quoted(&aside),
            "state was damaged and is set aside; every file will be looked at anew, history begins again"
        ),
    }
    Ok((state, Some(lock)))
}
