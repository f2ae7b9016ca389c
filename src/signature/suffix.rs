//! How signatures are named: what follows the name of their payload.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

/// What a signature's name has after the payload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suffix(&'static str);

impl Suffix {
    /// For formats alone, which say what theirs is.
    pub(super) const fn new(suffix: &'static str) -> Self {
        Self(suffix)
    }

    /// Bytes that it adds to a name.
    pub const fn byte_len(self) -> usize {
        self.0.len()
    }

    /// The name of the signature of this payload. Also of a whole path.
    pub fn signature_of(self, payload: &OsStr) -> OsString {
        let mut name = payload.to_owned();
        name.push(self.0);
        name
    }

    /// The payload that has this name as its signature's, if it can be one's. Of the suffix alone
    /// it is empty.
    pub fn payload_of(self, signature: &OsStr) -> Option<&OsStr> {
        signature.as_bytes().strip_suffix(self.0.as_bytes()).map(OsStr::from_bytes)
    }

    /// The payload, if a name ends in the suffix but for the case of its letters.
    pub fn payload_in_other_case(self, name: &OsStr) -> Option<&OsStr> {
        let (payload, end) = name.as_bytes().split_at_checked(name.len().checked_sub(self.0.len())?)?;
        let is_other = end.eq_ignore_ascii_case(self.0.as_bytes()) && end != self.0.as_bytes();
        is_other.then(|| OsStr::from_bytes(payload))
    }

    /// Whether a name, or a pattern of names, ends in it.
    pub fn ends(self, name: &str) -> bool {
        name.ends_with(self.0)
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
