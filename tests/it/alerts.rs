//! The alerts, held to what a running gate shows, to their own tests, and to the paper that tells what to do.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
};

use crate::{
    support::{
        Office, Standing, Till,
        authority::Authority,
        office::BRACKETS,
        promql::{Page, promtool},
        standing::{HOOK, NINJA, back, mollie, post},
    },
    tidy::{files, read, root},
};

/// A gate after all that can happen to callbacks has happened to some, and the app behind it.
pub async fn a_gate_that_has_worked() -> (Standing, Office) {
    let mut office = Office::open().await;
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let till = Till::open().await;
    let asked = till.asked_with(&["test_a"], "missing_after = '1h'");
    // A database that is away is one that has been asked.
    let books = "[lookup]\nurl = { value = 'mysql://o:o@127.0.0.1:9/ninja' }\n";
    let pair = pair.table("127.0.0.1:0");
    let more = format!("upstream.check_every = '20ms'\n{NINJA}quiet = '20s'\n{asked}{books}{pair}");
    let gate = Standing::before(&office.url(), &more).await;
    let first = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let twin = gate.begin(mollie("tr_1")).await;
    gate.waiters(2).await;
    visit.answer(BRACKETS);
    first.await.unwrap().is_brackets();
    twin.await.unwrap().is_brackets();
    let failed = gate.begin(mollie("tr_2")).await;
    office.next().await.says(500, "boom");
    assert_eq!(failed.await.unwrap().status(), 500);
    let payer = gate.begin(back("h1")).await;
    office.next().await.says(200, "paid");
    assert_eq!(payer.await.unwrap().status(), 200);
    let unread = gate.begin(post(HOOK, "", "?")).await;
    office.next().await.says(200, "");
    assert_eq!(unread.await.unwrap().decision(), "unrecognised");
    let broken = gate.begin(mollie("tr_3")).await;
    office.next().await.resets("");
    assert_eq!(broken.await.unwrap().status(), 502);
    gate.until("it is known whether the app is up", || gate.shown("upstream_up").is_some()).await;
    let certificate = "certificate_expiry_timestamp_seconds{name=\"pay.example\"}";
    gate.until("the end of its certificate is told", || gate.shown(certificate).is_some()).await;
    (gate, office)
}

/// Its page of figures.
pub async fn page_of_a_gate_that_has_worked() -> Page {
    let (gate, _office) = a_gate_that_has_worked().await;
    Page::parse(&gate.admin("/metrics").await.body)
}

/// An alert as its file tells it: each key with its value, text in blocks joined by spaces.
pub type Alert = BTreeMap<String, String>;

/// What may stand in one.
const KEYS: [&str; 8] = ["expr", "for", "labels", "severity", "annotations", "summary", "description", "runbook"];

/// The files of a kind among the alerts.
pub fn those(suffix: &str) -> Vec<PathBuf> {
    let all = files(&root().join("alerts")).into_iter();
    let those: Vec<_> = all.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    assert!(!those.is_empty(), "no {suffix}");
    those
}

/// Reads the few forms in which our own file is written; promtool says whether it is sound, and how many there are.
pub fn alerts() -> Vec<Alert> {
    let text: String = those(".rules.yml").iter().map(|path| read(path)).collect();
    let group = |line: &str| line.starts_with("- name: ") || line == "rules:";
    let tells = |line: &&str| !line.is_empty() && !line.starts_with('#') && !group(line);
    let mut alerts: Vec<Alert> = Vec::new();
    let mut key = String::new();
    for line in text.lines().map(str::trim).filter(tells) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push([("alert".to_owned(), name.to_owned())].into());
            key.clear();
            continue;
        }
        let Some(alert) = alerts.last_mut() else { continue };
        match line.split_once(':').filter(|(key, _)| KEYS.contains(key)) {
            Some((found, value)) => {
                found.clone_into(&mut key);
                let value = value.trim().trim_matches('\'').replace("''", "'");
                alert.insert(key.clone(), if matches!(&*value, "|" | ">-") { String::new() } else { value });
            }
            None => alert.entry(key.clone()).or_default().extend([line, " "]),
        }
    }
    alerts
}

#[tokio::test]
async fn every_figure_and_label_that_an_alert_names_is_shown_by_a_gate_that_has_worked() {
    let page = page_of_a_gate_that_has_worked().await;
    for alert in alerts() {
        let missing = page.missing(&alert["expr"]);
        assert!(missing.is_empty(), "{} names what no gate shows: {missing:?}", alert["alert"]);
    }
}

#[test]
fn every_alert_says_how_grave_it_is_and_what_to_do() {
    let paper = read(&root().join("alerts/README.md"));
    let mut told: Vec<_> = paper.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    for alert in alerts() {
        let name = &alert["alert"];
        assert!(matches!(&*alert["severity"], "critical" | "warning"), "{name}");
        assert!(alert["summary"].ends_with('.') && alert["description"].trim_end().ends_with('.'), "{name}");
        assert_eq!(alert["runbook"], format!("alerts/README.md#{}", name.to_lowercase()));
        let section = told.iter().position(|section| section == name);
        told.remove(section.unwrap_or_else(|| panic!("alerts/README.md does not tell what to do about {name}")));
    }
    assert!(told.is_empty(), "these are no alerts: {told:?}");
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() {
    let text: String = those(".test.yml").iter().map(|path| read(path)).collect();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let tested = |name: &str, silent: bool| {
        let expected = if silent { "exp_alerts: []" } else { "exp_alerts:" };
        lines.windows(2).any(|pair| pair[0] == format!("alertname: {name}") && pair[1] == expected)
    };
    let alerts = alerts();
    assert!(alerts.len() > 15, "{}", alerts.len());
    for alert in alerts {
        for silent in [false, true] {
            assert!(tested(&alert["alert"], silent), "{}, silent: {silent}", alert["alert"]);
        }
    }
}

#[test]
fn promtool_finds_the_alerts_sound_and_their_tests_pass() {
    let (Some(mut check), Some(mut test)) = (promtool(), promtool()) else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: the tests of the alerts, for `promtool` is not installed");
        return;
    };
    let checked = check.args(["check", "rules"]).args(those(".rules.yml")).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains(&format!("SUCCESS: {} rules found", alerts().len())), "{said}");
    let tested = test.args(["test", "rules"]).args(those(".test.yml")).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[tokio::test]
async fn promtool_finds_nothing_to_blame_in_the_figures() {
    let Some(mut lint) = promtool() else { return };
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let page = gate.admin("/metrics").await.body;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page"), page).unwrap();
    let figures = std::fs::File::open(folder.path().join("page")).unwrap();
    let out = lint.args(["check", "metrics"]).stdin(figures).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
