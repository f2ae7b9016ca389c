//! `kms-sig version`: what exactly is running here.

use super::{Failure, answer};
use crate::exit::Exit;

/// Version, commit and target, one per line.
///
/// # Errors
/// `Output`.
pub(crate) fn run() -> Result<Exit, Failure> {
    answer(concat!(
        "version: ",
        env!("CARGO_PKG_VERSION"),
        "\ncommit: ",
        env!("KMS_SIG_COMMIT"),
        "\ntarget: ",
        env!("KMS_SIG_TARGET"),
    ))?;
    Ok(Exit::Done)
}
