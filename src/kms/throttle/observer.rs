//! What the throttle tells of the calls it lets through and of the keys that do not answer.

use std::time::Duration;

use crate::key::{KeyArn, KeyId};
use crate::kms::caller::Caller;
use crate::kms::{KmsError, Operation, Trouble};

/// Receives events of the throttle. Called while a call is made, so it must be quick; it decides
/// nothing.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A call leaves for KMS.
    fn call_began(&self);

    /// A call that left is over: answered, or given up.
    fn call_over(&self);

    /// A call was answered, by KMS or by what stands before it.
    fn call_answered(&self, call: CallEnd<'_>);

    /// So much time passes between two calls from now on. Rises when KMS throttles.
    fn interval_is(&self, interval: Duration);

    /// The breaker of a key opened: KMS no longer answers under it.
    fn key_fell_silent(&self, key: &KeyId, operation: Operation, trouble: &Trouble);

    /// The breaker of a key closed: KMS answers again.
    fn key_answers(&self, key: &KeyId, operation: Operation);
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct CallEnd<'a> {
    /// What was asked for.
    pub(crate) operation: Operation,
    /// The key that answered, or why there is no answer.
    pub(crate) answer: Result<&'a KeyArn, &'a KmsError>,
    /// How long it took.
    pub(crate) took: Duration,
    /// As whom it was asked, as far as that is known.
    pub(crate) caller: Option<Caller>,
}
