//! Why a decision was made, as a code that is stored and compared.
//!
//! The sentence is made where it is shown, by `Display`; nothing recognises one, so that any of
//! them may be reworded. A code is stable: state and the record keep it for years. What a sentence
//! needs beside its code (sizes, limits) is kept apart, as `name=number` words.

pub(super) mod sentences;

use std::fmt;

use crate::context;
use crate::fs::{Irregular, Unfit};
use crate::signature::{Format, Suffix};
use crate::signing::Reason;

/// What sentences name. The formats that a rule can have share it.
const SUFFIX: Suffix = Format::Kms.suffix();

/// Why a decision was made, where its outcome does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionReason {
    /// A bad verdict.
    Verdict(Reason),
    /// It is not handled as it is.
    Refusal(RefusalReason),
    /// So many more were refused than are on record. In the record only: it is about no single
    /// file.
    MoreRefused(usize),
    /// It was signed, and that its signature is in place was not confirmed. In the record only.
    Unconfirmed,
}

/// Why a file is not handled as it is. Holds for a version of it, and ends with any change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    /// The payload is not what a file of the rule must be.
    Payload(Unfit),
    /// Its signature is not.
    Signature(Unfit),
    /// Its name leaves no room for the suffix of a signature.
    NameTooLong {
        /// The longest name that does, in bytes.
        max: usize,
    },
    /// In a sign rule, a signature of a signature, or of nothing.
    SignatureOfSignature,
    /// In a sign rule, a signature whose payload is not there.
    StraySignature,
    /// In a sign rule, a name that ends in the suffix of signatures but for its case.
    SuffixInOtherCase,
    /// In a verify rule, a signature whose payload has not come for as long as signatures are
    /// waited for.
    OrphanSignature,
    /// Its signature is of ours and out of date, and `on_stale = "report"`.
    StaleSignature,
    /// What has its signature's name is not known to be of ours.
    ForeignSignature,
    /// The context of this file is more than KMS takes.
    ContextTooLong {
        /// How many bytes it has.
        size: usize,
    },
}

impl RefusalReason {
    /// That there is no room for the suffix where names have at most so many bytes.
    pub(crate) const fn name_too_long(longest: usize, suffix: Suffix) -> Self {
        Self::NameTooLong { max: longest.saturating_sub(suffix.byte_len()) }
    }

    /// Whether it may be over in a moment: a link that is being made in place of a rename.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self, Self::Payload(Unfit::Links { .. }) | Self::Signature(Unfit::Links { .. }))
    }
    /// The codes of all of them.
    pub(crate) const CODES: [&'static str; 18] = [
        "context-too-long",
        "foreign-signature",
        "hard-links",
        "name-too-long",
        "not-regular",
        "orphan-signature",
        "owner",
        "set-id",
        "signature-hard-links",
        "signature-not-regular",
        "signature-of-signature",
        "signature-owner",
        "signature-set-id",
        "signature-too-large",
        "stale-signature",
        "stray-signature",
        "suffix-in-other-case",
        "too-large",
    ];

    /// Whether it holds only as long as the files are found unfit again.
    pub(crate) const fn is_unfit(&self) -> bool {
        match self {
            Self::Payload(_) | Self::Signature(_) | Self::NameTooLong { .. } => true,
            Self::SignatureOfSignature
            | Self::StraySignature
            | Self::SuffixInOtherCase
            | Self::OrphanSignature
            | Self::StaleSignature
            | Self::ForeignSignature
            | Self::ContextTooLong { .. } => false,
        }
    }

    /// The code used in state, the record and logs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Payload(Unfit::NotRegular(_)) => "not-regular",
            Self::Payload(Unfit::Links { .. }) => "hard-links",
            Self::Payload(Unfit::TooLarge { .. }) => "too-large",
            Self::Payload(Unfit::Owner(_)) => "owner",
            Self::Payload(Unfit::SetId) => "set-id",
            Self::Signature(Unfit::NotRegular(_)) => "signature-not-regular",
            Self::Signature(Unfit::Links { .. }) => "signature-hard-links",
            Self::Signature(Unfit::TooLarge { .. }) => "signature-too-large",
            Self::Signature(Unfit::Owner(_)) => "signature-owner",
            Self::Signature(Unfit::SetId) => "signature-set-id",
            Self::NameTooLong { .. } => "name-too-long",
            Self::SignatureOfSignature => "signature-of-signature",
            Self::StraySignature => "stray-signature",
            Self::SuffixInOtherCase => "suffix-in-other-case",
            Self::OrphanSignature => "orphan-signature",
            Self::StaleSignature => "stale-signature",
            Self::ForeignSignature => "foreign-signature",
            Self::ContextTooLong { .. } => "context-too-long",
        }
    }

    /// What a person can do. It ends with any change of the file.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Payload(Unfit::NotRegular(_)) | Self::Signature(Unfit::NotRegular(_)) => {
                "remove it, or put a regular file in its place"
            }
            Self::Payload(Unfit::Links { .. }) | Self::Signature(Unfit::Links { .. }) => {
                "remove the other links (find -samefile), copy it, or raise max_links"
            }
            Self::Payload(Unfit::TooLarge { .. }) | Self::Signature(Unfit::TooLarge { .. }) => {
                "remove it, or raise max_size"
            }
            Self::Payload(Unfit::Owner(_)) | Self::Signature(Unfit::Owner(_)) => {
                "have it brought by an allowed owner, or add its owner to allowed_owners"
            }
            Self::Payload(Unfit::SetId) | Self::Signature(Unfit::SetId) => "chmod ug-s",
            Self::NameTooLong { .. } | Self::ContextTooLong { .. } => "give it a shorter name, or exclude it",
            Self::SignatureOfSignature => "rename or remove it",
            Self::StraySignature => "remove it, or put its file beside it",
            Self::SuffixInOtherCase => "rename it, or exclude it",
            Self::OrphanSignature => "remove it, or have its file sent",
            Self::StaleSignature => {
                "remove the signature to have the file signed, or set on_stale = \"resign\""
            }
            Self::ForeignSignature => "remove or rename what lies there to have the file signed",
        }
    }

    /// What the sentence needs beside the code.
    pub(crate) fn details(&self) -> Option<String> {
        match self {
            Self::Payload(unfit) | Self::Signature(unfit) => match unfit {
                Unfit::NotRegular(what) => Some(format!("type={}", what.as_str())),
                Unfit::Links { links, max } => Some(format!("links={links} max={max}")),
                Unfit::TooLarge { size, max } => Some(format!("size={size} max={max}")),
                Unfit::Owner(uid) => Some(format!("uid={uid}")),
                Unfit::SetId => None,
            },
            Self::NameTooLong { max } => Some(format!("max={max}")),
            Self::ContextTooLong { size } => Some(format!("size={size}")),
            Self::SignatureOfSignature
            | Self::StraySignature
            | Self::SuffixInOtherCase
            | Self::OrphanSignature
            | Self::StaleSignature
            | Self::ForeignSignature => None,
        }
    }

    /// The reason that a code and its details stand for; `None` for any that this version does not
    /// write.
    pub(crate) fn parse(code: &str, details: Option<&str>) -> Option<Self> {
        let of = Details(details.unwrap_or_default());
        let reason = match code {
            "name-too-long" => Self::NameTooLong { max: of.number("max")? },
            "signature-of-signature" => Self::SignatureOfSignature,
            "stray-signature" => Self::StraySignature,
            "suffix-in-other-case" => Self::SuffixInOtherCase,
            "orphan-signature" => Self::OrphanSignature,
            "stale-signature" => Self::StaleSignature,
            "foreign-signature" => Self::ForeignSignature,
            "context-too-long" => Self::ContextTooLong { size: of.number("size")? },
            code => match code.strip_prefix("signature-") {
                Some(code) => Self::Signature(unfit(code, of)?),
                None => Self::Payload(unfit(code, of)?),
            },
        };
        (reason.details().as_deref() == details).then_some(reason)
    }
}

fn unfit(code: &str, of: Details<'_>) -> Option<Unfit> {
    Some(match code {
        "not-regular" => Unfit::NotRegular(Irregular::parse(of.value("type")?)?),
        "hard-links" => Unfit::Links { links: of.number("links")?, max: of.number("max")? },
        "too-large" => Unfit::TooLarge { size: of.number("size")?, max: of.number("max")? },
        "owner" => Unfit::Owner(of.number("uid")?),
        "set-id" => Unfit::SetId,
        _ => return None,
    })
}

/// Words of the form `name=value`.
#[derive(Clone, Copy)]
struct Details<'a>(&'a str);

impl<'a> Details<'a> {
    fn value(self, name: &str) -> Option<&'a str> {
        self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number<T: std::str::FromStr>(self, name: &str) -> Option<T> {
        self.value(name)?.parse().ok()
    }
}

/// The sentence, for people.
impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(unfit) => write!(f, "it {unfit}"),
            Self::Signature(unfit) => write!(f, "its {SUFFIX} {unfit}"),
            Self::NameTooLong { max } => {
                write!(f, "its name is longer than {max} bytes, which leaves no room for {SUFFIX}")
            }
            Self::SignatureOfSignature => {
                write!(f, "{SUFFIX} is the suffix of signatures, and signatures are not signed")
            }
            Self::StraySignature => write!(
                f,
                "{SUFFIX} is the suffix of signatures, and the file that this would be the signature of is not there"
            ),
            Self::SuffixInOtherCase => write!(
                f,
                "its name ends in {SUFFIX}, the suffix of signatures, but for the case of its letters; if it is a \
                 signature, rename it, and if it is not, give it another name or exclude it"
            ),
            Self::OrphanSignature => {
                f.write_str("a signature without its file; it is kept, and judged when the file comes")
            }
            Self::StaleSignature => {
                f.write_str("its signature is of ours and out of date; on_stale = \"report\" leaves it")
            }
            Self::ForeignSignature => f.write_str(
                "something that is not known to be our signature lies beside it; remove it to have the file signed",
            ),
            Self::ContextTooLong { size } => context::ContextError::TooLong(*size).fmt(f),
        }
    }
}

impl DecisionReason {
    /// The code used in state, the record and logs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Verdict(reason) => reason.as_str(),
            Self::Refusal(reason) => reason.as_str(),
            Self::MoreRefused(_) => MORE_REFUSED,
            Self::Unconfirmed => UNCONFIRMED,
        }
    }

    /// What the sentence needs beside the code.
    pub(crate) fn details(&self) -> Option<String> {
        match self {
            Self::Verdict(_) | Self::Unconfirmed => None,
            Self::Refusal(reason) => reason.details(),
            Self::MoreRefused(count) => Some(format!("count={count}")),
        }
    }

    /// The reason that a code and its details stand for. `None` for any that this version does not
    /// write: that equals no reason, so what was decided for it is decided again.
    pub(crate) fn parse(code: &str, details: Option<&str>) -> Option<Self> {
        if let (Some(reason), None) = (Reason::parse(code), details) {
            return Some(Self::Verdict(reason));
        }
        if let (UNCONFIRMED, None) = (code, details) {
            return Some(Self::Unconfirmed);
        }
        if code == MORE_REFUSED {
            return Details(details?).number("count").map(Self::MoreRefused);
        }
        RefusalReason::parse(code, details).map(Self::Refusal)
    }

    /// As one text, which is what the record has: the code, and the details after a space.
    pub(crate) fn to_record(&self) -> String {
        match self.details() {
            Some(details) => format!("{} {details}", self.as_str()),
            None => self.as_str().to_owned(),
        }
    }

    /// Of such a text. Rows of earlier versions have sentences instead, which are none.
    pub fn from_record(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some((code, details)) => Self::parse(code, Some(details)),
            None => Self::parse(text, None),
        }
    }
}

const MORE_REFUSED: &str = "more-refused";
const UNCONFIRMED: &str = "unconfirmed";

/// The words for people.
impl fmt::Display for DecisionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(reason) => reason.fmt(f),
            Self::Refusal(reason) => reason.fmt(f),
            Self::MoreRefused(count) => {
                write!(f, "{count} more were refused within an hour than are on record; this is the last")
            }
            Self::Unconfirmed => f.write_str(
                "its signature was made and may have been seen; it was taken back, or the daemon ended before it was \
                 known to be in place",
            ),
        }
    }
}

/// The reason of a row of the record, as people read it: also that of a row of an earlier version.
pub(crate) fn shown(recorded: &str) -> String {
    DecisionReason::from_record(recorded).map_or_else(|| recorded.to_owned(), |reason| reason.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn unfits() -> Vec<Unfit> {
        let irregular = Irregular::ALL.map(Unfit::NotRegular).into_iter();
        irregular
            .chain([
                Unfit::Links { links: 2, max: 1 },
                Unfit::TooLarge { size: u64::MAX, max: 3 },
                Unfit::Owner(1000),
                Unfit::SetId,
            ])
            .collect()
    }

    /// One of each.
    pub(in crate::state) fn refusals() -> Vec<RefusalReason> {
        let all = unfits().into_iter().map(RefusalReason::Payload);
        all.chain(unfits().into_iter().map(RefusalReason::Signature))
            .chain([
                RefusalReason::NameTooLong { max: 251 },
                RefusalReason::SignatureOfSignature,
                RefusalReason::StraySignature,
                RefusalReason::SuffixInOtherCase,
                RefusalReason::OrphanSignature,
                RefusalReason::StaleSignature,
                RefusalReason::ForeignSignature,
                RefusalReason::ContextTooLong { size: 9000 },
            ])
            .collect()
    }

    #[test]
    fn each_reason_is_read_back_from_what_is_stored_and_no_two_are_stored_alike() {
        let verdicts = Reason::ALL.map(DecisionReason::Verdict).into_iter();
        let reasons: Vec<_> = verdicts
            .chain(refusals().into_iter().map(DecisionReason::Refusal))
            .chain([DecisionReason::MoreRefused(7), DecisionReason::Unconfirmed])
            .collect();
        let stored: BTreeSet<String> = reasons.iter().map(DecisionReason::to_record).collect();
        assert_eq!(stored.len(), reasons.len());
        for reason in reasons {
            let details = reason.details();
            assert_eq!(DecisionReason::parse(reason.as_str(), details.as_deref()), Some(reason.clone()));
            assert_eq!(DecisionReason::from_record(&reason.to_record()), Some(reason.clone()));
            assert_eq!(shown(&reason.to_record()), reason.to_string());
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{reason:?}");
        }
    }

    #[test]
    fn every_code_of_a_refusal_is_among_the_codes() {
        let codes: BTreeSet<_> = refusals().iter().map(RefusalReason::as_str).collect();
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), RefusalReason::CODES);
    }

    #[test]
    fn what_this_version_does_not_write_is_no_reason() {
        for text in [
            "",
            "of-a-later-version",
            "it has 7 bytes; max_size allows 3",
            "too-large",
            "too-large size=7",
            "too-large size=7 max=x",
            "too-large max=3 size=7",
            "set-id size=7",
            "mismatch size=7",
            "signature-mismatch",
            "not-regular type=file",
            "more-refused",
        ] {
            assert_eq!(DecisionReason::from_record(text), None, "{text}");
            assert_eq!(shown(text), text);
        }
    }
}
