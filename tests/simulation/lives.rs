//! The same days over a disk, on which the power fails: a gate dies at any step it takes, what was not made durable is lost,
//! and another begins with what is there. Providers tell again until they are acknowledged.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use oncegate::{
    store::{
        Store, Want,
        embedded::{
            Embedded, Options, Writer,
            disk::{Disk, DiskError, Group, Medium, Records, Space, Take},
            seal::Seals,
        },
        memory,
    },
    time::{SteadyClock, Timestamp},
    transaction::{
        effect::Durable,
        lock::LeaseId,
        policy::Policy,
        state::{Delivery, Phase},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{Chance, Channel, Gate, MORNING, Setting, Tag, Told, World, live_through, play_all, play_one, some_day};

/// How many of these days a plain `cargo test` plays.
const SCHEDULES: u64 = 600;

#[test]
fn whenever_the_power_fails_nothing_acknowledged_is_missing_and_nothing_comes_twice_but_what_is_called_unknown() {
    if let Some(told) = play_all(SCHEDULES, |seed| play(seed, true)) {
        assert!(told.outages.every_sort_occurs(), "the schedules no longer meet every sort of outage: {told:?}");
    }
}

#[test]
fn without_syncing_the_laws_are_broken_on_some_day() {
    let broken = (0..SCHEDULES).any(|seed| !play_one(seed, |seed| play(seed, false)).0.is_empty());
    assert!(broken, "a disk that loses what it called durable was not noticed");
}

// ------------------------------------------------------------------------------------------------ a life

/// One life of a gate: so many steps, and the power is gone.
pub struct Life {
    left: AtomicU64,
    /// From now on nothing takes its power away.
    calm: Arc<AtomicBool>,
    over: watch::Sender<bool>,
    /// There may be something to write.
    pub work: Notify,
}

impl Life {
    /// One that nothing ends.
    pub fn endless() -> Arc<Self> {
        Self::of(u64::MAX, Arc::default())
    }

    fn of(steps: u64, calm: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(steps), calm, over: watch::Sender::new(false), work: Notify::new() })
    }

    /// Takes a step, and says whether that was possible.
    pub fn goes_on(&self) -> bool {
        if self.is_over() {
            return false;
        }
        let is_last = !self.calm.load(Ordering::Relaxed) && self.left.fetch_sub(1, Ordering::Relaxed) <= 1;
        if is_last {
            self.over.send_replace(true);
        }
        !is_last
    }

    /// Takes a step. Never comes back in a life that is over, for nothing goes on in it.
    pub async fn step(&self) {
        if !self.goes_on() {
            std::future::pending().await
        }
    }

    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Returns when it is over.
    pub async fn over(&self) {
        // The sender is here as long as it is waited for.
        _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

// ------------------------------------------------------------------------------------------------ a disk

/// What a group does to one record.
type Written = (Space, Vec<u8>, Option<Vec<u8>>);

/// A disk that keeps what was synced, and of what was not perhaps the beginning. A group is on it whole or not at all, as
/// the journal's checksums see to; that those do is tried on real files elsewhere.
#[derive(Clone, Default)]
pub struct Platter(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    records: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
    /// What was handed over and is not synced.
    unsynced: Vec<Vec<Written>>,
    /// It says that groups are durable before they are.
    lies: bool,
    /// Its next write fails; whether it is on the disk all the same.
    fails: Option<bool>,
    /// So often it can't be opened.
    shut: u64,
}

impl Inside {
    fn sync(&mut self, groups: usize) {
        for (space, key, value) in self.unsynced.drain(..groups).flatten() {
            match value {
                Some(value) => _ = self.records.insert((space, key), value),
                None => _ = self.records.remove(&(space, key)),
            }
        }
    }
}

impl Platter {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// The group is on its way to the disk.
    pub fn takes(&self, group: &Group) {
        let owned =
            |(space, key, value): (Space, &[u8], Option<&[u8]>)| (space, key.to_vec(), value.map(<[u8]>::to_vec));
        self.lock().unsynced.push(group.records().map(owned).collect());
    }

    /// Its next write fails, and is on the disk all the same or not.
    pub fn fails_next(&self, is_there: bool) {
        self.lock().fails = Some(is_there);
    }

    /// An engine over it, under this policy.
    pub fn opened(&self, policy: &Policy) -> (Embedded, Writer) {
        let bounds = memory::Options::default();
        let options = Options { bounds, durable: Durable::Outcome, quiet: policy.quiet, seals: Seals::default() };
        Embedded::open_unwritten(Box::new(self.clone()), options, MORNING).unwrap()
    }

    /// The power is gone: of what was not synced there is some beginning.
    fn power_fails(&self, chance: &mut Chance) {
        let mut inside = self.lock();
        let kept = chance.below(inside.unsynced.len() as u64 + 1) as usize;
        inside.sync(kept);
        inside.unsynced.clear();
        (inside.fails, inside.shut) = (None, 0);
    }
}

impl Medium for Platter {
    fn open(&mut self) -> Result<Box<dyn Disk>, DiskError> {
        let mut inside = self.lock();
        if inside.shut > 0 {
            inside.shut -= 1;
            return Err(DiskError::Refused("it is not there".to_owned()));
        }
        Ok(Box::new(self.clone()))
    }
}

impl Disk for Platter {
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError> {
        for ((space, key), value) in &self.lock().records {
            take(*space, key, value)?;
        }
        Ok(())
    }

    fn write(&mut self, _: &Group) -> Result<(), DiskError> {
        let mut inside = self.lock();
        if let Some(is_there) = inside.fails.take() {
            let all = inside.unsynced.len();
            inside.sync(if is_there { all } else { all - 1 });
            inside.unsynced.clear();
            return Err(DiskError::Refused("it did not answer".to_owned()));
        }
        // One that lies is several groups behind.
        let synced = inside.unsynced.len().saturating_sub(if inside.lies { 4 } else { 0 });
        inside.sync(synced);
        Ok(())
    }

    fn records(&self) -> Records {
        let records = self.lock().records.clone();
        Box::new(records.into_iter().map(|((space, key), value)| Ok((space, key, value))))
    }
}

// ------------------------------------------------------------------------------------------------ a day with outages

/// What is known of a day on which the power fails.
pub struct Outages {
    durable: Durable,
    calm: Arc<AtomicBool>,
    /// What the gate has called unknown, until it was accepted after all.
    unknown: Mutex<HashSet<String>>,
    /// The deliveries whose end was said to be durable.
    over: Mutex<HashSet<LeaseId>>,
    met: Mutex<Met>,
}

/// What such days met.
#[derive(Clone, Debug, Default)]
pub struct Met {
    lives: usize,
    in_app: usize,
    found_in_flight: usize,
    found_unsent: usize,
    found_for_a_person: usize,
    disk_failures: usize,
    told_again: usize,
    accepted_again: usize,
}

impl Met {
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.in_app += other.in_app;
        self.found_in_flight += other.found_in_flight;
        self.found_unsent += other.found_unsent;
        self.found_for_a_person += other.found_for_a_person;
        self.disk_failures += other.disk_failures;
        self.told_again += other.told_again;
        self.accepted_again += other.accepted_again;
    }

    fn every_sort_occurs(&self) -> bool {
        let Self { lives, in_app, found_in_flight, found_unsent, found_for_a_person, disk_failures, .. } = *self;
        let found = [lives, in_app, found_in_flight, found_unsent, found_for_a_person, disk_failures];
        found.iter().chain([&self.told_again, &self.accepted_again]).all(|count| *count > 0)
    }
}

impl Outages {
    /// The last gate is left alone, soon.
    pub async fn come_to_an_end(&self, soon: Duration) {
        sleep(soon).await;
        self.calm.store(true, Ordering::Relaxed);
    }

    pub fn met(&self) -> Met {
        self.met.lock().unwrap().clone()
    }
}

impl World {
    fn met(&self) -> MutexGuard<'_, Met> {
        self.outages.as_ref().unwrap().met.lock().unwrap()
    }

    /// The same callback once more, in a request of its own.
    pub fn told_again(&self, tag: &Tag) -> Tag {
        self.met().told_again += 1;
        let mut tags = self.tags.lock().unwrap();
        let again = Tag { serial: tags.len(), ..tag.clone() };
        tags.push(again.clone());
        again
    }

    /// Up to so many milliseconds go by.
    pub async fn rest(&self, most: u64) {
        let rest = self.chance().millis(most);
        sleep(rest).await;
    }

    /// A commit says this of deliveries; on the disk it may be true from now on.
    pub fn is_told(&self, put: &[Delivery]) {
        let Some(outages) = &self.outages else { return };
        for delivery in put {
            match delivery.phase {
                Phase::Unknown { .. } => outages.unknown.lock().unwrap().extend(self.identities(delivery)),
                Phase::Review { .. } if self.is_shown(delivery) => {
                    self.in_hand.lock().unwrap().extend(self.identities(delivery))
                }
                _ => {}
            }
        }
    }

    /// These deliveries came to their end, as somebody was told.
    pub fn are_over(&self, removed: Vec<LeaseId>) {
        if let Some(outages) = self.outages.as_ref().filter(|outages| outages.durable == Durable::Outcome) {
            outages.over.lock().unwrap().extend(removed);
        }
    }

    /// Whether nobody at the gate knows what became of it, and it may therefore come again.
    pub fn is_called_unknown(&self, identity: &str) -> bool {
        let is_unknown =
            self.outages.as_ref().is_some_and(|outages| outages.unknown.lock().unwrap().contains(identity));
        if is_unknown {
            self.met().accepted_again += 1;
            let decided =
                self.in_hand.lock().unwrap().contains(identity) || self.missing.lock().unwrap().contains(identity);
            if !self.policy.on_unknown.resends() && !decided {
                self.fault(format!("{identity} is unknown and came again without a person"));
            }
        }
        is_unknown
    }

    /// It has been accepted, and the gate is about to know.
    pub fn is_known_again(&self, identity: &str) {
        if let Some(outages) = &self.outages {
            outages.unknown.lock().unwrap().remove(identity);
        }
    }

    /// The gate is gone; the app goes on with what it has, and the next gate has to reckon with that. What was in there.
    fn power_fails(&self) -> Vec<usize> {
        let (now, mut left) = (Instant::now(), Vec::new());
        for inside in self.inside.lock().unwrap().iter_mut().filter(|inside| inside.placed) {
            let until = now + inside.at_work.min(self.policy.quiet);
            if inside.until.is_none() && inside.tag.channel == Channel::Webhook {
                left.push(inside.tag.serial);
            }
            // An answer that came by halves may be still on its way.
            inside.until = Some(inside.until.map_or(until, |known| known.min(now + self.policy.quiet)));
        }
        left
    }

    /// What a gate knows when it begins: all that was in the app is among what it calls unknown, and nothing of which it had
    /// said that it is over.
    async fn is_found(&self, engine: &Embedded, was_in_app: &[usize], now: Timestamp) {
        let outages = self.outages.as_ref().unwrap();
        let written: HashSet<_> = self.written.lock().unwrap().iter().copied().collect();
        let mut unknown = HashSet::new();
        for id in written {
            let view = engine.load(Want::Delivery(id), now).await.unwrap();
            let Some(delivery) = view.delivery(id) else { continue };
            if outages.over.lock().unwrap().contains(&id) {
                self.fault(format!("{id:?} was over, and is found {:?}", delivery.phase));
            }
            let mut met = self.met();
            match delivery.phase {
                Phase::InFlight { .. } | Phase::Unknown { .. } => {
                    met.found_in_flight += 1;
                    unknown.insert(self.serial(delivery));
                }
                Phase::Review { .. } => met.found_for_a_person += 1,
                Phase::Held { .. }
                | Phase::Queued
                | Phase::Retrying { .. }
                | Phase::Confirming { .. }
                | Phase::Recheck { .. }
                | Phase::Awaited { .. } => met.found_unsent += 1,
            }
        }
        for serial in was_in_app.iter().filter(|serial| !unknown.contains(serial)) {
            self.fault(format!("{serial} was in the app when the power failed, and the gate does not know"));
        }
        let mut met = self.met();
        met.in_app += was_in_app.len();
        met.lives += 1;
    }
}

/// Plays a day with outages; `honest` is what the disk is about its syncing.
async fn play(seed: u64, honest: bool) -> (Vec<String>, Told) {
    let mut chance = Chance(seed);
    let durable = chance.of(&[Durable::Outcome, Durable::Claim]);
    let calm = Arc::new(AtomicBool::new(false));
    let outages = Outages {
        durable,
        calm: Arc::clone(&calm),
        unknown: Mutex::default(),
        over: Mutex::default(),
        met: Mutex::default(),
    };
    let (setting, calls, clicks) = some_day(&mut chance, Some(outages));
    let platter = Platter::default();
    platter.lock().lies = !honest;
    let (gates, standing) = watch::channel(None);
    let setting = Arc::new(setting);
    tokio::spawn(one_after_the_other(Arc::clone(&setting), platter, durable, calm, gates, chance));
    live_through(&setting, standing, calls, clicks).await
}

/// One gate after the other, each over what the one before it left.
async fn one_after_the_other(
    setting: Arc<Setting>,
    platter: Platter,
    durable: Durable,
    calm: Arc<AtomicBool>,
    gates: watch::Sender<Option<Gate<Embedded>>>,
    mut chance: Chance,
) {
    let (world, dawn) = (&setting.world, Instant::now());
    let bounds = memory::Options { places: world.places, ..memory::Options::default() };
    let options = Options { bounds, durable, quiet: world.policy.quiet, seals: Seals::default() };
    let (mut was_in_app, mut wrong) = (Vec::new(), 0);
    let steps = chance.of(&[60, 300, 1500]);
    for following in (0..1 + chance.below(5)).rev() {
        let life = Life::of(if following == 0 { u64::MAX } else { 1 + chance.below(steps) }, Arc::clone(&calm));
        // Somebody may have set the machine's clock back meanwhile. (Ahead would end windows and leases early.)
        wrong += if chance.one_in(3) { chance.below(1_000_000) } else { 0 };
        let wall = Timestamp::from_millis(MORNING.after(dawn.elapsed()).as_millis() - wrong);
        let (engine, writer) = Embedded::open_unwritten(Box::new(platter.clone()), options.clone(), wall).unwrap();
        let now = engine.now();
        world.is_found(&engine, &was_in_app, now).await;
        let gate = setting.gate(engine, SteadyClock::ahead_of(wall, now), Arc::clone(&life));
        let fails = chance.of(&[0, 0, 200]);
        tokio::spawn(write(writer, gate.clone(), platter.clone(), Arc::clone(world), fails));
        gates.send_replace(Some(gate));
        life.over().await;
        gates.send_replace(None);
        was_in_app = world.power_fails();
        platter.power_fails(&mut chance);
        sleep(chance.millis(20_000)).await;
    }
}

/// Writes group after group, as long as the gate lives. Of `fails` in ten thousand the disk says that it could not.
async fn write(mut writer: Writer, gate: Gate<Embedded>, platter: Platter, world: Arc<World>, fails: u64) {
    let Gate { dispatch, life, .. } = gate;
    loop {
        life.work.notified().await;
        world.rest(6).await;
        life.step().await;
        while let Some(group) = writer.gather() {
            platter.takes(&group);
            life.step().await;
            world.rest(12).await;
            life.step().await;
            {
                let mut chance = world.chance();
                let is_failing = chance.below(10_000) < fails && !life.calm.load(Ordering::Relaxed);
                platter.lock().fails = is_failing.then(|| chance.one_in(2));
                platter.lock().shut = if is_failing { chance.below(4) } else { 0 };
                if is_failing {
                    world.met().disk_failures += 1;
                }
            }
            writer.write(&group);
            // As long as the disk can't be opened.
            while dispatch.store.engine.fault().is_some() {
                sleep(Duration::from_secs(1)).await;
                life.step().await;
                writer.turn(dispatch.clock_now());
            }
            life.step().await;
        }
    }
}
