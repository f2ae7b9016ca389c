//! Making signatures: the one place that has a digest encrypted.

use super::answered::{check_answered, no_answer};
use super::batch::SignedBatch;
use super::request::sha512;
use super::signed::Signed;
use crate::context::Context;
use crate::context::leaf_keys::LeafKeys;
use crate::digest::set::DigestSet;
use crate::key::KeyId;
use crate::kms::{Encrypted, Kms, Operation, Trouble, TroubleKind};
use crate::signature::merkle::Tree;
use crate::signature::{MAX_CIPHERTEXT, Malformed, Signature, batch};

/// Signs with one key of a key management service.
///
/// ```
/// use kms_sig::context::Context;
/// use kms_sig::digest::set::DigestSet;
/// use kms_sig::key::KeyId;
/// use kms_sig::kms::local::{Keyring, Local};
/// use kms_sig::signature::Format;
/// use kms_sig::signing::Signer;
///
/// # let dir = tempfile::tempdir()?;
/// # let keyring = dir.path().join("keyring");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let key: KeyId = "local:releases".parse()?;
/// Keyring::create_key(&keyring, &"local:releases".parse()?)?;
/// let kms = Local::new(keyring);
///
/// let digests = DigestSet::of(Format::Kms.digests(), b"a payload");
/// let context = Context::parse(&["channel=stable"])?;
/// let signed = Signer::new(&kms, &key).sign(&context, &digests).await?;
/// assert_eq!(signed.key.as_str(), "local:releases");
/// assert_eq!(signed.signature.format(), Format::Kms);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Signer<'a, K> {
    kms: &'a K,
    key: &'a KeyId,
}

impl<'a, K: Kms> Signer<'a, K> {
    /// Who signs with this key.
    pub const fn new(kms: &'a K, key: &'a KeyId) -> Self {
        Self { kms, key }
    }

    /// Signs one payload in the format [`Kms`](crate::signature::Format::Kms): one Encrypt of its
    /// SHA-512.
    ///
    /// # Errors
    /// [`Trouble`], also when the answer comes from another key than was asked or is no signature:
    /// such an answer must not be published.
    pub async fn sign(&self, context: &Context, digests: &DigestSet) -> Result<Signed, Trouble> {
        let answer = encrypt(self.kms, self.key, context, sha512(digests)?.as_bytes()).await?;
        Ok(Signed { signature: plain(&answer.ciphertext)?, key: answer.key })
    }

    /// Signs many payloads in the format [`KmsBatch`](crate::signature::Format::KmsBatch): one
    /// Encrypt of the root of a tree of [`SignedBatch::leaf`]s. `shared` is [`Context::of_batch`]
    /// of every leaf's context, which must be the same for all of them; a leaf with another one
    /// would not verify.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub async fn sign_batch(
        &self,
        shared: &Context,
        leaf_keys: LeafKeys,
        tree: Tree,
    ) -> Result<SignedBatch, Trouble> {
        let plaintext = batch::plaintext(tree.size(), tree.root());
        let answer = encrypt(self.kms, self.key, shared, &plaintext).await?;
        let ciphertext = plain(&answer.ciphertext)?.as_bytes().into();
        Ok(SignedBatch::new(tree, leaf_keys, ciphertext, answer.key))
    }
}

/// What Encrypt answered, if it can be a ciphertext.
fn plain(ciphertext: &[u8]) -> Result<Signature, Trouble> {
    let message = match Signature::parse(ciphertext) {
        Ok(signature) if signature.batch().is_none() => return Ok(signature),
        Err(Malformed::TooLong) => format!("Encrypt answered with more than {MAX_CIPHERTEXT} bytes"),
        Ok(_) | Err(Malformed::Empty | Malformed::Foreign(_) | Malformed::Batch(_)) => {
            "Encrypt answered with no ciphertext".to_owned()
        }
    };
    Err(Trouble::new(TroubleKind::MalformedReply, message))
}

/// One Encrypt, whose answer is of the key that was asked.
///
/// # Errors
/// [`Trouble`], also when another key answered.
pub async fn encrypt<K: Kms>(
    kms: &K,
    key: &KeyId,
    context: &Context,
    plaintext: &[u8],
) -> Result<Encrypted, Trouble> {
    let answer = kms.encrypt(key, plaintext, context).await;
    let answer = answer.map_err(|error| no_answer(Operation::Encrypt, error))?;
    check_answered(Operation::Encrypt, key, &answer.key)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::digest::algorithm::HashAlgorithm;
    use crate::digest::set::DigestRequest;
    use crate::key::KeyArn;
    use crate::kms::{Asked, Decrypted, KmsError, PublicKeyReply, SignReply};
    use crate::signature::merkle::Proof;
    use crate::trust::{Message, SigningAlgorithm};

    const A: &str = "arn:aws:kms:eu-west-1:111122223333:key/aaaa";
    const B: &str = "arn:aws:kms:eu-west-1:111122223333:key/bbbb";

    /// Answers Encrypt in the name of this key, with so many bytes.
    struct Script(&'static str, usize);

    impl Kms for Script {
        async fn encrypt(&self, _: &KeyId, plaintext: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            assert_eq!(plaintext, Digest::of(b"payload").as_bytes());
            Ok(Encrypted { ciphertext: vec![7; self.1], key: KeyArn::from_reply(self.0).unwrap() })
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            panic!("nothing is verified here")
        }

        async fn sign(&self, _: &KeyId, _: Message<'_>, _: SigningAlgorithm) -> Result<SignReply, KmsError> {
            panic!("nothing is signed here")
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            panic!("nobody asks for a public key here")
        }
    }

    async fn sign(script: &Script, digests: &DigestSet) -> Result<Signed, Trouble> {
        Signer::new(script, &A.parse().unwrap()).sign(&Context::default(), digests).await
    }

    #[tokio::test]
    async fn k22_an_encrypt_answer_that_is_not_what_was_asked_is_not_published() {
        for (encrypt, ok) in
            [((A, 100), true), ((A, 6144), true), ((B, 100), false), ((A, 6145), false), ((A, 0), false)]
        {
            let signed = sign(&Script(encrypt.0, encrypt.1), &Digest::of(b"payload").into()).await;
            assert_eq!(signed.is_ok(), ok, "{encrypt:?}");
        }
    }

    #[test]
    fn k22_an_answer_that_has_the_form_of_a_batch_is_no_ciphertext() {
        let proof = Proof::new(1, 0, Vec::new()).unwrap();
        let batch = Signature::from(batch::Batch::new(proof, LeafKeys::default(), vec![7; 40].into()));
        assert!(Signature::parse(batch.as_bytes()).unwrap().batch().is_some());
        assert_eq!(plain(batch.as_bytes()).unwrap_err().kind, TroubleKind::MalformedReply);
        assert!(plain(batch.ciphertext()).is_ok());
    }

    #[tokio::test]
    async fn without_the_digest_that_the_format_asks_for_nothing_is_signed() {
        let digests = DigestSet::of(DigestRequest::digest(HashAlgorithm::Sha256), b"payload");
        let trouble = sign(&Script(A, 100), &digests).await.unwrap_err();
        assert_eq!(trouble.kind, TroubleKind::Internal);
        assert!(trouble.message.starts_with("BUG: "), "{}", trouble.message);
    }
}
