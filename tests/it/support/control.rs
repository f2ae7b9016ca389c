//! What a running daemon answers over its control socket.

use serde_json::Value;

use super::place::Place;

/// What a command answers in JSON, one value a line, whatever its exit code.
pub(crate) fn asked(place: &Place, command: &str) -> Vec<Value> {
    let run = place.shell(&format!("\"$KMS_SIG\" {command} --policy policy.toml"));
    let text = String::from_utf8(run.stdout().to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

pub(crate) fn status(place: &Place) -> Value {
    asked(place, "status --json").pop().unwrap_or_else(|| panic!("no status"))
}
