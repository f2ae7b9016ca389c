//! Which provider is asked: the key's name alone says it.
//!
//! `local:` names go to the keyring, everything else to AWS. AWS is connected to when it is first
//! needed, so that who uses local keys only never reads AWS configuration; a connection or a
//! keyring that fails is trouble for that call, and the next call opens it again.

use std::path::PathBuf;

use crate::context::Context;
use crate::key::{KeyId, Provider};
use crate::kms::AwsSettings;
use crate::kms::caller::{Caller, Confirmed};
use crate::kms::dry_run::{ClockError, DryRun, DryRunCall, DryRunResult};
use crate::kms::local::Local;
use crate::kms::{
    Asked, Decrypted, Encrypted, Kms, KmsError, PublicKeyReply, SignReply, Trouble, TroubleKind,
};
use crate::trust::{Message, SigningAlgorithm};

/// Both providers, as one.
#[derive(Debug)]
pub(crate) struct Providers {
    aws: Remote,
    local: Option<Local>,
}

impl Providers {
    /// Providers with these settings. Touches neither AWS nor the keyring yet. Without a keyring,
    /// asking for a `local:` key is trouble.
    pub(crate) fn new(aws: AwsSettings, keyring: Option<PathBuf>) -> Self {
        Self { aws: Remote::new(aws), local: keyring.map(Local::new) }
    }

    /// The same, for root on behalf of this user: the keyring may be theirs.
    #[must_use]
    pub(crate) fn serving(self, uid: u32) -> Self {
        Self { local: self.local.map(|local| local.serving(uid)), ..self }
    }

    /// The same, which asks AWS once for each call: whoever asks decides on another attempt.
    #[must_use]
    pub(crate) fn without_retries(self) -> Self {
        Self { aws: self.aws.without_retries(), ..self }
    }

    /// How far this host's clock is from that of KMS, if KMS has answered with a date.
    pub(crate) fn clock_error(&self) -> Option<ClockError> {
        self.aws.clock_error()
    }

    /// What is wrong with the AWS configuration of this host, for `check`. Asks nobody.
    ///
    /// # Errors
    /// What somebody must edit before any key of AWS can be used.
    pub(crate) async fn check_aws(&self) -> Result<(), Trouble> {
        self.aws.check().await
    }

    /// As whom AWS is asked, and what STS says of that, if it was asked; see
    /// [`crate::kms::aws::Aws::confirm`].
    ///
    /// # Errors
    /// AWS cannot be asked as anybody.
    pub(crate) async fn confirm(
        &self,
        key: &KeyId,
    ) -> Result<(Caller, Option<Result<Confirmed, Trouble>>), Trouble> {
        self.aws.confirm(key).await
    }

    fn local(&self) -> Result<&Local, Trouble> {
        self.local
            .as_ref()
            .ok_or_else(|| Trouble::new(TroubleKind::Credentials, "no keyring is named for local keys"))
    }
}

impl Kms for Providers {
    async fn encrypt(&self, key: &KeyId, plaintext: &[u8], context: &Context) -> Result<Encrypted, KmsError> {
        match key.provider() {
            Provider::Aws => self.aws.encrypt(key, plaintext, context).await,
            Provider::Local => self.local()?.encrypt(key, plaintext, context).await,
        }
    }

    async fn decrypt(
        &self,
        asked: Asked<'_>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, KmsError> {
        let provider = match asked {
            Asked::Key(key) => key.provider(),
            Asked::AnyKey => Provider::Aws,
        };
        match provider {
            Provider::Aws => self.aws.decrypt(asked, ciphertext, context).await,
            Provider::Local => self.local()?.decrypt(asked, ciphertext, context).await,
        }
    }

    async fn sign(
        &self,
        key: &KeyId,
        message: Message<'_>,
        algorithm: SigningAlgorithm,
    ) -> Result<SignReply, KmsError> {
        match key.provider() {
            Provider::Aws => self.aws.sign(key, message, algorithm).await,
            Provider::Local => self.local()?.sign(key, message, algorithm).await,
        }
    }

    async fn get_public_key(&self, key: &KeyId) -> Result<PublicKeyReply, KmsError> {
        match key.provider() {
            Provider::Aws => self.aws.get_public_key(key).await,
            Provider::Local => self.local()?.get_public_key(key).await,
        }
    }

    fn caller(&self) -> Option<Caller> {
        self.aws.caller()
    }
}

impl DryRun for Providers {
    async fn dry_run(&self, call: &DryRunCall, key: &KeyId) -> Result<DryRunResult, Trouble> {
        match key.provider() {
            Provider::Aws => self.aws.dry_run(call, key).await,
            Provider::Local => self.local()?.dry_run(call, key).await,
        }
    }
}

#[cfg(feature = "aws")]
use connected::Remote;
#[cfg(not(feature = "aws"))]
use left_out::Remote;

/// AWS, connected to on first use.
#[cfg(feature = "aws")]
mod connected {
    use std::fmt;

    use tokio::sync::OnceCell;

    use super::*;
    use crate::chain;
    use crate::kms::aws::{self, Aws};

    pub(super) struct Remote {
        settings: AwsSettings,
        retries: bool,
        aws: OnceCell<Aws>,
    }

    impl Remote {
        pub(super) fn new(settings: AwsSettings) -> Self {
            Self { settings, retries: true, aws: OnceCell::new() }
        }

        pub(super) fn without_retries(self) -> Self {
            Self { retries: false, ..self }
        }

        async fn aws(&self) -> Result<&Aws, Trouble> {
            let connect = async || {
                let connected = match self.retries {
                    true => aws::connect(&self.settings).await,
                    false => aws::connect_without_retries(&self.settings).await,
                };
                connected.map_err(|error| {
                    let trouble = Trouble::new(TroubleKind::Request, chain::one_line(&error));
                    if error.says_what_to_do() { trouble.that_says_what_to_do() } else { trouble }
                })
            };
            self.aws.get_or_try_init(connect).await
        }

        pub(super) async fn check(&self) -> Result<(), Trouble> {
            self.aws().await.map(|_| ())
        }

        pub(super) fn clock_error(&self) -> Option<ClockError> {
            self.aws.get()?.clock_error()
        }

        pub(super) fn caller(&self) -> Option<Caller> {
            self.aws.get()?.caller()
        }

        pub(super) async fn confirm(
            &self,
            key: &KeyId,
        ) -> Result<(Caller, Option<Result<Confirmed, Trouble>>), Trouble> {
            self.aws().await?.confirm(key).await
        }
    }

    impl fmt::Debug for Remote {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Remote").field("connected", &self.aws.initialized()).finish_non_exhaustive()
        }
    }

    impl Kms for Remote {
        async fn encrypt(
            &self,
            key: &KeyId,
            plaintext: &[u8],
            context: &Context,
        ) -> Result<Encrypted, KmsError> {
            self.aws().await?.encrypt(key, plaintext, context).await
        }

        async fn decrypt(
            &self,
            asked: Asked<'_>,
            ciphertext: &[u8],
            context: &Context,
        ) -> Result<Decrypted, KmsError> {
            self.aws().await?.decrypt(asked, ciphertext, context).await
        }

        async fn sign(
            &self,
            key: &KeyId,
            message: Message<'_>,
            algorithm: SigningAlgorithm,
        ) -> Result<SignReply, KmsError> {
            self.aws().await?.sign(key, message, algorithm).await
        }

        async fn get_public_key(&self, key: &KeyId) -> Result<PublicKeyReply, KmsError> {
            self.aws().await?.get_public_key(key).await
        }
    }

    impl DryRun for Remote {
        async fn dry_run(&self, call: &DryRunCall, key: &KeyId) -> Result<DryRunResult, Trouble> {
            self.aws().await?.dry_run(call, key).await
        }
    }
}

/// A build without the feature `aws`.
#[cfg(not(feature = "aws"))]
mod left_out {
    use super::*;

    #[derive(Debug)]
    pub(super) struct Remote;

    impl Remote {
        pub(super) fn new(_: AwsSettings) -> Self {
            Self
        }

        pub(super) fn without_retries(self) -> Self {
            self
        }

        pub(super) async fn check(&self) -> Result<(), Trouble> {
            // A policy may be checked on another host than the daemon's.
            Ok(())
        }

        pub(super) fn clock_error(&self) -> Option<ClockError> {
            None
        }

        pub(super) fn caller(&self) -> Option<Caller> {
            None
        }

        pub(super) async fn confirm(
            &self,
            _: &KeyId,
        ) -> Result<(Caller, Option<Result<Confirmed, Trouble>>), Trouble> {
            Err(left_out())
        }
    }

    fn left_out() -> Trouble {
        Trouble::new(TroubleKind::Request, "this kms-sig was built without AWS support")
    }

    impl Kms for Remote {
        async fn encrypt(&self, _: &KeyId, _: &[u8], _: &Context) -> Result<Encrypted, KmsError> {
            Err(left_out().into())
        }

        async fn decrypt(&self, _: Asked<'_>, _: &[u8], _: &Context) -> Result<Decrypted, KmsError> {
            Err(left_out().into())
        }

        async fn sign(&self, _: &KeyId, _: Message<'_>, _: SigningAlgorithm) -> Result<SignReply, KmsError> {
            Err(left_out().into())
        }

        async fn get_public_key(&self, _: &KeyId) -> Result<PublicKeyReply, KmsError> {
            Err(left_out().into())
        }
    }

    impl DryRun for Remote {
        async fn dry_run(&self, _: &DryRunCall, _: &KeyId) -> Result<DryRunResult, Trouble> {
            Err(left_out())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::local::Keyring;

    fn trouble<T>(answer: Result<T, KmsError>) -> String {
        match answer.err().unwrap() {
            KmsError::Trouble(trouble) => trouble.to_string(),
            verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
        }
    }

    #[tokio::test]
    async fn local_keys_go_to_the_keyring_and_need_no_aws() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring");
        let key: KeyId = "local:a".parse().unwrap();
        Keyring::create_key(&path, &key).unwrap();
        let providers = Providers::new(AwsSettings::default(), Some(path));
        let made = providers.encrypt(&key, &[7; 64], &Context::default()).await.unwrap();
        let opened =
            providers.decrypt(Asked::Key(&key), &made.ciphertext, &Context::default()).await.unwrap();
        assert_eq!(opened.plaintext.as_slice(), [7; 64]);
    }

    #[tokio::test]
    async fn p2_without_a_keyring_a_local_key_is_trouble() {
        let key: KeyId = "local:a".parse().unwrap();
        let providers = Providers::new(AwsSettings::default(), None);
        let said = trouble(providers.decrypt(Asked::Key(&key), b"x", &Context::default()).await);
        assert_eq!(said, "credentials: no keyring is named for local keys");
        let providers = Providers::new(AwsSettings::default(), Some("missing/keyring".into()));
        let said = trouble(providers.encrypt(&key, b"x", &Context::default()).await);
        assert_eq!(said, "credentials: cannot read keyring \"missing/keyring\": no such file or directory");
    }

    #[cfg(not(feature = "aws"))]
    #[tokio::test]
    async fn without_the_feature_aws_keys_are_trouble() {
        let providers = Providers::new(AwsSettings::default(), None);
        let said = trouble(providers.decrypt(Asked::AnyKey, b"x", &Context::default()).await);
        assert_eq!(said, "bad-request: this kms-sig was built without AWS support");
        let key: KeyId = "alias/a".parse().unwrap();
        let said = trouble(providers.encrypt(&key, b"x", &Context::default()).await);
        assert_eq!(said, "bad-request: this kms-sig was built without AWS support");
    }
}
