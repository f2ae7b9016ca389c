//! Which rows of the record are meant.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use globset::{GlobBuilder, GlobMatcher};

use crate::escape::Escaped;
use crate::state::link::{Judged, Row};

/// Which rows are meant. What is not given is not asked for.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// The rule's name.
    pub(crate) rule: Option<String>,
    /// The word of an outcome.
    pub(crate) outcome: Option<String>,
    /// Written then or later (RFC 3339, UTC, as in the record).
    pub(crate) since: Option<String>,
    /// Written before.
    pub(crate) until: Option<String>,
    /// The file's name.
    pub(crate) name: Option<NameFilter>,
    /// What was said of the signature.
    pub(crate) judged: Option<JudgedFilter>,
}

/// Which names are meant: those a pattern matches, or the one that is written (or shown) exactly
/// so.
#[derive(Debug)]
pub(crate) struct NameFilter {
    exact: Vec<u8>,
    pattern: Option<GlobMatcher>,
    /// A pattern with a `/` is about the whole path below the rule's root.
    is_path: bool,
}

/// Which verdicts are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JudgedFilter {
    /// This one.
    Exactly(Judged),
    /// Invalid, for whatever reason.
    AnyInvalid,
}

impl NameFilter {
    /// Reads what was asked for: a name byte for byte, a name as it is shown, or a pattern.
    pub(crate) fn new(asked: &OsStr) -> Self {
        let glob = |text| GlobBuilder::new(text).literal_separator(true).build().ok();
        Self {
            exact: asked.as_bytes().to_vec(),
            // What is no pattern can still be a name.
            pattern: asked.to_str().and_then(glob).map(|glob| glob.compile_matcher()),
            is_path: asked.as_bytes().contains(&b'/'),
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let subject = if self.is_path { path } else { name };
        let subject = OsStr::from_bytes(subject);
        subject.as_bytes() == self.exact
            || Escaped::new(subject).to_string().as_bytes() == self.exact
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(subject))
    }
}

impl Filter {
    pub(super) fn matches(&self, row: &Row) -> bool {
        self.name.as_ref().is_none_or(|name| name.matches(&row.path))
            && match self.judged {
                None => true,
                Some(JudgedFilter::Exactly(judged)) => row.judged() == Some(judged),
                Some(JudgedFilter::AnyInvalid) => matches!(row.judged(), Some(Judged::Invalid(_))),
            }
    }
}

/// What SQLite itself can tell of a [`Filter`].
pub(super) const CONDITIONS: &str = "(?1 IS NULL OR rule = ?1) AND (?2 IS NULL OR outcome = ?2)
    AND (?3 IS NULL OR at >= ?3) AND (?4 IS NULL OR at < ?4)";

pub(super) fn conditions(filter: &Filter) -> impl rusqlite::Params {
    [&filter.rule, &filter.outcome, &filter.since, &filter.until].map(Clone::clone)
}
