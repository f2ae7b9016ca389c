//! Patterns of file names: `include` and `exclude`.
//!
//! A pattern is matched against the name alone, byte for byte, never against the path, and never
//! against anything's type or content.

use std::ffi::OsStr;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::escape::Escaped;
use crate::signature::Format;

/// A list of patterns. A name matches if one of them does.
#[derive(Debug, Clone)]
pub struct Patterns {
    set: GlobSet,
    sources: Vec<String>,
}

/// The longest pattern, in bytes: names have at most 255. The compiler of patterns calls itself for
/// each brace in a brace, and runs out of stack where they nest a hundred thousand deep.
const MAX_LEN: usize = 1024;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    /// An empty pattern.
    #[error("an empty pattern matches no name; write one such as \"*.tar.gz\"")]
    Empty,
    /// Longer than any name.
    #[error("a pattern has at most {MAX_LEN} bytes; write several shorter ones")]
    TooLong,
    /// A pattern with a directory in it.
    #[error(
        "\"{}\" has a '/', but patterns match file names without directories; write the name's part only, such as \"*.tar.gz\"",
        Escaped::text(.0)
    )]
    Slash(String),
    /// A pattern of signatures.
    #[error(
        "\"{}\" could only match signatures, which are never payloads; write the payload's name, such as \"*.tar.gz\"",
        Escaped::text(.0)
    )]
    OnlySignatures(String),
    /// No pattern in the language of globs.
    #[error("\"{}\" is no pattern: {reason}; write one such as \"*.tar.gz\"", Escaped::text(.pattern))]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What globset says about it.
        reason: String,
    },
}

/// Which list a pattern stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Include,
    Exclude,
}

impl Patterns {
    /// Takes patterns that each passed `check`.
    ///
    /// # Errors
    /// `Syntax`, when all together are too large for the matcher.
    pub(super) fn new(sources: Vec<String>) -> Result<Self, PatternError> {
        let mut builder = GlobSetBuilder::new();
        for source in &sources {
            builder.add(glob(source)?);
        }
        let set = builder.build().map_err(|error| syntax(&sources.join(" "), &error))?;
        Ok(Self { set, sources })
    }

    /// Whether a file name is meant. Bytes that are not UTF-8 match `*` and `?` like any other.
    pub fn matches(&self, name: &OsStr) -> bool {
        self.set.is_match(name)
    }

    /// Whether a file name is meant by a pattern that itself has `mark` where the name has it: an
    /// unfinished file is meant by `*.part` or `.profile`, not by `*`.
    pub(super) fn matches_naming(&self, name: &OsStr, mark: Mark) -> bool {
        self.set.matches(name).into_iter().filter_map(|i| self.sources.get(i)).any(|source| match mark {
            Mark::Start(mark) => source.starts_with(mark),
            Mark::End(mark) => source.ends_with(mark),
        })
    }

    /// Whether a file name is meant by a pattern that itself has this ending.
    pub(super) fn matches_ending(&self, name: &OsStr, ending: &str) -> bool {
        self.set
            .matches(name)
            .into_iter()
            .filter_map(|i| self.sources.get(i))
            .any(|source| source.ends_with(ending))
    }

    /// The first pattern that a file name matches, as the policy writes it.
    pub(crate) fn matching(&self, name: &OsStr) -> Option<&str> {
        let first = self.set.matches(name).into_iter().min()?;
        self.sources.get(first).map(String::as_str)
    }

    /// The patterns as the policy writes them.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }
}

/// Why a rule does not mean a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exclusion<'r> {
    /// A pattern of `exclude` matches it.
    #[error("its name matches \"{}\" of exclude", Escaped::text(.0))]
    Pattern(&'r str),
    /// There is an `include`, and no pattern of it matches.
    #[error("its name matches no pattern of include")]
    NotIncluded,
    /// It is called like an unfinished or private file, and no pattern of `include` says so itself.
    #[error("\"{0}\" in its name marks an unfinished or private file, and no pattern of include has it")]
    Unfinished(&'static str),
}

/// What marks a name as that of an unfinished or private file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Start(&'static str),
    End(&'static str),
}

impl Mark {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Start(mark) | Self::End(mark) => mark,
        }
    }

    fn is_of(self, name: &OsStr) -> bool {
        let name = name.as_encoded_bytes();
        match self {
            Self::Start(mark) => name.starts_with(mark.as_bytes()),
            Self::End(mark) => name.ends_with(mark.as_bytes()),
        }
    }
}

/// What marks a private name.
const DOT: Mark = Mark::Start(".");

/// How programs mark files that are not (yet) for others: dotfiles, editors' backups and swap
/// files, and downloads and uploads under way (browsers, curl, rsync, FileZilla, WinSCP, skopeo,
/// gsutil, MinIO's client), also what they note about them beside them (aria2, lftp).
const MARKS: [Mark; 14] = [
    DOT,
    Mark::Start("dir-put-blob"),
    Mark::End("~"),
    Mark::End(".part"),
    Mark::End(".partial"),
    Mark::End(".crdownload"),
    Mark::End(".filepart"),
    Mark::End(".tmp"),
    Mark::End(".swp"),
    Mark::End(".part.minio"),
    Mark::End("_.gstmp"),
    Mark::End(".aria2"),
    Mark::End(".aria2__temp"),
    Mark::End(".lftp-pget-status"),
];

/// What marks this name, if anything does.
pub(super) fn unfinished_mark(name: &OsStr) -> Option<Mark> {
    MARKS.into_iter().find(|mark| mark.is_of(name))
}

/// The dot of a private name, if it is one.
pub(super) fn dot_mark(name: &OsStr) -> Option<Mark> {
    DOT.is_of(name).then_some(DOT)
}

/// Whether one pattern may stand in `list`.
pub(super) fn check(pattern: &str, list: List) -> Result<(), PatternError> {
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    if pattern.len() > MAX_LEN {
        return Err(PatternError::TooLong);
    }
    if pattern.contains('/') {
        return Err(PatternError::Slash(pattern.to_owned()));
    }
    glob(pattern)?;
    // In a valid pattern these letters cannot stand inside an open bracket or brace, so they are
    // literal.
    let is_signature = |format: Format| format.suffix().ends(pattern);
    if list == List::Include && Format::ALL.into_iter().any(is_signature) {
        return Err(PatternError::OnlySignatures(pattern.to_owned()));
    }
    Ok(())
}

fn glob(pattern: &str) -> Result<globset::Glob, PatternError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| syntax(pattern, &error))
}

fn syntax(pattern: &str, error: &globset::Error) -> PatternError {
    PatternError::Syntax { pattern: pattern.to_owned(), reason: error.kind().to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn patterns(sources: &[&str]) -> Patterns {
        Patterns::new(sources.iter().map(|s| (*s).to_owned()).collect()).unwrap()
    }

    #[test]
    fn names_match_byte_for_byte() {
        let cases: [(&[&str], &[u8], bool); 16] = [
            (&[], b"a", false),
            (&["*.tar.gz"], b"a.tar.gz", true),
            (&["*.tar.gz"], b"a.tar.gz.part", false),
            (&["*.tar.gz"], b".tar.gz", true),
            (&["*"], b"\xff\xfe", true),
            (&["?.bin"], b"\xff.bin", true),
            (&["a*"], b"a\n\x1b", true),
            (&["A*"], b"a", false),
            (&["*.{deb,rpm}"], b"x.rpm", true),
            (&["*.{deb,rpm}"], b"x.apk", false),
            (&["v[0-9]"], b"v7", true),
            (&["v[!0-9]"], b"v7", false),
            (&[r"\*"], b"*", true),
            (&[r"\*"], b"x", false),
            (&["a", "b"], b"b", true),
            (&["a", "b"], b"ab", false),
        ];
        for (sources, name, matches) in cases {
            assert_eq!(patterns(sources).matches(OsStr::from_bytes(name)), matches, "{sources:?} {name:?}");
        }
        assert_eq!(patterns(&["a", "b"]).sources(), ["a", "b"]);
    }

    #[test]
    fn p6_signatures_cannot_be_included() {
        for pattern in ["*.sig", "a.sig", r"x\.sig", "{a,b}.sig"] {
            assert!(
                matches!(check(pattern, List::Include), Err(PatternError::OnlySignatures(_))),
                "{pattern}"
            );
            assert_eq!(check(pattern, List::Exclude), Ok(()));
        }
        for pattern in ["*", "*.sig*", "*.{sig,bin}", "sig", "*sig"] {
            assert_eq!(check(pattern, List::Include), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_of_a_name_is_refused() {
        for pattern in ["", "a/b", "**/x", "[a", "{a", "a}", r"a\", "[z-a]"] {
            assert!(check(pattern, List::Exclude).is_err(), "{pattern}");
        }
    }
}
