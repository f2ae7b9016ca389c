//! Signatures of minisign (minisign's page, "Signature format"): four lines, two of them base64.
//!
//! The first signature is over BLAKE2b-512 of the file, the second over the first and the trusted
//! comment. The first line is signed by nobody.

use std::ffi::OsStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::suffix::Suffix;
use crate::context::percent_encoded;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::DigestSet;
use crate::trust::PublicKey;
use crate::trust::minisign_key::KeyNumber;
use crate::trust::{Message, SigningAlgorithm};

/// What its signatures are named by.
pub(super) const SUFFIX: Suffix = Suffix::new(".minisig");

/// What the first and the third line begin with.
pub(super) const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// What we write into the first line.
const COMMENT: &str = "signature from kms-sig";

/// Algorithms: of what is hashed first, and of the old form, whose signature is over the file
/// itself.
const HASHED: &[u8] = b"ED";
const LEGACY: &[u8] = b"Ed";

/// The longest trusted comment that is made, in bytes: a message of KMS has 4,096, and the stock
/// tool makes none that is longer.
const MAX_MADE: usize = 4000;
/// The longest lines that are read, in bytes, with a carriage return if they end in one: the stock
/// tool reads no longer ones. Of the comments alone it takes 1,003 and 8,173.
const MAX_UNTRUSTED: usize = UNTRUSTED.len() + 1003;
const MAX_TRUSTED: usize = TRUSTED.len() + 8173;

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinisignSignature {
    is_legacy: bool,
    number: KeyNumber,
    signature: [u8; 64],
    trusted_comment: String,
    global: [u8; 64],
}

/// Why bytes are no such signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MinisignMalformed {
    /// Not the four lines.
    #[error("it has not the four lines of a minisign signature")]
    Lines,
    /// One of the two lines of base64.
    #[error("line {0} of the minisign signature is damaged")]
    Line(usize),
    /// Another algorithm.
    #[error("the minisign signature is of an unknown algorithm")]
    Algorithm,
    /// More than the stock tool reads.
    #[error("line {0} of the minisign signature is longer than the stock tool reads")]
    LongLine(usize),
    /// A control character other than a tab. Verifiers disagree about them: one takes them off the
    /// end, one stops at a zero, one prints them as they are, one refuses them.
    #[error("line {0} of the minisign signature holds a control character")]
    Control(usize),
    /// Something after the fourth line. Nobody signed it, and some verifiers refuse it.
    #[error("something follows the four lines of the minisign signature")]
    Trailing,
}

/// Why a text cannot be a trusted comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommentError {
    /// Too long.
    #[error("a trusted comment has at most {MAX_MADE} bytes")]
    TooLong,
    /// A line break, or what a terminal would act on.
    #[error("a trusted comment has no control characters but tabs")]
    Control,
    /// Some verifiers take them off, and then find it changed.
    #[error("a trusted comment neither begins nor ends with a blank")]
    Blank,
}

/// Whether a text can be a trusted comment that every verifier reads as it is.
///
/// # Errors
/// [`CommentError`].
pub fn check_comment(comment: &str) -> Result<(), CommentError> {
    if comment.len() > MAX_MADE {
        return Err(CommentError::TooLong);
    }
    if comment.chars().any(|c| c.is_control() && c != '\t') {
        return Err(CommentError::Control);
    }
    if comment.trim() != comment {
        return Err(CommentError::Blank);
    }
    Ok(())
}

/// The trusted comment that minisign writes by itself: when, which file, and that it was hashed. In
/// the name, `%`, control characters and what is no text are percent-encoded.
pub fn default_comment(since_epoch: u64, name: Option<&OsStr>) -> String {
    let file = name.map(|name| format!("\tfile:{}", percent_encoded(name))).unwrap_or_default();
    format!("timestamp:{since_epoch}{file}\thashed")
}

/// What the second signature is over.
pub fn globally_signed(signature: &[u8; 64], trusted_comment: &str) -> Vec<u8> {
    [signature, trusted_comment.as_bytes()].concat()
}

impl MinisignSignature {
    /// One that a key made of BLAKE2b-512 of a file, and of [`globally_signed`].
    pub fn new(number: KeyNumber, signature: [u8; 64], trusted_comment: &str, global: [u8; 64]) -> Self {
        let trusted_comment = trusted_comment.to_owned();
        Self { is_legacy: false, number, signature, trusted_comment, global }
    }

    /// Reads a signature. Lines may end in CR and LF, and the last one without either; nothing but
    /// empty lines may follow.
    ///
    /// # Errors
    /// [`MinisignMalformed`].
    pub fn parse(text: &[u8]) -> Result<Self, MinisignMalformed> {
        let text = std::str::from_utf8(text).map_err(|_| MinisignMalformed::Lines)?;
        let mut lines = text.split('\n');
        let mut next = || lines.next().ok_or(MinisignMalformed::Lines);
        let (untrusted, first, trusted, second) = (next()?, next()?, next()?, next()?);
        line(untrusted, UNTRUSTED, 1, MAX_UNTRUSTED)?;
        let comment = line(trusted, TRUSTED, 3, MAX_TRUSTED)?;
        if lines.any(|line| !without_return(line).is_empty()) {
            return Err(MinisignMalformed::Trailing);
        }
        let (first, second) = (without_return(first), without_return(second));
        let first = STANDARD.decode(first).map_err(|_| MinisignMalformed::Line(2))?;
        let (algorithm, rest) = first.split_at_checked(2).ok_or(MinisignMalformed::Line(2))?;
        let is_legacy = match algorithm {
            HASHED => false,
            LEGACY => true,
            _ => return Err(MinisignMalformed::Algorithm),
        };
        let (number, signature) = rest.split_first_chunk::<8>().ok_or(MinisignMalformed::Line(2))?;
        let signature = signature.try_into().map_err(|_| MinisignMalformed::Line(2))?;
        let second = STANDARD.decode(second).map_err(|_| MinisignMalformed::Line(4))?;
        let global = second.as_slice().try_into().map_err(|_| MinisignMalformed::Line(4))?;
        let trusted_comment = comment.to_owned();
        Ok(Self { is_legacy, number: KeyNumber(*number), signature, trusted_comment, global })
    }

    /// As minisign writes it.
    pub fn to_text(&self) -> String {
        let algorithm = if self.is_legacy { LEGACY } else { HASHED };
        let first = STANDARD.encode([algorithm, &self.number.0, &self.signature].concat());
        let second = STANDARD.encode(self.global);
        format!("{UNTRUSTED}{COMMENT}\n{first}\n{TRUSTED}{}\n{second}\n", self.trusted_comment)
    }

    /// The key id that it names.
    pub const fn number(&self) -> KeyNumber {
        self.number
    }

    /// Whether it is over the file itself and not over its hash.
    pub const fn is_legacy(&self) -> bool {
        self.is_legacy
    }

    /// The comment that is signed. It holds no control characters but tabs; escape it all the same,
    /// as any text of others.
    pub fn trusted_comment(&self) -> &str {
        &self.trusted_comment
    }

    /// The name of the file that was signed, percent-encoded, if the trusted comment says it.
    pub fn file(&self) -> Option<&str> {
        self.trusted_comment.split('\t').find_map(|field| field.strip_prefix("file:"))
    }

    /// Whether this key made the second signature: then the first and the comment belong together.
    pub fn is_bound_by(&self, key: &PublicKey) -> bool {
        let covered = globally_signed(&self.signature, &self.trusted_comment);
        key.verify(SigningAlgorithm::Ed25519, Message::Raw(&covered), &self.global)
    }

    /// Whether this key made both signatures, the first of these digests. `None`: they lack the one
    /// that it is over.
    pub fn is_of(&self, key: &PublicKey, digests: &DigestSet) -> Option<bool> {
        let digest = digests.value(HashAlgorithm::Blake2b512)?;
        let message = Message::Raw(digest.as_bytes());
        let is_of_it = !self.is_legacy && key.verify(SigningAlgorithm::Ed25519, message, &self.signature);
        Some(is_of_it && self.is_bound_by(key))
    }
}

/// What a line of text holds after its beginning.
fn line<'t>(line: &'t str, begin: &str, number: usize, max_len: usize) -> Result<&'t str, MinisignMalformed> {
    let comment = without_return(line).strip_prefix(begin).ok_or(MinisignMalformed::Lines)?;
    if line.len() > max_len {
        return Err(MinisignMalformed::LongLine(number));
    }
    if comment.chars().any(|c| c.is_control() && c != '\t') {
        return Err(MinisignMalformed::Control(number));
    }
    Ok(comment)
}

fn without_return(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}
