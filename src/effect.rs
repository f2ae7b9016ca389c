//! The only code that changes the file system.
//!
//! Every function does one step whole, or leaves things so that doing it again is right (P4).

pub mod claim;
pub mod deliver;
pub mod quarantine;
pub mod sign;
mod tree;
pub mod work;
