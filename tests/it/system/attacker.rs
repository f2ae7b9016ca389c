//! A hostile sender who races with the daemon: thousands of times, as another user, with every
//! means that a user has who owns the watched directory. Whatever it does, what is delivered is
//! what was signed, whole and under its own name at any moment; nothing outside the directory
//! changes; nobody's file is lost; the daemon lives and serves the next honest pair.
//!
//! Bounded by counts, not by time. What one attack may do at most is said at each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
    symlink,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kms_sig::digest::Digest;
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::files::all_names;
use crate::support::mapping::Mapping;
use crate::support::place::name;
use crate::support::policy::with;
use crate::support::site::{Leases, Site, files_below, quick, write};
use crate::support::user::{DAEMON, OTHER, SENDER};

// What holds whatever is tried

/// What may be delivered: by path below the destination, each signature and the digest that it
/// stands for.
#[derive(Default)]
struct Ledger(Mutex<HashMap<PathBuf, HashMap<Vec<u8>, String>>>);

/// A pair that a trusted key has signed.
struct Pair {
    path: PathBuf,
    content: Vec<u8>,
    signature: Vec<u8>,
}

/// A daemon at work in a site, with somebody who keeps looking at what it delivers.
struct Arena {
    site: Site,
    daemon: Daemon,
    ledger: Arc<Ledger>,
    canaries: BTreeMap<PathBuf, Canary>,
    observer: Observer,
}

/// What a file outside of the watched directory was.
type Canary = (u64, u32, u32, i64, Vec<u8>);

impl Arena {
    fn new(rules: &str, leases: Leases) -> Self {
        let site = Site::new(rules);
        Self::lay_canaries(&site);
        Self::of(site, leases)
    }

    /// Things outside that the daemon's user may read or even write to, and that a link could lead
    /// to.
    fn lay_canaries(site: &Site) {
        let shared = site.path("elsewhere");
        fs::create_dir(&shared).unwrap();
        chown(&shared, Some(SENDER.id), Some(7003)).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o2770)).unwrap();
        // A pair that would verify, and one that would not: both are none of the daemon's business
        // there.
        let signature = site.sign("x".as_ref(), b"not dropped");
        for (name, bytes) in [("x", &b"not dropped"[..]), ("x.sig", &signature), ("y", b"y"), ("y.sig", b"y")]
        {
            fs::write(shared.join(name), bytes).unwrap();
            chown(shared.join(name), Some(SENDER.id), Some(7003)).unwrap();
            fs::set_permissions(shared.join(name), Permissions::from_mode(0o660)).unwrap();
        }
        fs::write(site.path("secret"), "the daemon may read this, and the senders may not").unwrap();
        fs::set_permissions(site.path("secret"), Permissions::from_mode(0o440)).unwrap();
        chown(site.path("secret"), Some(DAEMON.id), Some(DAEMON.id)).unwrap();
    }

    fn of(site: Site, leases: Leases) -> Self {
        let canaries = canaries(&site);
        let daemon = site.start(leases);
        let ledger = Arc::new(Ledger::default());
        let observer = Observer::start(site.path("out"), Arc::clone(&ledger));
        Self { site, daemon, ledger, canaries, observer }
    }

    /// Expects that a pair may be delivered under another path as well.
    fn or_else_as(&self, path: PathBuf, pair: &Pair) {
        let digest = Digest::of(&pair.content).to_string();
        let mut ledger = self.ledger.0.lock().unwrap();
        ledger.entry(path).or_default().insert(pair.signature.clone(), digest);
    }

    /// Has content signed for a name, and expects that it may be delivered there.
    fn pair(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Pair {
        let (path, content) = (path.as_ref().to_owned(), content.into());
        let signature = self.site.sign(path.file_name().unwrap(), &content);
        let digest = Digest::of(&content).to_string();
        let mut ledger = self.ledger.0.lock().unwrap();
        ledger.entry(path.clone()).or_default().insert(signature.clone(), digest);
        Pair { path, content, signature }
    }

    fn root(&self) -> PathBuf {
        self.site.path("in")
    }

    fn is_delivered(&self, path: &Path) -> bool {
        self.site.path("out").join(path).exists()
    }

    /// Everything that lies anywhere in these directories, as digests with their places.
    fn contents_of(&self, dirs: &[&str]) -> HashMap<String, Vec<PathBuf>> {
        let mut contents: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for path in dirs.iter().flat_map(|dir| files_below(&self.site.path(dir))) {
            contents.entry(digest_of(&path)).or_default().push(path);
        }
        contents
    }

    /// Every record in quarantine is about what lies beside it.
    #[track_caller]
    fn records_are_honest(&self) -> usize {
        let items: Vec<_> = fs::read_dir(self.site.path("q")).unwrap().map(|e| e.unwrap().path()).collect();
        for item in &items {
            let record: Value = serde_json::from_slice(&fs::read(item.join("record.json")).unwrap()).unwrap();
            let payload = fs::symlink_metadata(item.join("payload"));
            assert!(payload.is_ok_and(|there| there.is_file()), "no file in {}: {record}", item.display());
            assert_eq!(record["digest"], digest_of(&item.join("payload")), "{record}");
            if let Some(digest) = record["signature_digest"].as_str() {
                assert_eq!(digest, digest_of(&item.join("payload.sig")), "{record}");
            }
        }
        items.len()
    }

    /// The honest sender's turn: a last pair arrives, everything that must hold has held, and the
    /// daemon ends well.
    #[track_caller]
    fn finish(self) -> Finished {
        let last = self.pair("the-last-one", "content");
        SENDER.run(|| last.drop_into(&self.root()));
        self.daemon.until("delivered the last pair", || {
            self.is_delivered(&last.path) && !self.root().join(&last.path).exists()
        });
        let samples = self.observer.stop();
        let delivered = inspect(&self.site.path("out"), &self.ledger, &mut HashMap::new());
        assert!(samples > 0, "nobody looked");
        let now = canaries(&self.site);
        assert!(now == self.canaries, "outside: {:?}\nbecame {:?}", self.canaries.keys(), now.keys());
        self.site.is_out_of_reach();
        for said in ["BUG: ", "panicked at "] {
            assert!(!self.daemon.said(said), "the log has {said:?}");
        }
        assert_eq!(self.daemon.stop().code(), Some(0));
        Finished { delivered, _site: self.site }
    }
}

/// What is left of an arena, to be asked.
struct Finished {
    /// Payloads, the last pair's included.
    delivered: usize,
    _site: Site,
}

impl Pair {
    fn payload(&self, root: &Path) -> PathBuf {
        root.join(&self.path)
    }

    fn signature(&self, root: &Path) -> PathBuf {
        let mut path = self.payload(root).into_os_string();
        path.push(".sig");
        path.into()
    }

    /// As a good sender does: the payload first, each under its name when it is whole.
    fn drop_into(&self, root: &Path) {
        write(&self.payload(root), &self.content);
        write(&self.signature(root), &self.signature);
    }
}

/// Somebody who looks at the destination without a pause.
struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Observer {
    fn start(out: PathBuf, ledger: Arc<Ledger>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut samples) = (HashMap::new(), 0);
            while !until.load(Ordering::Relaxed) {
                inspect(&out, &ledger, &mut seen);
                samples += 1;
                std::thread::yield_now();
            }
            samples
        });
        Self { stop, thread: Some(thread) }
    }

    /// Returns how often it has looked.
    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Observer {
    /// A test that has failed: nobody looks at directories that go away.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Looks at everything below the destination. What was looked at before and is the same file by its
/// times is not read again. Returns how many payloads there are.
#[track_caller]
fn inspect(out: &Path, ledger: &Ledger, seen: &mut HashMap<PathBuf, (u64, i64, i64)>) -> usize {
    let mut payloads = 0;
    for path in files_below(out) {
        let shown = path.display();
        let is_signature = path.extension() == Some(OsStr::new("sig"));
        payloads += usize::from(!is_signature);
        let there = fs::symlink_metadata(&path).unwrap();
        let version = (there.ino(), there.ctime(), there.ctime_nsec());
        if seen.insert(path.clone(), version) == Some(version) {
            continue;
        }
        assert!(there.is_file(), "{shown} is no file");
        assert_eq!((there.uid(), there.mode() & 0o7777), (DAEMON.id, 0o644), "{shown}");
        let below = path.strip_prefix(out).unwrap();
        let name = if is_signature { below.with_extension("") } else { below.to_owned() };
        let ledger = ledger.0.lock().unwrap();
        let legal = ledger.get(&name).unwrap_or_else(|| panic!("{shown} was never signed"));
        let mut signature = out.join(&name).into_os_string();
        signature.push(".sig");
        let bytes = fs::read(&signature).unwrap_or_else(|e| panic!("{shown} has no signature: {e}"));
        let digest = legal.get(&bytes).unwrap_or_else(|| panic!("{shown}: no such signature was made"));
        if !is_signature {
            assert_eq!(&digest_of(&path), digest, "{shown} is not what its signature stands for");
        }
    }
    payloads
}

fn digest_of(path: &Path) -> String {
    Digest::of(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).to_string()
}

fn canaries(site: &Site) -> BTreeMap<PathBuf, Canary> {
    let mut paths = files_below(&site.path("elsewhere"));
    paths.extend(["elsewhere", "secret", "keyring", "policy.toml", "in2"].map(|name| site.path(name)));
    let examine = |path: PathBuf| {
        let there = fs::symlink_metadata(&path).unwrap();
        let content = if there.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        (path, (there.ino(), there.mode(), there.uid(), there.mtime_nsec(), content))
    };
    paths.into_iter().map(examine).collect()
}

/// Swaps two names in one step; `false` if either is missing.
fn exchange(a: &Path, b: &Path) -> bool {
    match rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(e) => panic!("{} and {}: {e}", a.display(), b.display()),
    }
}

/// Content that no other file has.
fn unique(what: &str, number: usize, size: usize) -> Vec<u8> {
    let mut content = format!("{what} {number}\n").into_bytes();
    content.resize(size.max(content.len()), b'.');
    content
}

/// A different pause each time, so that what follows meets the daemon everywhere on its way: some
/// microseconds.
fn stumble(number: usize) {
    for _ in 0..(number * 7919) % 20_000 {
        std::hint::spin_loop();
    }
}

// Attacks on what is delivered

/// Bytes are changed under the daemon's hands and changed back, by write(2) with the times set
/// back, or through a mapping alone, which needs no system call and touches no time; and when it is
/// delivered they are changed on. 80 files with 200 changes each, through descriptors and mappings
/// that stay open all along.
fn bytes_change(leases: Leases) {
    // Long, so that none is given up for bad while it is under attack: in the end every one is as
    // it was signed.
    let arena = Arena::new(&with(&quick(), "grace = \"1h\""), leases);
    let root = arena.root();
    for number in 0..80 {
        let pair = arena.pair(format!("f{number}"), unique("good", number, 600_000));
        SENDER.run(|| {
            // Open before the daemon can see it.
            let hidden = root.join(".hidden");
            write(&hidden, &pair.content);
            let file = File::options().read(true).write(true).open(&hidden).unwrap();
            let (mapping, before) = (Mapping::of(&file), file.metadata().unwrap().modified().unwrap());
            write(&pair.signature(&root), &pair.signature);
            fs::rename(&hidden, pair.payload(&root)).unwrap();
            for round in 0..200 {
                // Never the same place, and the end too, which is copied last.
                let at = (round * 9973 + 599_999) % 600_000;
                for byte in [b'!', pair.content[at]] {
                    if number % 2 == 0 {
                        mapping.store(at, byte);
                    } else {
                        file.write_all_at(&[byte], at as u64).unwrap();
                        file.set_modified(before).unwrap();
                    }
                    stumble(round);
                }
            }
            // What is stored through a mapping changes no time, so a pair that was found bad before
            // must change once more to be looked at again before its grace is over; now and then,
            // so that it can be copied in between.
            let looks = std::cell::Cell::new(0);
            arena.daemon.until("delivered it", || {
                if looks.replace(looks.get() + 1) % 40 == 0 {
                    file.set_permissions(Permissions::from_mode(0o640)).unwrap();
                }
                arena.is_delivered(&pair.path)
            });
            file.write_all_at(b"evil", 0).unwrap();
            mapping.store(599_999, b'!');
        });
    }
    assert_eq!(arena.finish().delivered, 81);
}

#[test]
fn a6_s5_p3_bytes_that_change_while_they_are_copied() {
    bytes_change(Leases::Granted);
}

#[test]
fn a6_s5_p3_bytes_that_change_where_nobody_tells_of_writers() {
    bytes_change(Leases::Unavailable);
}

/// Payload and signature are exchanged with other files, again and again, and the names that get
/// free are taken at once. 300 pairs with up to 60 exchanges each. Every file has content of its
/// own, so none can go missing unseen.
#[test]
fn a23_files_that_are_exchanged_are_judged_as_what_they_are_and_none_is_lost() {
    let arena = Arena::new(&with(&quick(), "signature_timeout = \"20ms\""), Leases::Granted);
    let root = arena.root();
    let (mut all, mut exchanges) = (HashSet::new(), 0);
    for number in 0..300 {
        // Every other one begins as a bad pair, so that the daemon is met on its way to quarantine
        // as well.
        let pair = arena.pair(format!("f{number}"), unique("good", number, 5_000));
        let (evil, late) = (unique("evil", number, 5_000), unique("late", number, 5_000));
        // Too long to be a signature: thousands that KMS rejects would put the brake on, which is
        // another story.
        let garbage = unique("garbage", number, 7_000);
        all.extend([&pair.content, &evil, &late].map(|content| Digest::of(content).to_string()));
        exchanges += SENDER.run(|| {
            let (payload, signature) = (pair.payload(&root), pair.signature(&root));
            let hidden = |what: &str| root.join(format!(".{what}-{number}"));
            write(&hidden("evil"), &evil);
            write(&hidden("late"), &late);
            write(&hidden("garbage"), &garbage);
            pair.drop_into(&root);
            if number % 2 == 0 {
                exchange(&payload, &hidden("evil"));
            }
            let mut exchanges = 0;
            for round in 0..60 {
                stumble(round + number);
                if !exchange(&payload, &hidden("evil")) {
                    // In somebody's hands. What is put there now must not be taken for it, and is
                    // in its way back.
                    let there =
                        rustix::fs::renameat_with(CWD, hidden("late"), CWD, &payload, RenameFlags::NOREPLACE);
                    assert!(matches!(there, Ok(()) | Err(Errno::EXIST | Errno::NOENT)), "{there:?}");
                }
                if round % 7 == 0 {
                    exchange(&signature, &hidden("garbage"));
                }
                exchanges += 1;
            }
            exchanges
        });
    }
    assert_eq!(exchanges, 18_000);
    comes_to_rest(&arena);
    let there = arena.contents_of(&["in", "out", "q"]);
    let lost: Vec<_> = all.iter().filter(|digest| !there.contains_key(*digest)).collect();
    assert!(lost.is_empty(), "{} of {} files are lost", lost.len(), all.len());
    assert!(arena.records_are_honest() > 100);
    assert!(arena.finish().delivered > 10);
}

/// A bad file is left alone for just as long as it takes to be condemned, and then exchanged with
/// an innocent one while it is being put away; the name is taken again at once. 400 times, a little
/// later after each time that was before the move and a little sooner after each that was not, so
/// that both are met however quick the machine is. Nothing lies in quarantine under the record of
/// another file, and nobody's file is lost.
#[test]
fn a19_what_takes_a_condemned_files_place_is_not_condemned_for_it() {
    let rule = with(&with(&quick(), "grace = \"1ms\""), "signature_timeout = \"1ms\"");
    let arena = Arena::new(&rule, Leases::Granted);
    let root = arena.root();
    let (mut all, mut met) = (HashSet::new(), 0);
    let mut delay = std::time::Duration::from_micros(50);
    for number in 0..400 {
        // Its signature is genuine, and stands for other bytes: a mismatch, which never puts the
        // brake on.
        let pair = arena.pair(format!("f{number}"), unique("good", number, 5_000));
        let files = ["evil", "innocent", "late"].map(|what| unique(what, number, 5_000));
        all.extend(files.iter().map(|content| Digest::of(content).to_string()));
        let is_met = SENDER.run(|| {
            let (payload, signature) = (pair.payload(&root), pair.signature(&root));
            let [evil, innocent, late] = &files;
            let [hidden, later] = ["innocent", "late"].map(|what| root.join(format!(".{what}-{number}")));
            write(&hidden, innocent);
            write(&later, late);
            write(&signature, &pair.signature);
            write(&payload, evil);
            std::thread::sleep(delay);
            let is_met = exchange(&payload, &hidden);
            for _ in 0..200 {
                let free = rustix::fs::renameat_with(CWD, &later, CWD, &payload, RenameFlags::NOREPLACE);
                if !matches!(free, Err(Errno::EXIST)) {
                    break;
                }
                stumble(number);
            }
            is_met
        });
        met += usize::from(is_met);
        delay = if is_met { delay * 9 / 8 } else { delay * 7 / 8 };
    }
    assert!((1..400).contains(&met), "{met} of 400 were exchanged in time: not from before to after");
    comes_to_rest(&arena);
    let there = arena.contents_of(&["in", "out", "q"]);
    let lost: Vec<_> = all.iter().filter(|digest| !there.contains_key(*digest)).collect();
    assert!(lost.is_empty(), "{} of {} files are lost", lost.len(), all.len());
    assert!(arena.records_are_honest() >= 400);
    arena.finish();
}

/// Waits until nothing more comes of what was done: what still lies there is hidden; what waited
/// because its name was taken is back (a scan brings it, and a reload makes one come at once) and
/// judged; nothing is in hand.
#[track_caller]
fn comes_to_rest(arena: &Arena) {
    let root = arena.root();
    let is_dealt_with =
        |name: &OsStr| name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(b".sig");
    for reload in 1..=3 {
        arena.daemon.until("dealt with everything", || {
            fs::read_dir(&root).unwrap().all(|entry| is_dealt_with(&entry.unwrap().file_name()))
        });
        arena.daemon.hang_up();
        arena.daemon.waits_for_nth("policy reloaded", reload);
        let is_back = || !root.join(".kms-sig").exists();
        arena.daemon.until("brought everything back", is_back);
    }
}

/// A directory takes the payload's place: 150 times, with files in it that are nobody's to move.
#[test]
fn a_directory_in_the_payloads_place_comes_back_with_all_that_is_in_it() {
    let arena = Arena::new(&quick(), Leases::Granted);
    let root = arena.root();
    for number in 0..150 {
        let pair = arena.pair(format!("f{number}"), unique("good", number, 5_000));
        SENDER.run(|| {
            let hidden = root.join(format!(".d{number}"));
            fs::create_dir(&hidden).unwrap();
            // Others may write to it, or it could not be moved.
            fs::set_permissions(&hidden, Permissions::from_mode(0o2770)).unwrap();
            write(&hidden.join("mine"), &unique("mine", number, 0));
            pair.drop_into(&root);
            if number % 2 == 0 {
                write(&pair.payload(&root), b"not what was signed");
            }
            for round in 0..61 {
                stumble(round * 3 + number);
                exchange(&pair.payload(&root), &hidden);
            }
        });
    }
    let mine = || {
        let below = files_below(&root);
        below.iter().filter(|path| path.ends_with("mine") && !path.starts_with(root.join(".kms-sig"))).count()
    };
    arena.daemon.until("all directories are back", || mine() == 150);
    assert!(files_below(&arena.site.path("q")).iter().all(|path| !path.ends_with("mine")));
    arena.finish();
}

// Attacks on where things lie

/// A subdirectory is exchanged with a link, to another directory of the sender's, to the daemon's
/// own state and to where it delivers, while pairs arrive in it: 300 pairs with up to 40 exchanges
/// each.
#[test]
fn p9_a_subdirectory_that_becomes_a_link_leads_nowhere() {
    let arena = Arena::new(&with(&quick(), "recursive = true"), Leases::Granted);
    let root = arena.root();
    let (sub, links) = (root.join("sub"), ["../elsewhere", "../state", "../out", "/etc"]);
    SENDER.run(|| {
        for (number, to) in links.iter().enumerate() {
            symlink(to, root.join(format!(".link{number}"))).unwrap();
        }
        fs::create_dir(&sub).unwrap();
        fs::set_permissions(&sub, Permissions::from_mode(0o2770)).unwrap();
        fs::create_dir(sub.join("deeper")).unwrap();
        fs::set_permissions(sub.join("deeper"), Permissions::from_mode(0o2770)).unwrap();
    });
    let mut pairs = Vec::new();
    for number in 0..300 {
        let below = if number % 2 == 0 { "" } else { "deeper" };
        let name = Path::new(below).join(format!("f{number}"));
        let pair = arena.pair(Path::new("sub").join(&name), unique("good", number, 20_000));
        // The directory itself gets about, and what is in it is judged where it is: the rule binds
        // only the name.
        let elsewhere: Vec<_> = (0..4).map(|n| Path::new(&format!(".link{n}")).join(&name)).collect();
        elsewhere.iter().for_each(|path| arena.or_else_as(path.clone(), &pair));
        SENDER.run(|| {
            pair.drop_into(&root);
            // By its true name, wherever the link stands at the time.
            let link = root.join(format!(".link{}", number % links.len()));
            for round in 0..40 {
                stumble(round + number);
                assert!(exchange(&sub, &link));
            }
        });
        pairs.push([vec![pair.path], elsewhere].concat());
    }
    arena.daemon.until("delivered all", || {
        pairs.iter().all(|paths| paths.iter().any(|path| arena.is_delivered(path)))
    });
    assert_eq!(fs::read_dir(arena.site.path("q")).unwrap().count(), 0);
    assert!(arena.finish().delivered >= 301);
}

/// The way to the root is the sender's, too: what it owns there becomes a link to the daemon's own
/// directories.
#[test]
fn p9_a_link_of_the_senders_on_the_way_to_the_root_is_not_followed() {
    let site = Site::new(&with(&quick(), "path = \"home/drop/out\""));
    Arena::lay_canaries(&site);
    for dir in ["home", "home/drop", "home/drop/out"] {
        fs::create_dir(site.path(dir)).unwrap();
        chown(site.path(dir), Some(SENDER.id), Some(7003)).unwrap();
        fs::set_permissions(site.path(dir), Permissions::from_mode(0o2775)).unwrap();
    }
    // What the daemon keeps for itself: without a signature it would be quarantined there.
    for dir in ["private", "private/out"] {
        fs::create_dir(site.path(dir)).unwrap();
        chown(site.path(dir), Some(DAEMON.id), Some(DAEMON.id)).unwrap();
        fs::set_permissions(site.path(dir), Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(site.path("private/out/kept"), "content").unwrap();
    chown(site.path("private/out/kept"), Some(DAEMON.id), Some(DAEMON.id)).unwrap();
    SENDER.run(|| {
        symlink("../private", site.path("home/link")).unwrap();
        assert!(exchange(&site.path("home/drop"), &site.path("home/link")));
    });
    let daemon = site.start(Leases::Granted);
    let reason = daemon.waits_for("held: the rule cannot work")["reason"].to_string();
    assert!(reason.contains("is a symbolic link of user 7002"), "{reason}");
    // Back and forth while it looks: whichever it meets, it is the directory or nothing.
    let signature = site.sign("good".as_ref(), b"content");
    for _ in 0..20 {
        daemon.hang_up();
        SENDER.run(|| {
            for round in 0..100 {
                assert!(exchange(&site.path("home/drop"), &site.path("home/link")));
                stumble(round);
            }
        });
    }
    SENDER.run(|| {
        assert!(exchange(&site.path("home/drop"), &site.path("home/link")));
        let drop = site.path("home/drop/out");
        write(&drop.join("good"), b"content");
        write(&drop.join("good.sig"), &signature);
    });
    daemon.until("delivered", || site.path("out/good").exists());
    let kept: Vec<_> = files_below(&site.path("private"));
    assert_eq!(kept, [site.path("private/out/kept")]);
    assert_eq!(fs::read_dir(site.path("q")).unwrap().count(), 0);
}

/// Something of the sender's own has the name of the daemon's folder, before the start and while it
/// runs.
#[test]
fn a19_a_planted_folder_of_claims_stops_nothing_and_leads_nowhere() {
    let other = with(&with(&quick(), "name = \"other\""), "path = \"in2\"");
    let site = Site::new(&format!("{}{other}", quick()));
    let planted = site.path("in/.kms-sig");
    let plant: [fn(&Path); 3] = [
        |path| symlink("../state", path).unwrap(),
        |path| write(path, b"a file"),
        |path| fs::create_dir(path).unwrap(),
    ];
    for (number, plant) in plant.into_iter().enumerate() {
        SENDER.run(|| plant(&planted));
        let was = fs::symlink_metadata(&planted).unwrap().ino();
        let daemon = site.start(Leases::Granted);
        let told = "something that is not the daemon's has the name .kms-sig in the watched directory; using another name";
        assert_eq!(daemon.waits_for(told)["rule"], "verify");
        for (user, dir) in [(SENDER, "in"), (OTHER, "in2")] {
            let name = format!("{dir}-{number}");
            let signature = site.sign(name.as_ref(), b"content");
            user.run(|| {
                write(&site.path(dir).join(&name), b"content");
                write(&site.path(dir).join(format!("{name}.sig")), &signature);
            });
            daemon.until("delivered", || {
                site.path("out").join(&name).exists() && !site.path(dir).join(&name).exists()
            });
        }
        let left = || all_names(&site.path("in"));
        daemon.until("left only what was planted", || left() == [".kms-sig"]);
        assert_eq!(fs::symlink_metadata(&planted).unwrap().ino(), was);
        assert_eq!(daemon.stop().code(), Some(0));
        SENDER.run(|| fs::remove_file(&planted).or_else(|_| fs::remove_dir(&planted)).unwrap());
    }
    // While it runs: exchanged with links and with what the daemon itself had made, 150 pairs long.
    let site = Site::new(&quick());
    Arena::lay_canaries(&site);
    let arena = Arena::of(site, Leases::Granted);
    let root = arena.root();
    SENDER.run(|| {
        symlink("../elsewhere", root.join(".link")).unwrap();
        fs::create_dir(root.join(".dir")).unwrap();
    });
    let mut pairs = Vec::new();
    for number in 0..150 {
        let pair = arena.pair(format!("f{number}"), unique("good", number, 5_000));
        SENDER.run(|| {
            pair.drop_into(&root);
            for round in 0..40 {
                let with = if (number + round) % 3 == 0 { ".dir" } else { ".link" };
                stumble(round + number);
                exchange(&root.join(".kms-sig"), &root.join(with));
            }
        });
        pairs.push(pair);
    }
    // Whatever the daemon had made is wherever the sender has put it, and is no candidate.
    arena.daemon.until("delivered all", || pairs.iter().all(|pair| arena.is_delivered(&pair.path)));
    assert_eq!(fs::read_dir(arena.site.path("q")).unwrap().count(), 0);
    assert_eq!(arena.finish().delivered, 151);
}

/// The mode and group of a file change all the time: 100 pairs, 60 changes each. What can be read
/// in the end is delivered, with the daemon's mode.
#[test]
fn a17_a25_modes_that_change_all_the_time() {
    let arena = Arena::new(&quick(), Leases::Granted);
    let root = arena.root();
    let mut pairs = Vec::new();
    for number in 0..100 {
        let pair = arena.pair(format!("f{number}"), unique("good", number, 20_000));
        SENDER.run(|| {
            pair.drop_into(&root);
            let file = File::open(pair.payload(&root)).ok();
            for round in 0..60 {
                let Some(file) = &file else { break };
                stumble(round + number);
                let mode = [0o000, 0o6770, 0o660, 0o1777, 0o2644][round % 5];
                file.set_permissions(Permissions::from_mode(mode)).unwrap();
                std::os::unix::fs::fchown(file, None, Some([7002, 7003][round % 2])).unwrap();
            }
            if let Some(file) = &file {
                std::os::unix::fs::fchown(file, None, Some(7003)).unwrap();
                file.set_permissions(Permissions::from_mode(0o660)).unwrap();
            }
        });
        pairs.push(pair);
    }
    arena.daemon.until("delivered all", || pairs.iter().all(|pair| arena.is_delivered(&pair.path)));
    assert_eq!(fs::read_dir(arena.site.path("q")).unwrap().count(), 0);
    assert_eq!(arena.finish().delivered, 101);
}

// Attacks by what things are

/// Everything that is no plain file, and what looks like one: first lying there, then exchanged
/// with a good payload and its signature, 40 times each.
#[test]
fn a1_a2_a5_a8_a9_a25_what_is_no_plain_file_takes_the_place_of_one() {
    let rule = with(&with(&quick(), "max_size = \"1MiB\""), "on_missing = \"log\"");
    let arena = Arena::new(&rule, Leases::Granted);
    let root = arena.root();
    let hidden = |what: &str| root.join(format!(".{what}"));
    SENDER.run(|| {
        symlink("../secret", hidden("link")).unwrap();
        symlink("../elsewhere/x", hidden("link-of-its-own")).unwrap();
        rustix::fs::mknodat(CWD, hidden("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        rustix::fs::mknodat(CWD, hidden("socket"), FileType::Socket, Mode::from_raw_mode(0o666), 0).unwrap();
        File::create(hidden("sparse")).unwrap().set_len(1 << 40).unwrap();
        write(&hidden("setuid"), b"setuid");
        fs::set_permissions(hidden("setuid"), Permissions::from_mode(0o6755)).unwrap();
        write(&hidden("two-names"), b"two names");
        fs::hard_link(hidden("two-names"), hidden("two-names.again")).unwrap();
    });
    // What only root can make: a device, and a second name of another user's file
    // (fs.protected_hardlinks).
    let null = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, hidden("device"), FileType::CharacterDevice, mode, null).unwrap();
    fs::hard_link(arena.site.path("secret"), hidden("foreign")).unwrap();
    let kinds =
        ["link", "link-of-its-own", "fifo", "socket", "sparse", "setuid", "two-names", "device", "foreign"];
    SENDER.run(|| {
        for kind in kinds {
            fs::rename(hidden(kind), root.join(kind)).unwrap();
        }
    });
    arena.daemon.waits_for_nth("refused", kinds.len());
    SENDER.run(|| {
        for kind in kinds {
            fs::rename(root.join(kind), hidden(kind)).unwrap();
        }
    });
    for number in 0..40 * kinds.len() {
        let pair = arena.pair(format!("f{number}"), unique("good", number, 20_000));
        let odd = hidden(kinds[number % kinds.len()]);
        SENDER.run(|| {
            pair.drop_into(&root);
            let victim = if number % 2 == 0 { pair.payload(&root) } else { pair.signature(&root) };
            for round in 0..30 {
                stumble(round + number);
                if !exchange(&victim, &odd) {
                    break;
                }
                // Nobody ever opens the FIFO to read: then a writer would find a reader (fifo(7)).
                for place in [&odd, &victim] {
                    let writer = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(place);
                    let is_fifo = writer.is_ok_and(|it| it.metadata().unwrap().file_type().is_fifo());
                    assert!(!is_fifo, "somebody has opened the FIFO");
                }
            }
            if fs::symlink_metadata(&odd).unwrap().len() == 20_000 {
                exchange(&victim, &odd);
            }
        });
    }
    let secret = fs::metadata(arena.site.path("secret")).unwrap();
    assert_eq!((secret.mode() & 0o7777, secret.uid(), secret.nlink()), (0o440, DAEMON.id, 2));
    assert!(arena.finish().delivered > 20);
}

/// A file that grows without end, and one that is cut short again and again: nothing is kept of
/// what was copied, and no more than `max_size` is read.
#[test]
fn a10_a_file_that_grows_all_the_time_takes_no_room() {
    let arena = Arena::new(&with(&quick(), "max_size = \"4MiB\""), Leases::Unavailable);
    let root = arena.root();
    let pair = arena.pair("grows", unique("good", 0, 2_000_000));
    SENDER.run(|| {
        pair.drop_into(&root);
        let mut file = File::options().append(true).open(pair.payload(&root)).unwrap();
        for round in 0..3_000 {
            if round % 2 == 0 {
                file.write_all(&[b'+'; 1_000]).unwrap();
            } else {
                file.set_len(1_000_000).unwrap();
            }
            stumble(round);
        }
        for _ in 0..100 {
            file.write_all(&[b'+'; 100_000]).unwrap();
        }
    });
    let reason = arena.daemon.waits_for("refused")["reason"].to_string();
    assert!(reason.contains("max_size allows 4194304"), "{reason}");
    let no_copy_left = || {
        let open = fs::read_dir(format!("/proc/{}/fd", arena.daemon.pid())).unwrap();
        let links = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|link| link.starts_with(arena.site.path("out"))).all(|link| link.is_dir())
    };
    arena.daemon.until("given back all room", no_copy_left);
    assert_eq!(arena.finish().delivered, 1);
}

/// Names that mean something to a terminal, a log, a shell or a file system.
#[test]
fn a13_a14_p9_hostile_names_from_another_user() {
    let arena = Arena::new(&quick(), Leases::Granted);
    let root = arena.root();
    let longest = [b'n'; 251];
    let names: [&[u8]; 8] =
        [b"a\nb", b"\x1b[31mred", b"not utf-8 \xff", b"-rf", b"x..", b"$(reboot)", b"{name} 100%", &longest];
    let pairs: Vec<_> = names.map(|bytes| arena.pair(name(bytes), unique("good", bytes.len(), 0))).into();
    SENDER.run(|| {
        pairs.iter().for_each(|pair| pair.drop_into(&root));
        write(&root.join(name(&[b'n'; 252])), b"no room for .sig");
        write(&root.join("a.sig.sig"), b"a signature of a signature");
    });
    arena.daemon.until("delivered all", || pairs.iter().all(|pair| arena.is_delivered(&pair.path)));
    arena.daemon.waits_for_nth("refused", 2);
    arena.daemon.until("told, escaped once and then once more by JSON", || arena.daemon.said("a\\\\x0ab"));
    assert_eq!(arena.finish().delivered, 1 + pairs.len());
}

/// Two good pairs whose signatures are exchanged, and one under another name: genuine, and not for
/// that name.
#[test]
fn a23_good_signatures_of_other_names_are_rejected() {
    let arena = Arena::new(&quick(), Leases::Granted);
    let root = arena.root();
    let pairs = ["a", "b", "c"].map(|name| arena.pair(name, unique(name, 0, 0)));
    SENDER.run(|| {
        let [a, b, c] = &pairs;
        for (path, bytes) in
            [("a", &a.content), ("a.sig", &b.signature), ("b", &b.content), ("b.sig", &a.signature)]
        {
            write(&root.join(path), bytes);
        }
        write(&root.join("not-c"), &c.content);
        write(&root.join("not-c.sig"), &c.signature);
    });
    arena.daemon.waits_for_nth("quarantined", 3);
    assert_eq!(arena.records_are_honest(), 3);
    for item in fs::read_dir(arena.site.path("q")).unwrap() {
        let record = fs::read(item.unwrap().path().join("record.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&record).unwrap()["reason"], "rejected");
    }
    assert_eq!(arena.finish().delivered, 1);
}

// A11: one sender floods, another is served

/// What the flood consists of. The full million:
/// `KMS_SIG_MILLION=1 cargo test --features system-tests a11`; the default is more than there are
/// places in memory, which is where fairness is decided.
fn flood() -> usize {
    if std::env::var_os("KMS_SIG_MILLION").is_some() { 1_000_000 } else { 30_000 }
}

/// Most that a daemon may ever have had in memory, in KiB.
const MEMORY: u64 = 160 * 1024;

fn peak_memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Lays out a flood in `in` by `make`, then has another sender served while the daemon works on it.
fn another_is_served(rule: &str, make: impl Fn(&Path, usize) + Sync) -> (Site, Daemon) {
    let other = with(&with(&quick(), "name = \"other\""), "path = \"in2\"");
    let site = Site::new(&format!("{rule}{other}"));
    let daemon = site.start(Leases::Granted);
    let (root, count) = (site.path("in"), flood());
    // Several at once: one alone would be slower than the daemon.
    std::thread::scope(|scope| {
        for share in 0..4 {
            let (root, make) = (&root, &make);
            scope.spawn(move || {
                SENDER.become_it();
                (share..count).step_by(4).for_each(|number| make(root, number));
            });
        }
        for number in 0..20 {
            let name = format!("f{number}");
            let signature = site.sign(name.as_ref(), name.as_bytes());
            OTHER.run(|| {
                write(&site.path("in2").join(&name), name.as_bytes());
                write(&site.path("in2").join(format!("{name}.sig")), &signature);
            });
            daemon.until("delivered the other sender's", || site.path("out").join(&name).exists());
        }
    });
    (site, daemon)
}

#[test]
fn a11_a_flood_of_unsigned_files_delays_no_other_sender() {
    let (_site, daemon) = another_is_served(&quick(), |root, number| {
        fs::write(root.join(format!("{number}")), "").unwrap();
    });
    ends_well(daemon);
}

#[test]
fn a11_a_flood_of_bad_files_is_judged_while_another_sender_is_served() {
    let rule = with(&with(&quick(), "on_missing = \"log\""), "signature_timeout = \"1ms\"");
    let (_site, daemon) = another_is_served(&rule, |root, number| {
        fs::write(root.join(format!("{number}")), "").unwrap();
    });
    let judged = daemon.count("invalid");
    assert!(judged < flood(), "the flood had ended; nobody was delayed by it");
    assert!(judged > 0, "the flood had not begun");
    ends_well(daemon);
}

/// Links are made more quickly than files, and each is refused.
#[test]
fn a11_a_flood_of_refusals_is_told_in_part_and_counted() {
    let (site, daemon) = another_is_served(&quick(), |root, number| {
        symlink("nowhere", root.join(format!("{number}"))).unwrap();
    });
    let refused = || {
        let query = "SELECT count(*) FROM decided WHERE rule = 'verify'";
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let state = rusqlite::Connection::open_with_flags(site.path("state/state.db"), flags).unwrap();
        state.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as usize
    };
    // However long all of them take on a busy machine: a thousand more must always come in time.
    while refused() < flood() {
        let next = flood().min(refused() + 1000);
        daemon.until("refused a thousand more", || refused() >= next);
    }
    // A hundred in a minute, and however many minutes it took.
    let (told, counted) =
        (daemon.count("refused"), daemon.count("more files were refused in a minute than are logged"));
    assert!((100..=100 * (counted + 1)).contains(&told), "{told} told, {counted} minutes counted");
    ends_well(daemon);
    // A thousand in an hour are on record, and a count of the others.
    let state = rusqlite::Connection::open(site.path("state/state.db")).unwrap();
    let rows = |query: &str| state.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    assert_eq!(rows("SELECT count(*) FROM history WHERE outcome = 'refused'"), 1001);
    let counted = format!("more-refused count={}", flood() - 1000);
    assert_eq!(rows(&format!("SELECT count(*) FROM history WHERE reason = '{counted}'")), 1);
}

/// More pairs than there are places, with the longest paths that are followed.
#[test]
fn a11_a12_p10_the_longest_paths_take_no_more_memory_than_is_promised() {
    let other = with(&with(&quick(), "name = \"other\""), "path = \"in2\"");
    let site = Site::new(&format!("{}{other}", with(&quick(), "recursive = true")));
    SENDER.run(|| {
        let deepest: PathBuf = std::iter::repeat_n("d".repeat(200), 4).collect();
        fs::create_dir_all(site.path("in").join(&deepest)).unwrap();
        for number in 0..22_000 {
            // Ten share each directory.
            let dir = site.path("in").join(&deepest).join(format!("{:n<200}", number / 10));
            if number % 10 == 0 {
                fs::create_dir(&dir).unwrap();
            }
            File::create(dir.join(format!("{number:f>251}"))).unwrap();
        }
    });
    // Ready is who has looked at everything.
    let daemon = site.start(Leases::Granted);
    let signature = site.sign("good".as_ref(), b"content");
    OTHER.run(|| {
        write(&site.path("in2/good"), b"content");
        write(&site.path("in2/good.sig"), &signature);
    });
    daemon.until("delivered the other sender's", || site.path("out/good").exists());
    ends_well(daemon);
}

#[track_caller]
fn ends_well(daemon: Daemon) {
    let peak = peak_memory(&daemon);
    eprintln!("at most {peak} KiB in memory");
    assert!(peak <= MEMORY, "{peak} KiB");
    assert_eq!(daemon.stop().code(), Some(0));
}
