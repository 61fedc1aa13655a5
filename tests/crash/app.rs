//! An app that writes down what it got, and works on to its end whatever becomes of the connection.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::Chance;

/// The longest that it works on one request; `quiet` in the gate's configuration is longer.
pub const LONGEST: Duration = Duration::from_millis(120);

/// What the app knows.
#[derive(Default)]
struct Known {
    /// How often each event came.
    events: HashMap<String, usize>,
    /// The payments it is at work on.
    at_work: HashSet<String>,
    faults: Vec<String>,
}

#[derive(Clone)]
pub struct App {
    pub address: SocketAddr,
    known: Arc<Mutex<Known>>,
}

impl App {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { address: listener.local_addr().unwrap(), known: Arc::default() };
        let serving = app.clone();
        thread::spawn(move || {
            for (serial, stream) in listener.incoming().enumerate() {
                let app = serving.clone();
                thread::spawn(move || app.serve(stream.unwrap(), Chance(serial as u64)));
            }
        });
        app
    }

    fn serve(&self, stream: TcpStream, mut chance: Chance) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(body) = request(&mut reader) {
            if let Some((payment, event)) = body.split_once('/') {
                self.comes(payment, event);
                thread::sleep(match chance.below(20) {
                    0 => LONGEST,
                    n => Duration::from_micros(n * 100),
                });
                self.known.lock().unwrap().at_work.remove(payment);
            }
            let said = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok");
            if said.is_err() {
                return;
            }
        }
    }

    fn comes(&self, payment: &str, event: &str) {
        let mut known = self.known.lock().unwrap();
        *known.events.entry(format!("{payment}/{event}")).or_default() += 1;
        if !known.at_work.insert(payment.to_owned()) {
            known.faults.push(format!("{payment}/{event} comes in while the payment is at work"));
        }
    }

    /// How often this event came.
    pub fn count(&self, event: &str) -> usize {
        self.known.lock().unwrap().events.get(event).copied().unwrap_or_default()
    }

    /// Every event that came, and how often.
    pub fn events(&self) -> HashMap<String, usize> {
        self.known.lock().unwrap().events.clone()
    }

    pub fn faults(&self) -> Vec<String> {
        self.known.lock().unwrap().faults.clone()
    }
}

/// The body of the next request; `None` at the end.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}
