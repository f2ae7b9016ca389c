//! As whom the daemon would ask AWS: a good answer to another identity than the one that is meant
//! is no good news.

use super::keys::Call;
use crate::command::hint;
use crate::diagnose::inspect::Finding;
use crate::key::{KeyId, Provider};
use crate::kms::caller::{Caller, Confirmed};
use crate::kms::{Trouble, TroubleKind};

/// A key of AWS among those of the calls: its Region is where the identity is asked for.
pub(super) fn key_to_ask_with(calls: &[Call]) -> Option<KeyId> {
    let mut keys = calls.iter().map(Call::key).filter(|key| key.provider() == Provider::Aws);
    let first = keys.clone().next();
    keys.find(|key| key.region().is_some()).or(first).cloned()
}

/// What is said of the caller.
pub(super) fn finding(asked: Result<(Caller, Option<Result<Confirmed, Trouble>>), Trouble>) -> Finding {
    let (caller, confirmed) = match asked {
        Ok(asked) => asked,
        Err(trouble) => {
            let hint = hint::trouble(Provider::Aws, &trouble).unwrap_or_default().to_owned();
            return Finding::unknown(ABOUT, format!("AWS cannot be asked: {trouble}"), hint);
        }
    };
    let Caller { source, access_key_id, account } = caller;
    let with = format!("with access key {access_key_id} from {source}");
    match confirmed {
        Some(Ok(Confirmed { account, arn })) => {
            Finding::fine(ABOUT, format!("AWS is asked as {arn} (account {account}), {with}"))
        }
        Some(Err(trouble)) => {
            let of = account.map(|account| format!(" of account {account}")).unwrap_or_default();
            let says = format!("AWS is asked {with}{of}; STS does not say as whom that is: {trouble}");
            match trouble.kind {
                // STS knows the keys of everybody.
                TroubleKind::Credentials => Finding::unknown(ABOUT, says, trouble.hint()),
                TroubleKind::Throttled
                | TroubleKind::Internal
                | TroubleKind::Network
                | TroubleKind::Timeout
                | TroubleKind::MalformedReply
                | TroubleKind::Unknown
                | TroubleKind::Denied
                | TroubleKind::KeyState
                | TroubleKind::NotFound
                | TroubleKind::KeyUsage
                | TroubleKind::CredentialSource
                | TroubleKind::Request => Finding::note(ABOUT, says, "nothing: only this check asks it"),
            }
        }
        None => {
            Finding::fine(ABOUT, format!("AWS is asked {with}; KMS is on this host, so STS is not asked"))
        }
    }
}

const ABOUT: &str = "identity";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::inspect::Level;

    fn caller() -> Caller {
        Caller {
            source: "profile \"signer\" (access keys)".to_owned(),
            access_key_id: "AKIA".to_owned(),
            account: None,
        }
    }

    #[test]
    fn an_sts_that_is_away_is_a_note_and_one_that_knows_no_such_key_is_not() {
        let level = |answer| finding(Ok((caller(), answer))).level;
        let arn = "arn:aws:sts::111122223333:assumed-role/signer/s".to_owned();
        let confirmed = Confirmed { account: "111122223333".to_owned(), arn };
        let fine = finding(Ok((caller(), Some(Ok(confirmed)))));
        assert_eq!(
            (fine.level, fine.says.as_str()),
            (
                Level::Fine,
                "AWS is asked as arn:aws:sts::111122223333:assumed-role/signer/s (account 111122223333), with access \
                 key AKIA from profile \"signer\" (access keys)"
            )
        );
        assert_eq!(level(None), Level::Fine);
        assert_eq!(level(Some(Err(Trouble::new(TroubleKind::Network, "")))), Level::Note);
        assert_eq!(level(Some(Err(Trouble::new(TroubleKind::Credentials, "")))), Level::Unknown);
        let none = Trouble::new(TroubleKind::Credentials, "none").with_hint("aws sso login --profile signer");
        let none = finding(Err(none));
        assert_eq!(none.level, Level::Unknown);
        assert_eq!(none.hint.as_deref(), Some("aws sso login --profile signer"));
    }
}
