//! `kms-sig backlog`: every file that waits, why, since when, and what to do.

use super::answer::size;
use super::asked::{ago, encoded, until};
use super::{Failure, answer, asked, complain};
use crate::cli::BacklogCommand;
use crate::control::report::{Backlog, WaitingFile};
use crate::exit::Exit;
use crate::state::export;
use crate::terminal::{self, Meaning, Palette};

/// Files of a rule that people are shown unless they ask for more.
const MOST: usize = 20;

/// Shows it.
///
/// # Errors
/// The daemon cannot be asked.
pub(crate) fn run(arguments: &BacklogCommand) -> Result<Exit, Failure> {
    let mut target = format!("/backlog?held={}", arguments.held);
    for (name, value) in [("rule", &arguments.rule), ("cause", &arguments.cause)] {
        if let Some(value) = value {
            target += &format!("&{name}={}", encoded(value));
        }
    }
    let most = arguments.most.or((!arguments.json).then_some(MOST));
    if let Some(most) = most {
        target += &format!("&most={most}");
    }
    let backlog: Backlog = asked::get(&arguments.daemon, &target)?;
    let colours = terminal::stdout();
    let mut exit = Exit::Done;
    for file in &backlog.files {
        if arguments.json {
            answer(&export::json(file))?;
        } else {
            answer(&entry(file, &backlog.time, colours))?;
        }
        if file.held {
            exit = exit.and(Exit::Unfinished);
        }
    }
    if backlog.files.is_empty() && !arguments.json {
        answer("nothing waits")?;
    }
    for rule in &backlog.rules {
        let shown = backlog.files.iter().filter(|file| file.rule == rule.rule).count();
        if rule.total > shown && !arguments.json {
            answer(&format!("{}: {} more; --most shows more of them", rule.rule, rule.total - shown))?;
        }
        if rule.more {
            complain(&format!("{}: still more lie in the directory than are in memory", rule.rule));
        }
        if let Some(why) = &rule.unanswered {
            complain(&format!("{}: {why}", rule.rule));
            exit = exit.and(Exit::Unfinished);
        }
    }
    Ok(exit)
}

fn entry(file: &WaitingFile, now: &str, colours: Palette) -> String {
    let WaitingFile { rule, file: name, cause, reason, hint, since, attempts, .. } = file;
    let size = file.size.map(|bytes| format!("{}, ", size(bytes))).unwrap_or_default();
    let tries = match attempts {
        0 => String::new(),
        1 => ", tried once".to_owned(),
        n => format!(", tried {n} times"),
    };
    let next = match &file.next_attempt {
        Some(at) => format!(", next look {}", until(at, now)),
        None => ", looked at again when something happens to it".to_owned(),
    };
    let (mark, meaning) = match (file.needs_operator, file.held) {
        (true, _) => ("!", Some(Meaning::Bad)),
        (false, true) => ("~", Some(Meaning::Waiting)),
        (false, false) => (" ", None),
    };
    let cause = colours.paint(meaning, cause);
    format!(
        "{mark} {rule}: {name} ({size}there since {})\n  {cause}{tries}{next}: {reason}\n  -> {hint}",
        ago(since, now)
    )
}
