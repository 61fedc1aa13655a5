//! Who may be in the app at the same time: a queue per name, turns between the channels, and a number of places.
//!
//! A callback takes all its names at once, first come first served, so it can neither deadlock nor starve. A webhook and
//! a return that share no *kind* of name might be about one payment without anyone being able to tell, so they exclude
//! each other across the whole upstream. Turns are phase-fair: a webhook goes when all that was in the app at its
//! arrival has ended; a return waits only for what is in the app and for webhooks whose turn had come before it.
//!
//! The table is a value: the same calls in the same order grant the same leases.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{Claimed, Era, Kind, LeaseId, Seat};
use crate::{
    callback::{Channel, Key},
    spread::Spread,
};

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
