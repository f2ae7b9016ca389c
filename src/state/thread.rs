//! The thread that owns the connection, and the transactions that its requests share.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::StateError;
use super::error::state_error;
use super::file::PATIENCE;
use crate::clock::Clock;
use crate::fs::{Stat, stat_path};

/// Requests committed together at most; bounds how long one commit keeps the first waiting.
const MAX_GROUP: usize = 256;

/// From how many on they wait a moment for more, so that fewer commits serve them all.
const MANY: usize = 4;

const MOMENT: Duration = Duration::from_millis(4);

/// The longest single wait for another process's lock, after which the watchdog is answered.
const BREATH: Duration = Duration::from_millis(200);

/// A request: runs in the transaction, or gets the error why there is none.
pub(super) type Work = Box<dyn FnOnce(Result<&Connection, StateError>) -> Done + Send>;

/// A request that was run and is not committed yet.
pub(super) struct Done {
    pub(crate) failed: Option<StateError>,
    /// Receives the result of the commit.
    pub(crate) reply: Box<dyn FnOnce(Result<(), StateError>) + Send>,
}

pub(super) enum Request {
    /// Answer the watchdog.
    Echo(oneshot::Sender<()>),
    Work(Work),
    /// Do what was asked before, and end.
    End,
}

/// Where the database is.
pub(super) struct Place {
    pub(crate) path: PathBuf,
    /// The file that was opened; none in a dry run.
    pub(crate) file: Option<Stat>,
}

impl Place {
    /// Writes to an unlinked file are lost when it is closed, and no other process can read them
    /// (unlink(2)).
    fn check(&self) -> Result<(), StateError> {
        let Some(file) = &self.file else { return Ok(()) };
        match stat_path(&self.path) {
            Ok(there) if !there.is_some_and(|there| there.is_same_place(file)) => Err(StateError::Broken(
                self.path.clone(),
                "the file was removed or replaced since it was opened; put it back before the next start, if you can"
                    .into(),
            )),
            Ok(_) | Err(_) => Ok(()), // an error here says nothing about the file
        }
    }
}

pub(super) fn serve(
    db: &Connection,
    requests: &mpsc::Receiver<Request>,
    place: &Place,
    commit: &watch::Sender<u64>,
) {
    let path = &place.path;
    let mut changes = db.total_changes();
    let (mut works, mut ends) = (VecDeque::new(), false);
    loop {
        if works.is_empty() {
            if ends {
                return;
            }
            let Ok(request) = requests.recv() else { return };
            ends |= take(request, &mut works);
        }
        ends |= take_all(requests, &mut works);
        if works.is_empty() {
            continue;
        }
        if works.len() >= MANY {
            thread::sleep(MOMENT);
            ends |= take_all(requests, &mut works);
        }
        let meanwhile = || ends |= take_all(requests, &mut works);
        let mut going = place.check().and_then(|()| begin(db, meanwhile).map_err(|e| state_error(path, &e)));
        let mut replies = Vec::new();
        for work in works.drain(..works.len().min(MAX_GROUP)) {
            let Done { failed, reply } = work(going.clone().map(|()| db));
            replies.push(reply);
            if let (Ok(()), Some(error), true) = (&going, failed, db.is_autocommit()) {
                // A disk that is full or broken may end the transaction, with all that was done in
                // it (SQLite, "Response To Errors Within A Transaction"). It holds for the others
                // too.
                going = Err(error);
            }
        }
        let committed = going.and_then(|()| db.execute_batch("COMMIT").map_err(|e| state_error(path, &e)));
        if committed.is_err() && !db.is_autocommit() {
            // Whatever else is wrong shows at the next request.
            db.execute_batch("ROLLBACK").unwrap_or_default();
        }
        if std::mem::replace(&mut changes, db.total_changes()) != changes {
            commit.send_modify(|n| *n += 1);
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

/// Takes what has come. Whether the end is asked for.
fn take_all(requests: &mpsc::Receiver<Request>, works: &mut VecDeque<Work>) -> bool {
    let mut ends = false;
    for request in requests.try_iter() {
        ends |= take(request, works);
    }
    ends
}

fn take(request: Request, works: &mut VecDeque<Work>) -> bool {
    match request {
        Request::Echo(answer) => answer.send(()).unwrap_or_default(), // who no longer asks needs no answer
        Request::Work(work) => works.push_back(work),
        Request::End => return true,
    }
    false
}

/// IMMEDIATE: commands write history beside the daemon. A transaction that has read cannot begin to
/// write once another has committed (SQLite, "Isolation"), and that would be no passing error.
/// While another process writes, `meanwhile` is done now and then.
fn begin(db: &Connection, mut meanwhile: impl FnMut()) -> rusqlite::Result<()> {
    let clock = Clock::start();
    db.busy_timeout(BREATH)?;
    loop {
        match db.execute_batch("BEGIN IMMEDIATE") {
            Err(error) if is_busy(&error) && clock.now() < PATIENCE => meanwhile(),
            begun => return begun,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Does all of `work` or nothing of it, inside the transaction that many share.
pub(super) fn whole<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    db.prepare_cached("SAVEPOINT whole")?.execute([])?;
    let done = work(db);
    // A full disk ends the transaction, and the savepoint with it; then there is nothing left to
    // undo.
    if done.is_err() && !db.is_autocommit() {
        db.prepare_cached("ROLLBACK TO whole")?.execute([])?;
    }
    if !db.is_autocommit() {
        db.prepare_cached("RELEASE whole")?.execute([])?;
    }
    done
}
