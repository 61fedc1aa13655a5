//! What of the rules decides under which keys and names callbacks are known, and which rules differ in that.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{ProviderChoice, Rule};
use crate::expression::Expression;

/// The fingerprint of each key of a rule that has a say in keys and names, conditions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keying([(&'static str, u64); KEYS]);

const KEYS: usize = 19;
/// So many of them are conditions.
const CONDITIONS: usize = 6;

impl Keying {
    /// What this rule says; nothing where it leaves keys and names to others.
    #[must_use]
    pub fn of(rule: &Rule) -> Option<Self> {
        let Rule { matcher, choices, .. } = rule;
        let said = [
            ("channel", print(&choices.channel)),
            ("provider", print(&choices.provider.map(provider_name))),
            ("reference", print(&choices.reference)),
            ("event_id", print(&choices.event_id)),
            ("state", print(&choices.state)),
            ("amount", print(&choices.amount)),
            ("currency", print(&choices.currency)),
            ("aliases", print(&choices.aliases)),
            ("learn", print(&choices.learn)),
            ("dialect", print(&choices.dialect)),
            ("scope", print(&choices.scope_host)),
            ("identity", print(&(choices.identity, &choices.identity_places))),
            ("lock", print(&choices.lock)),
        ];
        let conditions = [
            ("method", print(&matcher.methods)),
            ("path", print(&matcher.paths)),
            ("host", print(&matcher.hosts)),
            ("header", print(&matcher.headers)),
            ("source", print(&matcher.sources)),
            ("when", print(&matcher.when.as_deref().map(Expression::source))),
        ];
        let mut all = [("", 0); KEYS];
        all[..CONDITIONS].copy_from_slice(&conditions);
        all[CONDITIONS..].copy_from_slice(&said);
        choices.have_a_say_in_keys().then_some(Self(all))
    }

    /// Whether two rules match the same requests.
    fn matches_as(&self, other: &Self) -> bool {
        self.0[..CONDITIONS] == other.0[..CONDITIONS]
    }

    /// The keys in which two rules differ.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        self.0.iter().zip(&other.0).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
    }
}

fn print(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

const fn provider_name(choice: ProviderChoice) -> &'static str {
    match choice {
        ProviderChoice::Auto => "auto",
        ProviderChoice::Named(provider) => provider.name,
    }
}

/// The fingerprint of all that these rules, in this order, and the app's name say of keys and names.
pub fn era(rules: &[Rule], upstream: &str) -> u64 {
    let keyings: Vec<_> = rules.iter().filter_map(Keying::of).collect();
    print(&(upstream, keyings))
}

/// A rule by which callbacks get other keys and names than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// Its name, or its place where it has none.
    pub rule: String,
    /// What became of it.
    pub how: How,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It stands elsewhere among the others, and the first one decides.
    Moved,
    /// It says something else under these keys.
    Changed(Vec<&'static str>),
}

impl fmt::Display for Rekeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Added => write!(f, "{} (new)", self.rule),
            How::Removed => write!(f, "{} (gone)", self.rule),
            How::Moved => write!(f, "{} (moved)", self.rule),
            How::Changed(keys) => write!(f, "{} ({})", self.rule, keys.join(", ")),
        }
    }
}

/// The rules that differ between two sets in what they say of keys and names; those of the new set first.
#[must_use]
pub fn rekeyed(before: &[Rule], after: &[Rule]) -> Vec<Rekeyed> {
    let (mut old, mut new) = (those_with_a_say(before), those_with_a_say(after));
    take_out_common(&mut old, &mut new);
    let mut found = Vec::new();
    for said in new {
        let how = match old.iter().position(|known| said.continues(known)) {
            None => How::Added,
            Some(at) => match said.keying.differing(&old.remove(at).keying) {
                keys if keys.is_empty() => How::Moved,
                keys => How::Changed(keys),
            },
        };
        found.push(Rekeyed { rule: said.label(), how });
    }
    found.extend(old.into_iter().map(|said| Rekeyed { rule: said.label(), how: How::Removed }));
    found
}

/// A rule that has a say.
struct Said<'r> {
    rule: &'r Rule,
    keying: Keying,
}

impl Said<'_> {
    fn label(&self) -> String {
        self.rule.name.as_ref().unwrap_or(&self.rule.place).to_string()
    }

    /// Whether it is what has become of that one: told by the name; without names, by what it matches.
    fn continues(&self, other: &Self) -> bool {
        match (&self.rule.name, &other.rule.name) {
            (None, None) => self.keying.matches_as(&other.keying),
            (a, b) => a == b,
        }
    }
}

fn those_with_a_say(rules: &[Rule]) -> Vec<Said<'_>> {
    rules.iter().filter_map(|rule| Keying::of(rule).map(|keying| Said { rule, keying })).collect()
}

/// Takes out of both what they have in common in the same order, as much as there is.
fn take_out_common(old: &mut Vec<Said<'_>>, new: &mut Vec<Said<'_>>) {
    // longest[i][j]: how many are common to what follows i in the old and j in the new.
    let mut longest = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] = if old[i].keying == new[j].keying {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut left_old, mut left_new) = (vec![true; old.len()], vec![true; new.len()]);
    while i < old.len() && j < new.len() {
        if old[i].keying == new[j].keying {
            (left_old[i], left_new[j]) = (false, false);
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    let (mut left_old, mut left_new) = (left_old.into_iter(), left_new.into_iter());
    old.retain(|_| left_old.next().unwrap_or(true));
    new.retain(|_| left_new.next().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        callback::Channel,
        provider::extract::Dialect,
        rule::{Choices, Matcher, path::Template},
    };

    fn rule(name: &str, path: &str, reference: &str) -> Rule {
        let reference = (!reference.is_empty()).then(|| vec![reference.parse().unwrap()]);
        let paths = vec![Template::parse(path, Dialect::Strict).unwrap()];
        Rule {
            name: (!name.is_empty()).then(|| Arc::from(name)),
            place: Arc::from(format!("rule at {path}")),
            matcher: Matcher { paths, ..Matcher::default() },
            choices: Choices { reference, ..Choices::default() },
        }
    }

    fn told(before: &[Rule], after: &[Rule]) -> Vec<String> {
        let same = era(before, "app") == era(after, "app");
        let told: Vec<_> = rekeyed(before, after).iter().map(ToString::to_string).collect();
        assert_eq!(same, told.is_empty(), "the era says what is told: {told:?}");
        told
    }

    #[test]
    fn rules_that_differ_in_keys_are_named_with_those_keys() {
        let (a, b) = (rule("a", "/a", "form:id"), rule("", "/b", "form:id"));
        let rules = [a.clone(), b.clone()];
        assert_eq!(told(&rules, &rules), [""; 0]);
        assert_eq!(told(&rules, &[rule("a", "/a", "query:id"), b.clone()]), ["a (reference)"]);
        assert_eq!(told(&rules, &[rule("a", "/c", "query:id"), b.clone()]), ["a (path, reference)"]);
        assert_eq!(told(&rules, &[a.clone(), rule("", "/b", "body")]), ["rule at /b (reference)"]);
        assert_eq!(told(&rules, &[a.clone(), rule("", "/c", "form:id")]), ["rule at /c (new)", "rule at /b (gone)"]);
        assert_eq!(told(&rules, &[b.clone(), a.clone()]), ["a (moved)"]);
        assert_eq!(told(&rules, std::slice::from_ref(&a)), ["rule at /b (gone)"]);
        assert_eq!(told(&[], std::slice::from_ref(&a)), ["a (new)"]);
        assert_eq!(told(&rules, &[rule("c", "/c", "form:id"), a, b]), ["c (new)"]);
    }

    #[test]
    fn what_has_no_say_in_keys_is_not_named() {
        let with = |change: fn(&mut Choices)| {
            let mut rule = rule("a", "/a", "form:id");
            change(&mut rule.choices);
            rule
        };
        let plain = with(|_| {});
        let held = with(|choices| choices.hold = Some(std::time::Duration::from_secs(9)));
        let signed = with(|choices| choices.signature_required = Some(true));
        let elsewhere = rule("other", "/elsewhere", "");
        assert_eq!(told(std::slice::from_ref(&plain), &[elsewhere, held]), [""; 0]);
        assert_eq!(told(std::slice::from_ref(&plain), &[signed]), [""; 0]);
        let returned = with(|choices| choices.channel = Some(Channel::Return));
        assert_eq!(told(&[plain], &[returned]), ["a (channel)"]);
    }

    #[test]
    fn another_app_is_another_era() {
        let rules = [rule("a", "/a", "form:id")];
        assert_ne!(era(&rules, "http://a"), era(&rules, "http://b"));
    }
}
