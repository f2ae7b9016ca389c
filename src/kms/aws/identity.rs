//! As whom AWS is asked: what the credentials say, and what STS says of them.

use aws_sdk_sts::Client;
use aws_sdk_sts::config::{Builder, IdentityCache, SharedCredentialsProvider};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use super::credentials::endpoint_of;
use super::refresh::Held;
use super::wire::{OPERATION_TIMEOUT, Peer};
use super::{ATTEMPTS, Aws, explain};
use crate::key::KeyId;
use crate::kms::caller::{Caller, Confirmed};
use crate::kms::{KmsError, Trouble, TroubleKind};

impl Aws {
    /// As whom it asks, if credentials were loaded.
    pub(crate) fn caller(&self) -> Option<Caller> {
        self.0.credentials.held().map(|held| caller(&held))
    }

    /// Loads credentials, and has STS say whose they are; in the Region of this key, if it has one.
    /// Where KMS is on this host and nobody said where STS is, it is not asked: such credentials
    /// are none of AWS.
    ///
    /// # Errors
    /// There are no credentials. That STS does not answer is no error: nothing but this needs it.
    pub(crate) async fn confirm(
        &self,
        key: &KeyId,
    ) -> Result<(Caller, Option<Result<Confirmed, Trouble>>), Trouble> {
        self.region(Some(key)).await?; // before credentials: it is lent to their source
        let held = self.0.credentials.get().await?;
        let confirmed = match self.asks_sts() {
            true => Some(self.ask_sts(&held, key).await),
            false => None,
        };
        Ok((caller(&held), confirmed))
    }

    fn asks_sts(&self) -> bool {
        let on_this_host =
            self.0.surroundings.endpoint().is_some_and(|url| !url.to_ascii_lowercase().starts_with("https:"));
        !on_this_host || endpoint_of("STS", self.0.surroundings.sdk()).is_some()
    }

    /// `GetCallerIdentity`, which nobody can be denied (AWS STS API reference).
    async fn ask_sts(&self, held: &Held, key: &KeyId) -> Result<Confirmed, Trouble> {
        let region = self.region(Some(key)).await?;
        let surroundings = &self.0.surroundings;
        let config = Builder::from(surroundings.sdk())
            .region(region)
            .http_client(surroundings.transport().client(Peer::Credentials))
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(SharedCredentialsProvider::new(held.credentials.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build())
            .build();
        let answer = Client::from_conf(config).get_caller_identity().send().await;
        let reply = answer.map_err(|error| match explain::failure(&error, "STS") {
            KmsError::Trouble(trouble) => trouble,
            verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => {
                Trouble::new(TroubleKind::MalformedReply, format!("STS answered: {verdict}"))
            }
        })?;
        match (reply.account, reply.arn) {
            (Some(account), Some(arn)) => Ok(Confirmed { account, arn }),
            _ => Err(Trouble::new(
                TroubleKind::MalformedReply,
                "GetCallerIdentity answered without account or ARN",
            )),
        }
    }
}

fn caller(held: &Held) -> Caller {
    Caller {
        source: held.source.clone(),
        access_key_id: held.credentials.access_key_id().to_owned(),
        account: held.credentials.account_id().map(|account| account.as_str().to_owned()),
    }
}
