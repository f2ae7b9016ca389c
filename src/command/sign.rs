//! `kms-sig sign`: hash, ask KMS, and only then write the signature. Several signatures of one file
//! are made from one read of it, and none is written before all are made.
//!
//! Whatever fails, nothing is left behind and a signature that was there stays as it was.

mod destination;
mod maker;
mod wanted;

use std::path::PathBuf;

use super::input::Payload;
use super::{Failure, block_on, need_keyring};
use crate::cli::Sign;
use crate::clock;
use crate::context::Context;
use crate::digest::set::DigestRequest;
use crate::exit::Exit;
use crate::key::KeyId;
use crate::kms::AwsSettings;
use crate::kms::provider::Providers;
use crate::terminal::progress;
use destination::Destination;
use maker::{Maker, Options};
use wanted::Operands;

/// Signs one file.
///
/// # Errors
/// [`Failure`]; then nothing was written.
pub(crate) fn run(arguments: &Sign, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let Operands { file, sig, wanted } = wanted::of(arguments)?;
    let context = Context::parse(&arguments.context.pairs)?;
    let keys: Vec<KeyId> = wanted.iter().map(|wanted| wanted.key.clone()).collect();
    need_keyring(&keys, keyring.is_some())?;
    let mut payload = Payload::open(&file)?;
    let options = Options::read(arguments, &wanted, &file, clock::since_epoch().as_secs())?;
    let kms = Providers::new(AwsSettings::default(), keyring);

    block_on(async {
        let mut makers = Vec::new();
        for wanted in &wanted {
            makers.push(Maker::prepare(&kms, wanted, &options, payload.shown()).await?);
        }
        let mut places = Vec::new();
        for maker in &makers {
            let place = Destination::new(&file, sig.as_ref(), maker, arguments.force);
            let target = place.find(&payload)?;
            places.push((place, target));
        }
        let request = makers.iter().map(Maker::digests).fold(DigestRequest::NONE, DigestRequest::and);
        let digests = payload.hash_unchanged(request)?;
        let asking = progress::asking_kms();
        let mut signatures = Vec::new();
        for maker in &makers {
            signatures.push(maker.sign(&context, &digests, payload.shown()).await?);
        }
        drop(asking);
        payload.check_unchanged()?; // KMS may take its time (S4)
        for ((place, target), signature) in places.into_iter().zip(&signatures) {
            place.publish(&payload, target, signature)?;
        }
        Ok(Exit::Done)
    })?
}
