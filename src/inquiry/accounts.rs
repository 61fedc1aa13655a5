//! With which key a question is asked first: the one that answered last for callbacks that came to the same place.

use std::collections::HashMap;

use crate::callback::Key;

/// So many places are remembered; at the bound all are forgotten, for it only saves questions.
const MOST: usize = 4096;

/// Which account answers where.
#[derive(Debug, Default)]
pub struct Accounts {
    answered: HashMap<Key, usize>,
}

impl Accounts {
    /// The order in which `count` keys are tried: every one, and each once.
    pub fn order(&self, scope: Key, count: usize) -> Vec<usize> {
        let first = self.answered.get(&scope).copied().filter(|place| *place < count);
        first.into_iter().chain((0..count).filter(|place| Some(*place) != first)).collect()
    }

    /// This key has answered.
    pub fn answered(&mut self, scope: Key, place: usize) {
        if self.answered.len() >= MOST && !self.answered.contains_key(&scope) {
            self.answered.clear();
        }
        self.answered.insert(scope, place);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_is_tried_once_whatever_answered_before(
            answers in prop::collection::vec((0_u8..4, 0_usize..6), 0..20),
            scope in 0_u8..4,
            count in 0_usize..5,
        ) {
            let key = |scope: u8| Key::of("test").part("scope", [scope]).finish();
            let mut accounts = Accounts::default();
            answers.iter().for_each(|(scope, place)| accounts.answered(key(*scope), *place));
            let order = accounts.order(key(scope), count);
            let last = answers.iter().rev().find(|(at, _)| *at == scope).map(|(_, place)| *place);
            if let Some(last) = last.filter(|last| *last < count) {
                prop_assert_eq!(order[0], last);
            }
            let mut all = order;
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut accounts = Accounts::default();
        for scope in 0..3 * MOST as u64 {
            accounts.answered(Key::of("test").part("scope", scope.to_be_bytes()).finish(), 0);
            assert!(accounts.answered.len() <= MOST);
        }
    }
}
