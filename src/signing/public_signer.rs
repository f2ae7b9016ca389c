//! Making signatures that a public key verifies: what each format asks the key for, and whether
//! what came back is right.
//!
//! What KMS answered is verified with its public key before anybody sees it: a wrong answer is
//! trouble, and never becomes a signature.

use super::answered::{check_answered, no_answer};
use crate::clock;
use crate::digest::algorithm::{HashAlgorithm, HashValue};
use crate::digest::set::{DigestRequest, DigestSet};
use crate::key::{KeyArn, KeyId};
use crate::kms::{Kms, Operation, Trouble, TroubleKind};
use crate::signature::minisign::{self, MinisignSignature};
use crate::signature::sigstore::Bundle;
use crate::signature::ssh::{self, SshSignature};
use crate::signature::{PublicFormat, der};
use crate::trust::minisign_key;
use crate::trust::openpgp::{Block, Certificate, Draft, PrimaryKey, SelfSignature};
use crate::trust::{KeyKind, Message, PublicKey, SigningAlgorithm};

/// How far the times that we write are behind this host's clock, in seconds: most verifiers refuse
/// what was made a second after their own clock.
const BEHIND: u64 = 5;

/// What a signature notes of the file's name in OpenPGP.
pub const NAME_NOTATION: &str = "file@kms-sig";

/// A signature that is to be made: its format, and what that leaves to the signer.
#[derive(Debug, Clone)]
pub enum Form {
    /// `ssh-keygen -Y sign`.
    Ssh {
        /// What it is for; `file` by convention.
        namespace: String,
    },
    /// minisign, pre-hashed.
    Minisign {
        /// What is signed with it.
        trusted_comment: String,
    },
    /// A sigstore bundle with the hint of a public key.
    Sigstore,
    /// What `openssl dgst -verify` takes.
    Der,
    /// OpenPGP, detached.
    OpenPgp {
        /// The certificate of the key.
        certificate: Box<Certificate>,
        /// Text, or bytes.
        is_armored: bool,
        /// The name that it is bound to.
        name: Option<String>,
    },
}

impl Form {
    /// Its format.
    pub const fn format(&self) -> PublicFormat {
        match self {
            Self::Ssh { .. } => PublicFormat::Ssh,
            Self::Minisign { .. } => PublicFormat::Minisign,
            Self::Sigstore => PublicFormat::Sigstore,
            Self::Der => PublicFormat::Der,
            Self::OpenPgp { .. } => PublicFormat::OpenPgp,
        }
    }
}

/// Why a key cannot make a signature of this form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitKey {
    /// Keys of its kind have no signatures of this format.
    #[error("{format} takes {takes}, and this key is {kind}")]
    Kind {
        /// The format.
        format: &'static str,
        /// The kinds that it knows.
        takes: &'static str,
        /// The key's.
        kind: KeyKind,
    },
    /// The certificate is another key's.
    #[error("the certificate is of another key")]
    AnotherKey,
    /// Others would not take what is signed with it, or take it for the future's.
    #[error(
        "the certificate has more than one key and one owner, or is of the future; make it with kms-sig key public"
    )]
    Certificate,
    /// The certificate is not good any more.
    #[error("the certificate ended at {}; extend it with kms-sig key public --renew", clock::second_at((*.0).into()))]
    Expired(u32),
    /// What its format leaves to the signer cannot be written.
    #[error(transparent)]
    Comment(#[from] minisign::CommentError),
    /// The same of a namespace.
    #[error("an SSH namespace has 1 to 255 printable characters")]
    Namespace,
}

/// A key of a key management service, together with its public half.
#[derive(Debug)]
pub struct PublicSigner<'a, K> {
    kms: &'a K,
    id: &'a KeyId,
    arn: KeyArn,
    public: PublicKey,
}

/// A form that fits the key.
#[derive(Debug)]
pub struct Fitted<'a, K> {
    signer: &'a PublicSigner<'a, K>,
    form: &'a Form,
}

impl<'a, K: Kms> PublicSigner<'a, K> {
    /// Asks for the public key, once; it never changes.
    ///
    /// # Errors
    /// [`Trouble`], also when another key answers.
    pub async fn fetch(kms: &'a K, id: &'a KeyId) -> Result<Self, Trouble> {
        let answer = kms.get_public_key(id).await;
        let answer = answer.map_err(|error| no_answer(Operation::GetPublicKey, error))?;
        check_answered(Operation::GetPublicKey, id, &answer.key)?;
        Ok(Self { kms, id, arn: answer.key, public: answer.public_key })
    }

    /// The public key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The key's full name.
    pub const fn arn(&self) -> &KeyArn {
        &self.arn
    }

    /// What must be known of a payload to sign it so.
    pub fn digests(&self, form: &Form) -> DigestRequest {
        match form {
            Form::Ssh { .. } => DigestRequest::digest(HashAlgorithm::Sha512),
            Form::Minisign { .. } => DigestRequest::digest(HashAlgorithm::Blake2b512),
            Form::Sigstore => DigestRequest::digest(HashAlgorithm::Sha256),
            Form::Der => {
                let hash = der::algorithm(self.public.kind()).map(|(_, hash)| hash);
                hash.map_or(DigestRequest::NONE, DigestRequest::digest)
            }
            Form::OpenPgp { certificate, .. } => DigestRequest::state(certificate.key().hash()),
        }
    }

    /// Whether the key can make this, at a time in seconds since 1970.
    ///
    /// # Errors
    /// [`UnfitKey`].
    pub fn fit<'f>(&'f self, form: &'f Form, now: u64) -> Result<Fitted<'f, K>, UnfitKey> {
        let kind = self.public.kind();
        let unfit = |takes| Err(UnfitKey::Kind { format: form.format().as_str(), takes, kind });
        match (form, kind) {
            (Form::Ssh { namespace }, _) => {
                ssh::check_namespace(namespace).map_err(|_| UnfitKey::Namespace)?
            }
            (Form::Minisign { trusted_comment }, KeyKind::Ed25519) => {
                minisign::check_comment(trusted_comment)?;
            }
            (Form::Minisign { .. }, _) => return unfit("Ed25519 keys"),
            // cosign checks other curves with another hash than KMS signs them with.
            (Form::Sigstore, KeyKind::P256 | KeyKind::Rsa { .. }) => {}
            (Form::Sigstore, _) => return unfit("P-256 and RSA keys"),
            (Form::Der, KeyKind::Ed25519) => return unfit("ECDSA and RSA keys"),
            (Form::Der, _) => {}
            (Form::OpenPgp { certificate, .. }, _) if certificate.key().public() != &self.public => {
                return Err(UnfitKey::AnotherKey);
            }
            (Form::OpenPgp { certificate, .. }, _)
                if !certificate.is_of_one_key() || u64::from(certificate.bound_since()) > now =>
            {
                return Err(UnfitKey::Certificate);
            }
            (Form::OpenPgp { certificate, .. }, _) => match certificate.expires() {
                Some(end) if u64::from(end) <= now => return Err(UnfitKey::Expired(end)),
                Some(_) | None => {}
            },
        }
        Ok(Fitted { signer: self, form })
    }

    /// Has the key sign the user id of a certificate that is to be made or renewed.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn certify(&self, key: &PrimaryKey, draft: SelfSignature<'_>) -> Result<String, Trouble> {
        let answer = self.ask(key.signing_algorithm(), key.message(draft.digest())).await?;
        draft.finish(&answer).ok_or_else(not_of_its_kind)
    }

    /// One Sign, whose answer is of the key that was asked and verifies under it.
    async fn ask(&self, algorithm: SigningAlgorithm, message: Message<'_>) -> Result<Vec<u8>, Trouble> {
        let answer = self.kms.sign(self.id, message, algorithm).await;
        let answer = answer.map_err(|error| no_answer(Operation::Sign, error))?;
        check_answered(Operation::Sign, self.id, &answer.key)?;
        if self.public.verify(algorithm, message, &answer.signature) {
            return Ok(answer.signature);
        }
        let message = format!(
            "Sign under {} answered with a signature that the key's own public key does not verify",
            self.id
        );
        Err(Trouble::new(TroubleKind::MalformedReply, message))
    }
}

impl<K: Kms> Fitted<'_, K> {
    /// Signs a payload, at a time in seconds since 1970.
    ///
    /// # Errors
    /// [`Trouble`], also when KMS answers with something that is not this key's signature: such an
    /// answer must not be published.
    pub async fn sign(&self, digests: &DigestSet, now: u64) -> Result<Vec<u8>, Trouble> {
        match self.form {
            Form::Ssh { namespace } => self.ssh(namespace, value(digests, HashAlgorithm::Sha512)?).await,
            Form::Minisign { trusted_comment } => {
                self.minisign(trusted_comment, value(digests, HashAlgorithm::Blake2b512)?).await
            }
            Form::Sigstore => self.sigstore(digests).await,
            Form::Der => self.digest(digests).await,
            Form::OpenPgp { certificate, is_armored, name } => {
                let key = certificate.key();
                let state = digests.state(key.hash()).ok_or_else(|| unread(key.hash()))?;
                let notes: Vec<_> = name.iter().map(|name| (NAME_NOTATION, name.as_str())).collect();
                // Not before what binds the key to its owner.
                let made = written_at(now).max(certificate.bound_since());
                let draft = Draft::of_file(key, made, &notes);
                let digest = draft.digest(state.clone());
                let answer = self.signer.ask(key.signing_algorithm(), key.message(&digest)).await?;
                let packet = draft.finish(&digest, &answer).ok_or_else(not_of_its_kind)?;
                Ok(if *is_armored { Block::Signature.armor(&packet).into_bytes() } else { packet })
            }
        }
    }

    async fn ssh(&self, namespace: &str, digest: &HashValue) -> Result<Vec<u8>, Trouble> {
        let algorithm = SigningAlgorithm::of(self.signer.public.kind());
        let signed = ssh::signed_message(namespace, digest);
        let answer = self.signer.ask(algorithm, Message::Raw(&signed)).await?;
        let signature = SshSignature::new(self.signer.public.clone(), namespace, algorithm, answer);
        signature.to_armor().map(String::into_bytes).ok_or_else(not_of_its_kind)
    }

    /// The second call signs the first signature together with the comment.
    async fn minisign(&self, trusted_comment: &str, digest: &HashValue) -> Result<Vec<u8>, Trouble> {
        let ask = async |message: &[u8]| {
            let answer = self.signer.ask(SigningAlgorithm::Ed25519, Message::Raw(message)).await?;
            <[u8; 64]>::try_from(answer.as_slice()).map_err(|_| not_of_its_kind())
        };
        let signature = ask(digest.as_bytes()).await?;
        let covered = minisign::globally_signed(&signature, trusted_comment);
        let global = ask(&covered).await?;
        let number = minisign_key::number_of(&self.signer.public).ok_or_else(not_of_its_kind)?;
        Ok(MinisignSignature::new(number, signature, trusted_comment, global).to_text().into_bytes())
    }

    async fn sigstore(&self, digests: &DigestSet) -> Result<Vec<u8>, Trouble> {
        let answer = self.digest(digests).await?;
        let digest = value(digests, HashAlgorithm::Sha256)?;
        let json = Bundle::new(&self.signer.public, digest, &answer).to_json();
        json.map(String::into_bytes).map_err(|error| Trouble::new(TroubleKind::Internal, error.to_string()))
    }

    /// Of a digest and nothing else.
    async fn digest(&self, digests: &DigestSet) -> Result<Vec<u8>, Trouble> {
        let (algorithm, hash) = der::algorithm(self.signer.public.kind()).ok_or_else(not_of_its_kind)?;
        self.signer.ask(algorithm, Message::Digest(value(digests, hash)?)).await
    }
}

/// The time that is written at a moment, both in seconds since 1970: a little behind, so that no
/// verifier takes it for the future. OpenPGP counts in 32 bits, until 2106.
pub fn written_at(now: u64) -> u32 {
    u32::try_from(now.saturating_sub(BEHIND)).unwrap_or(u32::MAX)
}

fn value(digests: &DigestSet, hash: HashAlgorithm) -> Result<&HashValue, Trouble> {
    digests.value(hash).ok_or_else(|| unread(hash))
}

fn unread(hash: HashAlgorithm) -> Trouble {
    Trouble::new(TroubleKind::Internal, format!("BUG: the payload was read without its {hash}"))
}

fn not_of_its_kind() -> Trouble {
    Trouble::new(TroubleKind::MalformedReply, "Sign answered with no signature of the key's kind")
}
