//! One thing that an inspection found: how it is, and what to do about it if anything; and how much
//! is to be found out.

use crate::chain;
use crate::exit::Exit;
use crate::fs::FsError;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing; the daemon works so.
    Note,
    /// Somebody must change something.
    Fix,
    /// It could not be determined.
    Unknown,
}

impl Level {
    /// The word, for tables and for programs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Fix => "fix",
            Self::Unknown => "unknown",
        }
    }

    /// The exit code that it leads to.
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Fine | Self::Note => Exit::Done,
            Self::Fix => Exit::Usage,
            Self::Unknown => Exit::Unfinished,
        }
    }
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What it is about, in one word for programs.
    pub(crate) about: &'static str,
    /// How it is.
    pub(crate) level: Level,
    /// How it is, in words.
    pub(crate) says: String,
    /// What to do, where the words do not say that themselves.
    pub(crate) hint: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(crate) fn fine(about: &'static str, says: impl Into<String>) -> Self {
        Self::new(about, Level::Fine, says, "")
    }

    /// Worth knowing. An empty hint is none.
    pub(crate) fn note(about: &'static str, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(about, Level::Note, says, hint)
    }

    /// To be changed.
    pub(crate) fn fix(about: &'static str, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(about, Level::Fix, says, hint)
    }

    /// Not to be told.
    pub(crate) fn unknown(about: &'static str, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(about, Level::Unknown, says, hint)
    }

    fn new(about: &'static str, level: Level, says: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into()).filter(|hint: &String| !hint.is_empty());
        Self { about, level, says: says.into(), hint }
    }
}

/// How much to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What would keep the daemon or a rule from working.
    Start,
    /// Also how well it would work.
    Whole,
}

/// What to do where it cannot be read.
pub(super) const CHECK_READING: &str = "run this as the daemon's user, who must be able to read it";

/// An error, in words.
pub(super) fn words(error: &FsError) -> String {
    chain::one_line(error)
}

/// A count of bytes, in words.
pub(super) fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().iec().to_string()
}
