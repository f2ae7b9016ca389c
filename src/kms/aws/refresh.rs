//! The credentials that calls are signed with: kept while they are good, and replaced when KMS no
//! longer knows them.
//!
//! The SDK's own cache keeps credentials until they expire by their own account, whatever KMS says
//! of them, and its profile provider reads its files once. So credentials are chosen here, before
//! each call, and the SDK is told to keep none. Decides nothing about what an answer means; see
//! [`Trouble::disowns_credentials`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

use super::explain;
use super::source::Source;
use crate::clock::{self, Clock, Moment};
use crate::kms::Trouble;
use crate::message::log;

/// The longest that a source may take, a credential process that waits for a person's touch
/// included.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A failure is cached for this long, so that a thousand held files cost one request to the source.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// Credentials that expire this soon are not used: they might expire before the request arrives.
const MARGIN: Duration = Duration::from_secs(10);
/// New ones are requested this long before the old ones expire, which then still bridge an outage
/// of their source. The metadata services have them by then (Amazon EC2 user guide, "Retrieve
/// security credentials from instance metadata").
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// Credentials without an expiry are requested again after this long, as the SDK does.
const UNLIMITED: Duration = Duration::from_secs(15 * 60);
/// Time between two requests that are not urgent.
const PAUSE: Duration = Duration::from_secs(60);

/// Where credentials come from, opened anew: files are read and clients built again.
pub(super) type Open = Box<dyn Fn() -> Opening + Send + Sync>;
/// See [`Open`].
pub(super) type Opening = Pin<Box<dyn Future<Output = Origin> + Send>>;

/// A source of credentials, as it was configured when it was opened.
#[derive(Debug)]
pub(super) struct Origin {
    /// The SDK's provider.
    pub(super) provider: SharedCredentialsProvider,
    /// Which source it is, for messages.
    pub(super) source: Source,
}

/// Credentials in use.
pub(super) struct Held {
    pub(super) credentials: Credentials,
    /// Where they come from, for people.
    pub(super) source: String,
    loaded: Moment,
}

/// The credentials of one configuration, cached until they expire or KMS refuses them.
pub(super) struct CredentialCache {
    open: Open,
    clock: Clock,
    /// Those in use. Changed only while `refresh` is locked.
    held: Mutex<Option<Arc<Held>>>,
    /// Locked by the call that requests new credentials. The others wait for its result.
    refresh: tokio::sync::Mutex<Refresh>,
}

#[derive(Default)]
struct Refresh {
    /// Opened when credentials are first needed.
    origin: Option<Origin>,
    /// The last failure, and when that was.
    failed: Option<(Moment, Trouble)>,
    /// When credentials that are still good may be asked for again.
    next_ahead: Moment,
    renewals: Renewals,
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl CredentialCache {
    /// An empty cache for the source that `open` opens when it is first needed.
    pub(super) fn new(open: Open) -> Self {
        Self { open, clock: Clock::start(), held: Mutex::default(), refresh: tokio::sync::Mutex::default() }
    }

    /// The credentials in use, if any were loaded.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Credentials for a call.
    ///
    /// # Errors
    /// There are none, and why.
    pub(super) async fn get(&self) -> Result<Arc<Held>, Trouble> {
        if let Some(held) = self.held() {
            match held.state(self.clock.now(), clock::system_time()) {
                State::Good => return Ok(held),
                State::Ending => return Ok(self.load_ahead(held).await),
                State::Over => {}
            }
        }
        let mut refresh = self.refresh.lock().await;
        let now = self.clock.now();
        // Another call may have loaded them meanwhile.
        if let Some(held) = self.held().filter(|held| held.state(now, clock::system_time()) != State::Over) {
            return Ok(held);
        }
        if let Some((at, trouble)) = &refresh.failed
            && now < *at + FAILURE_LASTS
        {
            return Err(trouble.clone());
        }
        let loaded = self.load(&mut refresh).await;
        refresh.failed = loaded.as_ref().err().map(|trouble| (self.clock.now(), trouble.clone()));
        loaded
    }

    /// New credentials before the old ones expire; the old ones if there are none yet, or another
    /// call is requesting them.
    async fn load_ahead(&self, old: Arc<Held>) -> Arc<Held> {
        let Ok(mut refresh) = self.refresh.try_lock() else { return old };
        if self.clock.now() < refresh.next_ahead {
            return old;
        }
        refresh.next_ahead = self.clock.now() + PAUSE;
        self.load(&mut refresh).await.unwrap_or_else(|trouble| {
            log!(CredentialsNotRefreshed, reason = %trouble);
            old
        })
    }

    /// Requests credentials from the source, which is opened if it is not.
    async fn load(&self, refresh: &mut Refresh) -> Result<Arc<Held>, Trouble> {
        let origin = match &mut refresh.origin {
            Some(origin) => origin,
            none => none.insert((self.open)().await),
        };
        load(origin).await.map(|credentials| self.hold(credentials, origin))
    }

    /// Credentials in place of those that KMS does not know, or not any more: the source is opened
    /// anew and asked, though not too often. `None`: there are no others, and the old ones stay.
    pub(super) async fn renew(&self, refused: &Arc<Held>) -> Option<Arc<Held>> {
        let mut refresh = self.refresh.lock().await;
        // Of several calls that were refused at the same time, the first renews for all.
        let held = self.held();
        let old = refused.credentials.access_key_id();
        if held.as_ref().is_some_and(|held| is_other(&held.credentials, &refused.credentials)) {
            return held;
        }
        if !refresh.renewals.take(self.clock.now()) {
            return None;
        }
        let origin = (self.open)().await;
        match load(&origin).await {
            Ok(new) if is_other(&new, &refused.credentials) => {
                log!(CredentialsReplaced, old, new = new.access_key_id());
                let held = self.hold(new, &origin);
                (refresh.origin, refresh.failed) = (Some(origin), None);
                Some(held)
            }
            Ok(_) => {
                tracing::debug!(old, "KMS does not know the credentials, and there are no others");
                None
            }
            Err(trouble) => {
                log!(CredentialsRejected, old, reason = %trouble);
                None
            }
        }
    }

    fn hold(&self, credentials: Credentials, origin: &Origin) -> Arc<Held> {
        let held = Held { credentials, source: origin.source.to_string(), loaded: self.clock.now() };
        let held = Arc::new(held);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&held));
        held
    }
}

/// Whether a request is signed differently with them. A secret may be mended under its id.
fn is_other(new: &Credentials, old: &Credentials) -> bool {
    (new.access_key_id(), new.secret_access_key()) != (old.access_key_id(), old.secret_access_key())
}

async fn load(origin: &Origin) -> Result<Credentials, Trouble> {
    let Origin { provider, source } = origin;
    let loaded = match tokio::time::timeout(LOAD_TIMEOUT, provider.provide_credentials()).await {
        Ok(loaded) => loaded.map_err(|error| explain::credentials(&error, source))?,
        // The metadata provider has old ones that are still good when its service is away.
        Err(_) => provider
            .fallback_on_interrupt()
            .ok_or_else(|| explain::no_credentials_in(LOAD_TIMEOUT, source))?,
    };
    match loaded.expiry() {
        Some(end) if end <= clock::system_time() => Err(explain::expired(end, source)),
        Some(_) | None => Ok(loaded),
    }
}

/// How good credentials are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Good, and new ones may be had.
    Ending,
    /// Not to be used.
    Over,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.credentials.access_key_id();
        f.debug_struct("Held").field("access_key_id", &id).finish_non_exhaustive()
    }
}

impl Held {
    fn state(&self, now: Moment, wall: SystemTime) -> State {
        let Some(end) = self.credentials.expiry() else {
            let age = now.saturating_sub(self.loaded);
            return if age < UNLIMITED { State::Good } else { State::Ending };
        };
        match end.duration_since(wall).unwrap_or_default() {
            left if left > AHEAD => State::Good,
            left if left > MARGIN => State::Ending,
            _ => State::Over,
        }
    }
}

/// When new credentials may be asked for because KMS does not know the old ones: once a minute,
/// then ever more seldom to once in a quarter of an hour, as a Region that is not enabled answers
/// the same to any. Pure.
#[derive(Debug)]
struct Renewals {
    next: Moment,
    pause: Duration,
}

impl Renewals {
    const LONGEST: Duration = Duration::from_secs(15 * 60);

    /// Whether it may be done now. If so, it counts as done.
    fn take(&mut self, now: Moment) -> bool {
        if now < self.next {
            return false;
        }
        // After a long peace, what KMS says has nothing to do with what it said then.
        if now - self.next > Self::LONGEST {
            self.pause = PAUSE;
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        true
    }
}

impl Default for Renewals {
    fn default() -> Self {
        Self { next: Moment::ZERO, pause: PAUSE }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;
    use crate::kms::TroubleKind;

    /// Hands out what it has, one after the other, and then fails.
    #[derive(Debug, Clone, Default)]
    struct Script(Arc<Mutex<VecDeque<Credentials>>>);

    impl Script {
        fn of(keys: &[Credentials]) -> Self {
            Self(Arc::new(Mutex::new(keys.iter().cloned().collect())))
        }

        fn left(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        fn origin(&self) -> Origin {
            Origin { provider: SharedCredentialsProvider::new(self.clone()), source: Source::Environment }
        }

        fn cache(&self) -> CredentialCache {
            let script = self.clone();
            CredentialCache::new(Box::new(move || {
                let origin = script.origin();
                Box::pin(async move { origin })
            }))
        }
    }

    impl ProvideCredentials for Script {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let next = self.0.lock().unwrap().pop_front();
            future::ProvideCredentials::ready(
                next.ok_or_else(|| CredentialsError::provider_error("none left")),
            )
        }
    }

    /// Credentials that end in so many seconds.
    fn ending(id: &str, seconds: u64) -> Credentials {
        let end = clock::system_time() + Duration::from_secs(seconds);
        Credentials::new(id, "secret", None, Some(end), "test")
    }

    fn id(held: &Arc<Held>) -> &str {
        held.credentials.access_key_id()
    }

    #[tokio::test]
    async fn credentials_that_are_good_are_loaded_once() {
        let script = Script::of(&[ending("A", 3600), ending("B", 3600)]);
        let cache = script.cache();
        for _ in 0..3 {
            assert_eq!(id(&cache.get().await.unwrap()), "A");
        }
        assert_eq!(script.left(), 1);
    }

    #[tokio::test]
    async fn k13_disowned_credentials_are_replaced_once_for_all_who_used_them() {
        let script = Script::of(&[ending("A", 3600), ending("B", 3600), ending("C", 3600)]);
        let cache = script.cache();
        let old = cache.get().await.unwrap();
        let new = cache.renew(&old).await.unwrap();
        assert_eq!(id(&new), "B");
        assert_eq!(id(&cache.renew(&old).await.unwrap()), "B", "somebody had asked already");
        assert_eq!(id(&cache.get().await.unwrap()), "B");
        assert!(cache.renew(&new).await.is_none(), "not twice in a minute");
        assert_eq!(script.left(), 1);
    }

    #[tokio::test]
    async fn k13_the_old_credentials_stay_until_there_are_others() {
        let script = Script::of(&[ending("A", 3600), ending("A", 7200)]);
        let cache = script.cache();
        let old = cache.get().await.unwrap();
        assert!(cache.renew(&old).await.is_none(), "the same again");
        assert!(Arc::ptr_eq(&cache.get().await.unwrap(), &old));
        let cache = Script::of(&[ending("A", 3600)]).cache();
        let old = cache.get().await.unwrap();
        assert!(cache.renew(&old).await.is_none(), "the source is away");
        assert!(Arc::ptr_eq(&cache.get().await.unwrap(), &old));
    }

    #[tokio::test]
    async fn k13_credentials_near_their_end_bridge_an_outage_of_their_source() {
        let script = Script::of(&[ending("A", 60)]);
        let cache = script.cache();
        assert_eq!(id(&cache.get().await.unwrap()), "A");
        assert_eq!(id(&cache.get().await.unwrap()), "A", "the source has none, and A is still good");
        let script = Script::of(&[ending("A", 60), ending("B", 3600)]);
        let cache = script.cache();
        assert_eq!(id(&cache.get().await.unwrap()), "A");
        assert_eq!(id(&cache.get().await.unwrap()), "B");
    }

    #[tokio::test]
    async fn k13_credentials_that_have_expired_are_not_used() {
        let trouble = Script::of(&[ending("A", 0)]).cache().get().await.unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::Credentials);
        assert!(trouble.message.contains("expired at "), "{trouble}");
        // Those that end on the way are not used a second time.
        let script = Script::of(&[ending("A", 5), ending("B", 3600)]);
        let cache = script.cache();
        assert_eq!(id(&cache.get().await.unwrap()), "A");
        assert_eq!(id(&cache.get().await.unwrap()), "B");
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_all_who_wait() {
        let script = Script::default();
        let cache = script.cache();
        assert_eq!(cache.get().await.unwrap_err().kind, TroubleKind::CredentialSource);
        script.0.lock().unwrap().push_back(ending("A", 3600));
        assert!(cache.get().await.is_err(), "not asked again within a second");
        tokio::time::sleep(FAILURE_LASTS).await;
        assert_eq!(id(&cache.get().await.unwrap()), "A");
    }

    #[test]
    fn k13_renewals_are_a_minute_apart_and_then_ever_more_seldom() {
        let mut renewals = Renewals::default();
        let began = Duration::from_secs(1_000_000);
        let taken: Vec<u64> = (0..4000).filter(|s| renewals.take(began + Duration::from_secs(*s))).collect();
        assert_eq!(taken, [0, 60, 180, 420, 900, 1800, 2700, 3600]);
        // Half an hour after the last, it begins anew.
        let later = began + Duration::from_secs(4500 + 901);
        assert!(renewals.take(later));
        assert!(!renewals.take(later + Duration::from_secs(59)) && renewals.take(later + PAUSE));
    }

    #[test]
    fn what_names_no_end_is_asked_for_again_and_never_over() {
        let held = Held {
            credentials: Credentials::new("A", "secret", None, None, "test"),
            source: String::new(),
            loaded: Duration::from_secs(5),
        };
        let wall = clock::system_time();
        assert_eq!(held.state(Duration::from_secs(904), wall), State::Good);
        assert_eq!(held.state(Duration::from_secs(905), wall), State::Ending);
        assert_eq!(held.state(Duration::from_secs(9_999_999), wall), State::Ending);
    }
}
