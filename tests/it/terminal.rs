//! What people see on a terminal, and what nobody else gets: progress and colours.
//!
//! The program runs under a pseudo-terminal. What it sent there is looked at as it was sent, and as
//! the screen shows it in the end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::files;
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{self, SIGN, VERIFY, with};
use crate::support::wait::Heard;

/// Wide enough that no line is broken.
const WIDTH: u16 = 500;

/// Which streams are the terminal. What is not is a pipe.
#[derive(Clone, Copy, PartialEq)]
enum On {
    All,
    Output,
    Errors,
    OutputAndErrors,
}

/// The program, running on a terminal of its own.
struct Session {
    child: Child,
    master: File,
    sent: Heard<u8>,
    reader: JoinHandle<()>,
}

/// How a session ended.
struct Ended {
    code: Option<i32>,
    /// What the terminal was sent.
    sent: String,
    /// What went to pipes.
    stdout: String,
    stderr: String,
}

impl Session {
    fn start(place: &Place, words: &[&str], on: On) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 24, ws_col: WIDTH, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal: OwnedFd = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        let stream = |is_terminal: bool| match is_terminal {
            true => Stdio::from(terminal.try_clone().unwrap()),
            false => Stdio::piped(),
        };
        let mut command = place.prepare(Command::new(PROGRAM));
        command.args(words);
        command.stdin(stream(on == On::All));
        command.stdout(stream(on != On::Errors));
        command.stderr(stream(on != On::Output));
        let child = command.spawn().unwrap();
        drop((command, terminal)); // the terminal ends with the program
        let master = File::from(master);
        let sent = Heard::new();
        let reader = std::thread::spawn({
            let (mut master, sent) = (master.try_clone().unwrap(), sent.clone());
            move || {
                let mut buffer = [0; 4096];
                // EIO: nobody has it open any more.
                while let Ok(len @ 1..) = master.read(&mut buffer) {
                    sent.add(buffer[..len].iter().copied());
                }
                sent.end();
            }
        });
        Self { child, master, sent, reader }
    }

    /// Waits until the terminal was sent this.
    #[track_caller]
    fn sees(&self, text: &str) {
        let shown = |sent: &mut Vec<u8>| String::from_utf8_lossy(sent).contains(text).then_some(());
        let sent = || self.sent.so_far(|sent| String::from_utf8_lossy(sent).into_owned());
        assert!(self.sent.wait_for(shown).is_some(), "never shown: {text:?}; but\n{}", sent());
    }

    /// Writes to the program's standard input, a pipe.
    fn gives(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Types on the terminal.
    fn types(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        self.reader.join().unwrap();
        let sent = String::from_utf8(self.sent.so_far(std::mem::take)).unwrap();
        Ended {
            code: output.status.code(),
            sent: sent.replace("\r\n", "\n"), // as the terminal's driver makes it
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(place: &Place, words: &[&str], on: On) -> Ended {
    Session::start(place, words, on).end()
}

impl Ended {
    /// What the screen shows in the end, without colours.
    fn screen(&self) -> String {
        let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
        let mut rest = self.sent.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => column = 0,
                '\n' => (row, column) = (row + 1, 0),
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "{:?}", self.sent);
                    let order: String = rest.by_ref().take(1).collect();
                    let mut order = order;
                    while order.ends_with(|c: char| c.is_ascii_digit() || c == ';') {
                        order.extend(rest.next());
                    }
                    match order.as_str() {
                        "2K" => lines[row] = Vec::new(),
                        "1A" => row -= 1,
                        colour if colour.ends_with('m') => {}
                        other => panic!("an order that this screen does not know: {other:?}"),
                    }
                }
                c => {
                    let line: &mut Vec<char> = &mut lines[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = c;
                    column += 1;
                }
            }
            lines.resize(lines.len().max(row + 1), Vec::new());
        }
        let lines = lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n");
        let text = lines.collect::<String>();
        text.trim_end().to_owned() + "\n"
    }
}

/// Takes colours out.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

/// On a terminal that is more than a typewriter.
fn on_xterm(mut place: Place) -> Place {
    place.set("TERM", "xterm");
    place
}

/// A place with every kind of outcome: `good` is signed, `bad` is in quarantine, `new` waits for
/// its signature.
fn with_outcomes() -> Place {
    let verify = with(&with(VERIFY, "grace = \"1ms\""), "signature_timeout = \"1h\"");
    let place = policy::place(&format!("{}{verify}", with(SIGN, "path = \"sent\"")));
    std::fs::create_dir(place.path("sent")).unwrap();
    place.write("sent/good", "good");
    files::drop_pair(&place, "bad", "bad");
    place.write("in/bad", "worse");
    place.write("in/new", "new");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(3);
    place
}

// Progress

/// What is said of a file that was cut short while it was read.
const CHANGED: &str =
    "kms-sig: \"f\" changed while it was read\nhint: run it again when nobody writes to it\n";

#[test]
fn a_large_file_is_shown_while_it_is_read_and_only_on_a_terminal() {
    let place = on_xterm(Place::with_signed_file());
    let mut dumb = Place::with_signed_file();
    dumb.set("TERM", "dumb");
    for place in [&place, &dumb] {
        File::create(place.path("f")).unwrap().set_len(1 << 40).unwrap(); // nothing but a hole
    }
    let words = ["verify", "f", "--key", "local:demo"];
    let piped = Session::start(&place, &words, On::Output);
    let dumb_one = Session::start(&dumb, &words, On::All);
    let shown = Session::start(&place, &words, On::All);
    shown.sees(" of 1.0 TiB (0%), ");
    shown.sees("iB/s");
    // By now the others had as much to show; and the file ends.
    for place in [&place, &dumb] {
        File::options().write(true).open(place.path("f")).unwrap().set_len(0).unwrap();
    }
    let shown = shown.end();
    assert_eq!((shown.code, shown.screen().as_str()), (Some(3), CHANGED));
    let piped = piped.end();
    assert_eq!((piped.code, piped.sent.as_str(), piped.stderr.as_str()), (Some(3), "", CHANGED));
    let dumb_one = dumb_one.end();
    assert_eq!((dumb_one.code, dumb_one.sent.as_str()), (Some(3), CHANGED));
}

#[test]
fn signing_shows_it_as_well_and_says_what_went_wrong_below_nothing() {
    let place = on_xterm(Place::with_keyring());
    let file = File::create(place.path("f")).unwrap();
    file.set_len(1 << 40).unwrap();
    let session = Session::start(&place, &["sign", "local:demo", "f"], On::Errors);
    session.sees(" of 1.0 TiB (0%), ");
    file.set_len(0).unwrap();
    let ended = session.end();
    assert_eq!((ended.code, ended.screen().as_str()), (Some(3), CHANGED));
    assert!(!place.path("f.sig").exists());
}

#[test]
fn of_standard_input_nobody_knows_the_end_and_who_types_it_is_left_alone() {
    let place = on_xterm(Place::with_signed_file());
    let words = ["verify", "-", "f.sig", "--key", "local:demo"];
    let typed = Session::start(&place, &words, On::All);
    let mut given = Session::start(&place, &words, On::OutputAndErrors);
    given.gives(b"pay");
    given.sees("read 3 B");
    given.gives(b"load\n");
    let given = given.end();
    assert_eq!((given.code, given.screen().as_str()), (Some(0), "valid signature from local:demo\n"));
    assert!(!given.sent.contains('%') && !given.sent.contains(" left"), "{}", given.sent);
    typed.types(b"payload\n\x04"); // control-D is the end
    let typed = typed.end();
    assert_eq!(typed.code, Some(0));
    assert_eq!(
        plain(&typed.sent),
        "payload\nvalid signature from local:demo\n",
        "what was typed, and no more"
    );
}

#[test]
fn what_is_quick_shows_nothing() {
    let place = on_xterm(Place::with_signed_file());
    // Where the machine stands still for half a second, something may be shown; not each time.
    let is_clean = |_: i32| {
        let ended = run(&place, &["verify", "f", "--key", "local:demo"], On::All);
        plain(&ended.sent) == "valid signature from local:demo\n"
    };
    assert!((0..3).any(is_clean));
}

#[test]
#[cfg(feature = "aws")]
fn p2_kms_that_takes_its_time_is_said_to_be_asked() {
    let mut place = on_xterm(Place::new());
    place.write("f", "payload");
    place.write("f.sig", "some ciphertext");
    place.set("AWS_MAX_ATTEMPTS", "1");
    let silent = crate::support::doorbell::Doorbell::at(&mut place);
    let session = Session::start(&place, &["verify", "f", "--key", "alias/a"], On::All);
    session.sees("asking KMS");
    drop(silent);
    let ended = session.end();
    assert_eq!(ended.code, Some(3));
    let screen = ended.screen();
    assert!(screen.starts_with("kms-sig: cannot verify \"f\": "), "{screen}");
    assert!(!screen.contains("asking KMS"), "{screen}");
}

#[test]
fn once_shows_how_many_files_are_done_between_its_log_lines_and_not_in_them() {
    let rules = with(SIGN, "settle = \"1s\"");
    let place = on_xterm(policy::place(&rules));
    for file in ["a", "b", "c"] {
        place.write(format!("in/{file}"), file);
    }
    let words = ["watch", "--policy", "policy.toml", "--once"];
    let session = Session::start(&place, &words, On::All);
    session.sees(" of 3 files done");
    let ended = session.end();
    let screen = ended.screen();
    assert_eq!(ended.code, Some(0), "{screen}");
    let (log, rest): (Vec<_>, Vec<_>) = screen.lines().partition(|line| line.contains(" INFO "));
    assert_eq!(rest, ["sign: 3 signed"], "{screen}");
    assert_eq!(log.iter().filter(|line| line.contains(" INFO signed rule=\"sign\" file=")).count(), 3);
    assert!(log.iter().all(|line| line.starts_with("20") && !line.contains("done")), "{screen}");

    place.write("in/d", "d");
    let piped = run(&place, &words, On::Output);
    assert_eq!(plain(&piped.sent), "sign: 1 signed, 3 unchanged\n");
    assert!(!piped.stderr.contains("done") && !piped.stderr.contains('\x1b'), "{}", piped.stderr);
    place.write("in/e", "e");
    let json = run(&place, &[&words[..], &["--log-format", "json"]].concat(), On::All);
    assert!(!json.sent.contains("done"), "{}", json.sent);
}

// Colours

/// Commands that have something to colour on standard output, and what that is.
const COLOURED: [(&[&str], &str); 8] = [
    (&["verify", "signed", "--key", "local:demo"], "\x1b[32mvalid signature\x1b[0m from local:demo\n"),
    (&["check", "--policy", "policy.toml"], "2 rules, \x1b[32mno fault\x1b[0m\n"),
    (&["history", "--policy", "policy.toml"], "  \x1b[32msigned     \x1b[0m  good\n"),
    (&["history", "--policy", "policy.toml"], "  \x1b[31mquarantined\x1b[0m  bad  (mismatch)\n"),
    (&["history", "--policy", "policy.toml", "--verify"], "\x1b[32mthe record is unbroken:\x1b[0m 2 rows\n"),
    (&["quarantine", "list", "--policy", "policy.toml"], "  verify  \x1b[31mmismatch\x1b[0m  "),
    (&["watch", "--policy", "policy.toml", "--once"], "\x1b[1mverify\x1b[0m: \x1b[33m1 left\x1b[0m\n"),
    (&["--help"], "\x1b[1m\x1b[4mUsage:\x1b[0m \x1b[1mkms-sig\x1b[0m"),
];

/// A place for these commands; the variable is set in it besides.
fn to_colour(variables: &[(&str, &str)]) -> Place {
    let mut place = with_outcomes();
    place.write("signed", "payload\n");
    place.run(["sign", "local:demo", "signed"]).exits(0);
    for (name, value) in variables {
        place.set(name, value);
    }
    place
}

#[test]
fn colours_mean_something_on_a_terminal_and_vanish_in_a_pipe() {
    let place = to_colour(&[("TERM", "xterm")]);
    for (words, part) in COLOURED {
        let shown = run(&place, words, On::Output);
        assert!(shown.sent.contains(part), "{words:?}\n{:?}", shown.sent);
        let piped = run(&place, words, On::Errors);
        assert_eq!(plain(&shown.sent), piped.stdout, "{words:?}");
        assert!(!piped.stdout.contains('\x1b'), "{words:?}\n{:?}", piped.stdout);
    }
}

#[test]
fn colours_vanish_for_who_does_not_want_them() {
    for variables in [
        &[("TERM", "xterm"), ("NO_COLOR", "1")][..],
        &[("TERM", "dumb")],
        &[("TERM", "xterm"), ("CLICOLOR", "0")],
    ] {
        let place = to_colour(variables);
        for (words, part) in COLOURED {
            let shown = run(&place, words, On::Output);
            assert!(shown.sent.contains(&plain(part)), "{words:?}\n{:?}", shown.sent);
            assert!(!shown.sent.contains('\x1b'), "{variables:?} {words:?}\n{:?}", shown.sent);
        }
        let shown = run(&place, &["verify", "none"], On::All);
        assert!(!shown.sent.contains('\x1b'), "{variables:?}\n{:?}", shown.sent);
    }
}

#[test]
fn colours_can_be_had_in_a_pipe_but_never_in_json() {
    for variable in ["CLICOLOR_FORCE", "FORCE_COLOR"] {
        let place = to_colour(&[(variable, "1")]);
        for (words, part) in COLOURED {
            let run = place.run(words);
            let said = String::from_utf8(run.stdout().to_vec()).unwrap();
            assert!(said.contains(part), "{variable} {words:?}\n{said:?}");
        }
        for words in [
            &["history", "--policy", "policy.toml", "--json"][..],
            &["history", "--policy", "policy.toml", "--export"],
            &["history", "--policy", "policy.toml", "--verify", "--json"],
            &["quarantine", "list", "--policy", "policy.toml", "--json"],
            &["quarantine", "recheck", "--all", "--policy", "policy.toml", "--json"],
        ] {
            let run = place.run(words);
            assert!(!run.stdout().is_empty() && !run.stdout().contains(&b'\x1b'), "{words:?}");
        }
        let log = place.run(["watch", "--policy", "policy.toml", "--once", "--log-format", "json"]).stderr();
        assert!(!log.is_empty() && !log.contains('\x1b'), "{log:?}");
    }
}

#[test]
fn each_stream_is_decided_on_its_own() {
    let place = on_xterm(Place::with_signed_file());
    place.write("g", "other");
    place.run(["sign", "local:demo", "g", "h"]).exits(0);
    let bad = ["verify", "f", "h", "--key", "local:demo", "-v"];
    let told = "invalid signature\nreason: the signature is genuine, but not of these bytes\n";
    let coloured = "\x1b[31minvalid signature\x1b[0m\n\x1b[1mreason:\x1b[0m the signature is genuine, but not of these bytes\n";
    let ended = run(&place, &bad, On::Errors);
    assert_eq!((ended.code, ended.sent.as_str(), ended.stdout.as_str()), (Some(1), coloured, ""));
    let ended = run(&place, &bad, On::Output);
    assert_eq!((ended.code, ended.sent.as_str(), ended.stderr.as_str()), (Some(1), "", told));
    let good = ["verify", "f", "--key", "local:demo"];
    assert_eq!(run(&place, &good, On::Errors).stdout, "valid signature from local:demo\n");
}

#[test]
fn an_error_and_its_hint_are_told_apart() {
    let place = on_xterm(Place::with_signed_file());
    let ended = run(&place, &["verify", "-", "-"], On::All);
    assert_eq!(
        ended.sent,
        "\x1b[31mkms-sig:\x1b[0m the file and its signature cannot both be standard input\n\
         \x1b[1mhint:\x1b[0m name the signature: kms-sig verify - SIG\n"
    );
    let ended = run(&place, &["verify", "--\x1b[2J"], On::All);
    assert!(ended.sent.starts_with("\x1b[31merror:\x1b[0m unexpected argument '--"), "{:?}", ended.sent);
}
