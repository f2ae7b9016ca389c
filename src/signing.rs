//! Signing and judging: a digest becomes a signature, a signature and a digest become a verdict.
//!
//! Knows no path, no clock and no disk. The only place that makes a [`Valid`], and so the only place
//! that can let anything be delivered (P1).

pub mod batch;

use std::borrow::Cow;
use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::context::leaf_keys::LeafKeys;
use crate::digest::Digest;
use crate::key::{KeyArn, KeyId};
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Trouble, TroubleKind};
use crate::signature::batch as form;
use crate::signature::batch::Batch;
use crate::signature::merkle::Proof;
use crate::signature::{MAX_CIPHERTEXT, Malformed, Signature};

/// A fact about a payload and its signature. Not being able to tell is no verdict but an `Err`.
#[derive(Debug)]
pub enum Verdict {
    /// A trusted key vouches for exactly these bytes.
    Valid(Valid),
    /// Nobody trusted does.
    Invalid(Reason),
}

/// Proof that a trusted key vouches for a digest. Cannot be made outside this module.
#[derive(Debug, Clone)]
pub struct Valid {
    key: KeyArn,
    digest: Digest,
}

impl Valid {
    /// The key that vouches.
    pub fn key(&self) -> &KeyArn {
        &self.key
    }

    /// What it vouches for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Why a pair is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The signature is genuine and stands for other bytes.
    Mismatch,
    /// KMS says the ciphertext or the context is wrong.
    Rejected,
    /// No trusted key made it.
    WrongKey,
    /// It cannot be a signature.
    Malformed,
    /// There is none.
    Missing,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Mismatch, Self::Rejected, Self::WrongKey, Self::Malformed, Self::Missing];

    /// The reason that a word of [`Reason::as_str`] stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word used in records, logs and state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mismatch => "mismatch",
            Self::Rejected => "rejected",
            Self::WrongKey => "wrong-key",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A signature just made.
#[derive(Debug)]
pub struct Signed {
    /// What to write to the `.sig`.
    pub signature: Signature,
    /// The key that made it.
    pub key: KeyArn,
}

/// Signs a digest: one Encrypt of its 64 bytes.
///
/// # Errors
/// [`Trouble`], also when the answer comes from another key than was asked or is no signature: such an
/// answer must not be published.
pub async fn sign<K: Kms>(
    kms: &K,
    key: &KeyId,
    context: &Context,
    digest: &Digest,
) -> Result<Signed, Trouble> {
    let answer = encrypt(kms, key, context, digest.as_bytes()).await?;
    Ok(Signed { signature: plain(&answer.ciphertext)?, key: answer.key })
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
    let answer = kms.encrypt(key, plaintext, context).await.map_err(|error| match error {
        KmsError::Trouble(trouble) => trouble,
        KmsError::Rejected | KmsError::IncorrectKey => {
            Trouble::new(TroubleKind::MalformedReply, "Encrypt answered with an error of Decrypt")
        }
    })?;
    if !key.is_answered_by(&answer.key) {
        let message = format!("Encrypt under {key} was answered by {}", answer.key);
        return Err(Trouble::new(TroubleKind::MalformedReply, message));
    }
    Ok(answer)
}

/// Which formats are taken, and who says which part of the context lives in the leaves of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Formats<'a> {
    /// Plain ones. A batch signature is malformed.
    Plain,
    /// Both. What lives in the leaves is for the caller to say: a signature that says anything else was made
    /// for another context.
    Batch(&'a LeafKeys),
    /// Both, split as the signature says. KMS vouches for that, as the split is part of the encryption context;
    /// but where it splits is then for the signer to choose.
    Any,
}

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

    /// Asks KMS under each of several trusted keys in turn, by its name.
    ///
    /// A key that opens it wins. Otherwise trouble with any key is trouble: that key might have been the one.
    /// Otherwise the signature is bad: `wrong-key` if every key disowned it, `rejected` if one called it damaged.
    ///
    /// # Errors
    /// [`Trouble`]: no verdict is possible now.
    pub async fn ask<K: Kms>(&self, kms: &K, trusted: &[KeyId]) -> Result<Answer, Trouble> {
        let mut bad = Reason::WrongKey;
        let mut trouble = None;
        for key in trusted {
            match kms.decrypt(Asked::Key(key), self.ciphertext, &self.context).await {
                Ok(Decrypted { plaintext, key: answered }) if key.is_answered_by(&answered) => {
                    return Ok(Answer::Plaintext { key: answered, plaintext });
                }
                // Only a full name can be told to be another key's; a bare id leaves account and Region open.
                Ok(Decrypted { key: answered, .. }) if !answered.is_full() => {
                    let message = format!("the answer names its key as {answered}, not by its ARN");
                    trouble = trouble.or(Some(Trouble::new(TroubleKind::MalformedReply, message)));
                }
                // Another key answered although one was named: a hole in the service. Not vouched for.
                Ok(_) | Err(KmsError::IncorrectKey) => {}
                Err(KmsError::Rejected) => bad = Reason::Rejected,
                Err(KmsError::Trouble(t)) => trouble = trouble.or(Some(t)),
            }
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(Answer::Bad(bad)),
        }
    }

    /// Asks KMS under whatever key it finds.
    async fn ask_any<K: Kms>(&self, kms: &K) -> Result<Answer, Trouble> {
        match kms.decrypt(Asked::AnyKey, self.ciphertext, &self.context).await {
            Ok(Decrypted { plaintext, key }) => Ok(Answer::Plaintext { key, plaintext }),
            Err(KmsError::Rejected) => Ok(Answer::Bad(Reason::Rejected)),
            Err(KmsError::IncorrectKey) => Ok(Answer::Bad(Reason::WrongKey)),
            Err(KmsError::Trouble(trouble)) => Err(trouble),
        }
    }

    /// What the signature turned out to stand for, by the answer to exactly this question.
    pub fn opened(self, answer: Answer) -> OpenedSignature {
        OpenedSignature(match answer {
            Answer::Plaintext { key, plaintext } => Inside::Plaintext { key, plaintext, claim: self.claim },
            Answer::Bad(reason) => Inside::Bad(reason),
        })
    }
}

/// What KMS made of a ciphertext. The same for all signatures of one batch.
#[derive(Clone)]
pub enum Answer {
    /// A trusted key opened it.
    Plaintext {
        /// The key.
        key: KeyArn,
        /// What was inside.
        plaintext: Zeroizing<Vec<u8>>,
    },
    /// None did.
    Bad(Reason),
}

/// What a signature turned out to stand for. Belongs to the exact signature bytes, context and keys it
/// was opened with; lets a growing payload be compared again and again with one Decrypt.
#[derive(Clone)]
pub struct OpenedSignature(Inside);

#[derive(Clone)]
enum Inside {
    Plaintext { key: KeyArn, plaintext: Zeroizing<Vec<u8>>, claim: Claim },
    Bad(Reason),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext { key, .. } => write!(f, "Answer(by {key})"),
            Self::Bad(reason) => write!(f, "Answer({reason})"),
        }
    }
}

impl OpenedSignature {
    /// A signature that cannot be one; needs no KMS.
    pub const fn malformed() -> Self {
        Self(Inside::Bad(Reason::Malformed))
    }

    /// Compares with a payload's digest.
    pub fn judge(&self, digest: &Digest) -> Verdict {
        match &self.0 {
            Inside::Bad(reason) => Verdict::Invalid(*reason),
            Inside::Plaintext { key, plaintext, claim } if claim.matches(digest, plaintext) => {
                Verdict::Valid(Valid { key: key.clone(), digest: digest.clone() })
            }
            Inside::Plaintext { .. } => Verdict::Invalid(Reason::Mismatch),
        }
    }

    /// Whether a trusted key made the signature, for whatever bytes.
    pub fn is_genuine(&self) -> bool {
        matches!(self.0, Inside::Plaintext { .. })
    }
}

impl Claim {
    /// Whether a plaintext of KMS is what this claim makes of a digest. Constant time in the content.
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
            Inside::Plaintext { key, .. } => write!(f, "Opened(by {key})"),
            Inside::Bad(reason) => write!(f, "Opened({reason})"),
        }
    }
}

/// Opens a signature under one of several trusted keys: [`DecryptRequest::new`], [`DecryptRequest::ask`], [`DecryptRequest::opened`].
///
/// # Errors
/// [`Trouble`]: no verdict is possible now.
pub async fn open<K: Kms>(
    kms: &K,
    trusted: &[KeyId],
    formats: Formats<'_>,
    context: &Context,
    signature: &Signature,
) -> Result<OpenedSignature, Trouble> {
    match DecryptRequest::new(formats, context, signature) {
        Ok(question) => question.ask(kms, trusted).await.map(|answer| question.opened(answer)),
        Err(bad) => Ok(bad),
    }
}

/// Opens a signature of any format under whatever key KMS finds: the original's `verify`. For people, who see the
/// key.
///
/// # Errors
/// [`Trouble`]: no verdict is possible now.
pub async fn open_any<K: Kms>(
    kms: &K,
    context: &Context,
    signature: &Signature,
) -> Result<OpenedSignature, Trouble> {
    match DecryptRequest::new(Formats::Any, context, signature) {
        Ok(question) => question.ask_any(kms).await.map(|answer| question.opened(answer)),
        Err(bad) => Ok(bad),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::kms::{Encrypted, classify};

    const A: &str = "arn:aws:kms:eu-west-1:111122223333:key/aaaa";
    const B: &str = "arn:aws:kms:eu-west-1:111122223333:key/bbbb";

    /// Key and plaintext, or an error code.
    type Told = Result<(&'static str, Vec<u8>), &'static str>;

    /// Answers Decrypt from a script and remembers which keys were asked.
    struct Script {
        decrypts: Mutex<VecDeque<Told>>,
        encrypt: (&'static str, usize),
        asked: Mutex<Vec<Option<String>>>,
    }

    impl Script {
        fn decrypts(answers: impl IntoIterator<Item = Told>) -> Self {
            Self {
                decrypts: Mutex::new(answers.into_iter().collect()),
                encrypt: (A, 100),
                asked: Mutex::default(),
            }
        }
    }

    impl Kms for Script {
        async fn encrypt(&self, _: &KeyId, plaintext: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            assert_eq!(plaintext.len(), 64);
            Ok(Encrypted {
                ciphertext: vec![7; self.encrypt.1],
                key: KeyArn::from_reply(self.encrypt.0).unwrap(),
            })
        }

        async fn decrypt(&self, asked: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            self.asked.lock().unwrap().push(match asked {
                Asked::Key(key) => Some(key.to_string()),
                Asked::AnyKey => None,
            });
            match self.decrypts.lock().unwrap().pop_front().expect("one call too many") {
                Ok((key, plaintext)) => {
                    Ok(Decrypted { plaintext: plaintext.into(), key: KeyArn::from_reply(key).unwrap() })
                }
                Err(code) => Err(classify(code, "")),
            }
        }
    }

    fn digest() -> Digest {
        Digest::of(b"payload")
    }

    fn good() -> Vec<u8> {
        digest().as_bytes().to_vec()
    }

    /// The verdict's word, or `hold`.
    async fn judged(trusted: &[&str], script: Script) -> String {
        let keys: Vec<KeyId> = trusted.iter().map(|k| k.parse().unwrap()).collect();
        let signature = Signature::parse(b"sig").unwrap();
        let opened = open(&script, &keys, Formats::Plain, &Context::default(), &signature).await;
        let asked = script.asked.into_inner().unwrap();
        assert!(asked.iter().all(Option::is_some), "a Decrypt without a key");
        match opened.map(|o| o.judge(&digest())) {
            Ok(Verdict::Valid(valid)) => format!("valid {}", valid.key()),
            Ok(Verdict::Invalid(reason)) => reason.to_string(),
            Err(trouble) => format!("hold {}", trouble.kind.as_str()),
        }
    }

    #[tokio::test]
    async fn p1_valid_only_for_the_same_digest_under_the_key_that_was_asked() {
        assert_eq!(judged(&[A], Script::decrypts([Ok((A, good()))])).await, format!("valid {A}"));
        assert_eq!(judged(&[A], Script::decrypts([Ok((B, good()))])).await, "wrong-key", "K4");
        assert_eq!(judged(&[A], Script::decrypts([Ok(("aaaa", good()))])).await, "hold malformed-reply");
        for plaintext in [vec![], good()[..63].to_vec(), [good(), vec![0]].concat(), vec![0; 64]] {
            assert_eq!(judged(&[A], Script::decrypts([Ok((A, plaintext))])).await, "mismatch", "K6");
        }
    }

    #[tokio::test]
    async fn several_keys_are_asked_in_turn() {
        let wrong = || Err("IncorrectKeyException");
        let rejected = || Err("InvalidCiphertextException");
        let denied = || Err("AccessDeniedException");
        assert_eq!(judged(&[A], Script::decrypts([wrong()])).await, "wrong-key", "K2");
        assert_eq!(judged(&[A], Script::decrypts([rejected()])).await, "rejected", "K1");
        assert_eq!(
            judged(&[A, B], Script::decrypts([wrong(), Ok((B, good()))])).await,
            format!("valid {B}"),
            "K3"
        );
        assert_eq!(
            judged(&[A, B], Script::decrypts([denied(), Ok((B, good()))])).await,
            format!("valid {B}")
        );
        assert_eq!(judged(&[A, B], Script::decrypts([denied(), wrong()])).await, "hold access-denied");
        assert_eq!(judged(&[A, B], Script::decrypts([wrong(), denied()])).await, "hold access-denied");
        assert_eq!(judged(&[A, B], Script::decrypts([rejected(), wrong()])).await, "rejected");
        assert_eq!(judged(&[A, B], Script::decrypts([wrong(), Err("NewThing")])).await, "hold unknown-error");
    }

    #[tokio::test]
    async fn k22_an_encrypt_answer_that_is_not_what_was_asked_is_not_published() {
        let key: KeyId = A.parse().unwrap();
        for (encrypt, ok) in
            [((A, 100), true), ((A, 6144), true), ((B, 100), false), ((A, 6145), false), ((A, 0), false)]
        {
            let script = Script { encrypt, ..Script::decrypts([]) };
            let sealed = sign(&script, &key, &Context::default(), &digest()).await;
            assert_eq!(sealed.is_ok(), ok, "{encrypt:?}");
        }
    }

    #[test]
    fn k22_an_answer_that_has_the_form_of_a_batch_is_no_ciphertext() {
        let proof = crate::signature::merkle::Proof::new(1, 0, Vec::new()).unwrap();
        let batch = Signature::from(form::Batch::new(proof, LeafKeys::default(), vec![7; 40].into()));
        assert!(Signature::parse(batch.as_bytes()).unwrap().batch().is_some());
        assert_eq!(plain(batch.as_bytes()).unwrap_err().kind, TroubleKind::MalformedReply);
        assert!(plain(batch.ciphertext()).is_ok());
    }

    #[tokio::test]
    async fn what_is_shown_of_an_opened_signature_is_who_opened_it_and_not_what_was_inside() {
        let (keys, context) = ([A.parse().unwrap()], Context::parse(&["channel=stable"]).unwrap());
        let signature = Signature::parse(b"sig").unwrap();
        for (told, shown, is_genuine) in [
            (Ok((A, good())), format!("by {A}"), true),
            (Err("IncorrectKeyException"), "wrong-key".into(), false),
        ] {
            let question = DecryptRequest::new(Formats::Plain, &context, &signature).unwrap();
            assert_eq!(question.context().canonical(), context.canonical());
            let answer = question.ask(&Script::decrypts([told]), &keys).await.unwrap();
            assert_eq!(format!("{answer:?}"), format!("Answer({shown})"));
            let opened = question.opened(answer);
            assert_eq!(format!("{opened:?}"), format!("Opened({shown})"));
            assert_eq!(opened.is_genuine(), is_genuine);
        }
    }

    #[test]
    fn each_reason_is_known_by_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("valid"), None);
    }

    #[tokio::test]
    async fn without_a_named_key_the_key_that_answered_is_told() {
        let script = Script::decrypts([Ok((B, good()))]);
        let signature = Signature::parse(b"sig").unwrap();
        let opened = open_any(&script, &Context::default(), &signature).await.unwrap();
        assert!(matches!(opened.judge(&digest()), Verdict::Valid(valid) if valid.key().as_str() == B));
    }
}
