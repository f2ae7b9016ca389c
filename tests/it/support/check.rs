//! What `kms-sig check --json` finds.

use serde_json::Value;

use super::place::Place;

/// What a check found, with its exit code.
pub(crate) struct Found(pub(crate) Value);

impl Found {
    /// `check --online --json` of a place.
    #[track_caller]
    pub(crate) fn online(place: &Place, code: i32) -> Self {
        let run = place.run(["check", "--policy", "policy.toml", "--online", "--json"]).exits(code);
        Self::read(run.stdout(), code)
    }

    #[track_caller]
    pub(crate) fn read(stdout: &[u8], code: i32) -> Self {
        let found: Value = serde_json::from_slice(stdout).unwrap();
        assert_eq!(found["exit"], code, "{found:#}");
        Self(found)
    }

    /// The level of the finding that says this, and what is to be done about it.
    #[track_caller]
    pub(crate) fn says(&self, part: &str, text: &str) -> (String, String) {
        let parts = self.0["parts"].as_array().unwrap().iter();
        let of_part = parts.filter(|found| found["part"] == part || found["rule"] == part);
        let mut findings = of_part.flat_map(|found| found["findings"].as_array().unwrap());
        let finding = findings.find(|finding| finding["says"].as_str().unwrap().contains(text));
        let finding = finding.unwrap_or_else(|| panic!("nothing of {part} says {text:?} in {:#}", self.0));
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        (word("level"), word("to_do"))
    }

    /// Nothing that was found has this in it.
    #[cfg(feature = "aws")]
    #[track_caller]
    pub(crate) fn never_says(&self, text: &str) {
        assert!(!self.0.to_string().contains(text), "{:#}", self.0);
    }

    #[track_caller]
    pub(crate) fn is(&self, part: &str, text: &str, level: &str) {
        assert_eq!(self.says(part, text).0, level, "{text}");
    }
}
