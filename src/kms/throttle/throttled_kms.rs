//! KMS with manners: limits on calls in flight and per second for all rules together, and a circuit
//! breaker for each key and operation.
//!
//! Waiting for a place is fair: first come, first served. Changes no answer; refuses calls that
//! would fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use super::adaptive_rate::AdaptiveRate;
use super::breaker::{Breaker, Heard, Turn};
use super::observer::{CallEnd, Observer};
use crate::clock::{Clock, Moment};
use crate::context::Context;
use crate::key::{KeyArn, KeyId, Provider};
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Operation, Trouble, TroubleKind};
use crate::message::log;

/// How long what waits for a token still may when the daemon ends, or another policy is to take
/// over.
const LAST_TOKENS: Duration = Duration::from_secs(3);

/// A provider behind the limits of the policy. Tells an [`Observer`] what happens.
#[derive(Debug)]
pub(crate) struct ThrottledKms<K, O> {
    inner: K,
    in_flight: Semaphore,
    pace: Mutex<AdaptiveRate>,
    /// Had by the one whose token is the next. The others wait for that, in the order in which they
    /// came.
    turn: tokio::sync::Mutex<()>,
    /// Wakes that one when its token may be good sooner.
    sooner: Notify,
    /// Until when tokens are waited for. `None` is for ever.
    until: Mutex<Option<Moment>>,
    breakers: Mutex<HashMap<(KeyId, Operation), Breaker>>,
    /// Counts how often a breaker closed: whoever is held for KMS may come at once.
    reopened: watch::Sender<u64>,
    observer: Arc<O>,
    clock: Clock,
}

/// A call in flight.
struct InFlight<'a, O: Observer>(&'a O);

impl<'a, O: Observer> InFlight<'a, O> {
    fn begin(observer: &'a O) -> Self {
        observer.call_began();
        Self(observer)
    }
}

impl<O: Observer> Drop for InFlight<'_, O> {
    fn drop(&mut self) {
        self.0.call_over();
    }
}

impl<K, O: Observer> ThrottledKms<K, O> {
    /// Limits `inner` to `in_flight` calls at a time and `per_second` calls a second, with a burst
    /// of a tenth of a second's worth.
    pub(crate) fn new(inner: K, in_flight: usize, per_second: u32, clock: Clock, observer: Arc<O>) -> Self {
        let pace = AdaptiveRate::new(per_second);
        observer.interval_is(pace.interval()); // what an earlier policy's calls led to is over
        Self {
            inner,
            in_flight: Semaphore::new(in_flight),
            pace: Mutex::new(pace),
            turn: tokio::sync::Mutex::default(),
            sooner: Notify::new(),
            until: Mutex::default(),
            breakers: Mutex::default(),
            reopened: watch::Sender::new(0),
            observer,
            clock,
        }
    }

    /// Why a call would be refused now, if it would. Saves reading a file for nothing.
    pub(crate) fn refusal(&self, key: &KeyId, operation: Operation) -> Option<Trouble> {
        let now = self.clock.now();
        lock(&self.breakers).get(&(key.clone(), operation)).and_then(|breaker| breaker.refusal(now))
    }

    /// Changes whenever a breaker closes.
    pub(crate) fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.subscribe()
    }

    /// Has nobody wait for a token much longer: what did not get its turn by then is not in hand,
    /// and is held.
    pub(crate) fn end_soon(&self) {
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
        let _in_flight = InFlight::begin(&*self.observer);
        let began = self.clock.now();
        let answer = call.await;
        let took = self.clock.now().saturating_sub(began);
        self.learn(key, operation, began, &answer);
        let caller = self.inner.caller();
        self.observer.call_answered(CallEnd {
            operation,
            answer: answer.as_ref().map(answering),
            took,
            caller,
        });
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
        self.observer.interval_is(pace.interval());
        drop(pace);
        self.sooner.notify_one();
        let heard = trouble.map_or(Heard::Answer, Heard::of);
        let turn = lock(&self.breakers).entry((key.clone(), operation)).or_default().heard(now, heard);
        match turn {
            Turn::Same => {}
            Turn::Opened => {
                log!(KmsUnresponsive, %key, ?operation);
                if let Some(trouble) = trouble {
                    self.observer.key_fell_silent(key, operation, trouble);
                }
            }
            Turn::Closed => {
                log!(KmsResponsive, %key, ?operation);
                self.observer.key_answers(key, operation);
                self.reopened.send_modify(|n| *n += 1);
            }
        }
    }
}

impl<K: Kms, O: Observer> Kms for ThrottledKms<K, O> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    /// Records every notification.
    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Recorder {
        fn note(&self, what: String) {
            lock(&self.0).push(what);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    impl Observer for Recorder {
        fn call_began(&self) {
            self.note("began".into());
        }
        fn call_over(&self) {
            self.note("over".into());
        }
        fn call_answered(&self, call: CallEnd<'_>) {
            self.note(format!(
                "{} {}",
                call.operation.as_str(),
                if call.answer.is_ok() { "ok" } else { "no" }
            ));
        }
        fn interval_is(&self, interval: Duration) {
            self.note(format!("{interval:?}"));
        }
        fn key_fell_silent(&self, _: &KeyId, operation: Operation, trouble: &Trouble) {
            self.note(format!("silent {} {trouble}", operation.as_str()));
        }
        fn key_answers(&self, _: &KeyId, operation: Operation) {
            self.note(format!("answers {}", operation.as_str()));
        }
    }

    /// Encrypts; of Decrypt it knows only trouble of this kind, and no answer at all without one.
    struct Scripted(Mutex<Option<TroubleKind>>);

    impl Kms for Scripted {
        async fn encrypt(&self, _: &KeyId, plaintext: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            Ok(Encrypted { ciphertext: plaintext.to_vec(), key: ARN.parse().unwrap() })
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            let kind = *lock(&self.0);
            match kind {
                Some(kind) => Err(Trouble::new(kind, "").into()),
                None => std::future::pending().await,
            }
        }
    }

    fn throttled(kind: Option<TroubleKind>) -> (ThrottledKms<Scripted, Recorder>, Arc<Recorder>, KeyId) {
        let recorder = Arc::new(Recorder::default());
        let inner = Scripted(Mutex::new(kind));
        let kms = ThrottledKms::new(inner, 4, 1000, Clock::start(), Arc::clone(&recorder));
        assert_eq!(recorder.take(), ["1ms"]);
        (kms, recorder, ARN.parse().unwrap())
    }

    #[tokio::test]
    async fn each_call_is_observed_with_its_answer_and_the_new_rate() {
        let (kms, recorder, key) = throttled(Some(TroubleKind::Throttled));
        kms.encrypt(&key, b"digest", &Context::default()).await.unwrap();
        assert_eq!(recorder.take(), ["began", "1ms", "Encrypt ok", "over"]);
        kms.decrypt(Asked::Key(&key), b"signature", &Context::default()).await.map(drop).unwrap_err();
        assert_eq!(recorder.take(), ["began", "2ms", "Decrypt no", "over"]);
        kms.encrypt(&"local:a".parse().unwrap(), b"digest", &Context::default()).await.unwrap();
        assert_eq!(recorder.take(), [""; 0], "a key of this host costs nobody a call");
    }

    #[tokio::test]
    async fn a_cancelled_call_is_counted_as_over() {
        let (kms, recorder, key) = throttled(None);
        let nothing = Context::default();
        let call = kms.decrypt(Asked::Key(&key), b"signature", &nothing);
        tokio::time::timeout(Duration::from_millis(20), call).await.map(drop).unwrap_err();
        assert_eq!(recorder.take(), ["began", "over"]);
    }

    #[tokio::test]
    async fn k19_a_silent_key_is_reported_once_and_then_not_asked() {
        let (kms, recorder, key) = throttled(Some(TroubleKind::Network));
        for _ in 0..7 {
            kms.decrypt(Asked::Key(&key), b"signature", &Context::default()).await.map(drop).unwrap_err();
        }
        let calls = recorder.take();
        assert_eq!(calls.iter().filter(|what| *what == "began").count(), 5);
        assert_eq!(calls.iter().filter(|what| *what == "silent Decrypt network").count(), 1);
        assert!(kms.refusal(&key, Operation::Decrypt).is_some());
        assert!(kms.refusal(&key, Operation::Encrypt).is_none(), "the other operation may answer");
    }
}
