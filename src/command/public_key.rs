//! `kms-sig key public`: the public half of a key, in the forms that verifiers read.

use std::path::{Path, PathBuf};

use super::{Failure, answer, block_on, input, need_keyring};
use crate::cli::{KeyFormat, PublicArgs};
use crate::clock;
use crate::escape::quoted;
use crate::exit::Exit;
use crate::key::KeyId;
use crate::kms::AwsSettings;
use crate::kms::local::Keyring;
use crate::kms::provider::Providers;
use crate::signature::ssh::FILE_NAMESPACE;
use crate::signing::{PublicSigner, UnfitKey, written_at};
use crate::terminal::progress;
use crate::trust::openpgp::{Certificate, PrimaryKey, SelfSignature};
use crate::trust::{minisign_key, ssh_key};

/// Prints it.
///
/// # Errors
/// [`Failure`].
pub(super) fn run(arguments: &PublicArgs, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let key: KeyId = arguments.key.parse()?;
    need_keyring(std::slice::from_ref(&key), keyring.is_some())?;
    check_options(arguments)?;
    let made = match (&keyring, key.local_name()) {
        (Some(path), Some(_)) => made_at(path, &key),
        _ => None,
    };
    let kms = Providers::new(AwsSettings::default(), keyring);
    let asking = progress::asking_kms();
    let text = block_on(async {
        let failed = |source| Failure::PublicKey { key: key.clone(), source };
        let signer = PublicSigner::fetch(&kms, &key).await.map_err(failed)?;
        let public = signer.public_key();
        Ok::<_, Failure>(match arguments.format {
            KeyFormat::Pem => public.to_pem(),
            KeyFormat::Ssh => ssh_key::to_line(public, key.as_str()),
            KeyFormat::AllowedSigners => {
                let principal = arguments.principal.as_deref().ok_or(Failure::NoPrincipal)?;
                format!("{principal} namespaces=\"{FILE_NAMESPACE}\" {}", ssh_key::to_line(public, ""))
            }
            KeyFormat::Minisign => {
                let (format, takes, kind) = ("minisign", "Ed25519 keys", public.kind());
                let unfit = UnfitKey::Kind { format, takes, kind };
                minisign_key::to_file(public)
                    .ok_or_else(|| Failure::Unfit { key: key.to_string(), source: unfit })?
            }
            KeyFormat::Openpgp => certificate(arguments, &key, &signer, made).await?,
        })
    })??;
    drop(asking);
    answer(text.trim_end_matches('\n'))?;
    Ok(Exit::Done)
}

/// A certificate that was asked for, or one that is extended.
async fn certificate(
    arguments: &PublicArgs,
    key: &KeyId,
    signer: &PublicSigner<'_, Providers>,
    made: Option<u64>,
) -> Result<String, Failure> {
    let now = clock::since_epoch().as_secs();
    let expires = arguments.expires.map(seconds).transpose()?;
    if expires.is_some_and(|end| u64::from(end) <= now) {
        return Err(Failure::ExpiresTooEarly);
    }
    let failed = |source| {
        let (file, provider) = ("the certificate".to_owned(), key.provider());
        Failure::Sign { file, provider, source }
    };
    if let Some(path) = &arguments.renew {
        let bytes = input::key_file(path)?;
        let certificate = Certificate::parse(&bytes)
            .map_err(|source| Failure::Certificate { file: quoted(path), source })?;
        let unfit = |source| Failure::Unfit { key: key.to_string(), source };
        if certificate.key().public() != signer.public_key() {
            return Err(unfit(UnfitKey::AnotherKey));
        }
        if !certificate.is_of_one_key() {
            return Err(unfit(UnfitKey::Certificate));
        }
        // Newer than what it is to replace, or nobody would look at it.
        let created = written_at(now).max(certificate.bound_since().saturating_add(1));
        let draft = certificate.renewal(created, expires).ok_or(Failure::ExpiresTooEarly)?;
        return signer.certify(certificate.key(), draft).await.map_err(failed);
    }
    let user_id = arguments.user_id.as_deref().ok_or(Failure::NoUserId)?;
    let created = arguments.created.or(made).ok_or_else(|| Failure::NoCreated(arguments.key.clone()))?;
    if created > now {
        return Err(Failure::CreatedInFuture);
    }
    let primary = PrimaryKey::new(signer.public_key().clone(), seconds(created)?);
    signer.certify(&primary, SelfSignature::of_new(&primary, user_id, expires)).await.map_err(failed)
}

/// OpenPGP counts in 32 bits, until 2106.
fn seconds(time: u64) -> Result<u32, Failure> {
    u32::try_from(time).map_err(|_| Failure::ExpiresTooLate)
}

/// When a local key was made, in seconds since 1970. What else is wrong with the keyring is told
/// when the key is asked for.
fn made_at(keyring: &Path, key: &KeyId) -> Option<u64> {
    let listed = Keyring::open(keyring).ok()?.list().find(|listed| listed.key.as_str() == key.as_str())?;
    listed.created.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Options that say something of another form would be taken for having had an effect.
fn check_options(arguments: &PublicArgs) -> Result<(), Failure> {
    let options = [
        ("--principal", arguments.principal.is_some(), KeyFormat::AllowedSigners),
        ("--user-id", arguments.user_id.is_some(), KeyFormat::Openpgp),
        ("--created", arguments.created.is_some(), KeyFormat::Openpgp),
        ("--expires", arguments.expires.is_some(), KeyFormat::Openpgp),
        ("--renew", arguments.renew.is_some(), KeyFormat::Openpgp),
    ];
    match options.into_iter().find(|(_, given, format)| *given && *format != arguments.format) {
        Some((option, _, format)) => Err(Failure::Unused { option, format: format.as_str() }),
        None => Ok(()),
    }
}
