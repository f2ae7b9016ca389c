//! `DryRun`: the call as it would be made, and an answer that is always an error.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::MessageType;

use crate::key::KeyId;
use crate::kms::aws::{Aws, SERVICE, explain, malformed, no_verdict, pairs, spec};
use crate::kms::dry_run::{ClockError, DryRun, DryRunCall, DryRunResult};
use crate::kms::{Kms as _, KmsError, Trouble};

/// What KMS answers if the call would have been allowed (AWS KMS API reference, Encrypt, Decrypt
/// and Sign).
const ALLOWED: &str = "DryRunOperationException";

/// The plaintext of a dry run of Encrypt. A service without `DryRun` really encrypts it: so it has
/// not the 64 bytes of a digest, and can be no signature.
const PLAINTEXT: &[u8] = b"kms-sig: rehearsal";

/// The ciphertext of a dry run of Decrypt: no valid one.
const CIPHERTEXT: &[u8] = b"kms-sig: rehearsal";

/// The message of a dry run of Sign. A service without `DryRun` really signs it: so it begins as no
/// message of a format does, and is no digest.
const MESSAGE: &[u8] = b"kms-sig: rehearsal";

impl DryRun for Aws {
    async fn dry_run(&self, call: &DryRunCall, key: &KeyId) -> Result<DryRunResult, Trouble> {
        let operation = call.operation();
        let answer = match call {
            DryRunCall::Encrypt(context) => self
                .call(Some(key), |client| {
                    let call = client.encrypt().key_id(key.as_str()).plaintext(Blob::new(PLAINTEXT));
                    let call = call.set_encryption_context(pairs(context)).dry_run(true).send();
                    async {
                        call.await.map_err(|error| no_verdict(operation, explain::failure(&error, SERVICE)))
                    }
                })
                .await
                .and_then(|reply| {
                    reply.ciphertext_blob.ok_or_else(|| malformed(operation, "no ciphertext", None))
                })
                .map(drop),
            DryRunCall::Decrypt(context) => self
                .call(Some(key), |client| {
                    let call = client.decrypt().key_id(key.as_str()).ciphertext_blob(Blob::new(CIPHERTEXT));
                    let call = call.set_encryption_context(pairs(context)).dry_run(true).send();
                    async { call.await.map_err(|error| explain::failure(&error, SERVICE)) }
                })
                .await
                .and_then(|reply| reply.plaintext.ok_or_else(|| malformed(operation, "no plaintext", None)))
                .map(drop),
            DryRunCall::Sign(algorithm) => self
                .call(Some(key), |client| {
                    let call = client.sign().key_id(key.as_str()).message(Blob::new(MESSAGE));
                    let call = call.message_type(MessageType::Raw).signing_algorithm(spec(*algorithm));
                    let call = call.dry_run(true).send();
                    async {
                        call.await.map_err(|error| no_verdict(operation, explain::failure(&error, SERVICE)))
                    }
                })
                .await
                .and_then(|reply| reply.signature.ok_or_else(|| malformed(operation, "no signature", None)))
                .map(drop),
            // KMS has no dry run of it. It changes nothing, and what it answers is public.
            DryRunCall::GetPublicKey => self.get_public_key(key).await.map(drop),
        };
        match answer {
            // A service that knows no DryRun has done it.
            Ok(()) => Ok(DryRunResult::Allowed),
            Err(KmsError::Trouble(trouble)) if trouble.code.as_deref() == Some(ALLOWED) => {
                Ok(DryRunResult::Allowed)
            }
            Err(KmsError::Trouble(trouble)) => Err(trouble.of_operation(operation)),
            Err(KmsError::Rejected | KmsError::IncorrectKey) => Ok(DryRunResult::Answered),
        }
    }
}

impl Aws {
    /// How far this host's clock is from that of KMS, if an answer came and had a date.
    pub(crate) fn clock_error(&self) -> Option<ClockError> {
        self.0.surroundings.transport().dates().last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_a_dry_run_cannot_make_a_signature() {
        assert_ne!(PLAINTEXT.len(), 64);
        // The messages of formats: a digest, or what begins with a magic of its own.
        assert!(![32, 48, 64].contains(&MESSAGE.len()));
        assert!(!MESSAGE.starts_with(b"SSHSIG"));
    }
}
