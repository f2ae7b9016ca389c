//! Random stories of a producer, an outage, kills and restarts, against the two promises that
//! matter most: nothing is wrongly accepted, nothing is lost. Whatever was told, when all is well
//! again everything ends where it belongs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::files::{names, sign};
use crate::support::place::Place;
use crate::support::policy::{VERIFY, place};

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// A pair is dropped, in one of three ways; a tampered one is another's signature for its
    /// bytes.
    Drop { tampered: bool, how: How },
    /// The keys go away, or come back.
    Keys(bool),
    /// The daemon is killed where it stands.
    Kill,
    /// It starts again.
    Start,
    /// Its events are lost: it is stopped while a directory full of them happens.
    Deafen,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// Renamed into place, the payload first.
    PayloadFirst,
    /// Renamed into place, the signature first.
    SignatureFirst,
    /// Written in place, with the end of the payload missing for a while.
    InPieces,
}

/// What has been told so far.
#[derive(Debug, Clone, Default)]
struct Story {
    /// Every file dropped, and whether it was tampered with.
    dropped: Vec<bool>,
    keys: bool,
    running: bool,
}

impl ReferenceStateMachine for Story {
    type State = Self;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { keys: true, running: true, ..Self::default() }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Event> {
        let how = prop_oneof![Just(How::PayloadFirst), Just(How::SignatureFirst), Just(How::InPieces)];
        let drop = (any::<bool>(), how).prop_map(|(tampered, how)| Event::Drop { tampered, how });
        let life = if state.running { Just(Event::Kill) } else { Just(Event::Start) };
        let mut choices =
            vec![(5, drop.boxed()), (2, life.boxed()), (1, Just(Event::Keys(!state.keys)).boxed())];
        if state.running {
            choices.push((1, Just(Event::Deafen).boxed()));
        }
        Union::new_weighted(choices).boxed()
    }

    fn apply(mut state: Self, event: &Event) -> Self {
        match event {
            Event::Drop { tampered, .. } => state.dropped.push(*tampered),
            Event::Keys(there) => state.keys = *there,
            Event::Kill => state.running = false,
            Event::Start => state.running = true,
            Event::Deafen => {}
        }
        state
    }

    fn preconditions(state: &Self, event: &Event) -> bool {
        match event {
            Event::Kill | Event::Deafen => state.running,
            Event::Start => !state.running,
            Event::Keys(there) => state.keys != *there,
            Event::Drop { .. } => true,
        }
    }
}

/// The real thing.
struct World {
    place: Place,
    daemon: Option<Daemon>,
}

fn file(i: usize) -> String {
    format!("f{i}")
}

fn content(i: usize) -> String {
    format!("content of file {i}, long enough to be torn in two")
}

impl World {
    fn drop_file(&self, i: usize, tampered: bool, how: How) {
        let (payload, signature) = sign_with(&self.place, &file(i), &content(i));
        if tampered {
            fs::write(&payload, format!("forged {i}, which nobody has signed, whatever the name")).unwrap();
        }
        let (to, to_sig) =
            (self.place.path("in").join(file(i)), self.place.path("in").join(file(i) + ".sig"));
        match how {
            How::PayloadFirst => {
                fs::rename(payload, to).unwrap();
                fs::rename(signature, to_sig).unwrap();
            }
            How::SignatureFirst => {
                fs::rename(signature, to_sig).unwrap();
                fs::rename(payload, to).unwrap();
            }
            How::InPieces => {
                let bytes = fs::read(&payload).unwrap();
                fs::rename(signature, to_sig).unwrap();
                fs::write(&to, &bytes[..10]).unwrap();
                fs::write(&to, &bytes).unwrap();
            }
        }
    }

    /// What must hold at every moment. Looks along the way that files go, so that none is missed
    /// while it moves.
    fn check(&self, story: &Story) {
        let source = names(&self.place.path("in"));
        let claimed = contents_below(&self.place.path("in/.kms-sig"));
        let quarantined = contents_below(&self.place.path("q"));
        let delivered = names(&self.place.path("out"));
        for (i, tampered) in story.dropped.iter().enumerate() {
            let there = delivered.contains(&file(i));
            if there {
                assert!(!tampered, "{} was delivered although it is forged", file(i));
                let bytes = self.place.read(format!("out/{}", file(i)));
                assert_eq!(bytes, content(i).as_bytes(), "{} shows something else", file(i));
                assert!(
                    self.place.path(format!("out/{}.sig", file(i))).exists(),
                    "{} has no signature",
                    file(i)
                );
            }
            let kept = |all: &[Vec<u8>]| {
                all.iter()
                    .any(|c| c == content(i).as_bytes() || c.starts_with(format!("forged {i},").as_bytes()))
            };
            let somewhere = there || source.contains(&file(i)) || kept(&claimed) || kept(&quarantined);
            assert!(somewhere, "{} is lost", file(i));
        }
    }

    /// Makes all well again and waits for the end.
    fn end(mut self, story: &Story) {
        fs::copy(self.place.path("keyring.producer"), self.place.path("keyring")).unwrap();
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
        let daemon = Daemon::start(&self.place);
        daemon.until("came to an end", || names(&self.place.path("in")).is_empty());
        daemon.until("tidied up", || !self.place.path("in/.kms-sig").exists());
        daemon.stop();
        self.check(story);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for item in names(&self.place.path("q")) {
            let record = self.place.read(format!("q/{item}/record.json"));
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            *reasons.entry(record["reason"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let forged = story.dropped.iter().filter(|tampered| **tampered).count();
        assert_eq!(reasons.values().sum::<usize>(), forged, "{reasons:?}");
        assert_eq!(reasons.get("mismatch").copied().unwrap_or(0), forged, "{reasons:?}");
        assert_eq!(names(&self.place.path("out")).len(), 2 * (story.dropped.len() - forged));
    }
}

/// Signs with the producer's own keyring, which never goes away.
fn sign_with(place: &Place, name: &str, content: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    if place.path("keyring").exists() {
        return sign(place, name, content);
    }
    fs::copy(place.path("keyring.producer"), place.path("keyring.lent")).unwrap();
    fs::create_dir_all(place.path("made")).unwrap();
    place.write(format!("made/{name}"), content);
    let made = format!("made/{name}");
    let context = format!("file={name}");
    place.run(["sign", "local:demo", &made, "--context", &context, "--keyring", "keyring.lent"]).exits(0);
    (place.path(&made), place.path(format!("{made}.sig")))
}

/// The contents of every file below a directory.
fn contents_below(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            all.extend(contents_below(&path));
        } else {
            all.extend(fs::read(&path).ok());
        }
    }
    all
}

struct Model;

impl StateMachineTest for Model {
    type SystemUnderTest = World;
    type Reference = Story;

    fn init_test(_: &Story) -> World {
        let place = place(VERIFY);
        fs::copy(place.path("keyring"), place.path("keyring.producer")).unwrap();
        let daemon = Some(Daemon::start(&place));
        World { place, daemon }
    }

    fn apply(mut world: World, story: &Story, event: Event) -> World {
        match event {
            Event::Drop { tampered, how } => world.drop_file(story.dropped.len() - 1, tampered, how),
            Event::Keys(true) => {
                fs::copy(world.place.path("keyring.producer"), world.place.path("keyring")).unwrap();
            }
            Event::Keys(false) => fs::remove_file(world.place.path("keyring")).unwrap(),
            Event::Kill => world.daemon = None, // SIGKILL
            Event::Start => world.daemon = Some(Daemon::start(&world.place)),
            Event::Deafen => {
                let daemon = world.daemon.as_ref().unwrap();
                daemon.signal(Signal::STOP);
                for i in 0..17_000 {
                    let path = world.place.path(format!("in/.noise{i}"));
                    fs::File::create(&path).unwrap();
                    fs::remove_file(&path).unwrap();
                }
                daemon.signal(Signal::CONT);
            }
        }
        world
    }

    fn check_invariants(world: &World, story: &Story) {
        world.check(story);
    }

    fn teardown(world: World, story: Story) {
        world.end(&story);
    }
}

#[test]
fn nothing_is_lost_and_nothing_wrongly_accepted_whatever_happens() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    proptest!(config, |((initial, transitions, seen) in Story::sequential_strategy(1..14))| {
        Model::test_sequential(Config::default(), initial, transitions, seen);
    });
}
