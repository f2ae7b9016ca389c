//! Pythons of the tests' own, with servers of the AWS protocols: virtual environments below
//! `target/`, made on first use (which needs a package index once) and shared by every test run
//! after.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The version of moto.
const MOTO: &str = "5.2.5";

/// The version of ministack.
const MINISTACK: &str = "1.5.33";

/// From the start of Python to the first answer; seconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// What to do where no packages can be had.
const NO_INDEX: &str = "\
The tests with KMS need moto, boto3 and ministack from a package index, once; they stay below target/. One of these helps:
- name an index that this machine reaches: PIP_INDEX_URL=URL cargo test
- take them from a directory of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=DIRECTORY cargo test
- leave these tests out: cargo test --no-default-features";

/// What to do where there is no Python that makes environments.
const NO_PYTHON: &str = "\
The tests with KMS need Python 3 with its module venv: apt-get install python3 python3-venv
To leave these tests out: cargo test --no-default-features";

/// The Python of a virtual environment that has moto and boto3. An error says what failed and what
/// to do.
pub(crate) fn virtual_environment() -> Result<PathBuf, String> {
    environment("moto", MOTO, &[&format!("moto[server]=={MOTO}"), "boto3"])
}

/// The same, of one that has ministack. The two do not agree on a version of boto3.
pub(super) fn with_ministack() -> Result<PathBuf, String> {
    environment("ministack", MINISTACK, &[&format!("ministack=={MINISTACK}"), "cryptography"])
}

/// The Python of a virtual environment. Makes it if it is not there or not complete; of several
/// test processes at once, one makes it and the others wait.
fn environment(name: &str, version: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let home = home();
    let dir = home.join(format!("{name}-{version}"));
    let python = dir.join("bin/python");
    let complete = dir.join("complete");
    let lock = File::create(home.join(format!("{name}.lock"))).expect("a lock file below target/");
    lock.lock().expect("the lock is there sooner or later");
    if !complete.exists() {
        fs::remove_dir_all(&dir).ok();
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir), NO_PYTHON)?;
        install(&python, packages, &[])?;
        File::create(&complete).expect("a file below target/");
    }
    Ok(python)
}

/// Starts a server that prints its port as its first line and ends with its standard input, and
/// waits for that line. The server runs for as long as what is given back is held.
pub(super) fn serve(python: &Path, name: &str, program: &str) -> Result<(String, ChildStdin), String> {
    let log = home().join(format!("{name}.log"));
    let mut server = Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).expect("a log file below target/"))
        .spawn()
        .expect("Python runs");
    let stdin = server.stdin.take().expect("stdin is a pipe");
    let port = first_line(&mut server)
        .ok_or_else(|| format!("{name} did not start: {}", fs::read_to_string(&log).unwrap_or_default()))?;
    Ok((format!("http://127.0.0.1:{port}"), stdin))
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

/// The first line a child prints, unless it ends or takes too long.
fn first_line(child: &mut Child) -> Option<String> {
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        if matches!(lines.read_line(&mut line), Ok(1..)) {
            said.send(line.trim().to_owned()).ok();
        }
        // Whatever comes after is read too, or a full pipe would stop the server.
        lines.read_to_end(&mut Vec::new()).ok();
    });
    heard.recv_timeout(START_TIMEOUT).ok()
}
