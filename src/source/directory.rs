//! A watched directory as a source: events are hints, a scan is the truth (P5).
//!
//! Nothing here opens a file for its content or changes anything.

pub mod hint;
pub mod scan;
