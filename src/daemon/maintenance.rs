//! What is done now and then beside the work: old rows and items removed, the record sealed.

pub(crate) mod quarantine;
pub(crate) mod record;
