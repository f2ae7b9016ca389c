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

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_normalizer::properties::CanonicalCombiningClassMapBorrowed;

/// Shows a name on one line with nothing in it that a terminal or a log reader would act on.
///
/// Backslashes double; control characters and bytes that are not UTF-8 become `\xNN`. What a
/// display does not show by itself becomes `\u{NNNN}`: invisible and direction-changing characters,
/// spaces other than U+0020, private use characters, combining diacritical marks, and whatever is
/// not as Unicode normalization form C has it. The result is unambiguous and in that form: no two
/// names show as the same text, or as text that Unicode calls equivalent. Letters of different
/// scripts that look alike stay as they are.
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
            let mut cluster = Cluster::default();
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c if !acts_on_display(c) && cluster.takes(c) => {
                        f.write_char(c)?;
                        continue;
                    }
                    c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
                cluster = Cluster::default(); // after an escape, nothing is there to be combined with
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

/// What was shown as it is since the last character that others may be combined with, that one
/// included.
#[derive(Default)]
struct Cluster(String);

/// So many marks on one character are shown; a longer pile reaches into other lines.
const MAX_MARKS: usize = 4;

impl Cluster {
    /// Whether a character may be shown as it is after this. Then it belongs to it.
    ///
    /// Marks need something to stand on, or they would change what is beside the name: a quotation
    /// mark, or the `=` of a field. And what is shown stays normalized (form C, Unicode Standard
    /// Annex 15): of all names that are equivalent, one alone is.
    fn takes(&mut self, c: char) -> bool {
        if c.is_ascii() {
            self.0.clear();
            self.0.push(c);
            return true;
        }
        let is_mark = CanonicalCombiningClassMapBorrowed::new().get_u8(c) != 0;
        if is_mark && (self.0.is_empty() || self.0.chars().count() > MAX_MARKS) {
            return false;
        }
        let before = self.0.len();
        self.0.push(c);
        if !ComposingNormalizerBorrowed::new_nfc().is_normalized(&self.0) {
            self.0.truncate(before);
            return false;
        }
        if !is_mark {
            self.0.drain(..before); // what comes is combined with this one, or with nothing
        }
        true
    }
}

/// Characters that a display may leave out, take as an order, draw over another, or draw as it
/// draws another, so that one name looks like another: those with the property
/// `Default_Ignorable_Code_Point` (Unicode, DerivedCoreProperties.txt; the "Trojan Source" set of
/// CVE-2021-42574 among them), the separators of lines and paragraphs, the marks of annotations,
/// spaces (`White_Space` in PropList.txt, and the blank Braille pattern), the blocks of combining
/// diacritical marks that belong to no script, other blanks, and what has no agreed look: private
/// use, and noncharacters.
fn acts_on_display(c: char) -> bool {
    matches!(
        u32::from(c),
        0xA0 | 0xAD
            | 0x300..=0x36F
            | 0x61C
            | 0x115F..=0x1160
            | 0x1680
            | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            | 0x1AB0..=0x1AFF
            | 0x1DC0..=0x1DFF
            | 0x2000..=0x200F
            | 0x2028..=0x202F
            | 0x205F..=0x206F
            | 0x20D0..=0x20FF
            | 0x2800
            | 0x3000
            | 0x3099..=0x309A
            | 0x3164
            | 0xE000..=0xF8FF
            | 0xFDD0..=0xFDEF
            | 0xFE00..=0xFE0F
            | 0xFE20..=0xFE2F
            | 0xFEFF
            | 0xFFA0
            | 0xFFF0..=0xFFFC
            | 0x13430..=0x1345F
            | 0x16FE4
            | 0x1BCA0..=0x1BCA3
            | 0x1D159
            | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF
            | 0xF0000..=0x0010_FFFF
    ) || matches!(u32::from(c) & 0xFFFF, 0xFFFE..=0xFFFF)
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

    /// What looks the same, in groups: all but one of each show what they are.
    #[test]
    fn p9_names_that_look_alike_are_told_apart() {
        let groups: &[&[&str]] = &[
            &["caf\u{e9}", "cafe\u{301}"],
            &["\u{1ea1}\u{301}", "a\u{323}\u{301}", "a\u{301}\u{323}"],
            // Singletons: signs that are letters by another name.
            &["\u{c5}", "\u{212b}", "A\u{30a}"],
            &["\u{3a9}", "\u{2126}"],
            &["K", "\u{212a}"],
            &[";", "\u{37e}"],
            &["\u{8c48}", "\u{f900}"],
            // What macOS makes of Japanese and Korean names.
            &["\u{304c}", "\u{304b}\u{3099}"],
            &["\u{d55c}", "\u{1112}\u{1161}\u{11ab}", "\u{d558}\u{11ab}"],
            // Bengali, Tamil, Hebrew: marks that are needed, in one of several ways to write them.
            &["\u{995}\u{9cb}", "\u{995}\u{9c7}\u{9be}"],
            &["\u{b95}\u{bca}", "\u{b95}\u{bc6}\u{bbe}"],
            &["\u{5d0}\u{5b7}", "\u{fb2e}"],
            // What a display may draw over the character before, or leave out.
            &["x", "x\u{302}", "x\u{302}\u{302}", "x\u{34f}", "x\u{20dd}", "x\u{200b}", "x\u{fe0f}"],
            &["a b", "a\u{a0}b", "a\u{2009}b", "a\u{3000}b", "a\u{2800}b", "a\u{202f}b"],
            // No font has them: one box looks like the other.
            &["\u{e000}", "\u{e001}", "\u{f0000}", "\u{10fffd}"],
        ];
        for group in groups {
            let shown: Vec<String> = group.iter().map(|name| Escaped::new(name).to_string()).collect();
            let as_they_are = group.iter().zip(&shown).filter(|(name, shown)| *name == *shown).count();
            assert!(as_they_are <= 1, "{shown:?}");
            let nfc = ComposingNormalizerBorrowed::new_nfc();
            for (at, text) in shown.iter().enumerate() {
                assert!(nfc.is_normalized(text), "{text}");
                assert!(!shown[..at].contains(text), "{shown:?}");
            }
        }
    }

    #[test]
    fn p9_what_people_write_is_shown_as_it_is() {
        for name in [
            "gr\u{fc}n \u{fd}\u{17e}.txt",
            "\u{3c0}\u{3cc}\u{3bb}\u{3b7}",
            "\u{439}\u{451}",
            "\u{65e5}\u{672c}\u{8a9e}\u{304c}",
            "\u{d55c}\u{ad6d}\u{c5b4}",
            "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}", // Hindi
            "\u{9ac}\u{9be}\u{982}\u{9b2}\u{9be}",        // Bengali
            "\u{e44}\u{e17}\u{e22}\u{e49}",               // Thai
            "\u{5e9}\u{5b8}\u{5c1}\u{5dc}\u{5d5}\u{5b9}\u{5dd}", // Hebrew, with points
            "\u{645}\u{64f}\u{62d}\u{64e}\u{645}\u{64e}\u{651}\u{62f}", // Arabic, vocalized
            "Ti\u{1ebf}ng Vi\u{1ec7}t",
        ] {
            assert_eq!(Escaped::new(name).to_string(), name);
        }
    }

    #[test]
    fn p9_a_mark_never_changes_what_is_beside_the_name() {
        // `=` and U+0338 are one character when they meet; a pile reaches into other lines.
        for (name, shown) in
            [("\u{338}f", "\\u{338}f"), ("\u{5b7}f", "\\u{5b7}f"), ("\u{200b}\u{5b7}", "\\u{200b}\\u{5b7}")]
        {
            assert_eq!(Escaped::new(name).to_string(), shown);
        }
        let pile = format!("\u{645}{}", "\u{64e}".repeat(9));
        let shown = Escaped::new(&pile).to_string();
        assert!(shown.starts_with("\u{645}\u{64e}\u{64e}\u{64e}\u{64e}\\u{64e}"), "{shown}");
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
