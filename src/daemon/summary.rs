//! The summary of a run, for people and for the exit code of `--once`.

use std::collections::BTreeMap;
use std::fmt;

use crate::daemon::pipeline::Settled;
use crate::escape::{Escaped, word};
use crate::exit::Exit;
use crate::fs::RelPath;
use crate::state::Outcome;
use crate::state::reason::DecisionReason;
use crate::terminal::{Meaning, Palette};

/// Files listed by name, of each kind: more than anybody reads, and bounded (P10).
const MOST_LISTED: usize = 10_000;

/// What one rule did.
#[derive(Debug, Clone)]
pub struct Summary {
    rule: String,
    counts: BTreeMap<&'static str, usize>,
    left: Vec<Left>,
    /// How many more were left than are listed.
    unlisted_left: usize,
    /// Files whose outcome is worth a line of its own. `None` for a run without end, which would
    /// gather them without limit (P10).
    notes: Option<Vec<(RelPath, Outcome, String)>>,
    /// How many more of them there were.
    unlisted_notes: usize,
    exit: Exit,
}

/// Something that was left undecided.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// Which file; `None` for the rule as a whole.
    pub(crate) path: Option<RelPath>,
    /// Why, in one line.
    pub(crate) why: String,
}

impl Summary {
    /// An empty summary. `lists`: single files will be listed.
    pub(crate) fn new(rule: &str, lists: bool) -> Self {
        Self {
            rule: rule.to_owned(),
            counts: BTreeMap::new(),
            left: Vec::new(),
            unlisted_left: 0,
            unlisted_notes: 0,
            notes: lists.then(Vec::new),
            exit: Exit::Done,
        }
    }

    /// Which rule.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Counts a file that was decided in this run.
    pub(crate) fn settled(&mut self, settled: &Settled, path: &RelPath) {
        *self.counts.entry(settled.outcome.as_str()).or_default() += 1;
        self.judge(settled.outcome, settled.reason.as_ref(), path);
    }

    /// Counts a file that was decided in an earlier run and has not changed.
    pub(crate) fn already(&mut self, outcome: Outcome, reason: Option<&DecisionReason>, path: &RelPath) {
        *self.counts.entry("unchanged").or_default() += 1;
        self.judge(outcome, reason, path);
    }

    /// Lists something that was left undecided.
    pub(crate) fn left(&mut self, left: Left) {
        self.exit = self.exit.and(Exit::Unfinished);
        if self.left.len() < MOST_LISTED || left.path.is_none() {
            self.left.push(left);
        } else {
            self.unlisted_left += 1;
        }
    }

    /// The exit code of what this rule did.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The summary as text: the counts, and a line for each file that needs one.
    pub(crate) fn shown(&self, colours: Palette) -> String {
        let mut counts: Vec<String> = self
            .counts
            .iter()
            .map(|(word, n)| colours.paint(Meaning::of_outcome(word), &format!("{n} {word}")).to_string())
            .collect();
        let left = self.left.len() + self.unlisted_left;
        if left > 0 {
            counts.push(colours.waiting(&format!("{left} left")).to_string());
        }
        if counts.is_empty() {
            counts.push("nothing to do".to_owned());
        }
        let mut text = format!("{}: {}", colours.heading(&self.rule), counts.join(", "));
        let mut notes: Vec<_> = self.notes.iter().flatten().collect();
        notes.sort_by_key(|(path, outcome, why)| (path, outcome.as_str(), why));
        for (path, outcome, why) in notes {
            let what = colours.outcome(outcome.as_str());
            text += &format!("\n  {}: {what}: {why}", name(path));
        }
        if self.unlisted_notes > 0 {
            text += &format!("\n  and {} more, which `kms-sig history` lists", self.unlisted_notes);
        }
        for left in &self.left {
            let what = colours.waiting("left");
            text += &match &left.path {
                Some(path) => format!("\n  {}: {what}: {}", name(path), left.why),
                None => format!("\n  {what}: {}", left.why),
            };
        }
        if self.unlisted_left > 0 {
            text += &format!("\n  {}: {} more", colours.waiting("left"), self.unlisted_left);
        }
        text
    }

    fn judge(&mut self, outcome: Outcome, reason: Option<&DecisionReason>, path: &RelPath) {
        let exit = match outcome {
            Outcome::Signed | Outcome::Adopted | Outcome::Valid | Outcome::Delivered => return,
            Outcome::Invalid | Outcome::Quarantined => Exit::Invalid,
            Outcome::Refused | Outcome::Signing => Exit::Unfinished,
        };
        self.exit = self.exit.and(exit);
        if let Some(notes) = &mut self.notes {
            if notes.len() >= MOST_LISTED {
                self.unlisted_notes += 1;
                return;
            }
            notes.push((
                path.clone(),
                outcome,
                reason.map_or_else(|| "no reason given".to_owned(), ToString::to_string),
            ));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(Palette::PLAIN))
    }
}

/// A name at the beginning of a line, escaped to one word, so that a sender cannot forge the rest
/// of the line.
fn name(path: &RelPath) -> String {
    word(&Escaped::new(path.as_path()).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_run_without_an_end_gathers_no_lines() {
        let path = RelPath::new("f").unwrap();
        for (lists, lines) in [(true, 101), (false, 1)] {
            let mut summary = Summary::new("rule", lists);
            (0..100).for_each(|_| summary.already(Outcome::Refused, None, &path));
            assert_eq!(summary.to_string().lines().count(), lines);
            assert_eq!(summary.exit(), Exit::Unfinished);
        }
    }

    #[test]
    fn p10_a_run_lists_no_more_lines_than_anybody_reads_and_counts_the_others() {
        let path = RelPath::new("f").unwrap();
        let mut summary = Summary::new("rule", true);
        for _ in 0..MOST_LISTED + 7 {
            summary.already(Outcome::Refused, None, &path);
            summary.left(Left { path: Some(path.clone()), why: "being written".to_owned() });
        }
        summary.left(Left { path: None, why: "more files wait; run again".to_owned() });
        let text = summary.to_string();
        assert_eq!(text.lines().count(), 1 + 2 * (MOST_LISTED + 1) + 1);
        assert!(text.starts_with("rule: 10007 unchanged, 10008 left"), "{}", &text[..80]);
        assert!(text.contains("and 7 more, which") && text.ends_with("left: 7 more"), "{text:.80}");
    }
}
