//! Which quota of AWS a call counts against: there is one for each account, Region and class of
//! keys (AWS KMS Developer Guide, "Request quotas").

use crate::key::{KeyArn, KeyId};
use crate::kms::Operation;

/// The quota.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Quota {
    /// Whose, and where. `None` while that is not known: key ids and aliases are of the caller's
    /// account and the configured Region.
    pub(crate) place: Option<QuotaPlace>,
    /// Of which keys.
    pub(crate) class: KeyClass,
}

/// An account in a Region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QuotaPlace {
    /// The account's number.
    pub(crate) account: String,
    /// The Region.
    pub(crate) region: String,
}

/// Keys whose operations share a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeyClass {
    /// Symmetric keys, for Encrypt and Decrypt.
    Symmetric,
}

impl KeyClass {
    /// The keys that an operation is asked of.
    pub(crate) const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Encrypt | Operation::Decrypt => Self::Symmetric,
        }
    }

    /// Calls in a second to begin with: a hundredth of the smallest regional quota.
    pub(crate) const fn first_rate(self) -> f64 {
        match self {
            Self::Symmetric => 100.0,
        }
    }

    /// The most calls in a second where the policy names none: a tenth of the smallest regional
    /// quota, which for symmetric keys is 10,000.
    pub(crate) const fn highest_rate(self) -> f64 {
        match self {
            Self::Symmetric => 1000.0,
        }
    }

    /// The word for status and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Symmetric => "symmetric",
        }
    }
}

impl QuotaPlace {
    /// Of a key that a request names, if the name says it.
    pub(crate) fn of(key: &KeyId) -> Option<Self> {
        Some(Self { account: key.account()?.to_owned(), region: key.region()?.to_owned() })
    }

    /// Of the key that answered, if its name says it.
    pub(crate) fn of_answer(key: &KeyArn) -> Option<Self> {
        Self::of(&key.to_key_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_account_and_region_and_other_names_say_neither() {
        let place = |key: &str| QuotaPlace::of(&key.parse().unwrap()).map(|of| (of.account, of.region));
        let at = |account: &str, region: &str| Some((account.to_owned(), region.to_owned()));
        for (key, expected) in [
            ("arn:aws:kms:eu-west-1:111122223333:key/1234abcd", at("111122223333", "eu-west-1")),
            ("arn:aws-cn:kms:cn-north-1:1:alias/a", at("1", "cn-north-1")),
            ("alias/a", None),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", None),
        ] {
            assert_eq!(place(key), expected, "{key}");
        }
    }
}
