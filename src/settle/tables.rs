//! The state machine against its tables: each file of `tests/settle/` is one case, a list of timed
//! steps.

use std::path::Path;

use serde::Deserialize;

use crate::settle::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    want: String,
    #[serde(default)]
    timing: Waits,
    step: Vec<Event>,
}

/// The waits of a case. Those that it leaves out have the defaults of [`timing`].
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Waits {
    settle: Option<String>,
    grace_leased: Option<String>,
    grace_unleased: Option<String>,
    signature_timeout: Option<String>,
    never_settles: Option<String>,
}

/// One step: an event at a time, and what the state machine must answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    at: String,
    /// Versions: `{ payload = 1, signature = 1 }`; a file that does not exist is left out.
    see: Option<Versions>,
    /// What the lease says with that: `absent` if it is left out, `present`, `unknown`.
    writer: Option<String>,
    /// Whether a control file lies beside the payload.
    #[serde(default)]
    control_file: bool,
    /// For how long the versions are unchanged by their own times.
    age: Option<String>,
    /// Somebody is said to have begun or closed a file; the next step is the sample that follows.
    written: Option<bool>,
    /// The file is said to have been moved in; the next step is the sample that follows.
    moved_in: Option<bool>,
    /// It is to be tried before it is quiet; `next` is empty if it is not.
    early: Option<bool>,
    /// `changed`, `not-yet`, `too-early`, `hold 5s` (until that moment).
    ended: Option<String>,
    /// `hurry`, as `--once` does.
    hurry: Option<bool>,
    /// `gone`, `look 1s` (at that moment), `attempt early`, `attempt provisional`, `attempt final`,
    /// `rest`.
    #[serde(default)]
    next: String,
    /// `never-settles` or `orphan`.
    worry: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Versions {
    payload: Option<u64>,
    signature: Option<u64>,
}

impl Versions {
    fn seen(self) -> PairVersion<u64> {
        PairVersion { payload: self.payload, signature: self.signature }
    }
}

fn time(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn timing(waits: &Waits) -> Timing {
    let or = |given: &Option<String>, default: &str| time(given.as_deref().unwrap_or(default));
    Timing {
        settle: or(&waits.settle, "1s"),
        grace_leased: or(&waits.grace_leased, "30s"),
        grace_unleased: or(&waits.grace_unleased, "10m"),
        signature_timeout: or(&waits.signature_timeout, "5m"),
        never_settles: or(&waits.never_settles, "1h"),
    }
}

fn shown(next: Next) -> String {
    match next {
        Next::Gone => "gone".into(),
        Next::LookAt(at) => format!("look {}", humantime::format_duration(at)),
        Next::Attempt(Finality::Early) => "attempt early".into(),
        Next::Attempt(Finality::Provisional) => "attempt provisional".into(),
        Next::Attempt(Finality::Final) => "attempt final".into(),
        Next::Rest => "rest".into(),
    }
}

fn run(case: &Case) -> Result<(), String> {
    let want = match case.want.as_str() {
        "sign" => Want::Sign,
        "verify" => Want::Verify,
        other => return Err(format!("want = {other:?}")),
    };
    let timing = timing(&case.timing);
    let mut pair = Pair::new(want, Duration::ZERO, PairVersion::<u64>::NONE);
    for event in &case.step {
        let at = time(&event.at);
        let next = match event {
            Event { see: Some(versions), writer, control_file, age, .. } => {
                let writer = match writer.as_deref().unwrap_or("absent") {
                    "absent" => Writer::Absent,
                    "present" => Writer::Present,
                    "unknown" => Writer::Unknown,
                    other => return Err(format!("writer = {other:?}")),
                };
                let activity = Activity { writer, has_control_file: *control_file };
                let age = age.as_deref().map(time).unwrap_or_default();
                pair.seen(at, &Sample { versions: versions.seen(), activity, age }, &timing)
            }
            Event { written: Some(true), .. } => {
                pair.written();
                continue;
            }
            Event { moved_in: Some(true), .. } => {
                pair.moved_in();
                continue;
            }
            Event { early: Some(true), .. } => match pair.may_be_early(at, &timing) {
                false if event.next.is_empty() => continue,
                false => return Err(format!("at {}: no early attempt", event.at)),
                true => pair.attempt_early(),
            },
            Event { ended: Some(ended), .. } => {
                let ended = match ended.split_once(' ').unwrap_or((ended, "")) {
                    ("changed", _) => AttemptEnd::Changed,
                    ("not-yet", _) => AttemptEnd::NotYet,
                    ("too-early", _) => AttemptEnd::TooEarly,
                    ("hold", until) => AttemptEnd::Hold(time(until)),
                    (other, _) => return Err(format!("ended = {other:?}")),
                };
                pair.ended(at, ended, &timing)
            }
            Event { hurry: Some(true), .. } => pair.hurry(at),
            Event { .. } => return Err(format!("the step at {} does nothing", event.at)),
        };
        let wanted = match event.next.split_once(' ') {
            Some(("look", at)) => shown(Next::LookAt(time(at))),
            _ => event.next.clone(),
        };
        if shown(next) != wanted {
            return Err(format!("at {}: {} instead of {}", event.at, shown(next), wanted));
        }
        let worry = pair.worry(at, &timing).map(|worry| match worry {
            Worry::NeverSettles => "never-settles",
            Worry::Orphan => "orphan",
        });
        if worry != event.worry.as_deref() {
            return Err(format!("at {}: worry {worry:?} instead of {:?}", event.at, event.worry));
        }
    }
    Ok(())
}

#[test]
fn every_case_answers_as_listed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settle");
    let mut failed = String::new();
    let mut ran = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let case: Case = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let Err(why) = run(&case) {
            failed.push_str(&format!("\n{}: {why}", path.file_name().unwrap().display()));
        }
        ran += 1;
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(ran >= 32, "only {ran} cases found");
}
