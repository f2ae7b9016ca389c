//! What the fuzz targets share: a directory to work in, and ways to wait for the library's futures.
//!
//! A target gives hostile bytes to the library by the ways that they really come in: a file that is
//! opened, a directory that is listed, a database that is found. Nothing here knows what the right
//! answer is.

use std::fs::{self, File};
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Names of scratch directories: `PREFIX-TARGET-PID`.
const PREFIX: &str = "kms-sig-fuzz";

/// A private directory (mode 0700) of this process, in memory where the host has a place for that.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory, and removes those of processes that have ended: a fuzzer ends without a
    /// goodbye.
    ///
    /// # Panics
    /// If the directory cannot be made.
    pub fn new(target: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let base = base.canonicalize().expect("a place for temporary files");
        let mine = format!("{PREFIX}-{target}-");
        for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(&mine));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(entry.path()).unwrap_or_default();
            }
        }
        let dir = base.join(format!("{mine}{}", std::process::id()));
        fs::remove_dir_all(&dir).unwrap_or_default();
        fs::DirBuilder::new().mode(0o700).create(&dir).expect("a scratch directory");
        Self(dir)
    }

    /// Where it is: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file of it with mode 0600 that holds `bytes` and nothing from before.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        // Removed first: a file that is truncated and written again goes to the disk at once on
        // some file systems.
        fs::remove_file(&path).unwrap_or_default();
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).expect("a file");
        file.write_all(bytes).expect("room for a file");
        path
    }

    /// A directory of it with mode 0700 and nothing in it.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::remove_dir_all(&path).unwrap_or_default();
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a directory");
        path
    }
}

/// Waits for a future on this thread.
///
/// # Panics
/// If no runtime can be built.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
