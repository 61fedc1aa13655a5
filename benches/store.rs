//! What the embedded store costs on this machine's disk: `cargo bench --bench store`.
//!
//! A bare fdatasync, a commit that waits alone, commits of 64 at once, and a million remembered events: their size on the
//! disk, how long a start takes, and how much memory they add. `EVENTS=100000` for fewer.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use oncegate::{
    callback::{Answer, Channel, Key},
    store::{
        Store,
        embedded::{Embedded, Options, folder::Place, seal::Seals},
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
    runtime.block_on(commits(&directory.path().join("commits")))?;
    runtime.block_on(a_million(&directory.path().join("million")))
}

fn open(path: &Path) -> Result<Embedded, Box<dyn std::error::Error>> {
    let bounds = memory::Options { max_leases: 10_000_000, ..memory::Options::default() };
    let options = Options { bounds, durable: Durable::Claim, quiet: Duration::from_secs(60), seals: Seals::default() };
    Ok(Embedded::open(Box::new(Place::at(path.to_owned())), options, NOW)?)
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

async fn commits(path: &Path) -> Outcome {
    let store = Arc::new(open(path)?);
    let mut times = Vec::new();
    for id in 1..1000 {
        let began = Instant::now();
        store.commit(in_flight(id), NOW).await?;
        times.push(began.elapsed());
    }
    println!("a commit that waits, alone: {:?}", median(times));
    let mut all = JoinSet::new();
    let began = Instant::now();
    for caller in 1..=64_u64 {
        let store = Arc::clone(&store);
        all.spawn(async move {
            for n in 0..500 {
                let committed = store.commit(in_flight(caller << 32 | n), NOW).await;
                assert!(committed.is_ok());
            }
        });
    }
    while all.join_next().await.is_some() {}
    println!("commits that wait, 64 at once: {:.0} a second", 32_000.0 / began.elapsed().as_secs_f64());
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
    drop(store);
    println!("on the disk: {} bytes each", size(path)? / events);
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
