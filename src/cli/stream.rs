//! A file, or the standard stream that `-` stands for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _, ValueParser};

use crate::escape::quoted;
use crate::signature::Suffix;

/// A file, or the standard stream that `-` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stream {
    /// `-`
    Standard,
    /// Anything else.
    File(PathBuf),
}

pub(super) fn stream() -> ValueParser {
    OsStringValueParser::new().map(Stream::from).into()
}

impl From<OsString> for Stream {
    fn from(argument: OsString) -> Self {
        if argument == "-" { Self::Standard } else { Self::File(argument.into()) }
    }
}

impl Stream {
    /// The signature's place where none is named: beside the file, or the standard stream for one.
    pub(crate) fn beside(&self, suffix: Suffix) -> Self {
        match self {
            Self::Standard => Self::Standard,
            Self::File(path) => Self::File(suffix.signature_of(path.as_os_str()).into()),
        }
    }

    /// Its name in messages, where it is read.
    pub(crate) fn as_input(&self) -> String {
        self.shown("standard input")
    }

    /// Its name in messages, where it is written.
    pub(crate) fn as_output(&self) -> String {
        self.shown("standard output")
    }

    fn shown(&self, standard: &str) -> String {
        match self {
            Self::Standard => standard.to_owned(),
            Self::File(path) => quoted(path),
        }
    }
}
