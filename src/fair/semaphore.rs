//! A semaphore whose permits are given out in fair turns.
//!
//! A wait may be called off at any time: a permit that was on its way goes to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{FairQueue, Sender};

/// The semaphore. Clones share its permits.
#[derive(Debug, Clone)]
pub(crate) struct FairSemaphore(Arc<Mutex<Permits>>);

#[derive(Debug)]
struct Permits {
    /// None is free while somebody waits.
    free: usize,
    waiting: FairQueue<oneshot::Sender<Permit>>,
    is_closed: bool,
}

/// A permit, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(FairSemaphore);

impl FairSemaphore {
    /// A semaphore with this many permits.
    pub(crate) fn new(permits: usize) -> Self {
        let waiting = FairQueue::default();
        Self(Arc::new(Mutex::new(Permits { free: permits, waiting, is_closed: false })))
    }

    /// Waits for a permit; `None` once it is closed.
    pub(crate) async fn take(&self, sender: &Sender) -> Option<Permit> {
        let permit = {
            let mut permits = self.permits();
            if permits.is_closed {
                return None;
            }
            if let Some(left) = permits.free.checked_sub(1) {
                permits.free = left;
                return Some(Permit(self.clone()));
            }
            let (give, permit) = oneshot::channel();
            permits.waiting.push(sender, give);
            permit
        };
        permit.await.ok()
    }

    /// Ends the wait of everybody. Permits that were given stay valid.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut permits = self.permits();
            permits.is_closed = true;
            std::mem::take(&mut permits.waiting)
        };
        drop(waiting);
    }

    fn permits(&self) -> MutexGuard<'_, Permits> {
        // Every update leaves the data consistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut permits = self.0.permits();
            let next = permits.waiting.pop(oneshot::Sender::is_closed);
            if next.is_none() {
                permits.free += 1;
            }
            next
        };
        if let Some(next) = next {
            next.send(Self(self.0.clone())).ok(); // refused: it is dropped, and goes to the next
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    fn sender(rule: &str, owner: u32) -> Sender {
        Sender::new(&Arc::from(rule), Some(owner))
    }

    /// Runs every task as far as it can go.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    type Order = Arc<Mutex<Vec<String>>>;

    /// Has somebody wait, who notes that it had its turn.
    fn wait(semaphore: &FairSemaphore, rule: &str, owner: u32, order: &Order) -> JoinHandle<bool> {
        let (semaphore, order, name) = (semaphore.clone(), Arc::clone(order), format!("{rule}{owner}"));
        let sender = sender(rule, owner);
        tokio::spawn(async move {
            let permit = semaphore.take(&sender).await;
            order.lock().unwrap().push(name);
            permit.is_some()
        })
    }

    #[tokio::test]
    async fn a11_a_flood_delays_another_rule_by_one_and_another_sender_by_two() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("quiet", 1)).await;
        let mut tasks: Vec<_> = (0..50).map(|_| wait(&semaphore, "flooded", 1, &order)).collect();
        settle().await;
        tasks.push(wait(&semaphore, "quiet", 1, &order));
        tasks.push(wait(&semaphore, "flooded", 2, &order));
        settle().await;
        drop(taken);
        for task in tasks {
            assert!(task.await.unwrap());
        }
        let order = order.lock().unwrap();
        assert_eq!(order[..4], ["flooded1", "quiet1", "flooded2", "flooded1"]);
        assert_eq!(semaphore.permits().free, 1);
    }

    #[tokio::test]
    async fn a_wait_that_is_called_off_costs_no_permit() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("a", 1)).await;
        let tasks: Vec<_> = (0..4).map(|_| wait(&semaphore, "a", 1, &order)).collect();
        settle().await;
        tasks[0].abort();
        settle().await;
        drop(taken); // the second task has the permit by now, and has not seen it
        tasks[1].abort();
        tasks[3].abort();
        settle().await;
        assert_eq!(order.lock().unwrap().len(), 1, "the third");
        assert_eq!(semaphore.permits().free, 1);
        assert!(semaphore.permits().waiting.is_empty());
    }

    #[tokio::test]
    async fn c17_closing_ends_all_waits() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("a", 1)).await;
        assert!(taken.is_some());
        let tasks: Vec<_> = (0..3).map(|n| wait(&semaphore, "b", n, &order)).collect();
        settle().await;
        semaphore.close();
        for task in tasks {
            assert!(!task.await.unwrap());
        }
        drop(taken);
        assert!(semaphore.take(&sender("a", 1)).await.is_none(), "nor later");
    }
}
