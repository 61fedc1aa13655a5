//! The gate as a whole: what goes where, what its bounds are, how it ends, and what it tells of itself.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    Office, Standing,
    office::BRACKETS,
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
