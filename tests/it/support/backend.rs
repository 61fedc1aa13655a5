//! Real web servers in the place of the app, and what each of them took for a request.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::process::Owned;

/// One that answers every request with its target.
pub struct Backend {
    pub name: &'static str,
    address: SocketAddr,
    log: PathBuf,
    /// The lines of the log that were looked at.
    read: usize,
    _server: Owned,
    _folder: tempfile::TempDir,
}

/// What a server took for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether it had the whole of it, with its body, and acted on it.
    pub whole: bool,
    /// The line with method, target and version.
    pub line: String,
    pub host: String,
    pub body: String,
}

impl Taken {
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// nginx in one process, whose inner server hears only of what the outer one has read whole.
fn nginx(folder: &Path, address: SocketAddr) -> String {
    let here = folder.display();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "{kind}_temp_path {here}/{kind};").unwrap();
    }
    format!(
        r#"daemon off; master_process off; worker_processes 1; pid {here}/pid; error_log {here}/errors;
events {{ worker_connections 256; }}
http {{
  {temporary}
  access_log off;
  log_format seen '"$upstream_status" "$request" "$http_host" "$request_body"';
  client_body_buffer_size 1m; client_body_in_single_buffer on;
  server {{
    listen {address}; access_log {here}/seen seen;
    location / {{ proxy_pass http://unix:{here}/inner:; }}
  }}
  server {{ listen unix:{here}/inner; location / {{ return 200 "$request_uri"; }} }}
}}
"#
    )
}

/// Apache in one process, with a script that hears of a request and reads its body to the end.
fn apache(folder: &Path, address: SocketAddr) -> String {
    let here = folder.display();
    let script = folder.join("answer");
    let answer = r#"#!/bin/sh
body=$(od -An -v -tx1 | tr -d ' \n')
printf 'X-Whole: yes\nX-Body: hex %s\nContent-Type: text/plain\n\n%s' "$body" "$REQUEST_URI"
"#;
    fs::write(&script, answer).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        r#"ServerRoot {here}
ServerName app
Listen {address}
PidFile {here}/pid
ErrorLog {here}/errors
User #65534
Group #65534
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so
LogFormat "\"%{{X-Whole}}o\" \"%r\" \"%{{Host}}i\" \"%{{X-Body}}o\"" seen
CustomLog {here}/seen seen
ScriptAliasMatch ^ {here}/answer
AllowEncodedSlashes NoDecode
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MinSpareThreads 1
MaxSpareThreads 8
MaxRequestWorkers 8
"#
    )
}

/// Starts a server in its place; nothing where it is not installed, and then says what is not tried.
pub fn server(name: &'static str, what: &str, arguments: &[&str]) -> Option<Owned> {
    // Where Debian puts them is not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let Ok(server) = Command::new(name).env("PATH", path).args(arguments).stderr(Stdio::null()).spawn() else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: {what}, for `{name}` is not installed");
        return None;
    };
    Some(Owned(server))
}

/// Whether somebody listens there within ten seconds.
pub fn stands(address: SocketAddr) -> bool {
    (0..1000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(address).is_ok()
    })
}

/// An address of our own at which nobody listens yet.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Backend {
    /// Both of them; nothing where one is not installed.
    pub fn both() -> Option<[Self; 2]> {
        let nginx = Self::start("nginx", nginx, &["-c"])?;
        let apache = Self::start("apache2", apache, &["-X", "-f"])?;
        Some([nginx, apache])
    }

    fn start(name: &'static str, write: fn(&Path, SocketAddr) -> String, arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // Whoever serves may be another user than whoever starts.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (address, file) = (free(), folder.path().join("server.conf"));
        fs::write(&file, write(folder.path(), address)).unwrap();
        let arguments = [arguments, &[file.to_str().unwrap()]].concat();
        let server = server(name, &format!("what {name} takes for a request"), &arguments)?;
        let errors = || fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
        assert!(stands(address), "{name} does not stand: {}", errors());
        Some(Self { name, address, log: folder.path().join("seen"), read: 0, _server: server, _folder: folder })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has taken since the last look, up to this target, which comes last.
    pub async fn taken_before(&mut self, last: &str) -> Vec<Taken> {
        for _ in 0..5000 {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let fresh: Vec<_> = log.lines().skip(self.read).map(entry).collect();
            if let Some(at) = fresh.iter().position(|taken| taken.target() == last) {
                self.read += at + 1;
                return fresh[..at].to_vec();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{} never took {last}", self.name);
    }
}

/// One line of a log: four texts in quotation marks.
fn entry(line: &str) -> Taken {
    let mut rest = line;
    let mut next = || {
        rest = rest.split_once('"').unwrap_or_else(|| panic!("no text left in {line}")).1;
        let (text, length) = unquoted(rest);
        rest = &rest[length..];
        if text == "-" { String::new() } else { text }
    };
    let (whole, line, host, mut body) = (next(), next(), next(), next());
    // A script has only a field to tell it in.
    if let Some(hex) = body.strip_prefix("hex ") {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        body = String::from_utf8((0..hex.len()).step_by(2).map(byte).collect()).unwrap();
    }
    Taken { whole: !whole.is_empty(), line, host, body }
}

/// A text up to its quotation mark, as either server writes it, and how much of the line it takes.
fn unquoted(text: &str) -> (String, usize) {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        let (byte, length) = match &text.as_bytes()[at..] {
            [b'"', ..] => return (String::from_utf8_lossy(&bytes).into_owned(), at + 1),
            [b'\\', b'x', high, low, ..] => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap(), 4)
            }
            [b'\\', escaped, ..] => (
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'b' => 8,
                    b'f' => 12,
                    other => *other,
                },
                2,
            ),
            [plain, ..] => (*plain, 1),
            [] => panic!("no end of {text}"),
        };
        bytes.push(byte);
        at += length;
    }
}

#[test]
fn a_text_is_the_same_however_a_server_writes_it() {
    for line in [r#""200" "GET /\x22\x5C\x0A HTTP/1.1" "a" "-""#, r#""yes" "GET /\"\\\n HTTP/1.1" "a" """#] {
        let taken = entry(line);
        assert_eq!((taken.whole, &*taken.line, &*taken.body), (true, "GET /\"\\\n HTTP/1.1", ""));
    }
    assert!(!entry(r#""-" "" "-" "-""#).whole);
    assert_eq!(entry(r#""yes" "POST / HTTP/1.1" "a" "hex 0d0a41""#).body, "\r\nA");
}
