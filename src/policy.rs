//! The policy: what is watched, with which keys, and what happens then.
//!
//! These are the checked shapes. A [`Policy`] exists only by [`Policy::load`], which reports every
//! fault of the file at once, so nothing downstream checks again or falls back to a default (P7).
//! Reads the policy file, and what `table` says beside it; whether the directories exist and may be
//! trusted is `fs::trust`'s.

#[cfg(test)]
mod cases;
mod control;
mod control_files;
pub(crate) mod fault;
mod grammar;
pub mod manual;
mod mode;
mod owner;
mod pattern;
mod place;
mod reader;
mod record;
mod rule;
mod settings;
mod table;
mod watch;
pub use control_files::ControlFiles;
pub use fault::{Fault, Faults};
pub use mode::{
    AcceptBatch, Batching, Delivery, Mode, OnInvalid, OnStale, Place, Rollback, SignRule, VerifyRule,
};
pub(crate) use pattern::Exclusion;
pub use pattern::Patterns;
pub(crate) use place::resolved;
pub(crate) use rule::SIGNATURE_TIMEOUT;
pub use settings::{ControlSettings, FINISHING, Limits, Policy, Record, Sealing};
pub use watch::Rule;
