//! The only place that reads clocks.
//!
//! Decisions about waiting use [`Clock`], which is monotonic: setting the host's clock neither
//! hastens nor delays a verdict (S9). The wall clock serves records, and the ages that `--once`
//! counts from ctime.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment, as the time since the daemon started. Comparable only with moments of the same
/// [`Clock`].
pub(crate) type Moment = Duration;

/// A monotonic clock that starts at zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the one owner of Instant::now")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub(crate) fn now(self) -> Moment {
        self.0.elapsed()
    }

    /// This clock and the wall clock.
    pub(crate) fn read(self) -> Clocks {
        Clocks { now: self.now(), wall: since_epoch() }
    }

    /// The same moment for tokio's timers.
    pub(crate) fn instant(self, moment: Moment) -> tokio::time::Instant {
        self.0.checked_add(moment).unwrap_or(self.0).into()
    }
}

/// Both clocks at one moment: where the moments of a [`Clock`] are on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// The moment.
    pub(crate) now: Moment,
    /// The wall clock then, since the epoch.
    pub(crate) wall: Duration,
}

impl Clocks {
    /// A moment, past or to come, as the time since the epoch; never before it.
    pub(crate) fn of(self, moment: Moment) -> Duration {
        let (passed, to_come) = (self.now.saturating_sub(moment), moment.saturating_sub(self.now));
        self.wall.saturating_sub(passed).saturating_add(to_come)
    }

    /// A moment in the form of [`timestamp`].
    pub(crate) fn stamp(self, moment: Moment) -> String {
        timestamp_at(self.of(moment))
    }
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one owner of SystemTime::now")]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// `CLOCK_MONOTONIC` since its own start, which is what service managers compare with
/// (sd_notify(3), `MONOTONIC_USEC`).
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// The wall clock, since the epoch; zero before it.
pub(crate) fn since_epoch() -> Duration {
    system_time().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock as RFC 3339 in UTC with milliseconds, for records.
pub(crate) fn timestamp() -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch()).to_string()
}

/// Seconds and nanoseconds of a file time, since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl FileTime {
    /// The time since the epoch; of one before it, only what it has beyond whole seconds.
    pub(crate) fn since_epoch(self) -> Duration {
        Duration::new(self.seconds.try_into().unwrap_or_default(), self.nanos)
    }
}

/// A moment of the wall clock, as the time since the epoch, in the form of [`timestamp`].
pub(crate) fn timestamp_at(since_epoch: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch.min(Duration::from_secs(LAST))).to_string()
}

/// The wall clock of so long ago, in the form of [`timestamp`]; never before the epoch.
pub(crate) fn timestamp_ago(ago: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch().saturating_sub(ago)).to_string()
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

/// A file time as RFC 3339 in UTC with nanoseconds; the bare seconds where the year is out of
/// range.
pub(crate) fn file_timestamp(time: FileTime) -> String {
    match u64::try_from(time.seconds) {
        Ok(seconds) if seconds <= LAST => {
            humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::new(seconds, time.nanos)).to_string()
        }
        _ => format!("{}s since the epoch", time.seconds),
    }
}

/// When a wait that began at a file time is over, as RFC 3339 in UTC with seconds; the latest that
/// can be written where it is later.
pub(crate) fn end_of_wait(began: FileTime, wait: Duration) -> String {
    let seconds = u64::try_from(began.seconds).unwrap_or_default().saturating_add(wait.as_secs());
    second_at(seconds)
}

/// A second since the epoch as RFC 3339 in UTC; the latest that can be written where it is later.
pub(crate) fn second_at(since_epoch: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since_epoch.min(LAST))).to_string()
}

/// The seconds since the epoch that RFC 3339 in UTC says.
pub(crate) fn second_of(rfc3339: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(rfc3339).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// How long ago a file time was by the wall clock; zero for one in the future.
pub(crate) fn age(time: FileTime) -> Duration {
    age_since(time.since_epoch())
}

/// How long ago a moment of the wall clock was; zero for one in the future.
pub(crate) fn age_since(epoch: Duration) -> Duration {
    since_epoch().saturating_sub(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_the_wall_clock_before_and_after_now() {
        let seconds = Duration::from_secs;
        let clocks = Clocks { now: seconds(100), wall: seconds(1000) };
        for (moment, expected) in [(0, 900), (99, 999), (100, 1000), (130, 1030)] {
            assert_eq!(clocks.of(seconds(moment)), seconds(expected));
        }
        assert_eq!(clocks.stamp(seconds(100)), "1970-01-01T00:16:40.000Z");
        let young = Clocks { now: seconds(100), wall: seconds(10) };
        assert_eq!(young.of(Moment::ZERO), Duration::ZERO, "never before the epoch");
    }

    #[test]
    fn a_file_time_before_the_epoch_is_as_old_as_can_be() {
        let time = |seconds, nanos| FileTime { seconds, nanos };
        assert_eq!(time(2, 500_000_000).since_epoch(), Duration::from_millis(2500));
        assert_eq!(time(-7, 0).since_epoch(), Duration::ZERO);
        assert!(age(time(-7, 0)) > Duration::from_secs(1_000_000_000));
        assert_eq!(age(time(i64::MAX, 0)), Duration::ZERO, "of the future");
    }
}
