//! Answers of operations that give no verdict: a ciphertext, a signature, a public key.

use crate::key::{KeyArn, KeyId};
use crate::kms::{KmsError, Operation, Trouble, TroubleKind};

/// Makes sure that the key that was asked has answered.
///
/// # Errors
/// Another key did: what it answered must not be used.
pub(super) fn check_answered(operation: Operation, asked: &KeyId, answered: &KeyArn) -> Result<(), Trouble> {
    if asked.is_answered_by(answered) {
        return Ok(());
    }
    let message = format!("{} under {asked} was answered by {answered}", operation.as_str());
    Err(Trouble::new(TroubleKind::MalformedReply, message))
}

/// Why there is no answer. A verdict is none.
pub(super) fn no_answer(operation: Operation, error: KmsError) -> Trouble {
    match error {
        KmsError::Trouble(trouble) => trouble,
        KmsError::Rejected | KmsError::IncorrectKey => {
            let message = format!("{} answered with an error of Decrypt", operation.as_str());
            Trouble::new(TroubleKind::MalformedReply, message)
        }
    }
}
