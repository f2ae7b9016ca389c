//! In which formats `sign` makes signatures, and under which keys.

use std::str::FromStr;

use clap::ValueEnum;

use crate::signature::{Format, PublicFormat, Suffix};

/// A format of signatures, by the name that it has on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignFormat {
    /// The original's: a ciphertext of KMS, which KMS opens again
    Kms,
    /// For ssh-keygen -Y verify
    Ssh,
    /// For minisign -V
    Minisign,
    /// For gpg, gpgv, sq and sqv
    Openpgp,
    /// For cosign verify-blob
    Sigstore,
    /// For openssl dgst -verify
    Der,
}

impl SignFormat {
    /// The same format, if it is one that a public key verifies.
    const fn public(self) -> Option<PublicFormat> {
        match self {
            Self::Kms => None,
            Self::Ssh => Some(PublicFormat::Ssh),
            Self::Minisign => Some(PublicFormat::Minisign),
            Self::Openpgp => Some(PublicFormat::OpenPgp),
            Self::Sigstore => Some(PublicFormat::Sigstore),
            Self::Der => Some(PublicFormat::Der),
        }
    }

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        self.public().map_or("kms", PublicFormat::as_str)
    }

    /// What its signatures are named by.
    pub(crate) fn suffix(self) -> Suffix {
        self.public().map_or(Format::Kms.suffix(), PublicFormat::suffix)
    }
}

/// `FORMAT`, or `KEY=FORMAT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FormatArg {
    /// The key, where this format names its own.
    pub(crate) key: Option<String>,
    /// The format.
    pub(crate) format: SignFormat,
}

impl FromStr for FormatArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, format) = match text.rsplit_once('=') {
            Some((key, format)) => (Some(key.to_owned()), format),
            None => (None, text),
        };
        let format = SignFormat::from_str(format, false).map_err(|_| {
            let names = SignFormat::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
            format!("write FORMAT or KEY=FORMAT, with one of {}", names.join(", "))
        })?;
        Ok(Self { key, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_may_name_its_key() {
        let parse = |text: &str| text.parse::<FormatArg>().map(|arg| (arg.key, arg.format));
        assert_eq!(parse("ssh"), Ok((None, SignFormat::Ssh)));
        assert_eq!(parse("local:a=minisign"), Ok((Some("local:a".into()), SignFormat::Minisign)));
        assert_eq!(parse("a=b=der"), Ok((Some("a=b".into()), SignFormat::Der)));
        for wrong in ["", "SSH", "gpg", "local:a=", "local:a"] {
            assert!(parse(wrong).unwrap_err().contains("minisign"), "{wrong}");
        }
    }
}
