//! A file that says whom to trust, in any of the forms that others write: what it is, is seen by
//! what is in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::allowed_signers::{AllowedSigners, AllowedSignersError};
use super::minisign_key::{self, KeyNumber};
use super::openpgp::{Certificate, CertificateError};
use super::ssh_key::{self, SshKeyError};
use super::{PublicKey, PublicKeyError};

/// The largest file that is read, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;

/// Whom a file says to trust, and for which signatures.
#[derive(Debug, Clone)]
pub enum KeyFile {
    /// For signatures that are nothing else, and for sigstore bundles.
    Pem(PublicKey),
    /// For minisign's.
    Minisign(KeyNumber, PublicKey),
    /// For SSH signatures in the namespace that is asked for.
    Ssh(Vec<PublicKey>),
    /// The same, by what the file says.
    AllowedSigners(AllowedSigners),
    /// For OpenPGP's.
    OpenPgp(Box<Certificate>),
}

/// Why nobody can be trusted for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Larger than such a file is.
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// Empty, or only comments.
    #[error("it names no key")]
    Empty,
    /// A file that must not lie about.
    #[error("it holds a private key; name the file with the public one")]
    Private,
    /// A PEM block.
    #[error(transparent)]
    Pem(#[from] PublicKeyError),
    /// What begins like a key of minisign.
    #[error("it is no minisign public key: a line \"untrusted comment: …\" and one of base64")]
    Minisign,
    /// Lines of OpenSSH public keys.
    #[error("line {line}: {flaw}")]
    Ssh {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        flaw: SshKeyError,
    },
    /// Lines of allowed signers, or something else altogether.
    #[error("it is no PEM, minisign, OpenSSH or OpenPGP public key, and no list of allowed signers")]
    AllowedSigners(#[from] AllowedSignersError),
    /// A certificate of OpenPGP.
    #[error(transparent)]
    OpenPgp(#[from] CertificateError),
    /// A certificate that only a verifier with a policy can judge.
    #[error(
        "it has subkeys, revocations or signatures of others, which only sq or gpg judge; kms-sig takes certificates of one key that signs"
    )]
    Certificate,
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyFileError> {
        if bytes.len() > MAX_LEN {
            return Err(KeyFileError::TooLarge);
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if !text.starts_with("-----BEGIN PGP PUBLIC") => text,
            Ok(_) | Err(_) => return openpgp(bytes),
        };
        if is_private(text) {
            return Err(KeyFileError::Private);
        }
        if text.contains("-----BEGIN ") {
            return if text.contains("-----BEGIN PGP ") {
                openpgp(bytes)
            } else {
                Ok(Self::Pem(PublicKey::from_pem(text)?))
            };
        }
        if let Some((number, key)) = minisign_key::from_file(text) {
            return Ok(Self::Minisign(number, key));
        }
        if text.starts_with("untrusted comment:") {
            return Err(KeyFileError::Minisign);
        }
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .peekable();
        let (_, first) = lines.peek().ok_or(KeyFileError::Empty)?;
        if first.split([' ', '\t']).next().is_some_and(ssh_key::is_type) {
            let key = |(line, text): (usize, &str)| {
                ssh_key::from_line(text).map(|(key, _)| key).map_err(|flaw| KeyFileError::Ssh { line, flaw })
            };
            return lines.map(key).collect::<Result<_, _>>().map(Self::Ssh);
        }
        Ok(Self::AllowedSigners(AllowedSigners::parse(text)?))
    }
}

/// Whether it is a file that only its owner may have: of PEM (OpenSSH's too), PuTTY, or minisign,
/// whose secret keys have 158 bytes, encrypted or not.
fn is_private(text: &str) -> bool {
    let is_begin = |line: &str| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY");
    let is_minisign = |line: &str| {
        STANDARD.decode(line.trim_ascii()).is_ok_and(|key| key.len() == 158 && key.starts_with(b"Ed"))
    };
    text.starts_with("PuTTY-User-Key-File")
        || text.lines().any(is_begin)
        || text.lines().take(2).any(is_minisign)
}

fn openpgp(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
    let certificate = Certificate::parse(bytes)?;
    match certificate.is_of_one_key() {
        true => Ok(KeyFile::OpenPgp(certificate.into())),
        false => Err(KeyFileError::Certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: [u8; 32] = [
        0x19, 0xBF, 0x44, 0x09, 0x69, 0x84, 0xCD, 0xFE, 0x85, 0x41, 0xBA, 0xC1, 0x67, 0xDC, 0x3B, 0x96, 0xC8,
        0x50, 0x86, 0xAA, 0x30, 0xB6, 0xB6, 0xCB, 0x0C, 0x5C, 0x38, 0xAD, 0x70, 0x31, 0x66, 0xE1,
    ];

    #[test]
    fn a_key_file_is_known_by_what_is_in_it() {
        let key = PublicKey::ed25519(&RAW).unwrap();
        let minisign = minisign_key::to_file(&key).unwrap();
        let line = ssh_key::to_line(&key, "me@host");
        let parse = |text: &str| KeyFile::parse(text.as_bytes());
        assert!(matches!(parse(&key.to_pem()), Ok(KeyFile::Pem(read)) if read == key));
        assert!(matches!(parse(&minisign), Ok(KeyFile::Minisign(_, read)) if read == key));
        let alone = minisign.lines().nth(1).unwrap();
        assert!(matches!(parse(alone), Ok(KeyFile::Minisign(_, read)) if read == key));
        assert!(matches!(parse(&format!("# us\n{line}\n{line}")), Ok(KeyFile::Ssh(keys)) if keys.len() == 2));
        assert!(matches!(parse(&format!("me@host {line}")), Ok(KeyFile::AllowedSigners(_))));
        let comment = format!("# the PRIVATE KEY is in KMS\nme@host {line}");
        assert!(matches!(parse(&comment), Ok(KeyFile::AllowedSigners(_))));
    }

    #[test]
    fn what_is_no_key_file_is_told_with_what_to_do() {
        let key = PublicKey::ed25519(&RAW).unwrap();
        let line = ssh_key::to_line(&key, "");
        let secret = [&b"EdScB2"[..], &[0; 152]].concat();
        for (text, part) in [
            (String::new(), "names no key"),
            ("# nobody\n".into(), "names no key"),
            ("-----BEGIN PRIVATE KEY-----\n".into(), "name the file with the public one"),
            ("-----BEGIN CERTIFICATE-----\n".into(), "certificate"),
            ("untrusted comment: a\nRWQ\n".into(), "no minisign public key"),
            (format!("untrusted comment: mine\n{}\n", STANDARD.encode(secret)), "private key"),
            ("PuTTY-User-Key-File-3: ssh-ed25519\n".into(), "private key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n".into(), "private key"),
            ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n".into(), "private key"),
            (format!("{line}\nssh-ed25519 AAAA"), "line 2: "),
            ("hello\n".into(), "line 1: write PRINCIPALS"),
            ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n".into(), "no OpenPGP certificate"),
            ("x".repeat(MAX_LEN + 1), "larger than 1 MiB"),
        ] {
            let told = crate::chain::one_line(&KeyFile::parse(text.as_bytes()).unwrap_err());
            assert!(told.contains(part), "{told}");
        }
    }
}
