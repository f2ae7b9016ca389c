//! The quarantine store: failed pairs, each in a folder of its own with a record of why.
//!
//! Names in the store are generated; what the sender chose stands in the record only. The record is
//! written first, so nothing is ever in the store that cannot be explained. On one mount the pair
//! is moved: the sender may still hold the payload open, and the record's digest says what was
//! judged. Across mounts it is copied durably before the source is removed.
//!
//! Each item's folder is locked while something is done to it, so that the daemon and commands
//! never work on the same one: a copy that somebody purged while its source is being removed would
//! be a lost file.

mod folder;
mod item;
mod put_away;
mod record;
mod recovery;
mod release;
pub(crate) mod store;
#[cfg(test)]
mod tests;

pub use folder::{PAYLOAD, SIGNATURE, ids, is_id, record_of};
pub(crate) use item::{Entry, Item, ItemError, Locked, ReadError, entries, share, sweep};
pub(crate) use put_away::rehearse;
pub use put_away::{Case, can_be_copied, put_away};
pub use record::{PartRecord, Record};
pub use recovery::recover;
pub(crate) use release::{Changed, Licence, Occupied, PackError, Parcel, Published};
