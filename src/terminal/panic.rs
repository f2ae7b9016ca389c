//! What a panic says on standard error, in the order of what was said before and without waiting
//! for whoever reads it: a thread that waits there would never be found to have panicked.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::thread;

use super::progress;
use crate::escape::Escaped;

/// From now on panics go the way of the log. They read as the ones of Rust do, with the backtrace
/// if `RUST_BACKTRACE` asks for it.
pub fn to_log() {
    panic::set_hook(Box::new(|panic| {
        // There is nobody left to tell.
        progress::stderr().write_all(told(panic).as_bytes()).unwrap_or_default();
    }));
}

fn told(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = Escaped::text(thread.name().unwrap_or("<unnamed>")).to_string();
    let at = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
    let mut told = format!("thread '{name}' panicked{at}: {}\n", Escaped::text(message(panic.payload())));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        writeln!(told, "{backtrace}").unwrap_or_default(); // a String takes everything
    }
    told
}

/// What it was called with, where that is text.
fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_it_was_called_with() {
        for (payload, text) in [
            (Box::new("fixed") as Box<dyn Any + Send>, "fixed"),
            (Box::new("made".to_owned()), "made"),
            (Box::new(7), "(no text)"),
        ] {
            assert_eq!(message(&*payload), text);
        }
    }
}
