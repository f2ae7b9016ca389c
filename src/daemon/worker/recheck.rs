//! Which decided files are compared with their decisions again, and when: those whose signature
//! something happened to, and refused ones, which may become fit without any event.
//!
//! inotify tells of a name in a watched directory and not of the inode behind it: that a hard link
//! elsewhere is gone, or that the file was written to or changed by way of that link, is told
//! nowhere. So refused files are looked at by the clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::clock::Moment;
use crate::fs::RelPath;
use crate::state::reason::DecisionReason;

/// Files compared before results and orders are handled again.
const LOOKS: usize = 512;
/// Signatures that wait to be compared; with more, a scan compares all. A path has 100 to 300
/// bytes.
const MOST_SIGNATURES: usize = 10_000;
/// Refused files looked at by the clock. The others are left to the scans (P10).
const MOST_REFUSED: usize = 1_000;
/// How often signatures are compared: state is asked for many at once.
pub(crate) const SIGNATURES_EACH: Duration = Duration::from_millis(100);
/// The first pause between two looks at a refused file, and the longest, after it doubled.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Signatures that somebody else wrote to, judged at once before the others are left to the scans:
/// each costs a hash and may cost a call of KMS, and a sender can make any number of them.
const JUDGED: u32 = 16;
/// How soon another one may be judged.
const JUDGED_EACH: Duration = Duration::from_secs(10);

/// The files to compare.
#[derive(Debug)]
pub(crate) struct Rechecks {
    /// Payloads to whose signatures something happened, and when they are compared next.
    signatures: BTreeSet<RelPath>,
    next_signatures: Moment,
    /// Refused files, by when they are looked at next.
    refused: BTreeSet<(Moment, RelPath)>,
    /// When each of them is looked at next, and how long the pause before that is.
    pauses: HashMap<RelPath, (Moment, Duration)>,
    /// How many signatures of others may be judged at once, and since when it is as many.
    judged: (u32, Moment),
}

impl Default for Rechecks {
    fn default() -> Self {
        Self {
            signatures: BTreeSet::new(),
            next_signatures: Moment::ZERO,
            refused: BTreeSet::new(),
            pauses: HashMap::new(),
            judged: (JUDGED, Moment::ZERO),
        }
    }
}

impl Rechecks {
    /// Something happened to the signature of a payload that no attempt is about. `false` if there
    /// is no room to remember it.
    pub(crate) fn signature(&mut self, path: RelPath) -> bool {
        let has_room = self.signatures.len() < MOST_SIGNATURES;
        if has_room {
            self.signatures.insert(path);
        }
        has_room
    }

    /// A file is refused for this reason. If only a change of the file itself can end that, it is
    /// looked at soon, and then ever more seldom.
    pub(crate) fn refused(&mut self, path: &RelPath, reason: Option<&DecisionReason>, now: Moment) {
        let Some(DecisionReason::Refusal(reason)) = reason else { return };
        if reason.is_unfit() && !self.pauses.contains_key(path) {
            self.pause(path.clone(), FIRST_PAUSE, now);
        }
    }

    /// Looks at a file again after this pause.
    pub(crate) fn pause(&mut self, path: RelPath, pause: Duration, now: Moment) {
        if self.pauses.len() >= MOST_REFUSED
            && let Some((_, farthest)) = self.refused.pop_last()
        {
            self.pauses.remove(&farthest);
        }
        self.refused.insert((now + pause, path.clone()));
        self.pauses.insert(path, (now + pause, pause));
    }

    /// When the next file is due.
    pub(crate) fn due(&self) -> Option<Moment> {
        let signatures = (!self.signatures.is_empty()).then_some(self.next_signatures);
        let refused = self.refused.first().map(|(at, _)| *at);
        signatures.into_iter().chain(refused).min()
    }

    /// Takes some of the signatures, if they are due.
    pub(crate) fn take_signatures(&mut self, now: Moment) -> Vec<RelPath> {
        if self.signatures.is_empty() || now < self.next_signatures {
            return Vec::new();
        }
        self.next_signatures = now + SIGNATURES_EACH;
        let some: Vec<_> = self.signatures.iter().take(LOOKS).cloned().collect();
        for path in &some {
            self.signatures.remove(path);
        }
        some
    }

    /// Takes some of the refused files that are due, each with the pause that was before it.
    pub(crate) fn take_refused(&mut self, now: Moment) -> Vec<(RelPath, Duration)> {
        let mut due = Vec::new();
        while due.len() < LOOKS
            && let Some((at, path)) = self.refused.pop_first()
        {
            if at > now {
                self.refused.insert((at, path));
                break;
            }
            let (_, pause) = self.pauses.remove(&path).unwrap_or((at, FIRST_PAUSE));
            due.push((path, pause));
        }
        due
    }

    /// Whether a signature that somebody else wrote may be judged at once. Counts it if so.
    pub(crate) fn may_judge(&mut self, now: Moment) -> bool {
        let (mut left, mut since) = self.judged;
        let earned = now.saturating_sub(since).as_secs() / JUDGED_EACH.as_secs();
        if earned > 0 {
            left = u32::try_from(earned).map_or(JUDGED, |earned| left.saturating_add(earned)).min(JUDGED);
            since = now;
        }
        let may = left > 0;
        self.judged = (left.saturating_sub(1), since);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Unfit;
    use crate::state::reason::RefusalReason;

    fn path(n: usize) -> RelPath {
        RelPath::new(n.to_string()).unwrap()
    }

    fn unfit() -> Option<DecisionReason> {
        Some(DecisionReason::Refusal(RefusalReason::Payload(Unfit::Links { links: 2, max: 1 })))
    }

    #[test]
    fn p10_refused_files_are_looked_at_ever_more_seldom_and_not_too_many_of_them() {
        let mut rechecks = Rechecks::default();
        let reason = unfit();
        rechecks.refused(&path(0), reason.as_ref(), Moment::ZERO);
        let (mut now, mut looks) = (Moment::ZERO, Vec::new());
        while now < Duration::from_secs(300) {
            now = rechecks.due().unwrap();
            for (path, pause) in rechecks.take_refused(now) {
                looks.push(now.as_secs());
                rechecks.pause(path, pause.saturating_mul(2).min(LAST_PAUSE), now);
            }
        }
        assert_eq!(looks, [1, 3, 7, 15, 31, 63, 123, 183, 243, 303]);
        rechecks.refused(&path(0), reason.as_ref(), now);
        assert!(rechecks.due().unwrap() > now + FIRST_PAUSE, "a scan that finds it does not begin anew");
        for n in 0..2 * MOST_REFUSED {
            rechecks.refused(&path(n), reason.as_ref(), now);
        }
        assert_eq!((rechecks.refused.len(), rechecks.pauses.len()), (MOST_REFUSED, MOST_REFUSED));
        let stale = Some(DecisionReason::Refusal(RefusalReason::StaleSignature));
        let mut rechecks = Rechecks::default();
        rechecks.refused(&path(0), stale.as_ref(), now);
        assert_eq!(rechecks.due(), None, "no event is missing that would end this");
    }

    #[test]
    fn signatures_of_others_are_judged_at_once_only_so_often() {
        let mut rechecks = Rechecks::default();
        let judged =
            |rechecks: &mut Rechecks, now| (0..1_000_000).filter(|_| rechecks.may_judge(now)).count();
        let start = Duration::from_secs(1_000_000);
        assert_eq!(judged(&mut rechecks, start), JUDGED as usize);
        assert_eq!(judged(&mut rechecks, start + JUDGED_EACH / 2), 0);
        assert_eq!(judged(&mut rechecks, start + JUDGED_EACH * 2), 2);
        assert_eq!(judged(&mut rechecks, start * 2), JUDGED as usize);
    }

    #[test]
    fn p10_signatures_are_remembered_up_to_a_limit() {
        let mut rechecks = Rechecks::default();
        assert_eq!(
            (0..MOST_SIGNATURES + 5).filter(|n| rechecks.signature(path(*n))).count(),
            MOST_SIGNATURES
        );
        assert_eq!(rechecks.due(), Some(Duration::ZERO), "the first at once");
        let mut taken = 0;
        while let Some(now) = rechecks.due() {
            taken += rechecks.take_signatures(now).len();
            assert!(rechecks.take_signatures(now).is_empty(), "the others later");
        }
        assert_eq!(taken, MOST_SIGNATURES);
    }
}
