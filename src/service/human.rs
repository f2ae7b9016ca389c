//! Fields of a log line as people read them: `name=value`, with a value in quotes where it could be
//! taken for more than one field. A sender chooses the names of files, and must not be able to
//! write a verdict beside them.

use std::fmt;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::escape::word;

/// Formats the fields of events for [`mod@tracing_subscriber::fmt`].
pub fn fields() -> impl for<'w> format::FormatFields<'w> + 'static {
    format::debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        if field.name() == "message" {
            return write!(writer, "{value:?}");
        }
        let (name, value) = (field.name(), format!("{value:?}"));
        match writer.has_ansi_escapes() {
            true => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}", word(&value)),
            false => write!(writer, "{name}={}", word(&value)),
        }
    })
    .delimited(" ")
}
