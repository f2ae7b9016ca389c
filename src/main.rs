//! The program `kms-sig`: arguments, tracing, exit code. Decides nothing.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use kms_sig::cli::{self, LogFormat};
use kms_sig::command::{self, Failure};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    match trace(cli.common.log_format).and_then(|()| command::run(cli)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.tell();
            failure.exit().into()
        }
    }
}

/// Logs go to standard error: what the program answers goes to standard output.
fn trace(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var(cli::LOG_VARIABLE) {
        Ok(filter) => EnvFilter::try_new(filter).map_err(|error| Failure::LogFilter(error.to_string()))?,
        Err(_) => EnvFilter::new("kms_sig=info"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A log that cannot be written must not end the program, as complaining about it to the same place would.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Human => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            log.with_target(false).with_ansi(!plain && io::stderr().is_terminal()).init();
        }
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
