//! The documentation tells the truth: what it names exists, and what exists it names; its links
//! lead somewhere, and its lines are short enough to read in a terminal.
//!
//! Prose cannot be compiled; names, tables and commands can be compared with the program.

mod faults;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kms_sig::message::Message;

use crate::support::document::{document, section, sources};
use crate::support::place::Place;

/// The longest line of prose, in characters.
const WIDTH: usize = 100;

/// Every document of the tree, by its path there.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["", "docs", "findings", "tests/fuzz", "tests/vectors"] {
        for entry in fs::read_dir(sources().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                found.push(Path::new(dir).join(name).to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

/// The lines of a document outside of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!code && !fence).then_some((i + 1, line))
    })
}

/// The lines of a document inside of code.
fn examples(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        code && !fence
    })
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
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

/// The keys that a part of the policy reference explains: those of its headings `### `key``.
fn explained(section: &str) -> BTreeSet<String> {
    let headings = section.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    headings.map(|key| key.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn docs_explain_every_policy_key_and_no_other() {
    let mut known = valid_keys("zzzzzz = 1\n");
    for table in ["aws", "local", "state", "quarantine", "control", "limits"] {
        assert!(known.remove(table), "{table} is a table of the policy");
        let keys = valid_keys(&format!("[{table}]\nzzzzzz = 1\n"));
        assert_eq!(explained(&section("docs/policy.md", &format!("## The table `[{table}]`"))), keys);
    }
    assert!(known.remove("watch"), "rules are in sections of their own");
    assert_eq!(explained(&section("docs/policy.md", "## Top level")), known);
}

#[test]
fn docs_put_every_rule_key_where_it_belongs() {
    let keys = |mode: &str| valid_keys(&format!("[[watch]]\nmode = \"{mode}\"\nzzzzzz = 1\n"));
    let (sign, verify) = (keys("sign"), keys("verify"));
    let part = |heading| explained(&section("docs/policy.md", heading));
    assert_eq!(part("## Every rule"), &sign & &verify);
    assert_eq!(part("## Sign rules"), &sign - &verify);
    assert_eq!(part("## Verify rules"), &verify - &sign);
}

#[test]
fn docs_tell_every_exit_code() {
    let place = Place::new();
    let help = place.run(["--help"]).exits(0);
    let help = std::str::from_utf8(help.stdout()).unwrap();
    let codes = help.lines().skip_while(|line| *line != "Exit codes:").skip(1);
    let codes: Vec<_> = codes.map_while(|line| Some(line.trim().split_once("  ")?.0.to_owned())).collect();
    assert_eq!(codes, ["0", "1", "2", "3"]);
    assert_eq!(first_cells(&section("docs/cli.md", "## Exit codes")), codes);
}

#[test]
fn docs_mention_every_command_and_no_other() {
    let place = Place::new();
    let help = place.run(["-h"]).exits(0);
    let help = std::str::from_utf8(help.stdout()).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: BTreeSet<_> = commands
        .map_while(|line| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned()))
        .filter(|command| command != "help")
        .collect();
    let mentioned: BTreeSet<_> = first_cells(&section("docs/cli.md", "## Commands"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(mentioned, commands);
    // And in examples: what follows `kms-sig` is a command.
    for file in documents() {
        let text = document(&file);
        for line in examples(&text)
            .filter_map(|line| line.trim_start_matches(['$', '#', ' ']).strip_prefix("kms-sig "))
        {
            let word = line.split_whitespace().next().unwrap();
            // What the daemon prints when it starts, and how a batch signature begins.
            let is_command = commands.contains(word) || ["is", "help", "batch"].contains(&word);
            assert!(is_command, "{file} runs kms-sig {line}");
        }
    }
}

#[test]
fn docs_list_messages_and_causes_that_the_program_uses() {
    let code = code();
    let log = section("docs/operations.md", "## The log");
    let log = log.split("\n### ").next().unwrap();
    for row in log.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (messages, rest) = row.split_once(" | ").unwrap();
        for words in quoted(&format!("`{messages}")) {
            let message = Message::ALL.iter().find(|message| message.words() == words);
            let message = message.unwrap_or_else(|| panic!("nothing logs {words:?}"));
            assert!(rest.starts_with(message.level().as_str()), "{words}: {} | {rest}", message.level());
        }
    }
    let told: BTreeSet<String> = first_cells(&section("docs/operations.md", "## When something is held"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .collect();
    let words = |after: &str| -> BTreeSet<String> {
        let text = code.split_once(after).unwrap_or_else(|| panic!("no {after:?} in the sources")).1;
        let text = text.split_once("fn as_str").unwrap().1.split_once("\n    }\n").unwrap().0;
        text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    // What waits in the private folder is held as well, by no `Hold`.
    let name_taken = code.split_once("const NAME_TAKEN: &str = \"").unwrap().1.split('"').next().unwrap();
    let mut causes = &words("impl TroubleKind {") | &words("impl Hold {");
    causes.insert(name_taken.to_owned());
    assert_eq!(told, causes);
}

/// The first names in the calls of `log!`: which messages are logged.
fn logged() -> BTreeSet<String> {
    let is_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    let code = code();
    let calls = code.split("log!(").skip(1).map(str::trim_start);
    calls.map(|call| call.chars().take_while(|c| is_of_a_name(*c)).collect()).collect()
}

/// A call without a variant would have no `MESSAGE_ID`.
#[test]
fn docs_every_message_is_logged_by_its_variant() {
    let mut wrong = String::new();
    for path in rust_sources().iter().filter(|path| path.starts_with("src") && !path.ends_with("message.rs"))
    {
        let text = fs::read_to_string(sources().join(path)).unwrap();
        for (i, line) in text.lines().enumerate() {
            if ["info!", "warn!", "error!", "event!"].iter().any(|call| line.contains(call)) {
                wrong += &format!("{}:{}: {}\n", path.display(), i + 1, line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "what is not DEBUG is logged by log! of src/message.rs:\n{wrong}");
    let logged = logged();
    let unused: Vec<_> = Message::ALL.iter().filter(|m| !logged.contains(&format!("{m:?}"))).collect();
    assert!(unused.is_empty(), "nothing logs {unused:?}");
}

#[test]
fn docs_every_message_has_words_and_a_code_of_its_own() {
    let codes: Vec<&str> = Message::ALL.iter().map(|message| message.code()).collect();
    assert!(codes.is_sorted(), "src/message.rs lists messages in the order of their codes");
    let words: BTreeSet<&str> = Message::ALL.iter().map(|message| message.words()).collect();
    assert_eq!(words.len(), Message::ALL.len(), "two messages have the same words");
    for message in Message::ALL {
        let (code, id) = (message.code(), message.id());
        assert!(code.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{code}");
        // What systemd-id128(1) makes: a version 4 UUID. One made up by hand may be somebody's.
        assert_eq!((id >> 76 & 0xf, id >> 62 & 0b11), (4, 0b10), "{code} has an id that is not random");
    }
}

/// `KMS_SIG_BLESS=1 cargo test --test it -- docs` writes the list anew.
#[test]
fn docs_list_the_code_and_id_of_every_message() {
    let (file, begin, end) = ("docs/operations.md", "<!-- messages:begin -->\n", "<!-- messages:end -->");
    let mut list = String::from("\n| code | `MESSAGE_ID` | message |\n| --- | --- | --- |\n");
    for message in Message::ALL {
        list += &format!("| `{}` | `{:032x}` | `{}` |\n", message.code(), message.id(), message.words());
    }
    list.push('\n');
    let text = document(file);
    let (before, rest) = text.split_once(begin).unwrap();
    let (told, after) = rest.split_once(end).unwrap();
    if std::env::var_os("KMS_SIG_BLESS").is_some() {
        // In one step: other tests read it at the same time.
        let made = sources().join(format!("{file}.new"));
        fs::write(&made, format!("{before}{begin}{list}{end}{after}")).unwrap();
        fs::rename(made, sources().join(file)).unwrap();
        return;
    }
    let (told, now): (Vec<_>, Vec<_>) = (told.lines().collect(), list.lines().collect());
    let gone: Vec<_> = told.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !told.contains(line)).collect();
    assert!(
        told == now,
        "{file} is not up to date:\n  it has {gone:#?}\n  now    {new:#?}\n\
         make it anew: KMS_SIG_BLESS=1 cargo test --test it -- docs"
    );
}

#[test]
fn docs_list_every_reason() {
    let reasons: BTreeSet<_> = first_cells(&section("docs/operations.md", "### Verdicts"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .collect();
    assert_eq!(reasons, codes("src/signature/reason.rs"));
}

/// What cannot be, and is, is told (`AttemptError::bug`, `unreachable!`); a comment tells nobody.
#[test]
fn no_comment_hides_a_broken_invariant() {
    let code = code();
    let hidden: Vec<_> = code.lines().filter(|line| line.contains("// BUG")).collect();
    assert_eq!(hidden, [""; 0]);
}

#[test]
fn docs_list_every_refusal() {
    let told: BTreeSet<_> = first_cells(&section("docs/operations.md", "### Refusals"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .collect();
    assert_eq!(told, codes("src/state/reason.rs"));
}

/// The words of a list of constants in a source.
fn listed(file: &str, list: &str) -> BTreeSet<String> {
    let code = document(file);
    let list = code.split_once(&format!("const {list}: ")).unwrap().1.split_once("];").unwrap().0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn docs_list_the_names_that_are_no_payloads() {
    let part = section("docs/uploaders.md", "## What the daemon does by itself");
    let part = part.split_once("- **Temporary names**").unwrap().1.split_once("\n- ").unwrap().0;
    let told: BTreeSet<_> = quoted(part).iter().map(|name| name.trim_matches('*').to_owned()).collect();
    let mut names = listed("src/policy/pattern.rs", "MARKS");
    names.insert("include".to_owned()); // the key that says otherwise; a dot is told in words
    assert_eq!(told, names);
}

#[test]
fn docs_list_the_file_systems_that_are_believed_and_those_that_are_not() {
    let believed = first_cells(&section("docs/file-systems.md", "## Who is writing"));
    let believed: BTreeSet<_> = quoted(&believed[0]).into_iter().collect();
    assert_eq!(believed, listed("src/fs/file_system.rs", "TELLS_WRITERS"));
    let told: BTreeSet<_> = quoted(&section("docs/file-systems.md", "## Events")).into_iter().collect();
    let mut remote = listed("src/fs/file_system.rs", "REMOTE");
    remote.extend(["fuse.*", "check --online"].map(str::to_owned));
    assert_eq!(told, remote);
}

/// The words of the first `as_str` of a source.
fn codes(file: &str) -> BTreeSet<String> {
    let code = fs::read_to_string(sources().join(file)).unwrap();
    let words = code.split_once("const fn as_str").unwrap().1.split_once("\n    }\n").unwrap().0;
    words.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn docs_links_lead_somewhere() {
    let mut wrong = String::new();
    for file in documents() {
        let text = document(&file);
        let dir = Path::new(&file).parent().unwrap();
        let outside: String = prose(&text).map(|(_, line)| format!("{line}\n")).collect();
        for link in outside.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (target, name) =
                link.split_once('#').map_or((link, None), |(target, name)| (target, Some(name)));
            let path = if target.is_empty() { PathBuf::from(&file) } else { dir.join(target) };
            let there = sources().join(&path);
            if !there.exists() {
                wrong += &format!("{file}: {link}: there is no such file\n");
            } else if let Some(name) = name {
                let text = fs::read_to_string(there).unwrap();
                let anchors: Vec<_> = prose(&text)
                    .filter(|(_, line)| line.starts_with('#'))
                    .map(|(_, line)| anchor(line))
                    .collect();
                match anchors.iter().filter(|anchor| *anchor == name).count() {
                    1 => {}
                    0 => wrong += &format!("{file}: {link}: there is no such heading\n"),
                    _ => wrong += &format!("{file}: {link}: there is more than one such heading\n"),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn docs_have_no_line_of_prose_that_is_longer_than_a_terminal() {
    let mut wrong = String::new();
    for file in documents() {
        for (number, line) in prose(&document(&file)) {
            // Tables cannot be broken.
            if !line.starts_with('|') && line.chars().count() > WIDTH {
                wrong += &format!("{file}:{number}: {} characters\n", line.chars().count());
            }
        }
    }
    assert!(wrong.is_empty(), "more than {WIDTH} in\n{wrong}");
}

/// Every Rust source of the tree, by its path there.
fn rust_sources() -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), ["src", "tests", "benches"].map(PathBuf::from).to_vec());
    while let Some(path) = open.pop() {
        if !sources().join(&path).is_dir() {
            found.extend(path.extension().is_some_and(|kind| kind == "rs").then_some(path));
        } else if !path.ends_with("target") {
            let entries = fs::read_dir(sources().join(&path)).unwrap();
            open.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        }
    }
    found
}

#[test]
fn docs_comments_in_the_code_are_at_most_a_hundred_wide() {
    let (mut wrong, mut comments) = (String::new(), 0);
    for file in rust_sources() {
        let mut code = false;
        for (i, line) in document(file.to_str().unwrap()).lines().enumerate() {
            let Some(text) = line.trim_start().strip_prefix("//") else { continue };
            let text = text.trim_start_matches(['/', '!']).trim_start();
            code ^= text.starts_with("```");
            comments += 1;
            // Examples, and tables, cannot be broken.
            if !code && !text.starts_with('|') && line.chars().count() > WIDTH {
                wrong += &format!("{}:{}: {} characters\n", file.display(), i + 1, line.chars().count());
            }
        }
    }
    assert!(comments > 5_000, "only {comments} lines of comments found");
    assert!(wrong.is_empty(), "more than {WIDTH} in\n{wrong}");
}

#[test]
fn readme_is_short_and_leads_to_every_document() {
    let readme = document("README.md");
    assert!(readme.lines().count() <= 200, "{} lines; the rest belongs to docs/", readme.lines().count());
    let table = section("README.md", "## What to read");
    for file in documents().iter().filter(|file| !file.contains('/') || file.starts_with("docs/")) {
        assert!(
            file == "README.md" || table.contains(&format!("]({file}")),
            "the README does not name {file}"
        );
    }
}

/// The package installs the documents beside each other as they are in the tree, so that their
/// links hold there, too.
#[test]
fn docs_are_in_the_package() {
    let cargo = document("Cargo.toml");
    for file in documents().iter().filter(|file| !file.contains('/') || file.starts_with("docs/")) {
        let pattern = if file.starts_with("docs/") { "docs/*.md" } else { file };
        let to =
            if file.starts_with("docs/") { "usr/share/doc/kms-sig/docs/" } else { "usr/share/doc/kms-sig/" };
        assert!(cargo.contains(&format!("[\"{pattern}\", \"{to}\", \"644\"]")), "no asset for {file}");
    }
}

/// What the documents call a path of the tree is one. The change log tells of the past.
#[test]
fn docs_name_paths_that_exist() {
    let mut wrong = String::new();
    for file in documents().iter().filter(|file| *file != "CHANGELOG.md") {
        let text = document(file);
        let text: String = prose(&text).map(|(_, line)| format!("{line}\n")).collect();
        for name in quoted(&text) {
            let path = name.split_whitespace().next().unwrap_or_default();
            let begins = ["src/", "tests/", "config/", "systemd/", "benches/", "docs/", ".ci/"];
            if begins.iter().any(|dir| path.starts_with(dir))
                && !path.contains(['*', '…'])
                && !sources().join(path).exists()
            {
                wrong += &format!("{file}: there is no {path}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn architecture_has_a_row_for_every_module() {
    let told: BTreeSet<_> = first_cells(&section("ARCHITECTURE.md", "## The rooms"))
        .iter()
        .flat_map(|cell| quoted(cell))
        .collect();
    let entries = fs::read_dir(sources().join("src")).unwrap().map(|entry| entry.unwrap().path());
    let modules = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let modules: BTreeSet<_> = modules.filter(|name| !["lib", "main"].contains(&name.as_str())).collect();
    assert_eq!(told, modules);
}

/// The scripts are not run here, as they need the network; that they have their form can be seen.
#[test]
fn findings_are_listed_and_have_their_form() {
    use std::os::unix::fs::PermissionsExt as _;
    let list = document("findings/README.md");
    let mut count = 0;
    for entry in fs::read_dir(sources().join("findings")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        count += 1;
        let text = document(&format!("findings/{name}"));
        assert!(list.contains(&format!("]({name})")), "findings/README.md does not list {name}");
        assert!(fs::metadata(&path).unwrap().permissions().mode() & 0o111 != 0, "{name} cannot be run");
        for part in [
            "#!/usr/bin/env bash\n",
            "(seen 20",
            "# Expected",
            " Seen:\n",
            "# Matters for: ",
            "mktemp -d",
            "exit 1",
        ] {
            assert!(text.contains(part), "{name} lacks {part:?}");
        }
    }
    assert!(count > 0, "no finding");
}

/// Comments, messages and alerts that send people to a document name one that exists, and a heading
/// that it has.
#[test]
fn what_names_a_document_names_one_that_exists() {
    let mut wrong = String::new();
    let mut open: Vec<_> = ["src", "tests", "config", "systemd", "benches", "Cargo.toml"]
        .iter()
        .map(|dir| sources().join(dir))
        .collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(entries.filter(|path| !path.ends_with("corpus") && !path.ends_with("target")));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        // Comments and texts go on in the next line.
        let text = text.split_whitespace().filter(|word| !["//", "///", "//!", "#", "\\"].contains(word));
        let text = text.collect::<Vec<_>>().join(" ");
        let shown = path.strip_prefix(sources()).unwrap().display();
        for rest in text.split("docs/").skip(1) {
            let Some((name, after)) = rest.split_once(".md") else { continue };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                continue;
            }
            let file = format!("docs/{name}.md");
            if !sources().join(&file).exists() {
                wrong += &format!("{shown}: there is no {file}\n");
            } else if let Some(heading) = after.strip_prefix(", \"").and_then(|rest| rest.split('"').next()) {
                let has = document(&file).lines().any(|line| line.trim_start_matches('#').trim() == heading);
                if !has {
                    wrong += &format!("{shown}: {file} has no {heading:?}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_quickstart_command_stands_in_the_readme_and_its_policy_is_good() {
    let command = "cargo run --release -- watch --policy config/quickstart.toml";
    let at_start = document("README.md").lines().filter(|line| *line == command).count();
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
