//! A watched directory as a source: events are hints, a scan is the truth (P5).
//!
//! Nothing here changes anything in the directory.

mod feed;
pub mod folder;
mod hint;
pub mod scan;
pub mod signature_file;
mod source;

pub use feed::DirectoryFeed;
pub use source::{DirectorySource, Origin};
