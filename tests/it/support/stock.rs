//! The verifiers that everybody has: minisign, ssh-keygen, OpenSSL, gpgv and sqv. What they accept
//! is for them to say.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::place::Place;

/// What to do where one is missing.
const NO_TOOLS: &str = "\
The tests of signatures that others verify need their verifiers:
  apt-get install minisign openssh-client openssl gpgv sqv";

/// A stock verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stock {
    /// `minisign -V -H`
    Minisign,
    /// `ssh-keygen -Y verify`
    SshKeygen,
    /// `openssl dgst -verify`
    OpenSsl,
    /// `gpgv`
    Gpgv,
    /// `sqv`
    Sqv,
}

impl Stock {
    /// Its name in the table of results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Minisign => "minisign",
            Self::SshKeygen => "ssh-keygen",
            Self::OpenSsl => "openssl",
            Self::Gpgv => "gpgv",
            Self::Sqv => "sqv",
        }
    }

    /// Whether it accepts the signature `signature` of `file` under the key in `key`: what
    /// `kms-sig key public` prints for it. Names are those of the place.
    pub(crate) fn accepts(self, place: &Place, key: &str, file: &str, signature: &str) -> bool {
        let mut command = match self {
            Self::Minisign => {
                let mut command = Command::new("minisign");
                command.args(["-V", "-H", "-p", key, "-m", file, "-x", signature]);
                command
            }
            Self::SshKeygen => {
                let mut command = Command::new("ssh-keygen");
                command.args(["-Y", "verify", "-f", key, "-I", "release@example.com", "-n", "file"]);
                command.args(["-s", signature]);
                command.stdin(open(&place.path(file)));
                command
            }
            Self::OpenSsl => {
                let mut command = Command::new("openssl");
                let hash = hash_for(&place.read(key));
                command.args(["dgst", hash, "-verify", key, "-signature", signature, file]);
                command
            }
            Self::Gpgv => {
                let mut command = Command::new("gpgv");
                command.args(["--keyring", &format!("./{key}"), signature, file]);
                command
            }
            Self::Sqv => {
                let mut command = Command::new("sqv");
                command.args(["--keyring", key, signature, file]);
                command
            }
        };
        if self != Self::SshKeygen {
            command.stdin(Stdio::null());
        }
        let output = run(place.prepare(command));
        output.status.success()
    }
}

/// What `openssl dgst` must be told of a key's signatures: KMS has one hash for each curve.
fn hash_for(pem: &[u8]) -> &'static str {
    // A P-384 key in PEM has 215 characters, one of P-521 268; those of P-256 and RSA are shorter
    // and longer.
    match pem.len() {
        200..240 => "-sha384",
        240..300 => "-sha512",
        _ => "-sha256",
    }
}

fn open(path: &Path) -> Stdio {
    std::fs::File::open(path).unwrap().into()
}

fn run(mut command: Command) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| panic!("{program:?}: {error}\n{NO_TOOLS}"))
}
