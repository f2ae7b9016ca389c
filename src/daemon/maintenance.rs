//! Maintenance tasks: remove old rows and quarantined items, seal the record.

pub(crate) mod quarantine;
pub(crate) mod record;
