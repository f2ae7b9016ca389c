//! What lies in a rule's directory, and how much of it stands to be signed or judged, without
//! touching any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::daemon::site::attach::DirectorySite;
use crate::daemon::site::decided::{is_decided, is_stray};
use crate::fs::{Action, Dir, FsError, Identity};
use crate::source::Observation;
use crate::source::directory::scan::Walk;
use crate::state::Remembered;
use crate::state::reader::Decisions;
use crate::state::reason::{DecisionReason, RefusalReason};

/// Names read at a time.
const NAMES: usize = 512;

/// What a walk through a rule's directory found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Files that state has no decision about.
    pub(crate) waiting: usize,
    /// Files that are or would be refused as they are, by the code of the reason: how many, and why
    /// one of them.
    pub(crate) refused: BTreeMap<&'static str, (usize, RefusalReason)>,
    /// Directories that the daemon would watch, the rule's own among them.
    pub(crate) directories: usize,
    /// The first directory from which no file can be moved into the rule's own, although there is
    /// no mount between them.
    pub(crate) beyond: Option<PathBuf>,
    /// Directories that cannot be read, and why.
    pub(crate) unread: Vec<FsError>,
    /// Whether there are more directories than are watched, or deeper ones.
    pub(crate) capped: bool,
}

impl Survey {
    fn refuse(&mut self, reason: RefusalReason) {
        self.refused.entry(reason.as_str()).or_insert((0, reason)).0 += 1;
    }
}

/// Why a pair is refused as it is: as it lies there, or as was decided about just that.
fn refusal(
    site: &DirectorySite,
    row: Option<&Remembered>,
    look: &Observation<Identity>,
) -> Option<RefusalReason> {
    if look.unfit.is_some() {
        return look.unfit.clone();
    }
    match row.filter(|row| is_decided(site, row, look, false)).map(|row| row.reason.as_ref()) {
        Some(Some(DecisionReason::Refusal(reason))) => Some(reason.clone()),
        _ => None,
    }
}

/// Walks the directory of a rule that is attached. What state remembers is in `decisions`; without
/// any, every file would be processed. `probe` is a directory of ours in it, to which it is found
/// out whether files can be moved where that is a matter of each. Changes nothing.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn survey(
    site: &DirectorySite,
    decisions: Option<&Decisions>,
    probe: Option<&Dir>,
) -> Result<Survey, FsError> {
    let mut walk = Walk::new(&site.rule);
    let mut survey = Survey::default();
    let root = &site.folder().root;
    let device = root.stat()?.identity.dev;
    // One that cannot be opened is the walk's to tell.
    let is_beyond = |below: &Path| {
        root.descend(below).and_then(|dir| dir.stat()).is_ok_and(|stat| stat.identity.dev != device)
    };
    // A directory as good as what comes to lie in it, if it lies on one branch alone.
    let is_on_branch = |below: &Path| {
        let (Some(probe), Some(name)) = (probe, below.file_name()) else { return false };
        let parent = root.descend(below.parent().unwrap_or(Path::new("")));
        let checked = parent.and_then(|parent| parent.check_branches(&[name], probe));
        checked.is_err_and(|error| error.action == Action::MoveAcross)
    };
    let (mut directories, mut beyond) = (0, None);
    let mut on_dir = |below: &Path| {
        directories += 1;
        if beyond.is_none() && (is_beyond(below) || is_on_branch(below)) {
            beyond = Some(below.to_owned());
        }
    };
    while let Some(batch) = walk.next(root, NAMES, &mut on_dir)? {
        for path in batch.pairs {
            let look = site.folder().look(&path)?;
            // A row that cannot be read is no decision.
            let row = decisions.and_then(|d| d.remembered(&site.rule.name, &path).ok().flatten());
            if let Some(reason) = refusal(site, row.as_ref(), &look) {
                survey.refuse(reason);
                continue;
            }
            if look.versions.payload.is_some() && !row.is_some_and(|row| is_decided(site, &row, &look, false))
            {
                survey.waiting += 1;
            }
        }
        for (_, reason) in batch.unsignable {
            survey.refuse(reason);
        }
        for payload in batch.strays {
            let row = decisions.and_then(|d| d.remembered(&site.rule.name, &payload).ok().flatten());
            if is_stray(row.as_ref()) {
                survey.refuse(RefusalReason::StraySignature);
            }
        }
        survey.unread.extend(batch.failed);
    }
    Ok(Survey { directories, beyond, capped: walk.capped, ..survey })
}
