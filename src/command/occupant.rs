//! What has the place where a signature is to go: an older signature, which is replaced, or
//! anything else, which is not without being told to.
//!
//! `kms-sig sign KEY *.csv` takes the second file that the shell found for the place of the
//! signature; and nobody keeps other programs from writing to `FILE.sig`. So what is there is
//! looked at before KMS is asked. Strict in the direction that loses nothing: what is not known to
//! be one of our signatures counts as something else.

use std::fmt;
use std::io::{self, Read as _};

use crate::fs::atomic_write::{Occupant, Over, Place};
use crate::kms::local;
use crate::signature::sigstore::hint_of;
use crate::signature::{
    Foreign, MAX_LEN, MAX_PUBLIC, Malformed, PublicFormat, PublicSignature, Signature, ciphertext,
};
use crate::signing::Form;
use crate::trust::PublicKey;

/// Something that is no signature of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// Another program's signature.
    Foreign(Foreign),
    /// Larger than any signature.
    TooLong,
    /// Text.
    Text,
    /// It begins as a signature of a batch does, and is none.
    Batch,
    /// A signature of another format.
    OtherFormat(PublicFormat),
    /// A signature by another key, for another use, or with something besides.
    NotOurs,
    /// Bytes that no service known to us makes.
    Unknown,
    /// A signature beside another file, whose name it has: the second of what `*.sig` or `*` stands
    /// for.
    OfAnother,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::TooLong => f.write_str("larger than any signature"),
            Self::Text => f.write_str("text, and no signature"),
            Self::Batch => f.write_str("no signature, although it begins as that of a batch"),
            Self::OtherFormat(format) => write!(f, "a signature of the format {}", format.as_str()),
            Self::NotOurs => {
                f.write_str("a signature by another key, for another use, or with something besides")
            }
            Self::Unknown => f.write_str("not known to be a signature"),
            Self::OfAnother => f.write_str("the signature of another file"),
        }
    }
}

/// Whose signatures may be replaced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ours<'a> {
    /// Ciphertexts of KMS and of keyrings.
    Kms,
    /// Signatures of a form by a key.
    Public(&'a Form, &'a PublicKey),
}

/// What may be replaced at a place: nothing, or the older signature that is there. An empty file
/// counts as one, since nothing is lost with it: `mktemp` makes such, and a redirection that failed
/// leaves them.
///
/// # Errors
/// What is there cannot be read. That it is no signature of ours is the inner error.
pub(crate) fn replaceable(place: &Place, ours: Ours<'_>) -> io::Result<Result<Over, Stranger>> {
    let Some(Occupant { file, identity }) = place.occupant()? else { return Ok(Ok(Over::Nothing)) };
    let max = match ours {
        Ours::Kms => MAX_LEN,
        Ours::Public(..) => MAX_PUBLIC,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    let recognised = match ours {
        Ours::Kms => recognise(&bytes),
        Ours::Public(form, key) => recognise_public(&bytes, form, key),
    };
    Ok(recognised.map(|()| Over::Seen(identity)))
}

/// Whether bytes are an older signature of this form by this key, and nothing besides.
fn recognise_public(bytes: &[u8], form: &Form, key: &PublicKey) -> Result<(), Stranger> {
    use PublicSignature as S;
    if bytes.is_empty() {
        return Ok(());
    }
    let Ok(signature) = PublicSignature::parse(bytes) else { return Err(unlike(bytes)) };
    let is_by_key = match (&signature, form) {
        (S::Ssh(signature), Form::Ssh { namespace }) => {
            let is_all = signature.to_armor().is_some_and(|text| text.as_bytes() == bytes);
            signature.key() == key && signature.namespace() == namespace && is_all
        }
        (S::Minisign(signature), Form::Minisign { .. }) => signature.is_bound_by(key),
        (S::Sigstore(bundle), Form::Sigstore) => {
            bundle.hint() == hint_of(key) && bundle.to_json().is_ok_and(|text| text.as_bytes() == bytes)
        }
        (S::OpenPgp(signature), Form::OpenPgp { certificate, .. }) => {
            *signature.issuer() == certificate.key().fingerprint() && signature.is_all_of(bytes)
        }
        // Nothing in such bytes says whose they are.
        (S::Der(_), _) => return Err(unlike(bytes)),
        (S::Ssh(_) | S::Minisign(_) | S::Sigstore(_) | S::OpenPgp(_), _) => {
            return Err(Stranger::OtherFormat(signature.format()));
        }
    };
    if is_by_key { Ok(()) } else { Err(Stranger::NotOurs) }
}

fn unlike(bytes: &[u8]) -> Stranger {
    if std::str::from_utf8(bytes).is_ok() { Stranger::Text } else { Stranger::Unknown }
}

fn recognise(bytes: &[u8]) -> Result<(), Stranger> {
    let signature = match Signature::parse(bytes) {
        Ok(signature) => signature,
        Err(Malformed::Empty) => return Ok(()),
        Err(Malformed::TooLong) => return Err(Stranger::TooLong),
        Err(Malformed::Foreign(foreign)) => return Err(Stranger::Foreign(foreign)),
        Err(Malformed::Batch(_)) => return Err(Stranger::Batch),
    };
    let is_ours = signature.batch().is_some()
        || local::claimed_key(bytes).is_some()
        || ciphertext::form(bytes).is_some();
    match is_ours {
        true => Ok(()),
        false => Err(unlike(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::MAX_CIPHERTEXT;

    #[test]
    fn p8_only_what_is_known_to_be_a_signature_of_ours_is_replaced() {
        let noise: Vec<u8> = (0..200).map(|at| 0x80 | (at * 37 % 128) as u8).collect();
        let after = |prefix: &[u8]| [prefix, &noise].concat();
        let batch = b"kms-sig batch 1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n!";
        for ours in [
            Vec::new(),
            batch.to_vec(),
            after(b"KSL1\x04demo"),
            after(&[1, 2, 2, 0, 0x78]),
            after(b"1234abcd-12ab-34cd-56ef-1234567890ab"),
        ] {
            assert_eq!(recognise(&ours), Ok(()), "{:02x?}", &ours[..ours.len().min(16)]);
        }
        for (bytes, expected) in [
            (b"a,b\n1,2\n".to_vec(), Stranger::Text),
            ("größer\n".into(), Stranger::Text),
            (b" ".to_vec(), Stranger::Text),
            (noise.clone(), Stranger::Unknown),
            (after(b"PK\x03\x04"), Stranger::Unknown),
            (b"KSL1".to_vec(), Stranger::Text),
            (batch[..40].to_vec(), Stranger::Batch),
            (b"untrusted comment: x\n".to_vec(), Stranger::Foreign(Foreign::Minisign)),
            ([&[1, 2, 2, 0, 0x78][..], &[0xff; MAX_CIPHERTEXT]].concat(), Stranger::TooLong),
        ] {
            assert_eq!(recognise(&bytes), Err(expected), "{:02x?}", &bytes[..bytes.len().min(16)]);
        }
    }
}
