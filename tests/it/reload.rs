//! A configuration that changes while the gate runs: who is connected, waits, is held or is in the app loses nothing.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use oncegate::{
    config::{Loaded, World},
    gateway::reload::Reload,
    telemetry::Reloaded,
};
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;

use crate::support::{
    Authority, Office, Standing, Till, Wire,
    authority::handshake,
    backend,
    office::{BRACKETS, WELCOME},
    process::Process,
    standing::{HOOK, NINJA, back, config, connect, heard, mollie, post},
    wire::soon,
};

/// A gate with the file that it runs by.
struct Filed {
    gate: Standing,
    reload: Reload,
    path: PathBuf,
    url: String,
    _folder: tempfile::TempDir,
}

impl Filed {
    async fn before(url: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let gate = Standing::before(url, more).await;
        std::fs::write(&path, config(url, more)).unwrap();
        let files = Loaded::from_file(&path, &World::real()).files;
        let reload = Reload::of(&path, files).looking(Duration::from_millis(10));
        Self { gate, reload, path, url: url.to_owned(), _folder: folder }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).unwrap();
    }

    async fn now(&mut self) -> Reloaded {
        self.reload.take_up_now(&mut self.gate.running).await
    }

    /// Writes what a test adds to the usual, and takes it up.
    async fn change(&mut self, more: &str) -> Reloaded {
        self.write(&config(&self.url, more));
        self.now().await
    }

    /// Waits until a change is seen, and takes it up.
    async fn seen(&mut self) -> Option<Reloaded> {
        let changed = soon(self.reload.changed()).await;
        self.reload.take_up_changed(&mut self.gate.running, &changed).await
    }
}

/// A rule for callbacks that carry an order, with these keys besides.
fn shop(keys: &str) -> String {
    format!("[[rule]]\nname = 'shop'\npath = '/hook'\nreference = 'form:order'\nhold = '0s'\n{keys}")
}

fn order(number: &str) -> String {
    post("/hook", "Content-Type: application/x-www-form-urlencoded\r\n", &format!("order={number}&other=x{number}"))
}

// ------------------------------------------------------------------------------------------------ what is under way

#[tokio::test]
async fn what_is_in_the_app_and_who_waits_for_it_hear_its_answer_and_what_was_known_stays_known() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let first = filed.gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let twin = filed.gate.begin(mollie("tr_1")).await;
    filed.gate.waiters(2).await;
    assert_eq!(filed.change(&format!("gateway.max_body = '2MiB'\n{NINJA}linger = '0s'\n")).await, Reloaded::Applied);
    let late = filed.gate.begin(mollie("tr_1")).await;
    filed.gate.waiters(3).await;
    assert!(office.is_quiet());
    visit.answer(BRACKETS);
    for told in [first, twin, late] {
        told.await.unwrap().is_brackets();
    }
    let again = filed.gate.ask(mollie("tr_1")).await;
    assert_eq!(again.decision(), "replayed", "the window goes on");
    assert!(office.is_quiet());
}

#[tokio::test]
async fn a_hold_keeps_its_length_and_ends_when_the_payer_comes_through_under_new_rules() {
    let mut office = Office::open().await;
    let joined = "aliases.hash = ['form:hash', 'query:hash']\n";
    let rules = |hold: &str| {
        format!(
            "[[rule]]\npath = '/hook'\nreference = 'form:id'\nhold = '{hold}'\n{joined}\
             [[rule]]\npath = '/back'\nchannel = 'return'\n{joined}"
        )
    };
    let mut filed = Filed::before(&office.url(), &rules("3m")).await;
    let hook = post("/hook", "Content-Type: application/x-www-form-urlencoded\r\n", "id=1&hash=h");
    let held = filed.gate.begin(hook).await;
    filed.gate.waiters(1).await;
    assert_eq!(filed.change(&rules("4m")).await, Reloaded::Applied);
    let payer = filed.gate.begin("GET /back?hash=h HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let visit = office.next().await;
    assert!(visit.line().starts_with("GET /back"), "{visit:?}");
    visit.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    office.next().await.says(200, "ok");
    assert_eq!(held.await.unwrap().body, "ok");
}

#[tokio::test]
async fn names_are_kept_from_others_through_a_reload_while_the_app_lingers() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), &shop("linger = '700ms'\nidentity = 'body'")).await;
    let first = filed.gate.begin(order("7")).await;
    office.next().await.says(200, "ok");
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(filed.change(&shop("linger = '0s'\nidentity = 'body'")).await, Reloaded::Applied);
    let second = filed.gate.begin(order("7").replace("other=x7", "other=x8")).await;
    assert!(office.is_quiet_for(Duration::from_millis(200)).await, "the first one's names are still kept");
    office.next().await.says(200, "ok");
    second.await.unwrap();
}

#[tokio::test]
async fn callbacks_read_by_other_rules_never_run_beside_each_other() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), &shop("")).await;
    let old = filed.gate.begin(order("7")).await;
    let visit = office.next().await;
    assert_eq!(filed.change(&shop("").replace("form:order", "form:other")).await, Reloaded::Applied);
    let twin = filed.gate.begin(order("7")).await;
    filed.gate.waiters(2).await;
    assert!(office.is_quiet_for(Duration::from_millis(200)).await, "it may be about the payment in the app");
    visit.says(200, "first");
    assert_eq!(old.await.unwrap().body, "first");
    office.next().await.says(200, "second");
    let twin = twin.await.unwrap();
    assert_eq!((twin.decision(), &*twin.body), ("first", "second"), "under its new key it is not known");
}

#[tokio::test]
async fn a_hundred_reloads_under_load_fail_nothing() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let seen = office.answer_all(BRACKETS);
    let address = filed.gate.v4();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            tokio::spawn(async move {
                let mut wire = connect(address).await;
                let mut asked = 0;
                while asked < 150 {
                    asked += 1;
                    wire.write(mollie(&format!("tr_{caller}x{asked}"))).await;
                    let (head, body) = wire.answer().await;
                    assert_eq!((head.status(), &*body), (200, "[]"));
                    wire.write("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
                    assert_eq!(wire.answer().await.0.status(), 200);
                }
                asked
            })
        })
        .collect();
    for round in 0..100 {
        let keys = if round % 4 == 3 { "scope = ['host']\n" } else { "" };
        let more = format!("gateway.max_body = {}\nupstream.max_idle = {}\n{NINJA}{keys}", 4096 + round, 8 + round % 3);
        assert_eq!(filed.change(&more).await, Reloaded::Applied);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut asked = 0;
    for caller in callers {
        asked += caller.await.unwrap();
    }
    assert_eq!(asked, 8 * 150);
    assert_eq!(seen.len(), 2 * asked, "each once");
    assert!((filed.gate.figure("config_reloads_total{result=\"applied\"}") - 100.0).abs() < f64::EPSILON);
}

// ------------------------------------------------------------------------------------------------ faults

#[tokio::test]
async fn a_faulty_configuration_is_refused_and_the_one_before_stays() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let good = std::fs::read_to_string(&filed.path).unwrap();
    let figure = |filed: &Filed, name: &str| filed.gate.figure(&format!("config_{name}"));
    assert!(figure(&filed, "last_reload_successful") > 0.0);
    for bad in ["preset = 'invoice-ninja'\n[[rule]\n", "gateway.listne = []", ""] {
        filed.write(bad);
        assert_eq!(filed.now().await, Reloaded::Refused, "{bad}");
        assert!(figure(&filed, "last_reload_successful") < 1.0);
    }
    std::fs::remove_file(&filed.path).unwrap();
    assert_eq!(filed.now().await, Reloaded::Refused);
    assert!(figure(&filed, "reloads_total{result=\"refused\"}") > 3.0);
    let told = filed.gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();
    filed.write(&good);
    assert_eq!(filed.now().await, Reloaded::Unchanged);
    assert!(figure(&filed, "last_reload_successful") > 0.0);
}

#[tokio::test]
async fn what_cannot_be_had_refuses_the_whole() {
    let office = Office::open().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let before = filed.gate.running.addresses.clone();
    for key in ["admin.listen", "gateway.listen"] {
        let text = config(&office.url(), "gateway.max_body = 5\npreset = 'invoice-ninja'");
        let text: String = text.lines().filter(|line| !line.starts_with(key)).flat_map(|l| [l, "\n"]).collect();
        let value = if key == "admin.listen" { format!("'{address}'") } else { format!("['[::]:0', '{address}']") };
        filed.write(&format!("{key} = {value}\n{text}"));
        assert_eq!(filed.now().await, Reloaded::Refused, "{key}");
        assert_eq!(filed.gate.running.addresses, before);
    }
    let told = filed.gate.begin(mollie("tr_123456")).await;
    drop(office);
    assert_ne!(told.await.unwrap().status(), 413, "the bound of the refused one does not hold");
}

#[tokio::test]
async fn keys_for_the_next_start_are_told_and_all_else_holds() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    assert_eq!(filed.change(&format!("gateway.threads = 3\n{NINJA}")).await, Reloaded::Unchanged);
    assert!(filed.gate.figure("config_restart_needed") > 0.0);
    assert_eq!(filed.change(&format!("gateway.threads = 3\ngateway.max_body = 5\n{NINJA}")).await, Reloaded::Applied);
    assert_eq!(filed.gate.ask(mollie("tr_123456")).await.status(), 413);
    assert!(filed.gate.figure("config_restart_needed") > 0.0);
    assert_eq!(filed.change(NINJA).await, Reloaded::Applied);
    assert!(filed.gate.figure("config_restart_needed") < 1.0);
}

// ------------------------------------------------------------------------------------------------ what changes

#[tokio::test]
async fn addresses_come_and_go_and_may_take_each_others_place() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let mut kept = filed.gate.client().await;
    let port = filed.gate.v4().port();
    let text = std::fs::read_to_string(&filed.path).unwrap().replace("'[::]:0'", "'[::]:0', '127.0.0.1:0'");
    filed.write(&text);
    assert_eq!(filed.now().await, Reloaded::Applied);
    let two = filed.gate.running.addresses.clone();
    assert_eq!((two.len(), two[0].port()), (2, port));
    drop(connect(two[1]).await);
    // The same port, and only one of the two protocols: the new socket stands before the old one goes.
    filed.write(&text.replace("'[::]:0', '127.0.0.1:0'", &format!("'127.0.0.1:{port}'")));
    assert_eq!(filed.now().await, Reloaded::Applied);
    assert_eq!(filed.gate.running.addresses, [([127, 0, 0, 1], port).into()]);
    let refused = async {
        while TcpStream::connect(two[1]).await.is_ok() || TcpStream::connect(("::1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(refused).await;
    kept.write(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    let told = heard(kept).await;
    told.is_brackets();
    assert_eq!(told.head.one("connection"), "close");
    let told = filed.gate.begin(mollie("tr_2")).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();
}

#[tokio::test]
async fn the_app_moves_and_what_waits_goes_where_it_is() {
    let (mut old, mut new) = (Office::open().await, Office::open().await);
    let mut filed = Filed::before(&old.url(), &format!("upstream.max_callbacks = 1\n{}", shop(""))).await;
    let first = filed.gate.begin(order("1")).await;
    let visit = old.next().await;
    let second = filed.gate.begin(order("2")).await;
    filed.gate.waiters(2).await;
    filed.url = new.url();
    assert_eq!(filed.change(&format!("upstream.max_callbacks = 1\n{}", shop(""))).await, Reloaded::Applied);
    assert!(new.is_quiet_for(Duration::from_millis(100)).await, "one at a time, wherever");
    visit.says(200, "old");
    assert_eq!(first.await.unwrap().body, "old");
    new.next().await.says(200, "new");
    assert_eq!(second.await.unwrap().body, "new");
    let page = filed.gate.begin("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
    new.next().await.says(200, "page");
    assert_eq!(page.await.unwrap().body, "page");
    assert!(old.is_quiet());
}

#[tokio::test]
async fn more_places_in_the_app_let_those_in_who_wait() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), &format!("upstream.max_callbacks = 1\n{}", shop(""))).await;
    let callers = [filed.gate.begin(order("1")).await, filed.gate.begin(order("2")).await];
    let first = office.next().await;
    filed.gate.waiters(2).await;
    assert_eq!(filed.change(&format!("upstream.max_callbacks = 2\n{}", shop(""))).await, Reloaded::Applied);
    office.next().await.says(200, "ok");
    first.says(200, "ok");
    for caller in callers {
        assert_eq!(caller.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_desk_moves_and_can_be_shut() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let old = filed.gate.running.admin.unwrap();
    let text = std::fs::read_to_string(&filed.path).unwrap();
    filed.write(&text.replace("'127.0.0.1:0'", &format!("'[::]:{}'", old.port())));
    assert_eq!(filed.now().await, Reloaded::Applied);
    assert_eq!(filed.gate.running.admin.unwrap().port(), old.port());
    assert_eq!(filed.gate.admin("/readyz").await.status(), 200);
    filed.write(&text.replace("'127.0.0.1:0'", "'off'"));
    assert_eq!(filed.now().await, Reloaded::Applied);
    assert_eq!(filed.gate.running.admin, None);
    let shut = async {
        while TcpStream::connect(old).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(shut).await;
}

#[tokio::test]
async fn a_preset_that_comes_makes_callbacks_of_what_was_passed_through() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), "").await;
    let mut seen = office.answer_all(BRACKETS);
    for (more, reached, decision) in [("", 2, ""), (NINJA, 1, "replayed")] {
        if !more.is_empty() {
            assert_eq!(filed.change(more).await, Reloaded::Applied);
        }
        filed.gate.ask(mollie("tr_1")).await;
        assert_eq!(filed.gate.ask(mollie("tr_1")).await.decision(), decision);
        for _ in 0..reached {
            assert!(soon(seen.recv()).await.unwrap().line().contains(HOOK));
        }
        assert!(seen.is_empty());
    }
}

// ------------------------------------------------------------------------------------------------ files

#[tokio::test]
async fn a_file_that_was_renamed_over_the_old_one_is_taken_up() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let beside = filed.path.with_extension("new");
    std::fs::write(&beside, config(&office.url(), &format!("gateway.max_body = 5\n{NINJA}"))).unwrap();
    std::fs::rename(&beside, &filed.path).unwrap();
    assert_eq!(filed.seen().await, Some(Reloaded::Applied));
    assert_eq!(filed.gate.ask(mollie("tr_123456")).await.status(), 413);
}

#[tokio::test]
async fn a_secret_whose_file_changes_is_the_one_that_counts() {
    let mut office = Office::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let more =
        format!("{NINJA}signature = 'required'\n[provider.mollie]\nsecrets = [{{ file = '{}' }}]", secret.display());
    std::fs::write(&secret, "one").unwrap();
    let mut filed = Filed::before(&office.url(), &more).await;
    let sign = |secret: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, b"id=tr_1");
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let signed = |secret: &str| {
        mollie("tr_1").replace("Accept:", &format!("X-Mollie-Signature: sha256={}\r\nAccept:", sign(secret)))
    };
    std::fs::write(&secret, "two").unwrap();
    assert_eq!(filed.seen().await, Some(Reloaded::Applied));
    assert_eq!(filed.gate.ask(signed("one")).await.decision(), "unverified");
    let told = filed.gate.begin(signed("two")).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();

    std::fs::remove_file(&secret).unwrap();
    assert_eq!(filed.seen().await, Some(Reloaded::Refused));
    assert_ne!(filed.gate.ask(signed("two")).await.decision(), "unverified", "what was read before stays");
    std::fs::write(&secret, "two").unwrap();
    assert_eq!(filed.seen().await, Some(Reloaded::Unchanged));
}

#[tokio::test]
async fn a_payer_who_waits_his_turn_across_a_reload_gets_his_page() {
    let mut office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let hook = filed.gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let payer = filed.gate.begin(back("hash")).await;
    filed.gate.callbacks(2).await;
    assert_eq!(filed.change(&format!("{NINJA}scope = ['host']\n")).await, Reloaded::Applied);
    visit.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
}

#[tokio::test]
async fn an_address_comes_to_speak_tls_and_ceases_to() {
    let office = Office::open().await;
    let url = office.url();
    let _seen = office.answer_all(BRACKETS);
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let mut filed = Filed::before(&url, NINJA).await;
    let plain = filed.gate.running.addresses[0];
    // The same address, and from now on with TLS; and the other way round.
    let text = std::fs::read_to_string(&filed.path).unwrap();
    let encrypted = text.replace("['[::]:0']", "[]") + &pair.table(&plain.to_string());
    for round in 0..2 {
        filed.write(&encrypted);
        assert_eq!(filed.now().await, Reloaded::Applied);
        assert_eq!(filed.gate.running.addresses, [plain]);
        let believer = authority.believer(&["http/1.1"]);
        let stream = loop {
            // Who comes while the old door still stands open speaks in vain.
            let stream = TcpStream::connect(filed.gate.v4()).await.unwrap();
            if let Ok(stream) = handshake(stream, &believer, "pay.example").await {
                break stream;
            }
        };
        let mut wire = crate::support::Wire::new(stream);
        wire.write(mollie(&format!("tr_{round}"))).await;
        heard(wire).await.is_brackets();
        filed.write(&text.replace("['[::]:0']", &format!("['{plain}']")));
        assert_eq!(filed.now().await, Reloaded::Applied);
        let again = mollie(&format!("tr_{round}")).replace("Accept:", "Connection: close\r\nAccept:");
        let told = loop {
            let mut wire = connect(filed.gate.v4()).await;
            wire.write(&again).await;
            let told = String::from_utf8_lossy(&wire.bytes().await).into_owned();
            if told.starts_with("HTTP/1.1 ") {
                break told;
            }
        };
        assert!(told.contains("oncegate-decision: replayed\r\n"), "{told}");
    }
    assert_eq!(Loaded::from_text("test", &encrypted, &World::real()).files, [], "certificates have their own keeper");
}

#[tokio::test]
async fn a_key_that_is_put_in_while_the_gate_runs_is_used_and_one_that_is_taken_out_is_not() {
    let (till, office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", "hash");
    let mut filed = Filed::before(&office.url(), NINJA).await;
    let _seen = office.answer_all(BRACKETS);
    let keyed = format!("{NINJA}{}", till.asked_with(&["test_a"], ""));
    for (more, asked) in [(NINJA, 0), (&*keyed, 1), (NINJA, 1)] {
        filed.change(more).await;
        filed.gate.ask(mollie("tr_1")).await.is_brackets();
        assert_eq!(till.asked().len(), asked);
    }
}

#[tokio::test]
async fn what_is_still_being_written_when_the_signal_comes_is_read_again() {
    let office = Office::open().await;
    let mut filed = Filed::before(&office.url(), NINJA).await;
    filed.reload = filed.reload.looking(Duration::from_secs(2));
    let whole = config(&office.url(), &format!("gateway.max_body = '2MiB'\n{NINJA}"));
    filed.write("gateway.max_body = '2M");
    let path = filed.path.clone();
    let rest = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(path, whole).unwrap();
    };
    let (taken, ()) = tokio::join!(filed.now(), rest);
    assert_eq!(taken, Reloaded::Applied);
    assert!(filed.gate.figure("config_reloads_total{result=\"refused\"}").abs() < f64::EPSILON);
}

// ------------------------------------------------------------------------------------------------ the whole program

/// What the whole program shows of itself.
async fn figures(admin: SocketAddr) -> String {
    let mut wire = connect(admin).await;
    wire.write("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    wire.answer().await.1
}

// Who changes files and sends signals blocks his thread, and callers shall not stand still with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_and_a_certificate_that_change_ten_times_a_second_fail_nobody() {
    const ROUNDS: usize = 25;
    let (office, authority) = (Office::open().await, Authority::new());
    let pair = authority.issue("pay", &["pay.example"]);
    let admin = backend::free();
    let text = |round: usize| {
        let more = format!("gateway.max_body = {}\n{NINJA}{}", 4096 + round, pair.table("127.0.0.1:0"));
        config(&office.url(), &more).replace("admin.listen = '127.0.0.1:0'", &format!("admin.listen = '{admin}'"))
    };
    let texts: Vec<_> = (0..=ROUNDS).map(text).collect();
    let gate = Process::spawn(Command::new(env!("CARGO_BIN_EXE_oncegate")), &texts[0]);
    let seen = office.answer_all(BRACKETS);
    let (plain, tls, believer) = (gate.address, gate.others[0], authority.believer(&["http/1.1"]));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (over, believer) = (Arc::clone(&over), Arc::clone(&believer));
            tokio::spawn(async move {
                let mut kept = connect(plain).await;
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    // A handshake for each, and a connection that is kept through everything.
                    let stream = soon(TcpStream::connect(tls)).await.unwrap();
                    let mut fresh = Wire::new(handshake(stream, &believer, "pay.example").await.unwrap());
                    for (wire, way) in [(&mut fresh, "fresh"), (&mut kept, "kept")] {
                        wire.write(mollie(&format!("tr_{caller}x{asked}x{way}"))).await;
                        let (head, body) = wire.answer().await;
                        assert_eq!((head.status(), &*body), (200, "[]"));
                    }
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for text in &texts[1..] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        std::fs::write(gate.config(), format!("log.format = 'json'\n{text}")).unwrap();
        authority.issue("pay", &["pay.example"]);
        gate.signal("HUP");
    }
    over.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for caller in callers {
        asked += caller.await.unwrap();
    }
    assert!(asked > ROUNDS, "{asked}");
    assert_eq!(seen.len(), 2 * asked, "each once");
    // The last of each is what holds.
    let last = rustls_pki_types::CertificateDer::from_pem_file(&pair.certificate).unwrap();
    let arrived = async {
        loop {
            let stream = TcpStream::connect(tls).await.unwrap();
            let stream = handshake(stream, &authority.believer(&[]), "pay.example").await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("the last certificate is shown");
    let page = figures(admin).await;
    let figure = |series: &str| -> usize {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("oncegate_{series} "))).unwrap();
        line.parse().unwrap()
    };
    // Signals that come while one is carried out are one signal.
    assert!(figure("config_reloads_total{result=\"applied\"}") > ROUNDS / 2, "{page}");
    assert!(figure("certificate_reloads_total{result=\"taken\"}") > 0, "{page}");
    for refused in ["config_reloads_total{result=\"refused\"}", "certificate_reloads_total{result=\"refused\"}"] {
        assert_eq!(figure(refused), 0, "{refused}");
    }
}
