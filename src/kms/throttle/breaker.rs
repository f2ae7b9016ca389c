//! A circuit breaker for one key and operation. Pure, with injected time.
//!
//! Counts infrastructure errors in a row and nothing else: being denied, throttled or told that a
//! signature is bad are answers. While it is open nobody calls; every half minute one caller may
//! probe.

use std::time::Duration;

use crate::clock::Moment;
use crate::kms::{Trouble, TroubleKind};

/// Errors in a row that open it.
const TRIP: u32 = 5;
/// How long it stays open before a probe.
const PAUSE: Duration = Duration::from_secs(30);

/// What KMS did, as far as a breaker cares.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// It answered; whatever the answer.
    Answer,
    /// It did not.
    Silence(Trouble),
}

impl Heard {
    /// What trouble tells about reaching KMS.
    pub(crate) fn of(trouble: &Trouble) -> Self {
        match trouble.kind {
            TroubleKind::Internal
            | TroubleKind::Network
            | TroubleKind::Timeout
            | TroubleKind::MalformedReply
            | TroubleKind::Unknown => Self::Silence(trouble.clone()),
            TroubleKind::Throttled
            | TroubleKind::Denied
            | TroubleKind::KeyState
            | TroubleKind::NotFound
            | TroubleKind::KeyUsage
            | TroubleKind::Credentials
            | TroubleKind::CredentialSource
            | TroubleKind::Request => Self::Answer,
        }
    }
}

/// The breaker.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    silences: u32,
    /// While open: until when, and what KMS said last.
    open: Option<(Moment, Trouble)>,
}

/// What a change of the breaker means for who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing new.
    Same,
    /// It opened.
    Opened,
    /// It closed after having been open: whoever waits may come.
    Closed,
}

impl Breaker {
    /// Whether a call may be made. While open, one call every half minute may: the probe.
    ///
    /// # Errors
    /// Why not: what KMS said last.
    pub(crate) fn admit(&mut self, now: Moment) -> Result<(), Trouble> {
        match &mut self.open {
            Some((until, trouble)) if now < *until => Err(trouble.clone()),
            Some((until, _)) => {
                *until = now + PAUSE; // others wait for what this one finds out
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether a call would be refused now. Changes nothing.
    pub(crate) fn refusal(&self, now: Moment) -> Option<Trouble> {
        self.open.as_ref().filter(|(until, _)| now < *until).map(|(_, trouble)| trouble.clone())
    }

    /// Takes the outcome of a call.
    pub(crate) fn heard(&mut self, now: Moment, heard: Heard) -> Turn {
        match heard {
            Heard::Answer => {
                self.silences = 0;
                if self.open.take().is_some() { Turn::Closed } else { Turn::Same }
            }
            Heard::Silence(trouble) => {
                self.silences = self.silences.saturating_add(1);
                if self.silences < TRIP {
                    return Turn::Same;
                }
                let opened = self.open.replace((now + PAUSE, trouble)).is_none();
                if opened { Turn::Opened } else { Turn::Same }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Heard {
        Heard::Silence(Trouble::new(TroubleKind::Network, "unplugged"))
    }

    const fn s(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn k19_it_opens_after_five_silences_in_a_row_and_probes_alone() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(breaker.heard(s(0), silence()), Turn::Same);
        }
        assert_eq!(breaker.heard(s(0), Heard::Answer), Turn::Same, "one answer begins the count again");
        for _ in 0..4 {
            assert_eq!(breaker.heard(s(1), silence()), Turn::Same);
        }
        breaker.admit(s(1)).unwrap();
        assert_eq!(breaker.heard(s(1), silence()), Turn::Opened);
        assert_eq!(breaker.admit(s(30)).unwrap_err().message, "unplugged");
        breaker.admit(s(31)).unwrap();
        breaker.admit(s(31)).unwrap_err();
        assert_eq!(breaker.heard(s(33), silence()), Turn::Same);
        breaker.admit(s(62)).unwrap_err();
        breaker.admit(s(63)).unwrap();
        assert_eq!(breaker.heard(s(64), Heard::Answer), Turn::Closed);
        breaker.admit(s(64)).unwrap();
    }

    #[test]
    fn answers_that_nobody_likes_are_answers() {
        for (kind, answer) in [
            (TroubleKind::Denied, true),
            (TroubleKind::Throttled, true),
            (TroubleKind::Credentials, true),
            (TroubleKind::Network, false),
            (TroubleKind::Timeout, false),
            (TroubleKind::Unknown, false),
        ] {
            let heard = Heard::of(&Trouble::new(kind, ""));
            assert_eq!(matches!(heard, Heard::Answer), answer, "{kind:?}");
        }
    }
}
