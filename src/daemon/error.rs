//! Why the daemon did not start, or ended.

use std::path::PathBuf;

use tokio::task::JoinError;

use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::FsError;
use crate::fs::host::HostError;
use crate::fs::trust::TrustError;
use crate::hold::Hold;
use crate::sink::directory::quarantine::store::StoreError;
use crate::state::StateError;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Running as root without permission to.
    #[error("refusing to run as root; run it as a user of its own, or set allow_root = true")]
    Root,
    /// This host lacks what the daemon cannot work without.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A path that the policy names is not safe from others.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Another process holds the lock on the state directory.
    #[error("another kms-sig is using the state in {}; stop it, or name another state.dir", quoted(.0))]
    Locked(PathBuf),
    /// The quarantine store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// State cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Durability of published files can no longer be guaranteed.
    #[error("nothing more can be published: {0}")]
    Fatal(Hold),
    /// A new policy changes a setting that needs a restart.
    #[error("{0} cannot change while the daemon runs; restart it")]
    Fixed(&'static str),
    /// Files in hand were not finished in time, or a second stop order came.
    #[error("ended with files in hand; the next start takes them up")]
    Unfinished,
    /// A task panicked or ended early; its name and cause.
    #[error("BUG: a part of the daemon ended: {0}")]
    Worker(String),
}

impl From<JoinError> for DaemonError {
    fn from(lost: JoinError) -> Self {
        Self::Worker(lost.to_string())
    }
}

impl DaemonError {
    /// The exit code it ends the process with.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            // As `check` has it: what a restart does not change ends no unit's restarts otherwise.
            Self::Trust(TrustError::Io(error))
            | Self::Store(StoreError::Trust(TrustError::Io(error)) | StoreError::Fs(error))
            | Self::Fs(error) => {
                if error.is_lasting() {
                    Exit::Usage
                } else {
                    Exit::Unfinished
                }
            }
            Self::Root
            | Self::Host(_)
            | Self::Trust(_)
            | Self::Store(StoreError::Trust(_))
            | Self::Fixed(_) => Exit::Usage,
            Self::Locked(_)
            | Self::Store(StoreError::Locked(_))
            | Self::State(_)
            | Self::Fatal(_)
            | Self::Unfinished
            | Self::Worker(_) => Exit::Unfinished,
        }
    }
}
