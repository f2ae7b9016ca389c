//! The way to KMS of one sender.

use super::gate::KmsGate;
use super::observer::Observer;
use super::quota::KeyClass;
use crate::context::Context;
use crate::fair::Sender;
use crate::key::{KeyId, Provider};
use crate::kms::caller::Caller;
use crate::kms::{Asked, Decrypted, Encrypted, Kms, KmsError, Operation, PublicKeyReply, SignReply};
use crate::trust::{Message, SigningAlgorithm};

/// A provider behind the limits of the policy, as one sender has it: each waits for turns of its
/// own. Keys of this host cost nobody a call, and wait for nothing.
#[derive(Debug)]
pub(crate) struct ThrottledKms<K, O> {
    gate: KmsGate<K, O>,
    sender: Sender,
}

impl<K, O> ThrottledKms<K, O> {
    /// What this sender has of the gate.
    pub(crate) fn new(gate: &KmsGate<K, O>, sender: Sender) -> Self {
        Self { gate: gate.clone(), sender }
    }

    #[cfg(test)]
    pub(super) const fn gate(&self) -> &KmsGate<K, O> {
        &self.gate
    }
}

impl<K: Kms, O: Observer> Kms for ThrottledKms<K, O> {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        let call = || self.gate.inner().encrypt(key, plaintext, context);
        match key.provider() {
            Provider::Local => call().await,
            Provider::Aws => {
                let (class, operation) = (KeyClass::Symmetric, Operation::Encrypt);
                self.gate.call(&self.sender, Some(key), class, operation, call, |made| &made.key).await
            }
        }
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let call = || self.gate.inner().decrypt(asked, ciphertext, context);
        let (key, provider) = match asked {
            Asked::Key(key) => (Some(key), key.provider()),
            Asked::AnyKey => (None, Provider::Aws),
        };
        match provider {
            Provider::Local => call().await,
            Provider::Aws => {
                let (class, operation) = (KeyClass::Symmetric, Operation::Decrypt);
                self.gate.call(&self.sender, key, class, operation, call, |opened| &opened.key).await
            }
        }
    }

    async fn sign(
        &self,
        key: &KeyId,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> Result<SignReply, KmsError> {
        let call = || self.gate.inner().sign(key, message, algorithm);
        match key.provider() {
            Provider::Local => call().await,
            Provider::Aws => {
                let (class, operation) = (KeyClass::of(algorithm), Operation::Sign);
                self.gate.call(&self.sender, Some(key), class, operation, call, |made| &made.key).await
            }
        }
    }

    async fn get_public_key(&self, key: &KeyId) -> Result<PublicKeyReply, KmsError> {
        let call = || self.gate.inner().get_public_key(key);
        match key.provider() {
            Provider::Local => call().await,
            Provider::Aws => {
                let (class, operation) = (KeyClass::Any, Operation::GetPublicKey);
                self.gate.call(&self.sender, Some(key), class, operation, call, |reply| &reply.key).await
            }
        }
    }

    fn caller(&self) -> Option<Caller> {
        self.gate.inner().caller()
    }
}
