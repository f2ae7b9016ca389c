//! Metrics of KMS calls: counts by result, and latency.
//!
//! Counts calls that left the host, probes included. Calls that the breaker or the rate limit held
//! back and calls to local keys are not counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::kms::throttle::{CallEnd, Quota, RateNow};
use crate::kms::{KmsError, Operation};

/// Upper bounds of the latency histogram's buckets, in milliseconds: from a fast reply in the same
/// Region to the operation's timeout.
pub(crate) const BOUNDS_MS: [u64; 11] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_500, 5_000, 20_000];

/// The KMS calls of a daemon.
#[derive(Debug, Default)]
pub(crate) struct KmsMetrics {
    calls: Mutex<BTreeMap<(Operation, &'static str), Calls>>,
    in_flight: AtomicUsize,
    /// By quota. None before the first reply of it.
    rates: Mutex<BTreeMap<Quota, RateNow>>,
}

/// Calls with the same result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// How many.
    pub(crate) count: u64,
    /// The sum of their latencies.
    pub(crate) time: Duration,
    /// The count of each bucket of [`BOUNDS_MS`], and of those above the last.
    pub(crate) classes: [u64; BOUNDS_MS.len() + 1],
}

impl KmsMetrics {
    /// A call begins.
    pub(crate) fn call_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is over, with or without a reply.
    pub(crate) fn call_over(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a call that got a reply or an error.
    pub(crate) fn count(&self, call: &CallEnd<'_>) {
        let result = match call.answer {
            Ok(_) => "ok",
            Err(KmsError::Rejected) => "rejected",
            Err(KmsError::IncorrectKey) => "incorrect-key",
            Err(KmsError::Trouble(trouble)) => trouble.kind.as_str(),
        };
        let mut all = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = all.entry((call.operation, result)).or_default();
        calls.count += 1;
        calls.time += call.took;
        let class = BOUNDS_MS.iter().position(|bound| call.took <= Duration::from_millis(*bound));
        if let Some(n) = calls.classes.get_mut(class.unwrap_or(BOUNDS_MS.len())) {
            *n += 1;
        }
    }

    /// Sets the present rates, which rise while they limit and fall when KMS throttles.
    pub(crate) fn set_rates(&self, rates: BTreeMap<Quota, RateNow>) {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// How fast calls may follow each other, by quota.
    pub(crate) fn rates(&self) -> BTreeMap<Quota, RateNow> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls by operation and result.
    pub(crate) fn calls(&self) -> BTreeMap<(Operation, &'static str), Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyArn;
    use crate::kms::{Trouble, TroubleKind};

    #[test]
    fn a_call_is_counted_once_where_it_belongs() {
        let kms_metrics = KmsMetrics::default();
        let key = "local:a".parse::<KeyArn>().unwrap();
        let trouble = KmsError::Trouble(Trouble::new(TroubleKind::Timeout, ""));
        kms_metrics.call_began();
        assert_eq!(kms_metrics.in_flight(), 1);
        for (answer, millis) in [(Ok(&key), 5), (Ok(&key), 6), (Err(&trouble), 60_000)] {
            let took = Duration::from_millis(millis);
            kms_metrics.count(&CallEnd { operation: Operation::Decrypt, answer, took, caller: None });
        }
        kms_metrics.call_over();
        assert_eq!(kms_metrics.in_flight(), 0);
        let calls = kms_metrics.calls();
        let good = &calls[&(Operation::Decrypt, "ok")];
        assert_eq!((good.count, good.classes[0], good.classes[1]), (2, 1, 1));
        assert_eq!(calls[&(Operation::Decrypt, "timeout")].classes[BOUNDS_MS.len()], 1);
    }
}
