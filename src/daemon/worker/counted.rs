//! A count of what is refused.

use crate::clock::Moment;
use crate::state::reason::RefusalReason;

/// How many files of a rule are refused, by reason.
pub(crate) struct Counted {
    /// When the count began.
    pub(crate) began: Moment,
    /// `None` where state could not be read.
    pub(crate) refusals: Option<Vec<(RefusalReason, usize)>>,
}
