//! One piece of work for the daemon, with what must hold while it is under way and when it is done.
//!
//! Everything the daemon touches lies in `w` of a place, which may be a mount; the keyring lies
//! outside.

mod many;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::mount::Mount;
use crate::support::place::{PROGRAM, Place};
use crate::support::side_by_side::side_by_side;
use crate::support::trace::{self, CALLS, Lacking, Point, Traced};

pub(super) use many::{DELIVER_MANY, SIGN_BATCH, SIGN_BATCH_AND_DELIVER};

/// Fails a check with a message.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

/// The result of a check: what is wrong.
pub(super) use ensure;

pub(super) type Check = Result<(), String>;

/// Large enough to be copied in more than one piece.
pub(super) fn content() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i % 251) as u8).collect()
}

/// One piece of work.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// The rule, but for what all rules have.
    rule: &'static str,
    /// Lays out what the daemon will find.
    lay: fn(&Place),
    /// What must hold at any moment.
    during: fn(&Place) -> Check,
    /// What must hold at the end.
    after: fn(&Place) -> Check,
    /// The exit code of an undisturbed run.
    pub(super) exit: i32,
    /// Whether the quarantine store lies on a mount of its own.
    apart: bool,
}

/// A place with a job laid out in it.
pub(super) struct Site {
    /// What is mounted in it; goes before the place.
    pub(super) mount: Option<Mount>,
    pub(super) place: Place,
    pub(super) job: Job,
}

impl Job {
    /// A place with this job to do in it. `disk` mounts what `w` shall be.
    pub(super) fn lay(&self, disk: Option<&dyn Fn(&Path) -> Mount>) -> Site {
        let place = Place::with_keyring();
        fs::create_dir(place.path("w")).unwrap();
        let mut mount = disk.map(|mount| mount(&place.path("w")));
        for dir in ["w/in", "w/out", "w/q"] {
            fs::create_dir(place.path(dir)).unwrap();
        }
        fs::set_permissions(place.path("w/q"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        if self.apart {
            mount = Some(Mount::tmpfs(&place.path("w/q"), "size=8m,mode=0700"));
        }
        let head = "allow_root = true\nlocal.keyring = \"../keyring\"\nstate.dir = \"state\"\n\
                    quarantine.dir = \"q\"\nlimits.min_free_space = \"0B\"\n\
                    [[watch]]\nname = \"rule\"\npath = \"in\"\nsettle = \"1ms\"\n\
                    context = { file = \"{name}\" }\n";
        place.write("w/policy.toml", format!("{head}{}", self.rule));
        place.write("w/in/.theirs", "not ours to touch");
        place.write("w/out/theirs", "not ours to touch");
        (self.lay)(&place);
        Site { place, job: *self, mount }
    }

    /// The points of an undisturbed run: of each call, at most `cap`, evenly, the first and the
    /// last among them.
    pub(super) fn points(&self, cap: usize) -> Vec<Point> {
        self.points_on(Lacking::default(), cap)
    }

    /// [`Job::points`], on a file system that has less than others.
    pub(super) fn points_on(&self, lacking: Lacking, cap: usize) -> Vec<Point> {
        let site = self.lay(None);
        let run = site.trace_on(lacking, None, &[]);
        assert_eq!(run.status.code(), Some(self.exit), "{}", run.shown());
        site.after().unwrap_or_else(|wrong| panic!("{wrong}\n{}", run.shown()));
        let mut counts = BTreeMap::new();
        for (point, _) in &run.calls {
            counts.insert(point.call, point.nth);
        }
        let sampled = |(call, count): (&'static str, usize)| {
            let picks = count.min(cap);
            (0..picks).map(move |i| Point { call, nth: 1 + i * (count - 1) / (picks - 1).max(1) })
        };
        counts.into_iter().flat_map(sampled).collect()
    }
}

impl Site {
    /// Runs the daemon once, with a fault or without.
    pub(super) fn trace(&self, fault: Option<(Point, trace::Fault)>) -> Traced {
        self.trace_beside(fault, &[])
    }

    /// [`Site::trace`], with somebody who does something at some points.
    pub(super) fn trace_beside(
        &self,
        fault: Option<(Point, trace::Fault)>,
        acts: &[trace::Act<'_>],
    ) -> Traced {
        self.trace_on(Lacking::default(), fault, acts)
    }

    /// [`Site::trace_beside`], on a file system that has less than others.
    pub(super) fn trace_on(
        &self,
        lacking: Lacking,
        fault: Option<(Point, trace::Fault)>,
        acts: &[trace::Act<'_>],
    ) -> Traced {
        let mut command = Command::new(PROGRAM);
        command.args(["watch", "--policy", "w/policy.toml", "--once"]);
        trace::run_on(lacking, self.place.prepare(command), fault, acts)
    }

    /// Whether what must hold at any moment holds.
    pub(super) fn during(&self) -> Check {
        let theirs = |path: &str| self.place.read(path) == b"not ours to touch";
        ensure!(theirs("w/in/.theirs") && theirs("w/out/theirs"), "a file that is not ours was touched");
        (self.job.during)(&self.place)
    }

    /// Whether the work is done. Leftovers of ours may still be about: an error may have kept them.
    pub(super) fn done(&self) -> Check {
        self.during()?;
        (self.job.after)(&self.place)
    }

    /// Whether the work is done, and nothing of ours is left about.
    pub(super) fn after(&self) -> Check {
        self.done()?;
        for dir in ["w/in", "w/out"] {
            for name in all_below(&self.place.path(dir)) {
                ensure!(!name.contains(".kms-sig"), "left over in {dir}: {name}");
            }
        }
        for item in items(&self.place) {
            let names: Vec<_> = item.keys().map(String::as_str).collect();
            ensure!(names == ["payload", "payload.sig", "record.json"], "an item holds {names:?}");
        }
        Ok(())
    }

    /// Runs the daemon once more, undisturbed and not traced, to the end of its work.
    pub(super) fn finish(&self) -> Check {
        let mut command = Command::new("timeout"); // seconds; far more than any run takes
        command.args(["60", PROGRAM, "watch", "--policy", "w/policy.toml", "--once"]);
        let run = self.place.prepare(command).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        let code = run.status.code();
        ensure!(
            code == Some(0) || code == Some(self.job.exit),
            "the next run did not finish: {}\n{said}",
            run.status
        );
        self.after().map_err(|wrong| format!("after the next run: {wrong}\n{said}"))
    }
}

/// Does something with every point, `hands` at a time, and tells of every one that failed.
pub(super) fn at_each<P: Copy + Sync>(points: &[P], hands: usize, work: impl Fn(P) -> Check + Sync) {
    let results = side_by_side(points, hands, |point| work(*point));
    let failures: Vec<_> = results.into_iter().filter_map(|result| result.flatten().err()).collect();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), points.len(), failures.join("\n\n"));
    // A list that came out short would pass for a good one.
    assert!(points.len() > CALLS.len(), "only {} points", points.len());
}

// The jobs

const VERIFY: &str = "mode = \"verify\"\ntrusted_keys = [\"local:demo\"]\ndeliver_to = \"out\"\n\
    on_invalid = \"quarantine\"\non_missing = \"quarantine\"\ngrace = \"1ms\"\nsignature_timeout = \"1ms\"\n";

const RECURSIVE: &str = "recursive = true\nmode = \"verify\"\ntrusted_keys = [\"local:demo\"]\n\
    deliver_to = \"out\"\non_invalid = \"quarantine\"\non_missing = \"quarantine\"\ngrace = \"1ms\"\n\
    signature_timeout = \"1ms\"\n";

const NO_WAY_BACK: &str = "rollback = \"deny\"\nmode = \"verify\"\ntrusted_keys = [\"local:demo\"]\n\
    deliver_to = \"out\"\non_invalid = \"quarantine\"\non_missing = \"quarantine\"\ngrace = \"1ms\"\n\
    signature_timeout = \"1ms\"\n";

/// A valid pair is delivered.
pub(super) const DELIVER: Job =
    Job { rule: VERIFY, lay: lay_pair, during: delivering, after: delivered, exit: 0, apart: false };

/// A valid pair is delivered into a subdirectory, which the destination does not have.
pub(super) const DELIVER_BELOW: Job =
    Job { rule: RECURSIVE, lay: lay_below, during: delivering_below, after: delivered_below, ..DELIVER };

/// A valid pair is delivered where somebody has put an equal one.
pub(super) const DELIVER_ONTO: Job = Job { lay: lay_equal, ..DELIVER };

/// A valid pair is delivered that supersedes one that was delivered and taken; that one is in
/// `older`.
pub(super) const DELIVER_NEWER: Job = Job { rule: NO_WAY_BACK, lay: lay_newer, ..DELIVER };

/// A file is signed where it lies.
pub(super) const SIGN: Job = Job {
    rule: "mode = \"sign\"\nkey = \"local:demo\"\n",
    lay: lay_payload,
    during: signing,
    after: signed,
    exit: 0,
    apart: false,
};

/// A file whose signature is of older content is signed again, in a subdirectory.
pub(super) const RESIGN: Job = Job {
    rule: "mode = \"sign\"\nkey = \"local:demo\"\nrecursive = true\non_stale = \"resign\"\n",
    lay: lay_stale,
    during: resigning,
    after: resigned,
    exit: 0,
    apart: false,
};

/// A file in a subdirectory is signed where it lies.
pub(super) const SIGN_BELOW: Job = Job { lay: lay_payload_below, during: nothing, after: nothing, ..RESIGN };

/// A pair in a subdirectory that does not verify goes to quarantine.
pub(super) const QUARANTINE_BELOW: Job =
    Job { rule: RECURSIVE, lay: lay_tampered_below, during: nothing, after: nothing, ..QUARANTINE };

/// The same with the store on another mount.
pub(super) const QUARANTINE_BELOW_APART: Job = Job { apart: true, ..QUARANTINE_BELOW };

/// A file is signed and delivered with its signature.
pub(super) const SIGN_AND_DELIVER: Job = Job {
    rule: "mode = \"sign\"\nkey = \"local:demo\"\ndeliver_to = \"out\"\n",
    lay: lay_payload,
    during: delivering,
    after: delivered,
    exit: 0,
    apart: false,
};

/// A pair that does not verify goes to quarantine, on the same mount.
pub(super) const QUARANTINE: Job =
    Job { rule: VERIFY, lay: lay_tampered, during: quarantining, after: quarantined, exit: 1, apart: false };

/// The same with the store on another mount (C9).
pub(super) const QUARANTINE_APART: Job = Job { apart: true, ..QUARANTINE };

fn lay_payload(place: &Place) {
    place.write("w/in/f", content());
}

fn lay_pair(place: &Place) {
    lay_payload(place);
    sign(place, "w/in/f");
}

fn lay_below(place: &Place) {
    fs::create_dir(place.path("w/in/sub")).unwrap();
    place.write("w/in/sub/f", content());
    sign(place, "w/in/sub/f");
}

fn lay_equal(place: &Place) {
    lay_pair(place);
    place.write("w/out/f", content());
    place.write("w/out/f.sig", place.read("w/in/f.sig"));
    for name in ["w/out/f", "w/out/f.sig"] {
        fs::set_permissions(place.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
}

fn lay_newer(place: &Place) {
    place.write("w/in/f", "what was delivered before");
    sign(place, "w/in/f");
    fs::create_dir(place.path("older")).unwrap();
    for name in ["f", "f.sig"] {
        fs::copy(place.path("w/in").join(name), place.path("older").join(name)).unwrap();
    }
    place.run(["watch", "--policy", "w/policy.toml", "--once"]).exits(0);
    for name in ["f", "f.sig"] {
        fs::remove_file(place.path("w/out").join(name)).unwrap();
    }
    lay_pair(place);
}

fn lay_tampered(place: &Place) {
    place.write("w/in/f", "what was signed");
    sign(place, "w/in/f");
    lay_payload(place);
    fs::copy(place.path("w/in/f.sig"), place.path("signature")).unwrap();
}

fn lay_stale(place: &Place) {
    fs::create_dir(place.path("w/in/sub")).unwrap();
    place.write("w/in/sub/f", "what was signed");
    place.run(["watch", "--policy", "w/policy.toml", "--once"]).exits(0);
    fs::copy(place.path("w/in/sub/f.sig"), place.path("signature")).unwrap();
    place.write("w/in/sub/f", content());
}

fn lay_payload_below(place: &Place) {
    fs::create_dir(place.path("w/in/sub")).unwrap();
    place.write("w/in/sub/f", content());
}

fn lay_tampered_below(place: &Place) {
    lay_below(place);
    place.write("w/in/sub/f", "not what was signed");
}

fn nothing(_: &Place) -> Check {
    Ok(())
}

fn sign(place: &Place, file: &str) {
    place.run(["sign", "local:demo", file, "--context", "file=f"]).exits(0);
}

fn delivering(place: &Place) -> Check {
    delivering_to(place, "w/out")
}

fn delivering_below(place: &Place) -> Check {
    ensure!(below(place, "w/out").keys().eq(["theirs"]), "something lies in out itself");
    delivering_to(place, "w/out/sub")
}

fn delivering_to(place: &Place, dir: &str) -> Check {
    let out = below(place, dir);
    ensure!(out.keys().all(|n| ["f", "f.sig", "theirs"].contains(&n.as_str())), "in out: {:?}", out.keys());
    let sources = sources(place, "f");
    if let Some(there) = out.get("f") {
        ensure!(*there == content(), "out/f is not what was hashed: {} bytes", there.len());
        ensure!(out.contains_key("f.sig"), "out/f has no signature");
        ensure!(verifies(place, &format!("{dir}/f")), "out/f.sig does not verify");
        let mode = fs::metadata(place.path(dir).join("f")).unwrap().mode();
        ensure!(mode & 0o7777 == 0o644, "out/f has mode {mode:o}");
    } else {
        ensure!(sources.contains(&content()), "neither source nor destination is there");
    }
    ensure!(sources.iter().all(|there| *there == content()), "a source was changed");
    ensure!(out.get("f.sig").is_none_or(|s| s.len() > 60), "out/f.sig is not whole");
    Ok(())
}

fn delivered(place: &Place) -> Check {
    delivered_to(place, "w/out")
}

fn delivered_below(place: &Place) -> Check {
    ensure!(below(place, "w/in/sub").is_empty(), "left in place");
    delivered_to(place, "w/out/sub")
}

fn delivered_to(place: &Place, dir: &str) -> Check {
    let out = below(place, dir);
    ensure!(out.contains_key("f") && out.contains_key("f.sig"), "not delivered: {:?}", out.keys());
    let left = below(place, "w/in");
    ensure!(left.keys().eq([".theirs"]), "left in place: {:?}", left.keys());
    ensure!(all_below(&place.path("w/q")).is_empty(), "something is in quarantine");
    let recorded = history(place, "delivered");
    let there = sha512(place, &format!("{dir}/f.sig"));
    ensure!(
        recorded.contains(&Some(there)),
        "no record is of the signature that was delivered: {recorded:?}"
    );
    Ok(())
}

fn signing(place: &Place) -> Check {
    let there = below(place, "w/in");
    ensure!(
        there.keys().all(|n| ["f", "f.sig", ".theirs"].contains(&n.as_str())),
        "in in: {:?}",
        there.keys()
    );
    ensure!(there.get("f") == Some(&content()), "the payload was touched");
    ensure!(!there.contains_key("f.sig") || verifies(place, "w/in/f"), "f.sig does not verify");
    Ok(())
}

fn signed(place: &Place) -> Check {
    ensure!(verifies(place, "w/in/f"), "it is not signed");
    ensure!(!history(place, "signed").is_empty(), "there is no record of it");
    Ok(())
}

fn resigning(place: &Place) -> Check {
    let there = below(place, "w/in/sub");
    ensure!(there.get("f") == Some(&content()), "the payload was touched");
    let Some(signature) = there.get("f.sig") else { return Err("it has no signature at all".into()) };
    let is_old = *signature == place.read("signature");
    ensure!(is_old || verifies(place, "w/in/sub/f"), "f.sig is neither the old nor a valid one");
    let spare = |n: &String| n.starts_with(".kms-sig-");
    ensure!(
        there.keys().all(|n| ["f", "f.sig"].contains(&n.as_str()) || spare(n)),
        "in sub: {:?}",
        there.keys()
    );
    Ok(())
}

fn resigned(place: &Place) -> Check {
    ensure!(verifies(place, "w/in/sub/f"), "it is not signed again");
    ensure!(history(place, "signed").len() >= 2, "there is no record of it");
    Ok(())
}

fn quarantining(place: &Place) -> Check {
    ensure!(below(place, "w/out").keys().eq(["theirs"]), "something was delivered");
    for (part, name, judged) in
        [("f", "payload", content()), ("f.sig", "payload.sig", place.read("signature"))]
    {
        let mut copies = sources(place, part);
        copies.extend(items(place).into_iter().filter_map(|mut item| item.remove(name)));
        ensure!(!copies.is_empty(), "{part} is nowhere");
        ensure!(copies.iter().all(|copy| *copy == judged), "a copy of {part} is not what was judged");
    }
    for item in items(place) {
        if item.contains_key("payload") || item.contains_key("payload.sig") {
            let record = item.get("record.json").map(|r| serde_json::from_slice::<serde_json::Value>(r));
            let Some(Ok(record)) = record else { return Err("an item has no record".into()) };
            ensure!(record["reason"] == "mismatch" && record["rule"] == "rule", "the record says {record}");
        }
    }
    Ok(())
}

fn quarantined(place: &Place) -> Check {
    let left = below(place, "w/in");
    ensure!(left.keys().eq([".theirs"]), "left in place: {:?}", left.keys());
    let whole = items(place).iter().filter(|item| item.len() == 3).count();
    ensure!((1..=2).contains(&whole), "{whole} whole items are in quarantine");
    let recorded = history(place, "quarantined").len();
    ensure!((1..=whole).contains(&recorded), "{recorded} records of {whole} items");
    Ok(())
}

// Looking

/// The files directly in a directory, but for the daemon's own; none if it is not there.
fn below(place: &Place, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(place.path(dir)).into_iter().flatten().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

/// Everything below a directory that is a file, or an empty directory of ours.
pub(super) fn all_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            let inner = all_below(&entry.path());
            if inner.is_empty() && name.contains("kms-sig") {
                found.push(name.clone());
            }
            found.extend(inner.into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found
}

/// What is at a name of the source: in its place, or claimed.
fn sources(place: &Place, name: &str) -> Vec<Vec<u8>> {
    let root = place.path("w/in");
    let files = all_below(&root);
    let of_name = |file: &&String| Path::new(file).file_name().is_some_and(|n| n == name);
    files.iter().filter(of_name).map(|file| fs::read(root.join(file)).unwrap()).collect()
}

/// The items in quarantine.
fn items(place: &Place) -> Vec<BTreeMap<String, Vec<u8>>> {
    let Ok(entries) = fs::read_dir(place.path("w/q")) else { return Vec::new() };
    entries.map(|item| below(place, &format!("w/q/{}", item.unwrap().file_name().display()))).collect()
}

/// Whether a file verifies as anybody would verify it.
fn verifies(place: &Place, file: &str) -> bool {
    place.run(["verify", file, "--key", "local:demo", "--context", "file=f"]).succeeds()
}

/// The digests of the signatures that history has an outcome about.
fn history(place: &Place, outcome: &str) -> Vec<Option<String>> {
    let db = rusqlite::Connection::open(place.path("w/state/state.db")).unwrap();
    let mut query = db.prepare("SELECT signature_digest FROM history WHERE outcome = ?1").unwrap();
    let rows = query.query_map([outcome], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn sha512(place: &Place, file: &str) -> String {
    kms_sig::digest::Digest::of(&place.read(file)).to_string()
}
