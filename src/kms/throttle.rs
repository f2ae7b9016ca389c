//! What stands between the daemon and KMS: a rate, a limit of calls in flight, a breaker for each
//! key and operation.

mod adaptive_rate;
mod breaker;
mod observer;
mod throttled_kms;

pub(crate) use observer::{CallEnd, Observer};
pub(crate) use throttled_kms::ThrottledKms;
