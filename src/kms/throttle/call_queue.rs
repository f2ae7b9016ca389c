//! Calls that wait: for a place among those in flight, and for a token of their quota.
//!
//! A call gets both at once or waits. So whoever waits for a token has no place that another could
//! use, and no token is taken for a call that cannot begin. Quotas take turns at the places; within
//! a quota the rules do, and within a rule its senders. Pure, with injected time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::adaptive_rate::AdaptiveRate;
use super::observer::RateNow;
use super::quota::{KeyClass, Quota, QuotaPlace};
use super::token_bucket::TokenBucket;
use crate::clock::Moment;
use crate::fair::{FairQueue, Sender};
use crate::key::{KeyArn, KeyId};

/// The calls that wait, of all quotas.
#[derive(Debug)]
pub(super) struct CallQueue<T> {
    /// Places for calls in flight that are free.
    free: usize,
    /// The policy's limit on all calls together.
    limit: Option<Limit>,
    quotas: BTreeMap<Quota, Line<T>>,
    /// The quotas, in the order of their turns.
    order: VecDeque<Quota>,
    /// Where key ids and aliases are, once a key has answered to one.
    own: Option<QuotaPlace>,
    /// Until when anything is waited for. `None` is for ever.
    until: Option<Moment>,
    /// Whether a rate, or what is said of it, has changed since that was asked last.
    has_changed: bool,
}

/// `kms_per_second` of the policy.
#[derive(Debug)]
struct Limit {
    per_second: u32,
    tokens: TokenBucket,
}

/// The calls of one quota that wait.
#[derive(Debug)]
struct Line<T> {
    rate: AdaptiveRate,
    waiting: FairQueue<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    sender: Sender,
    call: T,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// This call may begin. Its place is given back by [`CallQueue::leave`].
    Begin(T),
    /// Nothing does before this moment, unless something happens.
    At(Moment),
    /// Nothing does unless something happens.
    Rest,
}

impl<T> CallQueue<T> {
    /// A queue with so many places, and the policy's limit on calls in a second, if it has one.
    pub(super) fn new(places: usize, per_second: Option<u32>) -> Self {
        let limit = per_second.map(|n| Limit { per_second: n.max(1), tokens: TokenBucket::default() });
        Self {
            free: places,
            limit,
            quotas: BTreeMap::new(),
            order: VecDeque::new(),
            own: None,
            until: None,
            has_changed: false,
        }
    }

    /// The quota that a call under this key counts against, as far as is known.
    pub(super) fn quota(&self, key: Option<&KeyId>, class: KeyClass) -> Quota {
        Quota { place: key.and_then(QuotaPlace::of).or_else(|| self.own.clone()), class }
    }

    /// Has a call wait.
    pub(super) fn enter(&mut self, quota: &Quota, sender: &Sender, call: T) {
        let waiting = Waiting { sender: sender.clone(), call };
        self.line(quota).waiting.push(sender, waiting);
    }

    /// What may begin now, or when something may. Entries that are gone are passed over.
    pub(super) fn next(&mut self, now: Moment, is_gone: impl Fn(&T) -> bool) -> Step<T> {
        let is_over = self.until.is_some_and(|until| now >= until);
        let mut soonest: Option<Moment> = None;
        for _ in 0..self.order.len() {
            let Some(quota) = self.order.pop_front() else { break };
            self.order.push_back(quota.clone());
            let Some(line) = self.quotas.get_mut(&quota).filter(|line| !line.waiting.is_empty()) else {
                continue;
            };
            let before = line.rate.rate();
            let of_rate = line.rate.good(now);
            self.has_changed |= line.rate.rate() != before;
            let good = self.limit.as_ref().map_or(of_rate, |limit| limit.tokens.good(now).max(of_rate));
            if is_over || self.until.is_some_and(|until| good > until) {
                line.waiting = FairQueue::default(); // their turn comes too late
                continue;
            }
            if good > now {
                soonest = Some(soonest.map_or(good, |other| other.min(good)));
                continue;
            }
            if self.free == 0 {
                continue;
            }
            let Some(Waiting { call, .. }) = line.waiting.pop(|waiting| is_gone(&waiting.call)) else {
                continue;
            };
            line.rate.take(now);
            if let Some(limit) = &mut self.limit {
                limit.tokens.take(now, Duration::from_secs(1) / limit.per_second);
            }
            self.free -= 1;
            return Step::Begin(call);
        }
        let is_waiting = self.quotas.values().any(|line| !line.waiting.is_empty());
        let soonest = soonest.filter(|_| self.free > 0);
        match (soonest, self.until.filter(|_| is_waiting)) {
            (Some(at), Some(until)) => Step::At(at.min(until)),
            (Some(at), None) | (None, Some(at)) => Step::At(at),
            (None, None) => Step::Rest,
        }
    }

    /// A place is free again.
    pub(super) const fn leave(&mut self) {
        self.free += 1;
    }

    /// Ends all waits that would be longer than until then.
    pub(super) fn end_at(&mut self, until: Moment) {
        self.until.get_or_insert(until);
    }

    /// A call of this quota was answered.
    pub(super) fn answered(&mut self, quota: &Quota, began: Moment, now: Moment) {
        let rate = &mut self.line(quota).rate;
        let before = rate.rate();
        rate.answered(began, now);
        let has_changed = rate.rate() != before;
        self.has_changed |= has_changed;
    }

    /// A call of this quota was throttled.
    pub(super) fn throttled(&mut self, quota: &Quota, began: Moment, now: Moment) {
        self.line(quota).rate.throttled(began, now);
        self.has_changed = true;
    }

    /// Learns where key ids and aliases are, from the key that answered to one.
    pub(super) fn learn(&mut self, asked: &KeyId, answered: &KeyArn) {
        let Some(place) = QuotaPlace::of_answer(answered).filter(|_| QuotaPlace::of(asked).is_none()) else {
            return;
        };
        if self.own.as_ref() == Some(&place) {
            return;
        }
        self.own = Some(place.clone());
        let unknown: Vec<Quota> = self.quotas.keys().filter(|quota| quota.place.is_none()).cloned().collect();
        for quota in unknown {
            let Some(mut line) = self.quotas.remove(&quota) else { continue };
            self.order.retain(|other| *other != quota);
            let known = Quota { place: Some(place.clone()), class: quota.class };
            if !self.quotas.contains_key(&known) {
                self.order.push_back(known.clone());
                self.quotas.insert(known, line);
                continue;
            }
            let to = self.line(&known);
            while let Some(waiting) = line.waiting.pop(|_| false) {
                let sender = waiting.sender.clone();
                to.waiting.push(&sender, waiting);
            }
        }
        self.has_changed = true;
    }

    /// The rates, if there is anything new about them.
    pub(super) fn news(&mut self) -> Option<BTreeMap<Quota, RateNow>> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let of = |line: &Line<T>| RateNow {
            per_second: line.rate.rate(),
            ceiling: line.rate.ceiling(),
            last_throttled: line.rate.last_throttled(),
        };
        Some(self.quotas.iter().map(|(quota, line)| (quota.clone(), of(line))).collect())
    }

    fn line(&mut self, quota: &Quota) -> &mut Line<T> {
        // A call that began before its account was known ends after.
        let quota = match (&quota.place, &self.own) {
            (None, Some(own)) => Quota { place: Some(own.clone()), class: quota.class },
            (Some(_), _) | (None, None) => quota.clone(),
        };
        if !self.quotas.contains_key(&quota) {
            self.order.push_back(quota.clone());
            self.has_changed = true;
        }
        let (class, limit) = (quota.class, self.limit.as_ref().map(|limit| f64::from(limit.per_second)));
        self.quotas.entry(quota).or_insert_with(|| {
            let (first, ceiling) = limit.map_or((class.first_rate(), class.highest_rate()), |n| (n, n));
            Line { rate: AdaptiveRate::new(first, ceiling), waiting: FairQueue::default() }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const A: &str = "arn:aws:kms:eu-west-1:111122223333:key/a";
    const B: &str = "arn:aws:kms:eu-central-1:111122223333:key/b";

    fn quota(queue: &CallQueue<&'static str>, key: &str) -> Quota {
        queue.quota(Some(&key.parse().unwrap()), KeyClass::Symmetric)
    }

    /// Entries like `a1x`: rule `a`, owner 1.
    fn enter(queue: &mut CallQueue<&'static str>, key: &str, calls: &[&'static str]) {
        let quota = quota(queue, key);
        for call in calls {
            let (rule, owner) = (Arc::from(call.get(..1).unwrap()), call.get(1..2).unwrap().parse().ok());
            queue.enter(&quota, &Sender::new(&rule, owner), call);
        }
    }

    /// All that may begin now, and what then.
    fn begin(queue: &mut CallQueue<&'static str>, now: Moment) -> (Vec<&'static str>, Option<Moment>) {
        let mut begun = Vec::new();
        loop {
            match queue.next(now, |call| call.ends_with('!')) {
                Step::Begin(call) => begun.push(call),
                Step::At(at) => return (begun, Some(at)),
                Step::Rest => return (begun, None),
            }
        }
    }

    const fn ms(millis: u64) -> Moment {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_waits_for_a_token_has_no_place_and_rules_take_turns_at_tokens() {
        let mut queue = CallQueue::new(2, Some(5));
        let now = ms(1000);
        enter(&mut queue, A, &["a1a", "a1b", "a1c", "a1d"]);
        assert_eq!(begin(&mut queue, now), (vec!["a1a"], Some(ms(1100))));
        enter(&mut queue, A, &["b1x"]);
        assert_eq!(begin(&mut queue, ms(1100)), (vec!["a1b"], None), "both places are taken");
        queue.leave();
        assert_eq!(begin(&mut queue, ms(1150)), (vec![], Some(ms(1300))));
        assert_eq!(begin(&mut queue, ms(1300)), (vec!["b1x"], None));
    }

    #[test]
    fn a_slow_quota_keeps_no_other_waiting() {
        let mut queue = CallQueue::new(3, None);
        enter(&mut queue, A, &["a1a", "a1b", "a1c", "a1d"]);
        for n in 0..10 {
            let quota = quota(&queue, A);
            queue.throttled(&quota, ms(n), ms(n)); // to one call in two seconds
        }
        enter(&mut queue, B, &["a1x", "a1!", "a1y"]);
        let (begun, at) = begin(&mut queue, ms(1000));
        assert_eq!((begun, at), (vec!["a1x", "a1y"], Some(ms(2009))));
    }

    #[test]
    fn a_limit_of_the_policy_is_one_for_all_quotas() {
        let mut queue = CallQueue::new(100, Some(10));
        enter(&mut queue, A, &["a1a"; 50]);
        enter(&mut queue, B, &["b1b"; 50]);
        let begun = (1000..2000).map(|now| begin(&mut queue, ms(now)).0.len()).sum::<usize>();
        assert!((10..=11).contains(&begun), "{begun}");
    }

    #[test]
    fn an_alias_is_of_the_quota_of_the_key_that_answered() {
        let mut queue = CallQueue::new(100, None);
        let unknown = quota(&queue, "alias/a");
        assert_eq!(unknown.place, None);
        enter(&mut queue, "alias/a", &["a1a"; 20]);
        assert_eq!(begin(&mut queue, ms(1000)).0.len(), 11, "a burst");
        queue.throttled(&unknown, ms(1000), ms(1000));
        queue.learn(&"alias/a".parse().unwrap(), &KeyArn::from_reply(A).unwrap());
        assert_eq!(quota(&queue, "alias/a"), quota(&queue, A));
        // What was learned and who waits has gone over, also what began before.
        queue.throttled(&unknown, ms(1001), ms(1001));
        let news = queue.news().unwrap();
        assert_eq!(news.len(), 1);
        assert_eq!(news[&quota(&queue, A)].per_second, 25.0);
        assert_eq!(news[&quota(&queue, A)].last_throttled, Some(ms(1001)));
        assert_eq!(begin(&mut queue, ms(1041)), (vec!["a1a"], Some(ms(1081))));
        assert_eq!(queue.news(), None);
        // Where the quota is known already, they join.
        let mut queue = CallQueue::new(0, None);
        enter(&mut queue, A, &["a1a"]);
        enter(&mut queue, "alias/a", &["a1b"]);
        queue.learn(&"alias/a".parse().unwrap(), &KeyArn::from_reply(A).unwrap());
        queue.free = 5;
        assert_eq!(begin(&mut queue, ms(1000)), (vec!["a1a", "a1b"], None));
    }

    #[test]
    fn c17_at_the_end_nobody_waits_for_what_comes_too_late() {
        let mut queue = CallQueue::new(10, Some(1));
        enter(&mut queue, A, &["a1a", "a1b", "a1c"]);
        assert_eq!(begin(&mut queue, ms(1000)), (vec!["a1a"], Some(ms(1900))));
        queue.end_at(ms(2000));
        assert_eq!(begin(&mut queue, ms(1900)), (vec!["a1b"], None), "the third is gone");
        // Nor for a place.
        let mut queue = CallQueue::new(0, None);
        enter(&mut queue, A, &["a1a"]);
        queue.end_at(ms(2000));
        assert_eq!(begin(&mut queue, ms(1000)), (vec![], Some(ms(2000))));
        assert_eq!(begin(&mut queue, ms(2000)), (vec![], None));
        assert!(queue.quotas.values().all(|line| line.waiting.is_empty()));
    }
}
