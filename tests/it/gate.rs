//! The gate as a whole: what goes where, what its bounds are, how it ends, and what it tells of itself.

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

use tokio::net::TcpStream;

use crate::support::{
    Office, Standing,
    office::{BRACKETS, Closed},
    process::{Process, oncegate},
    standing::{HOOK, NINJA, back, connect, heard, mollie, post},
    wire::soon,
};

// ------------------------------------------------------------------------------------------------ its end

#[tokio::test]
async fn a_gate_that_is_told_to_end_finishes_what_is_in_the_app_and_takes_nothing_new() {
    for signal in ["TERM", "INT"] {
        let mut office = Office::open().await;
        let gate = Process::start(&office.url(), NINJA);
        let mut caller = connect(gate.address).await;
        caller.write(mollie("tr_1")).await;
        let visit = office.next().await;
        gate.signal(signal);
        let refused = async {
            while TcpStream::connect(gate.address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(refused).await;
        assert!(!visit.is_cut());
        visit.answer(BRACKETS);
        heard(caller).await.is_brackets();
        let (code, log) = gate.end().await;
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(!log.contains("not everything was finished"), "{log}");
    }
}

#[tokio::test]
async fn a_held_webhook_is_brought_to_the_app_before_the_end() {
    let mut office = Office::open().await;
    let gate = Process::start(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nhold = '1s'\n");
    let mut caller = connect(gate.address).await;
    caller.write(mollie("tr_1")).await;
    let mut page = connect(gate.address).await;
    page.write("GET /sync HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The gate has read the webhook by the time the app hears of the page that came after it.
    let visit = office.next().await;
    gate.signal("TERM");
    let hook = if visit.line().starts_with("GET") {
        visit.says(200, "ok");
        office.next().await
    } else {
        visit
    };
    hook.answer(BRACKETS);
    heard(caller).await.is_brackets();
    assert_eq!(gate.end().await.0, Some(0));
}

#[tokio::test]
async fn what_the_app_does_not_finish_in_time_is_reported_and_does_not_break_the_fall() {
    let mut office = Office::open().await;
    let gate = Process::start(&office.url(), &format!("gateway.drain = '300ms'\n{NINJA}"));
    let mut hook = connect(gate.address).await;
    hook.write(mollie("tr_1")).await;
    let in_the_app = office.next().await;
    gate.signal("TERM");
    let (code, log) = gate.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("not everything was finished in time"), "{log}");
    drop(in_the_app);
}

// ------------------------------------------------------------------------------------------------ the command line

#[test]
fn a_sound_configuration_is_left_with_0_a_faulty_one_with_1_and_wrong_usage_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let check = |name: &str, text: &str| {
        std::fs::write(at.join(name), text).unwrap();
        let out = oncegate(at, &["--config", name, "check"]);
        (out.status.code(), String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(check("good.toml", "preset = 'invoice-ninja'").0, Some(0));
    let (code, said) = check("warned.toml", "[provider.mollie]\nsecrets = [{ value = 'canary-in-the-file' }]");
    assert!(code == Some(0) && said.contains("warning"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    let (code, said) = check("bad.toml", "[gateway]\nlistne = ['[::]:0']\nmax_body = '-1'\n[[rule]]\nhold = 'soon'\n");
    assert_eq!(code, Some(1));
    for part in ["listne", "did you mean `listen`", "gateway.max_body", "hold", "3 faults"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let run = oncegate(at, &["--config", "bad.toml", "run"]);
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.code() == Some(1) && said.contains("3 faults") && said.contains("listne"), "{said}");
    let missing = oncegate(at, &["--config", "nowhere.toml", "run"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(missing.status.code() == Some(1) && said.contains("nowhere.toml"), "{said}");

    for wrong in [&["check", "--efective"][..], &["walk"], &[]] {
        assert_eq!(oncegate(at, wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn help_teaches_and_the_version_is_that_of_the_package() {
    let here = std::path::Path::new(".");
    let help = oncegate(here, &["--help"]);
    let said = String::from_utf8(help.stdout).unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(
        ["run", "check", "explain", "demo", "--config", "config.toml"].iter().all(|word| said.contains(word)),
        "{said}"
    );
    let version = oncegate(here, &["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("oncegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_address_that_is_taken_is_told_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("config.toml"),
        // A store that is begun has a line of its own.
        format!("gateway.listen = ['{address}']\nadmin.listen = 'off'\nstore.engine = 'memory'\n"),
    )
    .unwrap();
    let out = oncegate(directory.path(), &["run"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains(&address.to_string()) && said.lines().count() == 1, "{said}");
}

#[test]
fn without_a_word_about_it_what_is_known_is_kept_and_a_folder_that_cannot_be_had_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let own = "gateway.listen = ['127.0.0.1:0']\nadmin.listen = 'off'\n";
    std::fs::write(directory.path().join("config.toml"), own).unwrap();
    std::fs::write(directory.path().join("oncegate-data"), "no folder").unwrap();
    let out = oncegate(directory.path(), &["run"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("store.path") && said.contains("oncegate-data") && said.lines().count() == 1, "{said}");
    std::fs::remove_file(directory.path().join("oncegate-data")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.current_dir(directory.path());
    let gate = Process::spawn(command, own);
    let folder = std::fs::metadata(directory.path().join("oncegate-data")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700, "whole requests lie in there");
    drop(gate);
}

#[test]
fn the_demo_shows_that_the_gate_holds() {
    let out = oncegate(std::path::Path::new("."), &["demo", "--trials", "2"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("The gate held"), "{said}");
}

// ------------------------------------------------------------------------------------------------ routing and bounds

#[tokio::test]
async fn what_is_no_callback_passes_through_and_is_counted_as_that() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    // The last ones look like callbacks and are none.
    let targets = [
        "/",
        "/client/invoices",
        "/payment_webhook",
        "/payment_webhook/a",
        "/payment_webhook/a/b/c",
        "/payments/process",
    ];
    for target in targets {
        let told = gate.begin(post(target, "", "id=tr_1")).await;
        let visit = office.next().await;
        assert_eq!((visit.line(), visit.body.as_str()), (format!("POST {target} HTTP/1.1").as_str(), "id=tr_1"));
        visit.answer("HTTP/1.1 201 Created\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok");
        let told = told.await.unwrap();
        assert_eq!((told.status(), told.cookies(), told.decision()), (201, 1, ""), "{target}");
    }
    assert_eq!(gate.figure("requests_total{kind=\"passthrough\"}"), 6.0);
    assert_eq!(gate.figure("requests_total{kind=\"callback\"}"), 0.0);
}

#[tokio::test]
async fn without_rules_everything_passes_through() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), "").await;
    for _ in 0..2 {
        let told = gate.begin(mollie("tr_1")).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), "");
    }
}

#[tokio::test]
async fn a_rule_of_ones_own_makes_a_callback_of_any_path() {
    let mut office = Office::open().await;
    let more = "[[rule]]\nname = 'shop'\npath = '/hooks/{shop}'\nreference = 'json:$.order'\nevent_id = 'header:X-Event'\nhold = '0s'\n";
    let gate = Standing::before(&office.url(), more).await;
    let event = |shop: &str, id: &str| post(&format!("/hooks/{shop}"), &format!("X-Event: {id}\r\n"), "{\"order\":7}");
    for (shop, id, decision) in [("a", "1", "first"), ("b", "1", "first"), ("a", "2", "new_state")] {
        let told = gate.begin(event(shop, id)).await;
        office.next().await.says(204, "");
        let told = told.await.unwrap();
        assert_eq!((told.status(), told.decision()), (204, decision), "{shop} {id}");
    }
    let again = gate.ask(event("a", "1")).await;
    assert_eq!((again.status(), again.decision()), (204, "replayed"));
    assert!(office.is_quiet());
    let series = "callbacks_total{rule=\"shop\",provider=\"generic\",channel=\"webhook\",decision=\"first\"}";
    assert_eq!(gate.figure(series), 2.0);
}

#[tokio::test]
async fn a_callback_that_is_too_large_hears_413_and_other_uploads_have_no_such_bound() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("gateway.max_body = '1KiB'\n{NINJA}")).await;
    let large = format!("id={}", "x".repeat(1100));
    for request in [
        post(HOOK, "", &large),
        format!(
            "POST {HOOK} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
            large.len()
        ),
        post("/payments/process/response", "", &large),
    ] {
        let told = gate.ask(request).await;
        assert_eq!(told.status(), 413, "{told:?}");
    }
    assert!(office.is_quiet());
    let upload = gate.begin(post("/upload", "", &large)).await;
    let visit = office.next().await;
    assert_eq!(visit.body, large);
    visit.says(200, "ok");
    assert_eq!(upload.await.unwrap().status(), 200);
    let fits = format!("id=tr_{}", "x".repeat(1000));
    let told = gate.begin(post(HOOK, "", &fits)).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();
}

#[tokio::test]
async fn a_callback_whose_body_breaks_off_never_reaches_the_app() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let mut caller = gate.say(format!("POST {HOOK} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nid=tr")).await;
    caller.end().await;
    caller.rest().await;
    assert!(office.is_quiet());
    let told = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(told.await.unwrap().decision(), "first");
}

#[tokio::test]
async fn a_callback_in_chunks_reaches_the_app_as_a_whole() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let head = format!(
        "POST {HOOK} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut caller = gate.say(head).await;
    for piece in ["3\r\nid=\r\n", "4\r\ntr_1\r\n", "0\r\n\r\n"] {
        caller.write(piece).await;
    }
    let visit = office.next().await;
    assert_eq!((visit.body.as_str(), visit.head.one("content-length")), ("id=tr_1", "7"));
    visit.answer(BRACKETS);
    heard(caller).await.is_brackets();
}

#[tokio::test]
async fn one_connection_carries_callbacks_and_pages_one_after_the_other() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let mut caller = gate.client().await;
    for round in 0..3 {
        caller.write(mollie(&format!("tr_{round}"))).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(caller.answer().await.1, "[]");
        caller.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        office.next().await.says(200, "page");
        assert_eq!(caller.answer().await.1, "page");
        caller.write(back(&format!("h{round}"))).await;
        office.next().await.says(200, "paid");
        assert_eq!(caller.answer().await.1, "paid");
    }
}

#[tokio::test]
async fn the_head_of_a_proxy_that_is_trusted_is_believed_and_no_other() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("gateway.trusted_proxies = ['127.0.0.1']\n{NINJA}")).await;
    let headers = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
        Content-Type: application/x-www-form-urlencoded\r\n";
    for (address, client) in [(gate.v4(), "203.0.113.9"), (gate.v6(), "::1")] {
        let mut caller = connect(address).await;
        caller.write(post(HOOK, headers, &format!("id=tr_{}", client.len()))).await;
        let visit = office.next().await;
        assert_eq!(visit.head.one("x-forwarded-for"), client);
        assert_eq!(visit.head.one("x-forwarded-proto"), if client == "::1" { "http" } else { "https" });
        visit.answer(BRACKETS);
        heard(caller).await.is_brackets();
    }
}

// ------------------------------------------------------------------------------------------------ what it tells

#[tokio::test]
async fn after_a_scripted_run_the_figures_are_exactly_what_happened() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\nquiet = '20s'\ncollapse_window = '20s'\n\
        [provider.mollie]\nsecrets = [{ value = 'hidden-canary' }]\n";
    let gate = Standing::before(&office.url(), more).await;
    // first, joined, replayed.
    let first = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let second = gate.begin(mollie("tr_1")).await;
    gate.waiters(2).await;
    assert_eq!(gate.running.metrics.in_flight.get(), 1);
    visit.answer(BRACKETS);
    first.await.unwrap().is_brackets();
    second.await.unwrap().is_brackets();
    gate.ask(mollie("tr_1")).await.is_brackets();
    // A failure, an unknown.
    let failed = gate.begin(mollie("tr_2")).await;
    office.next().await.says(500, "boom");
    assert_eq!(failed.await.unwrap().status(), 500);
    // A return and a page.
    let payer = gate.begin(back("h1")).await;
    office.next().await.says(200, "paid");
    assert_eq!(payer.await.unwrap().status(), 200);
    let page = gate.begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    office.next().await.says(200, "page");
    page.await.unwrap();
    // Unverified, unrecognised.
    let forged = gate.ask(post(HOOK, "X-Mollie-Signature: sha256=00\r\n", "{}")).await;
    assert_eq!(forged.decision(), "unverified");
    let unread = gate.begin(post(HOOK, "", "?")).await;
    office.next().await.says(200, "");
    assert_eq!(unread.await.unwrap().decision(), "unrecognised");
    // The last one: its answer never comes.
    let broken = gate.begin(mollie("tr_3")).await;
    office.next().await.resets("");
    assert_eq!(broken.await.unwrap().status(), 502);

    let callbacks = |provider: &str, channel: &str, decision: &str| {
        let rule = if channel == "webhook" { "invoice-ninja-webhook" } else { "invoice-ninja-return" };
        format!(
            "callbacks_total{{rule=\"{rule}\",provider=\"{provider}\",channel=\"{channel}\",decision=\"{decision}\"}}"
        )
    };
    let expected = [
        (callbacks("mollie", "webhook", "first"), 3.0),
        (callbacks("mollie", "webhook", "joined"), 1.0),
        (callbacks("mollie", "webhook", "replayed"), 1.0),
        (callbacks("mollie", "webhook", "unverified"), 1.0),
        (callbacks("generic", "webhook", "unrecognised"), 1.0),
        (callbacks("generic", "return", "returned"), 1.0),
        ("deliveries_total{provider=\"mollie\",outcome=\"accepted\"}".into(), 1.0),
        ("deliveries_total{provider=\"mollie\",outcome=\"rejected\"}".into(), 1.0),
        ("deliveries_total{provider=\"mollie\",outcome=\"unknown\"}".into(), 1.0),
        ("deliveries_total{provider=\"generic\",outcome=\"accepted\"}".into(), 1.0),
        ("requests_total{kind=\"callback\"}".into(), 8.0),
        ("requests_total{kind=\"passthrough\"}".into(), 1.0),
    ];
    let page = gate.admin("/metrics").await;
    assert_eq!(page.status(), 200);
    for (series, count) in &expected {
        assert_eq!(gate.figure(series), *count, "{series} in\n{}", page.body);
        assert!(page.body.contains(&format!("oncegate_{series} ")), "{series} in\n{}", page.body);
    }
    // Nothing else is counted among them.
    for family in ["callbacks_total", "deliveries_total"] {
        let counted = |line: &&str| line.starts_with(&format!("oncegate_{family}{{")) && !line.ends_with(" 0");
        let shown = page.body.lines().filter(counted).count();
        assert_eq!(shown, expected.iter().filter(|(series, _)| series.starts_with(family)).count(), "{}", page.body);
    }
    for told in ["tr_1", "h1", "canary"] {
        assert!(!page.body.contains(told), "{told} is no label:\n{}", page.body);
    }
    gate.waiters(0).await;
}

#[tokio::test]
async fn the_admin_address_tells_that_it_lives_and_is_ready_whatever_the_app_does() {
    let down = Closed::new();
    let gate = Standing::before(&down.url(), NINJA).await;
    assert_eq!(gate.ask(mollie("tr_1")).await.status(), 502);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gate.admin(path).await.status(), 200, "{path}");
    }
    gate.until("the app is known to be down", || gate.shown("upstream_up") == Some(0.0)).await;
    // The gate's own addresses do not show them.
    assert_eq!(gate.ask("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 502);
}

#[tokio::test]
async fn an_app_that_nobody_asks_for_is_tried_now_and_then_and_nothing_is_told_before() {
    let down = Closed::new();
    let gate = Standing::before(&down.url(), &format!("upstream.check_every = '20ms'\n{NINJA}")).await;
    gate.until("the app is found down", || gate.shown("upstream_up") == Some(0.0)).await;
    assert!(gate.figure("upstream_connects_total{result=\"failed\"}") > 0.0);
    let mut office = down.open();
    gate.until("the app is found up", || gate.shown("upstream_up") == Some(1.0)).await;
    assert!(gate.figure("upstream_connects_total{result=\"connected\"}") > 0.0);
    assert!(office.is_quiet(), "nothing is sent to it");

    let untried = Standing::before(&office.url(), &format!("upstream.check_every = '0s'\n{NINJA}")).await;
    untried.until("figures are shown", || untried.figure("connections") == 0.0).await;
    assert_eq!(untried.shown("upstream_up"), None, "nobody knows yet");
}

#[tokio::test]
async fn whatever_the_configuration_can_bring_stands_at_zero_from_the_start() {
    let office = Office::open().await;
    let own = "[[rule]]\nname = 'own'\npath = '/own'\nprovider = 'mollie'\n";
    let gate = Standing::before(&office.url(), &format!("{NINJA}{own}")).await;
    for (rule, provider, channel, decision) in [
        ("invoice-ninja-webhook", "mollie", "webhook", "replayed"),
        ("invoice-ninja-webhook", "generic", "webhook", "unrecognised"),
        ("invoice-ninja-return", "generic", "return", "overflow"),
        ("own", "mollie", "webhook", "unverified"),
    ] {
        let labels = format!("rule=\"{rule}\",provider=\"{provider}\",channel=\"{channel}\",decision=\"{decision}\"");
        assert_eq!(gate.shown(&format!("callbacks_total{{{labels}}}")), Some(0.0), "{labels}");
    }
    let page = gate.running.metrics.render();
    for never in ["channel=\"return\",decision=\"joined\"", "rule=\"own\",provider=\"generic\""] {
        assert!(!page.contains(never), "{never} can't come");
    }
    for outcome in ["accepted", "rejected", "not_sent", "unknown"] {
        assert_eq!(gate.shown(&format!("deliveries_total{{provider=\"mollie\",outcome=\"{outcome}\"}}")), Some(0.0));
    }
    assert!(page.contains("\nprocess_start_time_seconds "), "{page}");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_callback_and_neither_secrets_nor_cards_nor_cookies_nor_forged_lines() {
    const CARD: &str = "4111111111111111";
    let mut office = Office::open().await;
    let more = "log.level = 'trace'\npreset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\n[provider.mollie]\nsecrets = [{ value = 'canary-secret' }]\n";
    let gate = Process::start(&office.url(), more);
    let headers = "Content-Type: application/x-www-form-urlencoded\r\nCookie: session=canary-cookie\r\n\
        Authorization: Bearer canary-token\r\n";
    let bodies = [
        "id=tr_1".to_owned(),
        format!("id=tr_{CARD}"),
        format!("pf_payment_id={CARD}&m_payment_id=h&card={CARD}&cvv=canary-cvv"),
        "pf_payment_id=a%0D%0A%1b[31mERROR+forged&m_payment_id=h".to_owned(),
        "pf_payment_id=a%E2%80%A8%E2%80%AEERROR+forged&m_payment_id=h".to_owned(),
    ];
    for body in &bodies {
        let mut caller = connect(gate.address).await;
        caller.write(post(HOOK, headers, body)).await;
        office
            .next()
            .await
            .answer("HTTP/1.1 200 OK\r\nset-cookie: session=canary-answer\r\ncontent-length: 11\r\n\r\ncanary-body");
        assert_eq!(heard(caller).await.status(), 200);
    }
    let mut browser = connect(gate.address).await;
    browser.write(back("h1").replace("invoice_ninja_session=old", "session=canary-cookie")).await;
    office.next().await.resets("");
    assert_eq!(heard(browser).await.status(), 502);
    gate.signal("TERM");
    let (code, log) = gate.end().await;
    assert_eq!(code, Some(0));
    for hidden in ["canary", CARD, "\u{1b}", "\u{202e}", "\u{2028}"] {
        assert!(!log.contains(hidden), "{hidden:?} in {log}");
    }
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let callbacks: Vec<_> = lines.iter().filter(|line| line["decision"].is_string()).collect();
    assert_eq!(callbacks.len(), 6, "{log}");
    for line in &callbacks {
        assert!(["rule", "provider", "channel", "why", "client"].iter().all(|field| line[field].is_string()), "{line}");
    }
    let references: Vec<_> = callbacks.iter().filter_map(|line| line["reference"].as_str()).collect();
    assert_eq!(references[0], "tr_1");
    assert!(references.iter().any(|reference| reference.contains("ERROR forged")), "{references:?}");
    let returned = callbacks.iter().find(|line| line["channel"] == "return").unwrap();
    assert_eq!(
        (returned["decision"].as_str(), returned["answered"].as_u64()),
        (Some("returned"), Some(502)),
        "{returned}"
    );
}
