//! When a provider that fails is left alone, and for how long.

use std::time::Duration;

use crate::time::Timestamp;

/// So many failures in a row are enough.
const ENOUGH: u32 = 5;
/// The first rest; it doubles with each failure that follows.
const REST: Duration = Duration::from_secs(10);
/// The longest rest, whatever a provider asks for.
const LONGEST: Duration = Duration::from_secs(300);

/// What is known of one provider's health.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    failures: u32,
    rests_until: Timestamp,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 0, rests_until: Timestamp::EPOCH }
    }
}

impl Breaker {
    /// Whether it may be asked. When its rest is over one question finds out; the others rest until that is known.
    pub fn admits(&mut self, now: Timestamp) -> bool {
        if now < self.rests_until {
            return false;
        }
        if self.failures >= ENOUGH {
            self.rests_until = now.after(REST);
        }
        true
    }

    /// It has answered, whatever it said.
    pub fn well(&mut self) {
        *self = Self::default();
    }

    /// It has not.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= ENOUGH {
            let rest = REST * 2_u32.pow((self.failures - ENOUGH).min(5));
            self.rests_until = now.after(rest.min(LONGEST));
        }
    }

    /// It wants to be left alone until then.
    pub fn rest(&mut self, now: Timestamp, pause: Duration) {
        self.rests_until = self.rests_until.max(now.after(pause.min(LONGEST)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn later(seconds: u64) -> Timestamp {
        T0.after(Duration::from_secs(seconds))
    }

    fn tripped() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..ENOUGH {
            assert!(breaker.admits(T0));
            breaker.failed(T0);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_earn_a_rest_and_an_answer_between_them_does_not() {
        assert!(!tripped().admits(later(9)));
        let mut breaker = Breaker::default();
        for turn in 0..100 {
            assert!(breaker.admits(T0));
            if turn % 4 == 3 { breaker.well() } else { breaker.failed(T0) }
        }
    }

    #[test]
    fn after_its_rest_one_question_finds_out_and_the_others_wait_for_that() {
        let mut breaker = tripped();
        assert!(breaker.admits(later(10)));
        assert!(!breaker.admits(later(10)));
        breaker.failed(later(11));
        assert!(!breaker.admits(later(30)), "the rest grows");
        assert!(breaker.admits(later(31)));
        breaker.well();
        assert!(breaker.admits(later(31)) && breaker.admits(later(31)));
    }

    #[test]
    fn no_rest_is_longer_than_the_longest() {
        let mut breaker = tripped();
        for _ in 0..100 {
            breaker.failed(T0);
        }
        breaker.rest(T0, Duration::from_secs(1 << 40));
        assert!(!breaker.admits(later(299)));
        assert!(breaker.admits(later(300)));
    }

    #[test]
    fn who_asks_to_be_left_alone_is() {
        let mut breaker = Breaker::default();
        breaker.rest(T0, Duration::from_secs(7));
        assert!(!breaker.admits(later(6)));
        assert!(breaker.admits(later(7)) && breaker.admits(later(7)));
    }
}
