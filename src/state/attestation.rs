//! Sealing the head of the record: one Encrypt call, which CloudTrail logs outside of this host.
//!
//! The proof is the encryption context: CloudTrail logs it in clear, and nobody on the host can
//! delete that. The ciphertext beside the record only saves looking there. Never opens or makes a
//! signature of a file, and a seal can pass for none: its plaintext is longer than the 64 bytes of
//! a digest.

use crate::context::Context;
use crate::key::{KeyArn, KeyId};
use crate::kms::{Asked, Kms, KmsError, Trouble, TroubleKind};
use crate::signature::MAX_CIPHERTEXT;
use crate::signing;
use crate::state::link::{Head, LEN, Link, Point};

/// What every sealed plaintext begins with.
const PREFIX: &[u8] = b"kms-sig:head:";

/// Seals a head. Returns the ciphertext and the key that made it.
///
/// # Errors
/// [`Trouble`], also when another key answered, or nothing that can be a ciphertext came back.
pub(crate) async fn seal<K: Kms>(kms: &K, key: &KeyId, head: &Head) -> Result<(Vec<u8>, KeyArn), Trouble> {
    let answer = signing::encrypt(kms, key, &context(head), &plaintext(head)).await?;
    if !(1..=MAX_CIPHERTEXT).contains(&answer.ciphertext.len()) {
        let message = "Encrypt answered with what can be no ciphertext";
        return Err(Trouble::new(TroubleKind::MalformedReply, message));
    }
    Ok((answer.ciphertext, answer.key))
}

/// What a ciphertext that should be the seal of a head turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenedSeal {
    /// Its seal.
    Genuine,
    /// No seal of this head: of another one, or damaged.
    Forged,
    /// Made by another key; this one cannot tell.
    OtherKey,
}

/// Opens what should be the seal of this head, with this key.
///
/// # Errors
/// [`Trouble`]: KMS did not say.
pub(crate) async fn open<K: Kms>(
    kms: &K,
    key: &KeyId,
    ciphertext: &[u8],
    head: &Head,
) -> Result<OpenedSeal, Trouble> {
    match kms.decrypt(Asked::Key(key), ciphertext, &context(head)).await {
        Ok(opened) if !key.is_answered_by(&opened.key) => {
            let message = format!("Decrypt under {key} was answered by {}", opened.key);
            Err(Trouble::new(TroubleKind::MalformedReply, message))
        }
        Ok(opened) if *opened.plaintext == plaintext(head) => Ok(OpenedSeal::Genuine),
        Ok(_) | Err(KmsError::Rejected) => Ok(OpenedSeal::Forged),
        Err(KmsError::IncorrectKey) => Ok(OpenedSeal::OtherKey),
        Err(KmsError::Trouble(trouble)) => Err(trouble),
    }
}

/// 85 bytes: a prefix, the chain's id, the row's number in eight bytes (big endian), and its hash.
fn plaintext(head: &Head) -> Vec<u8> {
    let seq = head.point.seq.to_be_bytes();
    [PREFIX, head.chain.as_bytes(), &seq, head.point.link.as_bytes()].concat()
}

/// What CloudTrail shows.
fn context(head: &Head) -> Context {
    Context::of_this_program([
        ("kms-sig:chain", head.chain.to_string()),
        ("kms-sig:seq", head.point.seq.to_string()),
        ("kms-sig:head", head.point.link.to_string()),
    ])
}

/// The context of a seal for a dry run: of a head that no record has.
pub(crate) fn example_context() -> Context {
    let link = Link::new([0; LEN]);
    context(&Head { chain: link, point: Point { seq: 0, link } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use crate::kms::local::{Keyring, Local};

    fn head(seq: i64, link: u8) -> Head {
        Head { chain: Link::new([1; 32]), point: Point { seq, link: Link::new([link; 32]) } }
    }

    #[test]
    fn a_seal_is_no_digest_and_its_context_names_the_head() {
        let bytes = plaintext(&head(258, 7));
        assert_eq!(bytes.len(), 85);
        assert_ne!(bytes.len(), digest::LEN);
        assert!(bytes.starts_with(b"kms-sig:head:") && bytes.ends_with(&[7; 32]));
        let pairs = context(&head(258, 7));
        let pairs: Vec<_> = pairs.pairs().collect();
        let (chain, link) = ("01".repeat(32), "07".repeat(32));
        let expected = [("kms-sig:chain", &*chain), ("kms-sig:head", &*link), ("kms-sig:seq", "258")];
        assert_eq!(pairs, expected);
    }

    #[tokio::test]
    async fn a_seal_is_of_its_head_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let key: KeyId = "local:seal".parse().unwrap();
        let other: KeyId = "local:other".parse().unwrap();
        for key in [&key, &other] {
            Keyring::create_key(&path, key).unwrap();
        }
        let kms = Local::new(path.clone());
        let (sealed, by) = seal(&kms, &key, &head(9, 2)).await.unwrap();
        assert_eq!(by.as_str(), "local:seal");
        assert_eq!(open(&kms, &key, &sealed, &head(9, 2)).await.unwrap(), OpenedSeal::Genuine);
        for wrong in [head(8, 2), head(9, 3), Head { chain: Link::new([2; 32]), ..head(9, 2) }] {
            assert_eq!(open(&kms, &key, &sealed, &wrong).await.unwrap(), OpenedSeal::Forged, "{wrong:?}");
        }
        assert_eq!(open(&kms, &other, &sealed, &head(9, 2)).await.unwrap(), OpenedSeal::OtherKey);
        let forged = kms.encrypt(&key, b"kms-sig:head:", &context(&head(9, 2))).await.unwrap();
        let forged = open(&kms, &key, &forged.ciphertext, &head(9, 2)).await.unwrap();
        assert_eq!(forged, OpenedSeal::Forged, "another plaintext");
        std::fs::remove_file(path).unwrap();
        open(&kms, &key, &sealed, &head(9, 2)).await.expect_err("P2: no answer is no finding");
    }
}
