//! What the throttle tells of the calls it lets through and of the keys that do not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quota::Quota;
use crate::clock::Moment;
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

    /// These are the rates of all quotas that were called upon, from now on.
    fn rates_are(&self, rates: BTreeMap<Quota, RateNow>);

    /// The breaker of a key opened: KMS no longer answers under it.
    fn key_fell_silent(&self, key: &KeyId, operation: Operation, trouble: &Trouble);

    /// The breaker of a key closed: KMS answers again.
    fn key_answers(&self, key: &KeyId, operation: Operation);
}

/// How fast calls of one quota may follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateNow {
    /// Calls that may begin in a second.
    pub(crate) per_second: f64,
    /// The most that this will ever be.
    pub(crate) ceiling: f64,
    /// When KMS throttled last, if it did.
    pub(crate) last_throttled: Option<Moment>,
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
