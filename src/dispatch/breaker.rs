//! The circuit breaker: an app that is down is left alone for a while, and comes back gently.
//!
//! A value and a moment in, a verdict out: no clock, no chance. What counts against the app is what says that it is down:
//! no connection, a failed handshake, no answer in time, a middle box that speaks for it. An answer of its own counts for
//! it, whatever it says. One that breaks off says neither: it may be the fault of that one callback.

use std::time::Duration;

use crate::time::Timestamp;

/// When the app is taken to be down, and how it is tried then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// After so many failures in a row; never, where it is zero.
    pub failures: u32,
    /// How long nothing is sent at first; it doubles with each trial that fails.
    pub first: Duration,
    /// The longest time without a trial.
    pub longest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { failures: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

/// Those that went well at once, so that the app is taken to be back: 1, 2 and 4 at a time before that.
const BACK_AT: u32 = 8;

/// What a try says about the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has answered.
    Alive,
    /// It seems to be down.
    Down,
    /// Nothing can be said.
    None,
}

/// The right to one try; to be given back with what it says about the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

/// What has changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The app is left alone from now on.
    Shut,
    /// It is back.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Everybody goes.
    Open {
        /// Failures in a row.
        failures: u32,
    },
    /// Nobody goes.
    Shut {
        /// Until then.
        until: Timestamp,
        /// How long that is in all.
        pause: Duration,
    },
    /// Some go, to see whether it is back.
    Trying {
        /// How many at a time.
        places: u32,
        /// How many are under way.
        taken: u32,
        /// How long nobody went before.
        pause: Duration,
    },
}

/// The breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// Counts the phases, so that what a try of an earlier one says is not taken for news.
    turn: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { phase: Phase::Open { failures: 0 }, turn: 0 }
    }
}

impl Breaker {
    /// Whether the app is taken to be down, or not to be back yet.
    #[must_use]
    pub const fn is_shut(&self) -> bool {
        !matches!(self.phase, Phase::Open { .. })
    }

    /// Until when nobody may go; `None` where somebody may.
    #[must_use]
    pub fn shut_until(&self, options: Options, now: Timestamp) -> Option<Timestamp> {
        match self.phase {
            Phase::Open { .. } => None,
            Phase::Shut { until, .. } => (now < until).then_some(until),
            Phase::Trying { places, taken, .. } => (taken >= places).then(|| now.after(options.first)),
        }
    }

    /// Asks for one try.
    ///
    /// # Errors
    ///
    /// The moment at which to ask again.
    pub fn ask(&mut self, options: Options, now: Timestamp) -> Result<Pass, Timestamp> {
        if let Some(until) = self.shut_until(options, now) {
            return Err(until);
        }
        match &mut self.phase {
            Phase::Open { .. } => {}
            Phase::Shut { pause, .. } => {
                let pause = *pause;
                self.goes(Phase::Trying { places: 1, taken: 1, pause });
            }
            Phase::Trying { taken, .. } => *taken += 1,
        }
        Ok(Pass(self.turn))
    }

    /// What a try says about the app.
    pub fn tell(&mut self, pass: Pass, sign: Sign, options: Options, now: Timestamp) -> Option<Turn> {
        if pass.0 != self.turn {
            return None;
        }
        match (&mut self.phase, sign) {
            (Phase::Open { failures }, Sign::Down) => {
                *failures += 1;
                if options.failures == 0 || *failures < options.failures {
                    return None;
                }
                self.goes(Phase::Shut { until: now.after(options.first), pause: options.first });
                return Some(Turn::Shut);
            }
            (Phase::Open { failures }, Sign::Alive) => *failures = 0,
            (Phase::Trying { pause, .. }, Sign::Down) => {
                let pause = (*pause * 2).min(options.longest);
                self.goes(Phase::Shut { until: now.after(pause), pause });
            }
            (Phase::Trying { places, taken, .. }, Sign::Alive) => {
                (*places, *taken) = (*places * 2, *taken - 1);
                if *places >= BACK_AT {
                    self.goes(Phase::Open { failures: 0 });
                    return Some(Turn::Open);
                }
            }
            (Phase::Trying { taken, .. }, Sign::None) => *taken -= 1,
            (Phase::Open { .. }, Sign::None) | (Phase::Shut { .. }, _) => {}
        }
        None
    }

    /// Somebody who does not ask, a payer, was answered by the app: whoever waits need not wait longer.
    pub fn seen_alive(&mut self, now: Timestamp) {
        if let Phase::Shut { until, .. } = &mut self.phase {
            *until = now.min(*until);
        }
    }

    const fn goes(&mut self, phase: Phase) {
        self.phase = phase;
        self.turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const OPTIONS: Options = Options { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(30) };

    fn fails(breaker: &mut Breaker, now: Timestamp) -> Option<Turn> {
        let pass = breaker.ask(OPTIONS, now).unwrap();
        breaker.tell(pass, Sign::Down, OPTIONS, now)
    }

    fn shut() -> Breaker {
        let mut breaker = Breaker::default();
        let turns = [(); 3].map(|()| fails(&mut breaker, T0));
        assert_eq!(turns, [None, None, Some(Turn::Shut)]);
        breaker
    }

    #[test]
    fn failures_in_a_row_shut_it_and_one_answer_in_between_does_not() {
        let mut breaker = Breaker::default();
        for sign in [Sign::Down, Sign::Down, Sign::Alive, Sign::Down, Sign::None, Sign::Down] {
            let pass = breaker.ask(OPTIONS, T0).unwrap();
            assert_eq!(breaker.tell(pass, sign, OPTIONS, T0), None);
        }
        assert_eq!(fails(&mut breaker, T0), Some(Turn::Shut));
        assert_eq!(breaker.ask(OPTIONS, T0), Err(T0.after(OPTIONS.first)));
    }

    #[test]
    fn where_it_is_turned_off_nothing_shuts_it() {
        let (mut breaker, off) = (Breaker::default(), Options { failures: 0, ..OPTIONS });
        for _ in 0..100 {
            let pass = breaker.ask(off, T0).unwrap();
            assert_eq!(breaker.tell(pass, Sign::Down, off, T0), None);
        }
    }

    #[test]
    fn one_tries_first_then_two_then_four_and_then_it_is_back() {
        let mut breaker = shut();
        let now = T0.after(OPTIONS.first);
        for places in [1, 2, 4] {
            let passes: Vec<Pass> = (0..places).map(|_| breaker.ask(OPTIONS, now).unwrap()).collect();
            assert_eq!(breaker.ask(OPTIONS, now), Err(now.after(OPTIONS.first)), "{places} at a time");
            let turns: Vec<_> = passes.iter().map(|pass| breaker.tell(*pass, Sign::Alive, OPTIONS, now)).collect();
            if turns.contains(&Some(Turn::Open)) {
                return;
            }
        }
        assert!(!breaker.is_shut());
    }

    #[test]
    fn each_trial_that_fails_doubles_the_pause_up_to_the_longest() {
        let (mut breaker, mut now, mut pauses) = (shut(), T0, Vec::new());
        for _ in 0..7 {
            let until = breaker.shut_until(OPTIONS, now).unwrap();
            pauses.push(until.since(now).as_secs());
            now = until;
            assert_eq!(fails(&mut breaker, now), None, "it was shut before");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_gives_its_place_back() {
        let mut breaker = shut();
        let now = T0.after(OPTIONS.first);
        let pass = breaker.ask(OPTIONS, now).unwrap();
        breaker.tell(pass, Sign::None, OPTIONS, now);
        assert!(breaker.ask(OPTIONS, now).is_ok());
    }

    #[test]
    fn what_was_under_way_before_is_no_news() {
        let mut breaker = Breaker::default();
        let early = breaker.ask(OPTIONS, T0).unwrap();
        for _ in 0..3 {
            fails(&mut breaker, T0);
        }
        let now = T0.after(OPTIONS.first);
        let trial = breaker.ask(OPTIONS, now).unwrap();
        assert_eq!(breaker.tell(early, Sign::Down, OPTIONS, now), None);
        assert!(
            breaker.shut_until(OPTIONS, now).is_some_and(|until| until == now.after(OPTIONS.first)),
            "still trying"
        );
        breaker.tell(trial, Sign::Alive, OPTIONS, now);
        assert_eq!(breaker.shut_until(OPTIONS, now), None);
    }

    #[test]
    fn a_payer_who_was_answered_ends_the_pause() {
        let mut breaker = shut();
        breaker.seen_alive(T0);
        assert!(breaker.ask(OPTIONS, T0).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_happens_somebody_may_go_again_and_never_more_than_there_are_places(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), 0..3000_u64), 1..200),
        ) {
            let (mut breaker, mut now, mut under_way) = (Breaker::default(), T0, Vec::new());
            for (what, which, millis) in steps {
                now = now.after(Duration::from_millis(millis));
                let before = breaker.is_shut();
                if what == 0 {
                    match breaker.ask(OPTIONS, now) {
                        Ok(pass) => under_way.push(pass),
                        Err(until) => prop_assert!(now < until && until <= now.after(OPTIONS.longest)),
                    }
                } else if !under_way.is_empty() {
                    let pass = under_way.swap_remove(which.index(under_way.len()));
                    let sign = [Sign::Alive, Sign::Down, Sign::None][usize::from(what) - 1];
                    let turn = breaker.tell(pass, sign, OPTIONS, now);
                    // A line in the log for each change, and for nothing else.
                    let expected = match (before, breaker.is_shut()) {
                        (false, true) => Some(Turn::Shut),
                        (true, false) => Some(Turn::Open),
                        _ => None,
                    };
                    prop_assert_eq!(turn, expected);
                }
                if let Phase::Trying { places, taken, .. } = breaker.phase {
                    prop_assert!(taken <= places && places < BACK_AT, "{:?}", breaker);
                    let current = under_way.iter().filter(|pass| pass.0 == breaker.turn).count();
                    prop_assert_eq!(current, taken as usize);
                }
            }
            // Once all that is under way has been heard of, and the longest pause is over, somebody may go.
            for pass in under_way {
                breaker.tell(pass, Sign::None, OPTIONS, now);
            }
            prop_assert!(breaker.ask(OPTIONS, now.after(OPTIONS.longest)).is_ok());
        }
    }
}
