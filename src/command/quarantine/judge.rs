//! Verifying what is in quarantine again, under the policy as it is now.
//!
//! The rule that had judged an item judges it again: its keys, its context. Nothing is moved. An
//! outage is no verdict here either (P2).

use std::path::PathBuf;

use super::{ItemTrouble, StoreTrouble};
use crate::context::Filling;
use crate::daemon::hostname;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::fs::chown::Owner;
use crate::fs::{FsError, Identity, stat_path, trust};
use crate::kms::provider::Providers;
use crate::policy::{Mode, Policy, Rollback, Rule};
use crate::signature::{Malformed, Signature};
use crate::signing::{OpenedSignature, Reason, Verdict, Verifier};
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::{Item, Parcel, ReadError};
use crate::terminal::progress;

/// Judges by a policy.
pub(super) struct Judge<'p> {
    policy: &'p Policy,
    kms: Providers,
    hostname: String,
}

impl<'p> Judge<'p> {
    /// A judge by this policy, if nobody but root and the daemon's user could have changed the
    /// policy and its keyring.
    pub(super) fn new(
        policy: &'p Policy,
        owner: Owner,
        keyring: Option<PathBuf>,
    ) -> Result<Self, StoreTrouble> {
        trust::check_where_it_leads(&policy.file, owner)?;
        if let Some(keyring) = policy.keyring.as_deref().filter(|keyring| keyring.exists()) {
            trust::check_for(keyring, owner)?;
        }
        let kms = Providers::new(policy.aws.clone(), policy.keyring.clone().or(keyring));
        let kms = kms.serving(owner.uid);
        Ok(Self { policy, kms, hostname: hostname() })
    }

    /// The rule that quarantined an item, if the policy still has it.
    pub(super) fn rule(&self, item: &Item) -> Result<&'p Rule, ItemTrouble> {
        let name = &item.record().rule;
        let rule = self.policy.rules.iter().find(|rule| rule.name == *name);
        rule.map(|rule| &**rule).ok_or_else(|| ItemTrouble::NoRule(name.clone()))
    }

    /// What an item's payload must be read for, to be judged.
    pub(super) fn digests(&self, item: &Item) -> Result<DigestRequest, ItemTrouble> {
        self.rule(item).map(|rule| rule.formats(&rule.context.leaf_keys()).digests())
    }

    /// Judges an item where it lies.
    pub(super) async fn verify(&self, item: &Item) -> Result<Verdict, ItemTrouble> {
        let rule = self.rule(item)?; // first: without it, nothing need be read
        let before = versions(item)?;
        let reading = progress::Reading::of(Some(item.record().payload.size));
        let hashed = item.hash_payload(self.digests(item)?, &|len| reading.add(len))?;
        drop(reading);
        let signature = item.read_signature().map_err(ReadError::from)?;
        let verdict = self.judge(rule, item, &hashed.digests, signature.map(|read| read.parsed)).await?;
        // Its sender may still have it open: then the bytes that were hashed may never have been
        // its content.
        if versions(item)? == before { Ok(verdict) } else { Err(ItemTrouble::ReadWhileChanged) }
    }

    /// Judges the copy of an item that is about to be released.
    pub(super) async fn verify_copy(&self, item: &Item, parcel: &Parcel) -> Result<Verdict, ItemTrouble> {
        let rule = self.rule(item)?;
        self.judge(rule, item, parcel.digests(), parcel.signature()?).await
    }

    async fn judge(
        &self,
        rule: &Rule,
        item: &Item,
        digests: &DigestSet,
        signature: Option<Result<Signature, Malformed>>,
    ) -> Result<Verdict, ItemTrouble> {
        let relpath = item.path().as_path();
        let filling = Filling { relpath, watch: &rule.name, hostname: &self.hostname };
        let context = rule.context.expand(filling)?;
        let keys = rule.mode.keys();
        let leaf_keys = rule.context.leaf_keys();
        let opened = match signature {
            None => return Ok(Verdict::Invalid(Reason::Missing)),
            Some(Err(_)) => OpenedSignature::malformed(),
            Some(Ok(signature)) => {
                let asking = progress::asking_kms();
                let verifier = Verifier::new(&self.kms, &keys, rule.formats(&leaf_keys));
                let opened = verifier.open(&context, &signature).await;
                drop(asking);
                opened.map_err(ItemTrouble::Kms)?
            }
        };
        opened.judge(digests).map_err(ItemTrouble::Kms)
    }
}

/// Which versions of its files an item has.
fn versions(item: &Item) -> Result<[Option<Identity>; 2], FsError> {
    let version = |name| Ok(stat_path(&item.folder().join(name))?.map(|stat| stat.identity));
    Ok([version(quarantine::PAYLOAD)?, version(quarantine::SIGNATURE)?])
}

/// What a rule does about superseded content.
pub(super) const fn rollback(rule: &Rule) -> Rollback {
    match &rule.mode {
        Mode::Verify(verify) => verify.rollback,
        Mode::Sign(_) => Rollback::Off,
    }
}
