//! KMS with manners: limits on calls in flight and per second for all rules together, and a circuit breaker
//! for each key and operation.
//!
//! Waiting for a place is fair: first come, first served. Changes no answer; refuses calls that would fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::board::Board;
use super::breaker::{Breaker, Heard, Turn};
use crate::clock::{Clock, Moment};
use crate::context::Context;
use crate::key::{KeyId, Provider};
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind};

/// The two operations; each has breakers of its own.
pub use crate::kms::Operation;

/// A provider behind the limits of the policy.
#[derive(Debug)]
pub struct Limited<K> {
    inner: K,
    in_flight: Semaphore,
    bucket: Mutex<Bucket>,
    breakers: Mutex<HashMap<(KeyId, Operation), Breaker>>,
    /// Counts how often a breaker closed: whoever is held for KMS may come at once.
    reopened: watch::Sender<u64>,
    board: Arc<Board>,
    clock: Clock,
}

/// A token bucket that lends: each caller takes a token at once and is told when it is good. So order is kept
/// and nobody polls. Being throttled halves the rate; answers bring it back by and by.
#[derive(Debug)]
struct Bucket {
    /// Time between tokens at the policy's rate.
    normal: Duration,
    /// Time between tokens now.
    interval: Duration,
    /// When the next token is good.
    next: Moment,
}

impl Bucket {
    /// How far ahead of time tokens may be saved up.
    const BURST: Duration = Duration::from_millis(100);
    /// The slowest rate that throttling leads to.
    const SLOWEST: Duration = Duration::from_secs(2);

    fn new(per_second: u32) -> Self {
        let normal = Duration::from_secs(1) / per_second.max(1);
        Self { normal, interval: normal, next: Duration::ZERO }
    }

    fn take(&mut self, now: Moment) -> Moment {
        let good = self.next.max(now.saturating_sub(Self::BURST));
        self.next = good + self.interval;
        good
    }

    fn throttled(&mut self) {
        self.interval = (self.interval * 2).min(Self::SLOWEST.max(self.normal));
    }

    fn answered(&mut self) {
        self.interval = (self.interval * 15 / 16).max(self.normal);
    }
}

impl<K> Limited<K> {
    /// Limits `inner` to `in_flight` calls at a time and `per_second` calls a second, with a burst of a
    /// tenth of a second's worth. What it learns of keys, it shows on the board.
    pub fn new(inner: K, in_flight: usize, per_second: u32, board: &Arc<Board>) -> Self {
        let bucket = Bucket::new(per_second);
        board.tally.set_interval(bucket.interval); // what an earlier policy's calls led to is over
        Self {
            inner,
            in_flight: Semaphore::new(in_flight),
            bucket: Mutex::new(bucket),
            breakers: Mutex::default(),
            reopened: watch::Sender::new(0),
            clock: board.clock,
            board: Arc::clone(board),
        }
    }

    /// Why a call would be refused now, if it would. Saves reading a file for nothing.
    pub fn refusal(&self, key: &KeyId, operation: Operation) -> Option<Trouble> {
        let now = self.clock.now();
        lock(&self.breakers).get(&(key.clone(), operation)).and_then(|breaker| breaker.refusal(now))
    }

    /// Changes whenever a breaker closes.
    pub fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.subscribe()
    }

    /// Waits for a place and a token. Keys of this host cost nobody a call.
    async fn admit(
        &self,
        key: Option<&KeyId>,
        operation: Operation,
    ) -> Result<Option<SemaphorePermit<'_>>, KmsError> {
        if key.is_some_and(|key| key.provider() == Provider::Local) {
            return Ok(None);
        }
        let closed = |_| Trouble::new(TroubleKind::Internal, "shutting down");
        let permit = self.in_flight.acquire().await.map_err(closed)?;
        if let Some(key) = key {
            let now = self.clock.now();
            lock(&self.breakers).entry((key.clone(), operation)).or_default().admit(now)?;
        }
        let now = self.clock.now();
        let good = lock(&self.bucket).take(now);
        if good > now {
            tokio::time::sleep_until(self.clock.instant(good)).await;
        }
        Ok(Some(permit))
    }

    /// Makes a call that was admitted, counts it and learns from it.
    async fn call<T>(
        &self,
        key: Option<&KeyId>,
        operation: Operation,
        call: impl Future<Output = Result<T, KmsError>>,
    ) -> Result<T, KmsError> {
        let Some(key) = key.filter(|key| key.provider() == Provider::Aws) else { return call.await };
        let _in_flight = self.board.tally.begin();
        let began = self.clock.now();
        let answer = call.await;
        self.board.tally.ended(operation, &answer, self.clock.now().saturating_sub(began));
        self.learn(key, operation, &answer);
        answer
    }

    /// Lets rate and breaker learn from an answer.
    fn learn<T>(&self, key: &KeyId, operation: Operation, answer: &Result<T, KmsError>) {
        let trouble = match answer {
            Ok(_) | Err(KmsError::Rejected | KmsError::IncorrectKey) => None,
            Err(KmsError::Trouble(trouble)) => Some(trouble),
        };
        match trouble {
            Some(trouble) if trouble.kind == TroubleKind::Throttled => lock(&self.bucket).throttled(),
            Some(_) => {}
            None => lock(&self.bucket).answered(),
        }
        self.board.tally.set_interval(lock(&self.bucket).interval);
        let heard = trouble.map_or(Heard::Answer, Heard::of);
        let now = self.clock.now();
        let turn = lock(&self.breakers).entry((key.clone(), operation)).or_default().heard(now, heard);
        match turn {
            Turn::Same => {}
            Turn::Opened => {
                tracing::error!(%key, ?operation, "KMS does not answer; asking again every half minute");
                if let Some(trouble) = trouble {
                    self.board.key_fell_silent(key.as_str(), operation, trouble);
                }
            }
            Turn::Closed => {
                tracing::info!(%key, ?operation, "KMS answers again");
                self.board.key_answers(key.as_str(), operation);
                self.reopened.send_modify(|n| *n += 1);
            }
        }
    }
}

impl<K: Kms> Kms for Limited<K> {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let _permit = self.admit(Some(key), Operation::Encrypt).await?;
        self.call(Some(key), Operation::Encrypt, self.inner.encrypt(key, plaintext, context)).await
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let key = match asked {
            Asked::Key(key) => Some(key),
            Asked::AnyKey => None,
        };
        let _permit = self.admit(key, Operation::Decrypt).await?;
        self.call(key, Operation::Decrypt, self.inner.decrypt(asked, ciphertext, context)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is right after every single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn k8_tokens_come_at_the_rate_and_do_not_pile_up() {
        let mut bucket = Bucket::new(50);
        let now = ms(10_000);
        let good: Vec<Moment> = (0..8).map(|_| bucket.take(now)).collect();
        // An idle hour saves up no more than the burst: then one each interval.
        assert_eq!(good.iter().filter(|g| **g <= now).count(), 6);
        assert_eq!(*good.last().unwrap(), now + ms(40));
        assert_eq!(bucket.take(now + ms(1000)), now + ms(900), "and again after a pause");
    }

    #[test]
    fn k8_throttling_slows_down_and_answers_speed_up_to_the_policys_rate() {
        let mut bucket = Bucket::new(50);
        bucket.throttled();
        assert_eq!(bucket.interval, ms(40));
        (0..20).for_each(|_| bucket.throttled());
        assert_eq!(bucket.interval, Bucket::SLOWEST);
        (0..200).for_each(|_| bucket.answered());
        assert_eq!(bucket.interval, ms(20));
    }
}
