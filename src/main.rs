//! The program `kms-sig`: arguments, tracing, exit code. Decides nothing.

use std::process::ExitCode;

use kms_sig::cli::{self, Command, LogFormat};
use kms_sig::command::{self, Failure, Log};
use kms_sig::log_queue::FlushAtExit;
use kms_sig::service::environment;
use kms_sig::service::human;
use kms_sig::service::journal::{self, Journal};
use kms_sig::terminal::{self, panic, progress};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    environment::forget_empty();
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let _until_exit = FlushAtExit;
    let traced = trace(cli.common.log_format, matches!(cli.command, Command::Watch(_)));
    let log = *traced.as_ref().unwrap_or(&Log::Lines);
    match traced.and_then(|_| command::run(cli)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell(log);
            failure.exit().into()
        }
    }
}

/// Logs go to standard error, as what the program answers goes to standard output; or to the
/// journal. What runs for long is not to wait for whoever reads it.
fn trace(format: Option<LogFormat>, queued: bool) -> Result<Log, Failure> {
    let filter = match std::env::var(cli::LOG_VARIABLE) {
        Ok(filter) => EnvFilter::try_new(filter).map_err(|error| Failure::LogFilter(error.to_string()))?,
        Err(_) => EnvFilter::new("kms_sig=info"),
    };
    let captured = journal::has_stderr();
    let journal = match format {
        Some(LogFormat::Journal) => Some(Journal::open().map_err(Failure::Journal)?),
        None if captured => Journal::open().ok(), // otherwise line by line, as the journal takes them, too
        None | Some(LogFormat::Human | LogFormat::Json) => None,
    };
    if queued {
        progress::queue();
        panic::to_log();
    }
    if let Some(journal) = journal {
        let journal = if queued { journal.queued().map_err(Failure::Journal)? } else { journal };
        tracing_subscriber::registry().with(filter).with(journal).init();
        return Ok(if captured { Log::Captured } else { Log::Journal });
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(progress::stderr);
    // A log that cannot be written must not end the program, as complaining about it to the same
    // place would.
    let log = log.log_internal_errors(false);
    if format == Some(LogFormat::Json) {
        log.json().flatten_event(true).init();
        return Ok(Log::Lines);
    }
    let log = log.with_target(false).with_ansi(terminal::stderr().is_coloured()).fmt_fields(human::fields());
    match captured {
        true => log.without_time().init(), // the journal has its own
        false => log.init(),
    }
    Ok(Log::Lines)
}
