//! The command line: what can be written there, and what its help says.
//!
//! Types only. What an argument means beyond its shape (is this a key? a context?) is decided by
//! the types of the library, when the command runs.

mod check;
mod control;
mod explain;
mod history;
mod key;
mod policy_args;
mod quarantine;
mod sign_format;
mod stream;
use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use crate::chain;
use crate::escape::Escaped;
use crate::exit::Exit;
use crate::service::journal;
use crate::terminal::{self, progress, streams};
pub(crate) use check::Check;
use clap::{Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
pub(crate) use control::{
    BacklogCommand, DaemonArgs, EventsCommand, ReloadCommand, RescanCommand, StatusCommand,
};
pub(crate) use explain::Explain;
pub(crate) use history::{HistoryCommand, VALID};
pub use key::Key;
pub(crate) use key::{KeyFormat, PublicArgs};
pub(crate) use policy_args::PolicyArgs;
pub(crate) use quarantine::{Choice, Purge, Quarantine, Recheck, Release};
pub(crate) use sign_format::{FormatArg, SignFormat};
pub(crate) use stream::Stream;
use stream::stream;

/// The environment variable that stands for `--keyring`.
pub(crate) const KEYRING_VARIABLE: &str = "KMS_SIG_KEYRING";

/// The environment variable that says what is logged, as `tracing_subscriber::EnvFilter` reads it.
pub const LOG_VARIABLE: &str = "KMS_SIG_LOG";

/// Signs files with AWS KMS, and verifies them.
///
/// A signature is the file's SHA-512, encrypted by KMS under a symmetric key. Who may sign is who
/// may call kms:Encrypt on that key, who may verify is who may call kms:Decrypt. AWS is reached as
/// every AWS program reaches it: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws/config.
#[derive(Debug, Parser)]
#[command(
    name = "kms-sig",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, all valid; 1 a signature is invalid or missing; 2 usage; 3 could not tell.",
    after_long_help = "\
Exit codes:
  0  done, all valid
  1  a signature is invalid or missing
  2  the command line (or a policy) must be changed
  3  could not tell, or not finished: KMS, credentials, input and output

Try it without AWS:
  export KMS_SIG_KEYRING=$HOME/.kms-sig-keyring
  kms-sig key create local:demo
  kms-sig sign local:demo README.md
  kms-sig verify README.md --key local:demo"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// The subcommands, in the order of the help. One file below `command/` each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Signs a file
    Sign(Sign),
    /// Verifies a file's signature
    Verify(Verify),
    /// Watches directories, and signs or verifies what lands in them, by a policy
    Watch(Watch),
    /// Checks a policy: every fault at once, and what there is to do
    Check(Check),
    /// Explains which rule a file falls to, and what would happen to it now
    Explain(Explain),
    /// Shows how a running daemon stands, and what to do about it
    Status(StatusCommand),
    /// Lists what waits, why, since when, and what to do
    Backlog(BacklogCommand),
    /// Prints decisions as they are made, a line of JSON each
    Events(EventsCommand),
    /// Has a running daemon look at its directories now
    Rescan(RescanCommand),
    /// Has a running daemon take over its changed policy
    Reload(ReloadCommand),
    /// Shows what was decided, and proves that the record of it is unbroken
    History(HistoryCommand),
    /// Shows what a signature says about itself, without asking anyone
    Show(Show),
    /// Lists what is in quarantine, verifies it again, releases and purges it
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Makes and lists the keys of this host's keyring, and shows public keys
    #[command(subcommand)]
    Key(Key),
    /// Prints version, commit and target
    Version,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// The keyring of local: keys [env: KMS_SIG_KEYRING]
    ///
    /// A file of mode 0600. Needed for local: keys only; never looked for anywhere else.
    #[arg(long, global = true, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// How log lines look [default: journal where standard error goes there, otherwise human]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

impl Common {
    /// Whether what is logged is meant to be read as it comes.
    pub(crate) fn logs_for_people(&self) -> bool {
        match self.log_format {
            Some(format) => format == LogFormat::Human,
            None => !journal::has_stderr(),
        }
    }

    /// The keyring of the option, otherwise of the environment; set to nothing counts as not set.
    pub(crate) fn keyring(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(KEYRING_VARIABLE).filter(|value| !value.is_empty());
        self.keyring.clone().or_else(|| variable().map(PathBuf::from))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Time, level and text, for people.
    Human,
    /// One JSON object per line, for machines.
    Json,
    /// Entries of the systemd journal, with their fields.
    Journal,
}

/// `sign`
#[derive(Debug, Args)]
#[command(override_usage = "\
kms-sig sign [OPTIONS] <KEY> <FILE> [SIG]
       kms-sig sign [OPTIONS] --format <KEY=FORMAT>... <FILE> [SIG]")]
#[command(after_long_help = "\
Examples:
  kms-sig sign alias/releases app.tar.gz
  kms-sig sign arn:aws:kms:eu-west-1:111122223333:key/1234abcd-… app.tar.gz out/app.sig
  kms-sig sign alias/releases app.tar.gz --context channel=stable,version=20
  tar c src | kms-sig sign alias/releases - src.tar.sig
  for f in *.tar.gz; do kms-sig sign alias/releases \"$f\"; done
  kms-sig sign alias/releases -- -name-with-a-dash
  kms-sig sign alias/ed25519 app.tar.gz --format minisign
  kms-sig sign app.tar.gz --format alias/ed25519=minisign --format alias/p256=sigstore")]
pub struct Sign {
    /// The key: a key id, key ARN, alias/NAME, alias ARN or local:NAME
    #[arg(value_name = "KEY")]
    pub(crate) first: OsString,
    /// The file to sign; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "formats")]
    pub(crate) second: Option<OsString>,
    /// Where the signature goes; - is standard output [default: FILE.sig, or - if FILE is -]
    ///
    /// Written only once it is complete: until then a file that is already there stays as it is. An
    /// older signature is replaced, any other file only with --force. Other formats have suffixes
    /// of their own: .minisig, .asc, .sigstore.json.
    #[arg(value_name = "SIG")]
    pub(crate) third: Option<OsString>,
    /// Which signature to make, and with which key; may be repeated [default: kms]
    ///
    /// One of kms, ssh, minisign, openpgp, sigstore and der. All are made from one read of the
    /// file, and none is written before all are made. KEY= names another key than the first
    /// argument; if each has one, the first argument is FILE.
    #[arg(long = "format", value_name = "[KEY=]FORMAT")]
    pub(crate) formats: Vec<FormatArg>,
    /// What an SSH signature is for [default: file]
    ///
    /// ssh-keygen -Y verify must be given the same with -n.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// What a minisign signature says that is signed with it [default: timestamp, file, hashed]
    #[arg(long, value_name = "TEXT")]
    pub(crate) trusted_comment: Option<String>,
    /// The OpenPGP certificate of the key, as kms-sig key public --format openpgp prints it
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Make the OpenPGP signature binary, as FILE.sig, instead of text, as FILE.asc
    #[arg(long)]
    pub(crate) binary: bool,
    /// Replace whatever file is there, although it is no older signature
    ///
    /// Without it, only an empty file and what is known to be a signature of ours are replaced.
    #[arg(long)]
    pub(crate) force: bool,
    /// The pairs that verifying will have to name again
    #[command(flatten)]
    pub(crate) context: ContextArgs,
}

/// `verify`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Prints \"valid signature from KEY\" and exits with 0, or prints \"invalid signature\" to standard \
error and exits with 1. A missing signature is 1 too; when it cannot be told, the exit code is 3.

Examples:
  kms-sig verify app.tar.gz --key arn:aws:kms:eu-west-1:111122223333:key/1234abcd-…
  kms-sig verify app.tar.gz out/app.sig --context channel=stable,version=20
  curl -sS https://example.com/app.tar.gz | kms-sig verify - app.tar.gz.sig --key alias/releases
  kms-sig verify app.tar.gz --trust vendor.pub
  kms-sig verify app.tar.gz --trust allowed_signers --principal release@example.com")]
pub struct Verify {
    /// The file to verify; - is standard input
    #[arg(value_parser = stream())]
    pub(crate) file: Stream,
    /// Its signature; - is standard input [default: FILE.sig]
    ///
    /// With --trust: whatever lies beside FILE under the names of the formats that the keys have.
    #[arg(value_parser = stream())]
    pub(crate) sig: Option<Stream>,
    /// A key that is trusted; may be repeated [default: any AWS key that you may use]
    ///
    /// Without it, a signature by anyone who shared a key of theirs with you is valid too: then
    /// look at the key that is printed.
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// A file of public keys that are trusted, instead of keys of KMS; may be repeated
    ///
    /// A PEM public key, a minisign public key, OpenSSH public keys, allowed signers, or an OpenPGP
    /// certificate of one key. Nobody is asked. The format of the signature is recognised.
    #[arg(long, value_name = "KEYFILE", conflicts_with_all = ["keys", "pairs"])]
    pub(crate) trust: Vec<PathBuf>,
    /// With --trust: what an SSH signature must be for [default: file]
    #[arg(long, value_name = "NAMESPACE", requires = "trust")]
    pub(crate) namespace: Option<String>,
    /// With --trust: whose an SSH signature must be, by the allowed signers [default: anybody
    /// there]
    #[arg(long, value_name = "PRINCIPAL", requires = "trust")]
    pub(crate) principal: Option<String>,
    /// With --trust: accept a signature that names another file
    #[arg(long, requires = "trust")]
    pub(crate) any_name: bool,
    /// The pairs that were named when signing
    #[command(flatten)]
    pub(crate) context: ContextArgs,
    /// Say why a signature is invalid
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// `--context`, for signing and verifying.
#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    /// Encryption context, k=v,k=v; may be repeated. A comma inside a value is written \,
    ///
    /// Must be the same when signing and when verifying. CloudTrail logs it in clear: no secrets
    /// here.
    #[arg(long = "context", value_name = "K=V,…")]
    pub(crate) pairs: Vec<String>,
}

/// `watch`
#[derive(Debug, Args)]
#[command(after_long_help = "\
SIGTERM and SIGINT end it after the files in hand, a second one at once. SIGHUP has it read the policy anew.

Examples:
  kms-sig watch --policy /etc/kms-sig/policy.toml
  kms-sig watch --policy ci.toml --once       signs or judges what is there, then ends
  kms-sig watch --policy new.toml --once --dry-run")]
pub struct Watch {
    /// Which policy
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Deal with the files that are there, print a summary, and end
    ///
    /// Waits for files to settle, counted from their change time, but not for grace or
    /// signature_timeout: what is not yet older than those is left and listed. Exit codes: 0 all
    /// signed or valid, 1 some invalid or missing, 3 some left.
    #[arg(long)]
    pub(crate) once: bool,
    /// Say what would be done, and change nothing
    ///
    /// Makes no KMS call for files to be signed; signatures are really verified.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run as root although the policy does not allow it
    #[arg(long)]
    pub(crate) allow_root: bool,
}

/// `show`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing of what is shown is proven before the signature is verified.

Example:
  kms-sig show app.tar.gz.sig")]
pub struct Show {
    /// The signature; - is standard input
    #[arg(value_parser = stream())]
    pub(crate) sig: Stream,
}

/// Reads the arguments of the process.
///
/// # Errors
/// The exit code, after what is to be said has been printed: help and version to standard output
/// with code 0, a usage error to standard error with code 2.
pub fn parse() -> Result<Cli, Exit> {
    // Help goes to standard output, in clap's colours by our rules.
    let colours = if terminal::stdout().is_coloured() { ColorChoice::Always } else { ColorChoice::Never };
    let mut command = Cli::command().color(colours);
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|said| {
        let said = said.format(&mut command);
        if !said.use_stderr() {
            let text = said.render();
            let text =
                if terminal::stdout().is_coloured() { text.ansi().to_string() } else { text.to_string() };
            return match streams::write_stdout(text.as_bytes()) {
                // Who asked for help and closed the pipe has seen enough.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    let line =
                        format!("kms-sig: cannot write to standard output: {}", chain::one_line(&error));
                    writeln!(progress::stderr(), "{}", terminal::stderr().labelled(&line)).ok();
                    Exit::Unfinished
                }
                Ok(()) | Err(_) => Exit::Done,
            };
        }
        // A usage error quotes the argument, which may come from a file's name (P9).
        let colours = terminal::stderr();
        for line in said.to_string().lines() {
            let line = colours.labelled(&Escaped::text(line).to_string());
            writeln!(progress::stderr(), "{line}").ok();
        }
        Exit::Usage
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_context_may_stand_anywhere_as_in_the_original() {
        for line in
            ["--context=a=b k f s", "k --context=a=b f s", "k f s --context=a=b", "k f s --context a=b"]
        {
            let words = ["kms-sig", "sign"].into_iter().chain(line.split(' '));
            let Command::Sign(sign) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
            assert_eq!(sign.context.pairs, ["a=b"], "{line}");
            assert_eq!(sign.third, Some("s".into()), "{line}");
        }
    }

    #[test]
    fn the_signature_lies_beside_the_file() {
        let suffix = crate::signature::Format::Kms.suffix();
        assert_eq!(Stream::from(OsString::from("a/b")).beside(suffix), Stream::File("a/b.sig".into()));
        assert_eq!(Stream::from(OsString::from("-")).beside(suffix), Stream::Standard);
    }
}
