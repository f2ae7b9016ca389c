//! Orders to a running daemon.

use crate::policy::Policy;

/// Orders to a running daemon.
#[derive(Debug)]
pub enum Order {
    /// Finish the files in hand, then end. A second one ends at once.
    Stop,
    /// Continue under this policy, which has been checked.
    Reload(Box<Policy>),
}
