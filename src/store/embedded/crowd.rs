//! How long the writer lets a crowd gather before it writes the next group.

use std::time::Duration;

/// From so many on, those who waited for one group are a crowd: others like them are on their way.
const CROWD: usize = 4;
/// The longest that a crowd is let gather. While a slow disk is at work enough of them come by themselves.
const LONGEST: Duration = Duration::from_micros(500);

/// The group that was written last: how many waited for it, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crowd {
    /// So many waited.
    pub(super) waiting: usize,
    /// From when it was taken until it was on the disk.
    pub(super) took: Duration,
}

impl Crowd {
    /// How long the next group is let gather: as long as this one took, in which about as many come again and share its sync.
    /// Who waits alone, or with a few, is not kept waiting for others.
    pub(super) fn rest(self) -> Duration {
        if self.waiting < CROWD { Duration::ZERO } else { self.took.min(LONGEST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_let_gather_for_as_long_as_its_sync_took_and_not_for_long() {
        let rest = |waiting, micros| Crowd { waiting, took: Duration::from_micros(micros) }.rest().as_micros();
        assert_eq!((rest(CROWD, 80), rest(64, 80), rest(64, 10_000)), (80, 80, LONGEST.as_micros()));
    }

    #[test]
    fn who_waits_alone_is_not_kept_waiting_for_others() {
        for waiting in 0..CROWD {
            assert_eq!(Crowd { waiting, took: Duration::from_secs(1) }.rest(), Duration::ZERO);
        }
    }
}
