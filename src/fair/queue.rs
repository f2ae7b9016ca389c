//! A queue of queues: rules take turns, within a rule its senders do, and of one sender first come
//! is first served.
//!
//! A sender with thousands of entries delays another rule by one entry, and another sender of its
//! own rule by one entry of that rule. Who is alone waits for nobody. Pure: waits for nothing and
//! hands nothing out.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use super::Sender;

/// What waits, of all senders.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    rules: Ring<Arc<str>, Ring<Option<u32>, VecDeque<T>>>,
}

/// Queues that take turns. An empty one has no turn: who comes back to it is the last.
#[derive(Debug)]
struct Ring<K, Q> {
    /// Whose turn it is. Each queue is there once.
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { rules: Ring::default() }
    }
}

impl<T> FairQueue<T> {
    /// Adds an entry behind all others of its sender.
    pub(crate) fn push(&mut self, sender: &Sender, entry: T) {
        self.rules.queue(sender.rule()).queue(&sender.owner()).push_back(entry);
    }

    /// Takes the entry whose turn it is. One that is gone by now is dropped, and costs its sender
    /// no turn.
    pub(crate) fn pop(&mut self, is_gone: impl Fn(&T) -> bool) -> Option<T> {
        let of_sender = |entries: &mut VecDeque<T>| {
            let next = std::iter::from_fn(|| entries.pop_front()).find(|entry| !is_gone(entry));
            (next, entries.is_empty())
        };
        self.rules.next(|senders| {
            let next = senders.next(of_sender);
            (next, senders.is_empty())
        })
    }

    /// Whether nothing waits, not even something that is gone by now.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl<K, Q> Default for Ring<K, Q> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queues: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, Q: Default> Ring<K, Q> {
    /// The queue of this key.
    fn queue(&mut self, key: &K) -> &mut Q {
        if !self.queues.contains_key(key) {
            self.order.push_back(key.clone());
        }
        self.queues.entry(key.clone()).or_default()
    }

    /// Has one queue after the other take its turn, until something comes of it. `take` says as
    /// well whether the queue is empty after that; one that gives nothing must be.
    fn next<T>(&mut self, mut take: impl FnMut(&mut Q) -> (Option<T>, bool)) -> Option<T> {
        while let Some(key) = self.order.pop_front() {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            let (taken, is_empty) = take(queue);
            if is_empty || taken.is_none() {
                self.queues.remove(&key);
            } else {
                self.order.push_back(key);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes entries like `a1x`: rule `a`, owner 1, entry `x`.
    fn push(queue: &mut FairQueue<&'static str>, entries: &[&'static str]) {
        for entry in entries {
            let rule = Arc::from(entry.get(..1).unwrap());
            let owner = entry.get(1..2).unwrap().parse().ok();
            queue.push(&Sender::new(&rule, owner), entry);
        }
    }

    fn pop(queue: &mut FairQueue<&'static str>, times: usize) -> Vec<&'static str> {
        (0..times).map_while(|_| queue.pop(|entry| entry.ends_with('!'))).collect()
    }

    #[test]
    fn rules_take_turns_and_senders_within_them() {
        for (pushed, popped) in [
            // One sender: in their order.
            (&["a1x", "a1y", "a1z"][..], &["a1x", "a1y", "a1z"][..]),
            // Two rules, one of them flooded.
            (&["a1p", "a1q", "a1r", "a1s", "b1x", "b1y"], &["a1p", "b1x", "a1q", "b1y", "a1r", "a1s"]),
            // Two senders of one rule.
            (&["a1p", "a1q", "a1r", "a2x"], &["a1p", "a2x", "a1q", "a1r"]),
            // Many senders of one rule have no more than its share.
            (&["a1p", "a2p", "a3p", "a4p", "b1x", "b1y"], &["a1p", "b1x", "a2p", "b1y", "a3p", "a4p"]),
            // The owner may not be known; such payloads share one place in the order.
            (&["a-p", "a-q", "a0x"], &["a-p", "a0x", "a-q"]),
            // Who is gone costs nobody a turn.
            (&["a1!", "a1p", "a2!", "b1!", "c1x", "a1q"], &["a1p", "c1x", "a1q"]),
            (&["a1!", "b1!"], &[]),
        ] {
            let mut queue = FairQueue::default();
            push(&mut queue, pushed);
            assert_eq!(pop(&mut queue, 10), popped, "{pushed:?}");
            assert!(queue.is_empty(), "{pushed:?}");
            assert!(queue.rules.queues.is_empty(), "nothing is kept of {pushed:?}");
        }
    }

    #[test]
    fn who_comes_late_has_the_next_turn_but_one() {
        let mut queue = FairQueue::default();
        push(&mut queue, &["a1p", "a1q", "a1r"]);
        assert_eq!(pop(&mut queue, 1), ["a1p"]);
        push(&mut queue, &["b1x"]);
        assert_eq!(pop(&mut queue, 2), ["a1q", "b1x"]);
        // Coming again and again does not get ahead of those who wait.
        push(&mut queue, &["c1x", "b1y"]);
        assert_eq!(pop(&mut queue, 9), ["a1r", "c1x", "b1y"]);
    }
}
