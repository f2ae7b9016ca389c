//! Judging signatures with public keys: nobody is asked, and the verdict is the same tomorrow, but
//! for what a key file says of times.
//!
//! A signature counts for nothing but what a trusted key vouches for: the key in an SSH signature,
//! the comment and the key id of minisign, the hint of a bundle are claims until one of the trusted
//! keys verifies them.

use std::ffi::OsStr;
use std::fmt;

use super::public_signer::NAME_NOTATION;
use crate::context::percent_encoded;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::escape::Escaped;
use crate::kms::{Trouble, TroubleKind};
use crate::signature::minisign::MinisignSignature;
use crate::signature::ssh::SshSignature;
use crate::signature::{PublicFormat, PublicSignature, der, sigstore};
use crate::trust::allowed_signers::NotAllowed;
use crate::trust::key_file::KeyFile;
use crate::trust::openpgp::{Certificate, Detached};
use crate::trust::{PublicKey, ssh_key};

/// Who is trusted, and for what.
#[derive(Debug)]
pub struct PublicVerifier<'a> {
    files: &'a [KeyFile],
    /// The namespace of SSH signatures.
    namespace: &'a str,
    /// Who must have made them; anybody that the allowed signers name, if nobody is named.
    principal: Option<&'a str>,
}

/// What a signature is said to be of.
#[derive(Debug, Clone, Copy)]
pub struct Claimed<'a> {
    /// The file's name, where it has one that the signature must name if it names any.
    pub name: Option<&'a OsStr>,
    /// Now, in seconds since 1970.
    pub now: u64,
}

/// That a trusted key vouches for a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched(String);

/// Who vouches, for people.
impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why nobody does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotVouched {
    /// No trusted key has signatures of this format.
    #[error("it is a signature of the format {0}, and none of the key files is for those")]
    Format(&'static str),
    /// None of the trusted keys made it.
    #[error("none of the trusted keys made it of these bytes")]
    WrongKey,
    /// The key is trusted, and the signature is not of these bytes.
    #[error("it is not a signature of these bytes by the trusted key that it names")]
    Mismatch,
    /// An SSH signature for another use.
    #[error("its namespace is \"{}\", and not the one that is asked for", Escaped::text(.0))]
    Namespace(String),
    /// An SSH key that the file allows for others, or other uses.
    #[error("no list of allowed signers allows its key for this principal")]
    Principal,
    /// The same for this namespace.
    #[error("the allowed signers do not allow its key for this namespace")]
    KeyNamespace,
    /// Too early.
    #[error("its key is not valid yet")]
    NotYet,
    /// Too late.
    #[error("its key has expired")]
    Expired,
    /// Made in the future.
    #[error("it says that it was made in the future; check this host's clock")]
    Future,
    /// minisign's old form.
    #[error(
        "it is of minisign's old form, which is over the file and not over its hash; sign it again (minisign -S -H)"
    )]
    Legacy,
    /// Of another file.
    #[error("it is of a file named \"{}\"", Escaped::text(.0))]
    OtherName(String),
}

impl<'a> PublicVerifier<'a> {
    /// Who trusts the keys of these files; SSH signatures for this namespace, and by this principal
    /// if one is named.
    pub const fn new(files: &'a [KeyFile], namespace: &'a str, principal: Option<&'a str>) -> Self {
        Self { files, namespace, principal }
    }

    /// The formats that some of the keys have signatures of.
    pub fn formats(&self) -> Vec<PublicFormat> {
        let has = |format: &PublicFormat| {
            self.files.iter().any(|file| match file {
                KeyFile::Pem(_) => matches!(format, PublicFormat::Der | PublicFormat::Sigstore),
                KeyFile::Minisign(..) => *format == PublicFormat::Minisign,
                KeyFile::Ssh(_) | KeyFile::AllowedSigners(_) => *format == PublicFormat::Ssh,
                KeyFile::OpenPgp(_) => *format == PublicFormat::OpenPgp,
            })
        };
        PublicFormat::ALL.into_iter().filter(has).collect()
    }

    /// What must be known of a payload to judge this signature.
    pub fn digests(&self, signature: &PublicSignature) -> DigestRequest {
        match signature {
            PublicSignature::Ssh(signature) => DigestRequest::digest(signature.hash()),
            PublicSignature::Minisign(_) => DigestRequest::digest(HashAlgorithm::Blake2b512),
            PublicSignature::OpenPgp(signature) => DigestRequest::state(signature.hash()),
            PublicSignature::Sigstore(_) => DigestRequest::digest(HashAlgorithm::Sha256),
            PublicSignature::Der(_) => self
                .pem_keys()
                .filter_map(|key| der::algorithm(key.kind()))
                .fold(DigestRequest::NONE, |all, (_, hash)| all.and(DigestRequest::digest(hash))),
        }
    }

    /// Whether a trusted key vouches for a payload.
    ///
    /// # Errors
    /// `BUG:`, if the digests lack one that was asked for; no verdict is possible then.
    pub fn judge(
        &self,
        signature: &PublicSignature,
        digests: &DigestSet,
        claimed: Claimed<'_>,
    ) -> Result<Result<Vouched, NotVouched>, Trouble> {
        let format = signature.format();
        if !self.formats().contains(&format) {
            return Ok(Err(NotVouched::Format(format.as_str())));
        }
        let judged = match signature {
            PublicSignature::Ssh(signature) => self.ssh(signature, digests, claimed.now),
            PublicSignature::Minisign(signature) => self.minisign(signature, digests, claimed.name),
            PublicSignature::OpenPgp(signature) => self.openpgp(signature, digests, claimed),
            PublicSignature::Sigstore(bundle) => self.one_of(|key| {
                if bundle.hint() != sigstore::hint_of(key) { Some(false) } else { bundle.is_of(key, digests) }
            }),
            PublicSignature::Der(bytes) => self.one_of(|key| der::is_of(key, digests, bytes)),
        };
        judged.ok_or_else(|| {
            Trouble::new(TroubleKind::Internal, "BUG: the payload was read without a digest that is needed")
        })
    }

    fn ssh(
        &self,
        signature: &SshSignature,
        digests: &DigestSet,
        now: u64,
    ) -> Option<Result<Vouched, NotVouched>> {
        if signature.namespace() != self.namespace {
            return Some(Err(NotVouched::Namespace(signature.namespace().to_owned())));
        }
        let (mut who, mut why) = (None, NotVouched::WrongKey);
        for file in self.files {
            match file {
                // Plain keys say nobody's name.
                KeyFile::Ssh(keys) if keys.contains(signature.key()) => match self.principal {
                    None => who = Some(String::new()),
                    Some(_) => why = NotVouched::Principal,
                },
                KeyFile::AllowedSigners(signers) => {
                    match signers.who(signature.key(), self.namespace, self.principal, now) {
                        Ok(name) => who = Some(format!("{} with ", Escaped::text(&name))),
                        Err(NotAllowed::Key) => {}
                        Err(NotAllowed::Namespace) => why = NotVouched::KeyNamespace,
                        Err(NotAllowed::Principal) => why = NotVouched::Principal,
                        Err(NotAllowed::NotYet) => why = NotVouched::NotYet,
                        Err(NotAllowed::Expired) => why = NotVouched::Expired,
                    }
                }
                KeyFile::Ssh(_) | KeyFile::Pem(_) | KeyFile::Minisign(..) | KeyFile::OpenPgp(_) => {}
            }
        }
        let Some(who) = who else { return Some(Err(why)) };
        let key = signature.key();
        Some(match signature.is_of(digests)? {
            true => Ok(Vouched(format!("{who}{} key {}", key.kind(), ssh_key::fingerprint(key)))),
            false => Err(NotVouched::Mismatch),
        })
    }

    fn minisign(
        &self,
        signature: &MinisignSignature,
        digests: &DigestSet,
        name: Option<&OsStr>,
    ) -> Option<Result<Vouched, NotVouched>> {
        let trusted = self.files.iter().filter_map(|file| match file {
            KeyFile::Minisign(number, key) if *number == signature.number() => Some(key),
            KeyFile::Minisign(..)
            | KeyFile::Pem(_)
            | KeyFile::Ssh(_)
            | KeyFile::AllowedSigners(_)
            | KeyFile::OpenPgp(_) => None,
        });
        let mut why = NotVouched::WrongKey;
        for key in trusted {
            if signature.is_legacy() {
                return Some(Err(NotVouched::Legacy));
            }
            why = match (signature.is_of(key, digests)?, signature.file(), name) {
                (false, ..) => NotVouched::Mismatch,
                (true, Some(said), Some(name))
                    if said.as_bytes() != name.as_encoded_bytes() && said != percent_encoded(name) =>
                {
                    NotVouched::OtherName(said.to_owned())
                }
                (true, ..) => {
                    let comment = Escaped::text(signature.trusted_comment());
                    let number = signature.number();
                    return Some(Ok(Vouched(format!("minisign key {number} (trusted comment: {comment})"))));
                }
            };
        }
        Some(Err(why))
    }

    fn openpgp(
        &self,
        signature: &Detached,
        digests: &DigestSet,
        claimed: Claimed<'_>,
    ) -> Option<Result<Vouched, NotVouched>> {
        let is_its = |certificate: &&Certificate| certificate.key().fingerprint() == *signature.issuer();
        let mut certificates = self.files.iter().filter_map(|file| match file {
            KeyFile::OpenPgp(certificate) => Some(certificate.as_ref()),
            KeyFile::Minisign(..) | KeyFile::Pem(_) | KeyFile::Ssh(_) | KeyFile::AllowedSigners(_) => None,
        });
        let Some(certificate) = certificates.find(is_its) else { return Some(Err(NotVouched::WrongKey)) };
        let state = digests.state(signature.hash())?;
        let (made, key) = (u64::from(signature.created()), certificate.key());
        Some(if !signature.is_by(key, state.clone()) {
            Err(NotVouched::Mismatch)
        } else if made > claimed.now {
            Err(NotVouched::Future)
        } else if !certificate.is_bound_at(signature.created()) {
            Err(NotVouched::NotYet)
        } else if certificate.ends_at(signature.created()).is_some_and(|end| u64::from(end) <= made) {
            Err(NotVouched::Expired)
        } else {
            match (signature.notation(NAME_NOTATION), claimed.name) {
                (Some(said), Some(name)) if said != percent_encoded(name) => Err(NotVouched::OtherName(said)),
                _ => {
                    let owner = certificate.user_id();
                    let fingerprint = hex::encode_upper(key.fingerprint());
                    Ok(Vouched(format!("{} with OpenPGP key {fingerprint}", Escaped::text(&owner))))
                }
            }
        })
    }

    /// Any of the plain keys.
    fn one_of(&self, is_by: impl Fn(&PublicKey) -> Option<bool>) -> Option<Result<Vouched, NotVouched>> {
        for key in self.pem_keys() {
            if is_by(key)? {
                let fingerprint = hex::encode(key.fingerprint());
                return Some(Ok(Vouched(format!("{} key {fingerprint}", key.kind()))));
            }
        }
        Some(Err(NotVouched::WrongKey))
    }

    fn pem_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.files.iter().filter_map(|file| match file {
            KeyFile::Pem(key) => Some(key),
            KeyFile::Minisign(..) | KeyFile::Ssh(_) | KeyFile::AllowedSigners(_) | KeyFile::OpenPgp(_) => {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests;
