//! Clients that others wrote, over every version of HTTP and TLS that is spoken.

use std::{fs, net::SocketAddr};

use crate::support::{
    Authority, Office, Standing,
    curl::{begin, curl, is_here},
    office::BRACKETS,
    standing::{HOOK, NINJA},
};

/// A gate that speaks TLS and plain HTTP, before an app that says the same to everybody.
async fn gate(
    authority: &Authority,
) -> (Standing, tokio::sync::mpsc::UnboundedReceiver<crate::support::office::Visit>) {
    let office = Office::open().await;
    let table = authority.issue("pay", &["pay.example"]).table("127.0.0.1:0");
    let gate = Standing::before(&office.url(), &format!("{NINJA}{table}")).await;
    (gate, office.answer_all(BRACKETS))
}

fn addresses(gate: &Standing) -> [SocketAddr; 2] {
    [gate.v4(), gate.running.addresses[1]]
}

#[tokio::test]
async fn curl_is_served_over_every_version_of_http_and_tls() {
    if !is_here("curl", "the gate with curl") {
        return;
    }
    let authority = Authority::new();
    let (gate, mut seen) = gate(&authority).await;
    let [plain, tls] = addresses(&gate);
    let authority = authority.believed_in_a_file();
    let ways = [
        ("http", "--http1.0", "1"),
        ("http", "--http1.1", "1.1"),
        ("http", "--http2", "1.1"),
        ("http", "--http2-prior-knowledge", "2"),
        ("https", "--tlsv1.2 --tls-max 1.2 --http1.1", "1.1"),
        ("https", "--tlsv1.2 --tls-max 1.2 --http2", "2"),
        ("https", "--tlsv1.3 --http1.1", "1.1"),
        ("https", "--tlsv1.3 --http2", "2"),
    ];
    for (number, (scheme, flags, version)) in ways.into_iter().enumerate() {
        let port = if scheme == "http" { plain } else { tls }.port();
        let usual = format!("{flags} --cacert {} --resolve pay.example:{port}:127.0.0.1", authority.display());
        let base = format!("{scheme}://pay.example:{port}");
        let ask = |more: &[String]| curl(usual.split(' ').map(str::to_owned).chain(more.iter().cloned()));
        let told = ask(&[format!("{base}/page")]).await.unwrap();
        assert_eq!((&*told.said, &*told.complaint), ("[]", &*format!("{version} 200 ")), "{flags}: {told:?}");
        // A payment for each way, which is told of twice; once with a body that asks to be waited for.
        let hook = format!("{base}{HOOK}");
        for more in ["X-Nothing: 1", "Expect: 100-continue"] {
            let told = ask(&["-H".into(), more.into(), "-d".into(), format!("id=tr_{number}"), hook.clone()]);
            let told = told.await.unwrap();
            assert_eq!((&*told.said, &*told.complaint), ("[]", &*format!("{version} 200 ")), "{flags}: {told:?}");
        }
        let page = seen.recv().await.unwrap();
        assert_eq!((page.line(), page.head.one("x-forwarded-proto")), ("GET /page HTTP/1.1", scheme));
        assert_eq!(seen.recv().await.unwrap().body, format!("id=tr_{number}"));
        assert!(seen.try_recv().is_err(), "the second time it was known");
    }
    // What is too old, or believes somebody else.
    let port = tls.port();
    for (flags, code) in [("--tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 --insecure", 35), ("--tlsv1.2", 60)] {
        let resolve = format!("--resolve pay.example:{port}:127.0.0.1 https://pay.example:{port}/page");
        let told = curl(flags.split(' ').chain(resolve.split(' '))).await.unwrap();
        assert_eq!(told.code, Some(code), "{told:?}");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn h2load_is_served_and_of_what_it_repeats_the_app_sees_each_once() {
    if !is_here("h2load", "the gate with h2load") {
        return;
    }
    let authority = Authority::new();
    let (gate, mut seen) = gate(&authority).await;
    let [plain, tls] = addresses(&gate);
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    fs::write(&body, "id=tr_1").unwrap();
    let form = format!("-d {} -H content-type:application/x-www-form-urlencoded", body.display());
    for (number, (scheme, flags)) in
        [("http", "--h1"), ("http", ""), ("https", "--h1"), ("https", "")].into_iter().enumerate()
    {
        let base = format!("{scheme}://{}", if scheme == "http" { plain } else { tls });
        // Forty shops, of whom each tells of a payment ten times, and mostly at once.
        let hooks = (0..40).map(|shop| format!("{base}/payment_webhook/Company{number}x{shop}/VolejRejNm"));
        for (more, urls) in [(String::new(), vec![format!("{base}/page")]), (form.clone(), hooks.collect())] {
            let line = format!("-n 400 -c 8 -m 4 {flags} {more}");
            let args: Vec<_> = line.split_whitespace().map(str::to_owned).chain(urls).collect();
            let told = begin("h2load", args).await.unwrap();
            let well = "400 total, 400 started, 400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout";
            assert!(told.said.contains(well) && told.said.contains("400 2xx"), "{flags} {more}: {told:?}");
        }
        let mut visits: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).map(|visit| visit.head.line).collect();
        assert_eq!(visits.iter().filter(|line| *line == "GET /page HTTP/1.1").count(), 400);
        visits.retain(|line| line != "GET /page HTTP/1.1");
        visits.sort();
        let count = visits.len();
        visits.dedup();
        assert_eq!((count, visits.len()), (40, 40), "each payment once");
    }
    assert!(
        gate.figure(
            "callbacks_total{rule=\"invoice-ninja-webhook\",provider=\"mollie\",channel=\"webhook\",decision=\"first\"}"
        ) > 159.0
    );
}
