//! The demo's stage: it must show the race, and not blame it on the gate.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use oncegate::demo::{
    Scenario, Stage, Tally, Targets, compare, play,
    table::{Progress, Report, Row},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

const GAP: Duration = Duration::from_millis(100);

#[tokio::test]
async fn straight_at_the_app_every_scenario_doubles_payments() {
    let stage = Stage::start(GAP).await.unwrap();
    for scenario in Scenario::ALL {
        let tally = play(&stage, stage.app.targets(), scenario, 4, |_| ()).await;
        assert_eq!((tally.payments, tally.sent, tally.reached), (4, 8, 8), "{scenario:?}");
        assert!(tally.doubled > 0, "{scenario:?} shows no race: {tally:?}");
        assert_eq!(tally.booked, 4 + tally.doubled);
        assert_eq!((tally.missing, tally.failed), (0, 0));
    }
}

#[tokio::test]
async fn behind_a_gate_that_lets_in_one_at_a_time_nothing_is_doubled() {
    let stage = Stage::start(GAP).await.unwrap();
    let turnstile = turnstile(stage.app.targets().first).await;
    let gate = Targets { first: turnstile, second: turnstile };
    let mut shown = Vec::new();
    let report = compare(&stage, gate, 3, &mut Progress::new(&mut shown, false)).await;
    assert!(report.holds(), "{report}");
    assert!(report.rows.iter().all(|row| row.straight.doubled > 0 && row.gate.booked == 3), "{report}");

    let shown = String::from_utf8(shown).unwrap();
    assert_eq!(shown.lines().count(), 6, "a line for each part when nobody watches: {shown}");
    assert!(!shown.contains('\r') && !shown.contains('\x1b'), "{shown:?}");
    assert!(shown.contains("two returns, through Oncegate: 3 of 3\n"), "{shown}");
}

#[tokio::test]
async fn a_target_that_is_not_there_counts_as_missing_and_failed() {
    let stage = Stage::start(GAP).await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let targets = Targets { first: nobody, second: nobody };
    let tally = play(&stage, targets, Scenario::TwoWebhooks, 2, |_| ()).await;
    assert_eq!(tally, Tally { payments: 2, sent: 4, missing: 2, failed: 4, ..Tally::default() });
    assert!(!tally.is_once_each());
}

#[test]
fn the_table_says_plainly_when_the_gate_did_not_hold() {
    let good = Tally { payments: 20, sent: 40, reached: 20, booked: 20, ..Tally::default() };
    let bad = Tally { payments: 20, sent: 40, reached: 40, booked: 39, doubled: 19, ..Tally::default() };
    let row = |gate| Row { scenario: Scenario::TwoWebhooks, straight: bad, gate };
    let held = Report { rows: vec![row(good)] };
    assert!(held.holds());
    assert!(held.to_string().contains("The gate held"), "{held}");
    let table = held.to_string();
    let figures: Vec<_> = table.lines().filter(|l| l.contains("two webhooks")).map(numbers).collect();
    assert_eq!(figures, [vec![20, 40, 40, 39, 19], vec![20, 40, 20, 20, 0]]);

    let broken = Report { rows: vec![row(good), row(bad)] };
    assert!(!broken.holds());
    assert!(broken.to_string().contains("DID NOT HOLD: 19 doubled, 0 missing"), "{broken}");
    assert!(!Report { rows: vec![] }.holds(), "a demo that played nothing proves nothing");
}

#[tokio::test]
async fn the_stage_writes_a_config_that_points_at_its_own_app() {
    let stage = Stage::start(GAP).await.unwrap();
    let config: toml::Table = stage.config().parse().unwrap();
    assert_eq!(config["preset"].as_str(), Some("invoice-ninja"));
    let url = format!("http://{}", stage.app.targets().first);
    assert_eq!(config["upstream"]["url"].as_str(), Some(url.as_str()));
}

fn numbers(line: &str) -> Vec<u32> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Lets one connection at a time through to the app.
async fn turnstile(app: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let turn = Arc::new(Mutex::new(()));
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let turn = Arc::clone(&turn);
            tokio::spawn(async move {
                let _turn = turn.lock().await;
                let mut inside = TcpStream::connect(app).await.expect("the app");
                let _ = tokio::io::copy_bidirectional(&mut caller, &mut inside).await;
            });
        }
    });
    address
}
