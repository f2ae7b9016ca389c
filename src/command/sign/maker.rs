//! Who makes one of the signatures that are asked for.

use std::path::Path;

use super::super::occupant::Ours;
use super::super::{Failure, input};
use super::wanted::Wanted;
use crate::cli::{Sign, SignFormat, Stream};
use crate::context::{Context, percent_encoded};
use crate::digest::set::{DigestRequest, DigestSet};
use crate::escape::quoted;
use crate::kms::provider::Providers;
use crate::signature::minisign::default_comment;
use crate::signature::ssh::FILE_NAMESPACE;
use crate::signature::{Format, Suffix};
use crate::signing::{Form, PublicSigner, Signer};
use crate::trust::openpgp::Certificate;

/// What formats leave to the signer.
pub(super) struct Options {
    namespace: String,
    trusted_comment: String,
    certificate: Option<Box<Certificate>>,
    is_armored: bool,
    /// The file's name, where it has one.
    name: Option<String>,
    /// The moment, in seconds since 1970.
    now: u64,
}

impl Options {
    /// What the arguments say, for a file at a moment.
    ///
    /// # Errors
    /// An option that no format takes, or a certificate that is none.
    pub(super) fn read(
        arguments: &Sign,
        wanted: &[Wanted],
        file: &Stream,
        now: u64,
    ) -> Result<Self, Failure> {
        let has = |format| wanted.iter().any(|wanted| wanted.format == format);
        let options = [
            ("--context", !arguments.context.pairs.is_empty(), SignFormat::Kms),
            ("--namespace", arguments.namespace.is_some(), SignFormat::Ssh),
            ("--trusted-comment", arguments.trusted_comment.is_some(), SignFormat::Minisign),
            ("--certificate", arguments.certificate.is_some(), SignFormat::Openpgp),
            ("--binary", arguments.binary, SignFormat::Openpgp),
        ];
        if let Some((option, _, format)) =
            options.into_iter().find(|(_, given, format)| *given && !has(*format))
        {
            return Err(Failure::Unused { option, format: format.as_str() });
        }
        let name = match file {
            Stream::Standard => None,
            Stream::File(path) => path.file_name(),
        };
        Ok(Self {
            namespace: arguments.namespace.clone().unwrap_or_else(|| FILE_NAMESPACE.to_owned()),
            trusted_comment: arguments.trusted_comment.clone().unwrap_or_else(|| default_comment(now, name)),
            certificate: arguments.certificate.as_deref().map(certificate).transpose()?.map(Box::new),
            is_armored: !arguments.binary,
            name: name.map(percent_encoded),
            now,
        })
    }
}

fn certificate(path: &Path) -> Result<Certificate, Failure> {
    let bytes = input::key_file(path)?;
    Certificate::parse(&bytes).map_err(|source| Failure::Certificate { file: quoted(path), source })
}

/// A key and a format, ready to sign.
pub(super) enum Maker<'a> {
    /// Encrypt of the digest.
    Kms(Signer<'a, Providers>, &'a Wanted),
    /// Sign.
    Public { signer: PublicSigner<'a, Providers>, form: Form, wanted: &'a Wanted, now: u64 },
}

impl<'a> Maker<'a> {
    /// Asks for the public key, where the format needs one, and whether both go together.
    ///
    /// # Errors
    /// `Sign`, `Unfit`, `NoCertificate`.
    pub(super) async fn prepare(
        kms: &'a Providers,
        wanted: &'a Wanted,
        options: &Options,
        file: &str,
    ) -> Result<Self, Failure> {
        let form = match wanted.format {
            SignFormat::Kms => return Ok(Self::Kms(Signer::new(kms, &wanted.key), wanted)),
            SignFormat::Ssh => Form::Ssh { namespace: options.namespace.clone() },
            SignFormat::Minisign => Form::Minisign { trusted_comment: options.trusted_comment.clone() },
            SignFormat::Sigstore => Form::Sigstore,
            SignFormat::Der => Form::Der,
            SignFormat::Openpgp => Form::OpenPgp {
                certificate: options
                    .certificate
                    .clone()
                    .ok_or_else(|| Failure::NoCertificate(wanted.key.to_string()))?,
                is_armored: options.is_armored,
                name: options.name.clone(),
            },
        };
        let signer =
            PublicSigner::fetch(kms, &wanted.key).await.map_err(|source| wanted.failed(file, source))?;
        signer
            .fit(&form, options.now)
            .map_err(|source| Failure::Unfit { key: wanted.key.to_string(), source })?;
        Ok(Self::Public { signer, form, wanted, now: options.now })
    }

    /// What must be known of the file.
    pub(super) fn digests(&self) -> DigestRequest {
        match self {
            Self::Kms(..) => Format::Kms.digests(),
            Self::Public { signer, form, .. } => signer.digests(form),
        }
    }

    /// Makes the signature.
    ///
    /// # Errors
    /// `Sign`, `Unfit`.
    pub(super) async fn sign(
        &self,
        context: &Context,
        digests: &DigestSet,
        file: &str,
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Kms(signer, wanted) => {
                let signed = signer.sign(context, digests).await;
                Ok(signed.map_err(|source| wanted.failed(file, source))?.signature.as_bytes().to_vec())
            }
            Self::Public { signer, form, wanted, now } => {
                let unfit = |source| Failure::Unfit { key: wanted.key.to_string(), source };
                let fitted = signer.fit(form, *now).map_err(unfit)?;
                fitted.sign(digests, *now).await.map_err(|source| wanted.failed(file, source))
            }
        }
    }

    /// What its signatures are named by.
    pub(super) const fn suffix(&self) -> Suffix {
        match self {
            Self::Kms(_, wanted) | Self::Public { wanted, .. } => wanted.suffix,
        }
    }

    /// Whether its signatures are text.
    pub(super) const fn is_text(&self) -> bool {
        match self {
            Self::Kms(..) => false,
            Self::Public { form, .. } => match form {
                Form::Ssh { .. } | Form::Minisign { .. } | Form::Sigstore => true,
                Form::Der => false,
                Form::OpenPgp { is_armored, .. } => *is_armored,
            },
        }
    }

    /// Which older signatures it may replace.
    pub(super) const fn ours(&self) -> Ours<'_> {
        match self {
            Self::Kms(..) => Ours::Kms,
            Self::Public { signer, form, .. } => Ours::Public(form, signer.public_key()),
        }
    }
}
