//! The README tells the truth: what it names exists, and what exists it names.
//!
//! Prose cannot be compiled; names, tables and commands can be compared with the program that they describe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kms_sig::service::message::ALL;

use crate::harness::Place;

const README: &str = include_str!("../../README.md");

/// Where the sources lie.
fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A part of the README: from its heading to the next one of the same or a higher level.
#[track_caller]
fn section(heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let ends = |line: &str| {
        let marks = line.chars().take_while(|c| *c == '#').count();
        (1..=level).contains(&marks) && line.chars().nth(marks) == Some(' ')
    };
    let mut code = false;
    let mut lines = README.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "the README has no {heading:?}");
    let body = lines.take_while(|line| {
        code ^= line.starts_with("```");
        code || !ends(line)
    });
    body.map(|line| format!("{line}\n")).collect()
}

/// The first cells of a section's tables, heads and rules left out.
fn first_cells(section: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut lines = section.lines().peekable();
    while let Some(line) = lines.next() {
        let is_head = lines.peek().is_some_and(|next| next.starts_with("| ---"));
        if let Some(row) = line.strip_prefix("| ")
            && !is_head
            && !row.starts_with("---")
        {
            cells.push(row.split(" | ").next().unwrap().to_owned());
        }
    }
    cells
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The program's own list of what a table may have, from what it says about a key that is in none.
fn valid_keys(policy: &str) -> BTreeSet<String> {
    let place = Place::new();
    place.write("policy.toml", policy);
    let said = place.run(["check", "--policy", "policy.toml"]).exits(2).stderr();
    let list = said.lines().find_map(|line| Some(line.split_once("valid here: ")?.1));
    let list = list.unwrap_or_else(|| panic!("no list of keys in\n{said}"));
    list.split(", ").map(str::to_owned).collect()
}

/// Every source file's text.
fn code() -> String {
    let mut text = String::new();
    let mut open = vec![sources().join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn readme_explains_every_policy_key_and_no_other() {
    let reference = section("## Policy reference");
    let mut explained = BTreeSet::new();
    for cell in first_cells(&reference) {
        let names = quoted(&cell);
        assert!((1..=2).contains(&names.len()), "a row explains one key: {cell}");
        explained.insert(names.last().unwrap().clone());
    }
    let mut known = valid_keys("zzzzzz = 1\n");
    let tables: Vec<_> = ["aws", "local", "state", "quarantine", "control", "limits"]
        .iter()
        .map(|t| (*t).to_owned())
        .collect();
    for table in &tables {
        assert!(known.remove(table), "{table} is a table of the policy");
        known.extend(valid_keys(&format!("[{table}]\nzzzzzz = 1\n")));
    }
    for mode in ["sign", "verify"] {
        known.extend(valid_keys(&format!("[[watch]]\nmode = \"{mode}\"\nzzzzzz = 1\n")));
    }
    assert_eq!(explained, known);
}

#[test]
fn readme_puts_every_rule_key_where_it_belongs() {
    let keys = |mode: &str| valid_keys(&format!("[[watch]]\nmode = \"{mode}\"\nzzzzzz = 1\n"));
    let (sign, verify) = (keys("sign"), keys("verify"));
    let table = |heading| -> BTreeSet<String> {
        first_cells(&section(heading)).iter().flat_map(|cell| quoted(cell)).collect()
    };
    assert_eq!(table("### Every rule"), &sign & &verify);
    assert_eq!(table("### Sign rules"), &sign - &verify);
    assert_eq!(table("### Verify rules"), &verify - &sign);
}

#[test]
fn readme_tells_every_exit_code() {
    let place = Place::new();
    let help = place.run(["--help"]).exits(0);
    let help = std::str::from_utf8(help.stdout()).unwrap();
    let codes = help.lines().skip_while(|line| *line != "Exit codes:").skip(1);
    let codes: Vec<_> = codes.map_while(|line| Some(line.trim().split_once("  ")?.0.to_owned())).collect();
    assert_eq!(codes, ["0", "1", "2", "3"]);
    assert_eq!(first_cells(&section("## Exit codes")), codes);
}

#[test]
fn readme_mentions_every_command_and_no_other() {
    let place = Place::new();
    let help = place.run(["-h"]).exits(0);
    let help = std::str::from_utf8(help.stdout()).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: BTreeSet<_> = commands
        .map_while(|line| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned()))
        .filter(|command| command != "help")
        .collect();
    let mentioned: BTreeSet<_> = first_cells(&section("## The command line"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(mentioned, commands);
    // And in examples: what follows `kms-sig` is a command.
    for line in README.lines().filter_map(|line| line.trim_start_matches("$ ").strip_prefix("kms-sig ")) {
        let word = line.split_whitespace().next().unwrap();
        // `batch` is no command: a signature of a batch begins so.
        let is_command = commands.contains(word) || ["is", "help", "batch"].contains(&word);
        assert!(is_command, "the README runs kms-sig {line}");
    }
}

#[test]
fn readme_lists_messages_and_causes_that_the_program_uses() {
    let code = code();
    for cell in first_cells(&section("## The log")) {
        for message in quoted(&cell) {
            assert!(code.contains(&format!("\"{message}\"")), "nothing logs {message:?}");
        }
    }
    let told: BTreeSet<String> =
        first_cells(&section("### When something is held")).iter().flat_map(|cell| quoted(cell)).collect();
    let words = |after: &str| -> BTreeSet<String> {
        let text = code.split_once(after).unwrap_or_else(|| panic!("no {after:?} in the sources")).1;
        let text = text.split_once("fn as_str").unwrap().1.split_once("\n    }\n").unwrap().0;
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(told, &words("impl TroubleKind {") | &words("impl Hold {"));
}

/// The last text literal of each `tracing::info!`, `warn!` and `error!` of the sources: their messages.
fn messages() -> BTreeSet<String> {
    let code = code();
    let mut messages = BTreeSet::new();
    for call in ["tracing::info!(", "tracing::warn!(", "tracing::error!("] {
        for rest in code.split(call).skip(1) {
            let (mut depth, mut chars, mut message) = (1, rest.chars(), None);
            while depth > 0 {
                match chars.next().unwrap() {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    '"' => {
                        let mut text = String::new();
                        while let Some(c) = chars.next().filter(|c| *c != '"') {
                            text.push(if c == '\\' { chars.next().unwrap() } else { c });
                        }
                        message = Some(text);
                    }
                    _ => {}
                }
            }
            messages.insert(message.unwrap_or_else(|| panic!("no message: {}", &rest[..80])));
        }
    }
    // Made up by the tests of the journal's own code.
    assert!(messages.len() > 40);
    messages
}

/// A number for a message that has none yet: a UUID, as journald likes them, made from its words.
fn new_id(message: &str) -> u128 {
    let digest = <sha2::Sha512 as sha2::Digest>::digest(message);
    let id = u128::from_be_bytes(digest[..16].try_into().unwrap());
    id & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62
}

#[test]
fn readme_lists_the_number_of_every_message_and_none_is_used_twice() {
    let listed: BTreeMap<&str, u128> = ALL.iter().copied().collect();
    let numbers: BTreeSet<u128> = listed.values().copied().collect();
    assert_eq!((listed.len(), numbers.len()), (ALL.len(), ALL.len()), "each message and each number once");
    let used = messages();
    let gone: Vec<_> = listed.keys().filter(|message| !used.contains(**message)).collect();
    assert!(gone.is_empty(), "nothing logs {gone:?}; if it was reworded, keep its number with the new words");
    let missing: Vec<_> = used.iter().filter(|message| !listed.contains_key(message.as_str())).collect();
    let rows: String =
        missing.iter().map(|message| format!("    ({message:?}, {:#034x}),\n", new_id(message))).collect();
    assert!(missing.is_empty(), "put into src/service/message.rs, in its order:\n{rows}");
    let section = section("### Numbers of messages");
    let told: BTreeSet<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> =
        ALL.iter().map(|(message, id)| format!("| `{message}` | `{id:032x}` |")).collect();
    let rows: String =
        expected.iter().filter(|row| !told.contains(row.as_str())).map(|row| format!("{row}\n")).collect();
    assert!(rows.is_empty(), "put into the README's table of numbers, in its order:\n{rows}");
    assert_eq!(told.len(), ALL.len(), "the README lists numbers that are no longer");
}

#[test]
fn readme_lists_every_reason() {
    let reasons: BTreeSet<_> = first_cells(&section("## How the daemon works"))
        .into_iter()
        .take_while(|cell| cell != "`throttled`")
        .flat_map(|cell| quoted(&cell))
        .collect();
    let code = fs::read_to_string(sources().join("src/seal.rs")).unwrap();
    let words = code.split_once("pub const fn as_str").unwrap().1.split_once("\n    }\n").unwrap().0;
    let words: BTreeSet<_> = words.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(reasons, words);
}

#[test]
fn readme_links_lead_somewhere() {
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    let anchors: BTreeSet<_> = README.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        match link.strip_prefix('#') {
            Some(name) => assert!(anchors.contains(name), "no heading for #{name}"),
            None => assert!(sources().join(link).exists(), "{link} does not exist"),
        }
    }
}

#[test]
fn the_quickstart_command_stands_in_the_readme_and_its_policy_is_good() {
    let command = "cargo run --release -- watch --policy config/quickstart.toml";
    let at_start = README.lines().filter(|line| *line == command).count();
    assert_eq!(at_start, 1, "alone on a line, to be copied");
    let quickstart = fs::read_to_string(sources().join("config/quickstart.toml")).unwrap();
    assert!(quickstart.contains(command));
    // Away from the sources, so that what was tried out there changes nothing.
    let place = Place::new();
    fs::create_dir(place.path("config")).unwrap();
    place.write("config/quickstart.toml", quickstart);
    let path = fs::canonicalize(place.path("")).unwrap();
    let missing = |rule: &str| {
        let dir: PathBuf = path.join("quickstart").join(rule);
        format!("{rule}: \"{}\" will be made\n", dir.display())
    };
    place.run(["check", "--policy", "config/quickstart.toml"]).exits(0).complains("").says(format!(
        "{}{}\"{}\": 2 rules, no fault\n",
        missing("releases"),
        missing("downloads"),
        path.join("config/quickstart.toml").display()
    ));
    place.run(["watch", "--policy", "config/quickstart.toml", "--once"]).exits(0);
    // The example of its first lines: the same name, other content.
    place.write("quickstart/releases/hello.txt", "hello\n");
    place.run(["watch", "--policy", "config/quickstart.toml", "--once"]).exits(0);
    place.write("quickstart/downloads/hello.txt", "evil\n");
    place.write("quickstart/downloads/hello.txt.sig", place.read("quickstart/releases/hello.txt.sig"));
    let policy = fs::read_to_string(place.path("config/quickstart.toml")).unwrap();
    place.write("config/quickstart.toml", policy.replace("grace = \"3s\"", "grace = \"0s\""));
    let run = place.run(["watch", "--policy", "config/quickstart.toml", "--once"]).exits(1);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains("hello.txt: quarantined: mismatch"), "{said}");
}
