//! `kms-sig quarantine release`: verified again, copied out as delivery would, put on record, and then let go.

use std::path::{Path, PathBuf};

use super::judge::Judge;
use super::{ItemTrouble, Store, StoreTrouble, answer_json};
use crate::cli::Release;
use crate::command::{Failure, answer, block_on};
use crate::effect::quarantine::{Item, Licence, Locked, Parcel, Published};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::trust;
use crate::fs::{Dir, RelPath, root};
use crate::policy::Rule;
use crate::seal::{Reason, Valid, Verdict};
use crate::state::{Departed, Departure, Journal};
use crate::terminal::{self, progress};

/// Releases what was asked for.
pub(super) fn run(arguments: &Release, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let store = Store::open(&arguments.store.policy)?;
    store.sweep();
    let ids = store.resolve(&arguments.ids)?;
    let judge = Judge::new(&store.policy, store.owner, keyring)?;
    let to = arguments.to.as_deref().map(|to| outside(&store, to)).transpose()?;
    let mut journal = store.journal()?;
    block_on(async {
        let mut exit = Exit::Done;
        for id in ids {
            match release(&store, &judge, &mut journal, &id, arguments.force, to.as_ref()).await {
                Ok(at) if arguments.store.json => {
                    let (to, to_hex) = super::both_ways(&at);
                    answer_json(&serde_json::json!({
                        "id": id, "released": true, "to": to, "to_hex": to_hex, "forced": arguments.force,
                    }))?;
                }
                Ok(at) => {
                    answer(&format!("{id}: {} to {}", terminal::stdout().good("released"), quoted(&at)))?;
                }
                Err(trouble) => exit = exit.and(trouble.tell(&id)),
            }
        }
        Ok(exit)
    })?
}

/// The directory of `--to`, which must not lie in the store: what is put there would be no item.
fn outside(store: &Store, to: &Path) -> Result<Dir, Failure> {
    // On record it must mean the same to who reads it elsewhere. What others could change there is released to them.
    let absolute = std::path::absolute(to).unwrap_or_else(|_| to.to_owned());
    let dir = trust::open_for(&absolute, store.owner).map_err(StoreTrouble::Trust)?;
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if store.policy.quarantine_dir.as_deref().is_some_and(|store| real(to).starts_with(real(store))) {
        return Err(StoreTrouble::Inside(to.to_owned()).into());
    }
    Ok(dir)
}

async fn release(
    store: &Store,
    judge: &Judge<'_>,
    journal: &mut Journal,
    id: &str,
    force: bool,
    to: Option<&Dir>,
) -> Result<PathBuf, ItemTrouble> {
    let locked = store.take(id)?;
    let item = locked.item();
    let (destination, path) = match to {
        Some(dir) => (dir.clone(), RelPath::new(item.path().name()).unwrap_or_else(|| item.path().clone())),
        None => (destination(store, judge.rule(item)?, item)?, item.path().clone()),
    };
    if item.has_overlong_signature() {
        // Nobody reads it; when it was judged nobody did either.
        if !force {
            return Err(ItemTrouble::Invalid(Reason::Malformed));
        }
        let at = destination.path().join(path.as_path());
        let what = "its signature is longer than any, and was not read when it was judged; copy it by hand";
        return Err(ItemTrouble::Refused { at, what });
    }
    let free = destination.free_space()?;
    if free.saturating_sub(item.size()) < store.policy.limits.min_free_space {
        return Err(ItemTrouble::NoSpace { path: destination.path().to_owned(), free });
    }
    let reading = progress::Reading::of(Some(item.record().payload.size));
    let parcel = Parcel::pack(item, &destination, path.parent(), store.owner, &|len| reading.add(len))?;
    drop(reading);
    let valid = match force {
        true => None,
        false => match judge.verify_copy(item, &parcel).await? {
            Verdict::Valid(valid) => Some(valid),
            Verdict::Invalid(reason) => return Err(ItemTrouble::Invalid(reason)),
        },
    };
    let at = destination.path().join(path.as_path());
    let licence = valid.as_ref().map_or(Licence::Forced, Licence::Verified);
    match parcel.publish(&destination, &path, &licence)? {
        Published::Done => {}
        Published::Refused(what) => return Err(ItemTrouble::Refused { at, what }),
    }
    journal.record(&departure(&locked, &parcel, valid.as_ref(), &at))?;
    store.remove(locked)?;
    Ok(at)
}

/// Where a rule's files go: where it delivers, or back to the folder that it watches.
fn destination(store: &Store, rule: &Rule, item: &Item) -> Result<Dir, ItemTrouble> {
    if let Some(delivery) = rule.delivery() {
        return Ok(trust::open_for(&delivery.dir, store.owner)?);
    }
    let was = item.record().root_path().unwrap_or_default();
    if was != rule.path {
        return Err(ItemTrouble::Moved { root: was, rule: rule.name.clone() });
    }
    Ok(root::open_for(&rule.path, store.owner)?)
}

/// The row for history: who, on whose word, and where to.
fn departure(locked: &Locked, parcel: &Parcel, valid: Option<&Valid>, at: &Path) -> Departure {
    let word = if valid.is_some() { "verified" } else { "forced" };
    let why = format!("by uid {}, {word}, to {}", rustix::process::getuid().as_raw(), quoted(at));
    Departure {
        digest: parcel.digest().to_string(),
        signature_digest: parcel.signature_digest(),
        key: valid.map(|valid| valid.key().to_string()),
        ..locked.item().departure(Departed::Released, why)
    }
}
