//! Very many small files: what one costs when there are few and when there are many, the memory
//! that takes, and a restart over what is done.
//!
//! `KMS_SIG_MANY` is how many, 100,000 by default; a million takes some ten minutes and 17 GB.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::line;
use crate::place::{Place, sign_rule};

const ONCE: [&str; 4] = ["watch", "--policy", "policy.toml", "--once"];
const FEW: usize = 10_000;
/// `--once` waits so long to see that nothing more comes.
const LAST_LOOK: Duration = Duration::from_secs(1);

fn many() -> usize {
    std::env::var("KMS_SIG_MANY").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// Signs so many files with a local key; returns the processor's time for one, and where they lie.
fn signed(files: usize) -> (Duration, Place) {
    let place = Place::new(&sign_rule("local:bench"));
    place.fill("in", files);
    let (used, peak) = place.used(&ONCE);
    println!(
        "  {files} files: {:.3} ms of processor time a file, peak {} MiB",
        each(used, files),
        peak >> 10
    );
    (used / u32::try_from(files).unwrap(), place)
}

fn each(time: Duration, files: usize) -> f64 {
    time.as_secs_f64() * 1e3 / files as f64
}

/// Processor time a file at 10,000 and at more, and the peak of memory.
pub(crate) fn many_files() {
    let (few, _) = signed(FEW);
    for files in [3, 10, 30].map(|times| times * FEW).into_iter().filter(|files| *files < many()) {
        signed(files);
    }
    let (one_of_many, place) = signed(many());
    line("processor time to sign one file of 10,000", few, None);
    line(&format!("the same of {}", many()), one_of_many, Some(few));
    restart(&place, many());
}

/// A restart over decided files, beside a bare walk that looks at each name.
fn restart(place: &Place, files: usize) {
    let walk = || {
        let began = Instant::now();
        let all = fs::read_dir(place.path("in")).unwrap();
        let size: u64 = all.map(|entry| entry.unwrap().metadata().unwrap().size()).sum();
        assert!(size > 0);
        began.elapsed()
    };
    walk(); // so that both find in memory what there is room for
    let mut best: Option<(Duration, Duration)> = None;
    for _ in 0..3 {
        let bare = walk();
        let again = place.command(&ONCE).saturating_sub(LAST_LOOK);
        if best.is_none_or(|(_, least)| again < least) {
            best = Some((bare, again));
        }
    }
    let (bare, again) = best.unwrap();
    line(&format!("a bare walk over {files} files and their signatures, with stat"), bare, None);
    line("a restart over them, to its end (--once)", again, Some(bare));
    println!("  {:.2} µs a file", each(again, files) * 1e3);
}
