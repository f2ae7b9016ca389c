//! Whose certificates are believed: the host's, or those of `AWS_CA_BUNDLE` or a profile's
//! `ca_bundle` instead.
//!
//! The SDK reads neither of the two, and panics on a bundle that it cannot parse. So a bundle is
//! read and checked here, whole, before the SDK gets it.

use std::fs;
use std::path::PathBuf;

use aws_smithy_http_client::tls::TrustStore;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::shared_config::{Origin, SharedConfig};
use crate::escape::quoted;

/// A bundle of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificates {} of {origin}", quoted(path))]
pub struct CaBundleError {
    origin: Origin,
    path: PathBuf,
    source: BundleFault,
}

#[derive(Debug, thiserror::Error)]
enum BundleFault {
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    #[error("there is no certificate in PEM in it; name a file of those that sign for AWS or for your proxy")]
    Empty,
    #[error("certificate {0} in it is damaged; mend it or leave it out")]
    Damaged(usize),
}

impl CaBundleError {
    /// Whether its words end with what a person can do.
    pub(crate) fn says_what_to_do(&self) -> bool {
        match self.source {
            BundleFault::Read(_) => false,
            BundleFault::Empty | BundleFault::Damaged(_) => true,
        }
    }
}

/// The certificates that the environment or the profile name, or else the host's.
pub(super) fn trust_store(config: &SharedConfig) -> Result<TrustStore, CaBundleError> {
    let Some((origin, path)) = config.setting("AWS_CA_BUNDLE", "ca_bundle") else {
        return Ok(TrustStore::default());
    };
    let path = PathBuf::from(path);
    match read(&path) {
        Ok(pem) => Ok(TrustStore::empty().with_pem_certificate(pem)),
        Err(source) => Err(CaBundleError { origin, path, source }),
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, BundleFault> {
    let pem = fs::read(path).map_err(BundleFault::Read)?;
    let mut roots = RootCertStore::empty();
    for (n, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let certificate = certificate.map_err(|_| BundleFault::Damaged(n + 1))?;
        roots.add(certificate).map_err(|_| BundleFault::Damaged(n + 1))?;
    }
    if roots.is_empty() { Err(BundleFault::Empty) } else { Ok(pem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_the_sdk_would_panic_on_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.pem");
        let fault = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(fault(b"").starts_with("there is no certificate"));
        assert!(fault(b"not PEM at all").starts_with("there is no certificate"));
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(fault(junk), "certificate 1 in it is damaged; mend it or leave it out");
        assert_eq!(fault(&junk[..40]), "certificate 1 in it is damaged; mend it or leave it out");
        assert!(matches!(read(&dir.path().join("none")), Err(BundleFault::Read(_))));
    }
}
