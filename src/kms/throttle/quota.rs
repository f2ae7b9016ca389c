//! Which quota of AWS a call counts against: there is one for each account, Region and class of
//! keys (AWS KMS Developer Guide, "Request quotas").

use crate::key::{KeyArn, KeyId};
use crate::trust::SigningAlgorithm;

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
    /// RSA keys, for Sign.
    Rsa,
    /// Keys of elliptic curves, Ed25519 among them, for Sign.
    Ecc,
    /// Keys of whatever kind, for `GetPublicKey`, which has a quota of its own.
    Any,
}

impl KeyClass {
    /// The keys that sign so.
    pub(crate) const fn of(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::Ed25519
            | SigningAlgorithm::EcdsaSha256
            | SigningAlgorithm::EcdsaSha384
            | SigningAlgorithm::EcdsaSha512 => Self::Ecc,
            SigningAlgorithm::RsaPkcs1Sha256
            | SigningAlgorithm::RsaPkcs1Sha384
            | SigningAlgorithm::RsaPkcs1Sha512 => Self::Rsa,
        }
    }

    /// Calls in a second to begin with: a hundredth of the smallest regional quota of symmetric
    /// keys, and a tenth or less of the others.
    pub(crate) const fn first_rate(self) -> f64 {
        match self {
            Self::Symmetric | Self::Rsa | Self::Ecc | Self::Any => 100.0,
        }
    }

    /// The most calls in a second where the policy names none. A tenth of the smallest regional
    /// quota of symmetric keys, which is 10,000; of the others, whose quotas are 1,000 (2,000 for
    /// `GetPublicKey`), 300: a tenth of those would be less than what one signer may want.
    pub(crate) const fn highest_rate(self) -> f64 {
        match self {
            Self::Symmetric => 1000.0,
            Self::Rsa | Self::Ecc | Self::Any => 300.0,
        }
    }

    /// The word for status and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Symmetric => "symmetric",
            Self::Rsa => "rsa",
            Self::Ecc => "ecc",
            Self::Any => "public-key",
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
    fn every_algorithm_counts_against_the_quota_of_its_keys() {
        let classes = SigningAlgorithm::ALL.map(|algorithm| KeyClass::of(algorithm).as_str());
        assert_eq!(classes, ["ecc", "ecc", "ecc", "ecc", "rsa", "rsa", "rsa"]);
        for (class, highest) in [
            (KeyClass::Symmetric, 1000.0),
            (KeyClass::Rsa, 300.0),
            (KeyClass::Ecc, 300.0),
            (KeyClass::Any, 300.0),
        ] {
            assert!((class.highest_rate() - highest).abs() < f64::EPSILON, "{class:?}");
            assert!(class.first_rate() <= class.highest_rate(), "{class:?}");
        }
    }

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
