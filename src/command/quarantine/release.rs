//! `kms-sig quarantine release`: verified again, copied out as delivery would, put on record, and
//! then let go.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::item_trouble::SUPERSEDED;
use super::judge::{Judge, rollback};
use super::{ItemTrouble, Store, StoreTrouble};
use crate::chain;
use crate::cli::Release;
use crate::command::answer::{answer_json, both_ways};
use crate::command::{Failure, answer, block_on, complain};
use crate::digest::set::DigestRequest;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::trust;
use crate::fs::{Action, Dir, FsError, RelPath, root};
use crate::policy::{Rollback, Rule};
use crate::signing::{Valid, Verdict};
use crate::sink::directory::quarantine::{Item, Licence, Locked, Parcel, Published};
use crate::state::{ExitKind, Journal, QuarantineExit};
use crate::terminal::{self, progress};

/// Releases what was asked for.
pub(super) fn run(arguments: &Release, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let store = Store::open(&arguments.store.policy)?;
    store.sweep();
    let (json, forced) = (arguments.store.json, arguments.force);
    let kept = |id: &str, why: &str| json!({ "id": id, "released": false, "forced": forced, "why": why });
    let (ids, mut exit) = store.resolve(&arguments.ids)?.told(json.then_some(&kept))?;
    if ids.is_empty() {
        return Ok(exit);
    }
    let judge = Judge::new(&store.policy, store.owner, keyring)?;
    let to = arguments.to.as_deref().map(|to| outside(&store, to)).transpose()?;
    let journal = store.journal()?;
    let mut releases = Releases { store: &store, judge, journal, force: forced, to };
    block_on(async {
        for id in ids {
            match releases.release(&id).await {
                Ok(at) if json => {
                    let (to, to_hex) = both_ways(&at);
                    answer_json(&json!({
                        "id": id, "released": true, "to": to, "to_hex": to_hex, "forced": forced,
                    }))?;
                }
                Ok(at) => {
                    answer(&format!("{id}: {} to {}", terminal::stdout().good("released"), quoted(&at)))?;
                }
                Err(trouble) => {
                    exit = exit.and(trouble.tell(&id));
                    let why = chain::one_line(&trouble);
                    match trouble.released().map(|at| both_ways(at)) {
                        _ if !json => {}
                        None => answer_json(&kept(&id, &why))?,
                        Some((to, to_hex)) => answer_json(&json!({
                            "id": id, "released": true, "to": to, "to_hex": to_hex, "forced": forced, "why": why,
                        }))?,
                    }
                }
            }
        }
        Ok(exit)
    })?
}

/// The directory of `--to`, which must not lie in the store: what is put there would be no item.
fn outside(store: &Store, to: &Path) -> Result<Dir, Failure> {
    // On record it must mean the same to who reads it elsewhere. What others could change there is
    // released to them.
    let absolute = std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let dir = trust::open_for(&absolute, store.owner).map_err(StoreTrouble::To)?;
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if store.policy.quarantine_dir.as_deref().is_some_and(|store| real(to).starts_with(real(store))) {
        return Err(StoreTrouble::Inside(to.to_owned()).into());
    }
    Ok(dir)
}

/// Releases one item after another.
struct Releases<'s> {
    store: &'s Store,
    judge: Judge<'s>,
    journal: Journal,
    force: bool,
    to: Option<Dir>,
}

/// Where an item's files go.
struct Target<'p> {
    dir: Dir,
    path: RelPath,
    /// The path that the rule knows such a file by.
    known: RelPath,
    /// The item's rule, if the policy still has it, and what it has to do with the directory.
    rule: Option<&'p Rule>,
    place: Place,
}

/// What a rule does with files in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It delivers them there: what is released there counts as delivered.
    Delivered,
    /// It watches them there, and sees to what is released there as to anything else.
    Watched,
    /// Nothing.
    Elsewhere,
}

impl<'s> Releases<'s> {
    async fn release(&mut self, id: &str) -> Result<PathBuf, ItemTrouble> {
        let locked = self.store.take(id)?;
        let item = locked.item();
        let target = self.target(item)?;
        let at = target.dir.path().join(target.path.as_path());
        if item.has_overlong_signature() {
            // Nobody reads it; when it was judged nobody did either.
            return Err(ItemTrouble::Overlong { forced: self.force });
        }
        let floor = self.store.policy.limits.min_free_space;
        let free = target.dir.free_space()?;
        if let Some(free) = free.filter(|free| free.saturating_sub(item.size()) < floor) {
            return Err(ItemTrouble::NoSpace { path: target.dir.path().to_owned(), free });
        }
        let reading = progress::Reading::of(Some(item.record().payload.size));
        let count = |len| reading.add(len);
        let (owner, widest) = (self.store.owner, target.widest());
        let digests = if self.force { DigestRequest::NONE } else { self.judge.digests(item)? };
        let below = target.path.parent();
        let parcel = Parcel::pack(item, &target.dir, below, owner, widest, digests, &count)?;
        drop(reading);
        let valid = match self.force {
            true => None,
            false => match self.judge.verify_copy(item, &parcel).await? {
                Verdict::Valid(valid) => Some(valid),
                Verdict::Invalid(reason) => return Err(ItemTrouble::Invalid(reason)),
            },
        };
        self.check_rollback(&target, item.id(), &parcel)?;
        self.publish(&target, &parcel, valid.as_ref())?;
        let recorded = self.journal.record(&quarantine_exit(&locked, &parcel, valid.as_ref(), &at));
        recorded.map_err(|source| ItemTrouble::Unrecorded { at: at.clone(), source })?;
        match self.store.remove(locked) {
            Ok(()) => Ok(at),
            Err(source) => Err(ItemTrouble::Kept { at, source: Box::new(source) }),
        }
    }

    fn target(&self, item: &Item) -> Result<Target<'s>, ItemTrouble> {
        let rule = self.judge.rule(item);
        if let Some(dir) = &self.to {
            let rule = rule.ok();
            let path = RelPath::new(item.path().name()).unwrap_or_else(|| item.path().clone());
            let delivered =
                rule.and_then(|rule| RelPath::new(below_delivery(rule, dir)?.join(path.as_path())));
            let place = if delivered.is_some() { Place::Delivered } else { Place::Elsewhere };
            let known = delivered.unwrap_or_else(|| item.path().clone());
            return Ok(Target { dir: dir.clone(), path, known, rule, place });
        }
        let rule = match rule {
            Err(ItemTrouble::NoRule(name)) if self.force => return Err(ItemTrouble::NoDestination(name)),
            rule => rule?,
        };
        let (dir, place) = destination(self.store, rule, item)?;
        let path = item.path().clone();
        Ok(Target { dir, known: path.clone(), path, rule: Some(rule), place })
    }

    /// Sees to content that was superseded, as the daemon does where the rule accepts files.
    fn check_rollback(&self, target: &Target<'_>, id: &str, parcel: &Parcel) -> Result<(), ItemTrouble> {
        let Some(rule) = target.rule.filter(|rule| rollback(rule) != Rollback::Off) else {
            return Ok(());
        };
        if !self.journal.is_superseded(&rule.name, &target.known, parcel.digest())? {
            return Ok(());
        }
        let is_denied = rollback(rule) == Rollback::Deny && target.place != Place::Elsewhere;
        if is_denied && !self.force {
            return Err(ItemTrouble::Superseded(rule.name.clone()));
        }
        complain(&format!("warning: {}: {SUPERSEDED}", Escaped::text(id)));
        Ok(())
    }

    /// Publishes what may be. What a verdict allows, where the rule delivers, counts as delivered
    /// before anybody sees it: a kill in between must not let an older one be taken for the newest.
    fn publish(
        &mut self,
        target: &Target<'_>,
        parcel: &Parcel,
        valid: Option<&Valid>,
    ) -> Result<(), ItemTrouble> {
        let remembered = target.rule.filter(|rule| {
            valid.is_some() && target.place == Place::Delivered && rollback(rule) != Rollback::Off
        });
        let digest = parcel.digest();
        let remembered = match remembered {
            Some(rule) if self.journal.remember_delivered_version(&rule.name, &target.known, digest)? => {
                Some(rule)
            }
            Some(_) | None => None,
        };
        let licence = valid.map_or(Licence::Forced, Licence::Verified);
        let published = parcel.publish(&target.dir, &target.path, &licence);
        let is_there = match &published {
            Ok(Published::Done) => true,
            Ok(Published::Taken(_) | Published::Changed(_)) => false,
            // The payload has its name by then.
            Err(FsError { action, .. }) => *action == Action::SyncDirectory,
        };
        if let Some(rule) = remembered.filter(|_| !is_there) {
            self.journal.forget_delivered_version(&rule.name, &target.known, digest)?;
        }
        let published = published.map_err(|error| match is_there {
            true => ItemTrouble::Fs(error),
            false => ItemTrouble::Write(error),
        });
        match published? {
            Published::Done => Ok(()),
            Published::Taken(what) => {
                let at = target.dir.path().join(target.path.as_path());
                Err(ItemTrouble::Refused { at, what })
            }
            Published::Changed(what) => Err(ItemTrouble::Changed(what)),
        }
    }
}

impl Target<'_> {
    /// The widest mode of files there, if the rule says.
    fn widest(&self) -> Option<u32> {
        let delivery = self.rule?.delivery().filter(|_| self.place == Place::Delivered);
        delivery.map(|delivery| delivery.mode)
    }
}

/// Where a directory lies below the one that a rule delivers to, if it is that one or lies there.
fn below_delivery(rule: &Rule, dir: &Dir) -> Option<PathBuf> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let delivery = real(&rule.delivery()?.dir)?;
    real(dir.path())?.strip_prefix(delivery).ok().map(Path::to_owned)
}

/// Where a rule's files go: where it delivers, or back to the folder that it watches.
fn destination(store: &Store, rule: &Rule, item: &Item) -> Result<(Dir, Place), ItemTrouble> {
    if let Some(delivery) = rule.delivery() {
        return Ok((trust::open_for(&delivery.dir, store.owner)?, Place::Delivered));
    }
    let was = item.record().root_path().unwrap_or_default();
    if was != rule.path {
        return Err(ItemTrouble::Moved { root: was, rule: rule.name.clone() });
    }
    Ok((root::open_for(&rule.path, store.owner)?, Place::Watched))
}

/// The row for history: who, on whose word, and where to.
fn quarantine_exit(locked: &Locked, parcel: &Parcel, valid: Option<&Valid>, at: &Path) -> QuarantineExit {
    let word = if valid.is_some() { "verified" } else { "forced" };
    let why = format!("by uid {}, {word}, to {}", rustix::process::getuid().as_raw(), quoted(at));
    QuarantineExit {
        digest: Some(parcel.digest().clone()),
        signature_digest: parcel.signature_digest().cloned(),
        key: valid.map(|valid| valid.key().to_string()),
        ..locked.item().exit(ExitKind::Released, why)
    }
}
