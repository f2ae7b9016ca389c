//! Base64 in lines, as armor of every kind has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes in base64, a newline after each so many characters and at the end.
pub(crate) fn base64_lines(bytes: &[u8], columns: usize) -> String {
    let body = STANDARD.encode(bytes);
    // Base64 has characters of one byte.
    let lines = body.as_bytes().chunks(columns).map(String::from_utf8_lossy);
    lines.map(|line| format!("{line}\n")).collect()
}
