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
    /// How many have given theirs away for a while.
    paused: usize,
    is_closed: bool,
}

/// How many may have given theirs away in the middle of something: what each keeps meanwhile is
/// memory.
const MAX_PAUSED: usize = 8;

/// A permit, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(FairSemaphore);

impl FairSemaphore {
    /// A semaphore with this many permits.
    pub(crate) fn new(permits: usize) -> Self {
        let waiting = FairQueue::default();
        Self(Arc::new(Mutex::new(Permits { free: permits, waiting, paused: 0, is_closed: false })))
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
            permits.queue_up(sender)
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

impl Permits {
    fn queue_up(&mut self, sender: &Sender) -> oneshot::Receiver<Permit> {
        let (give, permit) = oneshot::channel();
        self.waiting.push(sender, give);
        permit
    }
}

impl Permit {
    /// Gives it to whoever's turn it is, if anybody waits, and waits for the sender's next turn.
    /// Blocks. Once the semaphore is closed nobody waits any more: what was begun goes on.
    pub(crate) fn let_others(self, sender: &Sender) -> Self {
        let semaphore = self.0.clone();
        let next = {
            let mut permits = semaphore.permits();
            if permits.waiting.is_empty() || permits.paused == MAX_PAUSED {
                return self;
            }
            permits.paused += 1;
            permits.queue_up(sender)
        };
        drop(self);
        let next = next.blocking_recv();
        semaphore.permits().paused -= 1;
        next.unwrap_or_else(|_closed| Self(semaphore))
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

    /// How many permits are free, and how many wait for one in the middle of something.
    fn at_rest(semaphore: &FairSemaphore) -> (usize, usize) {
        let permits = semaphore.permits();
        (permits.free, permits.paused)
    }

    /// Works in slices on a thread of its own, and notes each.
    fn work(semaphore: &FairSemaphore, sender: Sender, slices: usize, order: &Order) -> JoinHandle<()> {
        let (semaphore, order, name) = (semaphore.clone(), Arc::clone(order), sender.rule().to_string());
        tokio::spawn(async move {
            let mut permit = semaphore.take(&sender).await.unwrap();
            let slices = move || {
                for _ in 0..slices {
                    order.lock().unwrap().push(name.clone());
                    permit = permit.let_others(&sender);
                }
            };
            tokio::task::spawn_blocking(slices).await.unwrap();
        })
    }

    #[tokio::test]
    async fn what_takes_long_gives_way_between_its_slices() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("a", 1)).await;
        let mut tasks = Vec::new();
        for (rule, slices) in [("long", 4), ("long", 2), ("short", 1)] {
            tasks.push(work(&semaphore, sender(rule, 1), slices, &order));
            settle().await;
        }
        drop(taken);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap()[..3], ["long", "short", "long"]);
        assert_eq!(at_rest(&semaphore), (1, 0));
    }

    #[tokio::test]
    async fn no_more_than_a_few_are_in_the_middle_of_something() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("a", 1)).await;
        let begin = |n: usize| work(&semaphore, sender(&n.to_string(), 1), 2, &order);
        let tasks: Vec<_> = (0..2 * MAX_PAUSED).map(begin).collect();
        settle().await;
        drop(taken);
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        let begun_before_one_ended = (0..order.len()).find(|n| order[..*n].contains(&order[*n])).unwrap();
        assert_eq!(begun_before_one_ended, MAX_PAUSED + 1);
        assert_eq!(at_rest(&semaphore), (1, 0));
    }

    #[tokio::test]
    async fn c17_closing_ends_all_waits_and_stops_nothing_that_was_begun() {
        let (semaphore, order) = (FairSemaphore::new(1), Order::default());
        let taken = semaphore.take(&sender("a", 1)).await.unwrap();
        let waits = wait(&semaphore, "b", 1, &order);
        settle().await;
        let blocked = tokio::task::spawn_blocking(move || taken.let_others(&sender("a", 1)));
        assert!(waits.await.unwrap());
        semaphore.close();
        drop(blocked.await.unwrap());
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
