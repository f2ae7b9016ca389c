//! What a check found, part by part, for people and for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::diagnose::inspect::{DIRECTORY, FILES, Finding, Level};
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::policy::{Faults, Rule};
use crate::state::export;
use crate::terminal::{Meaning, Palette};

/// One part: the policy as a whole, a rule, the host.
pub(super) struct Section<'a> {
    /// For programs: [`POLICY`], `rule`, `control`, `host`.
    pub(super) kind: &'static str,
    /// The rule, in the part of a rule.
    pub(super) rule: Option<&'a Rule>,
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
    pub(super) sections: Vec<Section<'a>>,
}

/// The kind of the part that is about the policy as a whole: what is to be fixed there keeps the
/// daemon from starting.
pub(super) const POLICY: &str = "policy";

impl Section<'_> {
    /// Whether what is to be fixed is about some of its files alone.
    fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Fix || finding.about == FILES)
    }

    fn has(&self, level: Level) -> bool {
        self.findings.iter().any(|finding| finding.level == level)
    }

    /// The finding for people who asked for no more than what matters, if this one does.
    fn in_short(&self, finding: &Finding, colours: Palette) -> Option<String> {
        let Finding { about, level, says, hint } = finding;
        let says = match (self.rule, *level) {
            (None, Level::Fine) => return None,
            (Some(rule), Level::Fine) if *about == FILES => format!("{says} in {}", quoted(&rule.path)),
            (Some(_), Level::Fine) if *about == DIRECTORY => says.clone(),
            (Some(_), Level::Fine) => return None,
            (_, level) => match says.strip_prefix(HELD) {
                Some(why) => format!("{}{why}", colours.waiting(HELD)),
                None => format!("{}: {says}", colours.paint(Some(meaning(level)), level.as_str())),
            },
        };
        let whose = self.rule.map(|rule| format!("{}: ", colours.heading(&rule.name))).unwrap_or_default();
        let hint = hint.as_ref().map(|hint| format!("\n  to do: {hint}")).unwrap_or_default();
        Some(format!("{whose}{says}{hint}"))
    }
}

/// How what is said of a rule that would be held begins.
const HELD: &str = "held:";

const fn meaning(level: Level) -> Meaning {
    match level {
        Level::Fine => Meaning::Good,
        Level::Note => Meaning::Secondary,
        Level::Fix => Meaning::Bad,
        Level::Unknown => Meaning::Waiting,
    }
}

impl Report<'_> {
    fn levels(&self) -> impl Iterator<Item = Level> {
        self.sections.iter().flat_map(|section| &section.findings).map(|finding| finding.level)
    }

    /// The exit code of everything together.
    pub(super) fn exit(&self) -> Exit {
        self.levels().fold(Exit::Done, |exit, level| exit.and(level.exit()))
    }

    /// The exit code for who is about to reload: what holds single rules does not keep a policy
    /// from being taken over, or whoever may write to one watched directory could.
    pub(super) fn exit_of_reload(&self) -> Exit {
        let mut of_policy = self.sections.iter().filter(|section| section.kind == POLICY);
        if of_policy.any(|section| section.has(Level::Fix)) { Exit::Usage } else { Exit::Done }
    }

    /// For people, in short: how each rule stands, and what is not as it should be.
    pub(super) fn in_short(&self, colours: Palette) -> String {
        let lines = |section: &Section<'_>| -> Vec<String> {
            section.findings.iter().filter_map(|finding| section.in_short(finding, colours)).collect()
        };
        let mut lines: Vec<_> = self.sections.iter().flat_map(lines).collect();
        lines.push(format!("{}: {}", quoted(self.file), self.end_in_short(colours)));
        lines.join("\n")
    }

    fn end_in_short(&self, colours: Palette) -> String {
        let (rules, whole): (Vec<_>, Vec<_>) =
            self.sections.iter().partition(|section| section.rule.is_some());
        if whole.iter().any(|section| section.kind == POLICY && section.has(Level::Fix)) {
            return colours.bad("the daemon would refuse to start").to_string();
        }
        let counted = |n| if n == 1 { "1 rule".to_owned() } else { format!("{n} rules") };
        let mut end = counted(rules.len());
        let is_bad = |section: &&&Section<'_>| section.has(Level::Fix);
        let is_in_part = |section: &&&Section<'_>| is_bad(section) && section.works();
        let (bad, in_part) = (rules.iter().filter(is_bad).count(), rules.iter().filter(is_in_part).count());
        if bad > in_part {
            let says = format!("{} cannot work before that is changed", counted(bad - in_part));
            end = format!("{end}, {}", colours.bad(&says));
        }
        if in_part > 0 {
            let says = format!("{} cannot handle every file before that is changed", counted(in_part));
            end = format!("{end}, {}", colours.bad(&says));
        }
        let unasked = whole.iter().any(|section| section.kind != POLICY && section.has(Level::Fix));
        if unasked {
            end = format!("{end}, {}", colours.bad("the control socket or the metrics are not to be had"));
        }
        let untold = self.levels().filter(|level| *level == Level::Unknown).count();
        if untold > 0 {
            end = format!("{end}, {}", colours.waiting(&format!("{untold} could not be told")));
        }
        if bad == 0 && untold == 0 && !unasked {
            end = format!("{end}, {}", colours.good("no fault"));
        }
        end
    }

    /// For people: a line for each finding, and one below it with what to do.
    pub(super) fn in_words(&self, colours: Palette) -> String {
        let mut lines = Vec::new();
        for section in &self.sections {
            lines.push(colours.heading(&section.title).to_string());
            for Finding { level, says, hint, .. } in &section.findings {
                lines.push(format!("  {:7}  {says}", colours.paint(Some(meaning(*level)), level.as_str())));
                lines.extend(hint.as_ref().map(|hint| format!("           to do: {hint}")));
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

    /// For programs: one object, on one line, with the code that the process exits with.
    pub(super) fn in_json(&self, exit: Exit) -> String {
        let finding = |Finding { about, level, says, hint }: &Finding| json!({ "about": about, "level": level.as_str(), "says": says, "to_do": hint });
        let section = |section: &Section<'_>| {
            let findings: Vec<Value> = section.findings.iter().map(finding).collect();
            json!({ "part": section.kind, "rule": section.rule.map(|rule| &rule.name), "findings": findings })
        };
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        export::json(&json!({
            "policy": Escaped::new(self.file).to_string(), "online": self.online, "exit": exit.code(),
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
    fn the_worst_finding_decides_the_exit_code_and_each_is_told_with_its_hint() {
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
    fn a_reload_fails_for_what_the_daemon_would_refuse_and_for_nothing_else() {
        let of = |kind, finding| {
            let section = Section { kind, rule: None, title: String::new(), findings: vec![finding] };
            Report { file: Path::new("/p"), online: true, sections: vec![section] }.exit_of_reload()
        };
        let bad = || Finding::fix("a", "bad", "");
        assert_eq!(of(POLICY, bad()), Exit::Usage);
        assert_eq!(of(POLICY, Finding::unknown("a", "who knows", "")), Exit::Done);
        // It works without its control socket, and slower on a poor host.
        assert_eq!((of("control", bad()), of("host", bad())), (Exit::Done, Exit::Done));
    }

    #[test]
    fn p9_json_is_one_line_of_ascii() {
        let json = report(vec![Finding::fix("a", "b\u{202e}\n", "")]).in_json(Exit::Usage);
        assert!(json.is_ascii() && !json.contains('\n'));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["exit"], 2);
        assert_eq!(value["parts"][0]["findings"][0]["to_do"], Value::Null);
    }
}
