//! Judging signatures: asks KMS what a signature stands for.

use super::request::{DecryptReply, DecryptRequest, OpenedSignature};
use crate::context::Context;
use crate::digest::set::DigestRequest;
use crate::key::KeyId;
use crate::kms::{Asked, Decrypted, Kms, KmsError, Trouble, TroubleKind};
use crate::message::log;
use crate::signature::{Formats, Reason, Signature};

/// Opens signatures, under trusted keys of a key management service.
///
/// ```
/// use kms_sig::context::Context;
/// use kms_sig::digest::set::DigestSet;
/// use kms_sig::key::KeyId;
/// use kms_sig::kms::local::{Keyring, Local};
/// use kms_sig::signature::Format;
/// use kms_sig::signing::{Formats, Reason, Signer, Verdict, Verifier};
///
/// # let dir = tempfile::tempdir()?;
/// # let keyring = dir.path().join("keyring");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// # Keyring::create_key(&keyring, &"local:releases".parse()?)?;
/// let kms = Local::new(keyring);
/// let trusted: [KeyId; 1] = ["local:releases".parse()?];
/// let context = Context::default();
/// # let digests = DigestSet::of(Format::Kms.digests(), b"a payload");
/// # let signature = Signer::new(&kms, &trusted[0]).sign(&context, &digests).await?.signature;
///
/// let verifier = Verifier::new(&kms, &trusted, Formats::Any);
/// let opened = verifier.open(&context, &signature).await?;
/// let payload = |bytes| DigestSet::of(verifier.digests(), bytes);
/// assert!(matches!(opened.judge(&payload(b"a payload"))?, Verdict::Valid(_)));
/// assert!(matches!(opened.judge(&payload(b"another"))?, Verdict::Invalid(Reason::Mismatch)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Verifier<'a, K> {
    kms: &'a K,
    /// None: whatever key KMS finds.
    keys: Option<&'a [KeyId]>,
    formats: Formats<'a>,
}

impl<'a, K: Kms> Verifier<'a, K> {
    /// Who trusts these keys, and takes signatures of these formats.
    pub const fn new(kms: &'a K, keys: &'a [KeyId], formats: Formats<'a>) -> Self {
        Self { kms, keys: Some(keys), formats }
    }

    /// Who takes any signature under whatever key KMS finds: the original's `verify`. For people,
    /// who see the key.
    pub const fn of_any_key(kms: &'a K) -> Self {
        Self { kms, keys: None, formats: Formats::Any }
    }

    /// What must be known of a payload to judge any signature that it takes.
    pub const fn digests(&self) -> DigestRequest {
        self.formats.digests()
    }

    /// The keys that it trusts, in the order in which they are asked; none if any may vouch.
    pub fn keys(&self) -> &'a [KeyId] {
        self.keys.unwrap_or_default()
    }

    /// Opens a signature that should belong to this context. What comes of it may be compared with
    /// a payload again and again.
    ///
    /// # Errors
    /// [`Trouble`]: no verdict is possible now.
    pub async fn open(&self, context: &Context, signature: &Signature) -> Result<OpenedSignature, Trouble> {
        match self.request(context, signature) {
            Ok(request) => self.ask(&request).await.map(|reply| request.opened(reply)),
            Err(bad) => Ok(bad),
        }
    }

    /// The first half of [`Verifier::open`]: what KMS is to be asked.
    ///
    /// # Errors
    /// Nothing: the signature is bad, and KMS need not be asked to tell.
    pub fn request<'s>(
        &self,
        context: &'s Context,
        signature: &'s Signature,
    ) -> Result<DecryptRequest<'s>, OpenedSignature> {
        DecryptRequest::new(self.formats, context, signature)
    }

    /// The second half: asks KMS. Signatures of one batch make the same request, so one reply
    /// serves them all.
    ///
    /// # Errors
    /// [`Trouble`]: no verdict is possible now.
    pub async fn ask(&self, request: &DecryptRequest<'_>) -> Result<DecryptReply, Trouble> {
        match self.keys {
            Some(keys) => self.ask_keys(keys, request).await,
            None => self.ask_any(request).await,
        }
    }

    /// Asks KMS under each of several trusted keys in turn, by its name.
    ///
    /// A key that opens it wins. Otherwise trouble with any key is trouble: that key might have
    /// been the one. Otherwise the signature is bad: `wrong-key` if every key disowned it,
    /// `rejected` if one called it damaged.
    async fn ask_keys(&self, keys: &[KeyId], request: &DecryptRequest<'_>) -> Result<DecryptReply, Trouble> {
        let mut bad = Reason::WrongKey;
        let mut trouble = None;
        for key in keys {
            match self.kms.decrypt(Asked::Key(key), request.ciphertext(), request.context()).await {
                Ok(Decrypted { plaintext, key: answered }) if key.is_answered_by(&answered) => {
                    return Ok(DecryptReply::plaintext(answered, plaintext));
                }
                // Only a full name can be told to be another key's; a bare id leaves account and
                // Region open.
                Ok(Decrypted { key: answered, .. }) if !answered.is_full() => {
                    let message = format!("the answer names its key as {answered}, not by its ARN");
                    trouble = trouble.or(Some(Trouble::new(TroubleKind::MalformedReply, message)));
                }
                // KMS never does that. Not vouched for, and somebody must look at who answers.
                Ok(Decrypted { key: answered, .. }) => log!(KmsAnsweredForAnother, %key, %answered),
                Err(KmsError::IncorrectKey) => {}
                Err(KmsError::Rejected) => bad = Reason::Rejected,
                Err(KmsError::Trouble(t)) => trouble = trouble.or(Some(t)),
            }
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(DecryptReply::bad(bad)),
        }
    }

    /// Asks KMS under whatever key it finds.
    async fn ask_any(&self, request: &DecryptRequest<'_>) -> Result<DecryptReply, Trouble> {
        match self.kms.decrypt(Asked::AnyKey, request.ciphertext(), request.context()).await {
            Ok(Decrypted { plaintext, key }) => Ok(DecryptReply::plaintext(key, plaintext)),
            Err(KmsError::Rejected) => Ok(DecryptReply::bad(Reason::Rejected)),
            Err(KmsError::IncorrectKey) => Ok(DecryptReply::bad(Reason::WrongKey)),
            Err(KmsError::Trouble(trouble)) => Err(trouble),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::digest::Digest;
    use crate::digest::algorithm::HashAlgorithm;
    use crate::digest::set::DigestSet;
    use crate::key::KeyArn;
    use crate::kms::{Encrypted, PublicKeyReply, SignReply, TroubleKind, classify};
    use crate::signing::Verdict;
    use crate::trust::{Message, SigningAlgorithm};

    const A: &str = "arn:aws:kms:eu-west-1:111122223333:key/aaaa";
    const B: &str = "arn:aws:kms:eu-west-1:111122223333:key/bbbb";

    /// Key and plaintext, or an error code.
    type ScriptedReply = Result<(&'static str, Vec<u8>), &'static str>;

    /// Answers Decrypt from a script and remembers which keys were asked.
    struct Script {
        decrypts: Mutex<VecDeque<ScriptedReply>>,
        asked: Mutex<Vec<Option<String>>>,
    }

    impl Script {
        fn decrypts(answers: impl IntoIterator<Item = ScriptedReply>) -> Self {
            Self { decrypts: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() }
        }
    }

    impl Kms for Script {
        async fn encrypt(&self, _: &KeyId, _: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            panic!("nothing is signed here")
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

        async fn sign(&self, _: &KeyId, _: Message<'_>, _: SigningAlgorithm) -> Result<SignReply, KmsError> {
            panic!("nothing is signed here")
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            panic!("nobody asks for a public key here")
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
        let verifier = Verifier::new(&script, &keys, Formats::Plain);
        let opened = verifier.open(&Context::default(), &signature).await;
        let asked = script.asked.into_inner().unwrap();
        assert!(asked.iter().all(Option::is_some), "a Decrypt without a key");
        match opened.and_then(|opened| opened.judge(&digest().into())) {
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
    async fn what_is_shown_of_an_opened_signature_is_who_opened_it_and_not_what_was_inside() {
        let (keys, context) = ([A.parse().unwrap()], Context::parse(&["channel=stable"]).unwrap());
        let signature = Signature::parse(b"sig").unwrap();
        for (told, shown, is_genuine) in [
            (Ok((A, good())), format!("by {A}"), true),
            (Err("IncorrectKeyException"), "wrong-key".into(), false),
        ] {
            let script = Script::decrypts([told]);
            let verifier = Verifier::new(&script, &keys, Formats::Plain);
            let request = verifier.request(&context, &signature).unwrap();
            assert_eq!(request.context().canonical(), context.canonical());
            let reply = verifier.ask(&request).await.unwrap();
            assert_eq!(format!("{reply:?}"), format!("DecryptReply({shown})"));
            let opened = request.opened(reply);
            assert_eq!(format!("{opened:?}"), format!("OpenedSignature({shown})"));
            assert_eq!(opened.is_genuine(), is_genuine);
        }
    }

    #[tokio::test]
    async fn without_a_named_key_the_key_that_answered_is_told() {
        let script = Script::decrypts([Ok((B, good()))]);
        let signature = Signature::parse(b"sig").unwrap();
        let opened = Verifier::of_any_key(&script).open(&Context::default(), &signature).await.unwrap();
        let verdict = opened.judge(&digest().into()).unwrap();
        assert!(matches!(verdict, Verdict::Valid(valid) if valid.key().as_str() == B));
    }

    #[tokio::test]
    async fn p2_without_the_digest_that_the_format_asks_for_there_is_no_verdict() {
        let (keys, signature) = ([A.parse().unwrap()], Signature::parse(b"sig").unwrap());
        let request = |algorithm| DigestSet::of(DigestRequest::digest(algorithm), b"payload");
        for (told, is_genuine) in [(Ok((A, good())), true), (Err("IncorrectKeyException"), false)] {
            let script = Script::decrypts([told]);
            let verifier = Verifier::new(&script, &keys, Formats::Plain);
            let opened = verifier.open(&Context::default(), &signature).await.unwrap();
            let without = opened.judge(&request(HashAlgorithm::Sha256));
            // What no trusted key made is invalid whatever the payload is.
            assert_eq!(without.is_err(), is_genuine, "{without:?}");
            assert!(without.err().is_none_or(|trouble| trouble.kind == TroubleKind::Internal));
            let with = opened.judge(&DigestSet::of(verifier.digests(), b"payload")).unwrap();
            assert_eq!(matches!(with, Verdict::Valid(_)), is_genuine);
        }
    }
}
