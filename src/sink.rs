//! Where results go: the only code that changes what others may see.

pub mod directory;
