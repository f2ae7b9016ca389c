//! Signatures of `ssh-keygen -Y sign` (OpenSSH, PROTOCOL.sshsig): armored, of version 1.
//!
//! They hold the public key, what they are for (the namespace) and which hash they are over. None
//! of that is believed before it is compared with what a verifier was told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::suffix::Suffix;
use crate::digest::algorithm::{HashAlgorithm, HashValue};
use crate::digest::set::DigestSet;
use crate::trust::PublicKey;
use crate::trust::ecdsa;
use crate::trust::lines::base64_lines;
use crate::trust::ssh_key::{self, SshKeyError};
use crate::trust::ssh_wire::{Reader, mpint, string};
use crate::trust::{KeyKind, Message, SigningAlgorithm};

/// What its signatures are named by.
pub(super) const SUFFIX: Suffix = Suffix::new(".sig");

/// What the text begins with.
pub(super) const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// Characters of a line of text, as `ssh-keygen` writes them.
const COLUMNS: usize = 70;

/// What the blob begins with, and what is signed.
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;

/// The longest namespace that is taken, in bytes.
const MAX_NAMESPACE: usize = 255;

/// The namespace of signatures of files.
pub const FILE_NAMESPACE: &str = "file";

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    key: PublicKey,
    namespace: String,
    hash: HashAlgorithm,
    algorithm: SigningAlgorithm,
    /// As KMS answers with it: of ECDSA in DER.
    signature: Vec<u8>,
}

/// Why bytes are no such signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SshMalformed {
    /// The text around it.
    #[error("it is no SSH signature between {BEGIN} and {END}")]
    Armor,
    /// Two of them: `ssh-keygen` looks at the first only.
    #[error("it holds more than one SSH signature")]
    Several,
    /// The blob ends too soon, or begins with something else.
    #[error("the SSH signature is damaged")]
    Blob,
    /// Another version of the format.
    #[error("the SSH signature is of version {0}, and only version 1 is known")]
    Version(u32),
    /// What a later version may put there. It is not covered by what is signed.
    #[error("the SSH signature holds something in its reserved field, which must be empty")]
    Reserved,
    /// What is after the last field. It is not covered by what is signed either.
    #[error("the SSH signature has more bytes than its fields")]
    Trailing,
    /// The public key in it.
    #[error("the key in the SSH signature is not usable: {0}")]
    Key(#[from] SshKeyError),
    /// The hash.
    #[error("the SSH signature is over another hash than sha256 and sha512")]
    Hash,
    /// RSA with SHA-1, whatever hash the message was reduced with before. OpenSSH refuses it too.
    #[error("the SSH signature is made with SHA-1 (ssh-rsa); sign with rsa-sha2-512")]
    Sha1,
    /// How it was signed.
    #[error("the SSH signature is of an algorithm that its key does not have")]
    Algorithm,
    /// The two numbers of ECDSA.
    #[error("the SSH signature is no pair of positive numbers in their shortest form")]
    Numbers,
    /// What it is for.
    #[error("the SSH signature has no usable namespace")]
    Namespace,
}

/// Whether a text can be a namespace: a word that an operator can read.
///
/// # Errors
/// `Namespace`.
pub fn check_namespace(namespace: &str) -> Result<(), SshMalformed> {
    let is_good = (1..=MAX_NAMESPACE).contains(&namespace.len()) && !namespace.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(SshMalformed::Namespace) }
}

/// What is signed for a file: 96 bytes with SHA-512 and the namespace `file`.
pub fn signed_message(namespace: &str, digest: &HashValue) -> Vec<u8> {
    let hash = hash_name(digest.algorithm()).unwrap_or_default();
    let fields =
        [string(namespace.as_bytes()), string(b""), string(hash.as_bytes()), string(digest.as_bytes())];
    [MAGIC, &fields.concat()].concat()
}

impl SshSignature {
    /// One over SHA-512 that a key made of [`signed_message`], as KMS answered with it.
    pub fn new(key: PublicKey, namespace: &str, algorithm: SigningAlgorithm, signature: Vec<u8>) -> Self {
        Self { key, namespace: namespace.to_owned(), hash: HashAlgorithm::Sha512, algorithm, signature }
    }

    /// Reads a signature. Lines may be of any length, indented, and end in CR and LF, and anything
    /// may follow the end; nothing may come before the beginning. That is what `ssh-keygen` takes,
    /// but for a second signature, of which it takes no notice.
    ///
    /// # Errors
    /// [`SshMalformed`].
    pub fn parse(text: &[u8]) -> Result<Self, SshMalformed> {
        let text = std::str::from_utf8(text).map_err(|_| SshMalformed::Armor)?;
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        if lines.next() != Some(BEGIN) {
            return Err(SshMalformed::Armor);
        }
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(line) if line.starts_with(END) => break,
                // Blanks of ASCII only: `ssh-keygen` knows no others.
                Some(line) => body.push_str(line.trim_ascii()),
                None => return Err(SshMalformed::Armor),
            }
        }
        if lines.any(|line| line.starts_with(BEGIN)) {
            return Err(SshMalformed::Several);
        }
        Self::of_blob(&STANDARD.decode(&body).map_err(|_| SshMalformed::Armor)?)
    }

    fn of_blob(blob: &[u8]) -> Result<Self, SshMalformed> {
        let mut reader = Reader::new(blob.strip_prefix(MAGIC).ok_or(SshMalformed::Blob)?);
        match reader.u32() {
            Some(VERSION) => {}
            Some(version) => return Err(SshMalformed::Version(version)),
            None => return Err(SshMalformed::Blob),
        }
        let mut next = || reader.string().ok_or(SshMalformed::Blob);
        let (key, namespace, reserved, hash, inner) = (next()?, next()?, next()?, next()?, next()?);
        if !reader.is_empty() {
            return Err(SshMalformed::Trailing);
        }
        if !reserved.is_empty() {
            return Err(SshMalformed::Reserved);
        }
        let key = ssh_key::from_blob(key)?;
        let namespace = String::from_utf8(namespace.to_vec()).map_err(|_| SshMalformed::Namespace)?;
        check_namespace(&namespace)?;
        let is_it = |known: &HashAlgorithm| hash_name(*known).is_some_and(|name| name.as_bytes() == hash);
        let hash = HashAlgorithm::ALL.into_iter().find(is_it).ok_or(SshMalformed::Hash)?;
        let (algorithm, signature) = inner_signature(&key, inner)?;
        Ok(Self { key, namespace, hash, algorithm, signature })
    }

    /// As `ssh-keygen` writes it. `None`: its signature is none of its key's kind.
    pub fn to_armor(&self) -> Option<String> {
        let signature = match self.key.kind() {
            KeyKind::Ed25519 | KeyKind::Rsa { .. } => self.signature.clone(),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let (r, s) = ecdsa::numbers(&self.signature)?;
                [mpint(r), mpint(s)].concat()
            }
        };
        let inner =
            [string(algorithm_name(&self.key, self.algorithm)?.as_bytes()), string(&signature)].concat();
        let fields = [
            string(&ssh_key::to_blob(&self.key)),
            string(self.namespace.as_bytes()),
            string(b""),
            string(hash_name(self.hash)?.as_bytes()),
            string(&inner),
        ];
        let blob = [MAGIC, &VERSION.to_be_bytes(), &fields.concat()].concat();
        Some(format!("{BEGIN}\n{}{END}\n", base64_lines(&blob, COLUMNS)))
    }

    /// The key that it says made it.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What it says it is for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The hash that it is over.
    pub const fn hash(&self) -> HashAlgorithm {
        self.hash
    }

    /// Whether the key in it made it of these digests. `None`: they lack the one that it is over.
    pub fn is_of(&self, digests: &DigestSet) -> Option<bool> {
        let signed = signed_message(&self.namespace, digests.value(self.hash)?);
        Some(self.key.verify(self.algorithm, Message::Raw(&signed), &self.signature))
    }
}

/// How a key signed, and with what result: of ECDSA in DER.
fn inner_signature(key: &PublicKey, inner: &[u8]) -> Result<(SigningAlgorithm, Vec<u8>), SshMalformed> {
    let mut inner = Reader::new(inner);
    let (name, signature) =
        (inner.string().ok_or(SshMalformed::Blob)?, inner.string().ok_or(SshMalformed::Blob)?);
    if !inner.is_empty() {
        return Err(SshMalformed::Trailing);
    }
    let is_sha1 = name == b"ssh-rsa" && matches!(key.kind(), KeyKind::Rsa { .. });
    let unknown = if is_sha1 { SshMalformed::Sha1 } else { SshMalformed::Algorithm };
    let algorithm = algorithm(key, name).ok_or(unknown)?;
    let signature = match key.kind() {
        KeyKind::Ed25519 | KeyKind::Rsa { .. } => signature.to_vec(),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            let mut numbers = Reader::new(signature);
            let (r, s) = (numbers.mpint(), numbers.mpint());
            let (Some(r), Some(s)) = (r, s) else { return Err(SshMalformed::Numbers) };
            if !numbers.is_empty() {
                return Err(SshMalformed::Trailing);
            }
            ecdsa::to_der(r, s)
        }
    };
    Ok((algorithm, signature))
}

const fn hash_name(hash: HashAlgorithm) -> Option<&'static str> {
    match hash {
        HashAlgorithm::Sha256 => Some("sha256"),
        HashAlgorithm::Sha512 => Some("sha512"),
        HashAlgorithm::Sha384 | HashAlgorithm::Blake2b512 => None,
    }
}

fn algorithm_name(key: &PublicKey, algorithm: SigningAlgorithm) -> Option<&'static str> {
    match (key.kind(), algorithm) {
        (KeyKind::Rsa { .. }, SigningAlgorithm::RsaPkcs1Sha256) => Some("rsa-sha2-256"),
        (KeyKind::Rsa { .. }, SigningAlgorithm::RsaPkcs1Sha512) => Some("rsa-sha2-512"),
        (KeyKind::Rsa { .. }, _) => None,
        (kind, algorithm) => algorithm.fits(kind).then(|| ssh_key::type_of(kind)),
    }
}

fn algorithm(key: &PublicKey, name: &[u8]) -> Option<SigningAlgorithm> {
    SigningAlgorithm::ALL
        .into_iter()
        .find(|known| algorithm_name(key, *known).is_some_and(|known| known.as_bytes() == name))
}
