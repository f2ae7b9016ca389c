//! A token bucket: calls follow each other at intervals, and a short pause saves up a few. Pure.

use std::time::Duration;

use crate::clock::Moment;

/// How much time's worth of tokens may be saved up.
const BURST: Duration = Duration::from_millis(100);

/// The bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TokenBucket {
    /// When the next token would be good if none were ever lost.
    next: Moment,
}

impl TokenBucket {
    /// When the next token is good; not after `now` if it is by now.
    pub(super) fn good(self, now: Moment) -> Moment {
        self.next.max(now.saturating_sub(BURST))
    }

    /// Takes the next token; the one after it is good an interval later.
    pub(super) fn take(&mut self, now: Moment, interval: Duration) {
        self.next = self.good(now) + interval;
    }

    /// Whether tokens are lost, as nobody takes them.
    pub(super) fn is_full(self, now: Moment) -> bool {
        self.next + BURST < now
    }

    /// Who waits for the next token waits no longer than this.
    pub(super) fn hasten(&mut self, now: Moment, interval: Duration) {
        self.next = self.next.min(now + interval);
    }

    /// Takes away what is saved up: the next token is good an interval from now, or later.
    pub(super) fn empty(&mut self, now: Moment, interval: Duration) {
        self.next = self.next.max(now + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k8_tokens_come_at_the_rate_and_do_not_pile_up() {
        let ms = Duration::from_millis;
        let (mut bucket, interval) = (TokenBucket::default(), ms(20));
        let mut take = |now: Moment| {
            let is_good = bucket.good(now) <= now;
            if is_good {
                bucket.take(now, interval);
            }
            is_good
        };
        let now = ms(10_000);
        // An idle hour saves up no more than the burst: then one each interval.
        assert_eq!((0..8).take_while(|_| take(now)).count(), 6);
        assert!(!take(now + ms(19)));
        assert!(take(now + ms(20)));
        assert!(!take(now + ms(20)));
        assert_eq!((0..8).take_while(|_| take(now + ms(1000))).count(), 6, "and again after a pause");
    }
}
