//! Safe file work: directories by descriptor, files by one name inside them.
//!
//! A watched directory belongs to someone else, who may rename, link and swap things in it at any
//! moment. So nothing here follows a symlink, crosses a mount or opens a path twice, and nothing is
//! opened for reading before it is known to be a regular file (P9). Never decides what to do with a
//! file.
//!
//! Follows openat2(2), statx(2), open(2) for `O_TMPFILE`, link(2) and rename(2).

mod action;
pub mod atomic_write;
pub mod chown;
pub mod copy;
mod dir;
mod error;
pub mod flush;
pub mod lease;
mod lock;
mod names;
mod path_walk;
pub mod place;
pub mod private;
mod rel_path;
pub mod root;
pub mod staging;
mod stat;
pub mod system;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
mod written;

pub use action::Action;
use dir::proc_path;
pub use dir::{Dir, OpenError};
pub use error::FsError;
use error::Result;
pub use lock::Lock;
pub use names::{Listed, Names};
pub use place::Place;
pub use rel_path::RelPath;
pub use staging::{Publish, Staging};
pub use stat::{Fitness, Identity, Irregular, Kind, Stat, Unfit, stat_file, stat_path};
