//! Many cases at the same time: most of them wait for a program, a disk or an answer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does the work for each case, `hands` at a time, and returns what came of them in their order.
/// One that panicked gives its message, the others go on.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    cases: &[T],
    hands: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<Result<R, String>> {
    let next = AtomicUsize::new(0);
    let results: Vec<_> = cases.iter().map(|_| Mutex::new(Err("it never ran".to_owned()))).collect();
    std::thread::scope(|scope| {
        for _ in 0..hands.min(cases.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| work(case))).map_err(message);
                    *results[number].lock().unwrap() = result;
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().unwrap()).collect()
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref().copied());
    format!("the test itself panicked: {}", said.unwrap_or("without a message"))
}

/// Has every case pass, a few at a time.
#[cfg(feature = "aws")]
#[track_caller]
pub(crate) fn each_passes<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let results = side_by_side(cases, 6, work);
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
