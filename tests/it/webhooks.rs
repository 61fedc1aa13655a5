//! Webhooks through a whole gate: each payment's reports reach the app once, and everyone who asked hears the answer.

use std::time::Duration;

use oncegate::dispatch::TOO_SLOW;
use ring::hmac;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Office, Standing, Told, ms,
    office::{BRACKETS, Closed, WELCOME},
    passes,
    standing::{HOOK, NINJA, connect, heard, joined, mollie, mollie_at, post},
};

/// The preset with a hold in which even slow twins meet.
const HELD: &str = "preset = 'invoice-ninja'\n[[rule]]\nhold = '1s'\n";

// ------------------------------------------------------------------------------------------------ twins

#[tokio::test]
async fn two_hundred_times_twins_over_both_families_reach_the_app_once_and_both_hear_it() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("upstream.max_callbacks = 'unlimited'\n{HELD}")).await;
    let mut seen = office.answer_all(BRACKETS);
    for wave in 0..4 {
        let mut pairs = Vec::new();
        for trial in 0..50 {
            let wires = [connect(gate.v4()).await, connect(gate.v6()).await];
            pairs.push((format!("tr_{wave}x{trial}"), wires));
        }
        let mut told = JoinSet::new();
        for (trial, (reference, [mut four, mut six])) in pairs.into_iter().enumerate() {
            // Half of them name the address they came to.
            let hosts = if trial % 2 == 0 { ["pay.example"; 2] } else { ["127.0.0.1:8080", "[::1]:8080"] };
            four.write(mollie_at(hosts[0], HOOK, &reference)).await;
            six.write(mollie_at(hosts[1], HOOK, &reference)).await;
            told.spawn(async { [heard(four).await, heard(six).await] });
        }
        while let Some(pair) = told.join_next().await {
            decided(&pair.unwrap(), &["first", "joined"]);
        }
    }
    let mut bodies: Vec<String> = std::iter::from_fn(|| seen.try_recv().ok()).map(|visit| visit.body).collect();
    assert_eq!(bodies.len(), 200);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200);
}

#[tokio::test]
async fn fifty_callers_at_once_make_one_request_and_all_hear_its_answer() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), HELD).await;
    let mut told = Vec::new();
    for _ in 0..50 {
        told.push(gate.begin(mollie("tr_1")).await);
    }
    let visit = office.next().await;
    gate.waiters(50).await;
    visit.answer(BRACKETS);
    let mut firsts = 0;
    for told in told {
        let told = told.await.unwrap();
        told.is_brackets();
        firsts += u32::from(told.decision() == "first");
        assert!(matches!(told.decision(), "first" | "joined"));
    }
    assert_eq!(firsts, 1);
    assert!(office.is_quiet());
}

#[tokio::test]
async fn the_caller_who_came_first_hangs_up_and_nothing_is_lost() {
    for hold in ["0s", "1s"] {
        let mut office = Office::open().await;
        let more = format!("preset = 'invoice-ninja'\n[[rule]]\nhold = '{hold}'\n");
        let gate = Standing::before(&office.url(), &more).await;
        let first = gate.say(mollie("tr_1")).await;
        gate.callbacks(1).await;
        let (visit, second) = if hold == "0s" {
            let visit = office.next().await;
            (visit, gate.begin(mollie("tr_1")).await)
        } else {
            let second = gate.begin(mollie("tr_1")).await;
            gate.callbacks(2).await;
            drop(first);
            (office.next().await, second)
        };
        gate.waiters(2).await;
        assert!(!visit.is_cut());
        visit.answer(BRACKETS);
        let told = second.await.unwrap();
        told.is_brackets();
        assert_eq!(told.decision(), "joined");
    }
}

#[tokio::test]
async fn the_only_caller_hangs_up_and_the_app_still_finishes_and_its_answer_is_remembered() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let caller = gate.say(mollie("tr_1")).await;
    let visit = office.next().await;
    drop(caller);
    assert!(office.is_quiet_for(ms(100)).await);
    assert!(!visit.is_cut());
    visit.answer(BRACKETS);
    gate.until("it is settled", || gate.figure(DELIVERED) >= 1.0).await;
    let told = gate.ask(mollie("tr_1")).await;
    told.is_brackets();
    assert!(matches!(told.decision(), "replayed" | "joined"), "{told:?}");
}

const DELIVERED: &str = "deliveries_total{provider=\"mollie\",outcome=\"accepted\"}";

#[tokio::test]
async fn a_slow_app_is_waited_for_by_all() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), HELD).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    passes(ms(1500)).await;
    assert!(twins.iter().all(|twin| !twin.is_finished()));
    visit.answer(BRACKETS);
    decided(&both(twins).await, &["first", "joined"]);
}

// ------------------------------------------------------------------------------------------------ windows

#[tokio::test]
async fn two_that_meet_in_the_hold_make_one_forward_and_no_second_one_later() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '500ms'\ncollapse_window = '200ms'\n";
    let gate = Standing::before(&office.url(), more).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    gate.callbacks(2).await;
    office.next().await.answer(BRACKETS);
    decided(&both(twins).await, &["first", "joined"]);
    assert!(office.is_quiet_for(ms(600)).await, "what was absorbed before the first byte needs no second delivery");
}

#[tokio::test]
async fn however_many_come_while_the_first_is_in_flight_one_more_follows_at_the_windows_end() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '1500ms'\n";
    let gate = Standing::before(&office.url(), more).await;
    let first = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let began = visit.at;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(gate.begin(mollie("tr_1")).await);
    }
    gate.waiters(4).await;
    visit.answer(BRACKETS);
    assert_eq!(first.await.unwrap().decision(), "first");
    for other in others {
        let told = other.await.unwrap();
        told.is_brackets();
        assert_eq!(told.decision(), "joined");
    }
    // After the answer and inside the window: hears it too, and is part of what follows.
    let late = gate.ask(mollie("tr_1")).await;
    assert!(late.decision() == "replayed" || began.elapsed() > ms(1500), "{late:?}");

    let follower = office.next().await;
    assert!(follower.at - began >= ms(1400), "it waits for the window's end");
    assert_eq!(follower.body, "id=tr_1");
    follower.answer(BRACKETS);
    assert!(office.is_quiet_for(ms(1800)).await, "exactly one");
}

#[tokio::test]
async fn one_that_came_while_the_first_was_in_the_app_is_enough_for_a_follower() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '200ms'\n";
    let gate = Standing::before(&office.url(), more).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    gate.waiters(2).await;
    // The window is over by now, and the first one still under way: its end sets the follower going.
    assert!(office.is_quiet_for(ms(300)).await, "the window's end lets nobody in beside it");
    visit.answer(BRACKETS);
    decided(&both(twins).await, &["first", "joined"]);
    let follower = office.next().await;
    assert_eq!(follower.body, "id=tr_1");
    follower.answer(BRACKETS);
    assert!(office.is_quiet_for(ms(500)).await, "exactly one");
}

#[tokio::test]
async fn a_refund_with_the_same_bytes_goes_through_after_the_window() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '200ms'\n";
    let gate = Standing::before(&office.url(), more).await;
    let paid = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(paid.await.unwrap().decision(), "first");
    passes(ms(200)).await;
    let refunded = gate.begin(mollie("tr_1")).await;
    office.next().await.says(200, "refunded");
    let told = refunded.await.unwrap();
    assert_eq!((told.decision(), told.body.as_str()), ("first", "refunded"));
}

#[tokio::test]
async fn a_refund_inside_the_window_hears_the_first_answer_and_reaches_the_app_at_its_end() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '2s'\n";
    let gate = Standing::before(&office.url(), more).await;
    let paid = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    paid.await.unwrap().is_brackets();
    let refunded = gate.ask(mollie("tr_1")).await;
    refunded.is_brackets();
    assert_eq!(refunded.decision(), "replayed");
    assert_eq!(office.next().await.body, "id=tr_1");
}

#[tokio::test]
async fn without_a_trailing_edge_the_window_swallows() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '300ms'\ntrailing = false\n";
    let gate = Standing::before(&office.url(), more).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    gate.waiters(2).await;
    visit.answer(BRACKETS);
    decided(&both(twins).await, &["first", "joined"]);
    assert!(office.is_quiet_for(ms(600)).await);
}

// ------------------------------------------------------------------------------------------------ failures

/// What an app can do to a webhook and to the one that waits with it, what both hear, and whether the app has answered.
struct Mishap {
    name: &'static str,
    answer: &'static str,
    reset: bool,
    heard: u16,
    body: &'static str,
    known: bool,
}

const MISHAPS: [Mishap; 7] = [
    Mishap {
        name: "fails",
        answer: "HTTP/1.1 500 X\r\nset-cookie: a=b\r\ncontent-length: 4\r\n\r\nboom",
        reset: false,
        heard: 500,
        body: "boom",
        known: true,
    },
    Mishap {
        name: "tells of a failed payment with a 200",
        answer: "HTTP/1.1 200 X\r\ncontent-length: 32\r\n\r\n{\"message\":\"failed\",\"code\":\"57\"}",
        reset: false,
        heard: 200,
        body: "{\"message\":\"failed\",\"code\":\"57\"}",
        known: true,
    },
    Mishap { name: "resets", answer: "", reset: true, heard: 502, body: "", known: false },
    Mishap { name: "hangs up", answer: "", reset: false, heard: 502, body: "", known: false },
    Mishap {
        name: "talks garbage",
        answer: "\u{1}\u{2}no http\r\n\r\n",
        reset: false,
        heard: 502,
        body: "",
        known: false,
    },
    Mishap {
        name: "is behind a middle box",
        answer: "HTTP/1.1 502 X\r\ncontent-length: 5\r\n\r\nnginx",
        reset: false,
        heard: 502,
        body: "nginx",
        known: false,
    },
    Mishap {
        name: "is cut off in the body",
        answer: "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n[",
        reset: false,
        heard: 502,
        body: "",
        known: false,
    },
];

#[tokio::test]
async fn a_failure_is_shared_with_those_who_wait_and_then_forgotten() {
    let mut all = JoinSet::new();
    for mishap in MISHAPS.iter().filter(|mishap| mishap.known) {
        all.spawn(async {
            let mut office = Office::open().await;
            let gate = Standing::before(&office.url(), HELD).await;
            let (told, _) = meet(&gate, &mut office, mishap).await;
            decided_as(&told, &["first", "joined"], mishap);
            let again = gate.begin(mollie("tr_1")).await;
            office.next().await.answer(BRACKETS);
            let again = again.await.unwrap();
            again.is_brackets();
            assert_eq!(again.decision(), "first", "{}: the next redelivery gets a real try", mishap.name);
            assert!(office.is_quiet(), "{}", mishap.name);
        });
    }
    all.join_all().await;
}

#[tokio::test]
async fn what_may_have_reached_the_app_is_unknown_is_sent_again_after_quiet_and_not_before() {
    let mut all = JoinSet::new();
    for mishap in MISHAPS.iter().filter(|mishap| !mishap.known) {
        all.spawn(async {
            let mut office = Office::open().await;
            let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '500ms'\nquiet = '1s'\n";
            let gate = Standing::before(&office.url(), more).await;
            let (told, broke) = meet(&gate, &mut office, mishap).await;
            decided_as(&told, &["first", "joined"], mishap);
            assert_eq!(gate.figure("deliveries_total{provider=\"mollie\",outcome=\"unknown\"}"), 1.0);

            // While nobody knows, the provider is asked to keep it.
            let meanwhile = gate.ask(mollie("tr_1")).await;
            if broke.elapsed() < ms(900) {
                assert_eq!((meanwhile.status(), meanwhile.decision()), (503, "joined"), "{}", mishap.name);
                assert_eq!(meanwhile.head.all("retry-after").len(), 1);
            }
            let again = office.next().await;
            assert!(again.at - broke >= ms(900), "{}: sent again while the app may be at work", mishap.name);
            again.answer(BRACKETS);
            gate.until("it is settled", || gate.figure(DELIVERED) >= 1.0).await;
            let after = gate.ask(mollie("tr_1")).await;
            after.is_brackets();
            assert!(matches!(after.decision(), "replayed" | "joined"), "{}: {after:?}", mishap.name);
        });
    }
    all.join_all().await;
}

#[tokio::test]
async fn an_app_that_does_not_answer_in_time_leaves_an_unknown() {
    let mut office = Office::open().await;
    let more =
        "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ntimeout = '300ms'\non_unknown = 'review'\nquiet = '200ms'\n";
    let gate = Standing::before(&office.url(), more).await;
    let told = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let told = told.await.unwrap();
    assert_eq!(told.status(), 504, "{TOO_SLOW}: {told:?}");
    gate.until("a person has it", || gate.running.metrics.review_entries.get() == 1).await;
    let again = gate.ask(mollie("tr_1")).await;
    assert_eq!((again.status(), again.decision()), (503, "joined"));
    assert!(office.is_quiet(), "nothing is sent again without a person");
    drop(visit);
}

#[tokio::test]
async fn an_app_that_is_down_is_honestly_reported_and_the_next_redelivery_gets_a_real_try() {
    let down = Closed::new();
    let gate = Standing::before(&down.url(), HELD).await;
    let told = both([gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await]).await;
    for told in &told {
        assert_eq!(told.status(), 502, "{told:?}");
        assert_eq!(told.head.all("retry-after").len(), 1);
    }
    decided_only(&told, &["first", "joined"]);
    let mut office = down.open();
    let again = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    let again = again.await.unwrap();
    again.is_brackets();
    assert_eq!(again.decision(), "first");
}

#[tokio::test]
async fn a_follower_that_fails_is_tried_again_by_the_gate_which_has_acknowledged_it() {
    let mut office = Office::open().await;
    let more =
        "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\ncollapse_window = '300ms'\nretry = { first = '200ms' }\n";
    let gate = Standing::before(&office.url(), more).await;
    let first = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    first.await.unwrap().is_brackets();
    let refunded = gate.ask(mollie("tr_1")).await;
    if refunded.decision() == "replayed" {
        office.next().await.says(500, "boom");
        office.next().await.says(500, "boom");
        office.next().await.answer(BRACKETS);
    }
}

// ------------------------------------------------------------------------------------------------ answers

#[tokio::test]
async fn nobody_but_the_one_whose_request_was_answered_sees_cookies() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '1s'\ncollapse_window = '20s'\n";
    let gate = Standing::before(&office.url(), more).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    gate.waiters(2).await;
    visit.answer(WELCOME.replace("302 Found", "200 OK"));
    let told = both(twins).await;
    decided_only(&told, &["first", "joined"]);
    for told in &told {
        assert_eq!(told.body, "<p>hi!");
        assert_eq!(told.head.one("content-type"), "text/html; charset=utf-8");
        assert_eq!(told.cookies(), if told.decision() == "first" { 3 } else { 0 }, "{told:?}");
        assert_eq!(told.head.all("location").len(), usize::from(told.decision() == "first"));
    }
    let later = gate.ask(mollie("tr_1")).await;
    assert_eq!((later.decision(), later.cookies(), later.body.as_str()), ("replayed", 0, "<p>hi!"));
}

#[tokio::test]
async fn an_answer_too_large_to_remember_is_heard_by_those_who_wait_and_acknowledged_later() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nhold = '1s'\ncollapse_window = '20s'\n";
    let gate = Standing::before(&office.url(), more).await;
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    gate.waiters(2).await;
    visit.says(200, &"x".repeat(20_000));
    assert!(both(twins).await.iter().all(|told| told.status() == 200 && told.body.len() == 20_000));
    let later = gate.ask(mollie("tr_1")).await;
    assert_eq!((later.status(), later.decision(), later.body.as_str()), (200, "replayed", ""));
}

// ------------------------------------------------------------------------------------------------ what is the same

#[tokio::test]
async fn two_accounts_with_the_same_reference_never_meet() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), HELD).await;
    let paths = ["/payment_webhook/A/VolejRejNm", "/payment_webhook/A/Opnel5aKBz", "/payment_webhook/B/VolejRejNm"];
    let mut told = Vec::new();
    for path in paths {
        told.push(gate.begin(mollie_at("pay.example", path, "tr_1")).await);
    }
    // One lock name, for locks may be too wide: one after the other.
    let mut lines = Vec::new();
    for _ in paths {
        let visit = office.next().await;
        assert!(office.is_quiet_for(ms(50)).await, "what shares a name does not overlap");
        lines.push(visit.line().split(' ').nth(1).unwrap().to_owned());
        visit.answer(BRACKETS);
    }
    for told in told {
        let told = told.await.unwrap();
        told.is_brackets();
        assert_eq!(told.decision(), "first");
    }
    lines.sort();
    let mut paths = paths;
    paths.sort_unstable();
    assert_eq!(lines, paths);
}

#[tokio::test]
async fn different_payments_are_in_the_app_side_by_side() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let told = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_2")).await];
    let visits = [office.next().await, office.next().await];
    visits.into_iter().for_each(|visit| visit.answer(BRACKETS));
    assert!(both(told).await.iter().all(|told| told.decision() == "first"));
}

/// Ways to write the path of the preset's webhook that Laravel takes for the same.
const FORMS: [&str; 9] = [
    "/payment_webhook/Key/Gate",
    "/index.php/payment_webhook/Key/Gate",
    "//payment_webhook///Key/Gate",
    "/payment_webhook/Key/Gate/",
    "/payment_webhook/./Key/x/../Gate",
    "/%2e/payment_webhook/Key/y/%2E%2e/Gate",
    "/payment%5fwebhook/%4Bey/G%61te",
    "/payment_webhook/Key/Gate?x=1&x=2",
    "/a/../index.php//payment_webhook/Key/Gate/?",
];

#[tokio::test]
async fn all_forms_of_a_path_are_one_route_and_one_scope() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), HELD).await;
    let mut told = Vec::new();
    for form in FORMS {
        told.push(gate.begin(mollie_at("pay.example", form, "tr_1")).await);
    }
    let visit = office.next().await;
    gate.waiters(i64::try_from(FORMS.len()).unwrap()).await;
    visit.answer(BRACKETS);
    for told in told {
        told.await.unwrap().is_brackets();
    }
    assert!(office.is_quiet());
}

#[tokio::test]
async fn the_app_sees_the_target_and_the_body_byte_by_byte_as_they_came() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    for (index, form) in FORMS.iter().enumerate() {
        let body = format!("%69d=tr_%3{index}");
        let told = gate.begin(post(form, "Content-Type: application/x-www-form-urlencoded\r\n", &body)).await;
        let visit = office.next().await;
        assert_eq!(visit.line(), format!("POST {form} HTTP/1.1"));
        assert_eq!(visit.body, body);
        visit.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), "first", "{form}");
    }
    let body = "{ \"data\" : {\"object\":\n\t{\"id\":\"pi_\\u0031\", \"id2\":1.0e2 } } }\r\n";
    let headers = "Content-Type: application/json\r\nStripe-Signature: t=1,v1=00\r\nX-Odd:   spaced  out \r\n\
        Cookie: a=b; a=c\r\nX-Forwarded-For: 6.6.6.6\r\nCf-Connecting-Ip: 6.6.6.6\r\nConnection: X-Hop\r\nX-Hop: 1\r\n";
    let told = gate.begin(post(HOOK, headers, body)).await;
    let visit = office.next().await;
    assert_eq!(visit.body, body);
    assert_eq!(visit.head.one("stripe-signature"), "t=1,v1=00");
    assert_eq!(visit.head.one("x-odd"), "spaced  out");
    assert_eq!(visit.head.one("cookie"), "a=b; a=c");
    assert_eq!(visit.head.one("host"), "pay.example");
    assert_eq!(visit.head.one("x-forwarded-for"), "127.0.0.1");
    assert_eq!(visit.head.one("x-forwarded-proto"), "http");
    assert!(!visit.raw.contains("6.6.6.6") && visit.head.all("x-hop").is_empty());
    visit.answer(BRACKETS);
    told.await.unwrap().is_brackets();
}

#[tokio::test]
async fn the_app_is_told_the_address_of_each_family() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    for (address, expected) in [(gate.v4(), "127.0.0.1"), (gate.v6(), "::1")] {
        let mut wire = connect(address).await;
        wire.write(mollie(&format!("tr_{}", expected.len()))).await;
        let visit = office.next().await;
        assert_eq!(visit.head.one("x-forwarded-for"), expected);
        visit.answer(BRACKETS);
        heard(wire).await.is_brackets();
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_forwarded_each_time_and_never_collapsed() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    // PHP keeps the last of two; a strict reader the first. Nobody guesses.
    for body in ["nothing=here", "id=tr_1&id[]=tr_2", ""] {
        for _ in 0..2 {
            let told = gate.begin(post(HOOK, "Content-Type: application/x-www-form-urlencoded\r\n", body)).await;
            let visit = office.next().await;
            assert_eq!(visit.body, body);
            visit.says(422, "no id");
            let told = told.await.unwrap();
            assert_eq!((told.status(), told.decision(), told.body.as_str()), (422, "unrecognised", "no id"), "{body}");
        }
    }
    assert_eq!(gate.figure("deliveries_total{provider=\"generic\",outcome=\"rejected\"}"), 6.0);
}

#[tokio::test]
async fn what_cannot_be_read_can_be_refused() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("{NINJA}on_unrecognised = 'refuse'\n")).await;
    let told = gate.ask(post(HOOK, "", "what is this")).await;
    assert_eq!((told.status(), told.decision()), (422, "unrecognised"));
    assert!(office.is_quiet());
}

#[tokio::test]
async fn a_generic_callback_is_the_same_only_by_the_same_bytes() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let event = |status: &str| {
        let body = format!("{{\"data\":{{\"id\":\"pay_1\",\"status\":\"{status}\"}}}}");
        post(HOOK, "Content-Type: application/json\r\n", &body)
    };
    for (status, decision) in [("Pending", "first"), ("Paid", "new_state"), ("Refunded", "new_state")] {
        let told = gate.begin(event(status)).await;
        let visit = office.next().await;
        assert!(visit.body.contains(status));
        visit.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), decision);
    }
    for status in ["Pending", "Paid", "Refunded"] {
        assert_eq!(gate.ask(event(status)).await.decision(), "replayed");
    }
    assert!(office.is_quiet());
}

// ------------------------------------------------------------------------------------------------ signatures

const SECRET: &str = "whsec-canary-77";

fn signed(id: &str, status: &str, secret: Option<&str>) -> String {
    let body = format!(
        "{{\"resource\":\"event\",\"id\":\"{id}\",\"type\":\"payment.{status}\",\"entityId\":\"tr_1\",\
         \"_embedded\":{{\"entity\":{{\"status\":\"{status}\",\"amount\":{{\"value\":\"10.00\",\"currency\":\"EUR\"}}}}}}}}"
    );
    let tag = secret.map(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("X-Mollie-Signature: sha256={hex}\r\n")
    });
    post(HOOK, &format!("Content-Type: application/json\r\n{}", tag.unwrap_or_default()), &body)
}

fn with_secret() -> String {
    format!("{NINJA}[provider.mollie]\nsecrets = [{{ value = '{SECRET}' }}]\n")
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_nothing_of_it_is_remembered() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &with_secret()).await;
    let forged = gate.ask(signed("event_1", "paid", Some("guessed"))).await;
    assert_eq!((forged.status(), forged.decision()), (401, "unverified"));
    assert!(office.is_quiet());

    let genuine = gate.begin(signed("event_1", "paid", Some(SECRET))).await;
    office.next().await.answer(BRACKETS);
    let genuine = genuine.await.unwrap();
    genuine.is_brackets();
    assert_eq!(genuine.decision(), "first");
    assert_eq!(gate.ask(signed("event_1", "paid", Some(SECRET))).await.decision(), "replayed");

    let forged = gate.ask(signed("event_1", "paid", Some("guessed"))).await;
    assert_eq!((forged.status(), forged.decision(), forged.body.contains("[]")), (401, "unverified", false));
    assert!(office.is_quiet());
}

#[tokio::test]
async fn an_event_id_that_was_taken_by_something_unsigned_does_not_swallow_the_signed_one() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &with_secret()).await;
    let unsigned = gate.begin(signed("event_1", "failed", None)).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(unsigned.await.unwrap().decision(), "first");
    let genuine = gate.begin(signed("event_1", "paid", Some(SECRET))).await;
    let visit = office.next().await;
    assert!(visit.body.contains("payment.paid"));
    visit.answer(BRACKETS);
    assert_eq!(genuine.await.unwrap().decision(), "conflict");
}

#[tokio::test]
async fn a_signature_can_be_made_a_duty() {
    let mut office = Office::open().await;
    let more = with_secret().replace("hold = '0s'", "hold = '0s'\nsignature = 'required'");
    let gate = Standing::before(&office.url(), &more).await;
    let unsigned = gate.ask(signed("event_1", "paid", None)).await;
    assert_eq!((unsigned.status(), unsigned.decision()), (401, "unverified"));
    assert!(office.is_quiet());
}

// ------------------------------------------------------------------------------------------------ bounds and modes

#[tokio::test]
async fn one_waiter_too_many_is_asked_to_come_back() {
    let mut office = Office::open().await;
    let more = format!("gateway.max_waiters_per_transaction = 2\ngateway.max_waiters = 3\n{NINJA}");
    let gate = Standing::before(&office.url(), &more).await;
    let first = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let second = gate.begin(mollie("tr_1")).await;
    gate.waiters(2).await;
    let third = gate.ask(mollie("tr_1")).await;
    assert_eq!((third.status(), third.decision()), (503, "overflow"));
    assert_eq!(third.head.all("retry-after").len(), 1);

    let other = gate.begin(mollie("tr_2")).await;
    let other_visit = office.next().await;
    let fourth = gate.ask(mollie("tr_3")).await;
    assert_eq!((fourth.status(), fourth.decision()), (503, "overflow"), "three wait in all");
    assert!(office.is_quiet(), "what is refused does not go to the app");
    visit.answer(BRACKETS);
    other_visit.answer(BRACKETS);
    decided(&both([first, second]).await, &["first", "joined"]);
    other.await.unwrap().is_brackets();

    // The places are free again, and what was refused was not remembered.
    gate.waiters(0).await;
    let again = gate.begin(mollie("tr_3")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(again.await.unwrap().decision(), "first");
}

#[tokio::test]
async fn in_shadow_everything_goes_through_at_once_and_is_counted_as_it_would_be_decided() {
    let mut office = Office::open().await;
    let more = "preset = 'invoice-ninja'\n[[rule]]\nshadow = true\n";
    let gate = Standing::before(&office.url(), more).await;
    let first = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let second = gate.begin(mollie("tr_1")).await;
    let twin = office.next().await;
    visit.answer(BRACKETS);
    twin.says(200, "its own");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.decision(), first.body.as_str()), ("first", "[]"));
    assert_eq!((second.decision(), second.body.as_str()), ("joined", "its own"));
    let third = gate.begin(mollie("tr_1")).await;
    office.next().await.says(200, "again");
    let third = third.await.unwrap();
    assert_eq!((third.decision(), third.body.as_str()), ("replayed", "again"));
    for decision in ["first", "joined", "replayed"] {
        assert_eq!(gate.figure(&counted("webhook", "mollie", decision)), 1.0, "{decision}");
    }
}

#[tokio::test]
async fn in_shadow_a_wrong_signature_is_counted_and_goes_through() {
    let mut office = Office::open().await;
    let more = with_secret().replace("hold = '0s'", "hold = '0s'\nshadow = true");
    let gate = Standing::before(&office.url(), &more).await;
    let forged = gate.begin(signed("event_1", "paid", Some("guessed"))).await;
    office.next().await.answer(BRACKETS);
    let forged = forged.await.unwrap();
    assert_eq!((forged.status(), forged.decision()), (200, "unverified"));
}

#[tokio::test]
async fn two_references_under_one_payment_hash_do_not_overlap() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let told = [gate.begin(joined("pi_1", "h1")).await, gate.begin(joined("pi_2", "h1")).await];
    let visit = office.next().await;
    assert!(office.is_quiet_for(ms(100)).await, "two references under one hash share a name");
    visit.answer(BRACKETS);
    office.next().await.answer(BRACKETS);
    both(told).await.iter().for_each(Told::is_brackets);
}

pub fn counted(channel: &str, provider: &str, decision: &str) -> String {
    let labels = format!("rule=\"invoice-ninja-{channel}\",provider=\"{provider}\",channel=\"{channel}\"");
    format!("callbacks_total{{{labels},decision=\"{decision}\"}}")
}

// ------------------------------------------------------------------------------------------------ helpers

async fn both(twins: [tokio::task::JoinHandle<Told>; 2]) -> [Told; 2] {
    let [first, second] = twins;
    [first.await.unwrap(), second.await.unwrap()]
}

/// Two that meet, whatever the app does to them; and when it did it.
async fn meet(gate: &Standing, office: &mut Office, mishap: &Mishap) -> ([Told; 2], Instant) {
    let twins = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let visit = office.next().await;
    gate.waiters(2).await;
    let broke = Instant::now();
    match (mishap.known, mishap.reset) {
        (true, _) => visit.answer(mishap.answer),
        (false, true) => visit.resets(mishap.answer),
        (false, false) => visit.ends(mishap.answer),
    }
    (both(twins).await, broke)
}

#[track_caller]
fn decided_as(told: &[Told], decisions: &[&str], mishap: &Mishap) {
    for told in told {
        assert_eq!(told.status(), mishap.heard, "{}: {told:?}", mishap.name);
        assert!(told.body.contains(mishap.body), "{}: {told:?}", mishap.name);
        assert!(told.decision() == "first" || told.cookies() == 0, "{}: {told:?}", mishap.name);
    }
    decided_only(told, decisions);
}

/// Asserts that everyone heard Invoice Ninja's answer, and these decisions in whatever order.
#[track_caller]
fn decided(told: &[Told], decisions: &[&str]) {
    told.iter().for_each(Told::is_brackets);
    decided_only(told, decisions);
}

#[track_caller]
fn decided_only(told: &[Told], decisions: &[&str]) {
    let mut heard: Vec<_> = told.iter().map(Told::decision).collect();
    heard.sort_unstable();
    assert_eq!(heard, decisions);
}

#[tokio::test]
async fn a_known_repeat_that_goes_to_the_app_again_keeps_no_lock_after_its_answer() {
    let mut office = Office::open().await;
    let again = "[[rule]]\nheader = 'X-Again'\nlinger = '1h'\non_duplicate = 'forward'\n";
    let gate = Standing::before(&office.url(), &format!("{NINJA}{again}")).await;
    let event = |n: u32, fields: &str| {
        let fields = format!("Content-Type: application/json\r\n{fields}");
        post(HOOK, &fields, &format!(r#"{{"data":{{"id":"pay_1"}},"n":{n}}}"#))
    };
    for (request, decision) in [
        (event(1, ""), "first"),
        (event(1, "X-Again: 1\r\n"), "replayed"),
        (event(2, ""), "new_state"),
        (event(3, "X-Again: 1\r\n"), "new_state"),
    ] {
        let told = gate.begin(request).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), decision);
    }
    let waits = gate.begin(event(4, "")).await;
    assert!(office.is_quiet_for(Duration::from_millis(100)).await, "what was new lingers");
    waits.abort();
}
