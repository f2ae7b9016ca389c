//! `kms-sig rescan` and `kms-sig reload`: the two orders that a running daemon takes.

use super::asked::encoded;
use super::{Failure, answer, asked};
use crate::cli::{ReloadCommand, RescanCommand};
use crate::exit::Exit;

/// Has the daemon scan now.
///
/// # Errors
/// It cannot be asked, or does not take orders from this user.
pub(crate) fn rescan(arguments: &RescanCommand) -> Result<Exit, Failure> {
    let of_rule = arguments.rule.as_ref().map(|rule| format!("?rule={}", encoded(rule)));
    let outcome = asked::order(&arguments.daemon, &format!("/rescan{}", of_rule.unwrap_or_default()))?;
    answer(&outcome.message)?;
    Ok(Exit::Done)
}

/// Has the daemon read its policy anew, and says what came of it.
///
/// # Errors
/// As [`rescan`]; or it refuses the policy.
pub(crate) fn reload(arguments: &ReloadCommand) -> Result<Exit, Failure> {
    let outcome = asked::order(&arguments.daemon, "/reload")?;
    answer(&outcome.message)?;
    Ok(Exit::Done)
}
