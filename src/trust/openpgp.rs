//! OpenPGP of version 4 (RFC 4880, RFC 9580), as far as this program makes it: a certificate of one
//! key, and the signatures of that key.
//!
//! Bytes only: what is hashed, what is asked of whoever has the key, and how the answer is wrapped.
//! Version 4 and algorithm 22 for Ed25519, because GnuPG takes no later ones. Judging what others
//! made is not done here.

mod armor;
mod certificate;
mod detached;
mod draft;
mod key;
mod packet;
mod signature;

pub use armor::Block;
pub use certificate::{Certificate, CertificateError, SelfSignature};
pub use detached::Detached;
pub use draft::Draft;
pub use key::PrimaryKey;
