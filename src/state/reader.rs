//! Reading the record, while a daemon writes to it or when none runs. Changes nothing, and needs no
//! right to.
//!
//! What is read is one snapshot: rows that are appended meanwhile are the next reader's. Decides
//! nothing about what it finds.

mod decided;
mod filter;
mod history;

pub(crate) use decided::Decisions;
pub(crate) use filter::{Filter, JudgedFilter, NameFilter};
pub use history::History;
pub(crate) use history::{Expected, HistoryError};
