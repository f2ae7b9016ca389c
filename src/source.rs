//! Where payloads come from.

pub mod directory;
