//! One large file, from the page cache.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::line;
use crate::place::{Place, sign_rule};

const SIZE: usize = 1 << 30;
const RUNS: usize = 5;

/// `kms-sig sign` of 1 GiB, whole process, beside `openssl dgst -sha512`: the best of five of each, in turn.
pub(crate) fn one_file() {
    let place = Place::new(&sign_rule("local:bench"));
    let mut file = fs::File::create(place.path("large")).unwrap();
    let mut piece: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for i in 0..SIZE >> 20 {
        piece[..8].copy_from_slice(&i.to_be_bytes());
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
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
