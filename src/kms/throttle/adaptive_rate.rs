//! How many calls of KMS may begin in a second: a rate that finds out what KMS takes.
//!
//! Everything goes by time, whatever the number of calls. As long as KMS has never throttled, the
//! rate doubles in each second in which it was what held calls up. Throttling halves it, at most
//! once for all the calls that were under way together, or one moment's throttling would stop
//! everything. After that it comes back like TCP (RFC 5681): doubled each second until it is where
//! it was halved first, and from there on by a small step each second in which it holds calls up.
//! Reads no clock and waits for nothing.

use std::time::Duration;

use super::token_bucket::TokenBucket;
use crate::clock::Moment;

/// Time between two increases.
const PERIOD: Duration = Duration::from_secs(1);
/// Calls in a second at the slowest rate that throttling leads to, unless the ceiling is lower.
const SLOWEST: f64 = 0.5;
/// Steps from nothing to the ceiling. Two clients that add the same in the same time and halve
/// alike end with equal shares.
const STEPS: f64 = 50.0;

/// The rate, and the tokens that come at it.
#[derive(Debug, Clone)]
pub(super) struct AdaptiveRate {
    /// The most calls in a second, ever.
    ceiling: f64,
    /// Calls in a second now.
    rate: f64,
    tokens: TokenBucket,
    /// When the rate changed last. Only answers to calls that began since tell of it.
    changed: Moment,
    /// Whether KMS has answered such a call.
    is_proven: bool,
    /// Since when callers have waited for tokens and no token was lost.
    limits_since: Option<Moment>,
    /// What throttling has taught.
    throttled: Option<Throttled>,
}

/// What throttling has taught.
#[derive(Debug, Clone, Copy)]
struct Throttled {
    /// The rate from which on it grows by steps: half of what was too much.
    careful: f64,
    /// When the rate was halved last.
    halved: Moment,
    /// Whether KMS has answered a call that began since.
    is_over: bool,
    /// When KMS throttled last.
    last: Moment,
}

impl AdaptiveRate {
    /// A rate that begins with so many calls in a second, and never has more than `ceiling`.
    pub(super) fn new(first: f64, ceiling: f64) -> Self {
        Self {
            ceiling,
            rate: first.min(ceiling),
            tokens: TokenBucket::default(),
            changed: Moment::ZERO,
            is_proven: false,
            limits_since: None,
            throttled: None,
        }
    }

    /// Calls in a second now.
    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    /// The most that will ever be.
    pub(super) const fn ceiling(&self) -> f64 {
        self.ceiling
    }

    /// When KMS throttled last, if it did.
    pub(super) fn last_throttled(&self) -> Option<Moment> {
        self.throttled.map(|throttled| throttled.last)
    }

    /// When a call that waits now may have a token, unless the rate changes meanwhile; not after
    /// `now` if it may have one by now.
    pub(super) fn good(&mut self, now: Moment) -> Moment {
        if self.tokens.is_full(now) {
            self.limits_since = None;
        }
        if self.tokens.good(now) > now {
            self.limits_since.get_or_insert(now);
        }
        self.grow(now);
        self.tokens.good(now)
    }

    /// Takes a token that is good by now.
    pub(super) fn take(&mut self, now: Moment) {
        self.tokens.take(now, self.interval());
    }

    /// KMS throttled a call that began then.
    pub(super) fn throttled(&mut self, began: Moment, now: Moment) {
        if let Some(throttled) = &mut self.throttled {
            throttled.last = now;
            if began < throttled.halved {
                return;
            }
        }
        let halved = (self.rate / 2.0).max(SLOWEST.min(self.ceiling));
        let careful = match self.throttled {
            Some(Throttled { careful, is_over: false, .. }) => careful,
            Some(_) | None => halved,
        };
        self.throttled = Some(Throttled { careful, halved: now, is_over: false, last: now });
        self.set(halved, now);
        self.tokens.empty(now, self.interval());
    }

    /// KMS answered a call that began then.
    pub(super) fn answered(&mut self, began: Moment, now: Moment) {
        if let Some(throttled) = &mut self.throttled {
            throttled.is_over |= began >= throttled.halved;
        }
        self.is_proven |= began >= self.changed;
        self.grow(now);
    }

    fn grow(&mut self, now: Moment) {
        let since_limit = self.limits_since.map(|since| now.saturating_sub(since.max(self.changed)));
        let is_limit = since_limit.is_some_and(|lasted| lasted >= PERIOD);
        let is_due = now.saturating_sub(self.changed) >= PERIOD;
        let higher = match self.throttled {
            None if is_limit => self.rate * 2.0,
            Some(Throttled { careful, .. }) if is_due && self.rate < careful => {
                (self.rate * 2.0).min(careful)
            }
            Some(_) if is_limit => self.rate + self.ceiling / STEPS,
            None | Some(_) => return,
        };
        let higher = higher.min(self.ceiling);
        if self.is_proven && higher > self.rate {
            self.set(higher, now);
            self.tokens.hasten(now, self.interval());
        }
    }

    fn set(&mut self, rate: f64, now: Moment) {
        self.rate = rate;
        self.changed = now;
        self.is_proven = false;
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.rate.recip())
    }
}

#[cfg(test)]
mod tests;
