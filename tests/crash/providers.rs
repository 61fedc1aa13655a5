//! Providers that tell of events until they are acknowledged, and now and then tell again.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use super::Chance;

pub struct Providers {
    stopping: Arc<AtomicBool>,
    /// Every event that was acknowledged.
    pub acknowledged: Arc<Mutex<HashSet<String>>>,
    /// How many answers were given that were no acknowledgement.
    pub refused: Arc<AtomicUsize>,
    all: Vec<JoinHandle<()>>,
}

impl Providers {
    /// So many of them, each with one event at a time; several speak of one payment.
    pub fn start(count: u64, gate: SocketAddr, seed: u64) -> Self {
        let mut providers =
            Self { stopping: Arc::default(), acknowledged: Arc::default(), refused: Arc::default(), all: Vec::new() };
        for provider in 0..count {
            let (stopping, acknowledged) = (Arc::clone(&providers.stopping), Arc::clone(&providers.acknowledged));
            let refused = Arc::clone(&providers.refused);
            let mut chance = Chance(seed << 20 | provider);
            providers.all.push(thread::spawn(move || {
                let mut wire = None;
                for serial in 0.. {
                    // Two providers speak of each payment.
                    let event = format!("p{seed}-{}-{}/e{provider}-{serial}", provider / 2, serial / 3);
                    tell(&event, gate, &mut wire, &refused, &mut chance);
                    acknowledged.lock().unwrap().insert(event.clone());
                    if chance.below(6) == 0 {
                        tell(&event, gate, &mut wire, &refused, &mut chance);
                    }
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }));
        }
        providers
    }

    /// Waits until the event under way of each is acknowledged.
    pub fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.all.drain(..).for_each(|provider| provider.join().unwrap());
    }

    /// Waits until so many more events are acknowledged, whatever the speed of this machine; but not for ever, for the
    /// gate may be waiting for what was in the app.
    pub fn go_on(&self, count: usize) {
        let (began, before) = (Instant::now(), self.acknowledged.lock().unwrap().len());
        while self.acknowledged.lock().unwrap().len() < before + count && began.elapsed() < Duration::from_secs(2) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nobody will acknowledge anything any more.
    pub fn abandon(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.all.clear();
    }

    pub fn acknowledged(&self) -> HashSet<String> {
        self.acknowledged.lock().unwrap().clone()
    }
}

/// Tells of an event until that is acknowledged.
fn tell(event: &str, gate: SocketAddr, wire: &mut Option<TcpStream>, refused: &AtomicUsize, chance: &mut Chance) {
    let began = Instant::now();
    loop {
        match say(event, gate, wire) {
            Some(200..300) => return,
            Some(_) => _ = refused.fetch_add(1, Ordering::Relaxed),
            None => *wire = None,
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{event} is never acknowledged");
        thread::sleep(Duration::from_millis(5 + chance.below(30)));
    }
}

/// The status of the answer, if there is one.
pub fn say(event: &str, gate: SocketAddr, wire: &mut Option<TcpStream>) -> Option<u16> {
    hear(event, gate, wire).map(|(status, _)| status)
}

/// The status of the answer and what it says was decided, if there is one.
pub fn hear(event: &str, gate: SocketAddr, wire: &mut Option<TcpStream>) -> Option<(u16, String)> {
    let (payment, _) = event.split_once('/')?;
    let stream = match wire {
        Some(stream) => stream,
        None => wire.insert(TcpStream::connect(gate).ok()?),
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let length = event.len();
    let request = format!(
        "POST /hook HTTP/1.1\r\nhost: a\r\nx-payment: {payment}\r\nx-event: {event}\r\ncontent-length: {length}\r\n\r\n{event}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut decision) = (String::new(), 0, String::new());
    reader.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("oncegate-decision:") {
            decision = value.trim().to_owned();
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some((status, decision))
}
