//! What is wrong with the AWS configuration of this host: a profile that is not there, an endpoint
//! that cannot be used.
//!
//! It belongs to the user that the daemon runs as, and is found without asking anybody. It keeps no
//! daemon from starting: rules with keys of AWS are held until it is mended.

use super::keys::Call;
use crate::command::{Failure, block_on};
use crate::diagnose::inspect::Finding;
use crate::key::Provider;
use crate::kms::Trouble;
use crate::kms::provider::Providers;
use crate::policy::{Policy, Rule};

/// The AWS configuration, checked if a key of the policy needs it.
pub(super) struct Configuration {
    fault: Option<Trouble>,
}

impl Configuration {
    /// Looks at environment and files, if the policy has keys of AWS.
    pub(super) fn check(policy: &Policy, kms: &Providers) -> Result<Self, Failure> {
        let is_needed = policy.rules.iter().any(|rule| has_aws_keys(rule)) || has_aws_seal(policy);
        let fault = if is_needed { block_on(kms.check_aws())?.err() } else { None };
        Ok(Self { fault })
    }

    /// Whether there is a point in asking.
    pub(super) fn may_be_asked(&self, call: &Call) -> bool {
        self.fault.is_none() || call.provider() != Provider::Aws
    }

    /// Why the rule would be held.
    pub(super) fn finding(&self, rule: &Rule) -> Option<Finding> {
        let fault = self.fault.as_ref().filter(|_| has_aws_keys(rule))?;
        // Its words end with what to do.
        Some(Finding::fix("aws", fault.message.clone(), ""))
    }

    /// Why the record would not be sealed.
    pub(super) fn finding_of_seal(&self, policy: &Policy) -> Option<Finding> {
        let fault = self.fault.as_ref().filter(|_| has_aws_seal(policy))?;
        Some(Finding::unknown("aws", format!("the record cannot be sealed: {}", fault.message), ""))
    }
}

fn has_aws_seal(policy: &Policy) -> bool {
    policy.record.seal.as_ref().is_some_and(|seal| seal.key.provider() == Provider::Aws)
}

fn has_aws_keys(rule: &Rule) -> bool {
    rule.mode.keys().iter().any(|key| key.provider() == Provider::Aws)
}
