//! From the producer's last step to the result, one file after the other, under the default policy
//! and a local key: beside the same with `prompt = false`, which waits for `settle`.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::line;
use crate::place::{Place, name, sign_rule, until_there, verify_rule};

/// How many are measured; the waiting ones are fewer, and all under way at once.
const FILES: usize = 200;
const WAITING: usize = 20;

const KEY: &str = "local:bench";
/// What every rule waited by default before there was anything else.
const WAITS: &str = "settle = \"2s\"\nprompt = false\n";

/// The rule, with the waits that it has by default.
fn by_default(rule: &str) -> String {
    rule.lines().filter(|line| !line.starts_with("settle")).map(|line| format!("{line}\n")).collect()
}

/// Drops each file and waits for its result, one after the other.
fn one_by_one(drop: impl Fn(&str), result: impl Fn(&str) -> std::path::PathBuf) -> Vec<Duration> {
    let mut times: Vec<_> = (0..FILES)
        .map(|i| {
            let name = name(i);
            drop(&name);
            until_there(&result(&name), Instant::now())
        })
        .collect();
    times.sort();
    times
}

/// Drops all and waits for each: the median.
fn all_at_once(drop: impl Fn(&str), result: impl Fn(&str) -> std::path::PathBuf) -> Duration {
    let dropped: Vec<_> = (0..WAITING)
        .map(|i| {
            drop(&name(i));
            (name(i), Instant::now())
        })
        .collect();
    let mut times: Vec<_> = dropped.iter().map(|(name, began)| until_there(&result(name), *began)).collect();
    times.sort();
    times[WAITING / 2]
}

fn report(what: &str, times: &[Duration], beside: Duration) {
    let median = times[times.len() / 2];
    line(&format!("{what}, median of {FILES}"), median, Some(beside));
    line("  the 99th percentile, to the median", times[times.len() * 99 / 100], Some(median));
}

/// What making a small file durable costs here.
fn fsync(place: &Place) {
    let mut file = File::create(place.path("fsync")).unwrap();
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            file.write_all(&[b'x'; 1024]).unwrap();
            let began = Instant::now();
            file.sync_all().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort();
    line("one fsync of 1 KiB more, median of 100", times[times.len() / 2], None);
}

pub(crate) fn prompt() {
    let rule = by_default(&sign_rule(KEY));
    let mv = |place: &Place, from: &str, name: &str| {
        fs::rename(place.path(from).join(name), place.path("in").join(name)).unwrap();
    };
    let signature = |place: &Place, name: &str| place.path("in").join(format!("{name}.sig"));
    let waiting = {
        let place = Place::new(&format!("{rule}{WAITS}"));
        place.fill("made", WAITING);
        let _daemon = place.daemon();
        all_at_once(|name| mv(&place, "made", name), |name| signature(&place, name))
    };
    line("a file renamed into a sign folder, settle = \"2s\" alone", waiting, None);
    let place = Place::new(&rule);
    fsync(&place);
    place.fill("made", FILES);
    let _daemon = place.daemon();
    let times = one_by_one(|name| mv(&place, "made", name), |name| signature(&place, name));
    report("the same by default", &times, waiting);

    let rule = by_default(&verify_rule().replace(crate::kms::KEY, KEY));
    let signed = Place::new(&sign_rule(KEY));
    signed.fill("in", FILES);
    signed.command(&["watch", "--policy", "policy.toml", "--once"]);
    let pair = |name: &str| [name.to_owned(), format!("{name}.sig")];
    let of = |rules: &str, ready: &str| {
        let place = Place::new(rules);
        fs::copy(signed.path("keyring"), place.path("keyring")).unwrap();
        for name in (0..FILES).flat_map(|i| pair(&name(i))) {
            fs::copy(signed.path("in").join(&name), place.path(ready).join(&name)).unwrap();
        }
        rustix::fs::sync();
        place
    };
    let delivered = |place: &Place, name: &str| place.path("out").join(name);
    let moved = |place: &Place, name: &str| pair(name).iter().for_each(|name| mv(place, "made", name));
    let waiting = {
        let place = of(&format!("{rule}{WAITS}"), "made");
        let _daemon = place.daemon();
        all_at_once(|name| moved(&place, name), |name| delivered(&place, name))
    };
    line("a valid pair moved into a verify folder, settle = \"2s\" alone", waiting, None);
    let place = of(&rule, "made");
    let _daemon = place.daemon();
    let times = one_by_one(|name| moved(&place, name), |name| delivered(&place, name));
    report("the same by default", &times, waiting);
    let place = of(&rule, "made");
    let _daemon = place.daemon();
    let written = |name: &str| {
        for name in pair(name) {
            let content = fs::read(place.path("made").join(&name)).unwrap();
            fs::write(place.path("in").join(&name), content).unwrap();
        }
    };
    let times = one_by_one(written, |name| delivered(&place, name));
    report("the same, written there", &times, waiting);
}
