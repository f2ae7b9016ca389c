//! `DryRun`: the call as it would be made, and an answer that is always an error.

use aws_sdk_kms::primitives::Blob;

use crate::context::Context;
use crate::key::KeyId;
use crate::kms::aws::{Aws, SERVICE, explain, malformed, no_verdict, pairs};
use crate::kms::dry_run::{ClockError, DryRun, DryRunResult};
use crate::kms::{KmsError, Operation, Trouble};

/// What KMS answers if the call would have been allowed (AWS KMS API reference, Encrypt and
/// Decrypt).
const ALLOWED: &str = "DryRunOperationException";

/// The plaintext of a dry run of Encrypt. A service without `DryRun` really encrypts it: so it has
/// not the 64 bytes of a digest, and can be no signature.
const PLAINTEXT: &[u8] = b"kms-sig: rehearsal";

/// The ciphertext of a dry run of Decrypt: no valid one.
const CIPHERTEXT: &[u8] = b"kms-sig: rehearsal";

impl DryRun for Aws {
    async fn dry_run(
        &self,
        operation: Operation,
        key: &KeyId,
        context: &Context,
    ) -> Result<DryRunResult, Trouble> {
        let answer = match operation {
            Operation::Encrypt => self
                .call(Some(key), |client| {
                    let call = client.encrypt().key_id(key.as_str()).plaintext(Blob::new(PLAINTEXT));
                    let call = call.set_encryption_context(pairs(context)).dry_run(true).send();
                    async { call.await.map_err(|error| no_verdict(explain::failure(&error, SERVICE))) }
                })
                .await
                .and_then(|reply| {
                    reply.ciphertext_blob.ok_or_else(|| malformed("Encrypt", "no ciphertext", None))
                }),
            Operation::Decrypt => self
                .call(Some(key), |client| {
                    let call = client.decrypt().key_id(key.as_str()).ciphertext_blob(Blob::new(CIPHERTEXT));
                    let call = call.set_encryption_context(pairs(context)).dry_run(true).send();
                    async { call.await.map_err(|error| explain::failure(&error, SERVICE)) }
                })
                .await
                .and_then(|reply| reply.plaintext.ok_or_else(|| malformed("Decrypt", "no plaintext", None))),
        };
        match answer {
            // A service that knows no DryRun has done it.
            Ok(_) => Ok(DryRunResult::Allowed),
            Err(KmsError::Trouble(trouble)) if trouble.code.as_deref() == Some(ALLOWED) => {
                Ok(DryRunResult::Allowed)
            }
            Err(KmsError::Trouble(trouble)) => Err(trouble),
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
    }
}
