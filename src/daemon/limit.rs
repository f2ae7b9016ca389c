//! KMS with manners: limits on calls in flight and per second for all rules together, and a circuit breaker
//! for each key and operation.
//!
//! Waiting for a place is fair: first come, first served. Changes no answer; refuses calls that would fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use super::breaker::{Breaker, Heard, Turn};
use crate::clock::{Clock, Moment};
use crate::context::Context;
use crate::daemon::adaptive_rate::AdaptiveRate;
use crate::daemon::status::Status;
use crate::key::{KeyArn, KeyId, Provider};
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind};

/// The two operations; each has breakers of its own.
pub use crate::kms::Operation;

/// How long what waits for a token still may when the daemon ends, or another policy is to take over.
const LAST_TOKENS: Duration = Duration::from_secs(3);

/// A provider behind the limits of the policy.
#[derive(Debug)]
pub struct ThrottledKms<K> {
    inner: K,
    in_flight: Semaphore,
    pace: Mutex<AdaptiveRate>,
    /// Had by the one whose token is the next. The others wait for that, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    /// Wakes that one when its token may be good sooner.
    sooner: Notify,
    /// Until when tokens are waited for. `None` is for ever.
    until: Mutex<Option<Moment>>,
    breakers: Mutex<HashMap<(KeyId, Operation), Breaker>>,
    /// Counts how often a breaker closed: whoever is held for KMS may come at once.
    reopened: watch::Sender<u64>,
    status: Arc<Status>,
    clock: Clock,
}

impl<K> ThrottledKms<K> {
    /// Limits `inner` to `in_flight` calls at a time and `per_second` calls a second, with a burst of a
    /// tenth of a second's worth. What it learns of keys, it shows on the status.
    pub fn new(inner: K, in_flight: usize, per_second: u32, status: &Arc<Status>) -> Self {
        let pace = AdaptiveRate::new(per_second);
        status.tally.set_interval(pace.interval()); // what an earlier policy's calls led to is over
        Self {
            inner,
            in_flight: Semaphore::new(in_flight),
            pace: Mutex::new(pace),
            turn: tokio::sync::Mutex::default(),
            sooner: Notify::new(),
            until: Mutex::default(),
            breakers: Mutex::default(),
            reopened: watch::Sender::new(0),
            clock: status.clock,
            status: Arc::clone(status),
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

    /// Has nobody wait for a token much longer: what did not get its turn by then is not in hand, and is held.
    pub fn end_soon(&self) {
        lock(&self.until).get_or_insert(self.clock.now() + LAST_TOKENS);
        self.sooner.notify_one();
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
        self.token().await?;
        Ok(Some(permit))
    }

    async fn token(&self) -> Result<(), Trouble> {
        let _turn = self.turn.lock().await;
        loop {
            let taken = lock(&self.pace).take(self.clock.now());
            let Err(good) = taken else { return Ok(()) };
            if lock(&self.until).is_some_and(|until| good > until) {
                return Err(Trouble::new(TroubleKind::Throttled, "shutting down before its turn came"));
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.clock.instant(good)) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Makes a call that was admitted, counts it and learns from it.
    async fn call<T>(
        &self,
        key: Option<&KeyId>,
        operation: Operation,
        call: impl Future<Output = Result<T, KmsError>>,
        answering: impl Fn(&T) -> &KeyArn,
    ) -> Result<T, KmsError>
    where
        K: Kms,
    {
        let Some(key) = key.filter(|key| key.provider() == Provider::Aws) else { return call.await };
        let _in_flight = self.status.tally.begin();
        let began = self.clock.now();
        let answer = call.await;
        self.status.tally.ended(operation, &answer, self.clock.now().saturating_sub(began));
        self.learn(key, operation, began, &answer);
        self.status.aws_was_asked(self.inner.caller(), answer.as_ref().ok().map(answering));
        answer
    }

    /// Lets rate and breaker learn from an answer.
    fn learn<T>(&self, key: &KeyId, operation: Operation, began: Moment, answer: &Result<T, KmsError>) {
        let trouble = match answer {
            Ok(_) | Err(KmsError::Rejected | KmsError::IncorrectKey) => None,
            Err(KmsError::Trouble(trouble)) => Some(trouble),
        };
        let now = self.clock.now();
        let mut pace = lock(&self.pace);
        match trouble {
            Some(trouble) if trouble.kind == TroubleKind::Throttled => pace.throttled(began, now),
            Some(_) => {}
            None => pace.answered(began, now),
        }
        self.status.tally.set_interval(pace.interval());
        drop(pace);
        self.sooner.notify_one();
        let heard = trouble.map_or(Heard::Answer, Heard::of);
        let turn = lock(&self.breakers).entry((key.clone(), operation)).or_default().heard(now, heard);
        match turn {
            Turn::Same => {}
            Turn::Opened => {
                tracing::error!(%key, ?operation, "KMS does not answer; asking again every half minute");
                if let Some(trouble) = trouble {
                    self.status.key_fell_silent(key.as_str(), operation, trouble);
                }
            }
            Turn::Closed => {
                tracing::info!(%key, ?operation, "KMS answers again");
                self.status.key_answers(key.as_str(), operation);
                self.reopened.send_modify(|n| *n += 1);
            }
        }
    }
}

impl<K: Kms> Kms for ThrottledKms<K> {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let _permit = self.admit(Some(key), Operation::Encrypt).await?;
        let call = self.inner.encrypt(key, plaintext, context);
        self.call(Some(key), Operation::Encrypt, call, |encrypted| &encrypted.key).await
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
        let call = self.inner.decrypt(asked, ciphertext, context);
        self.call(key, Operation::Decrypt, call, |decrypted| &decrypted.key).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is right after every single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
