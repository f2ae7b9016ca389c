//! Names as they may be printed.
//!
//! File names are chosen by senders and may hold newlines, terminal escapes, right-to-left
//! overrides or bytes that are not UTF-8. Nothing in this crate prints or logs a name except
//! through [`Escaped`] (P9).

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Shows a name on one line with nothing in it that a terminal or a log reader would act on.
///
/// Backslashes double; control characters and bytes that are not UTF-8 become `\xNN`; invisible and
/// direction-changing characters become `\u{NNNN}`. The result is unambiguous: different names show
/// differently.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// The name or path to show.
    pub fn new(name: &'a (impl AsRef<OsStr> + ?Sized)) -> Self {
        Self(name.as_ref().as_bytes())
    }

    /// Text from elsewhere (a KMS error message, a key id in a reply), which is as hostile as a
    /// name.
    pub fn text(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// [`Escaped`] for paths, in double quotes.
pub fn quoted(path: &Path) -> String {
    format!("\"{}\"", Escaped::new(path))
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c if acts_on_display(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Characters that a display may leave out or take as an order, so that one name looks like
/// another: those with the property `Default_Ignorable_Code_Point` (Unicode,
/// DerivedCoreProperties.txt; the "Trojan Source" set of CVE-2021-42574 among them), the separators
/// of lines and paragraphs, and the marks of annotations.
fn acts_on_display(c: char) -> bool {
    matches!(
        u32::from(c),
        0xAD | 0x34F
            | 0x61C
            | 0x115F..=0x1160
            | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            | 0x200B..=0x200F
            | 0x2028..=0x202E
            | 0x2060..=0x206F
            | 0x3164
            | 0xFE00..=0xFE0F
            | 0xFEFF
            | 0xFFA0
            | 0xFFF0..=0xFFFB
            | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF
    )
}

/// Text that is escaped already, in quotes unless it is one word: so that what stands beside it
/// cannot be part of it. What is in quotes already stays as it is.
pub(crate) fn word(value: &str) -> Cow<'_, str> {
    let is_word = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
    if is_word || is_quoted(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("\"{}\"", value.replace('"', "\\\"")))
}

/// Whether it begins with a quotation mark, and the next one that no backslash takes the meaning
/// from is its end.
fn is_quoted(value: &str) -> bool {
    let Some(rest) = value.strip_prefix('"') else { return false };
    let mut is_escaped = false;
    let end = rest.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    end.is_some_and(|end| end + 1 == rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_names_show_on_one_line_and_unambiguously() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain.tar.gz", "plain.tar.gz"),
            (b"a\nb\x1b[31m", "a\\x0ab\\x1b[31m"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"a\\x0a", "a\\\\x0a"),
            ("gr\u{fc}n.\u{202e}gpj".as_bytes(), "gr\u{fc}n.\\u{202e}gpj"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
            // A Hangul filler and a variation selector show as nothing.
            ("a\u{3164}b\u{fe0f}\u{e0100}".as_bytes(), "a\\u{3164}b\\u{fe0f}\\u{e0100}"),
            (b"-rf", "-rf"),
        ];
        for (name, shown) in cases {
            assert_eq!(Escaped::new(OsStr::from_bytes(name)).to_string(), shown);
        }
    }

    #[test]
    fn p9_no_value_can_be_taken_for_two_fields() {
        for (value, shown) in [
            ("f", "f"),
            ("dir/f-1.tar.gz", "dir/f-1.tar.gz"),
            ("x verdict=\"valid\"", "\"x verdict=\\\"valid\\\"\""),
            ("a=b", "\"a=b\""),
            (" f ", "\" f \""),
            ("", "\"\""),
            ("\"", "\"\\\"\""),
            ("\"quoted as \\\" it is\"", "\"quoted as \\\" it is\""),
            ("\"x\" verdict=\"valid\"", "\"\\\"x\\\" verdict=\\\"valid\\\"\""),
            ("\"ends in a backslash\\\\\"", "\"ends in a backslash\\\\\""),
        ] {
            assert_eq!(word(value), shown, "{value}");
        }
    }
}
