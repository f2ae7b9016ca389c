//! What a command says on standard error.

use std::io::Write as _;

use crate::cli::Stream;
use crate::terminal::{self, progress};

/// Complains on standard error. Where that cannot be written, there is nobody left to tell.
pub(super) fn complain(line: &str) {
    let line = terminal::stderr().labelled(line) + "\n";
    progress::stderr().write_all(line.as_bytes()).ok();
}

/// The message about a missing `.sig`, shared by all commands.
pub(super) fn complain_missing(sig: &Stream) {
    complain(&format!("no signature: {} does not exist", sig.as_input()));
}
