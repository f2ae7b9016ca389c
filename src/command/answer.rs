//! What a command says on standard output, and how sizes and paths are written there.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::Value;

use super::Failure;
use crate::escape::Escaped;
use crate::state::export;
use crate::terminal::streams;

/// Answers on standard output.
///
/// # Errors
/// `Output`, also if standard output is closed. A reader that has gone is none: it has seen enough,
/// and the exit code still tells the rest.
pub(super) fn answer(text: &str) -> Result<(), Failure> {
    match streams::write_stdout(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Answers with a verdict, which the exit code tells as well: who closed standard output wants no
/// more than that.
///
/// # Errors
/// `Output`, if it is open and cannot be written to.
pub(super) fn answer_verdict(text: &str) -> Result<(), Failure> {
    if streams::is_stdout_closed() { Ok(()) } else { answer(text) }
}

/// Answers with one line of JSON: a record may hold what a terminal would act on.
pub(super) fn answer_json(value: &Value) -> Result<(), Failure> {
    answer(&export::json(value))
}

/// A count of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A path for JSON: as it reads, and byte for byte.
pub(super) fn both_ways(path: &Path) -> (String, String) {
    (Escaped::new(path).to_string(), hex::encode(path.as_os_str().as_bytes()))
}
