//! A daemon that has nothing to do, and a restart over what is done.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::line;
use crate::place::{Place, SETTLE, name, sign_rule};

const FILES: usize = 100_000;
/// How long it is watched at rest.
const REST: Duration = Duration::from_secs(30);

/// 100,000 signed files in the tree: a restart, memory and wake-ups.
pub(crate) fn at_rest() {
    let place = Place::new(&sign_rule("local:bench"));
    place.fill("in", FILES);
    let took = place.command(&["watch", "--policy", "policy.toml", "--once"]).saturating_sub(SETTLE);
    line("100,000 files of 1 KiB signed, a local key", took, None);
    let began = Instant::now();
    let names = fs::read_dir(place.path("in")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(names.count() >= FILES * 2);
    line("a bare walk over them with stat", began.elapsed(), None);
    // --once ends with the scan, but waits a second to see whether it is over.
    let again = place.command(&["watch", "--policy", "policy.toml", "--once"]);
    line("a restart over them, to its end (--once)", again, None);
    let daemon = place.daemon();
    let status = |field: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(field));
        found.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    println!("  resident with {} there: {} KiB", name(FILES - 1), status("VmRSS:"));
    let switches = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let of_task = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            found.map_or(0, |n| n.trim().parse::<u64>().unwrap())
        };
        tasks.map(|task| of_task(task.unwrap())).sum()
    };
    std::thread::sleep(Duration::from_secs(15)); // what the start leaves to do is done
    let before = switches();
    std::thread::sleep(REST);
    println!("  wake-ups in {} s at rest: {}", REST.as_secs(), switches() - before);
}

/// The peak memory of a script, in KiB.
pub(crate) fn peak_kib(place: &Place, script: &str) -> i64 {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(place.path("")).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.arg0("sh");
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    let file = format!("/proc/{}/status", child.id());
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = found.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}
