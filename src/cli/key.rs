//! `key`: what can be written after it.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _, ValueParser};
use clap::{Args, Subcommand, ValueEnum};

use crate::clock;
use crate::kms::local::KeyType;

/// `key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Makes a new key, and the keyring if there is none
    #[command(after_long_help = "\
Examples:
  kms-sig key create local:demo --keyring /var/lib/kms-sig/keyring
  kms-sig key create local:releases --type ed25519")]
    Create {
        /// The new key: local:NAME
        key: String,
        /// What it is for
        ///
        /// aes makes the signatures of kms-sig itself, which nobody without the keyring can verify.
        /// The others make signatures that are verified with a public key.
        #[arg(long = "type", value_name = "TYPE", value_parser = key_type(), default_value = KeyType::Aes.as_str())]
        key_type: KeyType,
    },
    /// Lists the keys, when they were made, and their types
    List,
    /// Prints the public half of a key, local or of AWS
    Public(PublicArgs),
}

/// `key public`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Asks KMS for it (kms:GetPublicKey), or the keyring. Symmetric keys have none. An OpenPGP certificate \
is signed by its key: that takes kms:Sign.

Examples:
  kms-sig key public local:releases > releases.pem
  kms-sig key public alias/releases --format minisign > releases.pub
  kms-sig key public alias/releases --format allowed-signers --principal releases@example.com
  kms-sig key public alias/releases --format openpgp --user-id 'Releases <releases@example.com>' \
      --created 2026-01-01 > releases.asc
  kms-sig key public alias/releases --format openpgp --renew releases.asc --expires 2030-01-01")]
pub struct PublicArgs {
    /// The key: a key id, key ARN, alias/NAME, alias ARN or local:NAME
    pub(crate) key: String,
    /// How it is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = KeyFormat::Pem)]
    pub(crate) format: KeyFormat,
    /// allowed-signers: whose key it is, as ssh-keygen -I names it
    #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
    pub(crate) principal: Option<String>,
    /// openpgp: whose key it is
    ///
    /// A name, and an address of mail in angle brackets.
    #[arg(long, value_name = "USER_ID", value_parser = user_id, conflicts_with = "renew")]
    pub(crate) user_id: Option<String>,
    /// openpgp: when the key was made [default: of a local key, when it was]
    ///
    /// YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ. The fingerprint depends on it: the same arguments give
    /// the same one.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "renew")]
    pub(crate) created: Option<u64>,
    /// openpgp: when the certificate ends [default: never]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) expires: Option<u64>,
    /// openpgp: the certificate to extend; its earlier signatures stay
    #[arg(long, value_name = "FILE")]
    pub(crate) renew: Option<PathBuf>,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyFormat {
    /// The SubjectPublicKeyInfo as PEM, as OpenSSL and cosign read it
    Pem,
    /// One line, as OpenSSH reads it
    Ssh,
    /// The file that minisign -p reads
    Minisign,
    /// A certificate for gpg, gpgv, sq and sqv
    Openpgp,
    /// The file that ssh-keygen -Y verify -f reads
    AllowedSigners,
}

impl KeyFormat {
    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pem => "pem",
            Self::Ssh => "ssh",
            Self::Minisign => "minisign",
            Self::Openpgp => "openpgp",
            Self::AllowedSigners => "allowed-signers",
        }
    }
}

/// A day or a moment, in seconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    let moment = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    clock::second_of(&moment).ok_or_else(|| "write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ".to_owned())
}

/// One name, and no pattern: what has a meaning of its own in such a file is no part of it.
fn principal(text: &str) -> Result<String, String> {
    let is_meant = |c: char| c.is_whitespace() || c.is_control() || "\"#!*?,".contains(c);
    match text.is_empty() || text.contains(is_meant) {
        true => {
            Err("write one name, as releases@example.com: without blanks and any of \" # ! * ? ,".to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

fn user_id(text: &str) -> Result<String, String> {
    let is_good = !text.trim().is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
    if is_good { Ok(text.to_owned()) } else { Err("write NAME <ADDRESS>, at most 255 bytes".to_owned()) }
}

fn key_type() -> ValueParser {
    PossibleValuesParser::new(KeyType::ALL.map(KeyType::as_str))
        .try_map(|name| name.parse::<KeyType>())
        .into()
}
