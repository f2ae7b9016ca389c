//! One path of a rule at its directories: what lies there.

use std::ffi::OsStr;

use crate::chain;
use crate::context::{Context, ContextError, Filling};
use crate::daemon::site::attach::DirectorySite;
use crate::fs::{FsError, OpenError, RelPath, Stat};
use crate::signature::{Clue, Malformed, Signature};
use crate::source::directory::signature_file::read_open;
use crate::state::Remembered;
use crate::state::reader::{Decisions, HistoryError};

/// What has a signature's name.
#[derive(Debug)]
pub(crate) struct SignatureThere {
    /// What it is.
    pub(crate) stat: Stat,
    /// What it holds; for what cannot be read, why not.
    pub(crate) content: Result<Result<Signature, Malformed>, String>,
}

impl SignatureThere {
    /// The signature, if it is one.
    pub(super) fn parsed(&self) -> Option<&Signature> {
        self.content.as_ref().ok()?.as_ref().ok()
    }
}

/// What an explanation needs besides the rule.
#[derive(Clone, Copy)]
pub(crate) struct ExplainInputs<'a> {
    /// The decisions in state, if there is a database.
    pub(crate) decisions: Option<&'a Decisions>,
    /// Bytes to leave free at a destination.
    pub(crate) min_free_space: u64,
}

/// Why the files cannot be examined.
pub(super) enum Unseen {
    State(HistoryError),
    Fs(FsError),
}

impl From<FsError> for Unseen {
    fn from(error: FsError) -> Self {
        Self::Fs(error)
    }
}

impl From<HistoryError> for Unseen {
    fn from(error: HistoryError) -> Self {
        Self::State(error)
    }
}

/// One path of a rule at its directories.
pub(super) struct Scene<'a> {
    pub(super) site: &'a DirectorySite,
    pub(super) path: &'a RelPath,
    pub(super) context: &'a Result<Context, ContextError>,
    pub(super) row: Option<&'a Remembered>,
    pub(super) inputs: ExplainInputs<'a>,
}

impl Scene<'_> {
    /// The context of a path of the rule, if it has one.
    pub(super) fn context_of(&self, path: &RelPath) -> Option<Context> {
        let rule = &self.site.rule;
        let hostname = crate::daemon::hostname();
        let filling = Filling { relpath: path.as_path(), watch: &rule.name, hostname: &hostname };
        rule.context.expand(filling).ok()
    }

    pub(super) fn stat_of(&self, name: &OsStr) -> Result<Option<Stat>, FsError> {
        match self.site.folder().root.descend(self.path.parent()) {
            Ok(dir) => dir.stat_of(name),
            Err(e) if e.is_not_found() || e.is_no_directory() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What may be the signature of the payload under another name.
    pub(super) fn beside(&self) -> Result<Option<Clue>, FsError> {
        let dir = self.site.folder().root.descend(self.path.parent())?;
        let is_there = |name: &OsStr| dir.stat_of(name).is_ok_and(|stat| stat.is_some());
        Ok(Clue::beside(self.path.name(), is_there))
    }

    /// What has the signature's name. Read as the daemon reads it: bounded, and only if it is a
    /// regular file.
    pub(super) fn signature(&self) -> Result<Option<SignatureThere>, FsError> {
        let name = self.site.rule.signature_name(self.path.name());
        let Some(stat) = self.stat_of(&name)? else { return Ok(None) };
        let dir = self.site.folder().root.descend(self.path.parent())?;
        let opened = dir.open_file(&name, &self.site.folder().signature_fitness());
        let content = match opened.and_then(|(file, _)| read_open(&file, &dir, &name)) {
            Ok(read) => Ok(read.parsed),
            Err(OpenError::Gone) => return Ok(None),
            Err(OpenError::Unfit(unfit)) => Err(format!("it {unfit}")),
            Err(OpenError::Io(error)) => Err(chain::one_line(&error)),
        };
        Ok(Some(SignatureThere { stat, content }))
    }
}
