//! A document of the tree, and its parts.

use std::fs;
use std::path::Path;

/// Where the sources lie.
pub(crate) fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document, by its path in the tree.
#[track_caller]
pub(crate) fn document(file: &str) -> String {
    fs::read_to_string(sources().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A part of a document: from its heading to the next one of the same or a higher level.
#[track_caller]
pub(crate) fn section(file: &str, heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let ends = |line: &str| {
        let marks = line.chars().take_while(|c| *c == '#').count();
        (1..=level).contains(&marks) && line.chars().nth(marks) == Some(' ')
    };
    let mut code = false;
    let text = document(file);
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{file} has no {heading:?}");
    let body = lines.take_while(|line| {
        code ^= line.starts_with("```");
        code || !ends(line)
    });
    body.map(|line| format!("{line}\n")).collect()
}
