//! Terminals: which colour means what, and which of the standard streams gets colours.
//!
//! The one place that knows either. Each stream is decided on its own, and colouring never changes
//! the text: without its escapes it is what a pipe gets, to the byte. Escapes no names, that is
//! done before (P9). What is drawn while work goes on is [`progress`].

pub mod panic;
pub mod progress;
pub(crate) mod streams;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _};

use anstyle::{AnsiColor, Style};

use crate::state::Outcome;

/// Set to anything, it takes colours away (<https://no-color.org>).
const NO_COLOR: &str = "NO_COLOR";
/// Set to anything but `0`, they give colours to what is no terminal.
const FORCE: [&str; 2] = ["CLICOLOR_FORCE", "FORCE_COLOR"];
/// Set to `0`, it takes colours away, too (<https://bixense.com/clicolors/>).
const CLICOLOR: &str = "CLICOLOR";
/// What kind of terminal it is; `dumb` is one that only types.
const TERM: &str = "TERM";

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// As it should be: valid, signed, delivered. Green.
    Good,
    /// Not as it should be: invalid, quarantined, an error. Red.
    Bad,
    /// Not yet: held, left, refused; somebody should look. Yellow.
    Waiting,
    /// Less important than what is around it. Dim.
    Secondary,
    /// What the rest is about. Bold.
    Heading,
}

impl Meaning {
    /// What an outcome on record means, as history and summaries write it. Words that are none mean
    /// nothing: state may hold anything.
    pub(crate) fn of_outcome(word: &str) -> Option<Self> {
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)?;
        Some(match outcome {
            Outcome::Signed | Outcome::Adopted | Outcome::Valid | Outcome::Delivered => Self::Good,
            Outcome::Invalid | Outcome::Quarantined => Self::Bad,
            Outcome::Refused | Outcome::Signing => Self::Waiting,
        })
    }

    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Waiting => AnsiColor::Yellow.on_default(),
            Self::Secondary => Style::new().dimmed(),
            Self::Heading => Style::new().bold(),
        }
    }
}

/// The colours of one stream, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    coloured: bool,
}

/// The colours of standard output.
pub(crate) fn stdout() -> Palette {
    Palette { coloured: wants_colours(io::stdout().is_terminal(), |name| std::env::var_os(name)) }
}

/// The colours of standard error.
pub fn stderr() -> Palette {
    Palette { coloured: wants_colours(io::stderr().is_terminal(), |name| std::env::var_os(name)) }
}

/// Whether a stream gets colours. Who says no is heard before who says yes.
fn wants_colours(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let is_zero = |name: &str| variable(name).is_some_and(|value| value == "0");
    if is_set(NO_COLOR) {
        return false;
    }
    if FORCE.into_iter().any(|name| is_set(name) && !is_zero(name)) {
        return true;
    }
    is_terminal && !is_zero(CLICOLOR) && understands_escapes(variable(TERM))
}

/// Whether a terminal of this kind does more than type.
fn understands_escapes(kind: Option<OsString>) -> bool {
    kind.is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

impl Palette {
    /// No colours: for files, and for text that is compared.
    pub(crate) const PLAIN: Self = Self { coloured: false };

    /// Whether there are any.
    pub const fn is_coloured(self) -> bool {
        self.coloured
    }

    /// Text in the colour of what it means. A width given when it is shown (`{:11}`) is that of the
    /// text.
    pub(crate) const fn paint(self, meaning: Option<Meaning>, text: &str) -> Painted<'_> {
        let style = match (self.coloured, meaning) {
            (true, Some(meaning)) => meaning.style(),
            (false, _) | (_, None) => Style::new(),
        };
        Painted { style, text }
    }

    /// As it should be.
    pub(crate) const fn good(self, text: &str) -> Painted<'_> {
        self.paint(Some(Meaning::Good), text)
    }

    /// Not as it should be.
    pub(crate) const fn bad(self, text: &str) -> Painted<'_> {
        self.paint(Some(Meaning::Bad), text)
    }

    /// Not yet, or to be looked at.
    pub(crate) const fn waiting(self, text: &str) -> Painted<'_> {
        self.paint(Some(Meaning::Waiting), text)
    }

    /// What the rest is about.
    pub(crate) const fn heading(self, text: &str) -> Painted<'_> {
        self.paint(Some(Meaning::Heading), text)
    }

    /// The word for an outcome, in the colour of what it means.
    pub(crate) fn outcome(self, word: &str) -> Painted<'_> {
        self.paint(Meaning::of_outcome(word), word)
    }

    /// A line for standard error whose beginning says what kind of line it is.
    pub(crate) fn labelled(self, line: &str) -> String {
        const LABELS: [(&str, Meaning); 8] = [
            ("kms-sig:", Meaning::Bad),
            ("error:", Meaning::Bad), // clap's
            ("invalid signature", Meaning::Bad),
            ("no signature:", Meaning::Bad),
            ("the record is broken:", Meaning::Bad),
            ("warning:", Meaning::Waiting),
            ("hint:", Meaning::Heading),
            ("reason:", Meaning::Heading),
        ];
        let label = |(label, meaning): (&'static str, Meaning)| {
            let rest = line.strip_prefix(label)?;
            Some(format!("{}{rest}", self.paint(Some(meaning), label)))
        };
        LABELS.into_iter().find_map(label).unwrap_or_else(|| line.to_owned())
    }
}

/// Text in its colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Painted<'a> {
    style: Style,
    text: &'a str,
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.style.render())?;
        f.pad(self.text)?;
        write!(f, "{}", self.style.render_reset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Palette = Palette { coloured: true };

    #[test]
    fn colours_go_to_terminals_unless_somebody_says_no() {
        type Set = &'static [(&'static str, &'static str)];
        let cases: [(bool, Set, bool); 18] = [
            (true, &[("TERM", "xterm")], true),
            (false, &[("TERM", "xterm")], false),
            (true, &[], false), // nobody knows what it understands
            (true, &[("TERM", "")], false),
            (true, &[("TERM", "dumb")], false),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "1")], false),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "0")], false), // anything but nothing
            (true, &[("TERM", "xterm"), ("NO_COLOR", "")], true),
            (true, &[("TERM", "xterm"), ("CLICOLOR", "0")], false),
            (true, &[("TERM", "xterm"), ("CLICOLOR", "1")], true),
            (false, &[("CLICOLOR", "1")], false),
            (false, &[("CLICOLOR_FORCE", "1")], true),
            (false, &[("FORCE_COLOR", "3")], true),
            (false, &[("FORCE_COLOR", "0")], false),
            (false, &[("FORCE_COLOR", "")], false),
            (false, &[("CLICOLOR_FORCE", "0"), ("FORCE_COLOR", "0")], false),
            (true, &[("TERM", "dumb"), ("FORCE_COLOR", "1")], true),
            (true, &[("TERM", "xterm"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false),
        ];
        for (is_terminal, set, coloured) in cases {
            let variable = |name: &str| {
                set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(*value))
            };
            assert_eq!(wants_colours(is_terminal, variable), coloured, "{is_terminal} {set:?}");
        }
    }

    #[test]
    fn a_column_is_as_wide_with_colours_as_without() {
        assert_eq!(format!("[{:9}]", COLOURED.good("signed")), "[\x1b[32msigned   \x1b[0m]");
        assert_eq!(format!("[{:9}]", Palette::PLAIN.good("signed")), "[signed   ]");
        assert_eq!(format!("[{:>9}]", COLOURED.paint(None, "signed")), "[   signed]");
    }

    #[test]
    fn every_outcome_has_a_colour_and_other_words_have_none() {
        for word in Outcome::ALL.map(Outcome::as_str) {
            assert!(COLOURED.outcome(word).to_string().contains(word), "{word}");
            assert!(Meaning::of_outcome(word).is_some(), "{word}");
        }
        for word in ["", "released", "purged", "\x1b[2J", "Signed"] {
            assert_eq!(COLOURED.outcome(word).to_string(), word);
        }
    }

    #[test]
    fn only_the_label_of_a_line_is_coloured_and_only_at_its_beginning() {
        assert_eq!(COLOURED.labelled("hint: kms-sig: x"), "\x1b[1mhint:\x1b[0m kms-sig: x");
        assert_eq!(COLOURED.labelled("kms-sig: no"), "\x1b[31mkms-sig:\x1b[0m no");
        assert_eq!(COLOURED.labelled("other hint: x"), "other hint: x");
        assert_eq!(Palette::PLAIN.labelled("kms-sig: no"), "kms-sig: no");
    }
}
