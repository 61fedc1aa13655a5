//! What a payer has begun: the names of his payments as the app's own answers told them, found again by what he comes back
//! with.
//!
//! He comes back with a session, or with a name of his own. Either leads to the names of what was begun with it, and no
//! further: names do not lead to other sessions. That he is told from strangers by these names is right only if they are
//! all; so whoever may have begun what nobody could name is *doubtful*, and is kept from the other channel as if nothing
//! were known.
//!
//! The table is a value: the same calls in the same order leave the same.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::lock::LockName;
use crate::{callback::Key, time::Timestamp};

/// Payments that one payer may have begun; with more he is doubtful.
const MOST_NAMES: usize = 8;
/// A session that changes with every answer is known by so many of its last values.
const MOST_SUBJECTS: usize = 64;
/// So much of what has lapsed is cleared away with each lesson.
const STEP: usize = 16;

/// Whether a payer may have begun what nobody could name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No more than before.
    None,
    /// Perhaps, if he has begun anything at all.
    Perhaps,
    /// He has.
    Certain,
}

/// What one answer of the app taught of one payer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// What he comes back with: the session he had, the one he was given, or a name of his own. All are his.
    pub subjects: Vec<LockName>,
    /// The names of what he has begun.
    pub names: Vec<LockName>,
    /// Under which name he has come back.
    pub came: Option<Key>,
    /// Whether there may be more.
    pub doubt: Doubt,
}

impl Lesson {
    /// Whether it is worth remembering of somebody of whom nothing is known yet.
    const fn begins(&self) -> bool {
        !self.names.is_empty() || matches!(self.doubt, Doubt::Certain)
    }
}

/// What a payer has begun, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// The names of it.
    pub names: Vec<LockName>,
    /// The names under which he has come back.
    pub came: Vec<Key>,
    /// Whether there may be more.
    pub doubtful: bool,
}

impl Begun {
    /// Whether somebody who comes under the name `own` may be taken for the payer of one of these, and of nothing else:
    /// nobody comes back from more than he has begun.
    fn vouches_for(&self, own: Option<Key>) -> bool {
        let known = own.is_none_or(|own| self.came.contains(&own));
        !self.doubtful && (known || self.came.len() < self.names.len())
    }
}

/// The names by which a payer's return can be told from strangers, beside its own; empty where nobody can say.
///
/// `begun` is what is known under his own names and under his sessions. What is known under a name of his own goes before
/// what his session has begun: a session has several payments, a name only one.
#[must_use]
pub fn joined(own: &[LockName], begun: &[(Key, Begun)]) -> Vec<LockName> {
    let is_own = |key: &Key| own.iter().any(|name| name.key == *key);
    let by_name = begun.iter().any(|(subject, _)| is_own(subject));
    let relevant = begun.iter().filter(|(subject, _)| is_own(subject) == by_name);
    let came = own.first().filter(|_| !by_name).map(|name| name.key);
    let mut names = Vec::new();
    for (_, begun) in relevant {
        if !begun.vouches_for(came) {
            return Vec::new();
        }
        begun.names.iter().for_each(|name| _ = add(&mut names, *name));
    }
    names
}

fn add<T: PartialEq>(list: &mut Vec<T>, value: T) -> bool {
    let new = !list.contains(&value);
    if new {
        list.push(value);
    }
    new
}

/// Everything that was learned and has not lapsed.
#[derive(Debug)]
pub struct Learned {
    retained: Duration,
    most: usize,
    payers: HashMap<u64, Payer>,
    subjects: HashMap<Key, u64>,
    /// How many payers have begun what has this name.
    names: HashMap<Key, u32>,
    expiring: BTreeSet<(Timestamp, u64)>,
    next: u64,
    /// Lessons were lost, and until then whoever is new here may have been taught by one of them.
    lost_until: Timestamp,
}

#[derive(Debug)]
struct Payer {
    begun: Begun,
    subjects: VecDeque<Key>,
    until: Timestamp,
}

impl Learned {
    /// A table that remembers for `retained` what `most` payers have begun. Where it is full, nothing is learned of more.
    #[must_use]
    pub fn new(retained: Duration, most: usize) -> Self {
        Self {
            retained,
            most,
            payers: HashMap::new(),
            subjects: HashMap::new(),
            names: HashMap::new(),
            expiring: BTreeSet::new(),
            next: 0,
            lost_until: Timestamp::EPOCH,
        }
    }

    /// What was learned before is lost: of whom nothing is known may have begun what nobody can name any more, for as long as
    /// that would have been remembered.
    pub fn lost(&mut self, now: Timestamp) {
        self.lost_until = now.after(self.retained);
    }

    /// How many payers it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payers.len()
    }

    /// Whether it knows nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payers.is_empty()
    }

    /// What the payer who comes with this has begun.
    #[must_use]
    pub fn of(&self, subject: &Key, now: Timestamp) -> Option<&Begun> {
        self.payers.get(self.subjects.get(subject)?).filter(|payer| now < payer.until).map(|payer| &payer.begun)
    }

    /// Whether a payer is known to have begun what has this name.
    #[must_use]
    pub fn tells(&self, name: &Key) -> bool {
        self.names.contains_key(name)
    }

    /// Takes a lesson in; says which names are new.
    pub fn take_in(&mut self, lesson: &Lesson, now: Timestamp) -> Vec<LockName> {
        self.forget(now, STEP);
        let Some(id) = self.whose(lesson, now) else { return Vec::new() };
        let mut new = Vec::new();
        let Some(payer) = self.payers.get_mut(&id) else { return new };
        for subject in &lesson.subjects {
            if self.subjects.insert(subject.key, id).is_none() {
                payer.subjects.push_back(subject.key);
            }
        }
        while payer.subjects.len() > MOST_SUBJECTS {
            payer.subjects.pop_front().map(|oldest| self.subjects.remove(&oldest));
        }
        let begun = &mut payer.begun;
        for name in &lesson.names {
            if begun.names.len() >= MOST_NAMES && !begun.names.contains(name) {
                begun.doubtful = true;
            } else if add(&mut begun.names, *name) {
                *self.names.entry(name.key).or_default() += 1;
                new.push(*name);
            }
        }
        if let Some(came) = lesson.came {
            add(&mut begun.came, came);
            // More than he can have begun: they need no places.
            begun.came.truncate(MOST_NAMES);
        }
        begun.doubtful |= lesson.doubt != Doubt::None;
        if lesson.begins() {
            self.expiring.remove(&(payer.until, id));
            payer.until = now.after(self.retained);
            self.expiring.insert((payer.until, id));
        }
        new
    }

    /// The payer of whom a lesson speaks; of several, who turn out to be the same, one.
    fn whose(&mut self, lesson: &Lesson, now: Timestamp) -> Option<u64> {
        let mut known = Vec::new();
        for subject in &lesson.subjects {
            let Some(id) = self.subjects.get(&subject.key).copied() else { continue };
            if self.payers.get(&id).is_some_and(|payer| now < payer.until) {
                add(&mut known, id);
            } else {
                self.forget_payer(id);
            }
        }
        let Some((first, others)) = known.split_first() else {
            if !lesson.begins() || lesson.subjects.is_empty() || self.payers.len() >= self.most {
                return None;
            }
            self.next += 1;
            let begun = Begun { doubtful: now < self.lost_until, ..Begun::default() };
            let payer = Payer { begun, subjects: VecDeque::new(), until: now.after(self.retained) };
            self.expiring.insert((payer.until, self.next));
            self.payers.insert(self.next, payer);
            return Some(self.next);
        };
        for other in others {
            self.merge(*first, *other);
        }
        Some(*first)
    }

    fn merge(&mut self, into: u64, other: u64) {
        let Some(other) = self.forget_payer(other) else { return };
        let Some(payer) = self.payers.get_mut(&into) else { return };
        for subject in other.subjects {
            self.subjects.insert(subject, into);
            payer.subjects.push_back(subject);
        }
        for name in other.begun.names {
            if payer.begun.names.len() >= MOST_NAMES && !payer.begun.names.contains(&name) {
                payer.begun.doubtful = true;
            } else if add(&mut payer.begun.names, name) {
                *self.names.entry(name.key).or_default() += 1;
            }
        }
        other.begun.came.into_iter().for_each(|came| _ = add(&mut payer.begun.came, came));
        payer.begun.came.truncate(MOST_NAMES);
        payer.begun.doubtful |= other.begun.doubtful;
        self.expiring.remove(&(payer.until, into));
        payer.until = payer.until.max(other.until);
        self.expiring.insert((payer.until, into));
    }

    /// Forgets what has lapsed, at most so many payers; whether there are more.
    pub fn forget(&mut self, now: Timestamp, limit: usize) -> bool {
        for _ in 0..limit {
            match self.expiring.first() {
                Some((until, id)) if *until <= now => _ = self.forget_payer(*id),
                _ => return false,
            }
        }
        self.expiring.first().is_some_and(|(until, _)| *until <= now)
    }

    fn forget_payer(&mut self, id: u64) -> Option<Payer> {
        let payer = self.payers.remove(&id)?;
        self.expiring.remove(&(payer.until, id));
        for subject in &payer.subjects {
            self.subjects.remove(subject);
        }
        for name in &payer.begun.names {
            if let Some(count) = self.names.get_mut(&name.key) {
                *count -= 1;
                if *count == 0 {
                    self.names.remove(&name.key);
                }
            }
        }
        Some(payer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn session(value: &str) -> LockName {
        LockName::new("app", ["session", ""], value)
    }

    fn hash(value: &str) -> LockName {
        LockName::new("app", ["payment_hash", ""], value)
    }

    fn payment(value: &str) -> LockName {
        LockName::new("app", ["reference:", "mollie"], value)
    }

    fn lesson(subjects: &[LockName], names: &[LockName]) -> Lesson {
        Lesson { subjects: subjects.to_vec(), names: names.to_vec(), came: None, doubt: Doubt::None }
    }

    /// By which payments somebody with this hash and these sessions is told from strangers.
    fn told(learned: &Learned, own: &str, sessions: &[&str], now: Timestamp) -> Vec<LockName> {
        let subjects = [hash(own)].into_iter().chain(sessions.iter().map(|value| session(value)));
        let begun = subjects.filter_map(|s| Some((s.key, learned.of(&s.key, now)?.clone()))).collect::<Vec<_>>();
        joined(&[hash(own)], &begun)
    }

    fn table() -> Learned {
        Learned::new(HOUR, 100)
    }

    #[test]
    fn who_is_new_after_lessons_were_lost_may_have_begun_more() {
        let mut learned = Learned::new(HOUR, 10);
        learned.lost(T0);
        let names = |name: &str| [LockName::new("app", ["reference", "mollie"], name)];
        let doubtful = |learned: &Learned, of: &str, now| learned.of(&session(of).key, now).unwrap().doubtful;
        learned.take_in(&lesson(&[session("before")], &names("tr_2")), T0);
        assert!(doubtful(&learned, "before", T0), "tr_1 may have been before");
        let later = T0.after(HOUR);
        learned.take_in(&lesson(&[session("after")], &names("tr_3")), later);
        assert!(!doubtful(&learned, "after", later));
    }

    #[test]
    fn who_comes_back_with_the_session_he_was_given_is_known_by_what_he_began() {
        let mut learned = table();
        assert_eq!(learned.take_in(&lesson(&[session("a"), session("b")], &[payment("1")]), T0), [payment("1")]);
        for value in ["a", "b"] {
            assert_eq!(told(&learned, "h", &[value], T0), [payment("1")]);
        }
        assert!(told(&learned, "h", &["c"], T0).is_empty());
        assert!(learned.tells(&payment("1").key) && !learned.tells(&payment("2").key));
        assert!(learned.take_in(&lesson(&[session("b")], &[payment("1")]), T0).is_empty(), "nothing new");
    }

    #[test]
    fn two_tabs_of_one_session_are_known_by_both_payments_however_its_value_changes() {
        let mut learned = table();
        // Both were asked for with the same value, and each answer set another.
        learned.take_in(&lesson(&[session("0"), session("1")], &[payment("1")]), T0);
        learned.take_in(&lesson(&[session("0"), session("2")], &[payment("2")]), T0);
        // A page in between.
        learned.take_in(&lesson(&[session("2"), session("3")], &[]), T0);
        for value in ["0", "1", "2", "3"] {
            assert_eq!(told(&learned, "h", &[value], T0), [payment("1"), payment("2")], "{value}");
        }
    }

    #[test]
    fn sessions_that_turn_out_to_be_one_are_one_from_then_on() {
        let mut learned = table();
        learned.take_in(&lesson(&[session("1")], &[payment("1")]), T0);
        learned.take_in(&lesson(&[session("2")], &[payment("2")]), T0);
        assert_eq!(told(&learned, "h", &["1"], T0), [payment("1")]);
        learned.take_in(&lesson(&[session("1"), session("2")], &[]), T0);
        assert_eq!(told(&learned, "h", &["1"], T0), [payment("1"), payment("2")]);
        assert_eq!(learned.len(), 1);
    }

    #[test]
    fn names_lead_to_no_other_session() {
        let mut learned = table();
        learned.take_in(&lesson(&[session("mine")], &[payment("1")]), T0);
        learned.take_in(&lesson(&[session("another")], &[payment("1"), payment("2")]), T0);
        assert_eq!(told(&learned, "h", &["mine"], T0), [payment("1")]);
    }

    #[test]
    fn a_name_of_his_own_knows_better_than_his_session() {
        let mut learned = table();
        learned.take_in(&lesson(&[session("s")], &[payment("1"), payment("2")]), T0);
        learned.take_in(&lesson(&[hash("h2")], &[payment("2")]), T0);
        assert_eq!(told(&learned, "h2", &["s"], T0), [payment("2")]);
        assert_eq!(told(&learned, "h2", &[], T0), [payment("2")]);
        learned.take_in(&Lesson { doubt: Doubt::Certain, ..lesson(&[hash("h2")], &[]) }, T0);
        assert!(told(&learned, "h2", &["s"], T0).is_empty(), "and if it does not, nobody does");
    }

    #[test]
    fn whoever_may_have_begun_what_nobody_could_name_is_not_told_from_strangers() {
        let mut learned = table();
        learned.take_in(&Lesson { doubt: Doubt::Perhaps, ..lesson(&[session("new")], &[]) }, T0);
        assert!(learned.is_empty(), "of most people there is nothing to remember");
        learned.take_in(&lesson(&[session("new")], &[payment("1")]), T0);
        assert_eq!(told(&learned, "h", &["new"], T0), [payment("1")]);
        learned.take_in(&Lesson { doubt: Doubt::Perhaps, ..lesson(&[session("new")], &[]) }, T0);
        assert!(told(&learned, "h", &["new"], T0).is_empty());
        learned.take_in(&Lesson { doubt: Doubt::Certain, ..lesson(&[session("away")], &[]) }, T0);
        learned.take_in(&lesson(&[session("away")], &[payment("2")]), T0);
        assert!(told(&learned, "h", &["away"], T0).is_empty());
    }

    #[test]
    fn nobody_comes_back_from_more_than_he_has_begun() {
        let mut learned = table();
        learned.take_in(&lesson(&[session("s")], &[payment("1")]), T0);
        let came = |own| Lesson { came: Some(hash(own).key), ..lesson(&[session("s")], &[]) };
        learned.take_in(&came("h1"), T0);
        assert_eq!(told(&learned, "h1", &["s"], T0), [payment("1")], "he loads the page again");
        assert!(told(&learned, "h2", &["s"], T0).is_empty(), "this one was begun elsewhere");
        learned.take_in(&lesson(&[session("s")], &[payment("2")]), T0);
        assert_eq!(told(&learned, "h2", &["s"], T0), [payment("1"), payment("2")]);
    }

    #[test]
    fn everything_is_bounded_in_number_and_in_time() {
        let mut learned = Learned::new(HOUR, 3);
        for n in 0..10 {
            learned.take_in(&lesson(&[session(&n.to_string())], &[payment(&n.to_string())]), T0);
        }
        assert_eq!(learned.len(), 3);
        assert_eq!(told(&learned, "h", &["0"], T0), [payment("0")], "who is known stays known");
        assert!(told(&learned, "h", &["9"], T0).is_empty());
        for n in 0..20 {
            learned.take_in(&lesson(&[session("0")], &[payment(&format!("more {n}"))]), T0);
        }
        assert!(told(&learned, "h", &["0"], T0).is_empty(), "too many to be told from strangers by");
        assert_eq!(learned.of(&session("0").key, T0).unwrap().names.len(), MOST_NAMES);
        for n in 0..1000 {
            learned.take_in(&lesson(&[session("1"), session(&format!("value {n}"))], &[]), T0);
        }
        assert!(learned.subjects.len() <= 3 + MOST_SUBJECTS);
        let end = T0.after(HOUR);
        assert_eq!(told(&learned, "h", &["2"], Timestamp::from_millis(end.as_millis() - 1)), [payment("2")]);
        assert!(told(&learned, "h", &["2"], end).is_empty());
        while learned.forget(end, 1) {}
        assert!(learned.is_empty() && learned.subjects.is_empty() && learned.names.is_empty());
        assert!(learned.expiring.is_empty());
    }

    #[test]
    fn browsing_on_does_not_make_it_last_longer_and_another_payment_does() {
        let mut learned = table();
        learned.take_in(&lesson(&[session("a")], &[payment("1")]), T0);
        let half = T0.after(HOUR / 2);
        learned.take_in(&lesson(&[session("a"), session("b")], &[]), half);
        assert!(learned.of(&session("b").key, T0.after(HOUR)).is_none());
        learned.take_in(&lesson(&[session("b"), session("c")], &[payment("2")]), half);
        assert_eq!(told(&learned, "h", &["c"], T0.after(HOUR)), [payment("1"), payment("2")], "none without the other");
    }

    proptest! {
        /// A model that knows whose each session is: whatever is taught in whatever order, a payer is told from strangers
        /// only by names among which are all that he has begun. He uses any value that his session has had since he began
        /// something; before, nobody follows it, and he uses its last.
        #[test]
        fn who_is_told_from_strangers_is_told_by_all_that_he_has_begun(
            steps in prop::collection::vec((0_u8..4, 0_u8..6, 0_u8..4, any::<prop::sample::Index>()), 1..60),
        ) {
            let mut learned = Learned::new(HOUR, 1000);
            // Of each browser: the values that may still be under way, and the payments begun.
            let mut browsers: Vec<(Vec<String>, Vec<LockName>)> = (0..4).map(|b| (vec![format!("{b}.0")], vec![])).collect();
            let mut drawn = 0;
            for (browser, what, payments, value) in steps {
                let (values, begun) = &mut browsers[usize::from(browser)];
                let sent = if begun.is_empty() { values.len() - 1 } else { value.index(values.len()) };
                let sent = values[sent].clone();
                drawn += 1;
                let given = format!("{browser}.{drawn}");
                let subjects = [session(&sent), session(&given)];
                if begun.is_empty() {
                    values.retain(|value| *value == sent);
                }
                values.push(given);
                let names: Vec<_> = (0..payments.min(what)).map(|n| payment(&format!("{drawn}.{n}"))).collect();
                if begun.is_empty() && names.is_empty() {
                    values.remove(0);
                }
                begun.extend(&names);
                learned.take_in(&lesson(&subjects, &names), T0);
                for (values, begun) in &browsers {
                    for value in values {
                        let told = told(&learned, "h", &[value], T0);
                        let all = begun.iter().all(|name| told.contains(name));
                        prop_assert!(told.is_empty() || all, "{value}: {told:?} of {begun:?}");
                        prop_assert!(told.iter().all(|name| begun.contains(name)), "another's");
                    }
                }
            }
        }
    }
}
