//! The unit, the container file and the examples, held to the program that they start.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    time::Duration,
};

use clap::Parser;
use oncegate::{
    cli::{Cli, Verb},
    config::{Loaded, World},
};

use crate::{
    support::{
        Authority, Office, Standing, Wire,
        authority::{Pair, handshake},
        backend,
        office::BRACKETS,
        standing::{HOOK, NINJA, mollie_at},
        wire::soon,
    },
    tidy::{files, read, root},
};

/// The values of a key in a text of `KEY<separator>value` lines.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::trim).collect()
}

fn one<'t>(text: &'t str, key: &str) -> &'t str {
    match values(text, key)[..] {
        [only] => only,
        ref all => panic!("{key} stands there {} times", all.len()),
    }
}

/// How long the gate takes over its end where nobody says otherwise.
fn drain() -> Duration {
    Loaded::from_text("nothing", "", &World::real()).into_config().unwrap().gateway.drain
}

/// A list of words as container files write them.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

// ------------------------------------------------------------------------------------------------ systemd

#[test]
fn the_unit_starts_the_gate_and_gives_it_the_time_to_end() {
    let unit = read(&root().join("packaging/oncegate.service"));
    let cli = Cli::try_parse_from(one(&unit, "ExecStart=").split(' ')).unwrap();
    assert!(matches!(cli.verb, Verb::Run(_)) && cli.config == Path::new("/etc/oncegate/config.toml"), "{cli:?}");
    assert!(humantime::parse_duration(one(&unit, "TimeoutStopSec=")).unwrap() > drain());
}

#[test]
fn the_sockets_that_systemd_keeps_are_those_of_the_sample() {
    let unit = read(&root().join("packaging/oncegate.socket"));
    let kept: Vec<SocketAddr> = values(&unit, "ListenStream=").iter().map(|kept| kept.parse().unwrap()).collect();
    let sample = Loaded::from_text("nothing", "", &World::real()).into_config().unwrap();
    let all: Vec<_> = sample.gateway.listen.iter().copied().chain(sample.admin.listen).collect();
    assert_eq!(kept, all);
}

#[test]
fn systemd_finds_nothing_to_blame_in_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let units = ["oncegate.service", "oncegate.socket"].map(|name| {
        let unit = read(&root().join("packaging").join(name));
        let file = folder.path().join(name);
        fs::write(&file, unit.replace("/usr/bin/oncegate", env!("CARGO_BIN_EXE_oncegate"))).unwrap();
        file
    });
    let Ok(out) = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output() else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: the check of the unit, for `systemd-analyze` is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains("oncegate."), "{said}");
}

// ------------------------------------------------------------------------------------------------ containers

/// The lines of the container file, those joined that go on.
fn instructions() -> String {
    read(&root().join("Dockerfile")).replace("\\\n", " ")
}

#[test]
fn the_container_starts_the_gate_and_asks_it_whether_it_is_well() {
    let file = instructions();
    let entry = words(one(&file, "ENTRYPOINT "));
    let started = Cli::try_parse_from([entry.clone(), words(one(&file, "CMD "))].concat()).unwrap();
    assert!(matches!(started.verb, Verb::Run(_)), "{started:?}");
    let (_, asked) = one(&file, "HEALTHCHECK ").split_once("CMD ").unwrap();
    let asks = Cli::try_parse_from(words(asked)).unwrap();
    assert!(matches!(asks.verb, Verb::Health(_)) && asks.config == started.config, "{asks:?}");
    assert!(file.contains(&format!(" /image{}", entry[0])), "what is started is put there");
    assert_ne!(one(&file, "USER ").split(':').next(), Some("0"));
}

#[test]
fn the_container_is_built_from_all_that_the_program_is_made_of() {
    let file = instructions();
    let folder = tempfile::tempdir().unwrap();
    let copied = values(&file, "COPY ").into_iter().filter(|copy| !copy.starts_with("--from"));
    for from in copied.flat_map(|copy| copy.split(' ').rev().skip(1)) {
        let source = root().join(from);
        let all = if source.is_dir() { files(&source) } else { vec![source] };
        assert!(!all.is_empty(), "{from}");
        for path in all {
            let to = folder.path().join(path.strip_prefix(root()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, &to).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    // The manifest names files, and the code takes some into itself.
    let cargo = ["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"];
    let out = Command::new(env!("CARGO")).args(cargo).current_dir(folder.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut included = 0;
    for path in files(&folder.path().join("src")) {
        let text = read(&path);
        // What tests take in is not built.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for part in code.split("include_str!(\"").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(path.parent().unwrap().join(name).is_file(), "{} takes in {name}", path.display());
            included += 1;
        }
    }
    assert!(included > 0);
}

#[test]
fn the_example_for_invoice_ninja_is_a_configuration_and_its_ports_meet() {
    let folder = root().join("packaging/invoice-ninja");
    let loaded = Loaded::from_file(&folder.join("oncegate.toml"), &World::real());
    assert!(loaded.faults.is_empty(), "{:?}", loaded.faults);
    // That figures can be read by the neighbours is meant; what the preset is warned of is not this file's.
    let own = loaded.warnings.iter().filter(|warning| !warning.path.starts_with("preset"));
    assert_eq!(own.map(|warning| &*warning.path).collect::<Vec<_>>(), ["admin.listen"]);
    let config = loaded.into_config().unwrap();
    let compose = read(&folder.join("compose.yaml"));
    let inside = words(one(&compose, "ports: [").strip_suffix(']').map(|port| format!("[{port}]")).as_deref().unwrap());
    assert_eq!(inside[0].split(':').next_back().unwrap(), config.gateway.listen[0].port().to_string());
    assert!(humantime::parse_duration(one(&compose, "stop_grace_period:")).unwrap() > drain());
    let (image, mounted) = (instructions(), "./oncegate.toml:/etc/oncegate/config.toml:ro");
    assert!(compose.contains(mounted) && image.contains("\"/etc/oncegate/config.toml\""));
}

// ------------------------------------------------------------------------------------------------ nginx

/// The README's words for nginx, at these addresses and with this certificate.
fn nginx(folder: &Path, pair: &Pair, listen: SocketAddr, gate: SocketAddr) -> String {
    let readme = read(&root().join("README.md"));
    let block = readme.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let replaced = [
        ("listen 443 ssl;", format!("listen {listen} ssl;")),
        ("listen [::]:443 ssl;", String::new()),
        ("127.0.0.1:8080", gate.to_string()),
        ("/etc/ssl/pay.example.org.pem", pair.certificate.display().to_string()),
        ("/etc/ssl/pay.example.org.key", pair.key.display().to_string()),
    ];
    let block = replaced.iter().fold(block.to_owned(), |block, (from, to)| {
        assert!(block.contains(from), "{from} stands there");
        block.replace(from, to)
    });
    let here = folder.display();
    let folders =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {here}/{kind};\n"));
    format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/errors;\nevents {{}}\n\
         http {{\naccess_log off;\n{}{block}}}\n",
        folders.concat()
    )
}

#[tokio::test]
async fn behind_nginx_as_the_readme_has_it_the_app_hears_of_the_one_client_and_nothing_that_he_made_up() {
    let (office, authority, folder) = (Office::open().await, Authority::new(), tempfile::tempdir().unwrap());
    let gate = Standing::before(&office.url(), &format!("gateway.trusted_proxies = ['127.0.0.1']\n{NINJA}")).await;
    let mut seen = office.answer_all(BRACKETS);
    let listen = backend::free();
    let pair = authority.issue("pay", &["pay.example.org"]);
    let file = folder.path().join("nginx.conf");
    fs::write(&file, nginx(folder.path(), &pair, listen, gate.v4())).unwrap();
    let Some(_nginx) = backend::server("nginx", "the README's words for nginx", &["-c", file.to_str().unwrap()]) else {
        return;
    };
    let errors = || fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
    assert!(backend::stands(listen), "{}", errors());
    let believer = authority.believer(&["http/1.1"]);
    let stream = soon(tokio::net::TcpStream::connect(listen)).await.unwrap();
    let mut wire = Wire::new(handshake(stream, &believer, "pay.example.org").await.unwrap());
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nCf-Connecting-Ip: 6.6.6.6\r\nX-Forwarded-Proto: http\r\n";
    for (reference, more) in [("tr_1", ""), ("tr_2", lies)] {
        let hook = mollie_at("pay.example.org", HOOK, reference).replacen("\r\n", &format!("\r\n{more}"), 1);
        wire.write(hook).await;
        let (head, body) = wire.answer().await;
        assert_eq!((head.status(), &*body, head.one("oncegate-decision")), (200, "[]", "first"));
        let visit = seen.recv().await.unwrap();
        let fields = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"];
        let port = listen.port().to_string();
        assert_eq!(
            fields.map(|name| visit.head.one(name)),
            ["pay.example.org", "127.0.0.1", "pay.example.org", "https", &*port]
        );
        assert!(!visit.raw.contains("6.6.6.6") && !visit.raw.contains("evil"), "{}", visit.raw);
    }
    assert_eq!(errors(), "");
}
