//! curl: a client that is none of ours, in a process of its own.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use tokio::task::JoinHandle;

/// What a client did: its exit code, what it printed, what it complained of.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub said: String,
    pub complaint: String,
}

/// Whether it is installed; if not, says what cannot be tried.
pub fn is_here(program: &str, what: &str) -> bool {
    let here = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !here {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: {what}, for `{program}` is not installed");
    }
    here
}

/// Runs a client to its end while others go on.
pub fn begin<S: Into<String>>(program: &'static str, args: impl IntoIterator<Item = S>) -> JoinHandle<Done> {
    let args: Vec<String> = args.into_iter().map(Into::into).collect();
    tokio::task::spawn_blocking(move || {
        let out = Command::new(program).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: out.status.code(), said: text(out.stdout), complaint: text(out.stderr) }
    })
}

/// Runs curl; it says the version of HTTP, the status, where it is sent, and then the body.
pub fn curl(args: impl IntoIterator<Item = impl Into<String>>) -> JoinHandle<Done> {
    let told = "%{stderr}%{http_version} %{http_code} %{redirect_url}";
    let usual = ["--silent", "--show-error", "--max-time", "20", "--write-out", told];
    begin("curl", usual.map(String::from).into_iter().chain(args.into_iter().map(Into::into)))
}
