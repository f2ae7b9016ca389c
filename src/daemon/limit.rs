//! KMS with manners: a limit on calls in flight and on calls per second, for all rules together.
//!
//! Waiting for a place is fair: first come, first served. Changes no answer.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{Clock, Moment};
use crate::context::Context;
use crate::key::KeyId;
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind};

/// A provider behind the limits of the policy.
#[derive(Debug)]
pub struct Limited<K> {
    inner: K,
    in_flight: Semaphore,
    bucket: Mutex<Bucket>,
    clock: Clock,
}

/// A token bucket that lends: each caller takes a token at once and is told when it is good. So order is kept
/// and nobody polls.
#[derive(Debug)]
struct Bucket {
    /// Time between tokens.
    interval: Duration,
    /// How far ahead of time tokens may be saved up.
    burst: Duration,
    /// When the next token is good.
    next: Moment,
}

impl Bucket {
    fn take(&mut self, now: Moment) -> Moment {
        let good = self.next.max(now.saturating_sub(self.burst));
        self.next = good + self.interval;
        good
    }
}

impl<K> Limited<K> {
    /// Limits `inner` to `in_flight` calls at a time and `per_second` calls a second, with a burst of a
    /// tenth of a second's worth.
    pub fn new(inner: K, in_flight: usize, per_second: u32, clock: Clock) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let bucket = Bucket { interval, burst: Duration::from_millis(100), next: Duration::ZERO };
        Self { inner, in_flight: Semaphore::new(in_flight), bucket: Mutex::new(bucket), clock }
    }

    async fn admit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, KmsError> {
        let closed = |_| KmsError::Trouble(Trouble::new(TroubleKind::Internal, "shutting down"));
        let permit = self.in_flight.acquire().await.map_err(closed)?;
        let now = self.clock.now();
        let good = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(now);
        if good > now {
            tokio::time::sleep_until(self.clock.instant(good)).await;
        }
        Ok(permit)
    }
}

impl<K: Kms> Kms for Limited<K> {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let _permit = self.admit_for(key).await?;
        self.inner.encrypt(key, plaintext, context).await
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let _permit = match asked {
            Asked::Key(key) => self.admit_for(key).await?,
            Asked::AnyKey => Some(self.admit().await?),
        };
        self.inner.decrypt(asked, ciphertext, context).await
    }
}

impl<K> Limited<K> {
    /// Keys of this host cost nobody a call.
    async fn admit_for(&self, key: &KeyId) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, KmsError> {
        match key.provider() {
            crate::key::Provider::Local => Ok(None),
            crate::key::Provider::Aws => self.admit().await.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k8_tokens_come_at_the_rate_and_do_not_pile_up() {
        let ms = Duration::from_millis;
        let mut bucket = Bucket { interval: ms(20), burst: ms(100), next: Duration::ZERO };
        let now = ms(10_000);
        let mut good: Vec<Moment> = (0..8).map(|_| bucket.take(now)).collect();
        // An idle hour saves up no more than the burst: five tokens at once, then one each interval.
        assert_eq!(good.iter().filter(|g| **g <= now).count(), 6);
        good.sort();
        assert_eq!(*good.last().unwrap(), now + ms(40));
        assert_eq!(bucket.take(now + ms(1000)), now + ms(900), "and again after a pause");
    }
}
