//! The signature vectors as they are thought up: each case in one or two lines, and the sealing
//! that their signatures are made with. That is written here a second time, from the description of
//! the format and not from the program's code, with nonces that come of a case's name: so the same
//! bytes come out each time.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest as _, Sha512};

use super::directory;
use super::format::{Content, Vector, unhex};

/// The payload of cases that are not about the payload.
pub(super) const PAYLOAD: &[u8] = b"payload\n";

/// Bytes of a nonce.
const NONCE: usize = 12;

/// One case. What is not said is as in the plainest one: `payload\n`, signed by `local:demo`
/// without context and verified with exactly that key.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) vector: Vector,
    maker: Maker,
    contents: Option<Option<Content>>,
}

/// How the signature is made.
struct Maker {
    keyring: &'static str,
    key: String,
    context: Vec<(String, String)>,
    plaintext: Option<Vec<u8>>,
    nonce: [u8; NONCE],
}

/// A case by its class, name and comment.
pub(super) fn case(expect: &str, name: &str, comment: &str) -> Case {
    let by = (expect == "valid").then(|| "local:demo".to_owned());
    Case {
        name: name.to_owned(),
        vector: Vector {
            expect: expect.to_owned(),
            comment: comment.to_owned(),
            by,
            cause: None,
            says: None,
            keyring: "public".to_owned(),
            keyring_mode: 0o600,
            keys: vec!["local:demo".to_owned()],
            contexts: Vec::new(),
            payload: Content::Text(PAYLOAD.to_vec()),
            signature: None,
            tail: None,
        },
        maker: Maker {
            keyring: "public",
            key: "demo".to_owned(),
            context: Vec::new(),
            plaintext: None,
            nonce: nonce_of(name),
        },
        contents: None,
    }
}

impl Case {
    /// Another payload.
    pub(super) fn payload(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.vector.payload = Content::Text(bytes.as_ref().to_vec());
        self
    }

    /// A payload of one byte, so many times.
    pub(super) fn repeat(mut self, byte: u8, count: usize) -> Self {
        self.vector.payload = Content::Repeat(byte, count);
        self
    }

    /// The verifier trusts these.
    pub(super) fn keys(mut self, keys: &[&str]) -> Self {
        self.vector.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self
    }

    /// The verifier gives these arguments of `--context`.
    pub(super) fn asks(mut self, contexts: &[&str]) -> Self {
        self.vector.contexts = contexts.iter().map(|context| (*context).to_owned()).collect();
        self
    }

    /// The verifier's keyring.
    pub(super) fn keyring(mut self, name: &str) -> Self {
        self.vector.keyring = name.to_owned();
        self
    }

    /// The mode of the verifier's keyring.
    pub(super) fn keyring_mode(mut self, mode: u32) -> Self {
        self.vector.keyring_mode = mode;
        self
    }

    /// What the program says, where that is not plain from the class.
    pub(super) fn says(mut self, words: impl Into<String>) -> Self {
        self.vector.says = Some(words.into());
        self
    }

    /// The kind of trouble, and the words.
    pub(super) fn held(mut self, cause: &str, words: &str) -> Self {
        self.vector.cause = Some(cause.to_owned());
        self.says(words)
    }

    /// The signer's key; for valid cases also the one that vouches, and the one that is trusted.
    pub(super) fn by(mut self, keyring: &'static str, key: &str) -> Self {
        (self.maker.keyring, self.maker.key) = (keyring, key.to_owned());
        if self.vector.expect == "valid" {
            self.vector.by = Some(format!("local:{key}"));
            self.vector.keys = vec![format!("local:{key}")];
        }
        self
    }

    /// The context that it was signed with.
    pub(super) fn made(mut self, pairs: &[(&str, &str)]) -> Self {
        self.maker.context = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self
    }

    /// What was sealed, if that is not the payload's SHA-512.
    pub(super) fn plaintext(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.maker.plaintext = Some(bytes.as_ref().to_vec());
        self
    }

    /// The first bytes of the nonce.
    pub(super) fn nonce(mut self, start: &[u8]) -> Self {
        self.maker.nonce[..start.len()].copy_from_slice(start);
        self
    }

    /// The good signature, changed. After everything that says how it is made.
    pub(super) fn turn(mut self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        self.contents = Some(Some(Content::Hex(change(self.good()))));
        self
    }

    /// As [`Self::turn`], where what comes of it is text.
    pub(super) fn turn_to_text(mut self, change: impl FnOnce(Vec<u8>) -> String) -> Self {
        self.contents = Some(Some(Content::Text(change(self.good()).into_bytes())));
        self
    }

    /// Another program's text in place of the signature.
    pub(super) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        self.contents = Some(Some(Content::Text(text.as_ref().to_vec())));
        self
    }

    /// Any content in place of the signature.
    pub(super) fn content(mut self, content: Content) -> Self {
        self.contents = Some(Some(content));
        self
    }

    /// No signature.
    pub(super) fn absent(mut self) -> Self {
        self.contents = Some(None);
        self
    }

    /// Zeros after the signature.
    pub(super) fn zeros(mut self, count: usize) -> Self {
        self.vector.tail = Some(Content::Repeat(0, count));
        self
    }

    /// The finished vector.
    pub(super) fn finish(mut self) -> (String, Vector) {
        let good = || Some(Content::Hex(self.good()));
        self.vector.signature = self.contents.clone().unwrap_or_else(good);
        (format!("{}.txt", self.name), self.vector)
    }

    fn good(&self) -> Vec<u8> {
        let Maker { keyring, key, context, plaintext, nonce } = &self.maker;
        let plaintext = plaintext.clone().unwrap_or_else(|| sha512(&self.vector.payload.bytes()));
        let secret = secret(keyring, key);
        let header = header(key);
        let bound = [header.clone(), canonical(context)].concat();
        [header, nonce.to_vec(), seal(&secret, *nonce, &bound, &plaintext)].concat()
    }
}

/// What a signature of `local:NAME` begins with.
pub(super) fn header(name: &str) -> Vec<u8> {
    [b"KSL1", [u8::try_from(name.len()).unwrap()].as_slice(), name.as_bytes()].concat()
}

/// The bytes that stand for a context: keys and values, sorted by key, each after its length in
/// four bytes.
pub(super) fn canonical(context: &[(String, String)]) -> Vec<u8> {
    let sorted: BTreeMap<_, _> = context.iter().cloned().collect();
    let mut bytes = Vec::new();
    for part in sorted.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

/// AES-256-GCM: ciphertext and tag.
pub(super) fn seal(secret: &[u8], nonce: [u8; NONCE], bound: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).unwrap());
    let mut bytes = plaintext.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut bytes).unwrap();
    bytes
}

/// The secret of a key in one of the public keyrings.
pub(super) fn secret(keyring: &str, key: &str) -> Vec<u8> {
    let text = fs::read_to_string(directory().join("keyring").join(keyring)).unwrap();
    let ring: toml::Table = toml::from_str(&text).unwrap();
    unhex(ring["keys"][key]["secret"].as_str().unwrap())
}

/// A signature as the trees have them: of this content, by a public key, bound to these pairs.
pub(super) fn signature(
    name: &str,
    keyring: &'static str,
    key: &str,
    context: &[(&str, &str)],
    of: &[u8],
) -> Vec<u8> {
    case("", name, "").by(keyring, key).made(context).payload(of).good()
}

/// The nonce of a name: the first bytes of its SHA-512, after a prefix that says what for.
pub(super) fn nonce_of(name: &str) -> [u8; NONCE] {
    *sha512(format!("kms-sig vector nonce: {name}").as_bytes()).first_chunk().unwrap()
}

/// SHA-512.
pub(super) fn sha512(bytes: &[u8]) -> Vec<u8> {
    Sha512::digest(bytes).to_vec()
}
