//! A place where the daemon and those who send to it are different unprivileged users.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use kms_sig::context::Context;
use kms_sig::digest::Digest;
use kms_sig::kms::local::Local;
use kms_sig::signing::Signer;

use super::daemon::Daemon;
use super::place::{PROGRAM, Place};
use super::policy::{VERIFY, place, with};
use super::user::{DAEMON, OTHER, SENDER, SHARED};

/// Whether the daemon may ask the kernel about other users' files, as the unit lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leases {
    Granted,
    Unavailable,
}

/// Where everything has its owner: `in` and `in2` are the senders', the rest is the daemon's or
/// root's.
pub(crate) struct Site {
    pub(crate) place: Place,
    kms: Local,
}

/// A rule for the pairs of `SENDER` that comes to its verdicts quickly, but for a signature that is
/// missing: on a busy machine an honest sender may take a while to write it.
pub(crate) fn quick() -> String {
    let rule = with(&with(VERIFY, "settle = \"1ms\""), "grace = \"20ms\"");
    with(&rule, "signature_timeout = \"1h\"")
}

impl Site {
    /// Lays everything out for these rules.
    pub(crate) fn new(rules: &str) -> Self {
        let place = place(rules);
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let make = |name: &str, user: u32, group: u32, bits: u32| {
            let path = place.path(name);
            fs::create_dir(&path).or_else(|e| if path.is_dir() { Ok(()) } else { Err(e) }).unwrap();
            chown(&path, Some(user), Some(group)).unwrap();
            mode(&path, bits); // after the owner, whose change clears set-group-id
        };
        mode(&place.path(""), 0o755);
        make("in", SENDER.id, 7003, SHARED);
        make("in2", OTHER.id, 7005, SHARED);
        make("out", DAEMON.id, DAEMON.id, 0o755);
        for private in ["state", "q"] {
            make(private, DAEMON.id, DAEMON.id, 0o700);
        }
        chown(place.path("keyring"), Some(DAEMON.id), Some(DAEMON.id)).unwrap();
        // Root's own, because the daemon's user reads no keyring of others. The secret is the same.
        fs::copy(place.path("keyring"), place.path("keyring-of-the-test")).unwrap();
        mode(&place.path("keyring-of-the-test"), 0o600);
        let kms = Local::new(place.path("keyring-of-the-test"));
        Self { place, kms }
    }

    /// Starts the daemon as its user and waits until it is ready.
    pub(crate) fn start(&self, leases: Leases) -> Daemon {
        let capabilities = match leases {
            Leases::Granted => "-all,+lease",
            Leases::Unavailable => "-all",
        };
        let groups: Vec<String> = DAEMON.groups.iter().map(ToString::to_string).collect();
        // The narrowest umask: what others are to read is made so.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077 && exec \"$0\" \"$@\"", "setpriv"]);
        command.args([format!("--reuid={}", DAEMON.id), format!("--regid={}", DAEMON.id)]);
        command.arg(format!("--groups={}", groups.join(",")));
        for set in ["inh-caps", "ambient-caps", "bounding-set"] {
            command.arg(format!("--{set}={capabilities}"));
        }
        command.args(["--no-new-privs", PROGRAM]);
        command.args(["watch", "--policy", "policy.toml", "--log-format", "json"]);
        let daemon = Daemon::spawn(self.place.prepare(command));
        daemon.waits_for("ready");
        daemon
    }

    /// A path in the place.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.path(name)
    }

    /// A signature of this content under the context `file = NAME`, as the rules ask for it.
    pub(crate) fn sign(&self, name: &OsStr, content: &[u8]) -> Vec<u8> {
        let context = Context::parse(&[format!("file={}", in_context(name))]).unwrap();
        let key = "local:demo".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let digests = Digest::of(content).into();
        let sealed = runtime.block_on(Signer::new(&self.kms, &key).sign(&context, &digests)).unwrap();
        sealed.signature.as_bytes().to_vec()
    }

    /// The senders can neither read nor change what is the daemon's, nor write where it delivers.
    #[track_caller]
    pub(crate) fn is_out_of_reach(&self) {
        for user in [SENDER, OTHER] {
            user.run(|| {
                let denied = |what: &str, done: io::Result<()>| {
                    let denied = done.as_ref().is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
                    assert!(denied, "user {} and {what}: {done:?}", user.id);
                };
                for private in ["state", "q"] {
                    denied(private, fs::read_dir(self.path(private)).map(drop));
                    denied(private, fs::write(self.path(private).join("planted"), ""));
                }
                denied("the keyring", File::open(self.path("keyring")).map(drop));
                denied("the keyring", File::options().write(true).open(self.path("keyring")).map(drop));
                denied("the policy", File::options().write(true).open(self.path("policy.toml")).map(drop));
                denied("the destination", fs::write(self.path("out/planted"), ""));
                denied("the place", fs::write(self.path("planted"), ""));
                for file in files_below(&self.path("out")) {
                    denied("what is delivered", File::options().write(true).open(&file).map(drop));
                    denied("what is delivered", fs::remove_file(&file));
                }
            });
        }
    }
}

/// A name as contexts have it: `%`, control characters and bytes that are not ASCII (here: not
/// UTF-8) encoded, and a comma as `--context` wants it.
fn in_context(name: &OsStr) -> String {
    let encode = |&byte: &u8| match byte {
        b',' => "\\,".to_owned(),
        b'%' | 0x7f.. | ..0x20 => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    name.as_bytes().iter().map(encode).collect()
}

/// Puts a file in place as whoever runs this, at once whole, and readable by the group of its
/// directory.
pub(crate) fn write(path: &Path, content: &[u8]) {
    // As many at a time as there are threads.
    let hidden = path.with_file_name(format!(".being-written-{:?}", std::thread::current().id()));
    fs::write(&hidden, content).unwrap_or_else(|e| panic!("{}: {e}", hidden.display()));
    fs::set_permissions(&hidden, Permissions::from_mode(0o660)).unwrap();
    rustix::fs::rename(&hidden, path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// All that is no directory, wherever it lies below.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Vec::new(), // gone since it was listed
        entries => entries.unwrap_or_else(|e| panic!("{}: {e}", dir.display())),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        // Gone since it was listed: a source on its way out.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}
