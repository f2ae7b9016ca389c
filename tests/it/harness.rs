//! Runs the program in a directory of its own, with nothing of the caller's environment, and compares what
//! it said and did exactly. A failure shows the whole run and what lies in the directory.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

    /// A place with the keyring `keyring` (named by the environment) and in it the key `local:demo`.
    pub(crate) fn with_keyring() -> Self {
        let mut place = Self::new();
        place.set("KMS_SIG_KEYRING", "keyring");
        place.run(["key", "create", "local:demo"]).exits(0).says("created local:demo\n").complains("");
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
    fn listing(&self) -> String {
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

/// A run that has ended. Each assertion hands it on.
pub(crate) struct Run<'a> {
    place: &'a Place,
    shown: String,
    output: Output,
}

impl Run<'_> {
    /// The exit code is this one (and the program was not killed).
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        let holds = self.output.status.code() == Some(code);
        self.check(holds, &format!("exit code {code}"))
    }

    /// Standard output is exactly this.
    #[track_caller]
    pub(crate) fn says(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let holds = self.output.stdout == text;
        self.check(holds, &format!("on standard output: {:?}", String::from_utf8_lossy(text)))
    }

    /// Standard error is exactly this.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        let holds = self.output.stderr == text.as_bytes();
        self.check(holds, &format!("on standard error: {text:?}"))
    }

    /// Standard error has this somewhere: for text that another program words.
    #[track_caller]
    pub(crate) fn complains_of(self, text: &str) -> Self {
        let found = self.stderr().contains(text);
        self.check(found, &format!("somewhere on standard error: {text:?}"))
    }

    /// Whether it exited with 0.
    pub(crate) fn succeeds(&self) -> bool {
        self.output.status.success()
    }

    /// What it wrote to standard output.
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.output.stdout
    }

    /// What it wrote to standard error.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn check(self, holds: bool, expected: &str) -> Self {
        if !holds {
            panic!(
                "expected {expected}\n{}\n{}\nstandard output:\n{}\nstandard error:\n{}\ndirectory:\n{}",
                self.shown,
                self.output.status,
                String::from_utf8_lossy(&self.output.stdout),
                String::from_utf8_lossy(&self.output.stderr),
                self.place.listing()
            );
        }
        self
    }
}

/// Stands where KMS would be, and only notices whether anyone comes.
pub(crate) struct Doorbell(TcpListener);

impl Doorbell {
    /// Makes it the AWS endpoint of a place, with credentials enough to be called.
    pub(crate) fn at(place: &mut Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        place.set("AWS_ENDPOINT_URL", format!("http://{}", listener.local_addr().unwrap()));
        for (name, value) in [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            place.set(name, value);
        }
        Self(listener)
    }

    /// Nobody came.
    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        let came = self.0.accept();
        assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "KMS was called");
    }
}

/// A name of bytes that are not text.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
