//! What one sender's flood costs others: a valid pair while large files are judged, and while a
//! queue waits for KMS. Beside each: the same pair without the flood.

use std::fs;
use std::fs::File;
use std::time::{Duration, Instant};

use crate::kms::{KEY, SlowKms};
use crate::line;
use crate::place::{PATIENCE, Place, aws, name, sign_rule, until_there, verify_rule};

const LARGE: usize = 10;
const QUEUED: usize = 500;

/// The rule `verify` on `in`, and one like it, `quiet`, on `made`: both deliver, each to a folder
/// of its own.
fn two_rules(key: &str, more: &str) -> String {
    let rule = verify_rule().replace(KEY, key);
    let quiet = rule
        .replace("name = \"verify\"", "name = \"quiet\"")
        .replace("path = \"in\"", "path = \"made\"")
        .replace("deliver_to = \"out\"", "deliver_to = \"q2\"\ncreate = true");
    format!("{rule}{more}{quiet}{more}")
}

/// Moves a pair from `ready` into a folder, and waits until it is delivered.
fn pass(place: &Place, file: &str, folder: &str, to: &str) -> Duration {
    for name in [file.to_owned(), format!("{file}.sig")] {
        fs::rename(place.path("ready").join(&name), place.path(folder).join(&name)).unwrap();
    }
    until_there(&place.path(to).join(file), Instant::now())
}

/// So many signed pairs in `ready`, made under a policy of these rules before the flood's.
fn ready(place: &Place, pairs: usize) {
    place.fill("in", pairs);
    place.command(&["watch", "--policy", "policy.toml", "--once"]);
    fs::rename(place.path("in"), place.path("ready")).unwrap();
    fs::create_dir(place.path("in")).unwrap();
    fs::remove_dir_all(place.path("state")).unwrap();
}

/// Another rule, and then the same, gets ten files of 2 GiB that are a hole, each with what is no
/// signature beside it.
pub(crate) fn flood() {
    let place = Place::new(&sign_rule("local:bench"));
    ready(&place, 6);
    // So short that the large files are read for the record while the pairs come.
    place.policy(&two_rules("local:bench", "grace = \"1s\"\n"));
    let _daemon = place.daemon();
    let alone = pass(&place, &name(0), "made", "q2");
    line("a valid pair, nothing else to do", alone, None);
    for i in 0..LARGE {
        File::create(place.path("in").join(format!("large-{i}"))).unwrap().set_len(2 << 30).unwrap();
        fs::write(place.path("in").join(format!("large-{i}.sig")), [b'x'; 20_000]).unwrap();
    }
    line(
        "the same, another rule having just got 10 files of 2 GiB",
        pass(&place, &name(1), "made", "q2"),
        Some(alone),
    );
    line("  of the rule that got them", pass(&place, &name(2), "in", "out"), Some(alone));
    let items = || fs::read_dir(place.path("q")).map_or(0, Iterator::count);
    while items() == 0 {
        std::thread::sleep(Duration::from_millis(5)); // the first is judged, the others are read
    }
    line("the same while those are read for the record", pass(&place, &name(3), "made", "q2"), Some(alone));
    line("  of the rule that got them", pass(&place, &name(4), "in", "out"), Some(alone));
    let began = Instant::now();
    while items() < LARGE {
        assert!(began.elapsed() < PATIENCE, "only {} are judged", items());
        std::thread::sleep(Duration::from_millis(5));
    }
    line("  and until all of those are judged", began.elapsed(), None);
}

/// Another rule's distinct signatures wait for KMS, which may be called five times a second.
pub(crate) fn queue() {
    let kms = SlowKms::start(Duration::from_millis(20));
    let place = Place::new(&format!("{}{}", aws(&kms), sign_rule(KEY)));
    ready(&place, QUEUED + 2);
    place.policy_with(5, &format!("{}{}", aws(&kms), two_rules(KEY, "")));
    let _daemon = place.daemon();
    line("a valid pair, KMS at 5 calls a second", pass(&place, &name(0), "made", "q2"), None);
    for i in 1..=QUEUED {
        for name in [name(i), format!("{}.sig", name(i))] {
            fs::rename(place.path("ready").join(&name), place.path("in").join(&name)).unwrap();
        }
    }
    std::thread::sleep(Duration::from_secs(3)); // they are settled, and queue
    let call = Duration::from_millis(200);
    let took = pass(&place, &name(QUEUED + 1), "made", "q2");
    line(&format!("the same while {QUEUED} of another rule wait, to a call"), took, Some(call));
}
