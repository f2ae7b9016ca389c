//! A run of the program that has ended, and what is asserted of it. A failure shows the whole run
//! and what lies in the directory.

use std::process::Output;

use super::place::Place;

/// A run that has ended. Each assertion hands it on.
pub(crate) struct Run<'a> {
    pub(super) place: &'a Place,
    pub(super) shown: String,
    pub(super) output: Output,
}

impl Run<'_> {
    /// The exit code is this one (and the program was not killed).
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        let holds = self.output.status.code() == Some(code);
        self.check(holds, &format!("exit code {code}"))
    }

    /// Standard output is exactly this.
    #[track_caller]
    pub(crate) fn says(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let holds = self.output.stdout == text;
        self.check(holds, &format!("on standard output: {:?}", String::from_utf8_lossy(text)))
    }

    /// Standard error is exactly this.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        let holds = self.output.stderr == text.as_bytes();
        self.check(holds, &format!("on standard error: {text:?}"))
    }

    /// Standard error has this somewhere: for text that another program words.
    #[track_caller]
    pub(crate) fn complains_of(self, text: &str) -> Self {
        let found = self.stderr().contains(text);
        self.check(found, &format!("somewhere on standard error: {text:?}"))
    }

    /// Whether it exited with 0.
    pub(crate) fn succeeds(&self) -> bool {
        self.output.status.success()
    }

    /// What it wrote to standard output.
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.output.stdout
    }

    /// What it wrote to standard error.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn check(self, holds: bool, expected: &str) -> Self {
        if !holds {
            panic!(
                "expected {expected}\n{}\n{}\nstandard output:\n{}\nstandard error:\n{}\ndirectory:\n{}",
                self.shown,
                self.output.status,
                String::from_utf8_lossy(&self.output.stdout),
                String::from_utf8_lossy(&self.output.stderr),
                self.place.listing()
            );
        }
        self
    }
}
