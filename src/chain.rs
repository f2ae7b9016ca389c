//! An error and its causes on one line, the way every message of this program shows them.
//!
//! Each error says its own layer only; here the layers are joined. Escapes nothing: an error that
//! carries a name has escaped it already.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// `cannot read "a": permission denied`: the error, then each cause after a colon.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = words(error);
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&words(cause));
        next = cause.source();
    }
    line
}

/// Whether the system said this at the bottom of it.
pub(crate) fn has(error: &(dyn Error + 'static), errno: Errno) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let is_it = error.downcast_ref::<Errno>() == Some(&errno)
            || error
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.raw_os_error() == Some(errno.raw_os_error()));
        if is_it {
            return true;
        }
        next = error.source();
    }
    false
}

/// The error's own words. Those of the operating system lose their capital and their number.
fn words(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    let from_os =
        error.is::<Errno>() || error.downcast_ref::<io::Error>().is_some_and(|e| e.raw_os_error().is_some());
    if !from_os {
        return text;
    }
    let text = text.split_once(" (os error ").map_or(text.as_str(), |(words, _)| words);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read \"a\"")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open \"a\"")]
    struct OfTheKernel(#[source] Errno);

    #[test]
    fn causes_follow_after_colons() {
        let error = Outer(rustix::io::Errno::ACCESS.into());
        assert_eq!(one_line(&error), "cannot read \"a\": permission denied");
        assert!(has(&error, Errno::ACCESS));
        let error = OfTheKernel(Errno::NOENT);
        assert_eq!(one_line(&error), "cannot open \"a\": no such file or directory");
        assert!(has(&error, Errno::NOENT) && !has(&error, Errno::ROFS));
        let error = Outer(io::Error::from(io::ErrorKind::IsADirectory));
        assert_eq!(one_line(&error), "cannot read \"a\": is a directory");
    }
}
