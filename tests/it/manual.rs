//! Manual pages, shell completions, the policy reference `docs/policy.md` and the annotated example
//! `config/policy.toml`: made from the command line and from `src/policy/manual.rs`, and kept in
//! the tree for packages and readers. They must be what would be made now;
//! `KMS_SIG_BLESS=1 cargo test --test it -- manual` makes them anew.

use std::fs;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use kms_sig::cli::Cli;
use kms_sig::policy::manual::{self, Absent, CHAPTERS, Chapter, Entry, Only};
use roff::{Inline, Roff, bold, italic, roman};

/// The command line, complete: with the names and texts that clap adds.
fn cli() -> Command {
    let mut cli = Cli::command().disable_help_subcommand(true).term_width(0);
    cli.build();
    cli
}

/// A generated file, by its path in the tree.
fn is_up_to_date(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("KMS_SIG_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    if there != text {
        let differing = there.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = differing.unwrap_or_else(|| there.lines().count().min(text.lines().count()));
        panic!(
            "{name} is not what would be made now, from line {} on:\n  it has   {:?}\n  now      {:?}\n\
             make it anew: KMS_SIG_BLESS=1 cargo test --test it -- manual",
            line + 1,
            there.lines().nth(line),
            text.lines().nth(line)
        );
    }
}

/// A manual page under way.
///
/// The second is whether nothing has followed the last heading yet.
struct Page(Roff, bool);

impl Page {
    fn new(name: &str, section: &str, kind: &str, what: &str) -> Self {
        let mut page = Self(Roff::new(), true);
        let version = format!("kms-sig {}", env!("CARGO_PKG_VERSION"));
        page.0.control("TH", [name.to_uppercase().as_str(), section, "\"\"", &version, kind]);
        page.section("NAME");
        page.0.text([roman(format!("{name} - {what}"))]);
        page
    }

    fn section(&mut self, heading: &str) {
        self.0.control("SH", [heading]);
        self.1 = true;
    }

    fn subsection(&mut self, heading: &str) {
        self.0.control("SS", [heading]);
        self.1 = true;
    }

    /// Text of one or more paragraphs; `code` is bold.
    fn text(&mut self, text: &str) {
        for (i, paragraph) in text.split("\n\n").enumerate() {
            if i > 0 {
                self.0.control("PP", []);
            }
            self.sentences(paragraph);
        }
    }

    /// A paragraph, each sentence on a line of its own, as man(7) has it.
    fn sentences(&mut self, paragraph: &str) {
        self.1 = false;
        let paragraph = paragraph.replace('\n', " ");
        let mut rest = paragraph.as_str();
        let mut from = 0;
        while let Some(at) = rest[from..].find(". ").map(|at| from + at + 1) {
            // Not inside of code.
            from = at;
            if rest[..at].matches('`').count().is_multiple_of(2) {
                self.0.text(inlines(&rest[..at]));
                rest = &rest[at + 1..];
                from = 0;
            }
        }
        self.0.text(inlines(rest));
    }

    /// An empty line, unless a heading has made one.
    fn gap(&mut self) {
        if !std::mem::take(&mut self.1) {
            self.0.control("PP", []);
        }
    }

    /// A paragraph after other text.
    fn paragraph(&mut self, text: &str) {
        self.gap();
        self.text(text);
    }

    /// A term and what is said about it.
    fn term(&mut self, term: impl Into<Vec<Inline>>, text: &str) {
        self.0.control("TP", []);
        self.0.text(term.into());
        for (i, paragraph) in text.split("\n\n").enumerate() {
            if i > 0 {
                self.0.control("IP", []);
            }
            self.sentences(paragraph);
        }
    }

    /// Lines as they are.
    fn literal<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        self.gap();
        self.0.control("RS", ["4"]).control("nf", []);
        for line in lines {
            self.0.text([roman(line)]);
        }
        self.0.control("fi", []).control("RE", []);
    }

    /// What stands below a help text: paragraphs, and after a line that ends in a colon what is
    /// indented as it is.
    fn help(&mut self, text: &str) {
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(first) = line.strip_prefix("  ") {
                let mut block = vec![first];
                while let Some(next) = lines.next_if(|next| next.starts_with("  ")) {
                    block.push(&next[2..]);
                }
                self.literal(block);
            } else if !line.is_empty() {
                self.paragraph(line);
            }
        }
    }

    fn see_also(&mut self, pages: &[(&str, &str)]) {
        self.section("SEE ALSO");
        let mut line = Vec::new();
        for (i, (name, section)) in pages.iter().enumerate() {
            line.push(roman(if i > 0 { ", " } else { "" }));
            line.push(bold(*name));
            line.push(roman(format!("({section})")));
        }
        self.0.text(line);
    }

    fn render(&self) -> String {
        self.0.render()
    }
}

/// Text with what stands between backquotes in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(i, part)| if i % 2 == 1 { bold(part) } else { roman(part) })
        .collect()
}

/// How a command is called.
fn synopsis(page: &mut Page, words: &str, command: &Command) {
    page.1 = false;
    page.0.control("nh", []); // no option is broken at a hyphen
    let mut line = vec![bold(words)];
    if command.get_arguments().any(|arg| arg.is_positional() || !is_common(arg)) {
        for arg in command.get_arguments().filter(|arg| !arg.is_positional() && !is_common(arg)) {
            let required = arg.is_required_set();
            line.push(roman(if required { " " } else { " [" }));
            line.extend(flag(arg));
            line.push(roman(if required { "" } else { "]" }));
            if takes_many(arg) {
                line.push(roman("..."));
            }
        }
        for arg in command.get_positionals() {
            line.push(roman(if arg.is_required_set() { " " } else { " [" }));
            line.push(italic(value(arg)));
            line.push(roman(if arg.is_required_set() { "" } else { "]" }));
            if takes_many(arg) {
                line.push(roman("..."));
            }
        }
    }
    page.0.text(line);
    page.0.control("hy", []);
}

/// What every command takes, and is explained once.
fn is_common(arg: &Arg) -> bool {
    arg.is_global_set() || ["help", "version"].contains(&arg.get_id().as_str())
}

fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
        || arg.get_num_args().is_some_and(|many| many.max_values() > 1)
}

fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string)
}

fn flag(arg: &Arg) -> Vec<Inline> {
    let mut line = Vec::new();
    if let Some(short) = arg.get_short() {
        line.push(bold(format!("-{short}")));
        line.push(roman(", "));
    }
    line.push(bold(format!("--{}", arg.get_long().expect("every option has a long name"))));
    if arg.get_action().takes_values() {
        line.push(roman(" "));
        line.push(italic(value(arg)));
    }
    line
}

/// An argument and its explanation.
fn argument(page: &mut Page, arg: &Arg) {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    assert!(!help.is_empty(), "{} is explained", arg.get_id());
    let mut text = sentence(&help);
    let possible: Vec<_> =
        arg.get_possible_values().into_iter().filter(|_| arg.get_action().takes_values()).collect();
    if possible.iter().all(|value| value.get_help().is_none()) && !possible.is_empty() {
        let names: Vec<_> = possible.iter().map(|value| format!("`{}`", value.get_name())).collect();
        text.push_str(&format!(" One of {}.", names.join(", ")));
    }
    for value in possible.into_iter().filter(|value| value.get_help().is_some()) {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!(" `{}`: {}", value.get_name(), lower(&sentence(&about))));
    }
    if let [default] = arg.get_default_values()
        && arg.get_action().takes_values()
    {
        text.push_str(&format!(" Default: `{}`.", default.to_string_lossy()));
    }
    let term = if arg.is_positional() { vec![italic(value(arg))] } else { flag(arg) };
    page.term(term, &text);
}

/// As help has no full stop at the end of a line, a manual page has one.
fn sentence(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let ends = paragraph.ends_with(['.', ':', '!', '?']);
        if ends { paragraph.to_owned() } else { format!("{paragraph}.") }
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A command, and those below it.
fn command(page: &mut Page, words: &str, command: &Command) {
    let words = format!("{words} {}", command.get_name());
    let below: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    if below.is_empty() {
        page.subsection(&words);
        synopsis(page, &words, command);
        page.paragraph(&sentence(&about(command)));
        for arg in command.get_arguments().filter(|arg| !is_common(arg)) {
            argument(page, arg);
        }
        if let Some(more) = command.get_after_long_help() {
            page.help(&more.to_string());
        }
    }
    if let (false, Some(more)) = (below.is_empty(), command.get_after_long_help()) {
        page.subsection(&words);
        page.text(&sentence(&about(command)));
        page.help(&more.to_string());
    }
    for inner in below {
        self::command(page, &words, inner);
    }
}

fn about(command: &Command) -> String {
    command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default()
}

fn common_options(page: &mut Page, cli: &Command) {
    for arg in cli.get_arguments().filter(|arg| arg.is_global_set()) {
        argument(page, arg);
    }
}

fn environment(page: &mut Page) {
    page.section("ENVIRONMENT");
    page.term([bold("KMS_SIG_KEYRING")], "The keyring, where neither `--keyring` nor a policy names one.");
    page.term(
        [bold("KMS_SIG_LOG")],
        "What is logged: `kms_sig=info` by default, `kms_sig=debug` for every single file.",
    );
    page.term([bold("NO_COLOR")], "If set and not empty, no colours.");
    page.term(
        [bold("CLICOLOR_FORCE"), roman(", "), bold("FORCE_COLOR")],
        "If set and neither empty nor `0`, colours even where no terminal is. `NO_COLOR` wins.",
    );
    page.term(
        [bold("AWS_REGION"), roman(", "), bold("AWS_PROFILE"), roman(", "), bold("AWS_ENDPOINT_URL")],
        "And the others that AWS programs read, for credentials, Region, proxies and endpoints. A plain http endpoint is \
         refused unless it is this machine.",
    );
}

const EXIT: [(&str, &str); 4] = [
    ("0", "Done; everything is signed or valid."),
    ("1", "A signature is invalid or missing."),
    ("2", "A person must change the command line, the policy, or something that it names."),
    (
        "3",
        "It could not be told, or is not finished: KMS, credentials, input and output. This is never a verdict.",
    ),
];

fn exit_status(page: &mut Page) {
    page.section("EXIT STATUS");
    for (code, text) in EXIT {
        page.term([bold(code)], text);
    }
    page.paragraph("Over several files and rules the largest counts.");
}

const FILES: [(&str, &str); 7] = [
    ("/etc/kms-sig/policy.toml", "The policy of kms-sig.service; see `kms-sig-policy`(5)."),
    ("/etc/kms-sig/NAME.toml", "The policy of the instance kms-sig@NAME.service."),
    (
        "/var/lib/kms-sig",
        "State, the home of the user kms-sig, and the keyring of the example policy; mode 0700.",
    ),
    ("/var/lib/kms-sig-NAME", "The same for an instance."),
    ("/srv/kms-sig", "The watched folders, deliveries and quarantine of the example policy."),
    ("/run/kms-sig, /run/kms-sig-NAME", "What a running daemon keeps for itself; mode 0750."),
    ("/usr/share/doc/kms-sig/examples", "Drop-ins for the units, key and IAM policies of AWS."),
];

fn files(page: &mut Page) {
    page.section("FILES");
    for (path, text) in FILES {
        page.term([italic(path)], text);
    }
}

fn main_page() -> String {
    let cli = cli();
    let mut page = Page::new("kms-sig", "1", "User Commands", "sign and verify files with AWS KMS");
    page.section("SYNOPSIS");
    page.0.text([
        bold("kms-sig"),
        roman(" "),
        italic("COMMAND"),
        roman(" ["),
        italic("ARGUMENTS"),
        roman("]..."),
    ]);
    page.section("DESCRIPTION");
    page.text(&about(&cli));
    page.section("COMMANDS");
    for inner in cli.get_subcommands() {
        if inner.get_name() == "watch" {
            page.subsection("kms-sig watch");
            synopsis(&mut page, "kms-sig watch", inner);
            page.paragraph(&sentence(&about(inner)));
            page.paragraph("This is the daemon, and has a page of its own: `kms-sig-watch`(8).");
        } else {
            command(&mut page, "kms-sig", inner);
        }
    }
    page.section("COMMON OPTIONS");
    common_options(&mut page, &cli);
    exit_status(&mut page);
    environment(&mut page);
    page.section("EXAMPLES");
    let examples = cli.get_after_long_help().unwrap().to_string();
    let (_, examples) = examples.split_once("\n\n").expect("examples follow the exit codes");
    page.help(examples);
    page.see_also(&[("kms-sig-watch", "8"), ("kms-sig-policy", "5"), ("aws", "1")]);
    page.render()
}

fn watch_page() -> String {
    let cli = cli();
    let watch = cli.find_subcommand("watch").unwrap();
    let mut page = Page::new(
        "kms-sig-watch",
        "8",
        "System Administration",
        "watch directories, and sign or verify what lands in them",
    );
    page.section("SYNOPSIS");
    synopsis(&mut page, "kms-sig watch", watch);
    page.0.control("br", []);
    page.0.text([bold("systemctl enable --now kms-sig.service")]);
    page.0.control("br", []);
    page.0.text([bold("systemctl enable --now kms-sig@"), italic("NAME"), bold(".service")]);
    page.section("DESCRIPTION");
    page.text(
        "The daemon of `kms-sig`. It watches the directories that its policy names. In some it signs every file, once the \
         file is complete. In others it verifies every file by the signature that came with it: what is valid is \
         delivered as a private copy of exactly the bytes that were verified, what is not is quarantined or logged.\n\n\
         What cannot be judged (KMS out of reach, access denied, a full disk) is held: it stays where it is and is tried \
         again, is never delivered, and never called invalid. The directory is the queue. A kill at any moment loses \
         nothing: the next start finishes.",
    );
    page.section("OPTIONS");
    for arg in watch.get_arguments().filter(|arg| !is_common(arg)) {
        argument(&mut page, arg);
    }
    common_options(&mut page, &cli);
    page.section("SIGNALS");
    page.term(
        [bold("SIGTERM"), roman(", "), bold("SIGINT")],
        "End after the files in hand. A second one ends it at once, and so does a minute of waiting, both with exit status \
         3: the next start takes up what was in hand.",
    );
    page.term(
        [bold("SIGHUP")],
        "Read the policy anew. A good one takes over between two files; a bad one is told line by line, and the old one \
         goes on. `[state] dir` and `[control] socket` cannot change that way. A rule whose file system does not answer \
         is left behind after ten seconds, and goes on by the policy in force when it does.",
    );
    page.section("SERVICE");
    page.text(
        "`kms-sig.service` works by /etc/kms-sig/policy.toml, as the user kms-sig. It is neither enabled nor started by \
         installing the package: the policy there is an example, and names keys and folders that are yours to choose.",
    );
    page.literal([
        "# editor /etc/kms-sig/policy.toml",
        "# runuser -u kms-sig -- kms-sig check --policy /etc/kms-sig/policy.toml",
        "# systemctl enable --now kms-sig",
        "# systemctl reload kms-sig",
    ]);
    page.paragraph(
        "A reload checks the policy first. If it has a fault, `systemctl reload` fails, the journal has every fault with \
         its line, and the daemon goes on by the old policy. Exit status 2 is not tried again: somebody has to change \
         something. Any other failure, and a daemon that no longer gets on with its work, is started anew after five \
         seconds, for as long as it takes.",
    );
    page.paragraph(
        "The unit may write to its state directory and to /srv/kms-sig, and to nothing else. For other folders, and for \
         credentials in a file, use drop-ins (`systemctl edit kms-sig`); there are examples of both.",
    );
    page.literal([
        "[Service]",
        "ReadWritePaths=",
        "ReadWritePaths=-/data/exchange",
        "LoadCredential=aws-credentials:/etc/kms-sig/aws-credentials",
        "Environment=AWS_SHARED_CREDENTIALS_FILE=%d/aws-credentials",
    ]);
    page.paragraph(
        "`ReadWritePaths=` should name one path above all folders of the policy. systemd makes each path that it names a \
         mount of its own, and no file can be renamed from one mount to another: then files are copied to quarantine \
         instead of moved, and the daemon warns of it when it starts. The `-` lets the service start where the path is \
         missing, and its rules are held; once it is made, restart the service, which may write there only then.",
    );
    page.paragraph(
        "Whoever is in the group `kms-sig-drop` may put files into the folders that the package makes, and nobody can \
         touch another's there. In releases, that means to have them signed.",
    );
    page.subsection("What systemd is notified of");
    page.text(
        "The daemon is ready when its policy is good, every rule watches its directory or is held for a reason that was \
         told, and the first scan is under way. `kms-sig status` says how it stands and what to do; `systemctl status kms-sig` shows a line of rules, files by outcome, and \
         files held by cause.",
    );
    page.paragraph(
        "With `WatchdogSec=` it says four times in that time that all of its loops turn. Neither KMS out of reach nor a \
         full disk nor a file server that does not answer keeps it from that; a loop that hangs does, and the service is \
         started anew. A watcher whose events no longer arrive is replaced, and its rule scans every ten seconds.",
    );
    page.subsection("The journal");
    page.text(
        "Where standard error goes to the journal, the log does so as well: one entry for each event, its fields in capitals \
         after `KMSSIG_`, and a `MESSAGE_ID` for each kind, which /usr/share/doc/kms-sig/docs/operations.md lists. Why a start failed is among them, at \
         priority err.",
    );
    page.literal([
        "journalctl -u kms-sig -p err",
        "journalctl -t kms-sig KMSSIG_VERDICT=invalid",
        "journalctl -t kms-sig KMSSIG_RULE=downloads -o json",
    ]);
    page.subsection("Instances");
    page.text(
        "kms-sig@NAME.service is a daemon of its own for a tenant: policy /etc/kms-sig/NAME.toml, state \
         /var/lib/kms-sig-NAME, and /srv/kms-sig/NAME to write to, which you make before you start it. All instances share the user kms-sig, \
         and so can reach each other's files and keyrings, unless a drop-in gives one a user of its own:",
    );
    page.literal(["[Service]", "User=kms-sig-NAME", "Group=kms-sig-NAME"]);
    exit_status(&mut page);
    page.paragraph(
        "Without `--once`, 0 means ended by a signal with the files in hand finished. With it, 1 means that something was \
         quarantined or is invalid, and 3 that something is left.",
    );
    environment(&mut page);
    files(&mut page);
    page.section("EXAMPLES");
    let examples = watch.get_after_long_help().unwrap().to_string();
    let (_, examples) = examples.split_once("Examples:\n").expect("it has examples");
    page.help(examples);
    page.see_also(&[
        ("kms-sig", "1"),
        ("kms-sig-policy", "5"),
        ("systemd.exec", "5"),
        ("systemd.service", "5"),
        ("journalctl", "1"),
    ]);
    page.render()
}

/// A key of the policy: how it is written, what it does, what holds without it, what to mind.
fn policy_key(page: &mut Page, chapter: &Chapter, entry: &Entry) {
    let (example, only) = chapter.grammar(entry).expect("a key of the policy");
    page.0.control("TP", []);
    page.0.text([bold(entry.name)]);
    page.sentences(entry.effect);
    page.0.control("RS", []).control("PP", []);
    let (only, default) = (only_in(only), default_of(entry));
    page.text(&format!("{only}{default}"));
    page.paragraph(entry.consequence);
    page.0.control("PP", []).control("nf", []);
    page.0.text([roman("Example: "), bold(example)]);
    page.0.control("fi", []).control("RE", []);
}

fn policy_page() -> String {
    let mut page = Page::new(
        "kms-sig-policy",
        "5",
        "File Formats",
        "policy of the kms-sig daemon: directories, keys, actions",
    );
    page.section("SYNOPSIS");
    page.0.text([italic("/etc/kms-sig/policy.toml")]);
    page.section("DESCRIPTION");
    page.text("The policy of the daemon, `kms-sig-watch`(8).");
    page.paragraph(manual::ABOUT);
    page.literal([manual::CHECK]);
    page.paragraph(manual::FORM);
    for chapter in &CHAPTERS {
        let heading = match chapter.table {
            "" => "TOP LEVEL".to_owned(),
            table => format!("{table} TABLE"),
        };
        page.section(&heading);
        page.text(chapter.about);
        for entry in chapter.keys {
            policy_key(&mut page, chapter, entry);
        }
    }
    page.section("CONTEXT");
    page.text(manual::CONTEXT);
    for (name, text) in manual::PLACEHOLDERS {
        page.term([bold(name)], text);
    }
    page.paragraph(manual::ENCODING);
    page.section("UNFINISHED FILES");
    page.text(manual::UNFINISHED);
    page.section("EXAMPLE");
    page.text("Files are signed in one folder, and verified in another:");
    page.literal(manual::EXAMPLE.lines());
    page.section("FILES");
    page.term(
        [italic("/etc/kms-sig/policy.toml")],
        "The policy of kms-sig.service. As installed it is an example with every key.",
    );
    page.see_also(&[("kms-sig-watch", "8"), ("kms-sig", "1")]);
    page.render()
}

/// What a key without a line of its own amounts to, as a sentence.
fn default_of(entry: &Entry) -> String {
    match entry.default {
        Absent::Required => "Required.".to_owned(),
        Absent::RequiredIf(when) => format!("Required if {when}."),
        Absent::Value(value) => format!("Default: `{value}`."),
        Absent::Words(words) => format!("Default: {words}."),
    }
}

/// Which rules may have a key, as a sentence and a blank; nothing if all may.
const fn only_in(only: Only) -> &'static str {
    match only {
        Only::All => "",
        Only::Sign => "Sign rules only. ",
        Only::Verify => "Verify rules only. ",
    }
}

/// Text in lines of at most 100 characters that begin with `margin`. Code is not broken.
fn wrapped(text: &str, margin: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    let mut word = String::new();
    let mut code = false;
    for c in text.chars().map(|c| if c == '\n' { ' ' } else { c }).chain([' ']) {
        code ^= c == '`';
        if c != ' ' || code {
            word.push(c);
            continue;
        }
        if !line.is_empty() && margin.len() + line.chars().count() + 1 + word.chars().count() > 100 {
            lines.push_str(&format!("{margin}{line}\n"));
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(&std::mem::take(&mut word));
    }
    lines + &format!("{margin}{line}\n")
}

/// What the top level says about a table, together with what the table's own chapter says.
fn about_table(chapter: &Chapter) -> String {
    let table = chapter.table.trim_matches(['[', ']']);
    let top = CHAPTERS[0].keys.iter().find(|entry| entry.name == table).expect("a table of the top level");
    format!("{} {} {}", top.effect, chapter.about, top.consequence)
}

/// Paragraphs of Markdown.
fn markdown(text: &str) -> String {
    text.split("\n\n").map(|paragraph| wrapped(paragraph, "") + "\n").collect()
}

/// A key in the reference.
fn reference_key(chapter: &Chapter, entry: &Entry) -> String {
    let (example, _) = chapter.grammar(entry).expect("a key of the policy");
    let name = match chapter.table {
        "" | "[[watch]]" => entry.name.to_owned(),
        table => format!("{table} {}", entry.name),
    };
    let mut default = default_of(entry);
    if !matches!(entry.default, Absent::Value(value) if example == format!("{} = {value}", entry.name)) {
        default.push_str(&format!(" Example: `{example}`."));
    }
    format!("### `{name}`\n\n{}{}{}", markdown(entry.effect), markdown(&default), markdown(entry.consequence))
}

/// `docs/policy.md`.
fn reference() -> String {
    let mut page = String::from(
        "<!-- Made from src/policy/manual.rs: KMS_SIG_BLESS=1 cargo test --test it -- manual -->\n\n\
         # Policy reference\n\n",
    );
    page.push_str(&markdown(manual::ABOUT));
    page.push_str(&format!("```sh\n{}\n```\n\n", manual::CHECK));
    page.push_str(&markdown(manual::FORM));
    page.push_str(&markdown(
        "[`config/policy.toml`](../config/policy.toml) is a complete policy in which each key is explained. A small one, \
         by which files are signed in one folder and verified in another:",
    ));
    page.push_str(&format!("```toml\n{}```\n\n", manual::EXAMPLE));
    for chapter in &CHAPTERS {
        match chapter.table {
            "" => {
                page.push_str(&format!("## Top level\n\n{}", markdown(chapter.about)));
                let entry = chapter.keys.iter().filter(|entry| !is_table(entry));
                page.extend(entry.map(|entry| reference_key(chapter, entry)));
            }
            "[[watch]]" => {
                page.push_str(&format!("## Rules\n\n{}", markdown(&about_table(chapter))));
                for (heading, mode) in
                    [("Every rule", Only::All), ("Sign rules", Only::Sign), ("Verify rules", Only::Verify)]
                {
                    page.push_str(&format!("## {heading}\n\n"));
                    let keys = chapter.keys.iter();
                    let keys = keys.filter(|entry| chapter.grammar(entry).expect("a key").1 == mode);
                    page.extend(keys.map(|entry| reference_key(chapter, entry)));
                }
            }
            table => {
                page.push_str(&format!("## The table `{table}`\n\n{}", markdown(&about_table(chapter))));
                page.extend(chapter.keys.iter().map(|entry| reference_key(chapter, entry)));
            }
        }
    }
    page.push_str(&format!("## Placeholders of the context\n\n{}", markdown(manual::CONTEXT)));
    page.push_str("| placeholder | stands for |\n| --- | --- |\n");
    page.extend(manual::PLACEHOLDERS.iter().map(|(name, text)| format!("| `{name}` | {text} |\n")));
    page.push_str(&format!("\n{}", markdown(manual::ENCODING)));
    page.push_str(&format!("## Unfinished files\n\n{}", markdown(manual::UNFINISHED)));
    page.trim_end().to_owned() + "\n"
}

/// Whether a key of the top level is a table.
fn is_table(entry: &Entry) -> bool {
    CHAPTERS.iter().any(|chapter| chapter.table.trim_matches(['[', ']']) == entry.name)
}

/// Keys, and their lines.
type Lines = &'static [(&'static str, Option<&'static str>)];

/// The keys that the annotated example sets, rule by rule; elsewhere a key is commented out.
/// `None`: as its example.
const SET: [(&str, Lines); 6] = [
    ("[aws]", &[("region", None)]),
    ("[local]", &[("keyring", None)]),
    ("[state]", &[("dir", None)]),
    ("[quarantine]", &[("dir", None)]),
    (
        "releases",
        &[
            ("name", None),
            ("mode", Some("mode = \"sign\"")),
            ("path", None),
            ("key", None),
            ("context", None),
            ("include", None),
        ],
    ),
    (
        "downloads",
        &[
            ("name", Some("name = \"downloads\"")),
            ("mode", Some("mode = \"verify\"")),
            ("path", Some("path = \"/srv/kms-sig/incoming\"")),
            ("trusted_keys", None),
            ("context", None),
            ("deliver_to", None),
            ("on_invalid", None),
            ("on_missing", None),
        ],
    ),
];

/// Keys of every rule that the second rule of the example explains, as it is the one that uses
/// them.
const LATER: [&str; 4] = ["deliver_to", "deliver_mode", "quarantine_max_size", "quarantine_keep"];

/// The line of a key in the annotated example, and whether it is commented out.
fn example_line(chapter: &Chapter, place: &str, entry: &Entry) -> (String, bool) {
    let (example, _) = chapter.grammar(entry).expect("a key of the policy");
    let set = SET.iter().find(|(name, _)| *name == place).map_or(&[][..], |(_, keys)| keys);
    if let Some((_, line)) = set.iter().find(|(name, _)| *name == entry.name) {
        return (line.unwrap_or(example).to_owned(), false);
    }
    match entry.default {
        Absent::Value(value) => (format!("#{} = {value}", entry.name), true),
        Absent::Required | Absent::RequiredIf(_) | Absent::Words(_) => (format!("#{example}"), true),
    }
}

/// A key in the annotated example: what is said about it, and its line.
fn example_key(chapter: &Chapter, place: &str, entry: &Entry) -> String {
    let (line, _) = example_line(chapter, place, entry);
    let only = only_in(chapter.grammar(entry).expect("a key of the policy").1);
    let default = match entry.default {
        Absent::Value(_) => String::new(), // the line shows it
        Absent::Required | Absent::RequiredIf(_) | Absent::Words(_) => format!("{} ", default_of(entry)),
    };
    let mut text = format!("{} {only}{default}{}", entry.effect, entry.consequence);
    if entry.name == "context" {
        text.push_str(" Placeholders:");
        let told =
            manual::PLACEHOLDERS.map(|(name, what)| format!(" {name} {}", lower(what.trim_end_matches('.'))));
        text.push_str(&told.join(";"));
        text.push_str(&format!(". {}", manual::ENCODING));
    }
    comment(&text) + &format!("{line}\n\n")
}

/// A comment of TOML, of plain text.
fn comment(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| wrapped(&paragraph.replace('`', ""), "# "));
    paragraphs.collect::<Vec<_>>().join("#\n")
}

/// `config/policy.toml`.
fn annotated() -> String {
    let mut file = comment(
        "The policy of kms-sig watch: every key there is, with its effect, its default, and what follows from it. \
         The package has it as /etc/kms-sig/policy.toml, and runs it as the service kms-sig.",
    );
    file.push_str("#\n");
    file.push_str(&comment(manual::ABOUT));
    file.push_str(&format!("#\n#   {}\n#\n", manual::CHECK));
    file.push_str(&comment(manual::FORM));
    file.push_str("#\n# A key that is commented out shows its default, unless it says otherwise.\n\n");
    for chapter in &CHAPTERS {
        if chapter.table.is_empty() {
            let keys = chapter.keys.iter().filter(|entry| !is_table(entry));
            file.extend(keys.map(|entry| example_key(chapter, "", entry)));
            continue;
        }
        let rule = format!("# ---- {} ", chapter.table);
        file.push_str(&format!("\n{rule}{}\n#\n", "-".repeat(100 - rule.len())));
        file.push_str(&comment(&about_table(chapter)));
        if chapter.table != "[[watch]]" {
            file.push_str(&format!("\n{}\n", chapter.table));
            file.extend(chapter.keys.iter().map(|entry| example_key(chapter, chapter.table, entry)));
            continue;
        }
        file.push_str(&format!("#\n{}", comment(manual::UNFINISHED)));
        let only = |entry: &Entry| chapter.grammar(entry).expect("a key of the policy").1;
        file.push_str("\n[[watch]]\n");
        let explained = |entry: &&Entry| only(entry) != Only::Verify && !LATER.contains(&entry.name);
        file.extend(
            chapter.keys.iter().filter(explained).map(|entry| example_key(chapter, "releases", entry)),
        );
        file.push_str(&comment(&format!("{} are explained in the next rule.", LATER.join(", "))));
        file.push_str("\n\n[[watch]]\n");
        let (later, told): (Vec<_>, Vec<_>) = chapter
            .keys
            .iter()
            .filter(|entry| only(entry) != Only::Sign)
            .partition(|entry| only(entry) == Only::Verify || LATER.contains(&entry.name));
        for entry in told {
            if let (line, false) = example_line(chapter, "downloads", entry) {
                file.push_str(&format!("{line}\n"));
            }
        }
        file.push('\n');
        file.extend(later.into_iter().map(|entry| example_key(chapter, "downloads", entry)));
    }
    file.trim_end().to_owned() + "\n"
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kms-sig", &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn manual_pages_are_up_to_date() {
    is_up_to_date("config/man/kms-sig.1", &main_page());
    is_up_to_date("config/man/kms-sig-watch.8", &watch_page());
    is_up_to_date("config/man/kms-sig-policy.5", &policy_page());
}

#[test]
fn manual_policy_reference_and_example_are_up_to_date() {
    is_up_to_date("docs/policy.md", &reference());
    is_up_to_date("config/policy.toml", &annotated());
}

#[test]
fn manual_completions_are_up_to_date() {
    is_up_to_date("config/completions/kms-sig.bash", &completions(Shell::Bash));
    is_up_to_date("config/completions/_kms-sig", &completions(Shell::Zsh));
    is_up_to_date("config/completions/kms-sig.fish", &completions(Shell::Fish));
}

#[test]
fn manual_example_is_a_good_policy() {
    let place = crate::support::place::Place::new();
    place.write("policy.toml", manual::EXAMPLE);
    // Its folders are not on this host, and hold its rules.
    place.run(["check", "--policy", "policy.toml", "--reload"]).exits(0);
}

#[test]
fn manual_tells_every_exit_code_option_and_command() {
    let pages = main_page() + &watch_page();
    let plain = pages.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "");
    let mut open = vec![cli()];
    while let Some(command) = open.pop() {
        for arg in command.get_arguments().filter_map(Arg::get_long).filter(|long| *long != "help") {
            assert!(
                plain.contains(&format!("--{arg}")) || arg == "version",
                "--{arg} of {}",
                command.get_name()
            );
        }
        open.extend(command.get_subcommands().cloned());
    }
}
