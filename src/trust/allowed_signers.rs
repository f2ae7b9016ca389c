//! Allowed signers as OpenSSH has them (ssh-keygen(1), "ALLOWED SIGNERS"): who may sign what, with
//! which key, and when.
//!
//! Stricter than the stock tool, which skips a line that it cannot read: a file that says less than
//! its author meant is an error. Times must be in UTC, with a `Z`: without one they would mean
//! another moment on each verifier. What OpenSSH reads otherwise than it looks (a quote within a
//! word, an empty pattern) is no line either.

use super::PublicKey;
use super::ssh_key::{self, SshKeyError};
use crate::clock;

/// The lines of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSigners(Vec<Entry>);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Patterns of names, some of them negated.
    principals: Vec<String>,
    /// Patterns of namespaces; any, if there are none.
    namespaces: Vec<String>,
    /// From when and until when, both inclusive, in seconds since 1970.
    valid_after: Option<u64>,
    valid_before: Option<u64>,
    key: PublicKey,
}

/// A line that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {flaw}")]
pub struct AllowedSignersError {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It ends too soon, or a quotation does not end.
    #[error("write PRINCIPALS [OPTIONS] TYPE KEY")]
    Shape,
    /// Nobody, or nobody between two commas.
    #[error("its principals have an empty name, or quotes within a name")]
    Principals,
    /// A control character. OpenSSH reads no further than to a zero.
    #[error("it has a control character")]
    Control,
    /// An option that is none.
    #[error("an option is none of namespaces=\"…\", valid-after=\"…\" and valid-before=\"…\"")]
    Option,
    /// The same option twice: OpenSSH takes no such line.
    #[error("an option stands there twice")]
    Twice,
    /// It ends before it begins.
    #[error("valid-before is before valid-after, so that the key is never valid")]
    Never,
    /// Certificates.
    #[error("certificates (cert-authority) are not supported; name each key itself")]
    CertAuthority,
    /// A time that is none, or one of an unnamed time zone.
    #[error("write times as YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ: in UTC, with the Z")]
    Time,
    /// A key that cannot be used.
    #[error("{0}")]
    Key(#[from] SshKeyError),
}

/// Why nobody may have signed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAllowed {
    /// No line has the key.
    Key,
    /// None that has it is for this namespace.
    Namespace,
    /// None that is, is of this principal.
    Principal,
    /// None that is, was good yet.
    NotYet,
    /// None that was, is good any more.
    Expired,
}

impl AllowedSigners {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AllowedSignersError`].
    pub fn parse(text: &str) -> Result<Self, AllowedSignersError> {
        let mut entries = Vec::new();
        for (i, line) in text.lines().enumerate() {
            // To OpenSSH other blanks than these are part of a name.
            let text = line.trim_matches([' ', '\t', '\r']);
            if !text.is_empty() && !text.starts_with('#') {
                entries.push(entry(text).map_err(|flaw| AllowedSignersError { line: i + 1, flaw })?);
            }
        }
        Ok(Self(entries))
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who may sign for this namespace with this key at a moment, in seconds since 1970: the
    /// principal that is asked for, or the patterns of the first line that allows it.
    ///
    /// # Errors
    /// [`NotAllowed`]: what is nearest to being allowed.
    pub fn who(
        &self,
        key: &PublicKey,
        namespace: &str,
        principal: Option<&str>,
        at: u64,
    ) -> Result<String, NotAllowed> {
        let mut nearest = NotAllowed::Key;
        for entry in self.0.iter().filter(|entry| entry.key == *key) {
            let why = if !entry.namespaces.is_empty() && !matches_list(&entry.namespaces, namespace) {
                NotAllowed::Namespace
            } else if principal.is_some_and(|name| !matches_list(&entry.principals, name)) {
                NotAllowed::Principal
            } else if entry.valid_after.is_some_and(|after| at < after) {
                NotAllowed::NotYet
            } else if entry.valid_before.is_some_and(|before| at > before) {
                NotAllowed::Expired
            } else {
                return Ok(principal.map_or_else(|| entry.principals.join(","), str::to_owned));
            };
            if nearest == NotAllowed::Key {
                nearest = why;
            }
        }
        Err(nearest)
    }
}

fn entry(line: &str) -> Result<Entry, Flaw> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Flaw::Control);
    }
    let (principals, rest) = principals(line)?;
    // What begins with the name of a key type is the key; otherwise options come first.
    let is_key = rest.split([' ', '\t']).next().is_some_and(ssh_key::looks_like_type);
    let (options, key) = if is_key { ("", rest) } else { options(rest)? };
    let options = Options::read(options)?;
    let (key, _comment) = ssh_key::from_line(key)?;
    let Options { namespaces, valid_after, valid_before } = options;
    if valid_after.zip(valid_before).is_some_and(|(after, before)| before < after) {
        return Err(Flaw::Never);
    }
    let namespaces = namespaces.unwrap_or_default();
    Ok(Entry { principals, namespaces, valid_after, valid_before, key })
}

/// The patterns at the front, which stand in quotes if there are blanks in them, and what follows.
fn principals(line: &str) -> Result<(Vec<String>, &str), Flaw> {
    let (text, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').filter(|(_, rest)| rest.starts_with([' ', '\t'])),
        None => line.split_once([' ', '\t']),
    }
    .ok_or(Flaw::Shape)?;
    if text.contains('"') {
        return Err(Flaw::Principals);
    }
    Ok((patterns(text).ok_or(Flaw::Principals)?, rest.trim_ascii_start()))
}

/// Patterns with commas between them. `None`: one of them is empty, and so matches nothing.
fn patterns(text: &str) -> Option<Vec<String>> {
    let is_one = |pattern: &str| !pattern.is_empty() && pattern != "!";
    text.split(',').map(|pattern| is_one(pattern).then(|| pattern.to_owned())).collect()
}

/// The options at the front, in which blanks stand in quotes, and what follows.
fn options(text: &str) -> Result<(&str, &str), Flaw> {
    let mut is_quoted = false;
    let is_end = |c: char| {
        is_quoted ^= c == '"';
        matches!(c, ' ' | '\t') && !is_quoted
    };
    let (options, rest) = text.split_once(is_end).ok_or(Flaw::Shape)?;
    Ok((options, rest.trim_ascii_start()))
}

#[derive(Default)]
struct Options {
    namespaces: Option<Vec<String>>,
    valid_after: Option<u64>,
    valid_before: Option<u64>,
}

impl Options {
    fn read(text: &str) -> Result<Self, Flaw> {
        let mut options = Self::default();
        // Between options there are commas outside of quotes.
        let mut is_quoted = false;
        let is_between = |c: char| {
            is_quoted ^= c == '"';
            c == ',' && !is_quoted
        };
        for option in text.split(is_between).filter(|_| !text.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            // OpenSSH has escapes of its own; nothing that is written here needs one.
            let value = value.filter(|value| !value.contains(['"', '\\'])).ok_or(Flaw::Option);
            match name.to_ascii_lowercase().as_str() {
                "cert-authority" => return Err(Flaw::CertAuthority),
                "namespaces" => {
                    once(&mut options.namespaces, patterns(value?).ok_or(Flaw::Option)?)?;
                }
                "valid-after" => once(&mut options.valid_after, time(value?)?)?,
                "valid-before" => once(&mut options.valid_before, time(value?)?)?,
                _ => return Err(Flaw::Option),
            }
        }
        Ok(options)
    }
}

fn once<T>(option: &mut Option<T>, value: T) -> Result<(), Flaw> {
    option.replace(value).map_or(Ok(()), |_| Err(Flaw::Twice))
}

fn time(text: &str) -> Result<u64, Flaw> {
    let digits = text.strip_suffix('Z').ok_or(Flaw::Time)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || ![8, 12, 14].contains(&digits.len()) {
        return Err(Flaw::Time);
    }
    let part = |from: usize, len: usize| digits.get(from..from + len).unwrap_or("00");
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 2),
        part(6, 2),
        part(8, 2),
        part(10, 2),
        part(12, 2)
    );
    clock::second_of(&rfc3339).ok_or(Flaw::Time)
}

/// Whether a list of patterns allows a name: one of them matches, and no negated one does.
fn matches_list(patterns: &[String], name: &str) -> bool {
    let negated = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
    let mut plain = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
    let is_denied = { negated }.any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
    !is_denied && plain.any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
}

/// Whether a pattern with `*` and `?` is one of a name. Takes time in proportion to the product of
/// their lengths, whatever the pattern.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == b'?' || Some(c) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match &mut back {
                Some((after, from)) => {
                    *from += 1;
                    (p, n) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1wMWbh";

    fn parse(line: &str) -> AllowedSigners {
        AllowedSigners::parse(&format!("# who may\n\n{line}\n")).unwrap()
    }

    fn key() -> PublicKey {
        ssh_key::from_line(KEY).unwrap().0
    }

    #[test]
    fn a_line_allows_whom_it_names_for_what_it_says() {
        let plain =
            parse(&format!("a@example.com,*@release.example.com,!x@release.example.com {KEY} comment"));
        let who = |name| plain.who(&key(), "file", Some(name), 0);
        assert_eq!(who("a@example.com").as_deref(), Ok("a@example.com"));
        assert_eq!(who("b@release.example.com").as_deref(), Ok("b@release.example.com"));
        assert_eq!(who("x@release.example.com"), Err(NotAllowed::Principal));
        assert_eq!(who("A@example.com"), Err(NotAllowed::Principal), "names have cases");
        assert!(plain.who(&key(), "any", None, 0).unwrap().starts_with("a@example.com,*@"));
        let other = ssh_key::from_line(&KEY.replace("IBm", "IBn")).unwrap_or((key(), "")).0;
        assert!(other == key() || plain.who(&other, "file", None, 0) == Err(NotAllowed::Key));
        let with = parse(&format!(
            "\"a b\" NameSpaces=\"file,git*\",valid-after=\"19700101000010Z\",valid-before=\"197001010001Z\" {KEY}"
        ));
        let who = |namespace, at| with.who(&key(), namespace, Some("a b"), at);
        assert_eq!(who("file", 10).as_deref(), Ok("a b"));
        assert_eq!(who("gitlab", 60).as_deref(), Ok("a b"), "both ends are inclusive");
        assert_eq!(who("files", 20), Err(NotAllowed::Namespace));
        assert_eq!(who("file", 9), Err(NotAllowed::NotYet));
        assert_eq!(who("file", 61), Err(NotAllowed::Expired));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told_by_its_number() {
        for (line, flaw) in [
            ("a".to_owned(), Flaw::Shape),
            (format!("\"a {KEY}"), Flaw::Shape),
            (format!("a cert-authority {KEY}"), Flaw::CertAuthority),
            (format!("a namespaces=file {KEY}"), Flaw::Option),
            (format!("a no-touch {KEY}"), Flaw::Option),
            (format!("a valid-after=\"20250101\" {KEY}"), Flaw::Time),
            (format!("a valid-after=\"20251301Z\" {KEY}"), Flaw::Time),
            (format!("a valid-before=\"2025-01-01Z\" {KEY}"), Flaw::Time),
            ("a ssh-ed25519 AAAA".to_owned(), Flaw::Key(SshKeyError::Malformed)),
            ("a ssh-dss AAAA".to_owned(), Flaw::Key(SshKeyError::Type)),
            ("a sk-ssh-ed25519@openssh.com AAAA".to_owned(), Flaw::Key(SshKeyError::SecurityKey)),
            (format!("a namespaces=\"file\" {}", &KEY[..30]), Flaw::Key(SshKeyError::Malformed)),
            (KEY.to_owned(), Flaw::Shape),
            (format!("a,,b {KEY}"), Flaw::Principals),
            (format!("\"\" {KEY}"), Flaw::Principals),
            (format!("a,! {KEY}"), Flaw::Principals),
            (format!("a\"b {KEY}"), Flaw::Principals),
            (format!("\"a\"b {KEY}"), Flaw::Shape),
            (format!("a\0 {KEY}"), Flaw::Control),
            (format!("a {KEY} \u{1b}[2K"), Flaw::Control),
            (format!("a namespaces=\"\" {KEY}"), Flaw::Option),
            (format!("a namespaces=\"a\\\"b\" {KEY}"), Flaw::Shape),
            (format!("a namespaces=\"a\\\\b\" {KEY}"), Flaw::Option),
            (format!("a namespaces=\"a\",,valid-after=\"20250101Z\" {KEY}"), Flaw::Option),
            (format!("a namespaces=\"a\", valid-after=\"20250101Z\" {KEY}"), Flaw::Option),
            (format!("a namespaces=\"a\",namespaces=\"b\" {KEY}"), Flaw::Twice),
            (format!("a valid-after=\"20250102Z\",valid-before=\"20250101Z\" {KEY}"), Flaw::Never),
            (format!("a valid-after=20250101Z {KEY}"), Flaw::Option),
            (format!("a valid-after=\"20250229Z\" {KEY}"), Flaw::Time),
            (format!("a valid-after=\"202501011Z\" {KEY}"), Flaw::Time),
            (format!("a valid-after=\"0x1000\" {KEY}"), Flaw::Time),
        ] {
            let told = AllowedSigners::parse(&format!("\n{line}\n")).unwrap_err();
            assert_eq!(told, AllowedSignersError { line: 2, flaw }, "{line}");
        }
        assert!(AllowedSigners::parse("# nobody\n").unwrap().is_empty());
    }

    /// `tests/vectors/signers.py` asked the stock tool about each of these lines.
    #[test]
    fn p11_a_line_that_is_read_allows_what_it_allows_to_openssh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/public/signers.json");
        let lines: Vec<(String, bool)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (mut read, mut refused) = (0, 0);
        for (line, openssh_accepts) in lines {
            let text = line.replace("KEY", KEY) + "\n";
            match AllowedSigners::parse(&text) {
                Ok(signers) => {
                    read += 1;
                    let who = signers.who(&key(), "file", Some("me"), 1_796_000_000);
                    assert_eq!(who.is_ok(), openssh_accepts, "{line:?}: {who:?}");
                }
                // OpenSSH skips the line then, or reads it as nobody would have meant it.
                Err(_) => refused += usize::from(openssh_accepts),
            }
        }
        assert!(read > 140 && refused < 30, "{read} are read; {refused} only by OpenSSH");
    }

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, name, holds) in [
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("a?", "ab", true),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), holds, "{pattern} {name}");
        }
        let slow = "*a".repeat(2000);
        assert!(!matches(slow.as_bytes(), "a".repeat(1999).as_bytes()));
    }
}
