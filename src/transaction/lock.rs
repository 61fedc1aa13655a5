//! Who may be in the app at the same time: a queue per name, turns between the channels, and a number of places.
//!
//! A callback takes all its names at once, first come first served, so it can neither deadlock nor starve. A webhook and
//! a return that share no *kind* of name might be about one payment without anyone being able to tell, so they exclude
//! each other across the whole upstream. Turns are phase-fair: a webhook goes when all that was in the app at its
//! arrival has ended; a return waits only for what is in the app and for webhooks whose turn had come before it.
//!
//! The table is a value: the same calls in the same order grant the same leases.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
};

use crate::{
    callback::{Channel, Key},
    spread::Spread,
};

/// Above so many names a callback takes the whole upstream.
pub const MOST_NAMES: usize = 32;

/// One holder of, or applicant for, a place in the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A sort of name, such as `payment_hash`: what is comparable with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u64);

impl Kind {
    /// The kind with this name, given in two pieces. Names of kinds come from the configuration and the providers, not
    /// from callers.
    #[must_use]
    pub fn named(name: [&str; 2]) -> Self {
        // FNV-1a; a vocabulary of a few dozen words needs no more.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.into_iter().flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325, step))
    }
}

impl Kind {
    /// The number under which it is stored.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The kind with this number, as it was stored.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// By which rules names were read. Rules that read otherwise may have found another name for the same payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era(pub u64);

/// A name that two callbacks can't hold at once: (upstream, kind, value), without rule, host, path or channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName {
    /// What sort of name it is.
    pub kind: Kind,
    /// The digest of upstream, kind and value.
    pub key: Key,
}

impl LockName {
    /// The name of `value` among the names of a kind, which is given in two pieces, at `upstream`.
    ///
    /// Whatever its case: many a database finds `AB` for `ab`, and a lock may be too wide.
    #[must_use]
    pub fn new(upstream: &str, kind: [&str; 2], value: &str) -> Self {
        let kind = Kind::named(kind);
        let key = Key::of("lock")
            .part("upstream", upstream)
            .part("kind", kind.0.to_be_bytes())
            .part("value", &*folded(value));
        Self { kind, key: key.finish() }
    }
}

fn folded(value: &str) -> Cow<'_, str> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) { value.to_ascii_lowercase().into() } else { value.into() }
}

/// What a callback asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Where it comes from.
    pub channel: Channel,
    /// Every name it is known by; none means that nobody can tell what it is about.
    pub names: Vec<LockName>,
    /// The kinds of name that each of its events has: by these it is told from others. A batch in which one event lacks
    /// a kind can't be told apart by it, whatever the others have.
    pub kinds: Vec<Kind>,
    /// Whether it takes the whole upstream (`lock = "upstream"`).
    pub exclusive: bool,
    /// When its names were read. Nobody can tell callbacks of two eras apart, so they exclude each other.
    pub era: Era,
}

impl Claimed {
    /// Whether it takes the whole upstream: because it is to, or has too many names.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        self.exclusive || self.names.len() > MOST_NAMES
    }
}

/// A lease that is held, as it can be kept over a restart and taken up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Where its holder came from.
    pub channel: Channel,
    /// The names it holds, none twice.
    pub names: Box<[Key]>,
    /// The kinds by which it is told from others.
    pub kinds: Box<[Kind]>,
    /// Whether it holds the whole upstream.
    pub exclusive: bool,
    /// Whether it counts against the places in the app.
    pub placed: bool,
    /// When its names were read.
    pub era: Era,
}

impl Seat {
    /// What a callback that claims this holds while it is in the app.
    #[must_use]
    pub fn of(claimed: &Claimed) -> Self {
        let mut names: Vec<Key> = claimed.names.iter().map(|name| name.key).collect();
        names.sort_unstable();
        names.dedup();
        let exclusive = claimed.exclusive || names.len() > MOST_NAMES;
        let mut kinds = claimed.kinds.clone();
        kinds.sort_unstable();
        kinds.dedup();
        if exclusive {
            names.clear();
            kinds.clear();
        }
        let (channel, era) = (claimed.channel, claimed.era);
        Self { channel, names: names.into(), kinds: kinds.into(), exclusive, placed: true, era }
    }
}

/// What shares its conflicts with all others of its class.
#[derive(Debug)]
struct Class {
    channel: Channel,
    kinds: Box<[Kind]>,
    exclusive: bool,
    era: Era,
    /// Its leases, held or waited for. A class without any may become another.
    members: usize,
    /// When each holder was let in.
    holders: BTreeSet<u64>,
    /// Those at the head of all their names, by when they got there.
    waiting: BTreeMap<u64, LeaseId>,
}

impl Class {
    fn conflicts_with(&self, other: &Self) -> bool {
        other.exclusive || self.excludes(other.channel, other.era, &other.kinds)
    }

    /// Whether its members keep out who comes by this channel and is told from others by these kinds.
    fn excludes(&self, channel: Channel, era: Era, kinds: &[Kind]) -> bool {
        self.exclusive
            || self.era != era
            || (self.channel != channel && !self.kinds.iter().any(|kind| kinds.contains(kind)))
    }
}

#[derive(Debug)]
struct Ticket {
    class: usize,
    names: Box<[Key]>,
    /// At how many of its names somebody stands before it.
    behind: usize,
    /// When it came to the head of all its names.
    ready: u64,
    /// A return yields to webhooks that were ready before this moment.
    yields: u64,
    granted: Option<u64>,
    /// Whether it counts against the places in the app.
    placed: bool,
}

/// Every lease, held or waited for, of one upstream.
#[derive(Debug)]
pub struct Table {
    places: usize,
    taken: usize,
    moment: u64,
    tickets: HashMap<LeaseId, Ticket, Spread>,
    queues: HashMap<Key, VecDeque<LeaseId>, Spread>,
    classes: Vec<Class>,
}

impl Table {
    /// An empty table with `places` in the app.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            taken: 0,
            moment: 0,
            tickets: HashMap::default(),
            queues: HashMap::default(),
            classes: Vec::new(),
        }
    }

    /// How many leases are held or waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether nobody holds or waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// From now on there are so many places in the app. Those that are taken are not taken back.
    pub fn resize(&mut self, places: usize) {
        self.places = places.max(1);
    }

    /// How many places there are in the app.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places
    }

    /// How many callbacks are in the app.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Whether this lease is held now.
    #[must_use]
    pub fn holds(&self, lease: LeaseId) -> bool {
        self.tickets.get(&lease).is_some_and(|ticket| ticket.granted.is_some())
    }

    /// Who holds this name now.
    #[must_use]
    pub fn holder(&self, name: &Key) -> Option<LeaseId> {
        self.queues.get(name)?.front().copied().filter(|lease| self.holds(*lease))
    }

    /// Whether a lease that is held does not keep this name: somebody else may have it.
    #[must_use]
    pub fn lacks(&self, lease: LeaseId, name: &Key) -> bool {
        self.tickets.get(&lease).is_some_and(|ticket| {
            ticket.granted.is_some() && !self.classes[ticket.class].exclusive && !ticket.names.contains(name)
        })
    }

    /// Queues for a lease. A lease that is held or queued already stays as it is.
    pub fn enqueue(&mut self, lease: LeaseId, claimed: &Claimed) {
        if self.line_up(lease, Seat::of(claimed)) {
            self.make_ready(lease);
        }
    }

    /// Whether a lease could be had at once, with nobody passed who waits.
    #[must_use]
    pub fn is_free(&self, claimed: &Claimed) -> bool {
        let exclusive = claimed.is_exclusive();
        let in_the_way = |class: &Class| {
            let crowded = !class.holders.is_empty() || !class.waiting.is_empty();
            crowded && (exclusive || class.excludes(claimed.channel, claimed.era, &claimed.kinds))
        };
        self.taken < self.places
            && !claimed.names.iter().any(|name| self.queues.contains_key(&name.key))
            && !self.classes.iter().any(in_the_way)
    }

    /// Takes a lease that [`Self::is_free`].
    pub fn seize(&mut self, lease: LeaseId, claimed: &Claimed) {
        self.take_up(lease, Seat::of(claimed));
    }

    /// Takes up a lease that was held when the gate went down: it is held from now on, whoever stands in its way. To be
    /// called before anybody queues.
    pub fn take_up(&mut self, lease: LeaseId, seat: Seat) {
        if self.tickets.contains_key(&lease) {
            return;
        }
        let placed = seat.placed;
        self.line_up(lease, seat);
        let moment = self.tick();
        let Some(ticket) = self.tickets.get_mut(&lease) else { return };
        (ticket.granted, ticket.placed) = (Some(moment), placed);
        self.taken += usize::from(placed);
        self.classes[ticket.class].holders.insert(moment);
    }

    /// What this lease holds; `None` where it is not held.
    #[must_use]
    pub fn seat(&self, lease: LeaseId) -> Option<Seat> {
        let ticket = self.tickets.get(&lease).filter(|ticket| ticket.granted.is_some())?;
        let class = &self.classes[ticket.class];
        Some(Seat {
            channel: class.channel,
            names: ticket.names.clone(),
            kinds: class.kinds.clone(),
            exclusive: class.exclusive,
            placed: ticket.placed,
            era: class.era,
        })
    }

    /// Whether this lease holds more than was claimed when it came.
    #[must_use]
    pub fn is_wider(&self, lease: LeaseId, claimed: &Claimed) -> bool {
        self.tickets.get(&lease).is_some_and(|ticket| {
            let class = &self.classes[ticket.class];
            ticket.names.len() > claimed.names.len() || class.kinds.len() > claimed.kinds.len()
        })
    }

    /// Puts it into the queues of its names; whether it stands at the head of each.
    fn line_up(&mut self, lease: LeaseId, seat: Seat) -> bool {
        if self.tickets.contains_key(&lease) {
            return false;
        }
        let class = self.class(&seat);
        self.classes[class].members += 1;
        let mut behind = 0;
        for name in &seat.names {
            let queue = self.queues.entry(*name).or_default();
            behind += usize::from(!queue.is_empty());
            queue.push_back(lease);
        }
        let ticket = Ticket { class, names: seat.names, behind, ready: 0, yields: 0, granted: None, placed: false };
        self.tickets.insert(lease, ticket);
        behind == 0
    }

    /// Gives a lease back, or gives up waiting for it. Unknown leases are no fault: release is idempotent.
    pub fn release(&mut self, lease: LeaseId) {
        self.vacate(lease);
        let Some(ticket) = self.tickets.remove(&lease) else { return };
        let class = &mut self.classes[ticket.class];
        class.members -= 1;
        match ticket.granted {
            Some(moment) => _ = class.holders.remove(&moment),
            None if ticket.behind == 0 => _ = class.waiting.remove(&ticket.ready),
            None => {}
        }
        for name in &ticket.names {
            self.leave_queue(*name, lease);
        }
    }

    /// Gives back the place in the app and keeps the names: what lingers works in the app's own queue.
    pub fn vacate(&mut self, lease: LeaseId) {
        if let Some(ticket) = self.tickets.get_mut(&lease).filter(|ticket| ticket.placed) {
            ticket.placed = false;
            self.taken -= 1;
        }
    }

    /// Keeps nothing but the names: whoever has none of them is no longer shut out. One that has the whole upstream
    /// keeps it, for it has no names.
    pub fn keep_names(&mut self, lease: LeaseId) {
        self.vacate(lease);
        let Some(ticket) = self.tickets.get(&lease) else { return };
        let class = &mut self.classes[ticket.class];
        if let Some(moment) = ticket.granted.filter(|_| !class.exclusive) {
            class.holders.remove(&moment);
        }
    }

    /// Grants whatever can be granted now, in order, and says what.
    pub fn advance(&mut self, granted: &mut Vec<LeaseId>) {
        while self.taken < self.places {
            let Some(lease) = self.next() else { return };
            let moment = self.tick();
            let Some(ticket) = self.tickets.get_mut(&lease) else { return };
            ticket.granted = Some(moment);
            ticket.placed = true;
            self.taken += 1;
            let class = &mut self.classes[ticket.class];
            class.waiting.remove(&ticket.ready);
            class.holders.insert(moment);
            granted.push(lease);
        }
    }

    /// The one who goes next: ready, in conflict with nobody in the app, and preceded by nobody it conflicts with.
    fn next(&self) -> Option<LeaseId> {
        let heads: Vec<(usize, LeaseId)> = self
            .classes
            .iter()
            .enumerate()
            .filter_map(|(index, class)| class.waiting.first_key_value().map(|(_, lease)| (index, *lease)))
            .collect();
        let mut best: Option<LeaseId> = None;
        for &(class, lease) in &heads {
            let free = self.free_of_holders(class)
                && !heads.iter().any(|&(other_class, other)| {
                    other != lease && self.conflict(class, other_class) && self.precedes(other, lease)
                });
            if free && best.is_none_or(|best| self.precedes(lease, best)) {
                best = Some(lease);
            }
        }
        best
    }

    fn conflict(&self, a: usize, b: usize) -> bool {
        self.classes[a].conflicts_with(&self.classes[b])
    }

    fn free_of_holders(&self, class: usize) -> bool {
        !self.classes.iter().any(|other| !other.holders.is_empty() && self.classes[class].conflicts_with(other))
    }

    /// Whether `a` goes before `b` where they can't both go. Within a channel the earlier; between the channels the
    /// return, unless the webhook's turn had come before the return was there.
    fn precedes(&self, a: LeaseId, b: LeaseId) -> bool {
        let (a, b) = (&self.tickets[&a], &self.tickets[&b]);
        match (self.classes[a.class].channel, self.classes[b.class].channel) {
            (Channel::Return, Channel::Webhook) => a.yields <= b.ready,
            (Channel::Webhook, Channel::Return) => a.ready < b.yields,
            _ => a.ready < b.ready,
        }
    }

    fn make_ready(&mut self, lease: LeaseId) {
        let moment = self.tick();
        // A webhook's turn has come when all that was in the app when it got ready has ended.
        let oldest = self.classes.iter().filter_map(|class| class.holders.first()).min().copied();
        let Some(ticket) = self.tickets.get_mut(&lease) else { return };
        ticket.ready = moment;
        ticket.yields = oldest.unwrap_or(moment);
        self.classes[ticket.class].waiting.insert(moment, lease);
    }

    fn leave_queue(&mut self, name: Key, lease: LeaseId) {
        let Some(queue) = self.queues.get_mut(&name) else { return };
        let was_head = queue.front() == Some(&lease);
        if was_head {
            queue.pop_front();
        } else {
            queue.retain(|other| *other != lease);
        }
        let head = queue.front().copied();
        if head.is_none() {
            self.queues.remove(&name);
        }
        if let Some(head) = head.filter(|_| was_head)
            && let Some(ticket) = self.tickets.get_mut(&head)
        {
            ticket.behind -= 1;
            if ticket.behind == 0 && ticket.granted.is_none() {
                self.make_ready(head);
            }
        }
    }

    fn class(&mut self, seat: &Seat) -> usize {
        let same = |class: &Class| {
            class.channel == seat.channel
                && class.exclusive == seat.exclusive
                && class.era == seat.era
                && class.kinds == seat.kinds
        };
        if let Some(known) = self.classes.iter().position(same) {
            return known;
        }
        let class = Class {
            channel: seat.channel,
            kinds: seat.kinds.clone(),
            exclusive: seat.exclusive,
            era: seat.era,
            members: 0,
            holders: BTreeSet::new(),
            waiting: BTreeMap::new(),
        };
        // However often the rules change, there are no more classes than are in use at once.
        match self.classes.iter().position(|class| class.members == 0 && class.era != seat.era) {
            Some(free) => {
                self.classes[free] = class;
                free
            }
            None => {
                self.classes.push(class);
                self.classes.len() - 1
            }
        }
    }

    const fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn webhook(names: &[(&str, &str)]) -> Claimed {
        claimed(Channel::Webhook, names)
    }

    fn back(names: &[(&str, &str)]) -> Claimed {
        claimed(Channel::Return, names)
    }

    fn claimed(channel: Channel, names: &[(&str, &str)]) -> Claimed {
        let names: Vec<LockName> = names.iter().map(|(kind, value)| LockName::new("app", [kind, ""], value)).collect();
        Claimed {
            channel,
            kinds: names.iter().map(|name| name.kind).collect(),
            names,
            exclusive: false,
            era: Era::default(),
        }
    }

    struct Door(Table, u64);

    impl Door {
        fn new() -> Self {
            Self(Table::new(usize::MAX), 0)
        }

        fn comes(&mut self, claimed: &Claimed) -> LeaseId {
            self.1 += 1;
            self.0.enqueue(LeaseId(self.1), claimed);
            self.0.advance(&mut Vec::new());
            LeaseId(self.1)
        }

        fn leaves(&mut self, lease: LeaseId) -> Vec<LeaseId> {
            self.0.release(lease);
            let mut granted = Vec::new();
            self.0.advance(&mut granted);
            granted
        }
    }

    #[test]
    fn one_name_is_held_by_one_at_a_time_in_the_order_of_arrival() {
        let mut door = Door::new();
        let [a, b, c] = [0; 3].map(|_| door.comes(&webhook(&[("reference", "tr_1")])));
        assert!(door.0.holds(a) && !door.0.holds(b));
        assert_eq!(door.leaves(a), [b]);
        assert_eq!(door.leaves(b), [c]);
    }

    #[test]
    fn other_names_of_the_same_channel_go_side_by_side() {
        let mut door = Door::new();
        let a = door.comes(&webhook(&[("reference", "tr_1")]));
        let b = door.comes(&webhook(&[("reference", "tr_2")]));
        assert!(door.0.holds(a) && door.0.holds(b));
    }

    #[test]
    fn a_webhook_and_a_return_with_no_kind_in_common_exclude_each_other() {
        let mut door = Door::new();
        let hook = door.comes(&webhook(&[("reference", "tr_1")]));
        let payer = door.comes(&back(&[("payment_hash", "h")]));
        assert!(!door.0.holds(payer));
        assert_eq!(door.leaves(hook), [payer]);
    }

    #[test]
    fn a_joined_pair_excludes_by_name_only() {
        let mut door = Door::new();
        let hook = door.comes(&webhook(&[("reference", "pi_1"), ("payment_hash", "h1")]));
        let stranger = door.comes(&back(&[("payment_hash", "h2")]));
        let same = door.comes(&back(&[("payment_hash", "h1")]));
        assert!(door.0.holds(stranger) && !door.0.holds(same));
        assert_eq!(door.leaves(hook), [same]);
    }

    #[test]
    fn what_has_no_name_is_kept_from_all_of_the_other_channel() {
        let mut door = Door::new();
        let hook = door.comes(&webhook(&[("reference", "pi_1"), ("payment_hash", "h1")]));
        let nameless = door.comes(&back(&[]));
        assert!(!door.0.holds(nameless));
        assert_eq!(door.leaves(hook), [nameless]);
    }

    #[test]
    fn a_payer_waits_for_what_was_in_the_app_and_not_for_webhooks_that_wait() {
        let mut door = Door::new();
        let first = door.comes(&webhook(&[("reference", "1")]));
        let payer = door.comes(&back(&[("payment_hash", "h")]));
        let second = door.comes(&webhook(&[("reference", "2")]));
        assert!(!door.0.holds(second), "a newcomer would make the payer wait longer");
        assert_eq!(door.leaves(first), [payer]);
        assert_eq!(door.leaves(payer), [second]);
    }

    #[test]
    fn a_stream_of_overlapping_returns_does_not_starve_a_webhook() {
        let mut door = Door::new();
        let first = door.comes(&back(&[("payment_hash", "1")]));
        let hook = door.comes(&webhook(&[("reference", "tr")]));
        let second = door.comes(&back(&[("payment_hash", "2")]));
        assert!(door.0.holds(second), "the first payer is still in the app: no turn has come yet");
        assert!(door.leaves(first).is_empty());
        let third = door.comes(&back(&[("payment_hash", "3")]));
        assert!(!door.0.holds(third), "the webhook's turn has come");
        assert_eq!(door.leaves(second), [hook]);
        assert_eq!(door.leaves(hook), [third]);
    }

    #[test]
    fn places_are_given_to_payers_first_but_not_for_ever() {
        let mut door = Door(Table::new(1), 0);
        let joined = |n: &str| webhook(&[("payment_hash", n), ("reference", n)]);
        let a = door.comes(&joined("a"));
        let b = door.comes(&joined("b"));
        let payer = door.comes(&back(&[("payment_hash", "p")]));
        assert_eq!(door.leaves(a), [payer]);
        let late = door.comes(&back(&[("payment_hash", "q")]));
        assert_eq!(door.leaves(payer), [b], "the webhook's turn had come before the second payer came");
        assert_eq!(door.leaves(b), [late]);
    }

    #[test]
    fn a_batch_with_one_unjoined_event_is_kept_from_the_other_channel() {
        let mut door = Door::new();
        let mut batch = webhook(&[("reference", "1"), ("payment_hash", "h1"), ("reference", "2")]);
        batch.kinds = vec![Kind::named(["reference", ""])];
        let batch = door.comes(&batch);
        let payer = door.comes(&back(&[("payment_hash", "h2")]));
        assert!(!door.0.holds(payer), "it may be the payer of the event that has no hash");
        assert_eq!(door.leaves(batch), [payer]);
    }

    #[test]
    fn an_exclusive_callback_is_alone_in_the_app() {
        let mut door = Door::new();
        let a = door.comes(&webhook(&[("reference", "1")]));
        let alone = door.comes(&Claimed { exclusive: true, ..webhook(&[]) });
        let b = door.comes(&webhook(&[("reference", "2")]));
        assert!(!door.0.holds(alone) && !door.0.holds(b));
        assert_eq!(door.leaves(a), [alone]);
        assert_eq!(door.leaves(alone), [b]);
    }

    #[test]
    fn callbacks_of_two_eras_are_never_in_the_app_together() {
        let mut door = Door::new();
        let later = |claimed: Claimed| Claimed { era: Era(1), ..claimed };
        let old = door.comes(&webhook(&[("reference", "1")]));
        let new = door.comes(&later(webhook(&[("order", "7")])));
        let payer = door.comes(&later(back(&[("order", "8")])));
        assert!(!door.0.holds(new) && !door.0.holds(payer), "either may be about the payment in the app");
        assert_eq!(door.leaves(old), [payer, new], "among those of one era names tell");
    }

    #[test]
    fn however_often_the_rules_change_the_table_does_not_grow() {
        let mut door = Door::new();
        for era in 0..100 {
            let hook = door.comes(&Claimed { era: Era(era), ..webhook(&[("reference", "1")]) });
            let payer = door.comes(&Claimed { era: Era(era), ..back(&[("reference", "2")]) });
            door.leaves(hook);
            door.leaves(payer);
        }
        assert!(door.0.classes.len() <= 4, "{}", door.0.classes.len());
    }

    #[test]
    fn more_places_let_more_in_and_fewer_throw_nobody_out() {
        let mut door = Door(Table::new(1), 0);
        let a = door.comes(&webhook(&[("reference", "1")]));
        let b = door.comes(&webhook(&[("reference", "2")]));
        let c = door.comes(&webhook(&[("reference", "3")]));
        let mut granted = Vec::new();
        door.0.resize(2);
        door.0.advance(&mut granted);
        assert_eq!(granted, [b]);
        door.0.resize(1);
        assert!(door.0.holds(a) && door.0.holds(b));
        assert_eq!(door.leaves(a), []);
        assert_eq!(door.leaves(b), [c]);
    }

    #[test]
    fn more_names_than_can_be_queued_for_take_the_upstream() {
        let mut door = Door::new();
        let names: Vec<String> = (0..=MOST_NAMES).map(|n| n.to_string()).collect();
        let names: Vec<(&str, &str)> = names.iter().map(|n| ("reference", n.as_str())).collect();
        let many = door.comes(&webhook(&names));
        let stranger = door.comes(&webhook(&[("reference", "other")]));
        assert!(door.0.holds(many) && !door.0.holds(stranger));
    }

    #[test]
    fn what_lingers_keeps_its_names_and_frees_its_place() {
        let mut door = Door(Table::new(1), 0);
        let a = door.comes(&webhook(&[("reference", "1")]));
        let same = door.comes(&webhook(&[("reference", "1")]));
        let other = door.comes(&webhook(&[("reference", "2")]));
        door.0.vacate(a);
        let mut granted = Vec::new();
        door.0.advance(&mut granted);
        assert_eq!(granted, [other]);
        assert_eq!(door.leaves(other), []);
        assert_eq!(door.leaves(a), [same]);
    }

    #[test]
    fn what_waits_for_a_person_stands_in_the_way_of_its_own_names_only() {
        let mut door = Door(Table::new(1), 0);
        let review = door.comes(&webhook(&[("reference", "1")]));
        let same = door.comes(&webhook(&[("reference", "1")]));
        let payer = door.comes(&back(&[("payment_hash", "h")]));
        door.0.keep_names(review);
        let mut granted = Vec::new();
        door.0.advance(&mut granted);
        assert_eq!(granted, [payer]);
        assert_eq!(door.leaves(payer), []);
        assert_eq!(door.leaves(review), [same]);
        assert!(door.leaves(same).is_empty() && door.0.is_empty());
    }

    #[test]
    fn nothing_is_free_for_who_would_pass_another() {
        let hook = || webhook(&[("reference", "1")]);
        let payer = || back(&[("payment_hash", "h")]);
        let mut door = Door(Table::new(2), 0);
        assert!(door.0.is_free(&hook()) && door.0.is_free(&payer()));
        let other = door.comes(&webhook(&[("reference", "2")]));
        assert!(door.0.is_free(&hook()), "another name of the same channel");
        assert!(!door.0.is_free(&webhook(&[("reference", "2")])), "somebody holds that name");
        assert!(!door.0.is_free(&payer()), "nobody can tell them apart");
        assert!(!door.0.is_free(&Claimed { era: Era(1), ..hook() }), "by other rules");
        assert!(!door.0.is_free(&Claimed { exclusive: true, ..hook() }), "somebody is in the app");
        let waits = door.comes(&payer());
        assert!(!door.0.is_free(&hook()), "a payer waits who goes before");
        door.leaves(waits);
        let third = door.comes(&webhook(&[("reference", "3")]));
        assert!(!door.0.is_free(&hook()), "no place is left");
        door.leaves(third);
        door.0.seize(LeaseId(99), &hook());
        assert!(door.0.holds(LeaseId(99)) && !door.0.is_free(&hook()));
        assert!(door.leaves(other).is_empty() && door.leaves(LeaseId(99)).is_empty() && door.0.queues.is_empty());
    }

    #[test]
    fn what_was_held_when_the_gate_went_down_is_held_again_and_keeps_out_the_same() {
        let mut door = Door::new();
        let hook = door.comes(&webhook(&[("reference", "1")]));
        let seat = door.0.seat(hook).unwrap();
        let waiting = door.comes(&webhook(&[("reference", "1")]));
        assert_eq!(door.0.seat(waiting), None, "it only waits");
        let mut after = Door(Table::new(1), 10);
        after.0.take_up(hook, seat.clone());
        assert_eq!((after.0.seat(hook), after.0.taken()), (Some(seat), 1));
        let same = after.comes(&webhook(&[("reference", "1")]));
        let payer = after.comes(&back(&[("payment_hash", "h")]));
        assert!(!after.0.holds(same) && !after.0.holds(payer));
        assert_eq!(after.leaves(hook), [payer]);
        assert_eq!(after.leaves(payer), [same]);
        assert!(after.leaves(same).is_empty() && after.0.is_empty() && after.0.queues.is_empty());
    }

    #[test]
    fn two_that_held_one_name_are_both_taken_up_and_leave_in_any_order() {
        for order in [[1, 2], [2, 1]] {
            let mut table = Table::new(9);
            let seat = Seat::of(&webhook(&[("reference", "1")]));
            [1, 2].into_iter().for_each(|id| table.take_up(LeaseId(id), seat.clone()));
            table.enqueue(LeaseId(3), &webhook(&[("reference", "1")]));
            let mut granted = Vec::new();
            for id in order {
                assert_eq!(granted, []);
                table.release(LeaseId(id));
                table.advance(&mut granted);
            }
            assert_eq!(granted, [LeaseId(3)]);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Comes { hook: bool, reference: Option<u8>, hash: Option<u8>, exclusive: bool, era: u64, seizes: bool },
        Leaves(prop::sample::Index),
        GivesUp(prop::sample::Index),
        Vacates(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = || prop::option::of(0_u8..4);
        let step = prop_oneof![
            6 => (any::<(bool, bool)>(), name(), name(), prop::bool::weighted(0.05), prop_oneof![5 => Just(0), 1 => 1_u64..3])
                .prop_map(|((hook, seizes), reference, hash, exclusive, era)| {
                    Step::Comes { hook, reference, hash, exclusive, era, seizes }
                }),
            5 => any::<prop::sample::Index>().prop_map(Step::Leaves),
            1 => any::<prop::sample::Index>().prop_map(Step::GivesUp),
            1 => any::<prop::sample::Index>().prop_map(Step::Vacates),
        ];
        prop::collection::vec(step, 1..120)
    }

    fn may_overlap(a: &Claimed, b: &Claimed) -> bool {
        let share = |f: fn(&LockName) -> Key| a.names.iter().any(|x| b.names.iter().any(|y| f(x) == f(y)));
        let share_kind = a.names.iter().any(|x| b.names.iter().any(|y| x.kind == y.kind));
        !a.exclusive && !b.exclusive && a.era == b.era && !share(|n| n.key) && (a.channel == b.channel || share_kind)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn whatever_comes_and_goes_nothing_overlaps_that_must_not_and_nobody_is_left(
            steps in steps(), places in 1_usize..6,
        ) {
            let mut table = Table::new(places);
            let (mut inside, mut waiting): (Vec<LeaseId>, Vec<LeaseId>) = (vec![], vec![]);
            let mut asked: HashMap<LeaseId, Claimed> = HashMap::new();
            let mut lingering: HashSet<LeaseId> = HashSet::new();
            let mut next = 0;
            for step in steps {
                let mut surely = None;
                match step {
                    Step::Comes { hook, reference, hash, exclusive, era, seizes } => {
                        let names = [reference.map(|n| ("reference", n)), hash.map(|n| ("payment_hash", n))];
                        let names = names.into_iter().flatten()
                            .map(|(kind, n)| LockName::new("app", [kind, ""], &n.to_string())).collect::<Vec<_>>();
                        let channel = if hook { Channel::Webhook } else { Channel::Return };
                        let kinds = names.iter().map(|name| name.kind).collect();
                        let claimed = Claimed { channel, names, kinds, exclusive, era: Era(era) };
                        next += 1;
                        let free = table.is_free(&claimed);
                        if free && seizes {
                            table.seize(LeaseId(next), &claimed);
                            inside.push(LeaseId(next));
                        } else {
                            table.enqueue(LeaseId(next), &claimed);
                            waiting.push(LeaseId(next));
                            surely = free.then_some(LeaseId(next));
                        }
                        asked.insert(LeaseId(next), claimed);
                    }
                    Step::Leaves(at) if !inside.is_empty() => {
                        let lease = inside.swap_remove(at.index(inside.len()));
                        lingering.remove(&lease);
                        table.release(lease);
                    }
                    Step::GivesUp(at) if !waiting.is_empty() => table.release(waiting.swap_remove(at.index(waiting.len()))),
                    Step::Vacates(at) if !inside.is_empty() => {
                        let lease = inside[at.index(inside.len())];
                        lingering.insert(lease);
                        table.vacate(lease);
                    }
                    _ => {}
                }
                let mut granted = Vec::new();
                table.advance(&mut granted);
                prop_assert!(surely.is_none_or(|lease| granted == [lease]), "what is free is granted at once, and alone");
                waiting.retain(|lease| !granted.contains(lease));
                inside.extend(granted);
                prop_assert!(inside.len() - lingering.len() <= places);
                for (n, a) in inside.iter().enumerate() {
                    for b in &inside[n + 1..] {
                        prop_assert!(may_overlap(&asked[a], &asked[b]), "{:?} with {:?}", asked[a], asked[b]);
                    }
                }
            }
            // Nobody starves: when those inside leave, all who wait get in.
            while let Some(lease) = inside.pop() {
                table.release(lease);
                let mut granted = Vec::new();
                table.advance(&mut granted);
                waiting.retain(|lease| !granted.contains(lease));
                inside.extend(granted);
            }
            prop_assert!(waiting.is_empty(), "left waiting: {waiting:?}");
            prop_assert!(table.is_empty() && table.queues.is_empty() && table.taken == 0);
        }
    }
}
