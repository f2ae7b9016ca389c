//! Removes the sources of what was delivered: those that become ready while others are removed,
//! together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::fs::FsError;
use crate::hold::AttemptError;
use crate::sink::Removed;
use crate::sink::directory::removal;
use crate::sink::directory::removal::{Part, Removal};

/// What removes the sources of one rule.
#[derive(Debug)]
pub(crate) struct Remover {
    removal: Arc<Removal>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    is_working: bool,
}

/// A source, and who waits for its result.
type Waiting = (Vec<Part>, oneshot::Sender<Result<Removed, FsError>>);

impl Remover {
    /// For the rule's directory.
    pub(crate) fn new(removal: Arc<Removal>) -> Self {
        Self { removal, queue: Mutex::default() }
    }

    /// See [`Removal::guard`].
    pub(crate) fn guard(&self) -> RemovalGuard {
        RemovalGuard(Some(self.removal.guard()))
    }

    /// See [`Removal::prepare`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn prepare(&self, parts: &[Part]) -> Result<(), FsError> {
        self.removal.prepare(parts)
    }

    /// Removes a source.
    ///
    /// # Errors
    /// See [`Removal::remove`]. `Changed` when the runtime goes down.
    pub(crate) async fn remove(self: &Arc<Self>, parts: Vec<Part>) -> Result<Removed, AttemptError> {
        let (done, result) = oneshot::channel();
        let is_first = {
            let mut queue = self.queue();
            queue.waiting.push((parts, done));
            !std::mem::replace(&mut queue.is_working, true)
        };
        if is_first {
            let this = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || this.work())); // it answers everyone by itself
        }
        Ok(result.await.map_err(|_gone| AttemptError::Changed)??)
    }

    /// Until nobody waits.
    fn work(&self) {
        let _batch = Batch(self);
        loop {
            let (sources, waiters): (Vec<_>, Vec<_>) = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.is_working = false; // before anybody else can look
                    return;
                }
                queue.waiting.drain(..).unzip()
            };
            for (waiter, ended) in waiters.into_iter().zip(self.removal.remove(&sources)) {
                drop(waiter.send(ended)); // a caller that was cancelled needs no answer
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`removal::RemovalGuard`] for a task that must not wait for a disk.
#[derive(Debug)]
pub(crate) struct RemovalGuard(Option<removal::RemovalGuard>);

impl Drop for RemovalGuard {
    fn drop(&mut self) {
        if let Some(unused) = self.0.take().and_then(removal::RemovalGuard::release)
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn_blocking(move || drop(unused))); // nobody waits for it
        }
    }
}

/// However a batch ends, the next caller can start another, and nobody waits for this one.
struct Batch<'r>(&'r Remover);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.queue() = Queue::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::private::Private;
    use crate::fs::{Dir, RelPath};

    #[tokio::test(flavor = "multi_thread")]
    async fn all_of_many_that_come_at_once_are_removed_and_told_each_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let remover = Arc::new(Remover::new(Removal::new(Arc::new(Private::new(root.clone())))));
        let removals: Vec<_> = (0..500)
            .map(|n| {
                let path = RelPath::new(format!("f{n}")).unwrap();
                std::fs::write(temp.path().join(path.as_path()), "x").unwrap();
                let identity = root.stat_of(path.name()).unwrap().unwrap().identity;
                if n % 10 == 0 {
                    std::fs::write(temp.path().join(path.as_path()), "changed").unwrap();
                }
                let remover = Arc::clone(&remover);
                tokio::spawn(async move { remover.remove(vec![Part { path, identity }]).await })
            })
            .collect();
        for (n, removal) in removals.into_iter().enumerate() {
            let expected = if n % 10 == 0 { Removed::Changed } else { Removed::Done };
            assert_eq!(removal.await.unwrap().unwrap(), expected, "f{n}");
            assert_eq!(temp.path().join(format!("f{n}")).exists(), n % 10 == 0, "f{n}");
        }
        while remover.queue().is_working {
            tokio::task::yield_now().await; // it sees that nobody waits after it told the last
        }
        assert!(!temp.path().join(".kms-sig").exists());
    }
}
