//! A directory as a sink.
//!
//! Every function does one step whole, or leaves things so that doing it again is right (P4).

pub(crate) mod deliver;
pub(crate) mod exchange;
mod publisher;
pub mod quarantine;
pub mod removal;
pub(crate) mod remover;
pub(crate) mod sign;
mod sink;
mod tree;

pub(crate) use publisher::Publisher;
pub(crate) use sink::DirectorySink;
