//! What a running daemon is told.

use crate::policy::Policy;

/// What a running daemon is told.
#[derive(Debug)]
pub enum Order {
    /// End, after the files in hand; told again, end at once.
    Stop,
    /// Go on under this policy, which has been checked.
    Reload(Box<Policy>),
}
