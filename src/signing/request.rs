//! What a signature needs KMS for, and what it turns out to stand for by the reply.
//!
//! Pure: who asks is [`super::Verifier`], or whoever has the reply already.

use std::borrow::Cow;
use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::verdict::{Valid, Verdict};
use crate::context::Context;
use crate::digest::Digest;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::DigestSet;
use crate::key::KeyArn;
use crate::kms::{Trouble, TroubleKind};
use crate::signature::batch as form;
use crate::signature::batch::Batch;
use crate::signature::merkle::Proof;
use crate::signature::{Formats, Reason, Signature};

/// What KMS is asked about a signature, and what its answer will stand for.
#[derive(Debug)]
pub struct DecryptRequest<'a> {
    ciphertext: &'a [u8],
    context: Cow<'a, Context>,
    claim: Claim,
}

/// What a signature says it vouches for.
#[derive(Debug, Clone)]
enum Claim {
    /// The digest itself.
    Digest,
    /// The root of a tree, one leaf of which has this digest and this context.
    Leaf { proof: Proof, context: Context },
}

impl<'a> DecryptRequest<'a> {
    /// What to ask about a signature that should belong to this context.
    ///
    /// # Errors
    /// Nothing: the signature is bad, and KMS need not be asked to tell.
    pub fn new(
        formats: Formats<'_>,
        context: &'a Context,
        signature: &'a Signature,
    ) -> Result<Self, OpenedSignature> {
        let Some(batch) = signature.batch() else {
            let (ciphertext, context) = (signature.as_bytes(), Cow::Borrowed(context));
            return Ok(Self { ciphertext, context, claim: Claim::Digest });
        };
        let is_split_so = match formats {
            Formats::Plain => return Err(OpenedSignature::malformed()),
            Formats::Batch(leaf_keys) => batch.leaf_keys() == leaf_keys,
            Formats::Any => true,
        };
        // As KMS would say of a plain one: damaged, or made for another context.
        if !is_split_so || !batch.leaf_keys().are_in(context) {
            return Err(OpenedSignature(Inside::Bad(Reason::Rejected)));
        }
        match context.of_batch(batch.leaf_keys()) {
            Ok(shared) => Ok(Self::of_batch(batch, context, shared)),
            Err(_) => Err(OpenedSignature(Inside::Bad(Reason::Rejected))), // so long that nobody can have made it
        }
    }

    fn of_batch(batch: &'a Batch, whole: &Context, shared: Context) -> Self {
        let claim = Claim::Leaf { proof: batch.proof().clone(), context: whole.clone() };
        Self { ciphertext: batch.ciphertext(), context: Cow::Owned(shared), claim }
    }

    /// The ciphertext that KMS is to open.
    pub const fn ciphertext(&self) -> &[u8] {
        self.ciphertext
    }

    /// The encryption context that it is to be opened with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What the signature turned out to stand for, by the reply to exactly this request.
    pub fn opened(self, reply: DecryptReply) -> OpenedSignature {
        OpenedSignature(match reply.0 {
            Reply::Plaintext { key, plaintext } => Inside::Plaintext { key, plaintext, claim: self.claim },
            Reply::Bad(reason) => Inside::Bad(reason),
        })
    }
}

/// What KMS made of a ciphertext. The same for all signatures of one batch. Made by
/// [`super::Verifier::ask`] alone.
#[derive(Clone)]
pub struct DecryptReply(Reply);

#[derive(Clone)]
enum Reply {
    Plaintext { key: KeyArn, plaintext: Zeroizing<Vec<u8>> },
    Bad(Reason),
}

impl DecryptReply {
    /// A trusted key opened it; this was inside.
    pub(super) const fn plaintext(key: KeyArn, plaintext: Zeroizing<Vec<u8>>) -> Self {
        Self(Reply::Plaintext { key, plaintext })
    }

    /// No trusted key did.
    pub(super) const fn bad(reason: Reason) -> Self {
        Self(Reply::Bad(reason))
    }

    /// Whether a trusted key opened it.
    pub const fn is_opened(&self) -> bool {
        matches!(self.0, Reply::Plaintext { .. })
    }
}

/// What a signature turned out to stand for. Belongs to the exact signature bytes, context and keys
/// it was opened with; lets a growing payload be compared again and again with one Decrypt.
#[derive(Clone)]
pub struct OpenedSignature(Inside);

#[derive(Clone)]
enum Inside {
    Plaintext { key: KeyArn, plaintext: Zeroizing<Vec<u8>>, claim: Claim },
    Bad(Reason),
}

impl fmt::Debug for DecryptReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reply::Plaintext { key, .. } => write!(f, "DecryptReply(by {key})"),
            Reply::Bad(reason) => write!(f, "DecryptReply({reason})"),
        }
    }
}

impl OpenedSignature {
    /// A signature that cannot be one; needs no KMS.
    pub const fn malformed() -> Self {
        Self(Inside::Bad(Reason::Malformed))
    }

    /// Compares with a payload's digests.
    ///
    /// # Errors
    /// `BUG:`, if they lack the one that its format asks for: no verdict is possible then.
    pub fn judge(&self, digests: &DigestSet) -> Result<Verdict, Trouble> {
        let (key, plaintext, claim) = match &self.0 {
            Inside::Bad(reason) => return Ok(Verdict::Invalid(*reason)),
            Inside::Plaintext { key, plaintext, claim } => (key, plaintext, claim),
        };
        let digest = sha512(digests)?;
        if !claim.matches(&digest, plaintext) {
            return Ok(Verdict::Invalid(Reason::Mismatch));
        }
        Ok(Verdict::Valid(Valid::new(key.clone(), digest)))
    }

    /// Whether a trusted key made the signature, for whatever bytes.
    pub fn is_genuine(&self) -> bool {
        matches!(self.0, Inside::Plaintext { .. })
    }
}

impl Claim {
    /// Whether a plaintext of KMS is what this claim makes of a digest. Constant time in the
    /// content.
    fn matches(&self, digest: &Digest, plaintext: &[u8]) -> bool {
        match self {
            Self::Digest => digest.matches(plaintext),
            Self::Leaf { proof, context } => {
                let root = proof.root(form::leaf(digest, context));
                form::plaintext(proof.size(), root).ct_eq(plaintext).into()
            }
        }
    }
}

impl fmt::Debug for OpenedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inside::Plaintext { key, .. } => write!(f, "OpenedSignature(by {key})"),
            Inside::Bad(reason) => write!(f, "OpenedSignature({reason})"),
        }
    }
}

/// The digest that the formats of KMS ciphertexts are about.
///
/// # Errors
/// `BUG:`, if it is not there.
pub(super) fn sha512(digests: &DigestSet) -> Result<Digest, Trouble> {
    digests.sha512().ok_or_else(|| {
        let message = format!("BUG: the payload was read without its {}", HashAlgorithm::Sha512);
        Trouble::new(TroubleKind::Internal, message)
    })
}
