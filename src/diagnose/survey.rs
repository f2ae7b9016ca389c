//! What lies in a rule's directory, and how much of it stands to be signed or judged, without
//! touching any.

use std::path::{Path, PathBuf};

use crate::daemon::site::attach::DirectorySite;
use crate::daemon::site::decided::is_decided;
use crate::fs::FsError;
use crate::source::directory::scan::Walk;
use crate::state::reader::Decisions;

/// Names read at a time.
const NAMES: usize = 512;

/// What a walk through a rule's directory found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Files that state has no decision about.
    pub(crate) waiting: usize,
    /// Directories that the daemon would watch, the rule's own among them.
    pub(crate) directories: usize,
    /// The first directory from which no file can be moved into the rule's own, although there is no
    /// mount between them.
    pub(crate) beyond: Option<PathBuf>,
    /// Directories that cannot be read, and why.
    pub(crate) unread: Vec<FsError>,
    /// Whether there are more directories than are watched, or deeper ones.
    pub(crate) capped: bool,
}

/// Walks the directory of a rule that is attached. What state remembers is in `decisions`; without
/// any, every file would be processed. Changes nothing.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn survey(site: &DirectorySite, decisions: Option<&Decisions>) -> Result<Survey, FsError> {
    let mut walk = Walk::new(&site.rule);
    let mut survey = Survey::default();
    let root = &site.folder().root;
    let device = root.stat()?.identity.dev;
    // One that cannot be opened is the walk's to tell.
    let is_beyond = |below: &Path| {
        root.descend(below).and_then(|dir| dir.stat()).is_ok_and(|stat| stat.identity.dev != device)
    };
    let (mut directories, mut beyond) = (0, None);
    let mut on_dir = |below: &Path| {
        directories += 1;
        if beyond.is_none() && is_beyond(below) {
            beyond = Some(below.to_owned());
        }
    };
    while let Some(batch) = walk.next(root, NAMES, &mut on_dir)? {
        for path in batch.pairs {
            let look = site.folder().look(&path)?;
            // A row that cannot be read is no decision.
            let row = decisions.and_then(|d| d.remembered(&site.rule.name, &path).ok().flatten());
            if look.versions.payload.is_some() && !row.is_some_and(|row| is_decided(site, &row, &look, false))
            {
                survey.waiting += 1;
            }
        }
        survey.unread.extend(batch.failed);
    }
    Ok(Survey { directories, beyond, capped: walk.capped, ..survey })
}
