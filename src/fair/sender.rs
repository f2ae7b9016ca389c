//! On whose behalf something is done, as far as fair shares go.

use std::sync::Arc;

/// A rule, and within it one of those whose files it handles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    rule: Arc<str>,
    owner: Option<u32>,
}

impl Sender {
    /// Of a rule: the owner of a payload, or one sender for all whose owners are not known.
    pub(crate) fn new(rule: &Arc<str>, owner: Option<u32>) -> Self {
        Self { rule: Arc::clone(rule), owner }
    }

    /// The daemon itself, for what it does for no rule. No rule has an empty name.
    pub(crate) fn daemon() -> Self {
        Self { rule: Arc::from(""), owner: None }
    }

    /// The rule, which has a share of its own.
    pub(crate) fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// The owner of the payload, who has a share of the rule's share.
    pub(crate) const fn owner(&self) -> Option<u32> {
        self.owner
    }
}
