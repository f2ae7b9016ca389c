//! What CONTRIBUTING.md tells those who add a test is true: its examples are cases of the tests.

use std::fs;

use crate::support::document::{section, sources};

/// A few lines, so that who copies them has read them.
const MAX_LINES: usize = 14;

/// The kinds of cases that have an example.
const KINDS: [&str; 7] = [
    "### A settling case",
    "### A policy",
    "### A signature vector",
    "### A tree vector",
    "### A command line",
    "### The daemon",
    "### A crash",
];

/// The examples of a part of the document: the file that was last named before each, and its text.
fn examples(part: &str) -> Vec<(String, String)> {
    let (mut file, mut found, mut lines) = (String::new(), Vec::new(), part.lines());
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            let named = line.split('`').skip(1).step_by(2).filter(|name| sources().join(name).is_file());
            file = named.last().map_or(file, str::to_owned);
            continue;
        };
        let code = lines.by_ref().take_while(|line| *line != "```");
        let code: String = code.map(|line| format!("{line}\n")).collect();
        if language != "sh" {
            found.push((file.clone(), code));
        }
    }
    found
}

#[test]
fn contributing_prints_cases_that_stand_in_the_tests() {
    for kind in KINDS {
        let examples = examples(&section("CONTRIBUTING.md", kind));
        assert!(!examples.is_empty(), "{kind} has no example");
        for (file, code) in examples {
            let there = fs::read_to_string(sources().join(&file)).unwrap_or_default();
            assert!(there.contains(&code), "{kind}: not in {file:?}, which is named before it:\n{code}");
            assert!(code.lines().count() <= MAX_LINES, "{kind}: too long to copy:\n{code}");
        }
    }
}

/// Port 1 of loopback refuses, as a machine without a network would.
#[cfg(feature = "aws")]
#[test]
fn an_index_that_cannot_be_reached_is_told_with_the_command_and_what_to_do() {
    use crate::support::python::{install, virtual_environment};

    let python = virtual_environment().unwrap_or_else(|reason| panic!("{reason}"));
    let nowhere = [
        ("PIP_INDEX_URL", "http://127.0.0.1:1/simple"),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_RETRIES", "0"),
        ("PIP_NO_INDEX", "0"),
    ];
    let told = install(&python, &["kms-sig-is-no-python-package"], &nowhere).unwrap_err();
    for part in [
        python.to_str().unwrap(),
        "\"pip\" \"install\"",
        "PIP_INDEX_URL=URL cargo test",
        "--no-default-features",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}
