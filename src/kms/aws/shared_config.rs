//! The AWS configuration files of this user (`~/.aws/config`, `~/.aws/credentials`), and the
//! profile in use.
//!
//! Read for what the SDK does not say or do: whether the named profile exists, and settings that it
//! leaves to others. A profile that somebody names and that exists nowhere is an error; the SDK
//! goes on to the next source of credentials, in the end to the role of the instance.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use aws_config::profile::{self, ProfileFileLoadError, ProfileSet};
use aws_types::os_shim_internal::{Env, Fs};

use crate::chain;
use crate::escape::{Escaped, quoted};

/// The profile that is used if nobody names one.
const DEFAULT: &str = "default";

/// The files as they are now, and the profile that is in use.
#[derive(Debug)]
pub(super) struct SharedConfig {
    profiles: ProfileSet,
    named_by: NamedBy,
}

/// Who says which profile is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// `aws.profile` of the policy. What the profile says goes before the environment.
    Policy,
    /// `AWS_PROFILE`. The environment goes first, as with the AWS CLI.
    Environment,
    /// Nobody: the default one, which need not exist.
    Nobody,
}

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A variable of the environment.
    Variable(&'static str),
    /// A key of a profile.
    Profile {
        /// The profile's name.
        name: String,
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Profile { name, key } => write!(f, "{key} in the AWS profile \"{}\"", Escaped::text(name)),
        }
    }
}

/// Why the files or the profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The named profile is in none of the files.
    #[error(
        "the AWS profile \"{}\" of {named_by} is neither in {} nor in {}; add it, or name another",
        Escaped::text(name), files[0], files[1]
    )]
    Unknown {
        /// The profile.
        name: String,
        /// `aws.profile` or `AWS_PROFILE`.
        named_by: &'static str,
        /// The files that were looked in.
        files: [FileSeen; 2],
    },
    /// A file that breaks the format.
    #[error("cannot read the AWS configuration files")]
    Load(#[from] ProfileFileLoadError),
}

/// A file that was looked in, and why nothing was found if it could not be read.
#[derive(Debug)]
pub struct FileSeen {
    path: PathBuf,
    error: Option<std::io::Error>,
}

impl fmt::Display for FileSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.path))?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, " ({})", chain::one_line(error)))
    }
}

impl SharedConfig {
    /// Reads the files. `profile` is the one that the policy names.
    pub(super) async fn load(profile: Option<&str>) -> Result<Self, ProfileError> {
        let named_by = match profile {
            Some(_) => NamedBy::Policy,
            None if std::env::var_os("AWS_PROFILE").is_some() => NamedBy::Environment,
            None => NamedBy::Nobody,
        };
        let selected = profile.map(|name| Cow::Owned(name.to_owned()));
        let profiles = profile::load(&Fs::real(), &Env::real(), &Default::default(), selected).await?;
        Ok(Self { profiles, named_by })
    }

    /// Whether the profile that is named exists.
    pub(super) fn check_profile(&self) -> Result<(), ProfileError> {
        let name = self.profiles.selected_profile();
        let named_by = match self.named_by {
            NamedBy::Policy => "aws.profile",
            NamedBy::Environment if name != DEFAULT => "AWS_PROFILE",
            NamedBy::Environment | NamedBy::Nobody => return Ok(()),
        };
        if self.profiles.get_profile(name).is_some() {
            return Ok(());
        }
        let files = [
            FileSeen::look("AWS_CONFIG_FILE", "~/.aws/config"),
            FileSeen::look("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        ];
        Err(ProfileError::Unknown { name: name.to_owned(), named_by, files })
    }

    /// A setting that stands in a variable or in the profile. An empty one counts as none.
    pub(super) fn setting(&self, variable: &'static str, key: &'static str) -> Option<(Origin, String)> {
        let in_profile = || {
            let value = self.profiles.get(key).filter(|value| !value.is_empty())?;
            let name = self.profiles.selected_profile().to_owned();
            Some((Origin::Profile { name, key }, value.to_owned()))
        };
        let in_environment = || {
            let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
            Some((Origin::Variable(variable), value))
        };
        match self.named_by {
            NamedBy::Policy => in_profile().or_else(in_environment),
            NamedBy::Environment | NamedBy::Nobody => in_environment().or_else(in_profile),
        }
    }

    /// Who named it.
    pub(super) const fn named_by(&self) -> NamedBy {
        self.named_by
    }
}

impl FileSeen {
    fn look(variable: &str, default: &str) -> Self {
        let named = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
        let path = match (named.strip_prefix("~"), std::env::var_os("HOME")) {
            (Ok(below), Some(home)) => PathBuf::from(home).join(below),
            (Ok(_) | Err(_), _) => named,
        };
        let error = File::open(&path).err();
        Self { path, error }
    }
}
