//! KMS with manners: limits on calls in flight and per second for all rules together, and a circuit
//! breaker for each key and operation.
//!
//! Every attempt of a call is admitted and counted here; the provider makes one for each call that
//! it is asked for. Waiting is fair between rules and between the senders of a rule. Changes no
//! answer; refuses calls that would fail, and repeats those that may not fail again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::admission::{Admission, TooLate};
use super::breaker::{Breaker, Heard, Turn};
use super::observer::{CallEnd, Observer};
use super::quota::{KeyClass, Quota};
use crate::clock::Clock;
use crate::fair::Sender;
use crate::key::{KeyArn, KeyId};
use crate::kms::{Kms, KmsError, Operation, Trouble, TroubleKind};
use crate::message::log;

/// How long what waits for its turn still may when the daemon ends, or another policy is to take
/// over.
const LAST_TOKENS: Duration = Duration::from_secs(3);

/// What comes before the second attempt of a call, and before the third and last, as in the SDK's
/// standard mode. Not random: the attempts of many calls are spread by the tokens that they need.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];

/// A provider behind the limits of the policy. Tells an [`Observer`] what happens. Clones share
/// everything.
#[derive(Debug)]
pub(crate) struct KmsGate<K, O>(Arc<Shared<K, O>>);

#[derive(Debug)]
struct Shared<K, O> {
    inner: K,
    admission: Admission,
    breakers: Mutex<HashMap<(KeyId, Operation), Breaker>>,
    /// Counts how often a breaker closed: whoever is held for KMS may come at once.
    reopened: watch::Sender<u64>,
    /// Whether everything is to end.
    is_ending: watch::Sender<bool>,
    pauses: [Duration; 2],
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

impl<K, O> Clone for KmsGate<K, O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, O: Observer> KmsGate<K, O> {
    /// Limits `inner` to `in_flight` calls at a time, and to `per_second` calls a second with a
    /// burst of a tenth of a second's worth. Without that, the rate finds itself.
    pub(crate) fn new(
        inner: K,
        in_flight: usize,
        per_second: Option<u32>,
        clock: Clock,
        observer: Arc<O>,
    ) -> Self {
        Self::with_pauses(inner, in_flight, per_second, clock, observer, PAUSES)
    }

    fn with_pauses(
        inner: K,
        in_flight: usize,
        per_second: Option<u32>,
        clock: Clock,
        observer: Arc<O>,
        pauses: [Duration; 2],
    ) -> Self {
        observer.rates_are(BTreeMap::new()); // what an earlier policy's calls led to is over
        Self(Arc::new(Shared {
            inner,
            admission: Admission::new(in_flight, per_second, clock),
            breakers: Mutex::default(),
            reopened: watch::Sender::new(0),
            is_ending: watch::Sender::new(false),
            pauses,
            observer,
            clock,
        }))
    }

    /// Why a call would be refused now, if it would. Saves reading a file for nothing.
    pub(crate) fn refusal(&self, key: &KeyId, operation: Operation) -> Option<Trouble> {
        let now = self.0.clock.now();
        lock(&self.0.breakers).get(&(key.clone(), operation)).and_then(|breaker| breaker.refusal(now))
    }

    /// Changes whenever a breaker closes.
    pub(crate) fn reopened(&self) -> watch::Receiver<u64> {
        self.0.reopened.subscribe()
    }

    /// Has nobody wait for a turn much longer: what did not get one by then is not in hand, and is
    /// held.
    pub(crate) fn end_soon(&self) {
        self.0.is_ending.send_replace(true);
        self.0.admission.end_at(self.0.clock.now() + LAST_TOKENS);
    }

    /// The provider.
    pub(super) fn inner(&self) -> &K {
        &self.0.inner
    }

    /// Makes a call when it is its turn, and once or twice more if that may help. Keys of this host
    /// cost nobody a call, and do not come here.
    pub(super) async fn call<T: Send, F>(
        &self,
        sender: &Sender,
        key: Option<&KeyId>,
        class: KeyClass,
        operation: Operation,
        call: impl Fn() -> F + Send,
        answering: fn(&T) -> &KeyArn,
    ) -> Result<T, KmsError>
    where
        K: Kms,
        F: Future<Output = Result<T, KmsError>> + Send,
    {
        let Shared { admission, pauses, .. } = &*self.0;
        let mut pauses = pauses.iter();
        let mut is_first = true;
        if let Some(trouble) = key.and_then(|key| self.refusal(key, operation)) {
            return Err(trouble.into());
        }
        loop {
            let quota = admission.quota(key, class);
            let place = admission.enter(&quota, sender).await.map_err(|TooLate| too_late())?;
            if let Some(key) = key.filter(|_| std::mem::take(&mut is_first)) {
                let now = self.0.clock.now();
                lock(&self.0.breakers).entry((key.clone(), operation)).or_default().admit(now)?;
            }
            let answer = self.attempt(key, operation, &quota, call(), answering).await;
            drop(place);
            let trouble = match &answer {
                Ok(_) | Err(KmsError::Rejected | KmsError::IncorrectKey) => None,
                Err(KmsError::Trouble(trouble)) => Some(trouble),
            };
            if trouble.is_some_and(|trouble| may_pass(trouble.kind))
                && let Some(pause) = pauses.next()
                && self.pause(*pause).await
            {
                continue;
            }
            if let Some(key) = key {
                self.tell_breaker(key, operation, trouble);
            }
            return answer;
        }
    }

    /// Makes one attempt, counts it and lets the rate learn from it.
    async fn attempt<T>(
        &self,
        key: Option<&KeyId>,
        operation: Operation,
        quota: &Quota,
        call: impl Future<Output = Result<T, KmsError>>,
        answering: fn(&T) -> &KeyArn,
    ) -> Result<T, KmsError>
    where
        K: Kms,
    {
        let Shared { inner, admission, observer, clock, .. } = &*self.0;
        let _in_flight = InFlight::begin(&**observer);
        let began = clock.now();
        let answer = call.await;
        let took = clock.now().saturating_sub(began);
        let answered = answer.as_ref().map(answering);
        match &answered {
            Ok(by) => {
                admission.answered(quota, began);
                key.into_iter().for_each(|key| admission.learn(key, by));
            }
            Err(KmsError::Rejected | KmsError::IncorrectKey) => admission.answered(quota, began),
            Err(KmsError::Trouble(trouble)) if trouble.kind == TroubleKind::Throttled => {
                admission.throttled(quota, began);
            }
            Err(KmsError::Trouble(_)) => {}
        }
        admission.tell(|rates| observer.rates_are(rates));
        observer.call_answered(CallEnd { operation, answer: answered, took, caller: inner.caller() });
        answer
    }

    /// Waits before another attempt. Whether there may be one: not at the end.
    async fn pause(&self, pause: Duration) -> bool {
        let mut is_ending = self.0.is_ending.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            _ = is_ending.wait_for(|is| *is) => false,
        }
    }

    /// Lets the breaker learn from what came of a call in the end.
    fn tell_breaker(&self, key: &KeyId, operation: Operation, trouble: Option<&Trouble>) {
        let Shared { breakers, reopened, observer, clock, .. } = &*self.0;
        let heard = trouble.map_or(Heard::Answer, Heard::of);
        let turn = lock(breakers).entry((key.clone(), operation)).or_default().heard(clock.now(), heard);
        match turn {
            Turn::Same => {}
            Turn::Opened => {
                log!(KmsUnresponsive, %key, ?operation);
                if let Some(trouble) = trouble {
                    observer.key_fell_silent(key, operation, trouble);
                }
            }
            Turn::Closed => {
                log!(KmsResponsive, %key, ?operation);
                observer.key_answers(key, operation);
                reopened.send_modify(|n| *n += 1);
            }
        }
    }
}

fn too_late() -> Trouble {
    Trouble::new(TroubleKind::Throttled, "shutting down before its turn came")
}

/// Whether another attempt in a moment may get another answer.
const fn may_pass(kind: TroubleKind) -> bool {
    match kind {
        TroubleKind::Throttled | TroubleKind::Internal | TroubleKind::Network | TroubleKind::Timeout => true,
        TroubleKind::MalformedReply
        | TroubleKind::Unknown
        | TroubleKind::Denied
        | TroubleKind::KeyState
        | TroubleKind::NotFound
        | TroubleKind::KeyUsage
        | TroubleKind::Credentials
        | TroubleKind::CredentialSource
        | TroubleKind::Request => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is right after every single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::kms::throttle::observer::RateNow;
    use crate::kms::throttle::throttled_kms::ThrottledKms;
    use crate::kms::{Asked, Decrypted, Encrypted, PublicKeyReply, SignReply};
    use crate::trust::{Message, SigningAlgorithm};

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
        fn rates_are(&self, rates: BTreeMap<Quota, RateNow>) {
            let rates: Vec<f64> = rates.values().map(|rate| rate.per_second).collect();
            self.note(format!("{rates:?}"));
        }
        fn key_fell_silent(&self, _: &KeyId, operation: Operation, trouble: &Trouble) {
            self.note(format!("silent {} {trouble}", operation.as_str()));
        }
        fn key_answers(&self, _: &KeyId, operation: Operation) {
            self.note(format!("answers {}", operation.as_str()));
        }
    }

    /// Encrypts; to Decrypt it answers with this trouble so many times. Without one it answers
    /// nothing at all.
    struct Scripted(Option<TroubleKind>, Mutex<usize>);

    impl Kms for Scripted {
        async fn encrypt(&self, _: &KeyId, plaintext: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            Ok(Encrypted { ciphertext: plaintext.to_vec(), key: ARN.parse().unwrap() })
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            let Some(kind) = self.0 else { return std::future::pending().await };
            let mut left = lock(&self.1);
            if *left > 0 {
                *left -= 1;
                return Err(Trouble::new(kind, "").into());
            }
            Ok(Decrypted { plaintext: Vec::new().into(), key: ARN.parse().unwrap() })
        }

        async fn sign(
            &self,
            _: &KeyId,
            _: Message<'_>,
            algorithm: SigningAlgorithm,
        ) -> Result<SignReply, KmsError> {
            Ok(SignReply { signature: algorithm.as_str().into(), key: ARN.parse().unwrap() })
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            Err(Trouble::new(TroubleKind::Denied, "").into())
        }
    }

    type Throttled = ThrottledKms<Scripted, Recorder>;

    fn throttled(kind: Option<TroubleKind>, times: usize) -> (Throttled, Arc<Recorder>, KeyId) {
        let recorder = Arc::new(Recorder::default());
        let inner = Scripted(kind, Mutex::new(times));
        let (clock, observer) = (Clock::start(), Arc::clone(&recorder));
        let gate = KmsGate::with_pauses(inner, 4, Some(1000), clock, observer, [Duration::ZERO; 2]);
        assert_eq!(recorder.take(), ["[]"]);
        (ThrottledKms::new(&gate, Sender::daemon()), recorder, ARN.parse().unwrap())
    }

    async fn decrypt(kms: &Throttled, key: &KeyId) -> Result<(), KmsError> {
        kms.decrypt(Asked::Key(key), b"signature", &Context::default()).await.map(drop)
    }

    #[tokio::test]
    async fn k8_each_attempt_is_observed_with_its_answer_and_the_new_rate() {
        let (kms, recorder, key) = throttled(Some(TroubleKind::Throttled), 2);
        kms.encrypt(&key, b"digest", &Context::default()).await.unwrap();
        assert_eq!(recorder.take(), ["began", "[1000.0]", "Encrypt ok", "over"]);
        decrypt(&kms, &key).await.unwrap();
        let attempts = [
            ["began", "[500.0]", "Decrypt no", "over"].as_slice(),
            ["began", "[250.0]", "Decrypt no", "over"].as_slice(),
            ["began", "Decrypt ok", "over"].as_slice(),
        ];
        assert_eq!(recorder.take(), attempts.concat());
        kms.encrypt(&"local:a".parse().unwrap(), b"digest", &Context::default()).await.unwrap();
        assert_eq!(recorder.take(), [""; 0], "a key of this host costs nobody a call");
    }

    #[tokio::test]
    async fn signing_goes_through_the_gate_and_has_breakers_of_its_own() {
        let (kms, recorder, key) = throttled(None, 0);
        let sign = |key, algorithm| kms.sign(key, Message::Raw(b"message"), algorithm);
        let made = sign(&key, SigningAlgorithm::RsaPkcs1Sha256).await.unwrap();
        assert_eq!(made.signature, b"RSASSA_PKCS1_V1_5_SHA_256");
        assert_eq!(recorder.take(), ["began", "[1000.0]", "Sign ok", "over"]);
        sign(&key, SigningAlgorithm::EcdsaSha256).await.unwrap();
        let rates = recorder.take();
        assert_eq!(rates[1], "[1000.0, 1000.0]", "another class of keys has a rate of its own");
        kms.get_public_key(&key).await.unwrap_err();
        assert_eq!(recorder.take(), ["began", "[1000.0, 1000.0, 1000.0]", "GetPublicKey no", "over"]);
        sign(&"local:a".parse().unwrap(), SigningAlgorithm::Ed25519).await.unwrap();
        assert_eq!(recorder.take(), [""; 0], "a key of this host costs nobody a call");
    }

    #[tokio::test]
    async fn what_does_not_pass_is_not_tried_again() {
        for (kind, expected) in [
            (TroubleKind::Throttled, 3),
            (TroubleKind::Timeout, 3),
            (TroubleKind::Denied, 1),
            (TroubleKind::Unknown, 1),
        ] {
            let (kms, recorder, key) = throttled(Some(kind), 9);
            decrypt(&kms, &key).await.unwrap_err();
            let calls = recorder.take();
            assert_eq!(calls.iter().filter(|what| *what == "began").count(), expected, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_cancelled_call_is_counted_as_over() {
        let (kms, recorder, key) = throttled(None, 0);
        tokio::time::timeout(Duration::from_millis(20), decrypt(&kms, &key)).await.map(drop).unwrap_err();
        assert_eq!(recorder.take(), ["began", "over"]);
    }

    #[tokio::test]
    async fn k19_a_silent_key_is_reported_once_and_then_not_asked() {
        let (kms, recorder, key) = throttled(Some(TroubleKind::Network), usize::MAX);
        for _ in 0..7 {
            decrypt(&kms, &key).await.unwrap_err();
        }
        let calls = recorder.take();
        assert_eq!(calls.iter().filter(|what| *what == "began").count(), 5 * 3);
        assert_eq!(calls.iter().filter(|what| *what == "silent Decrypt network").count(), 1);
        let gate = kms.gate();
        assert!(gate.refusal(&key, Operation::Decrypt).is_some());
        assert!(gate.refusal(&key, Operation::Encrypt).is_none(), "the other operation may answer");
    }

    /// Throttling is an answer, however long it lasts.
    #[tokio::test]
    async fn k8_throttling_opens_no_breaker() {
        let (kms, recorder, key) = throttled(Some(TroubleKind::Throttled), usize::MAX);
        for _ in 0..3 {
            decrypt(&kms, &key).await.unwrap_err();
        }
        assert!(kms.gate().refusal(&key, Operation::Decrypt).is_none());
        assert!(!recorder.take().iter().any(|what| what.starts_with("silent")));
    }
}
