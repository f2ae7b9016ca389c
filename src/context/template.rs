//! A rule's context as the policy writes it, and what fills it for one file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::leaf_keys::LeafKeys;
use super::pairs::{Context, ContextError, check_key};

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
    /// Those that stand for something of the file.
    const OF_A_FILE: [Self; 3] = [Self::Name, Self::Stem, Self::RelPath];

    /// Whether it stands for something of this host rather than of the file, and so means nothing
    /// to a verifier elsewhere.
    pub const fn is_of_the_signer(self) -> bool {
        matches!(self, Self::Watch | Self::Hostname)
    }

    pub(crate) const fn as_str(self) -> &'static str {
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

    /// A value that is the word of a placeholder without its braces, with its key: a text like any
    /// other, and most likely not meant as one.
    pub(crate) fn without_braces(&self) -> Option<(&str, Placeholder)> {
        self.0.iter().find_map(|(key, pieces)| match pieces.as_slice() {
            [Piece::Text(text)] => {
                let word = text.trim_matches(['<', '>', '$', '%', '(', ')', '[', ']', ' ']);
                let hole = Placeholder::OF_A_FILE.into_iter().find(|hole| hole.as_str() == word)?;
                Some((key.as_str(), hole))
            }
            _ => None,
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

    /// The context of one file. Placeholders are expanded once, so a file named `{hostname}` stays
    /// that; `%`, control characters and bytes that are not UTF-8 are percent-encoded, so different
    /// names give different contexts.
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

/// A name as one value among others: what would end it, or is no text, is percent-encoded.
pub(crate) fn percent_encoded(name: &OsStr) -> String {
    let mut encoded = String::new();
    percent_encode(&mut encoded, name.as_bytes());
    encoded
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
    use crate::context::MAX_LEN;

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
}
