//! What stands between the daemon and KMS: a rate for each quota, a limit of calls in flight, a
//! breaker for each key and operation.

mod adaptive_rate;
mod admission;
mod breaker;
mod call_queue;
mod gate;
mod observer;
mod quota;
mod throttled_kms;
mod token_bucket;

pub(crate) use gate::KmsGate;
pub(crate) use observer::{CallEnd, Observer, RateNow};
pub(crate) use quota::{Quota, QuotaPlace};
pub(crate) use throttled_kms::ThrottledKms;
