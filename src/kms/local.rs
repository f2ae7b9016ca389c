//! The provider of `local:` keys: secrets of this host's keyring, to encrypt with (AES-256-GCM) or
//! to sign with.
//!
//! For trying things out, for tests, and for hosts without AWS. Used only when a caller names a
//! `local:` key, never because of what a signature looks like. A ciphertext is
//!
//! ```text
//! "KSL1" · length of the key's name (1 byte) · name · nonce (12 bytes) · ciphertext and tag (16 bytes)
//! ```
//!
//! and is bound to everything before the nonce and to the canonical form of the context. Nonces are
//! random: one key is good for 2^32 signatures (NIST SP 800-38D, section 8.3).

mod key_type;
mod keyring;
mod keyring_file;
mod material;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

pub use key_type::{KeyType, NoKeyType};
pub use keyring::{Keyring, KeyringError, Listed};

use crate::chain;
use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::kms::dry_run::{DryRun, DryRunCall, DryRunResult};
use crate::kms::{
    Asked, Decrypted, Encrypted, Kms, KmsError, PublicKeyReply, SignReply, Trouble, TroubleKind,
    check_message,
};
use crate::trust::{Message, SigningAlgorithm};
use material::{Material, Pair, SECRET_LEN, Secret};

const MAGIC: &[u8] = b"KSL1";

/// The most that Encrypt takes, in bytes (AWS KMS API reference, Encrypt, `Plaintext`).
const MAX_PLAINTEXT: usize = 4096;

/// A keyring file, opened when it is first needed and again whenever it changes: a key that an
/// operator adds is found, one that is taken away is gone. A keyring that cannot be used is
/// trouble, not a verdict (P2).
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    /// Whose keyrings are good, besides root's.
    caller: u32,
    opened: Mutex<Option<Arc<Keyring>>>,
}

impl Local {
    /// The provider of the keys in this keyring. Touches nothing yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, caller: rustix::process::geteuid().as_raw(), opened: Mutex::new(None) }
    }

    /// The same, for who acts on behalf of this user.
    pub(super) fn serving(self, uid: u32) -> Self {
        Self { caller: uid, ..self }
    }

    fn keyring(&self) -> Result<Arc<Keyring>, Trouble> {
        // A poisoned lock holds a whole keyring all the same: it is only ever replaced.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyring) = opened.as_ref()
            && keyring.is_still(&self.path)
        {
            return Ok(Arc::clone(keyring));
        }
        *opened = None;
        let keyring = Keyring::open_for(&self.path, self.caller).map_err(|error| {
            let trouble = Trouble::new(TroubleKind::Credentials, chain::one_line(&error));
            match (&error, error.hint()) {
                (KeyringError::Version { .. }, Some(hint)) => trouble.with_hint(hint),
                _ if error.says_what_to_do() => trouble.that_says_what_to_do(),
                _ => trouble,
            }
        })?;
        Ok(Arc::clone(opened.insert(Arc::new(keyring))))
    }
}

impl Kms for Local {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let keyring = self.keyring()?;
        let (name, secret) = secret(&keyring, key)?;
        if !(1..=MAX_PLAINTEXT).contains(&plaintext.len()) {
            return Err(request("a plaintext has 1 to 4096 bytes"));
        }
        let ciphertext = encrypt(name, secret, plaintext, context)
            .map_err(|Unspecified| Trouble::new(TroubleKind::Internal, "encrypting failed"))?;
        Ok(Encrypted { ciphertext, key: answer(key)? })
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let Asked::Key(key) = asked else {
            return Err(request("a local key is used only when it is named"));
        };
        // The key first: a slip in its name must not read as a verdict about the signature.
        let keyring = self.keyring()?;
        let (name, secret) = secret(&keyring, key)?;
        let parts = Parts::of(ciphertext).ok_or(KmsError::Rejected)?;
        if parts.name != name {
            return Err(KmsError::IncorrectKey);
        }
        let plaintext = parts.decrypt(secret, context).map_err(|Unspecified| KmsError::Rejected)?;
        Ok(Decrypted { plaintext, key: answer(key)? })
    }

    async fn sign(
        &self,
        key: &KeyId,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> Result<SignReply, KmsError> {
        check_message(message, algorithm)?;
        let keyring = self.keyring()?;
        let pair = pair(&keyring, key, Some(algorithm))?;
        let signature = pair
            .sign(message, algorithm)
            .map_err(|Unspecified| Trouble::new(TroubleKind::Internal, "signing failed"))?;
        Ok(SignReply { signature, key: answer(key)? })
    }

    async fn get_public_key(&self, key: &KeyId) -> Result<PublicKeyReply, KmsError> {
        let keyring = self.keyring()?;
        let public_key = pair(&keyring, key, None)?.public().clone();
        Ok(PublicKeyReply { public_key, key: answer(key)? })
    }
}

impl DryRun for Local {
    /// Whether the keyring opens and has the key, of the type that it takes; whoever can read it
    /// may do everything with it.
    async fn dry_run(&self, call: &DryRunCall, key: &KeyId) -> Result<DryRunResult, Trouble> {
        let keyring = self.keyring()?;
        let answer = match call {
            DryRunCall::Encrypt(_) | DryRunCall::Decrypt(_) => secret(&keyring, key).map(drop),
            DryRunCall::Sign(algorithm) => pair(&keyring, key, Some(*algorithm)).map(drop),
            DryRunCall::GetPublicKey => pair(&keyring, key, None).map(drop),
        };
        match answer {
            Ok(()) => Ok(DryRunResult::Allowed),
            Err(KmsError::Trouble(trouble)) => Err(trouble),
            Err(KmsError::Rejected | KmsError::IncorrectKey) => Ok(DryRunResult::Answered),
        }
    }
}

/// Which local key a ciphertext says it was made with. Anyone can write that: good for a hint to a
/// person, never for choosing a key.
pub fn claimed_key(ciphertext: &[u8]) -> Option<KeyArn> {
    let name = Parts::of(ciphertext)?.name;
    format!("local:{name}").parse().ok()
}

fn find<'a>(keyring: &'a Keyring, key: &'a KeyId) -> Result<(&'a str, &'a Material), KmsError> {
    let name = key.local_name().ok_or_else(|| request("the key is not a local one"))?;
    let material = keyring
        .material(name)
        .ok_or_else(|| Trouble::new(TroubleKind::NotFound, format!("the keyring has no key {key}")))?;
    Ok((name, material))
}

/// The key's name and secret, to encrypt or decrypt with.
fn secret<'a>(keyring: &'a Keyring, key: &'a KeyId) -> Result<(&'a str, &'a Secret), KmsError> {
    match find(keyring, key)? {
        (name, Material::Aes(secret)) => Ok((name, secret)),
        (_, other @ Material::Pair(_)) => Err(unfit(format!(
            "the key {key} is of the type {}, which encrypts nothing; make one that does: \
             kms-sig key create local:NAME --type aes",
            other.key_type()
        ))),
    }
}

/// The key's two halves; to sign with this algorithm, if one is named.
fn pair<'a>(
    keyring: &'a Keyring,
    key: &'a KeyId,
    algorithm: Option<SigningAlgorithm>,
) -> Result<&'a Pair, KmsError> {
    let (_, material) = find(keyring, key)?;
    let of_type = material.key_type();
    let Material::Pair(pair) = material else {
        return Err(unfit(format!(
            "the key {key} is of the type {of_type}, which has no public half; make one that has: \
             kms-sig key create local:NAME --type ed25519"
        )));
    };
    let fits = |algorithm: &SigningAlgorithm| algorithm.fits(pair.public().kind());
    match algorithm.filter(|algorithm| !fits(algorithm)) {
        None => Ok(pair),
        Some(other) => {
            let own = SigningAlgorithm::ALL.into_iter().filter(fits);
            let own = own.map(SigningAlgorithm::as_str).collect::<Vec<_>>().join(" or ");
            Err(unfit(format!(
                "the key {key} is of the type {of_type}, which signs with {own}, not with {other}; name another key"
            )))
        }
    }
}

fn unfit(message: String) -> KmsError {
    Trouble::new(TroubleKind::KeyUsage, message).that_says_what_to_do().into()
}

fn answer(key: &KeyId) -> Result<KeyArn, KmsError> {
    KeyArn::from_reply(key.as_str())
        .map_err(|error| Trouble::new(TroubleKind::Request, error.to_string()).that_says_what_to_do().into())
}

fn request(message: impl Into<String>) -> KmsError {
    Trouble::new(TroubleKind::Request, message).into()
}

fn encrypt(name: &str, secret: &Secret, plaintext: &[u8], context: &Context) -> Result<Vec<u8>, Unspecified> {
    let mut nonce = [0; NONCE_LEN];
    // The kernel's random numbers. Those of the library take it longer to begin with than a small
    // file to be signed.
    let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(NONCE_LEN) {
        return Err(Unspecified);
    }
    let mut ciphertext = header(name).ok_or(Unspecified)?;
    let aad = Aad::from([ciphertext.as_slice(), &context.canonical()].concat());
    let mut sealed = plaintext.to_vec();
    cipher(secret)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)?;
    ciphertext.extend_from_slice(&nonce);
    ciphertext.extend_from_slice(&sealed);
    Ok(ciphertext)
}

fn header(name: &str) -> Option<Vec<u8>> {
    let len = u8::try_from(name.len()).ok()?;
    Some([MAGIC, &[len], name.as_bytes()].concat())
}

fn cipher(secret: &[u8; SECRET_LEN]) -> Result<LessSafeKey, Unspecified> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret)?))
}

/// A ciphertext taken apart; nothing in it is authenticated yet.
struct Parts<'a> {
    header: &'a [u8],
    name: &'a str,
    nonce: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(ciphertext: &'a [u8]) -> Option<Self> {
        let (&len, rest) = ciphertext.strip_prefix(MAGIC)?.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(len))?;
        let name = std::str::from_utf8(name).ok()?;
        // Only a name that a key can have; also keeps terminal escapes out of what `show` prints.
        format!("local:{name}").parse::<KeyId>().ok()?;
        let header = ciphertext.get(..MAGIC.len() + 1 + name.len())?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        (sealed.len() > AES_256_GCM.tag_len()).then_some(Self { header, name, nonce: *nonce, sealed })
    }

    fn decrypt(&self, secret: &Secret, context: &Context) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let aad = Aad::from([self.header, &context.canonical()].concat());
        let mut plaintext = Zeroizing::new(self.sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let len = cipher(secret)?.open_in_place(nonce, aad, &mut plaintext)?.len();
        plaintext.truncate(len);
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests;
