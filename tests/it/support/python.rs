//! A Python of the tests' own, with moto and boto3: a virtual environment below `target/`, made on
//! first use (which needs a package index once) and shared by every test run after.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of moto.
const VERSION: &str = "5.2.5";

/// What to do where no packages can be had.
const NO_INDEX: &str = "\
The tests with KMS need moto and boto3 from a package index, once; they stay below target/. One of these helps:
- name an index that this machine reaches: PIP_INDEX_URL=URL cargo test
- take them from a directory of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=DIRECTORY cargo test
- leave these tests out: cargo test --no-default-features";

/// What to do where there is no Python that makes environments.
const NO_PYTHON: &str = "\
The tests with KMS need Python 3 with its module venv: apt-get install python3 python3-venv
To leave these tests out: cargo test --no-default-features";

/// The Python of a virtual environment that has moto and boto3. Makes it if it is not there or not
/// complete; of several test processes at once, one makes it and the others wait. An error says
/// what failed and what to do.
pub(crate) fn virtual_environment() -> Result<PathBuf, String> {
    let home = home();
    let dir = home.join(format!("moto-{VERSION}"));
    let python = dir.join("bin/python");
    let complete = dir.join("complete");
    let lock = File::create(home.join("moto.lock")).expect("a lock file below target/");
    lock.lock().expect("the lock is there sooner or later");
    if !complete.exists() {
        fs::remove_dir_all(&dir).ok();
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir), NO_PYTHON)?;
        install(&python, &[&format!("moto[server]=={VERSION}"), "boto3"], &[])?;
        File::create(&complete).expect("a file below target/");
    }
    Ok(python)
}

/// Installs packages from the index that pip is told of, by `variables` or the caller's
/// environment.
pub(crate) fn install(python: &Path, packages: &[&str], variables: &[(&str, &str)]) -> Result<(), String> {
    let mut pip = Command::new(python);
    // Two retries: with pip's own five, a machine without a network would wait for minutes.
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=2"]);
    run(pip.args(packages).envs(variables.iter().copied()), NO_INDEX)
}

/// Below `target/`.
pub(super) fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn run(command: &mut Command, hint: &str) -> Result<(), String> {
    let output = command.output();
    let failed = |said: &str| Err(format!("this failed: {command:?}\n{}\n\n{hint}\n", said.trim()));
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => failed(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat())),
        Err(error) => failed(&error.to_string()),
    }
}
