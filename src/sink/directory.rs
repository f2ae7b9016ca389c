//! A directory as a sink.
//!
//! Every function does one step whole, or leaves things so that doing it again is right (P4).

pub mod deliver;
pub mod exchange;
pub mod quarantine;
pub mod removal;
pub(crate) mod remover;
pub mod sign;
mod sink;
mod tree;

pub use sink::DirectorySink;
