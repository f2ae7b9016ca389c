//! Which formats a rule or a person takes.

use crate::context::leaf_keys::LeafKeys;
use crate::digest::set::DigestRequest;
use crate::signature::Format;

/// Which formats are taken, and who says which part of the context lives in the leaves of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Formats<'a> {
    /// Plain ones. A batch signature is malformed.
    Plain,
    /// Both. What lives in the leaves is for the caller to say: a signature that says anything else
    /// was made for another context.
    Batch(&'a LeafKeys),
    /// Both, split as the signature says. KMS vouches for that, as the split is part of the
    /// encryption context; but where it splits is then for the signer to choose.
    Any,
}

impl Formats<'_> {
    /// The same without who says what.
    pub const fn accepted(&self) -> &'static [Format] {
        match self {
            Self::Plain => &[Format::Kms],
            Self::Batch(_) | Self::Any => &Format::ALL,
        }
    }

    /// What must be known of a payload to judge any signature of them.
    pub const fn digests(&self) -> DigestRequest {
        Format::digests_of(self.accepted())
    }
}
