//! A semaphore that is fair between rules: permits for reading files, given to the rules in turn.
//!
//! Processors and disks are shared by all rules, and a sender could fill a single queue. So each
//! rule has its own queue, and only its first entry waits for the next permit: a rule with
//! thousands of files delays another rule by one file, not by thousands.

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

/// Permits of its own for a rule whose files come over a network or from FUSE, so that a server
/// that does not answer blocks no other rule. Such reads wait more than they compute, so they do
/// not count against the shared permits.
const REMOTE: usize = 4;

/// The permits that all rules share.
#[derive(Debug)]
pub(crate) struct FairSemaphore {
    places: Semaphore,
}

/// One rule's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Held by the first in the queue. Fair: first come, first served.
    first: Mutex<()>,
    own: Option<Semaphore>,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(is_remote: bool) -> Self {
        Self { first: Mutex::new(()), own: is_remote.then(|| Semaphore::new(REMOTE)) }
    }
}

impl FairSemaphore {
    /// A semaphore with this many permits.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places) }
    }

    /// Waits for a permit; `None` once it is closed.
    pub(crate) async fn take<'a>(&'a self, queue: &'a Queue) -> Option<SemaphorePermit<'a>> {
        if let Some(own) = &queue.own {
            return own.acquire().await.ok();
        }
        let _first = queue.first.lock().await;
        self.places.acquire().await.ok()
    }

    /// Ends the wait of everybody in this queue, and of everybody who waits for a shared permit.
    /// Permits that were given stay valid.
    pub(crate) fn close(&self, queue: Option<&Queue>) {
        self.places.close();
        if let Some(own) = queue.and_then(|queue| queue.own.as_ref()) {
            own.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Runs every task as far as it can go.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a11_a_long_queue_delays_another_rule_by_one_file() {
        let (turns, order) = (Arc::new(FairSemaphore::new(1)), Arc::new(Mutex::new(Vec::new())));
        let (flooded, quiet) = (Arc::new(Queue::new(false)), Arc::new(Queue::new(false)));
        let taken = turns.take(&quiet).await;
        let mut tasks = Vec::new();
        for (queue, name) in (0..50).map(|_| (&flooded, "flooded")).chain([(&quiet, "quiet")]) {
            let (turns, queue, order) = (Arc::clone(&turns), Arc::clone(queue), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _place = turns.take(&queue).await.unwrap();
                order.lock().unwrap().push(name);
            }));
            settle().await;
        }
        drop(taken);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap().iter().position(|name| *name == "quiet"), Some(1));
    }

    #[tokio::test]
    async fn a_hanging_server_blocks_no_other_rule() {
        let turns = FairSemaphore::new(1);
        let (remote, local) = (Queue::new(true), Queue::new(false));
        let mut hung = Vec::new();
        for _ in 0..REMOTE {
            hung.push(turns.take(&remote).await.unwrap());
        }
        assert!(turns.take(&local).await.is_some());
    }

    #[tokio::test]
    async fn c17_closing_ends_all_waits() {
        for is_remote in [false, true] {
            let (turns, queue) = (Arc::new(FairSemaphore::new(1)), Arc::new(Queue::new(is_remote)));
            let mut taken = Vec::new();
            for _ in 0..if is_remote { REMOTE } else { 1 } {
                taken.push(turns.take(&queue).await.unwrap());
            }
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let (turns, queue) = (Arc::clone(&turns), Arc::clone(&queue));
                    tokio::spawn(async move { turns.take(&queue).await.is_some() })
                })
                .collect();
            settle().await;
            turns.close(Some(&queue));
            for task in waiting {
                assert!(!task.await.unwrap());
            }
        }
    }
}
