//! What the embedded store costs on this machine's disk: `cargo bench --bench store`.
//!
//! A bare fdatasync, a commit that waits alone, commits of 64 at once, and a million remembered events: their size on the
//! disk, how long a start takes, and how much memory they add. `EVENTS=100000` for fewer. The commits once more on a disk
//! that takes 1, 5 and 10 ms longer over each group.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use oncegate::{
    callback::{Answer, Channel, Key},
    store::{
        Store,
        embedded::{
            Embedded, Options,
            disk::{Disk, DiskError, Group, Medium, Records, Take},
            folder::Place,
            seal::Seals,
        },
        memory,
    },
    time::Timestamp,
    transaction::{
        effect::{Change, Durable, Transition},
        lock::{Claimed, Era, LeaseId},
        money::{Money, Stage},
        policy::Policy,
        state::{Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction},
    },
};
use tokio::{task::JoinSet, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A process of its own opens what stands there: one that wrote it has memory left over from that.
const OPEN: &str = "OPEN";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    if let Ok(path) = env::var(OPEN) {
        return opened(Path::new(&path));
    }
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    bare(&directory.path().join("bare"))?;
    for delay in [0, 1, 5, 10].map(Duration::from_millis) {
        let path = directory.path().join(format!("commits {delay:?}"));
        runtime.block_on(commits(&path, delay))?;
    }
    runtime.block_on(a_million(&directory.path().join("million")))
}

/// A folder on a disk that takes longer over each flush.
struct Slow<D> {
    disk: D,
    delay: Duration,
    /// So often it was flushed.
    flushes: Arc<AtomicU64>,
}

impl Medium for Slow<Place> {
    fn open(&mut self) -> Result<Box<dyn Disk>, DiskError> {
        let (disk, delay, flushes) = (self.disk.open()?, self.delay, Arc::clone(&self.flushes));
        Ok(Box::new(Slow { disk, delay, flushes }))
    }
}

impl Disk for Slow<Box<dyn Disk>> {
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError> {
        self.disk.read(take)
    }

    fn write(&mut self, group: &Group) -> Result<(), DiskError> {
        self.disk.write(group)?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        Ok(())
    }

    fn records(&self) -> Records {
        self.disk.records()
    }
}

fn open(path: &Path) -> Result<Embedded, Box<dyn std::error::Error>> {
    open_on(Box::new(Place::at(path.to_owned())))
}

fn open_on(medium: Box<dyn Medium>) -> Result<Embedded, Box<dyn std::error::Error>> {
    let bounds = memory::Options { max_leases: 10_000_000, ..memory::Options::default() };
    let options = Options { bounds, durable: Durable::Claim, quiet: Duration::from_secs(60), seals: Seals::default() };
    Ok(Embedded::open(medium, options, NOW)?)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What one fdatasync of a small record into a file that is there already takes.
fn bare(path: &Path) -> Outcome {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let mut file = File::options().write(true).open(path)?;
    let mut times = Vec::new();
    for _ in 0..1000 {
        let began = Instant::now();
        file.write_all(&[1; 240])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    println!("a bare fdatasync: {:?}", median(times));
    Ok(())
}

fn in_flight(id: u64) -> Transition {
    let body = Bytes::from(format!("id=tr_{id:016x}&{}", "x".repeat(180)));
    let request =
        StoredRequest { method: Method::POST, uri: Uri::from_static("/hook"), headers: HeaderMap::new(), body };
    let transaction = Key::of("bench").part("n", id.to_be_bytes()).finish();
    let carried = Carried {
        reference: "tr".into(),
        transaction,
        identity: transaction,
        windowed: false,
        told: 0,
        state: None,
        step: None,
    };
    let letter = Letter {
        request: Arc::new(request),
        provider: "generic",
        events: vec![carried],
        claimed: Claimed {
            channel: Channel::Webhook,
            names: Vec::new(),
            kinds: Vec::new(),
            exclusive: false,
            era: Era::default(),
        },
        policy: Arc::new(Policy::default()),
        arrived: NOW,
    };
    let phase = Phase::InFlight { lease_until: Timestamp::NEVER };
    let delivery = Delivery { id: LeaseId(id), version: 0, letter: Arc::new(letter), phase, attempts: 1, owed: false };
    Transition { deliveries: vec![Change::Put(delivery)], ..Transition::default() }
}

async fn commits(path: &Path, delay: Duration) -> Outcome {
    let flushes = Arc::new(AtomicU64::new(0));
    let medium = Slow { disk: Place::at(path.to_owned()), delay, flushes: Arc::clone(&flushes) };
    let store = Arc::new(open_on(Box::new(medium))?);
    let mut times = Vec::new();
    for id in 1..=if delay.is_zero() { 1000 } else { 100 } {
        let began = Instant::now();
        store.commit(in_flight(id), NOW).await?;
        times.push(began.elapsed());
    }
    println!("{delay:?} more for each flush: a commit that waits, alone: {:?}", median(times));
    let each = if delay.is_zero() { 500 } else { 50 };
    let (mut all, began, flushed) = (JoinSet::new(), Instant::now(), flushes.load(Ordering::Relaxed));
    for caller in 1..=64_u64 {
        let store = Arc::clone(&store);
        all.spawn(async move {
            let mut times = Vec::new();
            for n in 0..each {
                let began = Instant::now();
                let committed = store.commit(in_flight(caller << 32 | n), NOW).await;
                assert!(committed.is_ok());
                times.push(began.elapsed());
            }
            times
        });
    }
    let times: Vec<Duration> = all.join_all().await.into_iter().flatten().collect();
    let (count, flushes) = (times.len() as f64, (flushes.load(Ordering::Relaxed) - flushed) as f64);
    let rate = count / began.elapsed().as_secs_f64();
    println!("    64 at once: {rate:.0} a second, {:?} each, {:.3} flushes each", median(times), flushes / count);
    Ok(())
}

fn settled(n: u64) -> (Key, Transaction) {
    let key = Key::of("bench").part("n", n.to_be_bytes()).finish();
    let answer = Answer {
        status: StatusCode::OK,
        content_type: Some((*b"application/json").into()),
        body: Some((*b"[]").into()),
    };
    let expires = NOW.after(Duration::from_secs(86_400));
    let claim = Claim {
        identity: key,
        fate: Fate::Settled { answer: Arc::new(answer), expires },
        told: 0,
        window: None,
        rode: None,
    };
    (key, Transaction { version: 0, claims: vec![claim], money: Money { stage: Stage::Paid, paid: true } })
}

async fn a_million(path: &Path) -> Outcome {
    let events: u64 = env::var("EVENTS").ok().map_or(Ok(1_000_000), |text| text.parse())?;
    let store = open(path)?;
    let began = Instant::now();
    for chunk in 0..events / 1000 {
        let transactions = (chunk * 1000..(chunk + 1) * 1000).map(settled).collect();
        store.commit(Transition { transactions, ..Transition::default() }, NOW).await?;
    }
    store.flush().await?;
    println!("{events} events written in {:?}", began.elapsed());
    let at_once = size(path)?;
    at_rest(path);
    println!("on the disk: {} bytes each, and {} at once", size(path)? / events, at_once / events);
    drop(store);
    Command::new(env::current_exe()?).env(OPEN, path).status()?;
    Ok(())
}

/// How long a start takes, and how much memory what is remembered adds.
fn opened(path: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (before, began) = (resident()?, Instant::now());
        let store = open(path)?;
        let events = store.counts().transactions as u64;
        println!("opened in {:?}, {events} remembered", began.elapsed());
        println!("memory: {} bytes each", (resident()? - before) / events);
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("memory after a moment: {} bytes each", resident()?.saturating_sub(before) / events);
        Ok(())
    })
}

/// Waits until what came at once is sorted: a store that gets a million events over days is never far from it.
fn at_rest(path: &Path) {
    let (mut before, mut same) = (0, 0);
    while same < 3 {
        std::thread::sleep(Duration::from_secs(1));
        let now = size(path).unwrap_or_default();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
}

/// What a folder takes of the disk, in bytes.
fn size(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.blocks() * 512 };
    }
    Ok(sum)
}

/// The memory of this process that is really there, in bytes.
fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
