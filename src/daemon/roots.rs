//! A cache of opened batch roots: KMS's reply for a ciphertext that many files share.
//!
//! Each rule has its own cache, and a new policy starts with an empty one. Files that need the same
//! root while a call is in flight share its reply, whatever it is. Only a root that a trusted key
//! opened is cached, for five minutes at most. Trouble and refusals are never cached: a later file
//! asks again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Moment};
use crate::digest::{Hasher, LEN};
use crate::key::KeyId;
use crate::kms::{Kms, Trouble};
use crate::signing::{DecryptReply, DecryptRequest, Verifier};

/// How long a root is cached. A key that was disabled may count for this much longer.
const KEEP: Duration = Duration::from_secs(5 * 60);

/// How many roots a rule caches. Files of one batch arrive together.
const MOST: usize = 64;

/// The cache of one rule under one policy.
#[derive(Debug, Default)]
pub(crate) struct Roots(Mutex<HashMap<Name, Entry>>);

/// The cache key of a request: SHA-512 of the key ids in their order, the encryption context and
/// the ciphertext, each preceded by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Name([u8; LEN]);

/// KMS's reply, or why there is none.
type KmsReply = Result<DecryptReply, Trouble>;

#[derive(Debug)]
enum Entry {
    /// A call is in flight.
    Asked(watch::Receiver<Option<KmsReply>>),
    /// A trusted key opened it; the call began at this moment.
    Open(DecryptReply, Moment),
}

/// What the caller has to do for a request.
enum Turn {
    /// Nothing: the reply is cached.
    Known(DecryptReply),
    /// Wait for the call in flight.
    Wait(watch::Receiver<Option<KmsReply>>),
    /// Make the call, and send its reply to those who wait.
    Ask(watch::Sender<Option<KmsReply>>),
}

impl Roots {
    /// The reply to a verifier's request: from the cache, from a call in flight, or from a new
    /// call.
    ///
    /// # Errors
    /// [`Trouble`]: no verdict is possible now.
    pub(crate) async fn ask<K: Kms>(
        &self,
        verifier: &Verifier<'_, K>,
        request: &DecryptRequest<'_>,
        clock: Clock,
    ) -> Result<DecryptReply, Trouble> {
        let name = Name::of(verifier.keys(), request);
        loop {
            let now = clock.now();
            let mut other = match self.turn(name, now) {
                Turn::Known(answer) => return Ok(answer),
                Turn::Wait(other) => other,
                Turn::Ask(sender) => {
                    let asking = Asking { roots: self, name };
                    let reply = verifier.ask(request).await;
                    asking.ends(&reply, now);
                    sender.send_replace(Some(reply.clone()));
                    return reply;
                }
            };
            // The channel closes without a reply when the caller was cancelled. Then one of those
            // who wait makes the call.
            if let Ok(reply) = other.wait_for(Option::is_some).await
                && let Some(reply) = reply.clone()
            {
                return reply;
            }
        }
    }

    fn turn(&self, name: Name, now: Moment) -> Turn {
        let mut entries = self.entries();
        match entries.get(&name) {
            Some(Entry::Asked(other)) => return Turn::Wait(other.clone()),
            Some(Entry::Open(answer, since)) if now < *since + KEEP => return Turn::Known(answer.clone()),
            Some(Entry::Open(..)) | None => {}
        }
        let (sender, receiver) = watch::channel(None);
        entries.insert(name, Entry::Asked(receiver));
        Turn::Ask(sender)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
        // Every update leaves the data consistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight, made by one task for all who wait. When dropped without a reply, the entry is
/// removed.
struct Asking<'r> {
    roots: &'r Roots,
    name: Name,
}

impl Asking<'_> {
    /// Caches the reply if a trusted key opened the root.
    fn ends(self, reply: &KmsReply, since: Moment) {
        let Some(answer) = reply.as_ref().ok().filter(|reply| reply.is_opened()) else { return };
        let mut entries = self.roots.entries();
        entries.insert(self.name, Entry::Open(answer.clone(), since));
        let mut open: Vec<(Moment, Name)> = entries
            .iter()
            .filter_map(|(name, entry)| match entry {
                Entry::Open(_, since) => Some((*since, *name)),
                Entry::Asked(_) => None,
            })
            .collect();
        open.sort_unstable_by_key(|(since, _)| *since);
        for (_, oldest) in open.iter().take(open.len().saturating_sub(MOST)) {
            entries.remove(oldest);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut entries = self.roots.entries();
        if matches!(entries.get(&self.name), Some(Entry::Asked(_))) {
            entries.remove(&self.name);
        }
    }
}

impl Name {
    fn of(keys: &[KeyId], request: &DecryptRequest<'_>) -> Self {
        let mut hasher = Hasher::default();
        let mut take = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        };
        take(&(keys.len() as u64).to_be_bytes());
        keys.iter().for_each(|key| take(key.as_str().as_bytes()));
        take(&request.context().canonical());
        take(request.ciphertext());
        Self(*hasher.finish().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::context::Context;
    use crate::context::leaf_keys::LeafKeys;
    use crate::digest::Digest;
    use crate::key::KeyArn;
    use crate::kms::{Asked, Decrypted, Encrypted, KmsError, PublicKeyReply, SignReply, classify};
    use crate::signature::Signature;
    use crate::signature::batch::{self, Batch};
    use crate::signature::merkle::Tree;
    use crate::signing::{Formats, Verdict};
    use crate::trust::{Message, SigningAlgorithm};

    const KEY: &str = "local:a";

    /// Answers each Decrypt with the next scripted answer, once the semaphore allows it, and counts
    /// calls.
    struct Script {
        let_go: Semaphore,
        answers: Mutex<Vec<Result<Vec<u8>, &'static str>>>,
        asked: Mutex<usize>,
    }

    impl Script {
        fn new(answers: impl IntoIterator<Item = Result<Vec<u8>, &'static str>>) -> Arc<Self> {
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.reverse();
            Arc::new(Self { let_go: Semaphore::new(0), answers: Mutex::new(answers), asked: Mutex::new(0) })
        }

        fn asked(&self) -> usize {
            *self.asked.lock().unwrap()
        }
    }

    impl Kms for Script {
        async fn encrypt(&self, _: &KeyId, _: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            panic!("nothing is signed here")
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            *self.asked.lock().unwrap() += 1;
            self.let_go.acquire().await.unwrap().forget();
            match self.answers.lock().unwrap().pop().expect("one call too many") {
                Ok(plaintext) => {
                    Ok(Decrypted { plaintext: plaintext.into(), key: KeyArn::from_reply(KEY).unwrap() })
                }
                Err(code) => Err(classify(code, "")),
            }
        }

        async fn sign(&self, _: &KeyId, _: Message<'_>, _: SigningAlgorithm) -> Result<SignReply, KmsError> {
            panic!("nothing is signed here")
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            panic!("nobody asks for a public key here")
        }
    }

    /// The signatures of a batch, and the plaintext of its ciphertext.
    fn batch(size: u64, ciphertext: u8) -> (Vec<Signature>, Vec<u8>) {
        let leaves = (0..size).map(|n| batch::leaf(&digest(n), &Context::default())).collect();
        let tree = Tree::new(leaves).unwrap();
        let sign =
            |n| Batch::new(tree.prove(n).unwrap(), LeafKeys::default(), Box::new([ciphertext; 9])).into();
        ((0..size).map(sign).collect(), batch::plaintext(size, tree.root()))
    }

    fn digest(n: u64) -> Digest {
        Digest::of(&n.to_be_bytes())
    }

    async fn judged(roots: &Roots, kms: &Script, signature: &Signature, n: u64, clock: Clock) -> String {
        let context = Context::default();
        let keys = [KEY.parse().unwrap()];
        let verifier = Verifier::new(kms, &keys, Formats::Any);
        let request = verifier.request(&context, signature).unwrap();
        match roots.ask(&verifier, &request, clock).await {
            Err(trouble) => format!("hold {}", trouble.kind.as_str()),
            Ok(reply) => match request.opened(reply).judge(&digest(n).into()).unwrap() {
                Verdict::Valid(_) => "valid".to_owned(),
                Verdict::Invalid(reason) => reason.to_string(),
            },
        }
    }

    /// Judges every file of a batch at the same time.
    async fn all(roots: &Arc<Roots>, kms: &Arc<Script>, signatures: &[Signature]) -> Vec<String> {
        let clock = Clock::start();
        let tasks: Vec<_> = (0..)
            .zip(signatures.to_vec())
            .map(|(n, signature)| {
                let (roots, kms) = (Arc::clone(roots), Arc::clone(kms));
                tokio::spawn(async move { judged(&roots, &kms, &signature, n, clock).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        kms.let_go.add_permits(1);
        let mut said = Vec::new();
        for task in tasks {
            said.push(task.await.unwrap());
        }
        said
    }

    #[tokio::test]
    async fn many_files_of_one_batch_cost_one_decrypt() {
        let (signatures, plaintext) = batch(50, 1);
        let (roots, kms) = (Arc::new(Roots::default()), Script::new([Ok(plaintext)]));
        assert!(all(&roots, &kms, &signatures).await.iter().all(|said| said == "valid"));
        // A later file is judged from the cache; another file with one of these signatures is not
        // of the batch.
        assert_eq!(judged(&roots, &kms, &signatures[3], 3, Clock::start()).await, "valid");
        assert_eq!(judged(&roots, &kms, &signatures[3], 4, Clock::start()).await, "mismatch");
        assert_eq!(kms.asked(), 1);
    }

    #[tokio::test]
    async fn p2_trouble_reaches_all_waiters_and_is_never_cached() {
        let (signatures, plaintext) = batch(9, 1);
        for (code, said) in [
            ("ThrottlingException", "hold throttled"),
            ("NewThing", "hold unknown-error"),
            ("AccessDeniedException", "hold access-denied"),
            ("InvalidCiphertextException", "rejected"),
            ("IncorrectKeyException", "wrong-key"),
        ] {
            let (roots, kms) = (Arc::new(Roots::default()), Script::new([Err(code), Ok(plaintext.clone())]));
            assert!(all(&roots, &kms, &signatures).await.iter().all(|reply| reply == said), "{code}");
            assert_eq!(kms.asked(), 1, "{code}");
            assert!(roots.entries().is_empty(), "{code}");
            assert!(all(&roots, &kms, &signatures).await.iter().all(|reply| reply == "valid"), "{code}");
            assert_eq!(kms.asked(), 2, "{code}");
        }
    }

    #[tokio::test]
    async fn a_cancelled_call_is_made_again_by_a_waiter() {
        let (signatures, plaintext) = batch(2, 1);
        let (roots, kms) = (Arc::new(Roots::default()), Script::new([Ok(plaintext)]));
        let first = {
            let (roots, kms, signature) = (Arc::clone(&roots), Arc::clone(&kms), signatures[0].clone());
            tokio::spawn(async move { judged(&roots, &kms, &signature, 0, Clock::start()).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(kms.asked(), 1);
        let second = {
            let (roots, kms, signature) = (Arc::clone(&roots), Arc::clone(&kms), signatures[1].clone());
            tokio::spawn(async move { judged(&roots, &kms, &signature, 1, Clock::start()).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(kms.asked(), 1, "it waits for the first");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        kms.let_go.add_permits(1);
        assert_eq!(second.await.unwrap(), "valid");
        assert_eq!(kms.asked(), 2);
    }

    #[tokio::test]
    async fn p10_the_cache_is_bounded_in_size_and_age() {
        let all: Vec<_> = (0..100).map(|n| batch(1, n)).collect();
        let kms = Script::new(all.iter().map(|(_, plaintext)| Ok(plaintext.clone())));
        kms.let_go.add_permits(1000);
        let (roots, clock) = (Roots::default(), Clock::start());
        for (signatures, _) in &all {
            assert_eq!(judged(&roots, &kms, &signatures[0], 0, clock).await, "valid");
        }
        assert_eq!((kms.asked(), roots.entries().len()), (100, MOST));
        assert_eq!(judged(&roots, &kms, &all[99].0[0], 0, clock).await, "valid");
        assert_eq!(kms.asked(), 100, "the last ones are there");

        let context = Context::default();
        let request = DecryptRequest::new(Formats::Any, &context, &all[99].0[0]).unwrap();
        let name = Name::of(&[KEY.parse().unwrap()], &request);
        assert!(matches!(roots.turn(name, clock.now() + KEEP - Duration::from_secs(1)), Turn::Known(_)));
        assert!(
            matches!(roots.turn(name, clock.now() + KEEP), Turn::Ask(_)),
            "after five minutes it is asked anew"
        );
    }

    #[test]
    fn another_key_context_or_ciphertext_is_another_question() {
        let (one, two) = (batch(1, 1).0, batch(1, 2).0);
        let other: Context = Context::parse(&["a=b"]).unwrap();
        let none = Context::default();
        let name = |keys: &[&str], context: &Context, signature: &Signature| {
            let keys: Vec<KeyId> = keys.iter().map(|key| key.parse().unwrap()).collect();
            Name::of(&keys, &DecryptRequest::new(Formats::Any, context, signature).unwrap())
        };
        let names = [
            name(&["local:a"], &none, &one[0]),
            name(&["local:b"], &none, &one[0]),
            name(&["local:a", "local:b"], &none, &one[0]),
            name(&["local:b", "local:a"], &none, &one[0]),
            name(&["local:a"], &other, &one[0]),
            name(&["local:a"], &none, &two[0]),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }
}
