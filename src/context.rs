//! The KMS encryption context: text pairs that must be the same when signing and when verifying.
//!
//! A [`Context`] is what goes to KMS. A [`ContextTemplate`] is what a policy says, with placeholders for
//! a file's name. Never logs: contexts show in CloudTrail in clear, but names inside them are hostile.

pub mod leaf_keys;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::escape::Escaped;
use leaf_keys::LeafKeys;

/// The most that KMS takes for keys and values together, in bytes (AWS KMS quotas: 8,192).
pub const MAX_LEN: usize = 8192;

/// Keys that begin so are this program's own; a caller's pair could otherwise imitate them.
pub const RESERVED_PREFIX: &str = "kms-sig:";

/// A checked encryption context. May be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Context(BTreeMap<String, String>);

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
    /// Pairs from the command line: each argument is `k=v,k=v`. A pair splits at its first `=`; `\,` is a
    /// comma inside a pair and the only escape; any other backslash is itself. An empty argument is no pair
    /// at all, as in the original.
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

    /// A context of this program's own, whose keys all begin with [`RESERVED_PREFIX`] and together are far
    /// below the limit. No caller's context can equal it.
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

    /// The one byte string that stands for this context: for each pair in key order, key and value, each
    /// with its length in bytes before it (four bytes, big endian). Different contexts give different bytes.
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

    fn within_limit(self) -> Result<Self, ContextError> {
        match self.0.iter().map(|(k, v)| k.len() + v.len()).sum() {
            len if len > MAX_LEN => Err(ContextError::TooLong(len)),
            _ => Ok(self),
        }
    }
}

fn check_key(key: &str) -> Result<(), ContextError> {
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

/// A rule's context as the policy writes it: fixed keys, values with placeholders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContextTemplate(BTreeMap<String, Vec<Piece>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(Placeholder),
}

/// What a value may leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// `{name}`: the file's name.
    Name,
    /// `{stem}`: the name without what follows its last dot.
    Stem,
    /// `{relpath}`: the path below the rule's directory, `/` between components.
    RelPath,
    /// `{watch}`: the rule's name. Sign rules only: a verifier's rule has another name.
    Watch,
    /// `{hostname}`: this host's name. Sign rules only.
    Hostname,
}

impl Placeholder {
    /// Whether it stands for something of this host rather than of the file, and so means nothing to a
    /// verifier elsewhere.
    pub const fn is_of_the_signer(self) -> bool {
        matches!(self, Self::Watch | Self::Hostname)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Stem => "stem",
            Self::RelPath => "relpath",
            Self::Watch => "watch",
            Self::Hostname => "hostname",
        }
    }
}

/// What fills the placeholders for one file.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// Path of the payload below the rule's directory.
    pub relpath: &'a Path,
    /// The rule's name.
    pub watch: &'a str,
    /// This host's name.
    pub hostname: &'a str,
}

impl ContextTemplate {
    /// Adds one pair of the policy.
    ///
    /// # Errors
    /// `EmptyKey`, `Reserved`, `Repeated`, `Placeholder`.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), ContextError> {
        check_key(key)?;
        match self.0.insert(key.to_owned(), parse_pieces(value)?) {
            None => Ok(()),
            Some(_) => Err(ContextError::Repeated(key.to_owned())),
        }
    }

    /// The placeholders it uses, with the key each stands under.
    pub fn placeholders(&self) -> impl Iterator<Item = (&str, Placeholder)> {
        self.0.iter().flat_map(|(key, pieces)| {
            pieces.iter().filter_map(move |piece| match piece {
                Piece::Hole(hole) => Some((key.as_str(), *hole)),
                Piece::Text(_) => None,
            })
        })
    }

    /// The keys whose values are of one file and no other: in a batch, they live only in its leaf.
    pub fn leaf_keys(&self) -> LeafKeys {
        let of_a_file = self.placeholders().filter(|(_, hole)| !hole.is_of_the_signer());
        of_a_file.map(|(key, _)| key.to_owned()).collect()
    }

    /// The template as text that differs whenever the template differs, for fingerprints.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for (key, pieces) in &self.0 {
            write!(text, "{}:{key}", key.len()).unwrap_or_default();
            for piece in pieces {
                match piece {
                    Piece::Text(t) => write!(text, "\u{1}{}:{t}", t.len()),
                    Piece::Hole(hole) => write!(text, "\u{2}{}", hole.as_str()),
                }
                .unwrap_or_default();
            }
            text.push('\0');
        }
        text
    }

    /// The context of one file. Placeholders are expanded once, so a file named `{hostname}` stays that;
    /// `%`, control characters and bytes that are not UTF-8 are percent-encoded, so different names give
    /// different contexts.
    ///
    /// # Errors
    /// `TooLong`, when KMS would not take it: the file cannot be signed under this rule.
    pub fn expand(&self, filling: Filling<'_>) -> Result<Context, ContextError> {
        let mut pairs = BTreeMap::new();
        for (key, pieces) in &self.0 {
            let mut value = String::new();
            for piece in pieces {
                match piece {
                    Piece::Text(text) => value.push_str(text),
                    Piece::Hole(hole) => fill(&mut value, *hole, filling),
                }
            }
            pairs.insert(key.clone(), value);
        }
        Context(pairs).within_limit()
    }
}

fn fill(value: &mut String, hole: Placeholder, filling: Filling<'_>) {
    let part = match hole {
        Placeholder::Name => filling.relpath.file_name().unwrap_or_default(),
        Placeholder::Stem => filling.relpath.file_stem().unwrap_or_default(),
        Placeholder::RelPath => filling.relpath.as_os_str(),
        Placeholder::Watch => OsStr::new(filling.watch),
        Placeholder::Hostname => OsStr::new(filling.hostname),
    };
    percent_encode(value, part.as_bytes());
}

fn percent_encode(out: &mut String, bytes: &[u8]) {
    let encode = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            write!(out, "%{byte:02X}").unwrap_or_default(); // writing to a String does not fail
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                encode(out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        encode(out, chunk.invalid());
    }
}

fn parse_pieces(value: &str) -> Result<Vec<Piece>, ContextError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = value;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            text.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let bad = || ContextError::Placeholder(from.chars().take(20).collect());
        let (word, after) = from.strip_prefix('{').and_then(|f| f.split_once('}')).ok_or_else(bad)?;
        let hole = match word {
            "name" => Placeholder::Name,
            "stem" => Placeholder::Stem,
            "relpath" => Placeholder::RelPath,
            "watch" => Placeholder::Watch,
            "hostname" => Placeholder::Hostname,
            _ => return Err(ContextError::Placeholder(format!("{{{word}}}"))),
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Hole(hole));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
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

    fn expand(value: &str, relpath: &[u8]) -> String {
        let mut template = ContextTemplate::default();
        template.insert("k", value).unwrap();
        let filling =
            Filling { relpath: Path::new(OsStr::from_bytes(relpath)), watch: "releases", hostname: "build1" };
        let context = template.expand(filling).unwrap();
        context.pairs().next().unwrap().1.to_owned()
    }

    #[test]
    fn placeholders_are_filled_once_and_encoded() {
        assert_eq!(expand("{name}", b"d/a.tar.gz"), "a.tar.gz");
        assert_eq!(expand("{stem}", b"d/a.tar.gz"), "a.tar");
        assert_eq!(expand("{relpath}", b"d/a.tar.gz"), "d/a.tar.gz");
        assert_eq!(expand("v1-{watch}@{hostname}", b"x"), "v1-releases@build1");
        assert_eq!(expand("{name}", b"{hostname}"), "{hostname}");
        assert_eq!(expand("{{name}}", b"x"), "{name}");
        assert_eq!(expand("{name}", b"50%\n\xff\x7f"), "50%25%0A%FF%7F");
        assert_eq!(expand("{name}", "gr\u{fc}n \u{85}".as_bytes()), "gr\u{fc}n %C2%85");
        assert_eq!(expand("plain", b"x"), "plain");
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        for value in ["{nam}", "{", "}", "{name", "a}b", "{}", "{Name}"] {
            let error = ContextTemplate::default().insert("k", value);
            assert!(matches!(error, Err(ContextError::Placeholder(_))), "{value}");
        }
    }

    #[test]
    fn a_context_too_long_for_kms_is_unsignable() {
        let mut template = ContextTemplate::default();
        template.insert("k", &"x".repeat(MAX_LEN - 5)).unwrap();
        template.insert("n", "{name}").unwrap();
        let expand = |name: &str| {
            template.expand(Filling { relpath: Path::new(name), watch: "w", hostname: "h" }).map(|_| ())
        };
        assert_eq!(expand("abc"), Ok(()));
        assert_eq!(expand("abcd"), Err(ContextError::TooLong(MAX_LEN + 1)));
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
