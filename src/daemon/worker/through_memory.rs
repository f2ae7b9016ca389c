//! The worker and the pipeline on an in-memory source and sink: versioned objects, a queue with
//! duplicate hints, conditional writes, and other workers on the same objects. Proves that nothing
//! between source and sink depends on directories.

mod too_many;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::context::Context;
use crate::daemon::pipeline::Pipeline;
use crate::daemon::site::{Backend, Detached, Role, Site, Unattached};
use crate::daemon::status::Status;
use crate::daemon::summary::Summary;
use crate::daemon::worker::{ShutdownMode, Worker};
use crate::digest::set::DigestSet;
use crate::fair::Lanes;
use crate::hold::Hold;
use crate::key::KeyId;
use crate::kms::local::{Keyring, Local};
use crate::kms::throttle::KmsGate;
use crate::policy::{Policy, Rule};
use crate::signature::Format;
use crate::signing::Signer;
use crate::sink::memory::MemorySink;
use crate::source::memory::{Bucket, MemorySource, path};
use crate::state::{Outcome, State};

const KEY: &str = "local:demo";
const SIGN: &str = "mode = 'sign'\nkey = 'local:demo'";
const RELEASE: &str = "mode = 'sign'\nkey = 'local:demo'\ndeliver_to = 'out'";
const VERIFY: &str = "mode = 'verify'\ntrusted_keys = ['local:demo']\ndeliver_to = 'out'\n\
     on_invalid = 'quarantine'\non_missing = 'quarantine'\nsignature_timeout = '1s'\ngrace = '50ms'";
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// The backend under test.
struct Memory {
    source: Bucket,
    destination: Bucket,
    quarantine: Bucket,
    place: Arc<Place>,
}

/// Where a policy says that the objects are.
#[derive(Default)]
struct Place {
    /// How often a worker has attached.
    attached: AtomicUsize,
    /// Whether something else is there since.
    is_replaced: AtomicBool,
}

impl Backend for Memory {
    type Source = MemorySource;
    type Sink = MemorySink;

    fn attach(&self, rule: &Arc<Rule>) -> Result<Site<Self>, Unattached> {
        self.place.attached.fetch_add(1, Ordering::Relaxed);
        let source = MemorySource::new(Arc::clone(rule), self.source.clone());
        let sink = MemorySink {
            rule: Arc::clone(rule),
            source: self.source.clone(),
            destination: self.destination.clone(),
            quarantine: self.quarantine.clone(),
        };
        Ok(Site::new(rule, source, sink, None, false))
    }

    fn check(&self, _: &Site<Self>) -> Result<(), Detached> {
        match self.place.is_replaced.swap(false, Ordering::Relaxed) {
            true => Err(Detached::Replaced(Role::Source, "in".into())),
            false => Ok(()),
        }
    }

    fn room(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// A running worker with its state.
struct Running {
    shutdown: watch::Sender<ShutdownMode>,
    task: JoinHandle<Result<Summary, Hold>>,
    state: State,
}

/// One rule at its objects, and its workers by number.
struct World {
    runtime: Runtime,
    temp: tempfile::TempDir,
    rule: Arc<Rule>,
    source: Bucket,
    destination: Bucket,
    quarantine: Bucket,
    place: Arc<Place>,
    workers: BTreeMap<usize, Running>,
}

impl World {
    fn new(mode: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        Keyring::create_key(&temp.path().join("keyring"), &KEY.parse().unwrap()).unwrap();
        fs::copy(temp.path().join("keyring"), temp.path().join("keyring.kept")).unwrap();
        let policy = format!(
            "[state]\ndir = 'state'\n[local]\nkeyring = 'keyring'\n[quarantine]\ndir = 'q'\n[[watch]]\nname = 'm'\n\
             path = 'in'\ncontext = {{ file = '{{name}}' }}\nsettle = '10ms'\n{mode}\n"
        );
        let file = temp.path().join("policy.toml");
        fs::write(&file, policy).unwrap();
        let policy = Policy::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
            rule: Arc::clone(policy.rules.first().unwrap()),
            temp,
            source: Bucket::default(),
            destination: Bucket::default(),
            quarantine: Bucket::default(),
            place: Arc::default(),
            workers: BTreeMap::new(),
        }
    }

    fn start(&mut self, number: usize) {
        let _runtime = self.runtime.enter();
        let dir = self.temp.path().join(format!("state-{number}"));
        fs::create_dir_all(&dir).unwrap();
        let (state, _) = State::open(&dir).unwrap();
        let clock = Clock::start();
        let status = Arc::new(Status::new(clock));
        let kms = Local::new(self.temp.path().join("keyring"));
        let pipeline = Arc::new(Pipeline {
            kms: KmsGate::new(kms, 8, Some(1000), clock, Arc::clone(&status)),
            state: state.clone(),
            hashing: Lanes::new(2),
            hostname: "host".to_owned(),
            status,
            clock,
            dry_run: false,
        });
        let backend = Arc::new(Memory {
            source: self.source.clone(),
            destination: self.destination.clone(),
            quarantine: self.quarantine.clone(),
            place: Arc::clone(&self.place),
        });
        let (shutdown, modes) = watch::channel(ShutdownMode::Run);
        let (ready, _) = oneshot::channel();
        let worker = Worker::new(pipeline, backend, Arc::clone(&self.rule), false, 8, ready);
        let task = self.runtime.spawn(worker.run(modes));
        self.workers.insert(number, Running { shutdown, task, state });
    }

    /// Ends it at any step, like a kill.
    fn kill(&mut self, number: usize) {
        if let Some(worker) = self.workers.remove(&number) {
            worker.task.abort();
            self.runtime.block_on(worker.task).ok();
        }
    }

    /// Stops it in order, and checks that nothing panicked.
    fn stop(&mut self) {
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.shutdown.send_replace(ShutdownMode::Finish);
            self.runtime.block_on(worker.task).unwrap().unwrap();
        }
    }

    fn keys(&self, are_there: bool) {
        let at = |name: &str| self.temp.path().join(name);
        match are_there {
            true => drop(fs::copy(at("keyring.kept"), at("keyring")).unwrap()),
            false => fs::remove_file(at("keyring")).unwrap_or_default(),
        }
    }

    /// A signature made by the producer, who always has the keys.
    fn signature(&self, name: &str, content: &str) -> Vec<u8> {
        let (kms, key) = (Local::new(self.temp.path().join("keyring.kept")), KEY.parse::<KeyId>().unwrap());
        let context = Context::parse(&[format!("file={name}")]).unwrap();
        let digests = DigestSet::of(Format::Kms.digests(), content.as_bytes());
        let signed = self.runtime.block_on(Signer::new(&kms, &key).sign(&context, &digests)).unwrap();
        signed.signature.as_bytes().to_vec()
    }

    fn drop_pair(&self, name: &str, content: &str) {
        self.source.put(&path(&format!("{name}.sig")), &self.signature(name, content));
        self.source.put(&path(name), content.as_bytes());
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let clock = Clock::start();
        while !is_so() {
            assert!(clock.now() < PATIENCE, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn outcome(&self, number: usize, name: &str) -> Option<Outcome> {
        let state = &self.workers.get(&number).unwrap().state;
        self.runtime.block_on(state.remembered("m", &path(name))).unwrap().map(|row| row.outcome)
    }

    /// Whether the signature beside an object is valid for it.
    fn is_signed(&self, bucket: &Bucket, name: &str) -> bool {
        let (Some(payload), Some(signature)) =
            (bucket.get(&path(name)), bucket.get(&path(&format!("{name}.sig"))))
        else {
            return false;
        };
        let keys = [KEY.parse::<KeyId>().unwrap()];
        let kms = Local::new(self.temp.path().join("keyring.kept"));
        let verifier = crate::signing::Verifier::new(&kms, &keys, crate::signing::Formats::Any);
        let context = Context::parse(&[format!("file={name}")]).unwrap();
        let signature = crate::signature::Signature::parse(&signature.bytes).unwrap();
        let opened = self.runtime.block_on(verifier.open(&context, &signature)).unwrap();
        let digests = DigestSet::of(verifier.digests(), &payload.bytes);
        matches!(opened.judge(&digests).unwrap(), crate::signing::Verdict::Valid(_))
    }
}

fn text(bucket: &Bucket, name: &str) -> Option<String> {
    bucket.get(&path(name)).map(|object| String::from_utf8(object.bytes.to_vec()).unwrap())
}

#[test]
fn what_changes_by_being_read_is_left_alone_until_it_does_not() {
    let mut world = World::new(SIGN);
    // Longer than `settle`, as that of rclone is by default.
    world.source.write_back_after(Duration::from_millis(500));
    world.start(0);
    world.source.put(&path("f"), b"content");
    world.until("signed", || world.is_signed(&world.source, "f"));
    world.stop();
}

#[test]
fn what_lies_there_and_what_comes_is_signed_and_each_hint_acknowledged() {
    let mut world = World::new(SIGN);
    world.source.put(&path("old"), b"there before");
    world.source.lose_hints();
    world.start(0);
    world.source.repeat_hints(3);
    world.source.put(&path("new"), b"came later");
    for name in ["old", "new"] {
        world.until(name, || world.outcome(0, name) == Some(Outcome::Signed));
        assert!(world.is_signed(&world.source, name), "{name}");
    }
    let first = world.source.get(&path("new.sig")).unwrap().version;
    world.until("acknowledged", || world.source.unacknowledged() == 0);
    assert_eq!(
        world.source.get(&path("new.sig")).unwrap().version,
        first,
        "signed once, however many hints there are"
    );
    world.stop();
}

#[test]
fn a_hint_about_what_is_gone_is_acknowledged() {
    let mut world = World::new(SIGN);
    let version = world.source.put(&path("gone"), b"for a moment");
    assert!(world.source.remove_if(&[(path("gone"), version)]));
    world.start(0);
    world.until("acknowledged", || world.source.unacknowledged() == 0);
    world.stop();
}

#[test]
fn what_is_signed_and_delivered_leaves_its_place() {
    let mut world = World::new(RELEASE);
    world.start(0);
    world.source.put(&path("f"), b"content");
    world.until("delivered", || world.source.get(&path("f")).is_none());
    assert!(world.is_signed(&world.destination, "f"));
    world.stop();
}

#[test]
fn p1_valid_pairs_are_delivered_and_others_put_away() {
    let mut world = World::new(VERIFY);
    world.start(0);
    world.source.repeat_hints(2);
    world.drop_pair("good", "good content");
    world.drop_pair("forged", "good content");
    world.source.put(&path("forged"), b"forged content");
    world.source.put(&path("alone"), b"without a signature");
    world.until("all is gone", || world.source.all().is_empty());
    world.until("acknowledged", || world.source.unacknowledged() == 0);
    assert_eq!(text(&world.destination, "good").as_deref(), Some("good content"));
    assert_eq!(world.destination.all().len(), 2, "the pair and nothing else");
    let put_away: Vec<_> = world.quarantine.all().into_values().map(|object| object.bytes).collect();
    assert_eq!(put_away.len(), 2);
    assert_eq!(world.outcome(0, "forged"), Some(Outcome::Quarantined));
    world.stop();
}

#[test]
fn p2_without_keys_everything_waits_and_then_goes_on() {
    let mut world = World::new(VERIFY);
    world.keys(false);
    world.start(0);
    world.drop_pair("f", "content");
    world.until("looked at", || world.source.unacknowledged() > 0);
    std::thread::sleep(Duration::from_millis(300));
    assert!(world.destination.all().is_empty() && world.quarantine.all().is_empty());
    assert_eq!(world.outcome(0, "f"), None);
    world.keys(true);
    world.until("delivered", || world.source.all().is_empty());
    assert_eq!(text(&world.destination, "f").as_deref(), Some("content"));
    world.stop();
}

#[test]
fn p3_a_payload_that_changes_between_look_and_publish_is_never_delivered_as_what_was_judged() {
    let mut world = World::new(VERIFY);
    world.start(0);
    // Once it is read, somebody puts another payload there: the pair that was read is valid, the
    // one that is there is not.
    world.source.when_read(&path("f"), |bucket| {
        bucket.put(&path("f"), b"changed");
    });
    world.drop_pair("f", "content");
    world.until("both are dealt with", || world.source.all().keys().all(|key| *key != path("f")));
    assert_eq!(text(&world.destination, "f").as_deref(), Some("content"), "what was read, or nothing");
    let put_away = world.quarantine.all();
    assert!(put_away.into_values().any(|object| &*object.bytes == b"changed"), "judged by itself");
    world.stop();
}

#[test]
fn p3_nothing_stays_signed_that_changed_while_it_was() {
    let mut world = World::new(SIGN);
    world.start(0);
    world.source.when_read(&path("f"), |bucket| {
        bucket.put(&path("f"), b"changed");
    });
    world.source.put(&path("f"), b"content");
    world.until("signed", || world.outcome(0, "f") == Some(Outcome::Signed));
    assert_eq!(text(&world.source, "f").as_deref(), Some("changed"));
    assert!(world.is_signed(&world.source, "f"));
    world.stop();
}

#[test]
fn somebody_who_was_first_with_the_same_is_as_good() {
    let mut world = World::new(RELEASE);
    let (destination, theirs) = (world.destination.clone(), world.signature("f", "content"));
    // The condition of the write fails: between the look and it, another worker has published.
    world.source.when_read(&path("f"), move |_| {
        destination.put(&path("f.sig"), &theirs);
        destination.put(&path("f"), b"content");
    });
    world.source.put(&path("f"), b"content");
    world.start(0);
    world.until("removed", || world.source.get(&path("f")).is_none());
    assert_eq!(world.outcome(0, "f"), Some(Outcome::Delivered));
    assert!(world.is_signed(&world.destination, "f"));
    world.stop();
}

#[test]
fn p8_somebody_who_was_first_with_something_else_keeps_it_and_the_source_stays() {
    let mut world = World::new(VERIFY);
    let destination = world.destination.clone();
    world.source.when_read(&path("f"), move |_| {
        destination.put(&path("f"), b"another");
    });
    world.drop_pair("f", "content");
    world.start(0);
    world.until("read", || world.destination.get(&path("f")).is_some());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(text(&world.destination, "f").as_deref(), Some("another"));
    assert_eq!(world.destination.all().len(), 1, "no signature of ours beside it");
    assert_eq!(text(&world.source, "f").as_deref(), Some("content"));
    world.destination.remove_if(&[(path("f"), world.destination.get(&path("f")).unwrap().version)]);
    world.until("delivered after all", || world.source.all().is_empty());
    assert!(world.is_signed(&world.destination, "f"));
    world.stop();
}

#[test]
fn a_source_taken_by_another_worker_is_no_error() {
    let mut world = World::new(VERIFY);
    let destination = world.destination.clone();
    // What this worker reads another one has delivered and removed before this one publishes.
    world.source.when_read(&path("f"), move |bucket| {
        let (payload, signature) = (bucket.get(&path("f")).unwrap(), bucket.get(&path("f.sig")).unwrap());
        destination.put(&path("f.sig"), &signature.bytes);
        destination.put(&path("f"), &payload.bytes);
        assert!(bucket.remove_if(&[(path("f"), payload.version), (path("f.sig"), signature.version)]));
    });
    world.drop_pair("f", "content");
    world.start(0);
    world.until("the other has dealt with it", || world.source.all().is_empty());
    world.drop_pair("g", "more");
    world.until("and this one goes on", || world.source.all().is_empty());
    assert!(world.is_signed(&world.destination, "f") && world.is_signed(&world.destination, "g"));
    assert!(world.quarantine.all().is_empty());
    world.stop();
}

/// An event of the model.
#[derive(Debug, Clone)]
enum Event {
    /// A pair arrives, in one of two orders. A forged one has a signature of other content.
    Drop {
        forged: bool,
        signature_first: bool,
    },
    /// The payload of the last pair changes when it is next read.
    ChangeWhenRead,
    /// Pending hints are repeated this often; 0 loses them.
    Repeat(usize),
    Lose,
    /// The keys become unavailable, or available.
    Keys(bool),
    /// A running worker is killed, or a stopped one is started.
    Kill(usize),
    Start(usize),
    /// Time passes.
    Wait,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let dropping = (any::<bool>(), any::<bool>())
        .prop_map(|(forged, signature_first)| Event::Drop { forged, signature_first });
    let event = prop_oneof![
        6 => dropping,
        1 => Just(Event::ChangeWhenRead),
        1 => (0..4_usize).prop_map(Event::Repeat),
        1 => Just(Event::Lose),
        1 => any::<bool>().prop_map(Event::Keys),
        2 => (0..2_usize).prop_map(Event::Kill),
        2 => (0..2_usize).prop_map(Event::Start),
        2 => Just(Event::Wait),
    ];
    prop::collection::vec(event, 1..20)
}

/// The pairs that arrived: content, whether its signature is valid, and what it is changed to when
/// it is read.
#[derive(Debug, Default)]
struct Dropped(Vec<(String, bool, bool)>);

impl Dropped {
    fn name(number: usize) -> String {
        format!("f{number}")
    }

    /// Nothing invalid is delivered, and nothing is lost.
    fn check(&self, world: &World) {
        // Read in the order in which objects move, so that none is missed.
        let source = world.source.all();
        let put_away: Vec<_> = world.quarantine.all().into_values().map(|object| object.bytes).collect();
        for (number, (content, is_good, may_change)) in self.0.iter().enumerate() {
            let name = Self::name(number);
            let delivered = text(&world.destination, &name);
            if let Some(delivered) = &delivered {
                assert!(is_good, "{name} was delivered although it is forged");
                assert_eq!(delivered, content, "{name} shows something else");
                assert!(
                    world.destination.get(&path(&format!("{name}.sig"))).is_some(),
                    "{name} lacks its signature"
                );
            }
            let is_kept = put_away.iter().any(|bytes| **bytes == *content.as_bytes());
            let is_there = source.contains_key(&path(&name));
            assert!(delivered.is_some() || is_kept || is_there || *may_change, "{name} is lost");
        }
    }
}

fn tell(story: &[Event]) {
    let mut world = World::new(VERIFY);
    let mut dropped = Dropped::default();
    world.start(0);
    for event in story {
        match event {
            Event::Drop { forged, signature_first } => {
                let (name, content) =
                    (Dropped::name(dropped.0.len()), format!("content {}", dropped.0.len()));
                let signed = if *forged { "something else" } else { &content };
                let signature = world.signature(&name, signed);
                let put_signature = || {
                    world.source.put(&path(&format!("{name}.sig")), &signature);
                };
                if *signature_first {
                    put_signature();
                }
                dropped.0.push((content.clone(), !forged, false));
                world.source.put(&path(&name), content.as_bytes());
                if !signature_first {
                    put_signature();
                }
            }
            Event::ChangeWhenRead => {
                let Some((last, (_, _, may_change))) = dropped.0.iter_mut().enumerate().next_back() else {
                    continue;
                };
                *may_change = true; // the content that was there may be replaced before it is judged
                let name = path(&Dropped::name(last));
                world.source.when_read(&name.clone(), move |bucket| {
                    if bucket.get(&name).is_some() {
                        bucket.put(&name, format!("changed {last}").as_bytes());
                    }
                });
            }
            Event::Repeat(copies) => world.source.repeat_hints(*copies),
            Event::Lose => world.source.lose_hints(),
            Event::Keys(are_there) => world.keys(*are_there),
            Event::Kill(number) => world.kill(*number),
            Event::Start(number) if world.workers.contains_key(number) => {}
            Event::Start(number) => world.start(*number),
            Event::Wait => std::thread::sleep(Duration::from_millis(30)),
        }
        dropped.check(&world);
    }
    // Without faults, everything ends where it belongs.
    world.keys(true);
    for number in 0..2 {
        world.kill(number);
        world.start(number);
    }
    world.until("came to an end", || {
        dropped.check(&world);
        world.source.all().is_empty()
    });
    world.stop();
    for (number, (content, is_good, may_change)) in dropped.0.iter().enumerate() {
        let delivered = text(&world.destination, &Dropped::name(number));
        match (is_good, may_change) {
            (true, false) => assert_eq!(delivered.as_ref(), Some(content)),
            (true, true) => assert!(delivered.is_none_or(|delivered| delivered == *content)),
            (false, _) => assert_eq!(delivered, None),
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_wrongly_accepted_whatever_two_workers_do() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
    TestRunner::new(config)
        .run(&events(), |story| {
            tell(&story);
            Ok(())
        })
        .unwrap();
}
