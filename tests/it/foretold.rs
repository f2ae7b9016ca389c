//! What `kms-sig explain` foretells of a file is what the daemon then does with it, whatever the
//! rule says, whatever lies there, and whatever was decided before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use serde_json::Value;

use crate::support::place::Place;
use crate::support::policy::{SIGN, set_policy, with};

/// Scenes of one case. Each has a rule of its own in one policy, so that one run of the daemon acts
/// on all of them.
const SCENES: usize = 64;
/// Longer than the short waits of these rules, which count from the ctime.
const SETTLED: Duration = Duration::from_millis(60);
/// Two payloads of one size, and one that is larger than `max_size`.
const CONTENTS: [&str; 2] = ["content one", "content two"];
const LARGE: usize = 200;

/// One file under one rule.
#[derive(Debug, Clone)]
struct Scene {
    /// What the daemon found at an earlier run, and by which rule.
    before: Option<(Setting, Payload, Signature)>,
    setting: Setting,
    /// What is put there now. `None`: nothing is changed.
    payload: Option<Payload>,
    signature: Option<Signature>,
    destination: Destination,
    /// Whether somebody has the payload open for writing.
    is_open: bool,
    /// Whether a kill came after the signature was written, before that was put on record.
    was_killed: bool,
    asks_for: &'static str,
}

#[derive(Debug, Clone)]
struct Setting {
    mode: Mode,
    on_stale: &'static str,
    on_invalid: &'static str,
    on_missing: &'static str,
    rollback: &'static str,
    has_batches: bool,
    max_links: u32,
    is_patient: bool,
    patterns: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Sign { delivers: bool },
    Verify { delivers: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    Absent,
    Content(usize),
    TooLarge,
    HardLinked,
    Symlink,
    Directory,
    SetUid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Absent,
    /// Of one of the two contents.
    Valid(usize),
    Batch,
    /// Of a batch whose files share other parts of their context.
    BatchSplitOtherwise,
    OfAnotherKey,
    OfAnotherContext,
    Minisign,
    OpenPgp,
    Empty,
    Garbage,
    TooLong,
    Directory,
    Symlink,
    HardLinked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Free,
    File(usize),
    Pair(Signature),
    /// A signature without its file.
    Signature(Signature),
    Loose,
    Directory,
}

fn scene() -> impl Strategy<Value = Scene> {
    let before = weighted(0.5, (setting(), payload(), prop_oneof![signature(), Just(Signature::Valid(0))]));
    let now = (setting(), weighted(0.7, payload()), weighted(0.7, signature()), destination());
    let odds = (any::<bool>(), weighted(0.1, Just(())), any::<bool>(), select(vec!["f", "f.sig"]));
    (before, now, odds).prop_map(|(before, now, odds)| {
        let (other_setting, payload, signature, destination) = now;
        let (keeps_setting, is_open, was_killed, asks_for) = odds;
        let same = before.as_ref().filter(|_| keeps_setting).map(|(setting, ..)| setting.clone());
        Scene {
            setting: same.unwrap_or(other_setting),
            payload: payload.or(before.is_none().then_some(Payload::Content(0))),
            signature,
            destination,
            is_open: is_open.is_some(),
            was_killed,
            asks_for,
            before,
        }
    })
}

fn setting() -> impl Strategy<Value = Setting> {
    let modes =
        [false, true].into_iter().flat_map(|delivers| [Mode::Sign { delivers }, Mode::Verify { delivers }]);
    let actions = || select(vec!["quarantine", "log"]);
    let limits = (any::<bool>(), 1..=2_u32, any::<bool>());
    let patterns = prop_oneof![
        6 => Just(""),
        1 => Just("include = [\"f*\"]\n"),
        1 => Just("include = [\"*.gz\"]\n"),
        1 => Just("exclude = [\"f\"]\n"),
    ];
    let words = (
        select(vec!["resign", "report", "quarantine"]),
        actions(),
        actions(),
        prop_oneof![3 => Just("off"), 1 => Just("alert"), 1 => Just("deny")],
    );
    (select(modes.collect::<Vec<_>>()), words, limits, patterns).prop_map(
        |(mode, words, limits, patterns)| {
            let (on_stale, on_invalid, on_missing, rollback) = words;
            let (has_batches, max_links, is_patient) = limits;
            Setting {
                mode,
                on_stale,
                on_invalid,
                on_missing,
                rollback,
                has_batches,
                max_links,
                is_patient,
                patterns,
            }
        },
    )
}

fn payload() -> impl Strategy<Value = Payload> {
    use Payload::{Absent, Content, Directory, HardLinked, SetUid, Symlink, TooLarge};
    let odd = select(vec![Absent, TooLarge, HardLinked, Symlink, Directory, SetUid]);
    prop_oneof![2 => (0..2_usize).prop_map(Content), 1 => odd]
}

fn signature() -> impl Strategy<Value = Signature> {
    use Signature::{
        Absent, Batch, BatchSplitOtherwise, Directory, Empty, Garbage, HardLinked, Minisign,
        OfAnotherContext, OfAnotherKey, OpenPgp, Symlink, TooLong, Valid,
    };
    let genuine = select(vec![Valid(0), Valid(1), Batch]);
    let bad =
        select(vec![BatchSplitOtherwise, OfAnotherKey, OfAnotherContext, Minisign, OpenPgp, Empty, Garbage]);
    let odd = select(vec![TooLong, Directory, Symlink, HardLinked]);
    prop_oneof![1 => Just(Absent), 2 => genuine, 2 => bad, 1 => odd]
}

fn destination() -> impl Strategy<Value = Destination> {
    use Destination::{File, Free, Loose, Pair};
    let odd = select(vec![File(0), File(1), Loose, Destination::Directory]);
    let with = signature().prop_map(Pair);
    let alone = signature().prop_map(Destination::Signature);
    prop_oneof![3 => Just(Free), 1 => odd, 1 => with, 1 => alone]
}

impl Setting {
    /// The rule of the scene number `i`.
    fn rule(&self, i: usize) -> String {
        let (delivers, mode) = match self.mode {
            Mode::Sign { delivers } => (delivers, "sign"),
            Mode::Verify { delivers } => (delivers, "verify"),
        };
        let patience = if self.is_patient { "1h" } else { "1ms" };
        let mut rule = format!(
            "[[watch]]\nname = \"r{i}\"\nmode = \"{mode}\"\npath = \"{i}/in\"\ncontext = {{ file = \"{{name}}\" }}\n\
             settle = \"1ms\"\nmax_size = \"100B\"\nmax_links = {}\n{}",
            self.max_links, self.patterns
        );
        if delivers {
            writeln!(rule, "deliver_to = \"{i}/out\"").unwrap();
        } else if matches!(self.mode, Mode::Verify { .. }) {
            writeln!(rule, "in_place = true").unwrap();
        }
        match self.mode {
            Mode::Sign { delivers } => {
                writeln!(rule, "key = \"local:demo\"").unwrap();
                if !delivers {
                    writeln!(rule, "on_stale = \"{}\"", self.on_stale).unwrap();
                }
                if self.has_batches {
                    writeln!(rule, "batch = {{ window = \"10ms\", max_files = 9 }}").unwrap();
                }
            }
            Mode::Verify { .. } => writeln!(
                rule,
                "trusted_keys = [\"local:demo\"]\non_invalid = \"{}\"\non_missing = \"{}\"\nrollback = \"{}\"\n\
                 accept_batch = {}\ngrace = \"{patience}\"\nsignature_timeout = \"{patience}\"",
                self.on_invalid, self.on_missing, self.rollback, self.has_batches
            )
            .unwrap(),
        }
        rule
    }
}

/// What is made once for all scenes: a keyring of two keys, and signatures.
struct Made {
    keyring: Vec<u8>,
    valid: [Vec<u8>; 2],
    batch: Vec<u8>,
    split_otherwise: Vec<u8>,
    of_another_key: Vec<u8>,
    of_another_context: Vec<u8>,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = Place::with_keyring();
        place.run(["key", "create", "local:other"]).exits(0);
        let sign = |key: &str, content: &str, context: &str| {
            place.write("f", content);
            place.run(["sign", key, "f", "--context", context]).exits(0);
            let signature = place.read("f.sig");
            fs::remove_file(place.path("f.sig")).unwrap();
            signature
        };
        let valid = CONTENTS.map(|content| sign("local:demo", content, "file=f"));
        let of_another_key = sign("local:other", CONTENTS[0], "file=f");
        let of_another_context = sign("local:demo", CONTENTS[0], "file=g");
        let batches = with(&with(SIGN, "batch = { window = \"10ms\", max_files = 9 }"), "settle = \"1ms\"");
        let of_batch = |rule: &str| {
            fs::create_dir(place.path("in")).unwrap();
            place.write("in/f", CONTENTS[0]);
            set_policy(&place, rule);
            place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
            let signature = place.read("in/f.sig");
            fs::remove_dir_all(place.path("in")).unwrap();
            signature
        };
        Made {
            valid,
            of_another_key,
            of_another_context,
            batch: of_batch(&batches),
            split_otherwise: of_batch(&with(&batches, "context = { file = \"f\" }")),
            keyring: place.read("keyring"),
        }
    })
}

impl Signature {
    /// Puts it there, in place of whatever there is.
    fn put(self, at: &Path, aside: &Path) {
        remove(at);
        match self {
            Self::Absent => {}
            Self::Valid(of) => fs::write(at, &made().valid[of]).unwrap(),
            Self::Batch => fs::write(at, &made().batch).unwrap(),
            Self::BatchSplitOtherwise => fs::write(at, &made().split_otherwise).unwrap(),
            Self::OfAnotherKey => fs::write(at, &made().of_another_key).unwrap(),
            Self::OfAnotherContext => fs::write(at, &made().of_another_context).unwrap(),
            Self::Minisign => fs::write(at, "untrusted comment: signature from minisign\nRUQ=\n").unwrap(),
            Self::OpenPgp => fs::write(at, "-----BEGIN PGP SIGNATURE-----\n").unwrap(),
            Self::Empty => fs::write(at, "").unwrap(),
            Self::Garbage => fs::write(at, "may be one").unwrap(),
            Self::TooLong => fs::write(at, vec![7; 1 << 20]).unwrap(),
            Self::Directory => fs::create_dir(at).unwrap(),
            Self::Symlink => symlink(aside, at).unwrap(),
            Self::HardLinked => {
                fs::write(at, &made().valid[0]).unwrap();
                fs::hard_link(at, aside).unwrap();
            }
        }
    }
}

impl Payload {
    fn put(self, at: &Path, aside: &Path) {
        remove(at);
        match self {
            Self::Absent => {}
            Self::Content(which) => fs::write(at, CONTENTS[which]).unwrap(),
            Self::TooLarge => fs::write(at, vec![b'x'; LARGE]).unwrap(),
            Self::HardLinked => {
                fs::write(at, CONTENTS[0]).unwrap();
                fs::hard_link(at, aside).unwrap();
            }
            Self::Symlink => symlink(aside, at).unwrap(),
            Self::Directory => fs::create_dir(at).unwrap(),
            Self::SetUid => {
                fs::write(at, CONTENTS[0]).unwrap();
                fs::set_permissions(at, Permissions::from_mode(0o4644)).unwrap();
            }
        }
    }
}

impl Destination {
    fn put(self, dir: &Path) {
        for name in ["f", "f.sig"] {
            remove(&dir.join(name));
        }
        let payload = |which: usize| fs::write(dir.join("f"), CONTENTS[which]).unwrap();
        let signature = |signature: Signature| signature.put(&dir.join("f.sig"), &dir.join("aside"));
        remove(&dir.join("aside"));
        match self {
            Self::Free => {}
            Self::File(which) => payload(which),
            Self::Pair(beside) => {
                payload(0);
                signature(beside);
            }
            Self::Signature(alone) => signature(alone),
            Self::Loose => {
                payload(0);
                fs::set_permissions(dir.join("f"), Permissions::from_mode(0o666)).unwrap();
            }
            Self::Directory => fs::create_dir(dir.join("f")).unwrap(),
        }
    }
}

/// Removes whatever has a name.
fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// How a file ends, or does not: a word and its code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    outcome: String,
    reason: Option<String>,
}

impl End {
    fn new(outcome: &str, reason: Option<&str>) -> Self {
        // The record has the details of a reason after its code.
        let code = reason.and_then(|reason| reason.split(' ').next());
        Self { outcome: outcome.to_owned(), reason: code.map(str::to_owned) }
    }
}

/// What was said that would come of one path.
struct Foretold {
    would: String,
    outcomes: Vec<End>,
    why: String,
}

/// All scenes of a case, side by side in one policy.
struct Stage {
    place: Place,
    scenes: Vec<Scene>,
    /// What somebody has open.
    open: Vec<File>,
}

impl Stage {
    fn new(scenes: Vec<Scene>) -> Self {
        let place = Place::with_keyring();
        place.write("keyring", &made().keyring);
        for i in 0..scenes.len() {
            for dir in ["in", "out"] {
                fs::create_dir_all(place.path(format!("{i}/{dir}"))).unwrap();
            }
        }
        Self { place, scenes, open: Vec::new() }
    }

    fn at(&self, i: usize, name: &str) -> PathBuf {
        self.place.path(format!("{i}/{name}"))
    }

    /// Has the daemon deal with everything once. What it says of each rule.
    fn run(&self, rules: &str) -> BTreeMap<String, Vec<String>> {
        set_policy(&self.place, rules);
        let run = self.place.run(["watch", "--policy", "policy.toml", "--once"]);
        let said = String::from_utf8(run.stdout().to_vec()).unwrap();
        if said.is_empty() {
            run.exits(0); // which shows why
            panic!("nothing was told");
        }
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut rule = String::new();
        for line in said.lines() {
            match line.strip_prefix("  ") {
                Some(note) => told.get_mut(&rule).unwrap().push(note.to_owned()),
                None => {
                    let (name, counts) = line.split_once(": ").unwrap_or_else(|| panic!("{said}"));
                    rule = name.to_owned();
                    told.insert(rule.clone(), vec![counts.to_owned()]);
                }
            }
        }
        told
    }

    /// Lays out what an earlier run finds, and runs it.
    fn before(&mut self) {
        let mut rules = String::new();
        for (i, scene) in self.scenes.iter().enumerate() {
            let Some((setting, payload, signature)) = &scene.before else { continue };
            payload.put(&self.at(i, "in/f"), &self.at(i, "aside"));
            signature.put(&self.at(i, "in/f.sig"), &self.at(i, "aside.sig"));
            rules += &setting.rule(i);
        }
        if rules.is_empty() {
            return;
        }
        std::thread::sleep(SETTLED);
        self.run(&rules);
        let db = rusqlite::Connection::open(self.place.path("state/state.db")).unwrap();
        for (i, scene) in self.scenes.iter().enumerate() {
            if scene.was_killed {
                let sql = "UPDATE decided SET outcome = 'signing' WHERE outcome = 'signed' AND rule = ?1";
                db.execute(sql, [format!("r{i}")]).unwrap();
            }
        }
        db.close().unwrap();
    }

    /// Lays out what is there now.
    fn now(&mut self) {
        for (i, scene) in self.scenes.iter().enumerate() {
            for aside in ["aside", "aside.sig"] {
                remove(&self.at(i, aside));
            }
            if let Some(payload) = scene.payload {
                payload.put(&self.at(i, "in/f"), &self.at(i, "aside"));
            }
            if let Some(signature) = scene.signature {
                signature.put(&self.at(i, "in/f.sig"), &self.at(i, "aside.sig"));
            }
            scene.destination.put(&self.at(i, "out"));
            if scene.is_open && fs::symlink_metadata(self.at(i, "in/f")).is_ok_and(|there| there.is_file()) {
                self.open.push(File::options().append(true).open(self.at(i, "in/f")).unwrap());
            }
        }
        std::thread::sleep(SETTLED);
    }

    fn explain(&self, i: usize, name: &str) -> Value {
        let path = format!("{i}/in/{name}");
        let run = self.place.run(["explain", &path, "--policy", "policy.toml", "--json"]).exits(0);
        serde_json::from_slice(run.stdout()).unwrap()
    }

    /// Everything that was foretold wrongly.
    fn disagreements(&self) -> Vec<String> {
        let rules: String = self.scenes.iter().enumerate().map(|(i, scene)| scene.setting.rule(i)).collect();
        set_policy(&self.place, &rules);
        let said: Vec<Value> =
            self.scenes.iter().enumerate().map(|(i, scene)| self.explain(i, scene.asks_for)).collect();
        let told = self.run(&rules);
        let mut found = Vec::new();
        for (i, (scene, said)) in self.scenes.iter().zip(&said).enumerate() {
            let foretold = foretold(i, said);
            let then = &told[&format!("r{i}")];
            let after = self.explain(i, "f");
            let actual = actual(scene, said, &after, then);
            if !agree(&foretold, &actual) {
                let Foretold { would, outcomes, why } = foretold;
                found.push(format!(
                    "{scene:?}\n  foretold: {would}: {outcomes:?}: {why}\n  actual: {actual:?}\n  told: {then:?}"
                ));
            }
        }
        found
    }
}

/// What was said of a path, under the rule of its scene.
fn foretold(i: usize, said: &Value) -> Foretold {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    let outcomes = |of: &Value| {
        let ends = of["outcomes"].as_array().unwrap_or_else(|| panic!("{said}"));
        ends.iter().map(|end| End::new(&text(&end["outcome"]), end["reason"].as_str())).collect()
    };
    if said["applies"].is_null() {
        let others = said["other_rules"].as_array().unwrap();
        let mine = others.iter().find(|other| other["rule"] == format!("r{i}")).unwrap();
        let would = if mine["outcomes"][0]["outcome"] == "refused" { "refuses" } else { "nothing" };
        return Foretold { would: would.to_owned(), outcomes: outcomes(mine), why: text(&mine["why_not"]) };
    }
    let applies = &said["applies"];
    Foretold { would: text(&applies["would"]), outcomes: outcomes(applies), why: text(&applies["why"]) }
}

/// What became of the path, by what the daemon told at its end, and what it remembers.
fn actual(scene: &Scene, before: &Value, after: &Value, told: &[String]) -> End {
    let is_stray = scene.asks_for == "f.sig" && before["applies"].is_null();
    let name = if is_stray { "f.sig" } else { "f" };
    let note = |what: &str| told.iter().find_map(|line| line.strip_prefix(&format!("{name}: {what}: ")));
    if let Some(why) = note("left") {
        let cause = why.strip_prefix("held (").and_then(|rest| Some(rest.split_once(')')?.0));
        return cause.map_or_else(|| End::new("waiting", None), |cause| End::new("held", Some(cause)));
    }
    if is_stray {
        return note("refused").map_or_else(
            || End::new("nothing", None),
            |_| End::new("refused", Some("stray-signature")), // the only way for this name
        );
    }
    let remembered = &after["applies"]["remembered"];
    let counts = &told[0];
    let was_counted = |word: &str| counts.split(", ").any(|count| count.split(' ').nth(1) == Some(word));
    match remembered["outcome"].as_str() {
        // Each has a line of its own; a count may be of the other name.
        Some(outcome @ ("refused" | "invalid" | "quarantined")) if note(outcome).is_none() => {
            End::new("nothing", None)
        }
        Some(outcome) if was_counted(outcome) || was_counted("unchanged") => {
            End::new(outcome, remembered["reason"].as_str())
        }
        _ => End::new("nothing", None),
    }
}

/// Whether what was foretold came. The word is that of the first way, and there are several only
/// where KMS would be asked or contents be compared.
fn agree(foretold: &Foretold, actual: &End) -> bool {
    let first = foretold.outcomes.first().map(|end| end.outcome.as_str()).unwrap_or_default();
    let may_be_first: &[&str] = match foretold.would.as_str() {
        "nothing" => &["nothing"],
        "done" => &["signed", "adopted", "valid", "invalid", "delivered"],
        "waits" => &["waiting"],
        "signs" => &["signed", "delivered"],
        "judges" => &["adopted", "signed", "valid", "delivered", "refused", "quarantined", "held"],
        "invalid" => &["invalid", "quarantined"],
        "refuses" => &["refused"],
        "holds" => &["held"],
        _ => &[],
    };
    let most = match foretold.would.as_str() {
        "judges" | "waits" => usize::MAX,
        "signs" | "refuses" | "invalid" => 2,
        _ => 1,
    };
    // What is waited for now takes an hour, or somebody who does not come.
    let waits = foretold.would != "waits" || actual.outcome == "waiting";
    may_be_first.contains(&first)
        && waits
        && foretold.outcomes.len() <= most
        && foretold.outcomes.contains(actual)
}

#[test]
fn what_explain_foretells_the_daemon_does() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    // All that is found in a case is told; to run it again in parts would take longer than to read
    // it.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    proptest!(config, |(scenes in vec(scene(), SCENES))| {
        let mut stage = Stage::new(scenes);
        stage.before();
        stage.now();
        let found = stage.disagreements();
        prop_assert!(found.is_empty(), "{} scenes:\n{}", found.len(), found.join("\n"));
    });
}
