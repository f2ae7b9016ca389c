//! Which key is meant: as a caller names it ([`KeyId`]) and as KMS answers ([`KeyArn`]).
//!
//! Follows the `KeyId` parameter of the AWS KMS API reference (key id, key ARN, alias name, alias
//! ARN), plus `local:NAME` for the keyring of this crate. Never talks to anyone.

use std::fmt;
use std::str::FromStr;

use crate::escape::Escaped;

/// The longest `KeyId` that KMS takes, in characters (AWS KMS API reference, Decrypt).
const MAX_LEN: usize = 2048;

/// The longest name of a local key, in bytes.
pub const MAX_LOCAL_NAME: usize = 64;

/// Who keeps a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// AWS KMS.
    Aws,
    /// The keyring file of this host.
    Local,
}

/// A key as a caller names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId {
    text: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Local,
    Arn,
    Id,
    Alias,
    AliasArn,
}

/// Why a text names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing there.
    #[error("the key is empty; write a key id, key ARN, alias/NAME, alias ARN or local:NAME")]
    Empty,
    /// Longer than KMS takes.
    #[error("a key has at most {MAX_LEN} characters")]
    TooLong,
    /// A `local:` name with other characters, or too long.
    #[error(
        "\"{}\" is no local key; after local: come 1 to {MAX_LOCAL_NAME} letters, digits, '.', '_' or '-', the first of them a letter or digit",
        Escaped::text(.0)
    )]
    Local(String),
    /// Starts like an ARN and is none of a KMS key or alias.
    #[error(
        "\"{}\" is no KMS ARN; one looks like arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME",
        Escaped::text(.0)
    )]
    Arn(String),
    /// None of the forms.
    #[error(
        "\"{}\" is no key; write a key id, key ARN, alias/NAME, alias ARN or local:NAME",
        Escaped::text(.0)
    )]
    Unknown(String),
    /// An alias or a bare id where only what cannot be repointed is taken.
    #[error(
        "\"{}\" can be repointed or is ambiguous; trusted keys are full key ARNs (arn:aws:kms:REGION:ACCOUNT:key/ID) or local:NAME",
        Escaped::text(.0)
    )]
    NotPinned(String),
}

impl KeyId {
    /// Who keeps this key.
    pub const fn provider(&self) -> Provider {
        match self.form {
            Form::Local => Provider::Local,
            Form::Arn | Form::Id | Form::Alias | Form::AliasArn => Provider::Aws,
        }
    }

    /// The Region that an ARN names; other forms leave it to the environment.
    pub fn region(&self) -> Option<&str> {
        match self.form {
            Form::Arn | Form::AliasArn => self.text.split(':').nth(3),
            Form::Local | Form::Id | Form::Alias => None,
        }
    }

    /// The account that an ARN names; other forms leave it to the caller's credentials.
    pub fn account(&self) -> Option<&str> {
        match self.form {
            Form::Arn | Form::AliasArn => self.text.split(':').nth(4),
            Form::Local | Form::Id | Form::Alias => None,
        }
    }

    /// The name after `local:`, for a key of the keyring.
    pub fn local_name(&self) -> Option<&str> {
        self.text.strip_prefix("local:")
    }

    /// The text as given, and as KMS takes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an answer from `answered` can be an answer of this key.
    ///
    /// An ARN must be the same ARN, an id the id inside the answer's ARN. An alias says nothing
    /// about the key behind it: there KMS, to which the alias was sent, has done the enforcing.
    pub fn is_answered_by(&self, answered: &KeyArn) -> bool {
        match self.form {
            Form::Local | Form::Arn => self.text == answered.0,
            Form::Id => answered.0 == self.text || answered.id() == Some(&self.text),
            Form::Alias | Form::AliasArn => !answered.is_local(),
        }
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(KeyError::TooLong);
        }
        let form = if let Some(name) = text.strip_prefix("local:") {
            if !is_local_name(name) {
                return Err(KeyError::Local(text.to_owned()));
            }
            Form::Local
        } else if text.starts_with("arn:") {
            arn_form(text).ok_or_else(|| KeyError::Arn(text.to_owned()))?
        } else if let Some(name) = text.strip_prefix("alias/") {
            if !is_alias_name(name) {
                return Err(KeyError::Unknown(text.to_owned()));
            }
            Form::Alias
        } else if is_key_id(text) {
            Form::Id
        } else {
            return Err(KeyError::Unknown(text.to_owned()));
        };
        Ok(Self { text: text.to_owned(), form })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A key that cannot be repointed: a full key ARN, or `local:NAME`. What trusted keys and answers
/// are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyArn(String);

impl KeyArn {
    /// The key of a KMS answer.
    ///
    /// Other implementations of the API answer with a bare key id; that is taken as it is, and is
    /// then equal to no ARN.
    ///
    /// # Errors
    /// An answer that names no key at all, or an alias.
    pub fn from_reply(text: &str) -> Result<Self, KeyError> {
        match text.parse::<KeyId>()? {
            KeyId { form: Form::Arn | Form::Id | Form::Local, text } => Ok(Self(text)),
            KeyId { form: Form::Alias | Form::AliasArn, text } => Err(KeyError::NotPinned(text)),
        }
    }

    /// The text of the ARN, or `local:NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it says all there is: account and Region of a KMS key, or that it is a local one.
    pub fn is_full(&self) -> bool {
        self.is_local() || self.0.starts_with("arn:")
    }

    /// The account of a KMS key, where its ARN says it.
    pub fn account(&self) -> Option<&str> {
        let account = self.0.strip_prefix("arn:")?.split(':').nth(3)?;
        (!account.is_empty()).then_some(account)
    }

    /// The same key, as one names it in a request.
    pub fn to_key_id(&self) -> KeyId {
        let form = if self.is_local() {
            Form::Local
        } else if self.is_full() {
            Form::Arn
        } else {
            Form::Id
        };
        KeyId { text: self.0.clone(), form }
    }

    fn is_local(&self) -> bool {
        self.0.starts_with("local:")
    }

    fn id(&self) -> Option<&str> {
        self.0.rsplit_once(":key/").map(|(_, id)| id)
    }
}

impl FromStr for KeyArn {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text.parse::<KeyId>()? {
            KeyId { form: Form::Arn | Form::Local, text } => Ok(Self(text)),
            KeyId { form: Form::Alias | Form::AliasArn | Form::Id, text } => Err(KeyError::NotPinned(text)),
        }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_local_name(name: &str) -> bool {
    name.len() <= MAX_LOCAL_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID` or `…:alias/NAME`.
fn arn_form(text: &str) -> Option<Form> {
    let mut fields = text.splitn(6, ':');
    let (_arn, partition, service) = (fields.next()?, fields.next()?, fields.next()?);
    let (region, account, resource) = (fields.next()?, fields.next()?, fields.next()?);
    let word = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !word(partition) || service != "kms" || !word(region) || !word(account) {
        return None;
    }
    match resource.split_once('/')? {
        ("key", id) if is_key_id(id) => Some(Form::Arn),
        ("alias", name) if is_alias_name(name) => Some(Form::AliasArn),
        _ => None,
    }
}

/// UUIDs, `mrk-…`, and the plain words that other implementations of the API use.
fn is_key_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// `^[a-zA-Z0-9/_-]+$` (AWS KMS API reference, CreateAlias).
fn is_alias_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn key(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_known() {
        for (text, form) in [
            ("local:demo", Form::Local),
            (ARN, Form::Arn),
            ("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-0f", Form::Arn),
            ("arn:aws:kms:eu-west-1:111122223333:alias/team/sign", Form::AliasArn),
            ("alias/sign", Form::Alias),
            ("1234abcd-12ab-34cd-56ef-1234567890ab", Form::Id),
            ("mrk-1234abcd12ab34cd56ef1234567890ab", Form::Id),
        ] {
            assert_eq!(key(text).form, form, "{text}");
        }
        assert_eq!(key(ARN).region(), Some("eu-west-1"));
        assert_eq!(key("alias/sign").region(), None);
        assert_eq!(key(ARN).account(), Some("111122223333"));
        assert_eq!(key("arn:aws:kms:eu-west-1:42:alias/a").account(), Some("42"));
        assert_eq!(key("alias/sign").account(), None);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "a".repeat(MAX_LEN + 1);
        let long_local = format!("local:{}", "a".repeat(MAX_LOCAL_NAME + 1));
        for text in [
            "",
            "local:",
            "local:../x",
            "local:.x",
            "local:a b",
            &long_local,
            &long,
            "a b",
            "key\n",
            "alias/",
            "alias/a b",
            "arn:aws:s3:eu-west-1:1:key/a",
            "arn:aws:kms:eu-west-1:1:thing/a",
            "arn:aws:kms::1:key/a",
            "arn:aws:kms:eu-west-1:1:key/",
            "arn:aws:kms:eu-west-1:key/a",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn trusted_keys_cannot_be_repointed() {
        assert!(ARN.parse::<KeyArn>().is_ok());
        assert!("local:demo".parse::<KeyArn>().is_ok());
        for text in ["alias/sign", "1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:kms:r:1:alias/a"] {
            assert!(matches!(text.parse::<KeyArn>(), Err(KeyError::NotPinned(_))), "{text}");
        }
    }

    #[test]
    fn an_answer_must_come_from_the_key_that_was_asked() {
        let answer = KeyArn::from_reply(ARN).unwrap();
        let other = KeyArn::from_reply(&ARN.replace("1234abcd", "9999abcd")).unwrap();
        let local = KeyArn::from_reply("local:demo").unwrap();
        for (asked, yes) in
            [(ARN, &answer), ("1234abcd-12ab-34cd-56ef-1234567890ab", &answer), ("local:demo", &local)]
        {
            assert!(key(asked).is_answered_by(yes));
            assert!(!key(asked).is_answered_by(&other));
        }
        assert!(key("alias/sign").is_answered_by(&answer));
        assert!(!key("alias/sign").is_answered_by(&local));
        let bare = KeyArn::from_reply("1234abcd-12ab-34cd-56ef-1234567890ab").unwrap();
        assert!(!key(ARN).is_answered_by(&bare));
        assert!(KeyArn::from_reply("").is_err());
        assert!(KeyArn::from_reply("alias/sign").is_err());
    }
}
