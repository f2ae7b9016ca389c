//! Fair shares of what is scarce: lanes for hashing, calls of KMS.
//!
//! A single queue belongs to whoever fills it. So rules take turns, and within a rule its senders
//! do. Knows nothing of what is shared.

mod lanes;
mod queue;
mod sender;

pub(crate) use lanes::{Lanes, Turn};
pub(crate) use queue::FairQueue;
pub(crate) use sender::Sender;
