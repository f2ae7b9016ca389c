//! A folder with a policy, and the program run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::kms::{KEY, SlowKms};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kms-sig");

/// Far more than anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a file must be unchanged, in all of these. It is not counted.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// The folder, on the disk that the build is on: a file system in memory would make `fsync` cost
/// nothing.
pub(crate) struct Place(PathBuf);

/// All of them, to be removed at the end: what is removed in between would slow down what comes
/// next.
static PLACES: Mutex<Vec<tempfile::TempDir>> = Mutex::new(Vec::new());

/// Removes all places.
pub(crate) fn clear() {
    PLACES.lock().unwrap().clear();
}

/// A daemon that is running.
pub(crate) struct Daemon(Child);

impl Place {
    pub(crate) fn new(rules: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let place = Self(dir.path().to_owned());
        PLACES.lock().unwrap().push(dir);
        for folder in ["in", "out", "made"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        place.command(&["key", "create", "local:bench", "--keyring", "keyring"]);
        place.policy(rules);
        place
    }

    pub(crate) fn policy(&self, rules: &str) {
        self.policy_with(100_000, rules);
    }

    /// The same with so many calls of KMS a second.
    pub(crate) fn policy_with(&self, kms_per_second: u32, rules: &str) {
        self.policy_of_default_limits(&format!("limits.kms_per_second = {kms_per_second}\n{rules}"));
    }

    /// A policy that says nothing of limits.
    pub(crate) fn policy_of_default_limits(&self, rules: &str) {
        let head =
            "allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"state\"\nquarantine.dir = \"q\"\n";
        fs::write(self.path("policy.toml"), format!("{head}{rules}")).unwrap();
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null());
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "bench"),
            ("AWS_SECRET_ACCESS_KEY", "bench"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            command.env(name, value);
        }
        command
    }

    /// Runs the program, and returns how long it took. Its log goes nowhere.
    pub(crate) fn command(&self, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let done = self.prepare(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let took = began.elapsed();
        assert!(done.success(), "{arguments:?}: {done}");
        took
    }

    /// Runs the program, and returns the processor's time that it used, its own and the kernel's,
    /// and its peak of memory in KiB.
    pub(crate) fn used(&self, arguments: &[&str]) -> (Duration, u64) {
        let before = children_used();
        let mut child = self.prepare(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut peak, status) = (0, format!("/proc/{}/status", child.id()));
        let done = loop {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let found = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = found.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(peak);
            match child.try_wait().unwrap() {
                Some(done) => break done,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(done.success(), "{arguments:?}: {done}");
        (children_used() - before, peak)
    }

    /// A daemon that is ready.
    pub(crate) fn daemon(&self) -> Daemon {
        let mut command = self.prepare(&["watch", "--policy", "policy.toml"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !self.prepare(&["status", "--policy", "policy.toml"]).output().unwrap().status.success() {
            assert!(began.elapsed() < Duration::from_secs(60), "the daemon does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Daemon(child)
    }

    /// So many files of 1 KiB, each unlike the others.
    pub(crate) fn fill(&self, folder: &str, files: usize) {
        for i in 0..files {
            let mut content = vec![b'x'; 1024];
            content[..8].copy_from_slice(&i.to_be_bytes());
            fs::write(self.path(folder).join(name(i)), content).unwrap();
        }
        // What was written before is not part of what is measured.
        rustix::fs::sync();
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The processor's time that ended children of this process have used (proc_pid_stat(5), `cutime`
/// and `cstime`, in hundredths of a second).
fn children_used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[13..15].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

pub(crate) fn name(i: usize) -> String {
    format!("app-{i:06}.tar.gz")
}

/// `[aws]` for a KMS of ours.
pub(crate) fn aws(kms: &SlowKms) -> String {
    format!("aws.region = \"eu-west-1\"\naws.endpoint_url = \"{}\"\n", kms.url)
}

pub(crate) fn sign_rule(key: &str) -> String {
    format!(
        "[[watch]]\nname = \"sign\"\nmode = \"sign\"\npath = \"in\"\nkey = \"{key}\"\n\
         context = {{ file = \"{{name}}\" }}\nsettle = \"100ms\"\n"
    )
}

pub(crate) fn verify_rule() -> String {
    format!(
        "[[watch]]\nname = \"verify\"\nmode = \"verify\"\npath = \"in\"\ntrusted_keys = [\"{KEY}\"]\n\
         context = {{ file = \"{{name}}\" }}\nsettle = \"100ms\"\ndeliver_to = \"out\"\n\
         on_invalid = \"quarantine\"\non_missing = \"quarantine\"\n"
    )
}

/// Waits until something is there; returns how long that was from `began` on.
pub(crate) fn until_there(path: &Path, began: Instant) -> Duration {
    while !path.exists() {
        assert!(began.elapsed() < PATIENCE, "{} never came", path.display());
        std::thread::sleep(Duration::from_micros(200));
    }
    began.elapsed()
}
