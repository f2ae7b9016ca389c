//! `kms-sig quarantine`: the store, for people.
//!
//! Works on the store itself, beside a daemon that runs: each item is locked while something is
//! done to it, and what leaves is put on record first. Believes no more of an item than
//! `quarantine::Item` does, and shows no name as it is (P9).

mod item_trouble;
mod judge;
mod purge;
mod recheck;
mod release;
mod show;
mod store;
mod store_trouble;

use std::path::PathBuf;

use super::Failure;
use crate::cli::Quarantine;
use crate::exit::Exit;
use item_trouble::ItemTrouble;
use store::Store;
pub(crate) use store_trouble::StoreTrouble;

/// Does what was asked for.
///
/// # Errors
/// [`Failure`]; single items that fail are reported and are no failure.
pub(crate) fn run(arguments: &Quarantine, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    match arguments {
        Quarantine::List { store, choice } => show::list(&Store::open(&store.policy)?, choice, store.json),
        Quarantine::Show { id, store } => show::show(&Store::open(&store.policy)?, id, store.json),
        Quarantine::Recheck(recheck) => recheck::run(recheck, keyring),
        Quarantine::Release(release) => release::run(release, keyring),
        Quarantine::Purge(purge) => purge::run(purge),
    }
}
