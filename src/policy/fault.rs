//! What is wrong with a policy file, by line.
//!
//! `Report` collects while the file is read; [`Faults`] is what the operator sees: every fault at
//! once, in the order of the file, each with what to write instead. Never prints, never stops at
//! the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::escape::Escaped;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line of the policy file, from 1; 0 for the file as a whole, when it cannot be read.
    pub line: usize,
    /// What is wrong, then what to write instead.
    pub message: String,
}

/// Everything that is wrong with one policy file: at least one fault, sorted by line, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: PathBuf,
    /// The file could not be read for a reason that may pass.
    passing: bool,
    faults: Vec<Fault>,
}

impl Faults {
    /// A fault of the file as a whole.
    pub(super) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            passing: false,
            faults: vec![Fault { line: 0, message: message.into() }],
        }
    }

    /// A file exists but could not be read: another attempt may succeed.
    pub(super) fn passing(self) -> Self {
        Self { passing: true, ..self }
    }

    /// Whether another attempt may succeed although nobody edits anything.
    pub const fn may_pass(&self) -> bool {
        self.passing
    }

    /// The policy file, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The faults, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One per line, `FILE:LINE: message`, without a line break at the end.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", Escaped::new(&self.file))?;
            if fault.line > 0 {
                write!(f, "{}:", fault.line)?;
            }
            write!(f, " {}", fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Collects faults while a file is read.
///
/// What a line that is not TOML would have said is unknown. So such a line is reported once, as
/// that, and as long as there is one, nothing is called missing, unknown or in conflict: it would
/// be a guess.
pub(super) struct Report {
    /// Where each line ends, in bytes.
    line_ends: Vec<usize>,
    /// Lines that are not TOML.
    broken: BTreeSet<usize>,
    faults: RefCell<Vec<Fault>>,
}

impl Report {
    /// Nothing wrong so far in `source`.
    pub(super) fn new(source: &str) -> Self {
        let line_ends = source.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        Self { line_ends, broken: BTreeSet::new(), faults: RefCell::default() }
    }

    /// The line of a byte of the source, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_ends.partition_point(|end| *end < offset) + 1
    }

    /// A line that is not TOML. One mistake can upset the parser several times; the first is the
    /// nearest to it.
    pub(super) fn broken(&mut self, line: usize, message: String) {
        if self.broken.insert(line) {
            self.faults.get_mut().push(Fault { line, message });
        }
    }

    /// A fault of what is written on `line`, true whatever else the file says.
    pub(super) fn fault(&self, line: usize, message: String) {
        if !self.broken.contains(&line) {
            self.faults.borrow_mut().push(Fault { line, message });
        }
    }

    /// A fault that depends on other lines too: something missing, misplaced or in conflict.
    pub(super) fn fault_of_whole(&self, line: usize, message: String) {
        if self.broken.is_empty() {
            self.fault(line, message);
        }
    }

    /// What `value` came to: itself, if nothing was found wrong.
    pub(super) fn conclude<T>(self, file: &Path, value: Option<T>) -> Result<T, Faults> {
        let mut faults = self.faults.into_inner();
        if faults.is_empty() {
            let Some(value) = value else {
                unreachable!("BUG: a policy without faults is complete");
            };
            return Ok(value);
        }
        faults.sort();
        faults.dedup();
        Err(Faults { file: file.to_owned(), passing: false, faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_show_one_per_line_in_the_order_of_the_file() {
        let report = Report::new("a\nb\nc\n");
        for (line, message) in [(3, "third"), (1, "first"), (3, "third"), (1, "again")] {
            report.fault(line, message.to_owned());
        }
        let faults = report.conclude::<()>(Path::new("p\n.toml"), Some(())).unwrap_err();
        assert_eq!(faults.to_string(), "p\\x0a.toml:1: again\np\\x0a.toml:1: first\np\\x0a.toml:3: third");
        let whole = Faults::of_file(Path::new("p.toml"), "is a directory");
        assert_eq!(whole.to_string(), "p.toml: is a directory");
    }

    #[test]
    fn offsets_become_lines() {
        let report = Report::new("ab\n\ncd");
        let lines: Vec<usize> = (0..=6).map(|offset| report.line(offset)).collect();
        assert_eq!(lines, [1, 1, 1, 2, 3, 3, 3]);
    }

    #[test]
    fn nothing_is_guessed_about_a_broken_file() {
        let mut report = Report::new("");
        report.broken(2, "not TOML".to_owned());
        report.broken(2, "and again".to_owned());
        report.fault(2, "its value is wrong".to_owned());
        report.fault(5, "this value is wrong".to_owned());
        report.fault_of_whole(7, "something is missing".to_owned());
        let faults = report.conclude::<()>(Path::new("p"), None).unwrap_err();
        assert_eq!(faults.to_string(), "p:2: not TOML\np:5: this value is wrong");
    }
}
