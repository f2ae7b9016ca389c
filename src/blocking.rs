//! Work on files, where it stops no other task.

use tokio::task::JoinError;

use crate::hold::AttemptError;

/// Runs blocking file work on a thread that may wait. A panic there is passed on.
///
/// # Errors
/// Those of the work; `Changed` when the runtime goes down, as a restart starts over.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AttemptError> + Send + 'static,
) -> Result<T, AttemptError> {
    let done = ended(tokio::task::spawn_blocking(work).await);
    done.unwrap_or(Err(AttemptError::Changed))
}

/// What came of a task; nothing if it was cut off. A panic in it goes on: the daemon ends, and says
/// so.
pub(crate) fn ended<T>(done: Result<T, JoinError>) -> Option<T> {
    match done.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cut_off)) => None,
    }
}
