//! Gathers files that are ready to be signed at about the same time, so that one Encrypt signs all.
//!
//! The first file of a batch waits for others: until the window is over, the batch is full, or the
//! daemon ends. Its task then makes the KMS call for all of them, and each takes its own signature
//! from the reply. At most [`FINISHING`] files write their signatures at the same time. A file that
//! is called off meanwhile just does not take its signature.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use crate::context::Context;
use crate::context::leaf_keys::LeafKeys;
use crate::hold::AttemptError;
use crate::kms::{Kms, Trouble, TroubleKind};
use crate::policy::{Batching, FINISHING};
use crate::signature::merkle::{Node, Tree};
use crate::signing::{Signed, SignedBatch, Signer};

/// The batches of one rule.
#[derive(Debug)]
pub(crate) struct Batcher {
    batching: Batching,
    /// The batch that files can still join.
    open: Mutex<Option<Arc<Gathering>>>,
    finishing: Semaphore,
    /// Set at shutdown: batches are signed at once.
    closed: AtomicBool,
}

/// One file to be signed.
#[derive(Debug)]
pub(crate) struct Job<'a, K> {
    /// The signer for the rule's key.
    pub(crate) signer: Signer<'a, K>,
    /// The part of the context that KMS gets. The same for all files of the rule.
    pub(crate) shared: &'a Context,
    /// The keys of the context that only the leaf has.
    pub(crate) leaf_keys: &'a LeafKeys,
    /// The file's leaf.
    pub(crate) leaf: Node,
}

/// The signed batch, or why KMS did not sign it.
type BatchResult = Result<Arc<SignedBatch>, Trouble>;

/// A batch that is not signed yet.
#[derive(Debug)]
struct Gathering {
    leaves: Mutex<Vec<Node>>,
    result: watch::Receiver<Option<BatchResult>>,
    /// Wakes the first file before the window is over.
    enough: Notify,
}

/// A file's place in a batch.
struct Member {
    gathering: Arc<Gathering>,
    index: u64,
    /// Only the first member has it: it makes the KMS call and publishes the result.
    sender: Option<watch::Sender<Option<BatchResult>>>,
}

impl Batcher {
    /// No batches yet.
    pub(crate) fn new(batching: Batching) -> Self {
        Self {
            batching,
            open: Mutex::new(None),
            finishing: Semaphore::new(FINISHING),
            closed: AtomicBool::new(false),
        }
    }

    /// How many files may wait for a batch at the same time.
    pub(crate) const fn max_files(&self) -> usize {
        self.batching.max_files
    }

    /// Signs a leaf together with others, then waits for a permit to write the signature. The
    /// caller drops the permit when it is written.
    ///
    /// # Errors
    /// `Hold`, for all members, when KMS does not sign. `Changed`, when the member that was to call
    /// KMS was called off.
    pub(crate) async fn sign<K: Kms>(
        &self,
        job: Job<'_, K>,
    ) -> Result<(Signed, SemaphorePermit<'_>), AttemptError> {
        let Member { gathering, index, sender } = self.join(job.leaf);
        if let Some(sender) = sender {
            let first = First { batcher: self, gathering: &gathering };
            first.wait().await;
            let leaves = first.ends();
            sender.send_replace(Some(Box::pin(ask(job, leaves)).await));
        }
        let mut result = gathering.result.clone();
        let signed = match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(batch))) => batch.signed(index),
            Ok(Some(Err(trouble))) => return Err(trouble.clone().into()),
            Ok(None) | Err(_) => None,
        };
        let place = self.finishing.acquire().await.map_err(|_closed| AttemptError::Changed)?;
        Ok((signed.ok_or(AttemptError::Changed)?, place))
    }

    /// How many files wait in the open batch.
    pub(crate) fn waiting(&self) -> usize {
        self.open().as_ref().map_or(0, |gathering| lock(&gathering.leaves).len())
    }

    /// Signs the open batch now, without waiting for the window.
    pub(crate) fn hurry(&self) {
        if let Some(gathering) = self.open().as_ref() {
            gathering.enough.notify_one();
        }
    }

    /// Signs the open batch now, and later ones as soon as they have a file.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.hurry();
    }

    fn join(&self, leaf: Node) -> Member {
        let mut open = self.open();
        let (gathering, sender) = match open.as_ref() {
            Some(gathering) => (Arc::clone(gathering), None),
            None => {
                let (sender, result) = watch::channel(None);
                let gathering = Gathering { leaves: Mutex::default(), result, enough: Notify::new() };
                (Arc::clone(open.insert(Arc::new(gathering))), Some(sender))
            }
        };
        let mut leaves = lock(&gathering.leaves);
        let index = leaves.len() as u64;
        leaves.push(leaf);
        let is_full = leaves.len() >= self.batching.max_files;
        drop(leaves);
        if is_full {
            *open = None;
        }
        if is_full || self.closed.load(Ordering::Acquire) {
            gathering.enough.notify_one();
        }
        Member { gathering, index, sender }
    }

    fn open(&self) -> MutexGuard<'_, Option<Arc<Gathering>>> {
        lock(&self.open)
    }
}

/// The first file of a batch, while it waits for others. When dropped, the batch accepts no more
/// members.
struct First<'b> {
    batcher: &'b Batcher,
    gathering: &'b Arc<Gathering>,
}

impl First<'_> {
    async fn wait(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.batcher.batching.window) => {}
            () = self.gathering.enough.notified() => {}
        }
    }

    /// Closes the batch and returns its leaves.
    fn ends(self) -> Vec<Node> {
        let gathering = self.gathering;
        drop(self);
        std::mem::take(&mut *lock(&gathering.leaves))
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        let mut open = self.batcher.open();
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, self.gathering)) {
            *open = None;
        }
    }
}

async fn ask<K: Kms>(job: Job<'_, K>, leaves: Vec<Node>) -> BatchResult {
    // Hashing tens of thousands of leaves would block the runtime.
    let tree = tokio::task::spawn_blocking(move || Tree::new(leaves)).await.ok().flatten();
    let Some(tree) = tree else {
        return Err(Trouble::new(TroubleKind::Internal, "shutting down")); // the tree is never empty, so the task was cancelled
    };
    job.signer.sign_batch(job.shared, job.leaf_keys.clone(), tree).await.map(Arc::new)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update leaves the data consistent, so a poisoned lock is safe to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::digest::Digest;
    use crate::key::{KeyArn, KeyId};
    use crate::kms::{Asked, Decrypted, Encrypted, KmsError, PublicKeyReply, SignReply, classify};
    use crate::signature::batch as form;
    use crate::trust::{Message, SigningAlgorithm};

    /// Returns the plaintext as the ciphertext, and records it.
    #[derive(Default)]
    struct Script {
        fails: AtomicBool,
        signed: Mutex<Vec<Vec<u8>>>,
    }

    impl Kms for Script {
        async fn encrypt(&self, key: &KeyId, plaintext: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            if self.fails.load(Ordering::Relaxed) {
                return Err(classify("KMSInternalException", ""));
            }
            lock(&self.signed).push(plaintext.to_vec());
            Ok(Encrypted { ciphertext: vec![7; 40], key: KeyArn::from_reply(key.as_str()).unwrap() })
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            panic!("nothing is verified here")
        }

        async fn sign(&self, _: &KeyId, _: Message<'_>, _: SigningAlgorithm) -> Result<SignReply, KmsError> {
            panic!("nothing is signed here")
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            panic!("nobody asks for a public key here")
        }
    }

    struct Bench {
        kms: Arc<Script>,
        batcher: Arc<Batcher>,
    }

    fn bench(window: Duration, max_files: usize) -> Bench {
        let batcher = Arc::new(Batcher::new(Batching { window, max_files }));
        Bench { kms: Arc::default(), batcher }
    }

    fn leaf(n: usize) -> Node {
        form::leaf(&Digest::of(&n.to_be_bytes()), &Context::default())
    }

    impl Bench {
        /// Signs file `n` and checks that its signature leads to what KMS signed.
        fn sign(&self, n: usize) -> tokio::task::JoinHandle<Result<u64, AttemptError>> {
            let (kms, batcher) = (Arc::clone(&self.kms), Arc::clone(&self.batcher));
            tokio::spawn(async move {
                let (key, shared, leaf_keys) =
                    ("local:a".parse().unwrap(), Context::default(), LeafKeys::default());
                let signer = Signer::new(&*kms, &key);
                let job = Job { signer, shared: &shared, leaf_keys: &leaf_keys, leaf: leaf(n) };
                let (signed, _place) = batcher.sign(job).await?;
                let proof = signed.signature.batch().unwrap().proof().clone();
                let plaintext = form::plaintext(proof.size(), proof.root(leaf(n)));
                assert!(lock(&kms.signed).contains(&plaintext));
                Ok(proof.size())
            })
        }

        fn calls(&self) -> usize {
            lock(&self.kms.signed).len()
        }
    }

    /// Runs every task as far as it can go without time passing.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn files_within_the_window_make_one_batch() {
        let bench = bench(Duration::from_secs(1), 1000);
        let first: Vec<_> = (0..200).map(|n| bench.sign(n)).collect();
        settle().await;
        assert_eq!(bench.calls(), 0);
        let late = bench.sign(200);
        for task in first.into_iter().chain([late]) {
            assert_eq!(task.await.unwrap().unwrap(), 201);
        }
        assert_eq!(bench.sign(0).await.unwrap().unwrap(), 1, "a batch of one");
        assert_eq!(bench.calls(), 2);
    }

    #[tokio::test]
    async fn a_full_batch_does_not_wait() {
        let bench = bench(LONG, 10);
        let tasks: Vec<_> = (0..30).map(|n| bench.sign(n)).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 10);
        }
        assert_eq!(bench.calls(), 3);
        assert!(bench.batcher.open().is_none());
    }

    #[tokio::test]
    async fn p2_an_outage_holds_all_files_of_a_batch() {
        let bench = bench(Duration::from_millis(100), 1000);
        bench.kms.fails.store(true, Ordering::Relaxed);
        let tasks: Vec<_> = (0..20).map(|n| bench.sign(n)).collect();
        for task in tasks {
            assert!(matches!(task.await.unwrap(), Err(AttemptError::Hold(_))));
        }
        bench.kms.fails.store(false, Ordering::Relaxed);
        assert_eq!(bench.sign(0).await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn c17_at_shutdown_nobody_waits_for_the_window() {
        let bench = bench(LONG, 1000);
        let tasks: Vec<_> = (0..5).map(|n| bench.sign(n)).collect();
        settle().await;
        bench.batcher.close();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 5);
        }
        assert_eq!(bench.sign(5).await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn when_the_first_member_is_cancelled_the_others_start_over() {
        let bench = bench(LONG, 1000);
        let first = bench.sign(0);
        settle().await;
        let second = bench.sign(1);
        settle().await;
        first.abort();
        assert!(matches!(second.await.unwrap(), Err(AttemptError::Changed)));
        assert!(bench.batcher.open().is_none());
        bench.batcher.close();
        assert_eq!(bench.sign(1).await.unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_cancelled_member_does_not_stop_the_others() {
        let bench = bench(Duration::from_millis(100), 1000);
        let first = bench.sign(0);
        settle().await;
        let second = bench.sign(1);
        settle().await;
        second.abort();
        assert_eq!(first.await.unwrap().unwrap(), 2, "its leaf is in the tree, and nothing comes of it");
    }
}
