//! `kms-sig events`: the record as it grows, a line for each decision.
//!
//! With `--follow`, a daemon that goes away is waited for, and asked for what came after the last
//! line: nobody misses a decision or sees one twice.

use std::io::{self, BufRead as _, ErrorKind};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use serde::Deserialize;

use super::asked::{encoded, sockets};
use super::{Failure, block_on, complain};
use crate::cli::EventsCommand;
use crate::control::client::{ControlError, Daemon};
use crate::control::events::CURSOR;
use crate::exit::Exit;
use crate::terminal::streams;

/// The cursor before the first row.
const BEGINNING: &str = "0";

/// Time between attempts to reach a daemon that went away.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints lines, until there are no more or for ever.
///
/// # Errors
/// The daemon cannot be asked; or the record is not that of the cursor.
pub(crate) fn run(arguments: &EventsCommand) -> Result<Exit, Failure> {
    let sockets = sockets(&arguments.daemon)?;
    block_on(async {
        // Without a line yet there is no cursor: start at the first row, so that nothing is missed.
        let after = arguments.after.as_ref();
        let cursor =
            after.map(|cursor| if cursor.is_empty() { BEGINNING.to_owned() } else { cursor.clone() });
        let mut reader = Reader { cursor, follow: arguments.follow };
        let mut is_told = false;
        let mut has_begun = false;
        loop {
            let ended = match Daemon::at(&sockets).await {
                Ok(daemon) => {
                    let ended = reader.read(daemon, &mut has_begun).await;
                    is_told &= !matches!(ended, Ok(End::Whole));
                    ended
                }
                Err(error) => Err(Stop::Control(error)),
            };
            match ended {
                Ok(End::Whole) if !arguments.follow => return Ok(Exit::Done),
                Ok(End::Nobody) => return Ok(Exit::Done),
                Ok(End::Whole)
                | Err(Stop::Control(ControlError::NoDaemon(_) | ControlError::Broken { .. }))
                    if arguments.follow && has_begun =>
                {
                    if !std::mem::replace(&mut is_told, true) {
                        complain("kms-sig: the daemon went away; waiting for it");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                // It is starting.
                Err(Stop::Control(ControlError::NotNow(_))) if arguments.follow => {
                    tokio::time::sleep(AGAIN).await
                }
                Ok(End::Whole) => return Ok(Exit::Done),
                Err(Stop::Control(error)) => return Err(Failure::Control(error)),
                Err(Stop::Output(error)) => return Err(Failure::Output(error)),
            }
        }
    })?
}

/// What was read so far.
struct Reader {
    cursor: Option<String>,
    follow: bool,
}

/// How reading ended.
enum End {
    /// There is no more, or the daemon went away.
    Whole,
    /// Nobody reads what is printed.
    Nobody,
}

enum Stop {
    Control(ControlError),
    Output(io::Error),
}

impl From<ControlError> for Stop {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// What is looked at of a line.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    cursor: Option<String>,
    reason: Option<String>,
}

impl Reader {
    async fn read(&mut self, daemon: Daemon, has_begun: &mut bool) -> Result<End, Stop> {
        let mut target = format!("/events?follow={}", self.follow);
        if let Some(cursor) = &self.cursor {
            target += &format!("&after={}", encoded(cursor));
        }
        let answer = daemon.ask(Method::GET, &target).await?;
        *has_begun = true;
        if let Some(cursor) = answer.headers().get(CURSOR).and_then(|cursor| cursor.to_str().ok()) {
            // From now on means from this row on, whatever happens to the connection.
            self.cursor = Some(cursor.to_owned());
        }
        self.print(answer.into_body()).await
    }

    async fn print(&mut self, mut body: Incoming) -> Result<End, Stop> {
        let mut pending = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            pending.extend_from_slice(data);
            let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = pending.split_off(end + 1);
            let whole = std::mem::replace(&mut pending, rest);
            for line in whole.lines() {
                let line = line.unwrap_or_default();
                let Ok(seen) = serde_json::from_str::<Line>(&line) else { continue };
                if seen.kind == "error" {
                    return Err(ControlError::Gone(seen.reason.unwrap_or_default()).into());
                }
                match streams::write_stdout(format!("{line}\n").as_bytes()) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(End::Nobody),
                    written => written.map_err(Stop::Output)?,
                }
                self.cursor = seen.cursor.or_else(|| self.cursor.take());
            }
        }
        Ok(End::Whole)
    }
}
