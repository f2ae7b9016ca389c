//! Predicts what would happen to a file, and what would keep the daemon from working, without
//! changing anything.

pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod survey;
