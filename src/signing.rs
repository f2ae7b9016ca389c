//! Signing and judging: a digest becomes a signature, a signature and a digest become a verdict.
//!
//! Knows no path, no clock and no disk. The only place that makes a [`Valid`], and so the only
//! place that can let anything be delivered (P1).

mod answered;
mod batch;
mod public_signer;
mod public_verifier;
mod request;
mod signed;
mod signer;
mod verdict;
mod verifier;

pub use crate::signature::{Formats, Reason};
pub use batch::SignedBatch;
pub use public_signer::{Fitted, Form, NAME_NOTATION, PublicSigner, UnfitKey, written_at};
pub use public_verifier::{Claimed, NotVouched, PublicVerifier, Vouched};
pub use request::{DecryptReply, DecryptRequest, OpenedSignature};
pub use signed::Signed;
pub use signer::{Signer, encrypt};
pub use verdict::{Valid, Verdict};
pub use verifier::Verifier;
