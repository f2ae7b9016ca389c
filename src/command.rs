//! The commands, one file each, and what they have in common: failing and speaking.
//!
//! A command answers on standard output, complains on standard error, and hands back its exit code.
//! What can go wrong is one enum, and which exit code and which hint belong to it is one `match`
//! each.

mod answer;
mod ask_kms;
mod asked;
pub(crate) mod backlog;
pub(crate) mod check;
mod complaint;
pub(crate) mod events;
pub(crate) mod explain;
mod failure;
mod hint;
pub(crate) mod history;
pub(crate) mod input;
pub(crate) mod key;
pub(crate) mod occupant;
pub(crate) mod order;
mod public_key;
pub(crate) mod quarantine;
pub(crate) mod show;
pub(crate) mod sign;
pub(crate) mod status;
mod table;
pub(crate) mod verify;
mod verify_public;
pub(crate) mod version;
pub(crate) mod watch;
use crate::cli::{Cli, Command};
use crate::exit::Exit;
use crate::fs::host;
use answer::answer;
use ask_kms::{block_on, need_keyring};
use complaint::{complain, complain_missing};
pub use failure::{Failure, Log};

/// Runs what was asked for.
///
/// # Errors
/// [`Failure`]; nothing has been said about it yet.
pub fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { command, common } = cli;
    if works_on_folders(&command) {
        host::probe()?;
    }
    match command {
        Command::Sign(arguments) => sign::run(&arguments, common.keyring()),
        Command::Verify(arguments) => verify::run(&arguments, common.keyring()),
        Command::Watch(arguments) => watch::run(&arguments, common.keyring(), common.logs_for_people()),
        Command::Status(arguments) => status::run(&arguments),
        Command::Backlog(arguments) => backlog::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Rescan(arguments) => order::rescan(&arguments),
        Command::Reload(arguments) => order::reload(&arguments),
        Command::Check(arguments) => check::run(&arguments, common.keyring()),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::History(arguments) => history::run(&arguments, common.keyring()),
        Command::Show(arguments) => show::run(&arguments),
        Command::Quarantine(arguments) => quarantine::run(&arguments, common.keyring()),
        Command::Key(arguments) => key::run(&arguments, common.keyring()),
        Command::Version => version::run(),
    }
}

/// Whether a command does in folders what the daemon does, and so needs of the host what that does.
const fn works_on_folders(command: &Command) -> bool {
    match command {
        Command::Watch(_) | Command::Check(_) | Command::Explain(_) | Command::Quarantine(_) => true,
        Command::Sign(_)
        | Command::Verify(_)
        | Command::Status(_)
        | Command::Backlog(_)
        | Command::Events(_)
        | Command::Rescan(_)
        | Command::Reload(_)
        | Command::History(_)
        | Command::Show(_)
        | Command::Key(_)
        | Command::Version => false,
    }
}
