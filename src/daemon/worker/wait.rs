//! What a pair waits for that is not held, and the codes for it.

/// What a pair waits for that is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// An attempt is running or queued.
    Work,
    /// The payload of a signature.
    Payload,
    /// The signature of a payload.
    Signature,
    /// The end of `grace`: it is invalid so far.
    Grace,
    /// The control file of a downloader to go.
    ControlFile,
    /// A writer to close it.
    Writer,
    /// The end of its changes.
    Quiet,
}

/// The codes of all waits; the causes of holds are others.
pub(crate) fn waits() -> impl Iterator<Item = &'static str> {
    Wait::ALL.into_iter().map(Wait::cause).chain([NAME_TAKEN, ORPHAN])
}

/// The code for signatures of ours without their files.
pub(crate) const ORPHAN: &str = "orphan-of-ours";

/// The code for files that wait in the private folder.
pub(crate) const NAME_TAKEN: &str = "name-taken";

pub(crate) const NAME_TAKEN_TEXT: &str =
    "it was taken out of the directory for a moment, and something else has its name since";

pub(crate) const NAME_TAKEN_HINT: &str =
    "rename or remove what has its name; until then it is in .kms-sig there";

/// For what should have been judged long ago.
pub(crate) const OVERDUE_HINT: &str =
    "end whatever writes to it or opens it for writing again and again, which keeps it from being judged";

impl Wait {
    const ALL: [Self; 7] = [
        Self::Work,
        Self::Payload,
        Self::Signature,
        Self::Grace,
        Self::ControlFile,
        Self::Writer,
        Self::Quiet,
    ];

    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Work => "in-hand",
            Self::Payload => "no-payload",
            Self::Signature => "no-signature",
            Self::Grace => "grace",
            Self::ControlFile => "control-file",
            Self::Writer => "being-written",
            Self::Quiet => "settling",
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Work => "being worked on",
            Self::Payload => "a signature without its file",
            Self::Signature => "its signature may still come (signature_timeout)",
            Self::Grace => "does not verify, but may still be arriving (grace)",
            Self::ControlFile => {
                "unfinished: a control file of its downloader lies beside it (control_files)"
            }
            Self::Writer => "somebody still has it open for writing",
            Self::Quiet => "still changing",
        }
    }

    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Work => "nothing",
            Self::Payload => "nothing, if its file is on the way; otherwise remove it",
            Self::Signature => "nothing, if it is on the way; otherwise have it sent",
            Self::Grace => "nothing: it is judged when grace is over, unless it changes",
            Self::ControlFile => {
                "nothing, if the download goes on; otherwise resume it, or remove both files"
            }
            Self::Writer => {
                "nothing, if the upload goes on; otherwise end the process that has it open (fuser -v FILE names it)"
            }
            Self::Quiet => "nothing, if the upload goes on; otherwise end whatever writes to it",
        }
    }
}
