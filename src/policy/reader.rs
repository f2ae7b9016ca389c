//! Reads a parsed TOML tree key by key, and reports what is not as the grammar has it.
//!
//! Every method that reads returns `None` after a report: a caller goes on with the next key, so
//! that all faults of a file show at once. Knows types and bounds; what a key means is the
//! caller's.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Report;
use super::grammar::{Key, ModeName, Section};
use crate::escape::Escaped;

/// The longest path that Linux takes, in bytes (`PATH_MAX` without the end, limits.h).
const MAX_PATH: usize = 4095;

/// A table of the policy.
#[derive(Clone, Copy)]
pub(super) struct Table<'t> {
    section: &'static Section,
    entries: &'t DeTable<'t>,
    /// The line of its header, from 1.
    pub(super) line: usize,
    pub(super) report: &'t Report,
}

/// An entry of a table, or one of a list in it.
#[derive(Clone, Copy)]
pub(super) struct Field<'t> {
    pub(super) key: &'static Key,
    /// The line of the value, from 1.
    pub(super) line: usize,
    value: &'t DeValue<'t>,
    in_list: bool,
    pub(super) report: &'t Report,
}

impl<'t> Table<'t> {
    /// Opens a table and reports every key it should not have. `mode` is that of a rule, where it
    /// is known.
    pub(super) fn open(
        section: &'static Section,
        entries: &'t DeTable<'t>,
        line: usize,
        mode: Option<ModeName>,
        report: &'t Report,
    ) -> Self {
        for (name, _) in entries {
            let line = report.line(name.span().start);
            let name = name.get_ref();
            let shown = Escaped::text(name);
            match (section.find(name), mode) {
                (Some(Key { only: Some(only), .. }), Some(mode)) if *only != mode => {
                    let (its, other) = (mode.as_str(), mode.other().as_str());
                    let message =
                        format!("`{shown}` belongs to {other} rules, and this is a {its} rule; remove it");
                    report.fault_of_whole(line, message);
                }
                (Some(_), _) => {}
                (None, mode) => {
                    let advice = section.advice(name, mode);
                    report
                        .fault_of_whole(line, format!("`{shown}` is no key of {}; {advice}", section.title));
                }
            }
        }
        Self { section, entries, line, report }
    }

    /// The entry called `name`, if there is one.
    pub(super) fn find(&self, name: &str) -> Option<Field<'t>> {
        let Some(key) = self.section.find(name) else {
            unreachable!("BUG: {} has no key {name} in the grammar", self.section.title);
        };
        let (at, value) = self.entries.iter().find(|(key, _)| key.get_ref() == name)?;
        let line = self.report.line(at.span().start);
        Some(Field { key, line, value: value.get_ref(), in_list: false, report: self.report })
    }

    /// The entry called `name`, which must be there; `whose` says in whose table.
    pub(super) fn require(&self, name: &str, whose: &impl Display) -> Option<Field<'t>> {
        let found = self.find(name);
        if let (None, Some(key)) = (&found, self.section.find(name)) {
            let Key { name, what, example, .. } = key;
            let message = format!("{whose} has no `{name}`; write {what}, such as {example}");
            self.report.fault_of_whole(self.line, message);
        }
        found
    }

    /// [`Table::section`] once more: its type and unknown keys were reported before.
    pub(super) fn section_quietly(&self, name: &str, section: &'static Section) -> Option<Self> {
        let field = self.find(name)?;
        let (entries, line, report) = (field.value.as_table()?, field.line, self.report);
        Some(Self { section, entries, line, report })
    }

    /// The entry called `name` as a table of its own.
    pub(super) fn section(&self, name: &str, section: &'static Section) -> Option<Self> {
        let field = self.find(name)?;
        Some(Self::open(section, field.entries()?, field.line, None, self.report))
    }
}

impl<'t> Field<'t> {
    /// Reports that the value is wrong on its own: `problem` says how, then what to write.
    pub(super) fn fault(&self, problem: impl Display) {
        self.report.fault(self.line, format!("`{}`: {problem}", self.key.name));
    }

    /// Reports that the value does not go with the rest of the file.
    pub(super) fn conflict(&self, problem: impl Display) {
        self.report.fault_of_whole(self.line, format!("`{}`: {problem}", self.key.name));
    }

    fn wrong_type(&self, wanted: &str) {
        let Key { name, what, example, .. } = self.key;
        let entry = if self.in_list { "an entry of " } else { "" };
        let found = type_of(self.value);
        let message =
            format!("{entry}`{name}` is {found} and should be {wanted}; write {what}, such as {example}");
        self.report.fault(self.line, message);
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&'t str> {
        self.text_or("a string")
    }

    /// A string, where something else would also do: `wanted` names both.
    pub(super) fn text_or(&self, wanted: &str) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(wanted);
        }
        text
    }

    /// Whether the value is this string.
    pub(super) fn is_text(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
    }

    /// A string that is not empty and is a single line.
    pub(super) fn line_of_text(&self) -> Option<&'t str> {
        let text = self.text()?;
        if text.is_empty() {
            self.fault(format!("\"\" says nothing; write {}, such as {}", self.key.what, self.key.example));
            return None;
        }
        if text.contains(char::is_control) {
            let shown = Escaped::text(text);
            self.fault(format!("\"{shown}\" holds a control character; write it without"));
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.wrong_type("true or false");
        }
        boolean
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.fault(format!(
                "\"{}\" is no choice here; write {}",
                Escaped::text(text),
                words.join(" or ")
            ));
        }
        found
    }

    /// A whole number within bounds.
    pub(super) fn number<N: TryFrom<i128>>(&self, bounds: RangeInclusive<i128>) -> Option<N> {
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type("a whole number");
            return None;
        };
        // More digits than an i128 holds are beyond any bound.
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|n| bounds.contains(n)).and_then(|n| N::try_from(n).ok());
        if number.is_none() {
            let (least, most) = (bounds.start(), bounds.end());
            // The parser lets NUL bytes through in numbers with an underscore.
            let written = integer.to_string();
            let shown = Escaped::text(&written);
            self.fault(format!("{shown} is out of bounds; write a whole number from {least} to {most}"));
        }
        number
    }

    /// Whether the value is a whole number.
    pub(super) fn is_number(&self) -> bool {
        self.value.is_integer()
    }

    /// A size in bytes: a whole number, or one with a unit.
    pub(super) fn size(&self, least: u64) -> Option<u64> {
        // What `off_t` and SQLite hold; far above any disk.
        const MOST: u64 = i64::MAX as u64;
        if self.value.is_integer() {
            return self.number(least.into()..=MOST.into());
        }
        let text = self.text_or("a string or a whole number")?;
        let shown = Escaped::text(text);
        match ByteSize::from_str(text).map(|size| size.as_u64()) {
            Err(_) => {
                self.fault(format!("\"{shown}\" is no size; write one such as \"16GiB\", \"100MB\" or 4096"))
            }
            Ok(size) if size < least => {
                self.fault(format!("\"{shown}\" is too small; write at least {least} byte"))
            }
            Ok(size) if size > MOST => {
                self.fault(format!("\"{shown}\" is too large; write at most {MOST} bytes"))
            }
            Ok(size) => return Some(size),
        }
        None
    }

    /// A span of time.
    pub(super) fn duration(&self, least: Least, most: Duration) -> Option<Duration> {
        let text = self.text()?;
        let shown = Escaped::text(text);
        match humantime::parse_duration(text) {
            Err(_) => {
                self.fault(format!(
                    "\"{shown}\" is no duration; write one such as \"500ms\", \"2s\" or \"1h 30m\""
                ));
            }
            Ok(Duration::ZERO) if least == Least::AboveZero => {
                self.fault(format!("\"{shown}\" is too short; write a duration above zero, such as \"2s\""));
            }
            Ok(duration) if duration < least.duration() => {
                let least = humantime::format_duration(least.duration());
                self.fault(format!("\"{shown}\" is too short; write at least \"{least}\""));
            }
            Ok(duration) if duration > most => {
                self.fault(format!(
                    "\"{shown}\" is too long; write at most \"{}\"",
                    humantime::format_duration(most)
                ));
            }
            Ok(duration) => return Some(duration),
        }
        None
    }

    /// A path, made absolute from `base` and freed of `.` and `..`.
    pub(super) fn path(&self, base: &Path) -> Option<PathBuf> {
        let text = self.line_of_text()?;
        if text == "~" || text.starts_with("~/") {
            self.fault(format!("\"{}\": ~ is not expanded here; write the whole path", Escaped::text(text)));
            return None;
        }
        if text.len() > MAX_PATH {
            self.fault(format!("a path has at most {MAX_PATH} bytes; write a shorter one"));
            return None;
        }
        Some(normalised(&base.join(text)))
    }

    /// The entries of a list.
    pub(super) fn list(&self) -> Option<Vec<Field<'t>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type("a list");
            return None;
        };
        Some(array.iter().map(|entry| self.entry(entry)).collect())
    }

    fn entry(&self, entry: &'t Spanned<DeValue<'t>>) -> Self {
        let line = self.report.line(entry.span().start);
        Self { line, value: entry.get_ref(), in_list: true, ..*self }
    }

    /// The entries of a table.
    pub(super) fn entries(&self) -> Option<&'t DeTable<'t>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.wrong_type("a table");
        }
        table
    }

    /// The entries of a table whose keys are free: each key, and its value as a field.
    pub(super) fn pairs(&self) -> Option<Vec<(&'t str, Self)>> {
        let pair = |(name, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &'t std::borrow::Cow<'t, str> = name.get_ref();
            (name.as_ref(), self.entry(value))
        };
        Some(self.entries()?.iter().map(pair).collect())
    }
}

/// The least that a duration may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Least {
    Zero,
    AboveZero,
    Of(Duration),
}

impl Least {
    const fn duration(self) -> Duration {
        match self {
            Self::Zero | Self::AboveZero => Duration::ZERO,
            Self::Of(least) => least,
        }
    }
}

const fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `path` without `.` and `..`, by its text alone. What is above the root is the root.
fn normalised(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_freed_of_dots() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("/a/./b/", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a//b/..", "/a"),
            ("/..", "/"),
            ("/a/..b", "/a/..b"),
        ] {
            assert_eq!(normalised(Path::new(path)), Path::new(normal), "{path}");
        }
    }
}
