//! Places for reading files, given to the rules in turn.
//!
//! Processors and disks are shared by all rules, and whoever can write to a folder could fill any
//! one queue. So each rule queues by itself, and only the first of each queue waits for the next
//! place: a rule with thousands of files delays another one's by one file, not by thousands. Knows
//! nothing of files.

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

/// Places of its own for a rule whose files come over a network or from FUSE: a server that does
/// not answer holds up nobody else's files. They wait more than they compute, so they are not
/// counted with the others.
const REMOTE: usize = 4;

/// The places that all rules share.
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
    /// A queue that nobody is in.
    pub(crate) fn new(is_remote: bool) -> Self {
        Self { first: Mutex::new(()), own: is_remote.then(|| Semaphore::new(REMOTE)) }
    }
}

impl FairSemaphore {
    /// So many places.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places) }
    }

    /// Waits for a place; `None` once there are no more.
    pub(crate) async fn take<'a>(&'a self, queue: &'a Queue) -> Option<SemaphorePermit<'a>> {
        if let Some(own) = &queue.own {
            return own.acquire().await.ok();
        }
        let _first = queue.first.lock().await;
        self.places.acquire().await.ok()
    }

    /// Sends everybody in this queue away, and everybody who waits for a place that is shared. Who
    /// has a place keeps it.
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

    /// Lets every task go on as far as it can.
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
    async fn a_server_that_does_not_answer_holds_up_nobody_else() {
        let turns = FairSemaphore::new(1);
        let (remote, local) = (Queue::new(true), Queue::new(false));
        let mut hung = Vec::new();
        for _ in 0..REMOTE {
            hung.push(turns.take(&remote).await.unwrap());
        }
        assert!(turns.take(&local).await.is_some());
    }

    #[tokio::test]
    async fn c17_who_waits_is_sent_away_at_the_end() {
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
