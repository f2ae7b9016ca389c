//! What lies in a watched directory, and when it is complete.
//!
//! [`scan`] is the truth, [`hint`] makes it quick, [`settle`] decides when a file may be looked at. Nothing
//! here opens a file for its content or changes anything.

pub mod hint;
pub mod scan;
pub mod settle;
