//! How many files of a rule stand to be signed or judged, without touching any.

use std::path::Path;
use std::sync::Arc;

use super::driver::AttachError;
use super::driver::attach;
use super::driver::look::{is_decided, look};
use crate::policy::Rule;
use crate::state::State;
use crate::watch::scan::Walk;

/// Names read at a time.
const NAMES: usize = 512;

/// Why a rule cannot be surveyed.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Its directories are not as they should be: the daemon would hold the rule.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Its directory cannot be read.
    #[error(transparent)]
    Fs(#[from] crate::fs::FsError),
}

/// Counts the pairs in a rule's directory that state has no decision about. State that cannot be read counts
/// as empty. Changes nothing.
///
/// # Errors
/// [`SurveyError`].
pub fn survey(rule: &Arc<Rule>, state_dir: &Path) -> Result<usize, SurveyError> {
    let post = attach::post(rule, true)?;
    let state = State::rehearsal(state_dir).ok();
    let mut walk = Walk::new(rule);
    let mut waiting = 0;
    while let Some(batch) = walk.next(&post.root, NAMES, |_| {})? {
        for path in batch.pairs {
            let look = look(&post, &path)?;
            let row = state.as_ref().and_then(|state| state.remembered_now(&rule.name, &path));
            if look.sight.payload.is_some() && !row.is_some_and(|row| is_decided(&post, &row, &look, false)) {
                waiting += 1;
            }
        }
    }
    Ok(waiting)
}
