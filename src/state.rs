//! State: what was decided for which version of which file, in SQLite.
//!
//! It saves a restart from repeating work. It is never the only place where a file is known: losing
//! it loses speed and history and nothing else. A row saves work for sign rules and never replaces
//! verification before delivery (C13).
//!
//! One thread owns the connection. Requests that arrive while it commits are committed together, so
//! that one fsync serves many files; a caller gets its answer only when what it wrote is durable.
//! Commands may append to the record beside it, by a [`Journal`].

pub(crate) mod attestation;
pub(crate) mod audit;
#[cfg(test)]
mod cases;
mod database;
mod decision;
mod error;
pub(crate) mod export;
mod file;
pub(crate) mod ledger;
pub(crate) mod link;
mod memory;
mod outcome;
mod quarantine_exit;
pub mod reader;
pub mod reason;
mod schema;
mod standing;
mod thread;
mod unconfirmed;

pub(crate) use database::Found;
pub use database::State;
pub use decision::Decision;
pub use decision::{Remembered, Version};
pub use error::StateError;
pub use file::FILE;
pub(crate) use outcome::ExitKind;
pub use outcome::Outcome;
pub(crate) use quarantine_exit::{Journal, QuarantineExit};
pub(crate) use standing::SignedElsewhere;
pub(crate) use unconfirmed::Seen;
