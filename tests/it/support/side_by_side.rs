//! Many cases at the same time: most of them wait for a program, a disk or an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does the work for each case, `hands` at a time, and returns what came of them in their order.
/// `None`: it panicked, and said so on standard error; the others go on.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    cases: &[T],
    hands: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<Option<R>> {
    let next = AtomicUsize::new(0);
    let results: Vec<_> = cases.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..hands.min(cases.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| work(case))).ok();
                    *results[number].lock().unwrap() = result;
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap()).collect()
}

/// Has every case pass, a few at a time.
#[cfg(feature = "aws")]
#[track_caller]
pub(crate) fn each_passes<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let results = side_by_side(cases, 6, work);
    let failed = results.iter().filter(|result| result.is_none()).count();
    assert!(failed == 0, "{failed} of {} cases failed; what they said is above", cases.len());
}
