//! Scans: the truth about what lies in the directory, and about which directory it is.

use std::sync::Arc;
use std::time::Duration;

use super::look::{is_decided, look};
use super::{Driver, MAX_PAIRS, POLL, REATTACH, chance, set_timer};
use crate::clock::Moment;
use crate::daemon::hold::Hold;
use crate::daemon::line::{Ending, Post};
use crate::daemon::summary::Left;
use crate::escape::quoted;
use crate::fs::{FsError, Kind, RelPath, staging};
use crate::kms::Kms;
use crate::state::{Outcome, Version};
use crate::watch::scan;
use crate::watch::settle::Sight;

/// Paths asked of state at a time.
const LOOKUP: usize = 512;
/// Time between reconcile scans where hints arrive, before jitter.
const RECONCILE: Duration = Duration::from_secs(5 * 60);
/// In `--once` there is no other scan: the names present at the start are taken.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest pause between two scans. Longer ones take as long a pause as they took, so that a sender who
/// causes scans without end has at most half of this rule's time.
const SCAN_PAUSE: Duration = Duration::from_millis(200);
/// Time between looks for decisions about files that are gone.
const PRUNE: Duration = Duration::from_secs(60 * 60);

impl<K: Kms> Driver<K> {
    /// Walks the directory and enters everything in it that is not dealt with.
    pub(super) async fn scan(&mut self) {
        let Some(post) = self.post.clone() else { return };
        if self.has_moved(&post) {
            return;
        }
        let began = self.line.clock.now();
        if self.hints.is_none() && !self.once {
            self.hints = self.new_hints();
        }
        let (mut unwatched, sweep) = (None, std::mem::take(&mut self.unswept));
        let walked = tokio::task::block_in_place(|| {
            scan::walk(&self.rule, &post.root, |below| {
                if sweep && !self.line.dry_run {
                    // What cannot be swept is swept next time; it is in nobody's way.
                    post.root.descend(below).and_then(|dir| staging::sweep(&dir)).unwrap_or_default();
                }
                if let Some(hints) = &mut self.hints
                    && let Err(e) = hints.watch(&post.root.path().join(below))
                {
                    unwatched.get_or_insert(e);
                }
            })
        });
        if let Some(error) = unwatched {
            tracing::error!(rule = self.rule.name, %error, "not all directories are watched; scanning often instead");
            self.hints = None;
        }
        let now = self.line.clock.now();
        let found = match walked {
            Ok(found) => found,
            Err(error) => {
                self.detach(&error);
                return;
            }
        };
        let all_seen = found.failed.is_empty();
        for error in &found.failed {
            let error = Hold::Fs(error.clone());
            tracing::warn!(rule = self.rule.name, %error, "directory skipped");
            if self.once {
                self.summary.left(Left { path: None, why: error.to_string() });
            }
        }
        if found.capped {
            tracing::error!(
                rule = self.rule.name,
                "too many or too deep directories; the rest is not watched"
            );
        }
        for (path, why) in found.unsignable {
            self.refuse_name(&post, path, &why).await;
        }
        self.overflowed = false;
        let mut new = Vec::new();
        for path in found.pairs {
            if let Some(slot) = self.pairs.get_mut(&path) {
                // One that is being tried is compared with what was tried at its end.
                if !slot.running {
                    set_timer(&mut self.timers, slot, &path, now);
                }
            } else {
                new.push(path);
            }
        }
        if self.pairs.len() + new.len() > MAX_PAIRS {
            self.make_room();
            // Not always the same names first, or the last ones might never get a place.
            let first = chance::pick(new.len());
            new.rotate_left(first);
        }
        for chunk in new.chunks(LOOKUP) {
            self.enter_unless_known(&post, chunk.to_vec(), now).await;
        }
        self.is_first_scan = false;
        self.send_cookie(now);
        let listening = self.hints.is_some() && !post.is_remote && !self.deaf && all_seen;
        let pause = match (self.once, listening) {
            (true, _) => NEVER,
            (false, true) => chance::jittered(RECONCILE),
            (false, false) => POLL,
        };
        let ended = self.line.clock.now();
        self.next_scan = ended + pause;
        self.soonest_scan = ended + ended.saturating_sub(began).max(SCAN_PAUSE);
        self.prune(&post, ended);
    }

    /// Enters the paths whose present versions state has no final decision about.
    pub(super) async fn enter_unless_known(&mut self, post: &Post, paths: Vec<RelPath>, now: Moment) {
        let remembered = match self.line.state.remembered_all(&self.rule.name, paths.clone()).await {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::error!(rule = self.rule.name, %error, "state cannot be read");
                paths.into_iter().map(|path| (path, None)).collect()
            }
        };
        for (path, row) in remembered {
            if let Some(row) = row
                && let Ok(look) = look(post, &path)
                && is_decided(post, &row, &look, self.line.dry_run)
            {
                if self.is_first_scan {
                    self.summary.already(row.outcome, row.reason.as_deref(), &path);
                }
                continue;
            }
            if self.pairs.len() >= MAX_PAIRS {
                self.overflowed = true; // what is in hand goes before what was left lying
                continue;
            }
            self.enter(path, now);
        }
    }

    /// Refuses a name that can have no signature, once for each version of the file.
    pub(super) async fn refuse_name(&mut self, post: &Post, path: RelPath, why: &scan::Unsignable) {
        let dir = post.root.descend(path.parent());
        let stat = dir.and_then(|dir| dir.stat_of(path.name()));
        let Ok(Some(stat)) = stat else { return };
        if stat.kind == Kind::Directory {
            return;
        }
        let sight = Sight { payload: Some(stat.identity), signature: None };
        let row = self.line.state.remembered(&self.rule.name, &path).await.ok().flatten();
        let version = Some(Version::from(&stat.identity));
        if let Some(row) = row.filter(|row| row.outcome == Outcome::Refused && row.payload == version) {
            self.summary.already(row.outcome, row.reason.as_deref(), &path);
            return;
        }
        if let Ending::Settled(settled) = self.line.refuse(post, &path, sight, why.to_string()).await {
            self.summary.settled(&settled, &path);
        }
    }

    /// Whether another directory stands at the rule's path by now. Then the old one is let go.
    pub(super) fn has_moved(&mut self, post: &Post) -> bool {
        let now = crate::fs::stat_path(&self.rule.path).ok().flatten();
        let then = post.root.stat().ok();
        let same = match (now, then) {
            (Some(now), Some(then)) => {
                (now.identity.dev, now.identity.ino, now.mount)
                    == (then.identity.dev, then.identity.ino, then.mount)
            }
            _ => false,
        };
        if !same {
            tracing::error!(
                rule = self.rule.name,
                path = %quoted(&self.rule.path),
                "the watched directory was replaced or removed; holding until it is there"
            );
            self.let_go();
        }
        !same
    }

    pub(super) fn detach(&mut self, error: &FsError) {
        tracing::error!(rule = self.rule.name, error = %Hold::Fs(error.clone()), "the watched directory cannot be read");
        self.let_go();
        // It could be opened and not read, and may be so again at once.
        self.next_attach = self.line.clock.now() + REATTACH;
        self.attach_told = Some(Hold::Fs(error.clone()).to_string());
    }

    pub(super) fn let_go(&mut self) {
        self.post = None;
        self.attachment += 1;
        self.hints = None;
        self.cookie_due = None;
        self.timers.clear();
        self.ready.clear();
        self.pairs.retain(|_, slot| {
            slot.timer = None;
            false
        });
        self.next_attach = self.line.clock.now();
    }

    /// Has state forget files that are gone, now and then.
    pub(super) fn prune(&mut self, post: &Arc<Post>, now: Moment) {
        if now < self.next_prune || self.line.dry_run {
            return;
        }
        self.next_prune = now + PRUNE;
        let (line, post) = (Arc::clone(&self.line), Arc::clone(post));
        self.chores.spawn(async move {
            let here = Arc::clone(&post);
            let is_there = move |path: &[u8]| {
                use std::os::unix::ffi::OsStrExt as _;
                let Some(path) = RelPath::new(std::ffi::OsStr::from_bytes(path)) else { return false };
                // What cannot be looked at now is not known to be gone.
                look(&here, &path).map_or(true, |look| look.sight != Sight::default())
            };
            if let Err(error) = line.state.forget_gone(&post.rule.name, is_there).await {
                tracing::warn!(rule = post.rule.name, %error, "state was not tidied");
            }
        });
    }
}
