//! Control files: what downloaders keep beside a file for as long as it is not complete.
//!
//! Knows names alone. Whether what has such a name counts is its source's to find out.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::pattern;
use crate::escape::Escaped;
use crate::signature::Format;

/// `control_files`: how the names of control files go on after that of their payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFiles(Vec<String>);

/// aria2, lftp (pget), axel.
pub(super) const DEFAULT: [&str; 3] = [".aria2", ".lftp-pget-status", ".st"];

/// The most endings: each is looked for beside each file that waits.
pub(super) const MAX: usize = 16;

/// The longest ending, in bytes.
const MAX_LEN: usize = 64;

/// How large a control file may be whose ending other files have as well; those of axel have about
/// a hundred bytes.
const MAX_SIZE: u64 = 64 << 10;

/// Why an ending is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EndingError {
    /// It has no dot in front, or nothing after it.
    #[error(
        "\"{}\" is no ending of a name; write what follows the payload's name, from its dot on, such as \".aria2\"",
        Escaped::text(.0)
    )]
    NoEnding(String),
    /// Longer than any.
    #[error("an ending has at most {MAX_LEN} bytes; write a shorter one")]
    TooLong,
    /// That of signatures.
    #[error("\"{}\" is what signatures end in; write another ending, such as \".aria2\"", Escaped::text(.0))]
    Signature(String),
}

impl Default for ControlFiles {
    fn default() -> Self {
        Self(DEFAULT.map(str::to_owned).to_vec())
    }
}

impl ControlFiles {
    /// Of endings that each passed [`check`].
    pub(super) const fn new(endings: Vec<String>) -> Self {
        Self(endings)
    }

    /// The endings as the policy writes them.
    pub fn endings(&self) -> &[String] {
        &self.0
    }

    /// The names that control files of a payload have, each with the largest size that one has.
    pub(super) fn names<'a>(&'a self, payload: &'a OsStr) -> impl Iterator<Item = (OsString, &'a str, u64)> {
        self.0.iter().map(move |ending| {
            let mut name = payload.to_owned();
            name.push(ending);
            // A name that is never that of a payload needs no other mark.
            let is_marked = pattern::unfinished_mark(&name).is_some_and(|mark| mark.as_str() == ending);
            (name, ending.as_str(), if is_marked { u64::MAX } else { MAX_SIZE })
        })
    }

    /// The payload whose control file has this name, with the ending.
    pub(super) fn payload_of<'n>(&self, name: &'n OsStr) -> Option<(&'n OsStr, &str)> {
        self.0.iter().find_map(|ending| {
            let payload = name.as_bytes().strip_suffix(ending.as_bytes())?;
            (!payload.is_empty()).then(|| (OsStr::from_bytes(payload), ending.as_str()))
        })
    }
}

/// Whether one ending may stand in the list.
pub(super) fn check(ending: &str) -> Result<(), EndingError> {
    let rest = ending.strip_prefix('.').unwrap_or_default();
    if rest.is_empty() || rest.contains(|c: char| "/*?[]{}\\".contains(c) || c.is_control()) {
        return Err(EndingError::NoEnding(ending.to_owned()));
    }
    if ending.len() > MAX_LEN {
        return Err(EndingError::TooLong);
    }
    if Format::ALL.into_iter().any(|format| format.suffix().ends(ending)) {
        return Err(EndingError::Signature(ending.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ending_is_refused() {
        for ending in ["", ".", "aria2", "*.aria2", ".a/b", ".{a,b}", ".\n", ".sig", ".x.sig"] {
            assert!(check(ending).is_err(), "{ending:?}");
        }
        assert_eq!(check(&format!(".{}", "x".repeat(MAX_LEN))), Err(EndingError::TooLong));
        assert!(DEFAULT.iter().all(|ending| check(ending) == Ok(())));
    }

    #[test]
    fn a_control_file_is_found_from_its_payload_and_back() {
        let files = ControlFiles::default();
        let names: Vec<_> = files.names(OsStr::new("F")).map(|(name, _, max)| (name, max)).collect();
        let expected = [("F.aria2", u64::MAX), ("F.lftp-pget-status", u64::MAX), ("F.st", 64 << 10)];
        assert_eq!(names, expected.map(|(name, max)| (OsString::from(name), max)));
        for (name, payload) in
            [("F.st", Some("F")), ("a.tar.gz.aria2", Some("a.tar.gz")), (".st", None), ("F", None)]
        {
            let found = files.payload_of(OsStr::new(name)).map(|(payload, _)| payload);
            assert_eq!(found, payload.map(OsStr::new), "{name}");
        }
    }
}
