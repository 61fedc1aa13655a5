//! The gate in a process of its own, over a folder that outlives it.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Long enough for a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a gate is to be started, again and again.
#[derive(Clone)]
pub struct Setup {
    config: PathBuf,
    /// Where callers reach it: always the same.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// What the program is started with, before its own name.
    pub wrapper: Vec<String>,
    /// Where it keeps what it knows.
    pub store: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

/// A gate that runs.
pub struct Gate(Child);

/// An address for one gate after another. The system gives its port to nobody who asks for any, listener or caller: those
/// ports lie higher.
fn lasting_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + std::process::id().wrapping_mul(7919).wrapping_add(nth) % 20_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port as u16)) {
            return listener.local_addr().unwrap();
        }
        assert!(nth < 20_000, "no port is free");
    }
}

impl Setup {
    /// A gate with its store in `store`, before the app at `app`; its configuration stands in `directory`.
    pub fn new(directory: &Path, store: &Path, app: SocketAddr, durable: &str) -> Self {
        let [address, admin] = [(); 2].map(|()| lasting_address());
        let config = directory.join("config.toml");
        let text = format!(
            "gateway.listen = ['{address}']\ngateway.threads = 1\nupstream.url = 'http://{app}'\nadmin.listen = '{admin}'\n\
             log.format = 'json'\nlog.callbacks = false\n[store]\nengine = 'embedded'\npath = '{}'\ndurable = '{durable}'\nhistory = 1000000\n\
             [[rule]]\nname = 'crash'\npath = '/hook'\nprovider = 'generic'\nreference = 'header:x-payment'\n\
             event_id = 'header:x-event'\nhold = '2ms'\nlinger = '0s'\nquiet = '200ms'\ntimeout = '2s'\n\
             on_unknown = 'resend'\nretry = {{ first = '50ms', longest = '1s', attempts = 50 }}\n",
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        Self { config, address, admin, wrapper: Vec::new(), store: store.to_owned(), log: Arc::default() }
    }

    /// Adds this to its rule.
    pub fn says(&self, keys: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, format!("{text}{keys}\n")).unwrap();
    }

    /// Has its webhooks held for so long.
    pub fn holds(&self, span: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, text.replace("hold = '2ms'", &format!("hold = '{span}'"))).unwrap();
    }

    /// Starts it, and waits until it stands.
    pub fn start(&self) -> Gate {
        self.try_start().unwrap_or_else(|log| panic!("the gate does not stand:\n{log}"))
    }

    /// The same; what it said where it does not stand.
    pub fn try_start(&self) -> Result<Gate, String> {
        let program = env!("CARGO_BIN_EXE_oncegate").to_owned();
        let mut words = self.wrapper.clone();
        words.extend([program, "--config".to_owned(), self.config.display().to_string(), "run".to_owned()]);
        let mut command = Command::new(&words[0]);
        let mut child = command.args(&words[1..]).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (stands, stood) = mpsc::channel();
        let log = Arc::clone(&self.log);
        log.lock().unwrap().clear();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let is_standing = said["listen"].is_string();
                log.lock().unwrap().push(line);
                if is_standing {
                    _ = stands.send(());
                }
            }
        });
        let mut gate = Gate(child);
        if stood.recv_timeout(PATIENCE).is_ok() {
            return Ok(gate);
        }
        gate.kill();
        Err(self.said())
    }

    /// What the last gate has logged.
    pub fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Gate {
    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has come to an end.
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// As the system kills what it has no memory for.
    pub fn kill(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.kill();
    }
}
