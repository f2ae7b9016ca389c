//! The checked pairs of an encryption context, and how a caller writes them.

use std::collections::BTreeMap;

use crate::escape::Escaped;

/// The most that KMS takes for keys and values together, in bytes (AWS KMS quotas: 8,192).
pub const MAX_LEN: usize = 8192;

/// Keys that begin so are this program's own; a caller's pair could otherwise imitate them.
pub const RESERVED_PREFIX: &str = "kms-sig:";

/// A checked encryption context. May be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Context(pub(super) BTreeMap<String, String>);

/// Why a context was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// A pair without `=`.
    #[error("context pair \"{}\" has no '='; write key=value, and a comma inside a value as \\,", Escaped::text(.0))]
    NoEquals(String),
    /// A pair without a key.
    #[error("context pair \"{}\" has an empty key; write key=value", Escaped::text(.0))]
    EmptyKey(String),
    /// The same key twice: which value was meant is anyone's guess.
    #[error("context key \"{}\" is given twice; give it once", Escaped::text(.0))]
    Repeated(String),
    /// A key that this program keeps for itself.
    #[error("context key \"{}\" begins with \"{RESERVED_PREFIX}\", which is reserved; choose another", Escaped::text(.0))]
    Reserved(String),
    /// More than KMS takes.
    #[error("the context has {0} bytes; KMS takes at most {MAX_LEN} for keys and values together")]
    TooLong(usize),
    /// An unknown placeholder, or a brace that stands alone.
    #[error("\"{}\" is no placeholder; there are {{name}}, {{stem}}, {{relpath}}, in sign rules also {{watch}} and {{hostname}}; a literal brace is written twice", Escaped::text(.0))]
    Placeholder(String),
}

impl Context {
    /// Pairs from the command line: each argument is `k=v,k=v`. A pair splits at its first `=`;
    /// `\,` is a comma inside a pair and the only escape; any other backslash is itself. An empty
    /// argument is no pair at all, as in the original.
    ///
    /// # Errors
    /// Any [`ContextError`] but `Placeholder`.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, ContextError> {
        let mut context = Self::default();
        for argument in arguments.iter().map(AsRef::as_ref).filter(|a| !a.is_empty()) {
            for pair in split_pairs(argument) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(ContextError::NoEquals(pair));
                };
                if key.is_empty() {
                    return Err(ContextError::EmptyKey(pair));
                }
                context.insert(key, value.to_owned())?;
            }
        }
        context.within_limit()
    }

    /// A context of this program's own, whose keys all begin with [`RESERVED_PREFIX`] and together
    /// are far below the limit. No caller's context can equal it.
    pub(crate) fn of_this_program<const N: usize>(pairs: [(&'static str, String); N]) -> Self {
        debug_assert!(pairs.iter().all(|(key, _)| key.starts_with(RESERVED_PREFIX)));
        Self(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// The pairs, sorted by key.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one byte string that stands for this context: for each pair in key order, key and value,
    /// each with its length in bytes before it (four bytes, big endian). Different contexts give
    /// different bytes.
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in self.0.iter().flat_map(|(k, v)| [k, v]) {
            // Within MAX_LEN by construction, so the length always fits.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    fn insert(&mut self, key: &str, value: String) -> Result<(), ContextError> {
        check_key(key)?;
        match self.0.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(ContextError::Repeated(key.to_owned())),
        }
    }

    pub(super) fn within_limit(self) -> Result<Self, ContextError> {
        match self.0.iter().map(|(k, v)| k.len() + v.len()).sum() {
            len if len > MAX_LEN => Err(ContextError::TooLong(len)),
            _ => Ok(self),
        }
    }
}

pub(super) fn check_key(key: &str) -> Result<(), ContextError> {
    if key.is_empty() {
        return Err(ContextError::EmptyKey(format!("{key}=…")));
    }
    if key.starts_with(RESERVED_PREFIX) {
        return Err(ContextError::Reserved(key.to_owned()));
    }
    Ok(())
}

fn split_pairs(argument: &str) -> Vec<String> {
    let mut pairs = vec![String::new()];
    let mut chars = argument.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, pairs.last_mut()) {
            ('\\', Some(pair)) if chars.peek() == Some(&',') => {
                chars.next();
                pair.push(',');
            }
            (',', _) => pairs.push(String::new()),
            (c, Some(pair)) => pair.push(c),
            (_, None) => unreachable!("BUG: the list starts with one pair and only grows"),
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(arguments: &[&str]) -> Vec<(String, String)> {
        let context = Context::parse(arguments).unwrap();
        context.pairs().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn pair(k: &str, v: &str) -> (String, String) {
        (k.to_owned(), v.to_owned())
    }

    #[test]
    fn pairs_split_as_in_the_original() {
        assert_eq!(pairs(&["hostname=web1,version=20"]), [pair("hostname", "web1"), pair("version", "20")]);
        assert_eq!(pairs(&["a=b=c"]), [pair("a", "b=c")]);
        assert_eq!(pairs(&["a=", "b=1"]), [pair("a", ""), pair("b", "1")]);
        assert_eq!(pairs(&[""]), []);
        assert_eq!(pairs(&[r"path=C:\dir"]), [pair("path", r"C:\dir")]);
    }

    #[test]
    fn a_comma_is_escaped_and_nothing_else_is() {
        assert_eq!(pairs(&[r"a=1\,2,b=3"]), [pair("a", "1,2"), pair("b", "3")]);
        assert_eq!(pairs(&[r"a=\\,b=\n\"]), [pair("a", r"\,b=\n\")]);
        assert_eq!(pairs(&[r"a=\=\\x"]), [pair("a", r"\=\\x")]);
    }

    #[test]
    fn bad_pairs_are_named() {
        let error = |arguments: &[&str]| Context::parse(arguments).unwrap_err();
        assert_eq!(error(&["a"]), ContextError::NoEquals("a".into()));
        assert_eq!(error(&["a=1,"]), ContextError::NoEquals(String::new()));
        assert_eq!(error(&["=1"]), ContextError::EmptyKey("=1".into()));
        assert_eq!(error(&["a=1,a=1"]), ContextError::Repeated("a".into()));
        assert_eq!(error(&["a=1", "a=2"]), ContextError::Repeated("a".into()));
        assert_eq!(error(&["kms-sig:batch=x"]), ContextError::Reserved("kms-sig:batch".into()));
        assert_eq!(error(&[&format!("a={}", "x".repeat(MAX_LEN))]), ContextError::TooLong(MAX_LEN + 1));
        assert!(Context::parse(&[format!("a={}", "x".repeat(MAX_LEN - 1))]).is_ok());
    }

    #[test]
    fn canonical_bytes_tell_contexts_apart() {
        let bytes = |arguments: &[&str]| Context::parse(arguments).unwrap().canonical();
        assert_ne!(bytes(&["a=bc"]), bytes(&["ab=c"]));
        assert_ne!(bytes(&["a=b,c=d"]), bytes(&["a=bcd"]));
        assert_eq!(bytes(&["a=b,c=d"]), bytes(&["c=d,a=b"]));
        assert_eq!(bytes(&["a=b"]), [0, 0, 0, 1, b'a', 0, 0, 0, 1, b'b']);
    }
}
