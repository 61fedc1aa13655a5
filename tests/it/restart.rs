//! One gate ends and the next one begins: who comes in between waits, and what supervises them is told of each turn.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    process::Command,
    time::Duration,
};

use tokio::net::TcpStream;

use crate::support::{
    Office,
    office::BRACKETS,
    process::{Process, oncegate},
    standing::{NINJA, config, connect, heard, mollie},
    wire::soon,
};

/// A configuration that listens on a socket which is there already.
fn on(address: SocketAddr, url: &str) -> String {
    config(url, NINJA).replace("'[::]:0'", &format!("'{address}'"))
}

#[tokio::test]
async fn who_comes_between_two_gates_waits_for_the_next_and_the_two_are_never_side_by_side() {
    let mut office = Office::open().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = on(address, &office.url());
    let old = Process::start_on(&socket, &text);
    let mut first = connect(address).await;
    first.write(mollie("tr_1")).await;
    let visit = office.next().await;
    old.signal("TERM");
    old.says("told to stop");
    // Who comes now is not refused, and not served before all that the old one has begun is done.
    let mut between = connect(address).await;
    between.write(mollie("tr_2")).await;
    assert!(office.is_quiet_for(Duration::from_millis(100)).await);
    visit.answer(BRACKETS);
    heard(first).await.is_brackets();
    let (code, log) = old.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(office.is_quiet());
    let next = Process::start_on(&socket, &text);
    office.next().await.answer(BRACKETS);
    heard(between).await.is_brackets();
    next.signal("TERM");
    assert_eq!(next.end().await.0, Some(0));
}

// What starts and stops processes blocks its thread, and callers shall not stand still with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_refuses_nobody() {
    let office = Office::open().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = on(address, &office.url());
    let seen = office.answer_all(BRACKETS);
    let mut gate = Process::start_on(&socket, &text);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            tokio::spawn(async move {
                // A connection for each, as providers do it, or one for all until it is said to be over, as proxies do.
                let keeps = caller % 2 == 1;
                let mut kept = None;
                for n in 0..60 {
                    let mut wire = match kept.take() {
                        Some(wire) => wire,
                        None => connect(address).await,
                    };
                    wire.write(mollie(&format!("tr_{caller}x{n}"))).await;
                    let (head, body) = wire.answer().await;
                    assert_eq!((head.status(), &*body), (200, "[]"));
                    kept = (keeps && head.all("connection").is_empty()).then_some(wire);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.signal("TERM");
        assert_eq!(gate.end().await.0, Some(0));
        gate = Process::start_on(&socket, &text);
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(seen.len(), 240);
}

#[tokio::test]
async fn a_socket_that_is_passed_and_not_wanted_is_a_fault_with_its_remedy() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, config("http://127.0.0.1:9", "")).unwrap();
    let become_it = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    let out = Command::new("sh")
        .args(["-c", become_it, "sh", env!("CARGO_BIN_EXE_oncegate"), "--config", path.to_str().unwrap(), "run"])
        .stdin(std::os::fd::OwnedFd::from(socket))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("systemd listens on {address}")) && said.contains("gateway.listen"), "{said}");
}

#[tokio::test]
async fn sighup_and_a_changed_file_are_taken_up_and_systemd_hears_of_each_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut buffer = [0; 512];
        let length = systemd.recv(&mut buffer).expect("systemd is told");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let office = Office::open().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.env("NOTIFY_SOCKET", &path);
    let gate = Process::spawn(command, &config(&office.url(), NINJA));
    assert!(told().starts_with("READY=1\n"));
    let text = std::fs::read_to_string(gate.config()).unwrap();

    gate.signal("HUP");
    gate.says("nothing of the configuration has changed");
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().starts_with("READY=1\n"));

    std::fs::write(gate.config(), format!("gateway.max_body = 5\n{text}[[rule]]\nscope = ['host']\n")).unwrap();
    gate.says("files of the configuration have changed");
    let line = gate.says("holds for whatever comes from now on");
    assert!(line.contains("gateway.max_body") && line.contains("rule"), "{line}");
    let line = gate.says("both may be forwarded");
    assert!(line.contains("rule[1] (new)"), "{line}");
    assert!(told().starts_with("RELOADING=1\n") && told().starts_with("READY=1\n"));

    std::fs::write(gate.config(), format!("log.level = 'warn'\n{text}")).unwrap();
    assert!(told().starts_with("RELOADING=1\n") && told().starts_with("READY=1\n"));
    gate.signal("HUP");
    assert!(told().starts_with("RELOADING=1\n") && told().starts_with("READY=1\n"));

    std::fs::write(gate.config(), "gateway.listne = []").unwrap();
    gate.says("did you mean `listen`?");
    gate.says("the new configuration is refused; the one before stays");
    assert!(told().starts_with("RELOADING=1\n"));
    assert!(told().contains("the new one is refused"));
    assert!(soon(TcpStream::connect(gate.address)).await.is_ok());

    gate.signal("TERM");
    assert_eq!(gate.end().await.0, Some(0));
    assert!(told().starts_with("STOPPING=1\n"));
}

#[tokio::test]
async fn two_gates_share_an_address_only_if_both_say_so() {
    let office = Office::open().await;
    let first = Process::start(&office.url(), &format!("gateway.reuse_port = true\n{NINJA}"));
    let address = first.address;
    let shared = on(address, &office.url());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), &shared).unwrap();
    let alone = oncegate(folder.path(), &["run"]);
    assert_eq!(alone.status.code(), Some(1));
    let command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    let second = Process::spawn(command, &format!("gateway.reuse_port = true\n{shared}"));
    assert_eq!(second.address.port(), address.port());
}
