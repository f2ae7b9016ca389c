//! The KMS encryption context: text pairs that must be the same when signing and when verifying.
//!
//! A [`Context`] is what goes to KMS. A [`ContextTemplate`] is what a policy says, with
//! placeholders for a file's name. Never logs: contexts show in CloudTrail in clear, but names
//! inside them are hostile.

pub mod leaf_keys;
mod pairs;
mod template;

pub use pairs::{Context, ContextError, MAX_LEN, RESERVED_PREFIX};
pub(crate) use template::percent_encoded;
pub use template::{ContextTemplate, Filling, Placeholder};
