//! How the context of a batch is split: what is the same for all of its files goes to KMS, what is
//! one file's own lives in that file's leaf.
//!
//! The split itself is one pair of the encryption context, so KMS vouches for it. Knows no
//! placeholder and no format.

use std::collections::BTreeSet;

use super::pairs::{Context, ContextError, MAX_LEN, check_key};

/// The key of the pair that tells the split.
pub const BATCH_KEY: &str = "kms-sig:batch";

/// The longest text of a split, in bytes: with its key, all that KMS takes.
pub const MAX_TEXT: usize = MAX_LEN - BATCH_KEY.len();

/// The names of the context keys that live only in the leaves of a batch. May be none.
///
/// Its text is the sorted names between brackets, with commas between them, each percent-encoded
/// but for ASCII letters, digits, `.`, `_` and `-`: `[]`, `[file]`, `[file,grün]` as
/// `[file,gr%C3%BCn]`. Printable ASCII without spaces, never empty, and one text for each set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LeafKeys(BTreeSet<String>);

impl LeafKeys {
    /// The split that a text stands for; `None` for every text but the one that it is written as.
    pub fn parse(text: &str) -> Option<Self> {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        let names = inside.split(',').filter(|_| !inside.is_empty());
        let keys = Self(names.map(decode).collect::<Option<_>>()?);
        let is_usable = keys.0.iter().all(|name| check_key(name).is_ok());
        // Order, repetition and spelling: whatever is not as it would be written is refused.
        (is_usable && keys.to_string() == text).then_some(keys)
    }

    /// Whether a context has a pair for each of them.
    pub fn are_in(&self, context: &Context) -> bool {
        self.0.iter().all(|name| context.0.contains_key(name))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

impl FromIterator<String> for LeafKeys {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl std::fmt::Display for LeafKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (place, name) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            for byte in name.bytes() {
                match byte {
                    b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'_' | b'-' => {
                        write!(f, "{}", char::from(byte))?;
                    }
                    _ => write!(f, "%{byte:02X}")?,
                }
            }
        }
        f.write_str("]")
    }
}

impl Context {
    /// What goes to KMS for a batch: the pairs that do not live in the leaves, and the split.
    ///
    /// # Errors
    /// `TooLong`, when KMS would not take it.
    pub fn of_batch(&self, leaf_keys: &LeafKeys) -> Result<Self, ContextError> {
        let mut shared = self.clone();
        shared.0.retain(|key, _| !leaf_keys.has(key));
        shared.0.insert(BATCH_KEY.to_owned(), leaf_keys.to_string());
        shared.within_limit()
    }

    /// The pairs that KMS is not given for a batch, sorted by key.
    pub fn of_leaf(&self, leaf_keys: &LeafKeys) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().filter(|(key, _)| leaf_keys.has(key))
    }
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> LeafKeys {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_split_has_one_text_and_comes_back() {
        for (names, text) in [
            (&[][..], "[]"),
            (&["file"], "[file]"),
            (&["b", "a"], "[a,b]"),
            (&["a,b"], "[a%2Cb]"),
            (&["a", "b", "a,b"], "[a,a%2Cb,b]"),
            (&["[]", "%", " ", "-"], "[%20,%25,-,%5B%5D]"),
            (&["gr\u{fc}n\n"], "[gr%C3%BCn%0A]"),
        ] {
            assert_eq!(keys(names).to_string(), text);
            assert_eq!(LeafKeys::parse(text), Some(keys(names)), "{text}");
        }
    }

    #[test]
    fn no_other_text_is_a_split() {
        for text in [
            "",
            "[",
            "]",
            "file",
            "[file",
            "file]",
            "[,]",
            "[a,]",
            "[,a]",
            "[b,a]",
            "[a,a]",
            "[a, b]",
            "[a]\n",
            "[%61]",
            "[%2c]",
            "[%2]",
            "[%]",
            "[%FF]",
            "[%+1]",
            "[a=b]",
            "[gr\u{fc}n]",
            "[kms-sig%3Ax]",
            "[[a]]",
            "[%00%]",
        ] {
            assert_eq!(LeafKeys::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_a_files_own_stays_away_from_kms() {
        let context = Context::parse(&["channel=stable,file=a,stem=b"]).unwrap();
        let split = keys(&["file", "stem"]);
        assert!(split.are_in(&context));
        assert!(!keys(&["file", "name"]).are_in(&context));
        let shared = context.of_batch(&split).unwrap();
        let pairs: Vec<_> = shared.pairs().collect();
        assert_eq!(pairs, [("channel", "stable"), ("kms-sig:batch", "[file,stem]")]);
        assert_eq!(context.of_leaf(&split).collect::<Vec<_>>(), [("file", "a"), ("stem", "b")]);
        assert_eq!(
            Context::default().of_batch(&keys(&[])).unwrap().pairs().collect::<Vec<_>>(),
            [("kms-sig:batch", "[]")]
        );
    }

    #[test]
    fn what_kms_would_not_take_is_no_context_of_a_batch() {
        let long = Context::parse(&[&format!("k={}", "x".repeat(MAX_LEN - 1))]).unwrap();
        assert!(matches!(long.of_batch(&keys(&[])), Err(ContextError::TooLong(_))));
        assert!(long.of_batch(&keys(&["k"])).is_ok());
    }
}
