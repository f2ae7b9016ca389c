//! Public keys: what a signature is verified with when nobody asks KMS.
//!
//! A key is held as its SubjectPublicKeyInfo in the one encoding that is canonical, so that two
//! files that say the same key are one key. What other programs would take and disagree about (an
//! unusual encoding, a point that is on no curve, a key of small order) is refused here, with what
//! to do about it.
//!
//! Knows no disk, no clock and no KMS.

mod algorithm;
pub mod allowed_signers;
mod der;
pub mod ecdsa;
mod ed25519;
mod error;
pub mod key_file;
mod kind;
pub(crate) mod lines;
mod message;
pub mod minisign_key;
mod number;
pub mod openpgp;
mod pem;
mod public_key;
pub mod ssh_key;
pub(crate) mod ssh_wire;

pub use algorithm::SigningAlgorithm;
pub use error::PublicKeyError;
pub use kind::KeyKind;
pub use message::Message;
pub(crate) use message::library_digest;
pub use public_key::PublicKey;
