//! The record as it grows: one line of JSON for each decision, from a cursor on, without a gap.
//!
//! Every line comes from the database and nowhere else, in the order of its numbers, after it was
//! committed; what wakes this up may come late or twice. Who has read a line has its cursor,
//! `HASH:ROW`, and goes on from there after any interruption. A cursor that is not of this record,
//! or rows that retention removed, are said, never passed over.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::app::{Routes, refusal};
use super::peer::Peer;
use super::places::Place;
use crate::blocking::ended;
use crate::chain;
use crate::state::export;
use crate::state::link::{Link, Point};
use crate::state::reader::{History, HistoryError};

/// The header with the cursor that the lines begin after.
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("kms-sig-cursor");
/// Rows read at a time.
const BATCH: usize = 512;
/// How often to look for rows that commands wrote beside the daemon (releases and purges).
const LOOK: Duration = Duration::from_secs(2);

/// `GET /events`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// `HASH:ROW` or `ROW`: the last row that is known. Without it, what comes from now on if more
    /// is waited for, else all there is.
    after: Option<String>,
    /// Whether to wait for more.
    #[serde(default)]
    follow: bool,
}

/// The last row that somebody has.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    seq: i64,
    /// Its hash, if they kept it.
    link: Option<Link>,
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        let (link, seq) = match text.split_once(':') {
            Some((link, seq)) => (Some(link.parse().ok()?), seq),
            None => (None, text),
        };
        seq.parse().ok().filter(|seq| *seq >= 0).map(|seq| Self { seq, link })
    }
}

/// Why there are no lines.
enum No {
    /// The cursor cannot be used.
    Cursor(String),
    /// The record cannot be read.
    Record(String),
}

pub(super) async fn events(
    State(routes): State<Arc<Routes>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<EventsQuery>,
) -> Response {
    let Some(place) = routes.followers.take(peer) else {
        let message = format!(
            "user {} is told events as often as one may be at the same time, or all users together are; end one \
             (kms-sig events --follow), and try again",
            peer.uid()
        );
        return refusal(StatusCode::TOO_MANY_REQUESTS, message);
    };
    let (Some(plan), Some(commits)) = (routes.status.plan().borrow().clone(), routes.status.commits()) else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting; ask again");
    };
    let cursor = match query.after.as_deref().map(Cursor::parse) {
        Some(None) => {
            return refusal(StatusCode::BAD_REQUEST, "the cursor is no HASH:ROW, and no number of a row");
        }
        cursor => cursor.flatten(),
    };
    let dir = plan.policy.state_dir.clone();
    let from_start = cursor.is_none() && !query.follow;
    let begun = match blocking(move || begin(&dir, cursor, from_start)).await {
        Ok(last) => last,
        Err(No::Cursor(why)) => return refusal(StatusCode::GONE, why),
        Err(No::Record(why)) => return refusal(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    // A few batches ahead of who reads, and no more (P10).
    let (lines, body) = mpsc::channel(2);
    tokio::spawn(tell(plan.policy.state_dir.clone(), begun.seq, query.follow, commits, lines));
    let body = Body::new(Lines { lines: body, _place: place });
    let cursor = format!("{}:{}", begun.link, begun.seq);
    ([(header::CONTENT_TYPE, "application/jsonl"), (CURSOR, &cursor)], body).into_response()
}

/// Finds the row to go on from.
fn begin(dir: &Path, cursor: Option<Cursor>, from_start: bool) -> Result<Point, No> {
    let failed = |error: HistoryError| No::Record(chain::one_line(&error));
    let record = History::open(dir).map_err(failed)?;
    let claims = record.claims().map_err(failed)?;
    let claims = claims.map_err(|broken| No::Record(broken.to_string()))?;
    let Some(Cursor { seq, link }) = cursor else {
        return Ok(if from_start { claims.checkpoint } else { claims.head });
    };
    let (first, last) = (claims.checkpoint.seq, claims.head.seq);
    if seq > last {
        return Err(No::Cursor(format!(
            "the record has {last} rows, and none with the cursor's number {seq}: it is another record than the cursor's"
        )));
    }
    if seq < first {
        return Err(No::Cursor(format!(
            "retention has removed the rows up to {first}; go on with --after {first}, and know that the rows between \
             are gone"
        )));
    }
    let there = match seq == first {
        true => Some(claims.checkpoint.link),
        false => {
            let row = record.after(seq - 1, 1).map_err(failed)?;
            let row = row.into_iter().next().transpose().map_err(|broken| No::Record(broken.to_string()))?;
            row.filter(|(row, _)| row.seq == seq).map(|(_, link)| link)
        }
    };
    match (link, there) {
        (Some(link), Some(there)) if link != there => Err(No::Cursor(format!(
            "row {seq} has another hash than the cursor's: it is another record, or it was changed"
        ))),
        (_, Some(link)) => Ok(Point { seq, link }),
        (_, None) => Err(No::Cursor(format!("there is no row {seq}; kms-sig history --verify tells more"))),
    }
}

/// Tells rows until there are no more, or for ever; ends when nobody reads.
async fn tell(
    dir: PathBuf,
    mut last: i64,
    follow: bool,
    mut commits: watch::Receiver<u64>,
    lines: mpsc::Sender<Bytes>,
) {
    loop {
        commits.mark_unchanged();
        let from = dir.clone();
        let batch = blocking(move || read(&from, last)).await;
        let is_whole = match batch {
            Ok(Batch { text, last: reached, rows }) => {
                last = reached;
                if !text.is_empty() && lines.send(text.into()).await.is_err() {
                    return;
                }
                rows == BATCH
            }
            Err(No::Cursor(why) | No::Record(why)) => {
                let line = export::json(&serde_json::json!({ "type": "error", "reason": why }));
                lines.send((line + "\n").into()).await.ok(); // nobody need be reading
                return;
            }
        };
        if is_whole {
            continue;
        }
        if !follow {
            return;
        }
        tokio::select! {
            () = lines.closed() => return,
            changed = commits.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Lines of some rows.
struct Batch {
    text: String,
    /// The number of the last of them.
    last: i64,
    rows: usize,
}

fn read(dir: &Path, mut last: i64) -> Result<Batch, No> {
    let failed = |error: HistoryError| No::Record(chain::one_line(&error));
    let record = History::open(dir).map_err(failed)?;
    let read = record.after(last, BATCH).map_err(failed)?;
    record.done().map_err(failed)?;
    let (mut text, rows) = (String::new(), read.len());
    for row in read {
        let (row, link) = row.map_err(|broken| No::Record(broken.to_string()))?;
        if row.seq != last + 1 {
            return Err(No::Cursor(format!(
                "row {} does not follow row {last}: rows in between are gone",
                row.seq
            )));
        }
        last = row.seq;
        text.push_str(&export::event_line(&row, &link));
        text.push('\n');
    }
    Ok(Batch { text, last, rows })
}

/// Runs what reads files where it stops no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match ended(tokio::task::spawn_blocking(work).await) {
        Some(done) => done,
        None => std::future::pending().await, // the runtime is going down
    }
}

/// The lines as a body.
struct Lines {
    lines: mpsc::Receiver<Bytes>,
    _place: Place,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
