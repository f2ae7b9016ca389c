//! Blocking work, so many pieces at a time, in fair turns.
//!
//! A thread that is done with a piece takes the next one itself. To hand a place to another thread,
//! which must be woken for it, costs more than reading a small file.
//!
//! A wait may be called off at any time: what nobody waits for is not begun.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{FairQueue, Sender};

/// Lanes for work. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Lanes(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// None is free while something waits.
    free: usize,
    waiting: FairQueue<Waiting>,
    /// How many have given their lane away for a while.
    paused: usize,
    is_closed: bool,
}

/// How many may have given theirs away in the middle of something: what each keeps meanwhile is
/// memory.
const MAX_PAUSED: usize = 8;

/// What waits for a lane.
#[derive(Debug)]
enum Waiting {
    /// To begin.
    Begin(Box<dyn Work>),
    /// To go on, on a thread of its own.
    GoOn(oneshot::Sender<()>),
}

/// Work that in the end has a result for somebody.
trait Work: std::fmt::Debug + Send {
    /// Whether nobody waits for it any more.
    fn is_called_off(&self) -> bool;

    /// Does it, in a lane.
    fn run(self: Box<Self>, lanes: &Lanes);
}

/// A piece of work, on whose behalf it is, and where its result goes.
struct Piece<F, T> {
    work: F,
    sender: Sender,
    result: oneshot::Sender<Result<T, Box<dyn Any + Send>>>,
}

/// The turn of a piece of work that is in a lane.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    lanes: &'a Lanes,
    sender: &'a Sender,
}

impl Lanes {
    /// So many lanes.
    pub(crate) fn new(lanes: usize) -> Self {
        let waiting = FairQueue::default();
        Self(Arc::new(Mutex::new(State { free: lanes, waiting, paused: 0, is_closed: false })))
    }

    /// Does work on a thread where it may block, when it is the sender's turn. `None` once they are
    /// closed. A panic in it is passed on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        sender: &Sender,
        work: impl FnOnce(Turn<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (result, done) = oneshot::channel();
        self.begin(sender, Box::new(Piece { work, sender: sender.clone(), result }));
        match done.await.ok()? {
            Ok(done) => Some(done),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends the wait of everybody. What was begun goes on.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    /// Begins a piece of work in a lane that is free, or has it wait for one.
    fn begin(&self, sender: &Sender, work: Box<dyn Work>) {
        let mut state = self.state();
        if state.is_closed {
            return; // dropped, which its caller is told by
        }
        let Some(left) = state.free.checked_sub(1) else {
            return state.waiting.push(sender, Waiting::Begin(work));
        };
        state.free = left;
        drop(state);
        self.serve(work);
    }

    /// Has a thread do this in a lane that is ours to give, and then what comes next in it.
    fn serve(&self, work: Box<dyn Work>) {
        let lanes = self.clone();
        drop(spawn_blocking(move || {
            let mut next = Some(work);
            while let Some(work) = next {
                work.run(&lanes);
                next = lanes.next();
            }
        }));
    }

    /// What is to begin in a lane that is given back. Nothing: somebody goes on in it, or it is
    /// free.
    fn next(&self) -> Option<Box<dyn Work>> {
        let mut state = self.state();
        loop {
            match state.waiting.pop(Waiting::is_called_off) {
                Some(Waiting::Begin(work)) => return Some(work),
                Some(Waiting::GoOn(go)) => {
                    if go.send(()).is_ok() {
                        return None;
                    }
                }
                None => {
                    state.free += 1;
                    return None;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every update leaves the data consistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Gives the lane to whoever's turn it is, if anything waits, and waits for the sender's next
    /// turn. Once the lanes are closed nobody waits any more: what was begun goes on.
    pub(crate) fn let_others(&mut self) {
        let (go, wait) = oneshot::channel();
        {
            let mut state = self.lanes.state();
            if state.waiting.is_empty() || state.paused == MAX_PAUSED {
                return;
            }
            state.paused += 1;
            state.waiting.push(self.sender, Waiting::GoOn(go));
        }
        if let Some(work) = self.lanes.next() {
            self.lanes.serve(work);
        }
        wait.blocking_recv().unwrap_or_default(); // closed meanwhile
        self.lanes.state().paused -= 1;
    }
}

impl Waiting {
    fn is_called_off(&self) -> bool {
        match self {
            Self::Begin(work) => work.is_called_off(),
            Self::GoOn(go) => go.is_closed(),
        }
    }
}

impl<F: FnOnce(Turn<'_>) -> T + Send, T: Send> Work for Piece<F, T> {
    fn is_called_off(&self) -> bool {
        self.result.is_closed()
    }

    fn run(self: Box<Self>, lanes: &Lanes) {
        let Self { work, sender, result } = *self;
        let done = catch_unwind(AssertUnwindSafe(|| work(Turn { lanes, sender: &sender })));
        drop(result.send(done)); // perhaps nobody waits any more
    }
}

impl<F, T> std::fmt::Debug for Piece<F, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("sender", &self.sender).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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

    /// Has a lane occupied from now on, until what is returned is dropped.
    async fn occupy(lanes: &Lanes) -> mpsc::Sender<()> {
        let (free, freed) = mpsc::channel();
        let (begun, begins) = oneshot::channel();
        let lanes = lanes.clone();
        tokio::spawn(async move {
            let work = move |_: Turn<'_>| {
                begun.send(()).unwrap();
                freed.recv().unwrap_err();
            };
            lanes.run(&sender("first", 1), work).await
        });
        begins.await.unwrap();
        free
    }

    /// Works in slices, and notes each. Whether it was done.
    fn work(lanes: &Lanes, rule: &str, owner: u32, slices: usize, order: &Order) -> JoinHandle<bool> {
        let (lanes, order, name) = (lanes.clone(), Arc::clone(order), format!("{rule}{owner}"));
        let sender = sender(rule, owner);
        tokio::spawn(async move {
            let work = move |mut turn: Turn<'_>| {
                for _ in 0..slices {
                    order.lock().unwrap().push(name.clone());
                    turn.let_others();
                }
            };
            lanes.run(&sender, work).await.is_some()
        })
    }

    /// How many are free, and how much waits for one in the middle of something, when all is done.
    async fn at_rest(lanes: &Lanes, free: usize) -> (usize, usize) {
        while lanes.state().free < free {
            tokio::task::yield_now().await; // the thread that gives it back has told its result before
        }
        let state = lanes.state();
        (state.free, state.paused)
    }

    #[tokio::test]
    async fn a11_a_flood_delays_another_rule_by_one_and_another_sender_by_two() {
        let (lanes, order) = (Lanes::new(1), Order::default());
        let occupied = occupy(&lanes).await;
        let mut tasks: Vec<_> = (0..50).map(|_| work(&lanes, "flooded", 1, 1, &order)).collect();
        settle().await;
        tasks.push(work(&lanes, "quiet", 1, 1, &order));
        tasks.push(work(&lanes, "flooded", 2, 1, &order));
        settle().await;
        drop(occupied);
        for task in tasks {
            assert!(task.await.unwrap());
        }
        assert_eq!(order.lock().unwrap()[..4], ["flooded1", "quiet1", "flooded2", "flooded1"]);
        assert_eq!(at_rest(&lanes, 1).await, (1, 0));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun_and_costs_no_lane() {
        let (lanes, order) = (Lanes::new(1), Order::default());
        let occupied = occupy(&lanes).await;
        let tasks: Vec<_> = (0..4).map(|n| work(&lanes, "a", n, 1, &order)).collect();
        settle().await;
        for called_off in [0, 1, 3] {
            tasks[called_off].abort();
        }
        settle().await;
        drop(occupied);
        assert_eq!(at_rest(&lanes, 1).await, (1, 0));
        assert_eq!(*order.lock().unwrap(), ["a2"]);
        assert!(lanes.state().waiting.is_empty());
    }

    #[tokio::test]
    async fn what_takes_long_gives_way_between_its_slices() {
        let (lanes, order) = (Lanes::new(1), Order::default());
        let occupied = occupy(&lanes).await;
        let mut tasks = Vec::new();
        for (rule, slices) in [("long", 4), ("long", 2), ("short", 1)] {
            tasks.push(work(&lanes, rule, 1, slices, &order));
            settle().await;
        }
        drop(occupied);
        for task in tasks {
            assert!(task.await.unwrap());
        }
        assert_eq!(order.lock().unwrap()[..3], ["long1", "short1", "long1"]);
        assert_eq!(at_rest(&lanes, 1).await, (1, 0));
    }

    #[tokio::test]
    async fn no_more_than_a_few_are_in_the_middle_of_something() {
        let (lanes, order) = (Lanes::new(1), Order::default());
        let occupied = occupy(&lanes).await;
        let begin = |n: usize| work(&lanes, &n.to_string(), 1, 2, &order);
        let tasks: Vec<_> = (0..2 * MAX_PAUSED).map(begin).collect();
        settle().await;
        drop(occupied);
        for task in tasks {
            assert!(task.await.unwrap());
        }
        {
            let order = order.lock().unwrap();
            let begun_before_one_ended = (0..order.len()).find(|n| order[..*n].contains(&order[*n])).unwrap();
            assert_eq!(begun_before_one_ended, MAX_PAUSED + 1);
        }
        assert_eq!(at_rest(&lanes, 1).await, (1, 0));
    }

    #[tokio::test]
    async fn c17_closing_ends_all_waits_and_stops_nothing_that_was_begun() {
        let (lanes, order) = (Lanes::new(1), Order::default());
        let occupied = occupy(&lanes).await;
        let long = work(&lanes, "a", 1, 2, &order);
        settle().await;
        drop(occupied);
        while order.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let occupied = occupy(&lanes).await; // in the middle of the long one, or after it
        let waits: Vec<_> = (0..3).map(|n| work(&lanes, "b", n, 1, &order)).collect();
        settle().await;
        lanes.close();
        for task in waits {
            assert!(!task.await.unwrap());
        }
        assert!(long.await.unwrap());
        assert!(lanes.run(&sender("a", 1), |_| ()).await.is_none(), "nor later");
        drop(occupied);
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_and_costs_no_lane() {
        let lanes = Lanes::new(1);
        let panics = {
            let lanes = lanes.clone();
            tokio::spawn(async move { lanes.run(&sender("a", 1), |_| panic!("seen")).await })
        };
        let panic = panics.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"seen"));
        assert_eq!(lanes.run(&sender("a", 1), |_| 1).await, Some(1));
    }
}
