//! What is typed: completions, the manual page, and the question whether a gate is ready.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use clap::CommandFactory;
use oncegate::{cli::Cli, provider::PROVIDERS};
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{
    Office, Standing,
    process::oncegate,
    standing::{NINJA, post},
};

/// What the program prints when all is well.
fn printed(args: &[&str]) -> String {
    let out = oncegate(Path::new("."), args);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

// -------------------------------------------------------------------------------------------------- providers

#[test]
fn every_provider_is_listed_with_what_it_can_do() {
    let told = printed(&["providers"]);
    let mut lines = told.lines();
    let head = lines.next().unwrap();
    assert!(head.starts_with("NAME ") && head.ends_with(" ANSWER"), "{head}");
    let names: Vec<_> = lines.map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, PROVIDERS.iter().map(|known| known.name).collect::<Vec<_>>());
    let told = printed(&["providers", "--format", "json"]);
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let known = |name: &str| told.iter().find(|known| known["name"] == name).unwrap();
    assert_eq!(told.len(), PROVIDERS.len());
    assert_eq!((&known("flutterwave")["secrets"], &known("forte")["secrets"]), (&json!(["hmac", "token"]), &json!([])));
    assert_eq!((&known("gocardless")["batches"], &known("stripe")["batches"]), (&json!(true), &json!(false)));
    assert_eq!((&known("stripe")["event_ids"], &known("midtrans")["event_ids"]), (&json!(true), &json!(false)));
    assert_eq!((&known("mollie")["inquiry"], &known("forte")["inquiry"]), (&json!(true), &json!(false)));
    assert_eq!((&known("mollie")["inquire"], &known("stripe")["inquire"]), (&json!("unclear"), &json!("always")));
    let made = |name: &str| known(name)["missing_callbacks"].clone();
    assert_eq!((made("mollie"), made("stripe")), (json!(true), json!(false)));
    for known in &told {
        let why = known["not_made"].as_str().unwrap_or_default();
        assert_eq!(known["missing_callbacks"] == true, why.is_empty(), "{known}");
    }
    assert_eq!(known("alipay")["ack"], json!({ "status": 200, "content_type": "text/plain", "body": "success" }));
    assert_eq!((&known("paddle")["waits_seconds"], &known("paddle")["retries_seconds"]), (&json!(5), &json!(259_200)));
}

// -------------------------------------------------------------------------------------------------- explain

#[test]
fn explain_shows_who_else_would_be_asked_what_is_remembered_and_where_a_payment_stands() {
    let folder = tempfile::tempdir().unwrap();
    let config = "preset = 'invoice-ninja'\n\
                  [provider.mollie]\napi_keys = [{ env = 'PATH' }]\nmissing_after = '15m'\n\
                  [provider.gocardless]\nsecrets = [{ value = 's' }]\napi_keys = [{ env = 'PATH' }]\nmissing_after = '1d'\n\
                  [lookup]\nurl = { value = 'mysql://o:o@127.0.0.1/n' }\n\
                  api = 'https://ninja.example'\napi_token = { env = 'PATH' }\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let hook = "/payment_webhook/Company/Gateway";
    let event = |id: &str, kind: &str, action: &str| {
        json!({ "events": [{
            "id": id, "resource_type": kind, "action": action, "links": { "payment": "PM1" },
            "resource_metadata": { "payment_hash": "h1" },
        }] })
        .to_string()
    };
    let signed = |body: String| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s"), body.as_bytes());
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        post(hook, &format!("Content-Type: application/json\r\nWebhook-Signature: {tag}\r\n"), &body)
    };
    let files = [
        ("a.http", post(hook, "Content-Type: application/x-www-form-urlencoded\r\n", "id=tr_1")),
        ("b.http", post("/client/payments/process", "Cookie: invoice_ninja_session=s\r\n", "")),
        ("c.http", signed(event("EV1", "payments", "submitted"))),
        ("d.http", signed(event("EV2", "payments", "confirmed"))),
        ("e.http", signed(event("EV3", "refunds", "paid"))),
        ("f.http", signed(event("EV4", "payments", "charged_back"))),
        // Too late: it stands as before.
        ("g.http", signed(event("EV5", "payments", "submitted"))),
    ];
    let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    for (name, request) in &files {
        std::fs::write(folder.path().join(name), request).unwrap();
    }
    let run = |format: &str| {
        let output = oncegate(folder.path(), &[&["explain", "--format", format], &*names].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines: Vec<Value> = run("json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    let asked = json!([{ "from": "reference.mollie", "value": "tr_1", "to": "payment_hash" }]);
    let none = || json!([]);
    assert_eq!((&lines[0]["lookup"], &lines[1]["lookup"]), (&asked, &none()));
    assert_eq!(lines[0]["confirm"], json!(["lookup.booked", "lookup.api"]));
    assert!(lines[1..].iter().all(|line| line["confirm"] == none()), "nobody says where theirs are booked");
    assert_eq!(lines[1]["awaits"], json!({ "reference:mollie": "15m" }));
    let (null, day) = (Value::Null, json!("1day"));
    let after = [null.clone(), null.clone(), day.clone(), null.clone(), null.clone(), null.clone(), day];
    assert_eq!(told("missing_after"), after);
    let linked = json!(["reference:gocardless=PM1", "payment_hash=h1"]);
    assert_eq!((&lines[0]["links"], &lines[2]["links"]), (&none(), &linked));
    let stages = ["begun", "paid", "partly_refunded", "charged_back", "charged_back"].map(|stage| json!(stage));
    assert_eq!(told("stands")[..2], [null.clone(), null]);
    assert_eq!(told("stands")[2..], stages);
    assert_eq!(lines[6]["decision"], "stale");
    let people = run("human");
    for piece in [
        "the app's database would be asked for its payment_hash, by reference.mollie tr_1",
        "if it is paid and the app's answer is lost, its books are asked: lookup.booked, then lookup.api",
        "as tr_{id}; if nobody calls, it is asked about after 15m",
        "if nobody calls again, it is asked about after 1day",
        "remembered to belong together: reference:gocardless=PM1, payment_hash=h1",
        "then its payment stands as partly refunded",
    ] {
        assert!(people.contains(piece), "{piece}: {people}");
    }
}

// ------------------------------------------------------------------------------------------------ completions

/// What a shell says to a script; nothing where there is no such shell.
fn shell(name: &str, args: &[&str], script: &str) -> Option<String> {
    let spawned =
        Command::new(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: completions in {name}, for it is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let script = printed(&["completions", "bash"]);
    let offered = |words: &[&str]| {
        let (line, last) = (words.join("' '"), words.len() - 1);
        let (current, previous) = (words[last], words[last - 1]);
        let ask = format!(
            "{script}\nCOMP_WORDS=('{line}'); COMP_CWORD={last}\n_oncegate oncegate '{current}' '{previous}'\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        let said = shell("bash", &["--norc"], &ask).expect("there is a bash");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered(&["oncegate", "expl"]), ["explain"]);
    assert_eq!(offered(&["oncegate", "check", "--eff"]), ["--effective"]);
    assert_eq!(offered(&["oncegate", "explain", "--format", ""]), ["human", "json"]);
    assert_eq!(offered(&["oncegate", "explain", "--provider", "mol"]), ["mollie"]);
    assert_eq!(offered(&["oncegate", "completions", "z"]), ["zsh"]);
}

#[test]
fn fish_completes_verbs_options_and_values() {
    let script = printed(&["completions", "fish"]);
    let offered = |line: &str| {
        let said = shell("fish", &["--no-config"], &format!("{script}\ncomplete -C '{line}'\n"))?;
        Some(said.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect::<Vec<_>>())
    };
    let Some(verbs) = offered("oncegate expl") else { return };
    assert_eq!(verbs, ["explain"]);
    assert_eq!(offered("oncegate check --eff").unwrap(), ["--effective"]);
    assert_eq!(offered("oncegate explain --provider mol").unwrap(), ["mollie"]);
}

#[test]
fn zsh_takes_its_completions() {
    let script = printed(&["completions", "zsh"]);
    assert!(script.starts_with("#compdef oncegate\n"), "zsh finds it by its first line");
    // The system of completions is loaded as a user's start file does, and asked what it completes `oncegate` with.
    let ask = format!("autoload -Uz compinit && compinit -D -u\n{script}\nprint $_comps[oncegate]\n");
    let Some(said) = shell("zsh", &["-f"], &ask) else { return };
    assert_eq!(said.trim(), "_oncegate");
    for offered in ["'explain:", "--effective[", "(human", "mollie"] {
        assert!(script.contains(offered), "{offered}");
    }
}

#[test]
fn a_reader_who_has_read_enough_is_told_no_error() {
    let webhook = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stripe/charge-succeeded.http");
    for args in
        [&["completions", "bash"][..], &["man"], &["explain", webhook], &["explain", "--format", "json", webhook]]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_oncegate"))
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

// ------------------------------------------------------------------------------------------------ the manual page

#[test]
fn the_manual_page_tells_every_verb_with_every_option_and_every_example() {
    let page = printed(&["man"]).replace("\\-", "-").replace("\\*(Aq", "'").replace("\\&", "");
    assert!(page.contains("\n.TH ONCEGATE 1 \"\" \"oncegate "), "{page}");
    for part in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXAMPLES"] {
        assert_eq!(page.matches(&format!("\n.SH {part}\n")).count(), 1, "{part}");
    }
    let mut seen = 0;
    for verb in Cli::command().get_subcommands() {
        assert!(page.contains(&format!("\n.SS \"oncegate {} ", verb.get_name())), "{}", verb.get_name());
        for option in verb.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{option}")), "--{option} of {}", verb.get_name());
            seen += 1;
        }
        let told = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        told.lines().for_each(|line| assert!(page.contains(line), "{line}"));
    }
    assert!(seen > 3);
    for told in [".SS \"oncegate review settle ", "--reason", "Remember it as accepted"] {
        assert!(page.contains(told), "a verb below a verb: {told}");
    }
    let examples = Cli::command().get_after_help().unwrap().to_string();
    examples.lines().for_each(|line| assert!(page.contains(line), "{line}"));
}

// ------------------------------------------------------------------------------------------------ health

#[tokio::test]
async fn the_question_whether_a_gate_is_ready_has_an_exit_code_for_an_answer() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let admin = gate.running.admin.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let asked = |config: String| {
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let out = oncegate(&folder, &["health"]);
            (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
        })
    };
    let config = |listen: &str| format!("admin.listen = '{listen}'\n");

    let ready = (Some(0), "ready\n".to_owned(), String::new());
    assert_eq!(asked(config(&admin.to_string())).await.unwrap(), ready);
    // What it listens on may be "any address".
    assert_eq!(asked(config(&format!("0.0.0.0:{}", admin.port()))).await.unwrap(), ready);
    // The gate that runs is not sick because somebody is at work on its file.
    assert_eq!(asked(config(&admin.to_string()) + "[log]\nlevel = 'loud'\n").await.unwrap(), ready);

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.try_clone().unwrap();
    std::thread::spawn(move || {
        let (mut caller, _) = at.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(0);
            let last = asked.len() - 1;
            caller.read_exact(&mut asked[last..]).unwrap();
        }
        caller.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    });
    for (config, why) in [
        (config("off"), "\"off\""),
        ("admin.listen = [".to_owned(), "no TOML"),
        (config("nonsense"), "admin.listen"),
        (config(&other.local_addr().unwrap().to_string()), "no gate"),
    ] {
        let (code, said, error) = asked(config).await.unwrap();
        assert!(code == Some(1) && said.is_empty() && error.contains(why), "{why}: {said} {error}");
    }
    let gone = gate.running.admin.unwrap();
    gate.running.stop().await;
    let (code, _, error) = asked(config(&gone.to_string())).await.unwrap();
    assert!(code == Some(1) && error.contains(&gone.to_string()), "{error}");
    drop(office);
}
