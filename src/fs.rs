//! Safe file work: directories by descriptor, files by one name inside them.
//!
//! A watched directory belongs to someone else, who may rename, link and swap things in it at any
//! moment. So nothing here follows a symlink, crosses a mount or opens a path twice, and nothing is
//! opened for reading before it is known to be a regular file (P9). Never decides what to do with a
//! file.
//!
//! Follows openat2(2), statx(2), open(2) for `O_TMPFILE`, link(2) and rename(2).

mod action;
pub(crate) mod atomic_write;
mod boundary;
pub(crate) mod chown;
pub mod copy;
mod dir;
mod error;
pub(crate) mod file_system;
pub mod flush;
pub(crate) mod host;
pub(crate) mod lease;
mod lock;
pub(crate) mod modes;
mod mount;
mod names;
mod path_walk;
pub(crate) mod place;
pub mod private;
pub(crate) mod rehearsal;
mod rel_path;
pub mod root;
pub(crate) mod root_lock;
pub(crate) mod staging;
mod stat;
pub(crate) mod system;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
mod written;

pub(crate) use action::Action;
pub use dir::Dir;
pub(crate) use dir::OpenError;
use dir::proc_path;
pub(crate) use error::FsError;
use error::Result;
pub(crate) use lock::Lock;
pub(crate) use names::{Listed, Names};
pub(crate) use place::Place;
pub use rel_path::RelPath;
pub(crate) use staging::Publish;
pub use staging::Staging;
pub use stat::Fitness;
pub use stat::{Identity, Irregular, Kind, Stat, Unfit, stat_file, stat_path};
