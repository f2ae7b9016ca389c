//! Many files signed with one Encrypt: their leaves are a tree, its root is encrypted, and each
//! file's signature is the way from its leaf to that root.
//!
//! Opens nothing: that a leaf is vouched for is told by [`super::DecryptRequest`], as of any
//! signature.

use super::request::sha512;
use super::signed::Signed;
use crate::context::Context;
use crate::context::leaf_keys::LeafKeys;
use crate::digest::set::DigestSet;
use crate::key::KeyArn;
use crate::kms::Trouble;
use crate::signature::batch;
use crate::signature::batch::Batch;
use crate::signature::merkle::{Node, Tree};

/// A batch just signed: what the signatures of its files are made of.
#[derive(Debug)]
pub struct SignedBatch {
    tree: Tree,
    leaf_keys: LeafKeys,
    ciphertext: Box<[u8]>,
    key: KeyArn,
}

impl SignedBatch {
    /// The leaf of a payload, whose signature is to be bound to this context.
    ///
    /// # Errors
    /// `BUG:`, if the digests lack the one that the format asks for.
    pub fn leaf(context: &Context, digests: &DigestSet) -> Result<Node, Trouble> {
        Ok(batch::leaf(&sha512(digests)?, context))
    }

    /// For [`super::Signer::sign_batch`] alone.
    pub(super) const fn new(tree: Tree, leaf_keys: LeafKeys, ciphertext: Box<[u8]>, key: KeyArn) -> Self {
        Self { tree, leaf_keys, ciphertext, key }
    }

    /// The signature of the leaf of this index, counted from 0; `None` if there is none.
    pub fn signed(&self, index: u64) -> Option<Signed> {
        let batch = Batch::new(self.tree.prove(index)?, self.leaf_keys.clone(), self.ciphertext.clone());
        Some(Signed { signature: batch.into(), key: self.key.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::key::KeyId;
    use crate::kms::Kms as _;
    use crate::kms::local::{Keyring, Local};
    use crate::signature::Signature;
    use crate::signature::merkle::Proof;
    use crate::signing::{Formats, Reason, Signer, Verdict, Verifier};

    struct Host {
        _dir: tempfile::TempDir,
        local: Local,
    }

    fn host() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        for name in ["local:a", "local:b"] {
            Keyring::create_key(&path, &name.parse().unwrap()).unwrap();
        }
        Host { local: Local::new(path), _dir: dir }
    }

    fn keys() -> Vec<KeyId> {
        vec!["local:a".parse().unwrap()]
    }

    fn split() -> LeafKeys {
        LeafKeys::parse("[file]").unwrap()
    }

    fn context(n: u64) -> Context {
        Context::parse(&[format!("channel=stable,file=f{n}")]).unwrap()
    }

    fn digest(n: u64) -> Digest {
        Digest::of(format!("content {n}").as_bytes())
    }

    impl Host {
        /// The signatures of a batch of the files 0, 1, …
        async fn batch(&self, size: u64) -> Vec<Signature> {
            let leaves =
                (0..size).map(|n| SignedBatch::leaf(&context(n), &digest(n).into()).unwrap()).collect();
            let shared = context(0).of_batch(&split()).unwrap();
            let tree = Tree::new(leaves).unwrap();
            let keys = keys();
            let signed = Signer::new(&self.local, &keys[0]).sign_batch(&shared, split(), tree).await.unwrap();
            (0..size).map(|n| signed.signed(n).unwrap().signature).collect()
        }

        async fn judged(
            &self,
            formats: Formats<'_>,
            n: u64,
            context: &Context,
            bytes: &[u8],
        ) -> &'static str {
            let Ok(signature) = Signature::parse(bytes) else { return "malformed" };
            let keys = keys();
            let verifier = Verifier::new(&self.local, &keys, formats);
            let opened = verifier.open(context, &signature).await.unwrap();
            match opened.judge(&digest(n).into()).unwrap() {
                Verdict::Valid(valid) => {
                    assert_eq!(valid.key().as_str(), "local:a");
                    "valid"
                }
                Verdict::Invalid(reason) => reason.as_str(),
            }
        }
    }

    /// A signature with something else in place of one of its parts.
    fn with(
        signature: &Signature,
        change: impl FnOnce(&mut (u64, u64, Vec<Node>, LeafKeys, Vec<u8>)),
    ) -> Vec<u8> {
        let batch = signature.batch().unwrap();
        let proof = batch.proof();
        let path = proof.path().to_vec();
        let mut parts =
            (proof.size(), proof.index(), path, batch.leaf_keys().clone(), batch.ciphertext().to_vec());
        change(&mut parts);
        let (size, index, path, keys, ciphertext) = parts;
        match Proof::new(size, index, path) {
            Some(proof) => Batch::new(proof, keys, ciphertext.into()).to_bytes(),
            None => batch::MAGIC.to_vec(),
        }
    }

    #[tokio::test]
    async fn every_file_of_a_batch_verifies_alone_and_nothing_else_does() {
        let host = host();
        for size in [1, 2, 3, 7, 8] {
            let signatures = host.batch(size).await;
            for (n, signature) in (0..).zip(&signatures) {
                for formats in [Formats::Any, Formats::Batch(&split())] {
                    assert_eq!(host.judged(formats, n, &context(n), signature.as_bytes()).await, "valid");
                    let other = host.judged(formats, n + 1, &context(n), signature.as_bytes()).await;
                    assert_eq!(other, "mismatch", "another file's bytes");
                    let other = host.judged(formats, n, &context(n + 1), signature.as_bytes()).await;
                    assert_eq!(other, "mismatch", "another file's context");
                    for context in
                        ["channel=beta,file=f0", "file=f0", "channel=stable", "channel=stable,file=f0,x=y"]
                    {
                        let context = Context::parse(&[context]).unwrap();
                        let other = host.judged(formats, n, &context, signature.as_bytes()).await;
                        assert_eq!(other, "rejected", "{context:?}");
                    }
                }
                let refused = host.judged(Formats::Plain, n, &context(n), signature.as_bytes()).await;
                assert_eq!(refused, "malformed", "where no batches are taken");
            }
        }
    }

    #[tokio::test]
    async fn the_split_is_the_callers_or_what_kms_vouches_for() {
        let host = host();
        let good = host.batch(3).await;
        for names in ["[]", "[channel]", "[channel,file]"] {
            let other = LeafKeys::parse(names).unwrap();
            let expected = host.judged(Formats::Batch(&other), 1, &context(1), good[1].as_bytes()).await;
            assert_eq!(expected, "rejected", "the caller splits at {names}");
            let turned = with(&good[1], |parts| parts.3 = other.clone());
            assert_eq!(host.judged(Formats::Any, 1, &context(1), &turned).await, "rejected", "{names}");
            assert_eq!(host.judged(Formats::Batch(&other), 1, &context(1), &turned).await, "rejected");
            assert_eq!(host.judged(Formats::Batch(&split()), 1, &context(1), &turned).await, "rejected");
        }
    }

    #[tokio::test]
    async fn a_leaf_of_one_batch_does_not_verify_in_another() {
        let host = host();
        let (one, other) = (host.batch(5).await, host.batch(6).await);
        for n in 0..5 {
            let (here, there) = (&one[n], other[n].batch().unwrap());
            let ciphertext = with(here, |parts| parts.4 = there.ciphertext().to_vec());
            let path = with(here, |parts| {
                (parts.0, parts.2) = (there.proof().size(), there.proof().path().to_vec());
            });
            for bytes in [ciphertext, path] {
                assert_eq!(host.judged(Formats::Any, n as u64, &context(n as u64), &bytes).await, "mismatch");
            }
        }
    }

    #[tokio::test]
    async fn a_changed_index_size_path_or_ciphertext_fails() {
        let host = host();
        let good = host.batch(7).await;
        for (n, signature) in (0..).zip(&good) {
            for index in (0..9).filter(|index| *index != n) {
                let bytes = with(signature, |parts| parts.1 = index);
                let class = host.judged(Formats::Any, n, &context(n), &bytes).await;
                assert!(["malformed", "mismatch"].contains(&class), "index {index} for {n} is {class}");
            }
            for size in (1..20).filter(|size| *size != 7) {
                let bytes = with(signature, |parts| parts.0 = size);
                let class = host.judged(Formats::Any, n, &context(n), &bytes).await;
                assert!(["malformed", "mismatch"].contains(&class), "size {size} is {class}");
            }
            for at in 0..signature.batch().unwrap().proof().path().len() {
                let bytes = with(signature, |parts| parts.2[at] = Node::leaf(&[b"another"]));
                assert_eq!(host.judged(Formats::Any, n, &context(n), &bytes).await, "mismatch");
                let bytes = with(signature, |parts| {
                    parts.2.remove(at);
                });
                assert_eq!(host.judged(Formats::Any, n, &context(n), &bytes).await, "malformed");
            }
            let bytes = with(signature, |parts| *parts.4.last_mut().unwrap() ^= 1);
            assert_eq!(host.judged(Formats::Any, n, &context(n), &bytes).await, "rejected");
            let cut = &signature.as_bytes()[..signature.as_bytes().len() - 1];
            assert_eq!(host.judged(Formats::Any, n, &context(n), cut).await, "malformed");
        }
    }

    /// Both formats sealed under one key, and each dressed up as the other.
    #[tokio::test]
    async fn batch_and_plain_cannot_be_taken_for_each_other() {
        let host = host();
        let key = &keys()[0];
        let root = Node::leaf(&[digest(0).as_bytes(), &context(0).canonical()]);
        let shared = context(0).of_batch(&split()).unwrap();
        let one = || Proof::new(1, 0, Vec::new()).unwrap();
        let dressed = |ciphertext: Vec<u8>| Batch::new(one(), split(), ciphertext.into()).to_bytes();

        // A plain signature between the lines of a batch: by its own context, and by that of the
        // batch, which only somebody with the key and without this program could use.
        for (sealed_with, class) in [(context(0), "rejected"), (shared.clone(), "mismatch")] {
            for plaintext in [digest(0).as_bytes(), root.as_bytes()] {
                let plain = host.local.encrypt(key, plaintext, &sealed_with).await.unwrap().ciphertext;
                assert_eq!(host.judged(Formats::Any, 0, &context(0), &dressed(plain)).await, class);
            }
        }
        // Prefix or size are others, or something is missing.
        let good = batch::plaintext(1, root);
        let mut spoiled =
            vec![good[1..].to_vec(), [good.as_slice(), &[0]].concat(), batch::plaintext(2, root)];
        spoiled.extend((0..good.len()).map(|at| {
            let mut other = good.clone();
            other[at] ^= 1;
            other
        }));
        for plaintext in spoiled {
            let sealed = host.local.encrypt(key, &plaintext, &shared).await.unwrap().ciphertext;
            assert_eq!(host.judged(Formats::Any, 0, &context(0), &dressed(sealed)).await, "mismatch");
        }
        let sealed = host.local.encrypt(key, &good, &shared).await.unwrap().ciphertext;
        assert_eq!(host.judged(Formats::Any, 0, &context(0), &dressed(sealed.clone())).await, "valid");
        // And the ciphertext of a batch alone, as if it were plain: with the context of a batch,
        // which nobody can ask for, and with the one that it would have to be.
        assert_eq!(host.judged(Formats::Plain, 0, &context(0), &sealed).await, "rejected");
        assert_eq!(host.judged(Formats::Plain, 0, &shared, &sealed).await, "mismatch");
        assert!(Context::parse(&["kms-sig:batch=[file]"]).is_err());
        // Nor is a file whose digest is a root vouched for by the batch: what it has inside is no
        // digest.
        let node = [&[0], digest(0).as_bytes().as_slice(), &context(0).canonical()].concat();
        assert_eq!(Digest::of(&node).as_bytes(), root.as_bytes());
        let signature = Signature::parse(&sealed).unwrap();
        let keys = keys();
        let opened =
            Verifier::new(&host.local, &keys, Formats::Plain).open(&shared, &signature).await.unwrap();
        assert!(
            opened.is_genuine() && matches!(opened.judge(&Digest::of(&node).into()), Ok(Verdict::Invalid(_)))
        );
    }

    #[tokio::test]
    async fn k2_another_key_disowns_a_batch() {
        let host = host();
        let good = host.batch(2).await;
        let other: KeyId = "local:b".parse().unwrap();
        let other = [other];
        let opened =
            Verifier::new(&host.local, &other, Formats::Any).open(&context(0), &good[0]).await.unwrap();
        let verdict = opened.judge(&digest(0).into());
        assert!(matches!(verdict, Ok(Verdict::Invalid(Reason::WrongKey))));
    }
}
