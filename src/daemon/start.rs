//! What is checked and opened before a daemon starts to work under a policy.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::{DaemonError, Options};
use crate::escape::quoted;
use crate::fs::Lock;
use crate::fs::chown::Owner;
use crate::fs::host;
use crate::fs::trust;
use crate::message::log;
use crate::policy::Policy;
use crate::sink::directory::quarantine::store::Store;
use crate::state::{Found, State};

/// Checks that this process may and can run under this policy: not as root without permission to,
/// not with a policy or keyring that others can write, and not where the host lacks what every file
/// needs. Call it before anything that the policy names is created.
///
/// # Errors
/// `Root`, `Host`, `Trust`.
pub(crate) fn admit(policy: &Policy, options: Options) -> Result<(), DaemonError> {
    if rustix::process::geteuid().is_root() && !(policy.allow_root || options.allow_root) {
        return Err(DaemonError::Root);
    }
    host::probe()?;
    trust::check_where_it_leads(&policy.file, Owner::current())?;
    Ok(policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there)?)
}

/// Opens the quarantine store, which all rules of a policy share.
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
        return Ok((State::dry_run(dir)?, None));
    }
    let lock = trust::create(dir, 0o700)?.lock_file(OsStr::new("lock"))?;
    let lock = lock.ok_or_else(|| DaemonError::Locked(dir.to_owned()))?;
    let (state, found) = State::open(dir)?;
    match found {
        Found::Whole => {}
        Found::New => log!(StateCreated, dir = %quoted(dir)),
        Found::SetAside(aside) => log!(StateSetAside, aside = %quoted(&aside)),
    }
    Ok((state, Some(lock)))
}
