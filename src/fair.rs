//! Fair shares of what is scarce: places for hashing, calls of KMS.
//!
//! A single queue belongs to whoever fills it. So rules take turns, and within a rule its senders
//! do. Knows nothing of what is shared.

mod queue;
mod semaphore;
mod sender;

pub(crate) use queue::FairQueue;
pub(crate) use semaphore::FairSemaphore;
pub(crate) use sender::Sender;
