//! How fast calls of KMS may follow each other: a token bucket whose rate falls while KMS
//! throttles.
//!
//! Halved at most once for all the calls that were under way together, or one moment's throttling
//! would stop everything. Comes back like TCP (RFC 5681): doubled with each answer until it is
//! where it was halved first, and from there on little by little, as that rate may have been too
//! much. Reads no clock and waits for nothing.

use std::time::Duration;

use crate::clock::Moment;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct AdaptiveRate {
    /// Time between tokens at the policy's rate.
    normal: Duration,
    /// Time between tokens now.
    interval: Duration,
    /// When the next token is good.
    next: Moment,
    /// From which interval on the rate grows little by little.
    careful: Duration,
    /// When it was halved last. Answers to calls that began before tell nothing of the rate since.
    halved: Moment,
    /// Whether KMS has answered a call since.
    is_answering: bool,
}

impl AdaptiveRate {
    /// How far ahead of time tokens may be saved up.
    const BURST: Duration = Duration::from_millis(100);
    /// The slowest rate that throttling leads to.
    const SLOWEST: Duration = Duration::from_secs(2);

    /// So many calls a second, at most.
    pub(crate) fn new(per_second: u32) -> Self {
        let normal = Duration::from_secs(1) / per_second.max(1);
        Self {
            normal,
            interval: normal,
            next: Duration::ZERO,
            careful: normal,
            halved: Duration::ZERO,
            is_answering: true,
        }
    }

    /// Time between calls now.
    pub(crate) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes a token, if one is good by now.
    ///
    /// # Errors
    /// When the next one will be, unless the rate changes meanwhile.
    pub(crate) fn take(&mut self, now: Moment) -> Result<(), Moment> {
        let good = self.next.max(now.saturating_sub(Self::BURST));
        if good > now {
            return Err(good);
        }
        self.next = good + self.interval;
        Ok(())
    }

    /// KMS throttled a call that began then.
    pub(crate) fn throttled(&mut self, began: Moment, now: Moment) {
        if began < self.halved {
            return;
        }
        let slower = (self.interval * 2).min(Self::SLOWEST.max(self.normal));
        if self.is_answering {
            self.careful = slower;
        }
        self.is_answering = false;
        self.interval = slower;
        self.halved = now;
    }

    /// KMS answered a call that began then.
    pub(crate) fn answered(&mut self, began: Moment, now: Moment) {
        self.is_answering |= began >= self.halved;
        self.interval = match self.interval > self.careful {
            true => (self.interval / 2).max(self.careful),
            false => (self.interval * 15 / 16).max(self.normal),
        };
        self.next = self.next.min(now + self.interval); // who waits for the next one waits no longer than that
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn k8_tokens_come_at_the_rate_and_do_not_pile_up() {
        let mut pace = AdaptiveRate::new(50);
        let now = ms(10_000);
        // An idle hour saves up no more than the burst: then one each interval.
        assert_eq!((0..8).map_while(|_| pace.take(now).ok()).count(), 6);
        assert_eq!(pace.take(now), Err(now + ms(20)));
        assert_eq!(pace.take(now + ms(20)), Ok(()));
        assert_eq!(pace.take(now + ms(20)), Err(now + ms(40)));
        assert_eq!(
            (0..8).map_while(|_| pace.take(now + ms(1000)).ok()).count(),
            6,
            "and again after a pause"
        );
    }

    #[test]
    fn k8_what_was_under_way_together_halves_the_rate_once() {
        let mut pace = AdaptiveRate::new(50);
        let (began, now) = (ms(1000), ms(1050));
        (0..64).for_each(|_| pace.throttled(began, now));
        assert_eq!(pace.interval(), ms(40));
        pace.throttled(now, ms(1100));
        assert_eq!(pace.interval(), ms(80));
        for began in 2000..2020 {
            pace.throttled(ms(began), ms(began));
        }
        assert_eq!(pace.interval(), AdaptiveRate::SLOWEST);
        let mut slow = AdaptiveRate::new(1);
        slow.throttled(now, now);
        slow.throttled(now, now);
        assert_eq!(slow.interval(), AdaptiveRate::SLOWEST);
    }

    #[test]
    fn k8_the_rate_comes_back_fast_to_where_it_was_halved_first_and_slowly_from_there() {
        let mut pace = AdaptiveRate::new(50);
        for began in 1000..1010 {
            pace.throttled(ms(began), ms(began));
        }
        let answers = |pace: &mut AdaptiveRate, until: Duration| {
            let slow = |pace: &AdaptiveRate| pace.interval() > until;
            (0..1000).take_while(|_| slow(pace).then(|| pace.answered(ms(2000), ms(2000))).is_some()).count()
        };
        assert_eq!(answers(&mut pace, ms(40)), 6);
        assert_eq!(answers(&mut pace, ms(20)), 11);
        assert_eq!(pace.interval(), ms(20), "the policy's rate, and no more");
        // Throttled at a quota: each time anew from half of what was too much.
        pace.throttled(ms(3000), ms(3000));
        assert_eq!(answers(&mut pace, ms(20)), 11);
        // Throttled again on the way back: then that is where it was too much.
        (0..3).for_each(|n| pace.throttled(ms(4000 + n), ms(4000 + n)));
        pace.answered(ms(5000), ms(5000));
        assert_eq!(pace.interval(), ms(80));
        pace.throttled(ms(6000), ms(6000));
        assert_eq!(pace.careful, ms(160));
    }

    #[test]
    fn k8_who_waits_for_a_token_of_a_slow_time_waits_no_longer_than_it_takes_by_now() {
        let mut pace = AdaptiveRate::new(50);
        for began in 1000..1010 {
            pace.throttled(ms(began), ms(began));
        }
        let now = ms(5000);
        while pace.take(now).is_ok() {}
        assert!(pace.take(now).unwrap_err() >= now + ms(1000));
        (0..6).for_each(|_| pace.answered(now, now));
        assert_eq!(pace.take(now), Err(now + ms(40)));
    }

    #[test]
    fn an_answer_from_before_it_was_throttled_is_not_the_end_of_throttling() {
        let mut pace = AdaptiveRate::new(50);
        pace.throttled(ms(1000), ms(1010));
        pace.answered(ms(990), ms(1011));
        let before = pace.interval();
        pace.throttled(ms(1011), ms(1020));
        assert_eq!(pace.interval(), before * 2);
        assert_eq!(pace.careful, ms(40), "where it was halved first");
    }
}
