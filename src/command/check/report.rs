//! What a check found, part by part, for people and for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::inspect::{Finding, Level};
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::policy::Faults;
use crate::state::export;
use crate::terminal::{Meaning, Palette};

/// One part: the policy as a whole, a rule, the keys, the host.
pub(super) struct Section {
    /// For programs: `policy`, `rule`, `host`.
    pub(super) kind: &'static str,
    /// The rule's name, in the part of a rule.
    pub(super) rule: Option<String>,
    /// The heading, for people.
    pub(super) title: String,
    pub(super) findings: Vec<Finding>,
}

/// Everything.
pub(super) struct Report<'a> {
    /// The policy file.
    pub(super) file: &'a Path,
    /// Whether KMS and the host were asked.
    pub(super) online: bool,
    pub(super) sections: Vec<Section>,
}

impl Report<'_> {
    fn levels(&self) -> impl Iterator<Item = Level> {
        self.sections.iter().flat_map(|section| &section.findings).map(|finding| finding.level)
    }

    /// The exit code of everything together.
    pub(super) fn exit(&self) -> Exit {
        self.levels().fold(Exit::Done, |exit, level| exit.and(level.exit()))
    }

    /// For people: a line for each finding, and one below it with what to do.
    pub(super) fn in_words(&self, colours: Palette) -> String {
        let mut lines = Vec::new();
        for section in &self.sections {
            lines.push(colours.heading(&section.title).to_string());
            for Finding { level, says, remedy, .. } in &section.findings {
                let meaning = match level {
                    Level::Fine => Meaning::Good,
                    Level::Note => Meaning::Secondary,
                    Level::Fix => Meaning::Bad,
                    Level::Unknown => Meaning::Waiting,
                };
                lines.push(format!("  {:7}  {says}", colours.paint(Some(meaning), level.as_str())));
                lines.extend(remedy.as_ref().map(|remedy| format!("           to do: {remedy}")));
            }
        }
        let count = |asked| self.levels().filter(|level| *level == asked).count();
        let (fixes, unknown) = (count(Level::Fix), count(Level::Unknown));
        let end = match (fixes, unknown) {
            (0, 0) => "all is well".to_owned(),
            (fixes, 0) => format!("{fixes} to be fixed"),
            (0, unknown) => format!("{unknown} could not be told"),
            (fixes, unknown) => format!("{fixes} to be fixed, {unknown} could not be told"),
        };
        lines.push(format!("{}: {end}", quoted(self.file)));
        lines.join("\n")
    }

    /// For programs: one object, on one line.
    pub(super) fn in_json(&self) -> String {
        let finding = |Finding { about, level, says, remedy }: &Finding| json!({ "about": about, "level": level.as_str(), "says": says, "to_do": remedy });
        let section = |section: &Section| {
            let findings: Vec<Value> = section.findings.iter().map(finding).collect();
            json!({ "part": section.kind, "rule": section.rule, "findings": findings })
        };
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        export::json(&json!({
            "policy": Escaped::new(self.file).to_string(), "online": self.online, "exit": self.exit().code(),
            "faults": [], "parts": sections,
        }))
    }
}

/// A policy with faults, for programs.
pub(super) fn faults_in_json(faults: &Faults, online: bool, exit: Exit) -> String {
    let all: Vec<Value> =
        faults.iter().map(|fault| json!({ "line": fault.line, "message": fault.message })).collect();
    export::json(&json!({
        "policy": Escaped::new(faults.file()).to_string(), "online": online, "exit": exit.code(),
        "faults": all, "parts": [],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> Report<'static> {
        let section = Section { kind: "host", rule: None, title: "this host".to_owned(), findings };
        Report { file: Path::new("/p\n"), online: true, sections: vec![section] }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code_and_each_is_told_with_its_remedy() {
        let fine = || Finding::fine("a", "good");
        let note = || Finding::note("b", "so so", "nothing much");
        let fix = || Finding::fix("c", "bad", "change it");
        let unknown = || Finding::unknown("d", "who knows", "");
        assert_eq!(report(vec![fine(), note()]).exit(), Exit::Done);
        assert_eq!(report(vec![fine(), fix()]).exit(), Exit::Usage);
        assert_eq!(report(vec![unknown(), fix()]).exit(), Exit::Unfinished);
        assert_eq!(
            report(vec![fine(), note(), fix(), unknown()]).in_words(Palette::PLAIN),
            "this host\n  fine     good\n  note     so so\n           to do: nothing much\n  fix      bad\n           \
             to do: change it\n  unknown  who knows\n\"/p\\x0a\": 1 to be fixed, 1 could not be told"
        );
        assert!(report(vec![fine()]).in_words(Palette::PLAIN).ends_with(": all is well"));
    }

    #[test]
    fn p9_json_is_one_line_of_ascii() {
        let json = report(vec![Finding::fix("a", "b\u{202e}\n", "")]).in_json();
        assert!(json.is_ascii() && !json.contains('\n'));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["exit"], 2);
        assert_eq!(value["parts"][0]["findings"][0]["to_do"], Value::Null);
    }
}
