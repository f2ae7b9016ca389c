//! A Python of the tests' own, with moto and boto3: a virtual environment below `target/`, made on first use (which
//! needs a package index once) and shared by every test run after.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// The version of moto.
const VERSION: &str = "5.2.5";

/// The Python of a virtual environment that has moto and boto3. Makes it if it is not there or not complete;
/// of several test processes at once, one makes it and the others wait.
pub(super) fn virtual_environment() -> PathBuf {
    let home = home();
    let dir = home.join(format!("moto-{VERSION}"));
    let python = dir.join("bin/python");
    let complete = dir.join("complete");
    let lock = File::create(home.join("moto.lock")).expect("a lock file below target/");
    lock.lock().expect("the lock is there sooner or later");
    if !complete.exists() {
        fs::remove_dir_all(&dir).ok();
        let dir = dir.to_str().expect("target/ has a UTF-8 name");
        run("python3", &["-m", "venv", dir]);
        let moto = format!("moto[server]=={VERSION}");
        let python = python.to_str().expect("target/ has a UTF-8 name");
        run(python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &moto, "boto3"]);
        File::create(&complete).expect("a file below target/");
    }
    python
}

pub(super) fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn run(program: &str, arguments: &[&str]) {
    const REMEDY: &str =
        "the KMS tests need Python and, once, a package index: apt-get install python3 python3-venv";
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            panic!("{program} {}: {}\n{REMEDY}", arguments.join(" "), String::from_utf8_lossy(&said));
        }
        Err(error) => panic!("{program}: {error}\n{REMEDY}"),
    }
}
