//! Why a command failed: its exit code, its hint and its message.

use std::io;

use super::complaint::complain;
use super::hint;
use super::history::HistoryFailure;
use super::input::ReadError;
use super::occupant::Stranger;
use super::quarantine::StoreTrouble;
use crate::chain;
use crate::cli::{KEYRING_VARIABLE, LOG_VARIABLE};
use crate::context::ContextError;
use crate::control::client::ControlError;
use crate::daemon::DaemonError;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::FsError;
use crate::fs::atomic_write::WriteError;
use crate::fs::host::HostError;
use crate::key::{KeyArn, KeyError, KeyId, Provider};
use crate::kms::Trouble;
use crate::kms::local::KeyringError;
use crate::message::log;
use crate::policy::Faults;
use crate::signing::UnfitKey;
use crate::state::StateError;
use crate::trust::key_file::KeyFileError;
use crate::trust::openpgp::CertificateError;

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// To standard error, line by line.
    Lines,
    /// To the journal.
    Journal,
    /// To the journal, and standard error goes there as well.
    Captured,
}

/// Why a command came to no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A key that is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A context that is none.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A local key, and no keyring to look in.
    #[error("{0} needs a keyring")]
    NoKeyring(String),
    /// File and signature cannot both come from standard input.
    #[error("the file and its signature cannot both be standard input")]
    BothStandard,
    /// The signature would take the place of what it signs.
    #[error("the signature would replace the file itself")]
    Itself,
    /// What has the signature's place is no signature of ours.
    #[error("{file} is {what}; it is left as it is")]
    Occupied {
        /// The signature's place, as messages show it.
        file: String,
        /// What is there.
        what: Stranger,
        /// Whether somebody named that place.
        is_named: bool,
    },
    /// A key that cannot be one.
    #[error("the key is no text in UTF-8")]
    KeyNotText,
    /// No file to sign.
    #[error("no FILE is named")]
    NoFile,
    /// Every format names a key, and there are as many arguments as with one.
    #[error("each --format names its key, and KEY, FILE and SIG are given as well")]
    KeyTwice,
    /// Several signatures, and one place.
    #[error("several signatures cannot go to one place")]
    OnePlace,
    /// Two formats that share a suffix.
    #[error("two of the signatures would have one name, FILE{0}")]
    SameName(String),
    /// An option of a format that is not made.
    #[error("{option} is for signatures of the format {format}, and none is asked for")]
    Unused {
        /// The option.
        option: &'static str,
        /// Whose it is.
        format: &'static str,
    },
    /// OpenPGP without a certificate.
    #[error("an OpenPGP signature by {0} needs the certificate of that key")]
    NoCertificate(String),
    /// A principal, and nothing that says who that is.
    #[error("--principal names somebody, and no --trust file is a list of allowed signers")]
    NoSigners,
    /// Allowed signers of nobody.
    #[error("allowed signers say whose the key is, and no --principal is named")]
    NoPrincipal,
    /// A certificate of nobody.
    #[error("a certificate says whose the key is, and no --user-id is named")]
    NoUserId,
    /// A certificate of no time.
    #[error("a certificate says when its key was made, and nobody here knows it of {0}")]
    NoCreated(String),
    /// A key that is yet to be made.
    #[error("--created is in the future")]
    CreatedInFuture,
    /// A certificate that nobody would take.
    #[error("--expires is over")]
    ExpiresTooEarly,
    /// A time that OpenPGP cannot write.
    #[error("OpenPGP ends in 2106")]
    ExpiresTooLate,
    /// A certificate that is none.
    #[error("{file} is no certificate to sign with")]
    Certificate {
        /// The file, as messages show it.
        file: String,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A file that says nobody to trust.
    #[error("{file} is no file of public keys")]
    KeyFile {
        /// The file, as messages show it.
        file: String,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// A key that does not make what is asked for.
    #[error("{key} cannot sign so")]
    Unfit {
        /// The key.
        key: String,
        /// Why not.
        source: UnfitKey,
    },
    /// Signatures are not text.
    #[error("a signature is binary and standard output is a terminal")]
    Terminal,
    /// The log filter of the environment cannot be read.
    #[error("{LOG_VARIABLE} is no log filter: {}", Escaped::text(.0))]
    LogFilter(String),
    /// The journal was asked for as the log.
    #[error("cannot log to the journal")]
    Journal(#[source] io::Error),
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A signature cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// KMS or the keyring did not sign.
    #[error("cannot sign {file}")]
    Sign {
        /// The file, as messages show it.
        file: String,
        /// Who keeps the key.
        provider: Provider,
        /// What KMS said.
        source: Trouble,
    },
    /// KMS or the keyring did not say whether the signature is valid.
    #[error("cannot verify {file}")]
    Verify {
        /// The file, as messages show it.
        file: String,
        /// Who keeps the keys. AWS, if some are there.
        provider: Provider,
        /// What KMS said.
        source: Trouble,
    },
    /// KMS or the keyring did not tell the public half of a key.
    #[error("cannot get the public key of {key}")]
    PublicKey {
        /// The key.
        key: KeyId,
        /// What KMS said.
        source: Trouble,
    },
    /// A local signature, and no local key named.
    #[error(
        "cannot verify {file}: the signature says that {key} made it, and local keys are used only when named"
    )]
    LocalUnnamed {
        /// The file, as messages show it.
        file: String,
        /// The key that the signature names.
        key: KeyArn,
    },
    /// Nobody takes the answer.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The record cannot be shown or proven.
    #[error(transparent)]
    History(#[from] HistoryFailure),
    /// The daemon was not asked, or did not do what it was asked for.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// KMS or the keyring did not open a seal.
    #[error("cannot open the seals of the record")]
    Seal {
        /// Who keeps the key.
        provider: Provider,
        /// What KMS said.
        source: Trouble,
    },
    /// This host lacks what every file needs.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A policy with faults.
    #[error(transparent)]
    Policy(#[from] Faults),
    /// The daemon did not start, or ended.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The quarantine store is not to be had.
    #[error(transparent)]
    Store(#[from] StoreTrouble),
    /// State cannot be written to.
    #[error(transparent)]
    State(#[from] StateError),
    /// A directory cannot be made or opened.
    #[error(transparent)]
    Directory(#[from] FsError),
    /// The process cannot get what it needs to talk to the network.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

impl Failure {
    /// The exit code it ends the process with.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Key(_)
            | Self::Context(_)
            | Self::NoKeyring(_)
            | Self::BothStandard
            | Self::Itself
            | Self::Occupied { .. }
            | Self::Write(WriteError::Planted { .. } | WriteError::Open { .. })
            | Self::KeyNotText
            | Self::NoFile
            | Self::KeyTwice
            | Self::OnePlace
            | Self::SameName(_)
            | Self::Unused { .. }
            | Self::NoCertificate(_)
            | Self::NoPrincipal
            | Self::NoSigners
            | Self::NoUserId
            | Self::NoCreated(_)
            | Self::CreatedInFuture
            | Self::ExpiresTooEarly
            | Self::ExpiresTooLate
            | Self::Certificate { .. }
            | Self::KeyFile { .. }
            | Self::Unfit { .. }
            | Self::Terminal
            | Self::LogFilter(_)
            | Self::Host(_)
            | Self::Keyring(
                KeyringError::Exists { .. }
                | KeyringError::Full(_)
                | KeyringError::NotLocal(_)
                | KeyringError::Write(WriteError::Open { .. }),
            ) => Exit::Usage,
            Self::Policy(faults) if faults.may_pass() => Exit::Unfinished,
            Self::Policy(_) => Exit::Usage,
            Self::Daemon(error) => error.exit(),
            Self::Store(trouble) => trouble.exit(),
            Self::History(error) => error.exit(),
            Self::Control(error) => error.exit(),
            Self::Read(_)
            | Self::Write(_)
            | Self::Directory(_)
            | Self::State(_)
            | Self::Keyring(_)
            | Self::Sign { .. }
            | Self::Verify { .. }
            | Self::Seal { .. }
            | Self::PublicKey { .. }
            | Self::LocalUnnamed { .. }
            | Self::Output(_)
            | Self::Journal(_)
            | Self::Runtime(_) => Exit::Unfinished,
        }
    }

    /// What a person can do about it, where that is not plain from the message.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKeyring(_) => format!("name it with --keyring FILE or {KEYRING_VARIABLE}"),
            Self::BothStandard => "name the signature: kms-sig verify - SIG".to_owned(),
            Self::Itself => "leave SIG out for FILE.sig, or name another file".to_owned(),
            Self::Occupied { is_named: true, .. } => {
                "give one FILE at a time: the second is the place for the \
                 signature; to have it replaced all the same, add --force"
                    .to_owned()
            }
            Self::Occupied { is_named: false, .. } => {
                "name another file for the signature (kms-sig sign KEY FILE \
                 SIG), or replace what is there with --force"
                    .to_owned()
            }
            Self::KeyNotText => "write a key id, key ARN, alias/NAME, alias ARN or local:NAME".to_owned(),
            Self::NoFile => "write kms-sig sign KEY FILE".to_owned(),
            Self::KeyTwice => "leave KEY out, or one of the keys before the =".to_owned(),
            Self::OnePlace => "leave SIG out, and name a FILE: each goes beside it".to_owned(),
            Self::SameName(_) => "make them one by one, and name a SIG for each".to_owned(),
            Self::Unused { format, .. } => format!("add --format {format}, or leave the option out"),
            Self::NoCertificate(key) => format!(
                "make it once: kms-sig key public {key} --format openpgp --user-id 'NAME <ADDRESS>' > FILE; then --certificate FILE"
            ),
            Self::NoSigners => {
                "write a file of lines PRINCIPAL TYPE KEY, or leave --principal out".to_owned()
            }
            Self::NoPrincipal => {
                "add --principal releases@example.com: what ssh-keygen -I will name".to_owned()
            }
            Self::NoUserId => "add --user-id 'Releases <releases@example.com>'".to_owned(),
            Self::NoCreated(key) => format!(
                "add --created DAY, and use the same day each time; aws kms describe-key --key-id {key} shows it"
            ),
            Self::CreatedInFuture => "name the day on which the key was made".to_owned(),
            Self::ExpiresTooEarly | Self::ExpiresTooLate => "name a later or an earlier day".to_owned(),
            Self::Certificate { .. } => "name what kms-sig key public --format openpgp printed".to_owned(),
            Self::KeyFile { .. } => {
                "name a PEM, minisign, OpenSSH, allowed signers or OpenPGP public key file".to_owned()
            }
            Self::Unfit { source, .. } => return hint::unfit(source).map(str::to_owned),
            Self::Terminal => "name a file for the signature, or redirect standard output".to_owned(),
            Self::LogFilter(_) => format!("write for example {LOG_VARIABLE}=kms_sig=debug"),
            Self::Journal(_) => "use --log-format human or json where no journald listens".to_owned(),
            Self::Read(ReadError::Changed { .. }) => "run it again when nobody writes to it".to_owned(),
            Self::Control(error) => return error.hint().map(str::to_owned),
            Self::Read(
                ReadError::Payload { source, .. }
                | ReadError::Signature { source, .. }
                | ReadError::Keys { source, .. },
            ) => hint::reading(source).to_owned(),
            Self::Write(error) => hint::writing(error).to_owned(),
            Self::Directory(error) => hint::directory(error).to_owned(),
            Self::Output(error) | Self::Runtime(error) => hint::stream(error).to_owned(),
            Self::LocalUnnamed { key, .. } => format!("verify with --key {key} --keyring FILE"),
            Self::Sign { provider, source, .. }
            | Self::Verify { provider, source, .. }
            | Self::Seal { provider, source } => {
                return hint::trouble(*provider, source).map(str::to_owned);
            }
            Self::PublicKey { key, source } => {
                return hint::trouble(key.provider(), source).map(str::to_owned);
            }
            Self::Store(trouble) => return trouble.hint(),
            Self::History(error) => return error.hint().map(str::to_owned),
            Self::Key(error) => return hint::key(error).map(str::to_owned),
            Self::Context(error) => return hint::context(error).map(str::to_owned),
            Self::Keyring(error) => return hint::keyring(error).map(str::to_owned),
            Self::Host(error) | Self::Daemon(DaemonError::Host(error)) => error.hint(),
            Self::Daemon(error) => return hint::daemon(error).map(str::to_owned),
            Self::State(error) => return hint::state(error).map(str::to_owned),
            Self::Policy(_) => return None, // each fault says what to write instead
        };
        Some(hint)
    }

    /// Says it to who waits for the command, and to the log where that is somewhere else. What goes
    /// to the journal anyway goes as an event, so that who asks it for errors finds this one.
    pub fn tell(&self, log: Log) {
        let logs = log != Log::Lines && tracing::enabled!(tracing::Level::ERROR);
        if logs {
            self.log();
        }
        if !logs || log != Log::Captured {
            self.complain();
        }
    }

    fn log(&self) {
        if let Self::Policy(faults) = self {
            for fault in faults {
                let (file, line, fault) = (quoted(faults.file()), fault.line, &fault.message);
                log!(PolicyFault, %file, line, fault);
            }
            return;
        }
        log!(EndedByError, reason = chain::one_line(self), hint = self.hint());
    }

    /// On standard error: one line, and one with the hint.
    fn complain(&self) {
        if let Self::Policy(faults) = self {
            complain(&faults.to_string()); // each on a line of its own, with its place in the file
            return;
        }
        complain(&format!("kms-sig: {}", chain::one_line(self)));
        if let Some(hint) = self.hint() {
            complain(&format!("hint: {hint}"));
        }
    }
}
