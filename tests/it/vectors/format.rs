//! The form of a signature vector, as `tests/vectors/README.md` describes it: `name: value` lines,
//! an empty line, and the signature in hexadecimal. Reads and writes; judges nothing.

use std::fmt::Write as _;

/// What a verifier is given, and what it must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vector {
    /// The class.
    pub(super) expect: String,
    /// What it is about, for people.
    pub(super) comment: String,
    /// `valid`: the key that vouches.
    pub(super) by: Option<String>,
    /// `hold`: the kind of trouble.
    pub(super) cause: Option<String>,
    /// `malformed`, `hold`, `usage`: the program's own words.
    pub(super) says: Option<String>,
    /// The file in `keyring/`, or `absent`.
    pub(super) keyring: String,
    /// The keyring's mode.
    pub(super) keyring_mode: u32,
    /// The trusted keys, in this order.
    pub(super) keys: Vec<String>,
    /// The arguments of `--context`.
    pub(super) contexts: Vec<String>,
    /// The file.
    pub(super) payload: Content,
    /// The signature; `None` if there is none.
    pub(super) signature: Option<Content>,
    /// Bytes after the signature.
    pub(super) tail: Option<Content>,
}

/// Bytes, in the form that reads best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Printable text, the rest escaped.
    Text(Vec<u8>),
    /// One byte so many times.
    Repeat(u8, usize),
    /// The hexadecimal digits after the empty line.
    Hex(Vec<u8>),
}

impl Content {
    /// The bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(bytes) | Self::Hex(bytes) => bytes.clone(),
            Self::Repeat(byte, count) => vec![*byte; *count],
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Text(bytes) if bytes.is_empty() => "text".to_owned(),
            Self::Text(bytes) => format!("text {}", escape(bytes)),
            Self::Repeat(byte, count) => format!("repeat {byte:02x} {count}"),
            Self::Hex(_) => "hex".to_owned(),
        }
    }

    fn parse(value: &str, body: &str) -> Self {
        let words: Vec<&str> = value.splitn(3, ' ').collect();
        match words[..] {
            ["text"] => Self::Text(Vec::new()),
            ["text", ..] => Self::Text(unescape(&value["text ".len()..])),
            ["repeat", byte, count] => {
                Self::Repeat(u8::from_str_radix(byte, 16).unwrap(), count.parse().unwrap())
            }
            ["hex"] => Self::Hex(unhex(body)),
            _ => panic!("no content: {value:?}"),
        }
    }
}

impl Vector {
    /// The bytes of the `.sig`, if there is one.
    pub(super) fn signature_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = self.signature.as_ref()?.bytes();
        bytes.extend(self.tail.iter().flat_map(Content::bytes));
        Some(bytes)
    }

    /// The file of this vector.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| writeln!(text, "{name}: {value}").unwrap();
        line("expect", &self.expect);
        line("comment", &self.comment);
        for (name, value) in [("by", &self.by), ("cause", &self.cause), ("says", &self.says)] {
            value.iter().for_each(|value| line(name, &escape(value.as_bytes())));
        }
        line("keyring", &self.keyring);
        if self.keyring_mode != 0o600 {
            line("keyring-mode", &format!("{:04o}", self.keyring_mode));
        }
        self.keys.iter().for_each(|key| line("key", &escape(key.as_bytes())));
        self.contexts.iter().for_each(|context| line("context", &escape(context.as_bytes())));
        line("payload", &self.payload.render());
        line("signature", &self.signature.as_ref().map_or("absent".to_owned(), Content::render));
        self.tail.iter().for_each(|tail| line("signature-tail", &tail.render()));
        if let Some(Content::Hex(bytes)) = &self.signature {
            text.push('\n');
            for row in bytes.chunks(32) {
                row.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
                text.push('\n');
            }
        }
        text
    }

    /// Reads the file of a vector. Anything that is not of the form is a fault of the vector.
    pub(super) fn parse(text: &str) -> Self {
        let (header, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut vector = Self {
            expect: String::new(),
            comment: String::new(),
            by: None,
            cause: None,
            says: None,
            keyring: String::new(),
            keyring_mode: 0o600,
            keys: Vec::new(),
            contexts: Vec::new(),
            payload: Content::Text(Vec::new()),
            signature: None,
            tail: None,
        };
        let (mut has_payload, mut has_signature) = (false, false);
        for line in header.lines() {
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value);
            let plain = || String::from_utf8(unescape(value)).unwrap();
            match name {
                "expect" => vector.expect = value.to_owned(),
                "comment" => vector.comment = value.to_owned(),
                "by" => vector.by = Some(plain()),
                "cause" => vector.cause = Some(plain()),
                "says" => vector.says = Some(plain()),
                "keyring" => vector.keyring = value.to_owned(),
                "keyring-mode" => vector.keyring_mode = u32::from_str_radix(value, 8).unwrap(),
                "key" => vector.keys.push(plain()),
                "context" => vector.contexts.push(plain()),
                "payload" => {
                    has_payload = true;
                    vector.payload = Content::parse(value, "");
                }
                "signature" => {
                    has_signature = true;
                    vector.signature = (value != "absent").then(|| Content::parse(value, body));
                }
                "signature-tail" => vector.tail = Some(Content::parse(value, "")),
                _ => panic!("no line of a vector: {line:?}"),
            }
        }
        assert!(
            has_payload && has_signature && !vector.comment.is_empty(),
            "something is missing in\n{text}"
        );
        vector
    }
}

/// Text on one line: what is not printable ASCII, and a space at either end, as `\xNN`; a backslash
/// twice.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' ' if at == 0 || at + 1 == bytes.len() => text.push_str("\\x20"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}").unwrap(),
        }
    }
    text
}

/// The bytes that [`escape`] wrote so.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', digits @ ..]) => (unhex(&text_of(&digits[..2]))[0], &digits[2..]),
            (b'\\', _) => panic!("no escape in {text:?}"),
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// The bytes of hexadecimal digits; white space between them means nothing.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_ascii_whitespace().collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(&text_of(pair), 16).unwrap()).collect()
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_escaped_comes_back() {
    for bytes in [b"".as_slice(), b" a\\b ", b"\\x41", b"\n\xff\x00~", b" ", "gr\u{fc}n".as_bytes()] {
        assert_eq!(unescape(&escape(bytes)), bytes, "{}", escape(bytes));
        assert!(escape(bytes).bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    }
    assert_eq!(escape(b" a\n"), "\\x20a\\x0a");
}
