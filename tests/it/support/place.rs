//! Runs the program in a directory of its own, with nothing of the caller's environment, and
//! compares what it said and did exactly. A failure shows the whole run and what lies in the
//! directory.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::run::Run;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_kms-sig");

/// A fresh directory to run in, and the environment of the runs. Gone when dropped.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
}

impl Place {
    /// An empty directory and an empty environment.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// A place with the keyring `keyring` (named by the environment) and in it the key
    /// `local:demo`.
    pub(crate) fn with_keyring() -> Self {
        static KEYRING: OnceLock<Vec<u8>> = OnceLock::new();
        let mut place = Self::new();
        place.set("KMS_SIG_KEYRING", "keyring");
        // Made once by the program: there are thousands of places in a run of all tests.
        let mut is_made_here = false;
        let keyring = KEYRING.get_or_init(|| {
            place.run(["key", "create", "local:demo"]).exits(0).says("created local:demo\n").complains("");
            is_made_here = true;
            place.read("keyring")
        });
        if !is_made_here {
            let mut private = fs::File::options();
            let file = private.write(true).create_new(true).mode(0o600).open(place.path("keyring"));
            file.unwrap().write_all(keyring).unwrap();
        }
        place
    }

    /// As [`Self::with_keyring`], and the file `f` with its valid signature `f.sig`.
    pub(crate) fn with_signed_file() -> Self {
        let place = Self::with_keyring();
        place.write("f", "payload\n");
        place.run(["sign", "local:demo", "f"]).exits(0).says("").complains("");
        place
    }

    /// Adds a variable to the environment of the runs to come.
    pub(crate) fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
    }

    /// The path of a name in the directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        fs::File::create(self.path(name)).unwrap().write_all(content.as_ref()).unwrap();
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.listing()))
    }

    /// The names in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// Runs the program with an empty standard input.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run<'_> {
        self.run_with(arguments, "")
    }

    /// Runs the program with this on standard input.
    pub(crate) fn run_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        stdin: impl AsRef<[u8]>,
    ) -> Run<'_> {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        self.finish(command, stdin.as_ref())
    }

    /// Runs a shell script, for what only a shell can set up. `$KMS_SIG` is the program.
    pub(crate) fn shell(&self, script: &str) -> Run<'_> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        self.finish(command, b"")
    }

    /// Gives a command the directory and the environment of this place.
    pub(crate) fn prepare(&self, mut command: Command) -> Command {
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("KMS_SIG", PROGRAM).env("PATH", "/usr/bin:/bin").current_dir(self.dir.path());
        // Coverage of a run is written where the caller says.
        command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)));
        command
    }

    fn finish(&self, command: Command, stdin: &[u8]) -> Run<'_> {
        let mut command = self.prepare(command);
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // A program that does not read its input closes the pipe: its right.
            scope.spawn(move || pipe.write_all(stdin).ok());
            child.wait_with_output().unwrap()
        });
        Run { place: self, shown, output }
    }

    /// What lies in the directory: mode, size, name, and where a link points.
    pub(super) fn listing(&self) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let mut text = String::new();
        for name in self.names() {
            let path = self.path(&name);
            let metadata = fs::symlink_metadata(&path).unwrap();
            let link = fs::read_link(&path).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
            writeln!(text, "  {:06o} {:>8} {name:?}{link}", metadata.mode(), metadata.size()).unwrap();
        }
        text
    }
}

/// A name of bytes that are not text.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
