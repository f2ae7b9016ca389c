//! A watched directory as a source: events are hints, a scan is the truth (P5).
//!
//! Nothing here changes anything in the directory.

mod feed;
pub(crate) mod folder;
mod hint;
pub mod scan;
pub(crate) mod signature_file;
pub(crate) mod source;

pub(crate) use source::DirectorySource;
