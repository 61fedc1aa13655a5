//! The real program, as a shell starts it.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::standing::config;

/// Long enough for a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the program to its end.
pub fn oncegate(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncegate")).args(args).current_dir(directory).output().unwrap()
}

/// A gate in a process of its own.
pub struct Process {
    child: Owned,
    /// Where callers reach it.
    pub address: SocketAddr,
    /// Where it listens besides.
    pub others: Vec<SocketAddr>,
    /// Every line that it has logged so far comes through here.
    log: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

impl Process {
    pub fn start(url: &str, more: &str) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_oncegate")), &config(url, more))
    }

    /// Starts it as systemd does, with a socket that is bound already.
    pub fn start_on(socket: &TcpListener, text: &str) -> Self {
        let mut shell = Command::new("sh");
        let become_it = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gate; exec \"$@\"";
        shell.args(["-c", become_it, "sh", env!("CARGO_BIN_EXE_oncegate")]);
        shell.stdin(OwnedFd::from(socket.try_clone().unwrap()));
        Self::spawn(shell, text)
    }

    /// Starts it by this command, which is given what to type, with this configuration.
    pub fn spawn(mut command: Command, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, format!("log.format = 'json'\n{text}")).unwrap();
        let child = command.args(["--config", path.to_str().unwrap(), "run"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Owned(child);
        let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let (into, log) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| into.send(line)));
        let listens: Vec<SocketAddr> = loop {
            let line = log.recv_timeout(PATIENCE).expect("the gate stands");
            let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(listen) = said["listen"].as_str() {
                break listen.split(' ').map(|address| address.parse().unwrap()).collect();
            }
        };
        let (first, others) = listens.split_first().unwrap();
        Self { child, address: ([127, 0, 0, 1], first.port()).into(), others: others.to_vec(), log, directory }
    }

    /// The file that it runs by.
    pub fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("config.toml")
    }

    /// The next line of the log that says this.
    pub fn says(&self, what: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it never says {what:?}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    /// The bytes of memory that are really there.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Tells it something, as an init system does.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for its end: the exit code, and what it logged since it stood.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let waited = tokio::task::spawn_blocking(move || {
            let status = self.child.0.wait().unwrap();
            let mut log = String::new();
            while let Ok(line) = self.log.recv_timeout(PATIENCE) {
                log += &line;
                log.push('\n');
            }
            (status.code(), log)
        });
        tokio::time::timeout(PATIENCE, waited).await.expect("it ends").unwrap()
    }
}

/// A process that does not outlive its test.
pub struct Owned(pub Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
