//! One large file, from the page cache.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::line;
use crate::place::{Place, SETTLE, name, sign_rule};

const SIZE: usize = 1 << 30;
const RUNS: usize = 7;

/// Something of 1 GiB at most that is not all the same, in the page cache and on the disk.
fn write(path: &Path, size: usize) {
    let mut file = fs::File::create(path).unwrap();
    let mut piece: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for i in 0..size >> 20 {
        piece[..8].copy_from_slice(&i.to_be_bytes());
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
}

/// The same bytes as one file and as eight, signed by a daemon that ends when it has nothing more
/// to do.
pub(crate) fn several_files() {
    let took = |files: usize| {
        let run = || {
            let place = Place::new(&sign_rule("local:bench"));
            (0..files).for_each(|i| write(&place.path("in").join(name(i)), SIZE / files));
            place.command(&["watch", "--policy", "policy.toml", "--once"]).saturating_sub(SETTLE)
        };
        (0..3).map(|_| run()).min().unwrap()
    };
    let one = took(1);
    line("1 GiB in one file, signed by watch --once", one, None);
    line("1 GiB in eight files, signed by watch --once", took(8), Some(one));
}

/// `kms-sig sign` of 1 GiB, whole process, beside `openssl dgst -sha512`: the best of seven of
/// each, in turn.
pub(crate) fn one_file() {
    let place = Place::new(&sign_rule("local:bench"));
    write(&place.path("large"), SIZE);
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let began = Instant::now();
        let done = Command::new("openssl").args(["dgst", "-sha512"]).arg(place.path("large")).output();
        assert!(done.unwrap().status.success());
        theirs = theirs.min(began.elapsed());
        ours = ours.min(place.command(&["sign", "local:bench", "large", "--keyring", "keyring"]));
    }
    line("1 GiB hashed by openssl dgst -sha512", theirs, None);
    line("1 GiB signed by kms-sig sign, whole process", ours, Some(theirs));
    let script = format!("exec {} sign local:bench large --keyring keyring", env!("CARGO_BIN_EXE_kms-sig"));
    println!("  peak memory: {} KiB", crate::rest::peak_kib(&place, &script));
}
