//! One question at a time about one thing: who comes while it is under way waits for the next one.
//!
//! An answer may be older than whatever happened while it was on its way; so it serves only those who came before its
//! question was sent.

use std::{collections::HashMap, hash::Hash};

/// What is asked, and who waits for the question after it.
pub struct Rounds<K, T> {
    /// Under way, by what it is about, with the round that gathers meanwhile.
    under_way: HashMap<K, Option<T>>,
}

impl<K, T> Default for Rounds<K, T> {
    fn default() -> Self {
        Self { under_way: HashMap::new() }
    }
}

impl<K: Eq + Hash, T: Clone> Rounds<K, T> {
    /// Whether who comes now waits for a question that will be put for others anyway.
    pub fn gathers(&self, about: &K) -> bool {
        matches!(self.under_way.get(about), Some(Some(_)))
    }

    /// The round whose answer serves who comes now, and whether its question has to be sent by him, now.
    pub fn join(&mut self, about: K, new: impl FnOnce() -> T) -> (T, bool) {
        match self.under_way.get_mut(&about) {
            Some(next) => (next.get_or_insert_with(new).clone(), false),
            None => {
                self.under_way.insert(about, None);
                (new(), true)
            }
        }
    }

    /// The question that was under way is answered: the round whose question has to be sent now, if anybody waits for it.
    pub fn answered(&mut self, about: &K) -> Option<T> {
        let next = self.under_way.get_mut(about)?.take();
        if next.is_none() {
            self.under_way.remove(about);
        }
        next
    }

    /// Whoever asked about this is gone.
    pub fn forget(&mut self, about: &K) {
        self.under_way.remove(about);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_answer_serves_only_who_came_before_its_question_was_sent(comes in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut rounds = Rounds::<(), usize>::default();
            let (mut made, mut sent, mut waiting) = (0, HashMap::new(), Vec::new());
            let mut under_way = None;
            for (moment, comes) in comes.into_iter().chain([false; 60]).enumerate() {
                if comes {
                    let free = rounds.gathers(&());
                    let before = made;
                    let (round, sends) = rounds.join((), || { made += 1; made });
                    prop_assert_eq!(sends, under_way.is_none());
                    prop_assert_eq!(free, made == before);
                    waiting.push((round, moment));
                    if sends {
                        under_way = Some(round);
                        sent.insert(round, moment);
                    }
                } else if let Some(round) = under_way {
                    // All whom it serves came before it was sent, and nobody is left without a question.
                    let served = waiting.iter().filter(|(joined, _)| *joined == round);
                    prop_assert!(served.clone().count() > 0);
                    prop_assert!(served.clone().all(|(_, came)| *came <= sent[&round]));
                    waiting.retain(|(joined, _)| *joined != round);
                    under_way = rounds.answered(&());
                    if let Some(next) = under_way {
                        sent.insert(next, moment);
                    }
                }
            }
            prop_assert!(waiting.is_empty() && under_way.is_none() && rounds.under_way.is_empty());
        }
    }
}
