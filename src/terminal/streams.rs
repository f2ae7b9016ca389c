//! Standard streams that were closed when the process began.
//!
//! Rust opens `/dev/null` for each of them before `main`, so that no other file gets its number:
//! then what is written is lost without an error, and what is read is empty. A signature that went
//! there would count as made, and `sign -` would sign nothing. So it is looked at before that, and
//! who uses a stream asks here. Also writes without [`std::io::Stdout`], which takes `EBADF`, of a
//! descriptor that is open for reading alone, for success.

#![expect(unsafe_code, reason = "a function that runs before the runtime has to be named to the linker")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::stdio;

/// For standard input, standard output and standard error.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Runs before `main`, and so before Rust's runtime (System V ABI, "Initialization and Termination
/// Functions").
// SAFETY: the section holds pointers to functions, and this is one, of the calling convention that
// is used. It does not unwind, allocates nothing and needs no runtime: it asks the kernel about
// three descriptors and stores the answers in atomics.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look;

extern "C" fn look() {
    let streams = [stdio::stdin(), stdio::stdout(), stdio::stderr()];
    for (closed, stream) in CLOSED.iter().zip(streams) {
        closed.store(is_closed(stream), Ordering::Relaxed);
    }
}

fn is_closed(stream: BorrowedFd<'_>) -> bool {
    rustix::io::fcntl_getfd(stream) == Err(Errno::BADF)
}

/// Standard input, as a file of its own.
///
/// # Errors
/// It was closed, or no more files can be open.
pub(crate) fn stdin() -> io::Result<File> {
    check(0)?;
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Standard output, as a file of its own. Nothing of it is buffered.
///
/// # Errors
/// It was closed, or no more files can be open.
pub(crate) fn stdout() -> io::Result<File> {
    check(1)?;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Writes to standard output.
///
/// # Errors
/// It was closed, or what write(2) says.
pub(crate) fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    stdout()?.write_all(bytes)
}

/// Whether standard output was closed: nobody wants what is written there.
pub(crate) fn is_stdout_closed() -> bool {
    check(1).is_err()
}

/// Makes sure that a path is not another name of a stream that was closed.
///
/// # Errors
/// `EBADF`, if it is.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    number(path).map_or(Ok(()), check)
}

/// Whether a path is another name of standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    number(path) == Some(1)
}

/// The descriptor that a path is another name of.
fn number(path: &Path) -> Option<usize> {
    match path.to_str()? {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => {
            let number = path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"))?;
            number.parse().ok()
        }
    }
}

fn check(number: usize) -> io::Result<()> {
    match CLOSED.get(number).is_some_and(|closed| closed.load(Ordering::Relaxed)) {
        true => Err(Errno::BADF.into()),
        false => Ok(()),
    }
}
