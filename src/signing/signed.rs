//! What signing gives.

use crate::key::KeyArn;
use crate::signature::Signature;

/// A signature just made.
#[derive(Debug)]
pub struct Signed {
    /// What to write to the `.sig`.
    pub signature: Signature,
    /// The key that made it.
    pub key: KeyArn,
}
