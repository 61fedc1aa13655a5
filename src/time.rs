//! The one place where a clock is read; everywhere else time is an argument.
//!
//! Two clocks, never mixed: what is stored is wall time ([`Timestamp`]); what waits is monotonic (tokio's `Instant`).

use std::{fmt, str::FromStr, time::Duration};

/// A moment in wall time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch: before anything the gate can see.
    pub const EPOCH: Self = Self(0);

    /// After anything the gate can see.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment that lies `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and `span` more; the end of time instead of an overflow.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was, seen from here; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The last moment that RFC 3339 can write: the end of the year 9999.
const LAST: Timestamp = Timestamp(253_402_300_799_999);

impl fmt::Display for Timestamp {
    /// RFC 3339, in UTC, with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self > LAST {
            return f.write_str("never");
        }
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no moment in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no time: write RFC 3339 (2026-03-02T10:00:00Z) or seconds since 1970")]
pub struct NoTimestamp(String);

impl FromStr for Timestamp {
    type Err = NoTimestamp;

    /// RFC 3339, or seconds since the Unix epoch.
    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        if let Ok(seconds) = text.parse::<u64>() {
            return Ok(Self(seconds.saturating_mul(1000)));
        }
        humantime::parse_rfc3339_weak(text)
            .ok()
            .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|d| Self::EPOCH.after(d))
            .ok_or_else(|| NoTimestamp(text.to_owned()))
    }
}

/// Where the present moment comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::EPOCH.after(since.unwrap_or_default())
    }
}

/// Wall time at the start, and from then on as much more as the monotonic clock counts.
///
/// Whoever sets the machine's clock moves no window, no lease and no retention of a store that lives and dies with the
/// process. It stands on tokio's clock, so that a test which pauses time pauses both.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    epoch: tokio::time::Instant,
    start: Timestamp,
    /// How far it is ahead of wall time.
    ahead: Duration,
}

impl SteadyClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self::ahead_of(start, start)
    }

    /// A clock that shows `start` now, where wall time is `wall`: a store goes on from its last moment though the machine's
    /// clock was set back.
    #[must_use]
    pub fn ahead_of(wall: Timestamp, start: Timestamp) -> Self {
        Self { epoch: tokio::time::Instant::now(), start, ahead: start.since(wall) }
    }

    /// What wall time was when it showed `at`: what others have stamped is judged by that.
    #[must_use]
    pub fn wall(&self, at: Timestamp) -> Timestamp {
        Timestamp::EPOCH.after(at.since(Timestamp::EPOCH).saturating_sub(self.ahead))
    }

    /// What it showed at that moment.
    #[must_use]
    pub fn at(&self, moment: tokio::time::Instant) -> Timestamp {
        self.start.after(moment.saturating_duration_since(self.epoch))
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.epoch.elapsed())
    }
}

/// How long the machine has been up, by the clock that systemd goes by (`CLOCK_MONOTONIC`).
#[must_use]
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_goes_on_where_it_was_and_others_stamps_are_judged_by_wall_time() {
        let (wall, last) = (Timestamp::from_millis(1_000_000), Timestamp::from_millis(5_000_000));
        let clock = SteadyClock::ahead_of(wall, last);
        tokio::time::advance(Duration::from_secs(3)).await;
        let now = clock.now();
        assert_eq!((now, clock.wall(now)), (Timestamp::from_millis(5_003_000), Timestamp::from_millis(1_003_000)));
        assert_eq!(clock.wall(Timestamp::EPOCH), Timestamp::EPOCH);
        let clock = SteadyClock::starting_at(wall);
        assert_eq!(clock.wall(clock.now()), clock.now());
    }

    #[test]
    fn a_time_is_read_in_both_forms_and_printed_in_one() {
        let t: Timestamp = "2026-03-02T10:00:00Z".parse().unwrap();
        assert_eq!(t.to_string(), "2026-03-02T10:00:00.000Z");
        assert_eq!((t.as_millis() / 1000).to_string().parse(), Ok(t));
        assert_eq!(Timestamp::NEVER.to_string(), "never");
        assert_eq!(LAST.to_string(), "9999-12-31T23:59:59.999Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
