//! The list of faults, `docs/faults.md`, and the tree agree: every code that a test or a comment
//! carries is explained there, and every row there names a test that exists or a known limit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{prose, quoted};
use crate::support::document::{document, sources};

/// The list.
const LIST: &str = "docs/faults.md";

/// A row of the list: its code, which promise or limit it belongs to, and what shows it.
struct Row {
    code: String,
    promise: String,
    shown_by: String,
}

fn rows() -> Vec<Row> {
    let list = document(LIST);
    let rows = prose(&list).filter_map(|(number, line)| {
        let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        if !is_code(cells[0]) {
            return None;
        }
        let [code, _, _, promise, shown_by] = cells[..] else { panic!("{LIST}:{number}: not five cells") };
        Some(Row { code: code.to_owned(), promise: promise.to_owned(), shown_by: shown_by.to_owned() })
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() > 90, "{} rows", rows.len());
    rows
}

/// Whether a word is the code of a fault: a letter of the list and a number.
fn is_code(word: &str) -> bool {
    let number = word.strip_prefix(['W', 'S', 'A', 'C', 'K', 'O']).unwrap_or_default();
    (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit())
}

fn is_promise(word: &str) -> bool {
    word.strip_prefix('P').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The codes that a name begins with: `c1_c2_p4_a_kill` has three.
fn leading(name: &str, separator: char) -> Vec<String> {
    let codes = name.split(separator).map(str::to_uppercase);
    codes.take_while(|word| is_code(word) || is_promise(word)).collect()
}

/// The codes in the text of a comment. Not what follows a `%`, `:` or `-`, as in `%C3`,
/// `arn:aws:S3` and `x-A1`.
fn mentioned(comment: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = ' ';
    let mut word = String::new();
    let mut begun_after = ' ';
    for c in comment.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' {
            if word.is_empty() {
                begun_after = before;
            }
            word.push(c);
        } else {
            if !['%', ':', '-', '\\'].contains(&begun_after) && (is_code(&word) || is_promise(&word)) {
                found.push(word.clone());
            }
            word.clear();
        }
        before = c;
    }
    found
}

/// Every file below these directories, by its path in the tree.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<_> = ["src", "tests"].iter().map(|dir| sources().join(dir)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let made = ["corpus", "target", "artifacts", "seeds"];
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(entries.filter(|path| !made.iter().any(|name| path.ends_with(name))));
        } else {
            found.push(path.strip_prefix(sources()).unwrap().to_owned());
        }
    }
    found
}

/// What the tree has: the names of its tests, and where each code is used.
struct Tree {
    files: BTreeSet<String>,
    tests: BTreeSet<String>,
    used: BTreeMap<String, String>,
}

fn tree() -> Tree {
    let mut tree = Tree { files: BTreeSet::new(), tests: BTreeSet::new(), used: BTreeMap::new() };
    for path in files() {
        let shown = path.to_str().unwrap().to_owned();
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        let text = match kind {
            "rs" | "toml" | "sh" => fs::read_to_string(sources().join(&path)).unwrap(),
            _ => String::new(),
        };
        let mut codes = leading(path.file_stem().unwrap().to_str().unwrap(), '-');
        for line in text.lines() {
            let line = line.trim_start();
            if kind == "rs" {
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some(name) = name.and_then(|rest| rest.split(['(', '<']).next()) {
                    tree.tests.insert(name.to_owned());
                    codes.extend(leading(name, '_'));
                }
                codes
                    .extend(line.split_once("//").map(|(_, comment)| mentioned(comment)).unwrap_or_default());
            } else if line.starts_with('#') || line.starts_with("comment = ") {
                codes.extend(mentioned(line));
            }
        }
        for code in codes {
            tree.used.entry(code).or_insert_with(|| shown.clone());
        }
        tree.files.insert(shown);
    }
    assert!(tree.used.len() > 80, "{:?}", tree.used);
    tree
}

#[test]
fn docs_explain_every_fault_code_that_a_test_or_a_comment_carries() {
    let explained: BTreeSet<_> = rows().into_iter().map(|row| row.code).collect();
    let promises = document("src/lib.rs");
    for (code, file) in tree().used {
        if is_promise(&code) {
            assert!(promises.contains(&format!("**{code}**")), "{file}: src/lib.rs promises no {code}");
        } else {
            assert!(explained.contains(&code), "{file}: {LIST} has no row for {code}");
        }
    }
}

#[test]
fn docs_name_a_test_or_a_known_limit_for_every_fault() {
    let (rows, tree, promises) = (rows(), tree(), document("src/lib.rs"));
    let codes: BTreeSet<_> = rows.iter().map(|row| &row.code).collect();
    assert_eq!(codes.len(), rows.len(), "each code once");
    for Row { code, promise, shown_by } in &rows {
        let limit = promise.contains("](threat-model.md#known-limits)");
        let promised: Vec<_> =
            promise.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_promise(word)).collect();
        assert!(limit || !promised.is_empty(), "{code} belongs to no promise and no limit");
        for word in promised {
            assert!(promises.contains(&format!("**{word}**")), "{code}: src/lib.rs promises no {word}");
        }
        let shown_by = quoted(shown_by);
        assert!(limit || !shown_by.is_empty(), "{code} has no test, and is no known limit");
        for name in shown_by {
            let exists = match name.split_once('*') {
                Some((start, "")) => tree.files.iter().any(|file| file.starts_with(start)),
                Some((start, end)) => tree.files.iter().any(|f| f.starts_with(start) && f.ends_with(end)),
                None if name.contains('/') => Path::new(&sources().join(&name)).exists(),
                None => tree.tests.contains(&name),
            };
            assert!(exists, "{code}: there is no {name}");
        }
    }
}

#[test]
fn codes_are_found_where_they_are_carried() {
    assert_eq!(leading("c1_c2_p4_a_kill_while_signing", '_'), ["C1", "C2", "P4"]);
    assert_eq!(leading("avx2_takes_all_pairs", '_'), [""; 0]);
    assert_eq!(leading("a13-name-like-an-encoding", '-'), ["A13"]);
    assert_eq!(
        mentioned("Nothing goes through it (A22), as S10, C3 and P8 have it."),
        ["A22", "S10", "C3", "P8"]
    );
    assert_eq!(mentioned("gr%C3%BCn, arn:aws:S3, u8x16, A100"), [""; 0]);
}
