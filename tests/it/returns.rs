//! Payers who come back, and the webhooks that come with them: never both in the app, and everyone gets his own answer.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Office, Shop, Standing, Told, ms,
    office::{BRACKETS, Closed, WELCOME},
    standing::{NINJA, back, joined, mollie, press},
};

/// How long the app takes between its look and its booking.
const GAP: Duration = ms(60);

// ------------------------------------------------------------------------------------------------ both channels

#[tokio::test]
async fn a_webhook_and_a_return_are_never_both_in_the_app_whatever_lies_between_them() {
    let mut all = JoinSet::new();
    for hold in ["0s", "100ms"] {
        for offset in [-150_i64, -60, -20, 0, 20, 60, 150] {
            all.spawn(async move {
                let office = Office::open().await;
                let more = format!("preset = 'invoice-ninja'\n[[rule]]\nhold = '{hold}'\n");
                let gate = Standing::before(&office.url(), &more).await;
                let shop = Shop::open(office, GAP);
                for trial in 0..3 {
                    let reference = format!("tr_{trial}");
                    let hook = after(ms(u64::try_from(-offset).unwrap_or(0)), gate.ask(mollie(&reference)));
                    let payer = after(ms(u64::try_from(offset).unwrap_or(0)), gate.ask(back(&reference)));
                    let (hook, payer) = tokio::join!(hook, payer);
                    hook.is_brackets();
                    payer.is_welcome();
                    let books = shop.books();
                    assert!(books.met.is_empty(), "{hold} {offset} {:?}", books.met);
                    assert_eq!(books.booked[&reference], 1, "{hold} {offset}");
                    assert_eq!(books.visits[&reference], 2, "each has an answer of its own: {hold} {offset}");
                }
            });
        }
    }
    all.join_all().await;
}

#[tokio::test]
async fn twins_and_returns_together_book_once() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nhold = '500ms'\n").await;
    let shop = Shop::open(office, GAP);
    let hooks = [gate.begin(mollie("tr_1")).await, gate.begin(mollie("tr_1")).await];
    let payers = [gate.begin(back("tr_1")).await, gate.begin(back("tr_1")).await];
    for hook in hooks {
        hook.await.unwrap().is_brackets();
    }
    for payer in payers {
        payer.await.unwrap().is_welcome();
    }
    let books = shop.books();
    assert_eq!((books.booked["tr_1"], books.visits["tr_1"]), (1, 3), "{books:?}");
    assert!(books.met.is_empty(), "{books:?}");
}

#[tokio::test]
async fn a_return_waits_while_a_webhook_is_in_the_app_and_a_webhook_while_a_return_is() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let hook = gate.begin(mollie("tr_1")).await;
    let in_the_app = office.next().await;
    let payer = gate.begin(back("h1")).await;
    gate.callbacks(2).await;
    assert!(office.is_quiet_for(ms(100)).await, "nobody knows whether they belong together");
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();

    let in_the_app = office.next().await;
    let hook = gate.begin(mollie("tr_2")).await;
    gate.callbacks(3).await;
    assert!(office.is_quiet_for(ms(100)).await);
    in_the_app.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    office.next().await.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_from_the_other_channel() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let hook = gate.begin(mollie("what-is-this&x=y")).await;
    let in_the_app = office.next().await;
    let payer = gate.begin(back("h1")).await;
    gate.callbacks(2).await;
    assert!(office.is_quiet_for(ms(100)).await);
    in_the_app.answer(BRACKETS);
    assert_eq!(hook.await.unwrap().decision(), "unrecognised");
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
}

#[tokio::test]
async fn a_webhook_that_names_its_payer_keeps_out_that_payer_and_no_other() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let hook = gate.begin(joined("pi_1", "h1")).await;
    let in_the_app = office.next().await;
    let payer = gate.begin(back("h1")).await;
    gate.callbacks(2).await;
    assert!(office.is_quiet_for(ms(100)).await, "the same payment");
    let stranger = gate.begin(back("h2")).await;
    let visit = office.next().await;
    assert!(visit.line().contains("payment_hash=h2"), "a stranger does not wait: {}", visit.line());
    visit.answer(WELCOME);
    stranger.await.unwrap().is_welcome();
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
}

#[tokio::test]
async fn a_hold_ends_when_the_payer_has_been_through_and_is_not_begun_after_that() {
    let mut office = Office::open().await;
    // No hold takes all of the provider's time, so this one ends by itself after four seconds.
    let gate = Standing::before(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nhold = '60s'\n").await;
    let said = Instant::now();
    let hook = gate.begin(joined("pi_1", "h1")).await;
    // A name is known as soon as the webhook is held; the return goes only then.
    gate.waiters(1).await;
    let payer = gate.begin(back("h1")).await;
    let visit = office.next().await;
    assert!(visit.line().starts_with("GET "), "the payer goes first: {}", visit.line());
    assert!(office.is_quiet_for(ms(100)).await, "not before the return has been through");
    visit.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    let visit = office.next().await;
    assert!(visit.at - said < ms(3500), "{:?}", visit.at - said);
    visit.answer(BRACKETS);
    hook.await.unwrap().is_brackets();

    let said = Instant::now();
    let late = gate.begin(joined("pi_1b", "h1")).await;
    let visit = office.next().await;
    assert!(visit.at - said < ms(3500), "{:?}", visit.at - said);
    visit.answer(BRACKETS);
    late.await.unwrap().is_brackets();
}

#[tokio::test]
async fn a_return_that_failed_in_the_app_does_not_end_the_hold() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nhold = '1500ms'\n").await;
    let held = Instant::now();
    let hook = gate.begin(joined("pi_1", "h1")).await;
    gate.callbacks(1).await;
    let payer = gate.begin(back("h1")).await;
    office.next().await.says(500, "boom");
    assert_eq!(payer.await.unwrap().status(), 500);
    let visit = office.next().await;
    assert!(visit.at - held >= ms(1400), "it is still worth waiting for the payer");
    visit.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
}

#[tokio::test]
async fn forty_payments_at_once_are_booked_once_each() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nhold = '100ms'\n").await;
    let shop = Shop::open(office, ms(20));
    let mut told = Vec::new();
    for payment in 0..40 {
        let reference = format!("tr_{payment}");
        told.push((gate.begin(mollie(&reference)).await, gate.begin(back(&reference)).await));
    }
    for (hook, payer) in told {
        hook.await.unwrap().is_brackets();
        payer.await.unwrap().is_welcome();
    }
    let books = shop.books();
    assert!(books.met.is_empty(), "{:?}", books.met);
    assert!(books.booked.len() == 40 && books.booked.values().all(|count| *count == 1), "{books:?}");
    assert!(books.most <= 4, "the preset's places in the app: {}", books.most);
    assert!(books.most > 1, "a shop stays concurrent");
}

#[tokio::test]
async fn no_more_callbacks_are_in_the_app_than_it_has_places_and_pages_need_none() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("upstream.max_callbacks = 2\n{NINJA}")).await;
    let mut told = Vec::new();
    for payment in 0..4 {
        told.push(gate.begin(mollie(&format!("tr_{payment}"))).await);
    }
    let inside = [office.next().await, office.next().await];
    gate.waiters(4).await;
    assert!(office.is_quiet());
    let page = gate.begin("GET /client/invoices HTTP/1.1\r\nHost: a\r\n\r\n").await;
    office.next().await.says(200, "invoices");
    assert_eq!(page.await.unwrap().body, "invoices");
    for visit in inside {
        visit.answer(BRACKETS);
        office.next().await.answer(BRACKETS);
    }
    for told in told {
        told.await.unwrap().is_brackets();
    }
}

// ------------------------------------------------------------------------------------------------ returns among themselves

#[tokio::test]
async fn five_returns_of_one_payment_go_one_after_the_other_and_each_gets_its_own_page() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(gate.begin(back("h1")).await);
    }
    gate.callbacks(5).await;
    for session in 0..5 {
        let visit = office.next().await;
        assert!(office.is_quiet_for(ms(30)).await, "one at a time");
        visit.answer(WELCOME.replace("secret-", &format!("of-{session}-")));
    }
    let mut sessions = Vec::new();
    for told in told {
        let told = told.await.unwrap();
        told.is_welcome();
        sessions.push(told.head.all("set-cookie")[0].to_owned());
    }
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 5, "nobody gets another one's cookies");
}

#[tokio::test]
async fn a_browser_that_goes_away_neither_cuts_the_app_off_nor_lets_another_in() {
    for method in [back as fn(&str) -> String, press] {
        let mut office = Office::open().await;
        let gate = Standing::before(&office.url(), NINJA).await;
        let gone = gate.say(method("h1")).await;
        let in_the_app = office.next().await;
        drop(gone);
        let next = gate.begin(back("h1")).await;
        gate.callbacks(2).await;
        assert!(office.is_quiet_for(ms(200)).await, "the app works on the first one");
        assert!(!in_the_app.is_cut());
        in_the_app.answer(WELCOME);
        office.next().await.answer(WELCOME);
        next.await.unwrap().is_welcome();
    }
}

#[tokio::test]
async fn a_browser_that_goes_away_while_it_waits_is_brought_to_the_app_all_the_same_or_leaves_the_queue() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let first = gate.begin(back("h1")).await;
    let in_the_app = office.next().await;
    let waits = gate.say(back("h1")).await;
    gate.callbacks(2).await;
    drop(waits);
    let last = gate.begin(mollie("tr_1")).await;
    gate.callbacks(3).await;
    in_the_app.answer(WELCOME);
    first.await.unwrap().is_welcome();
    // Nobody is stuck behind it.
    let mut visit = office.next().await;
    if visit.line().starts_with("GET ") {
        visit.answer(WELCOME);
        visit = office.next().await;
    }
    visit.answer(BRACKETS);
    last.await.unwrap().is_brackets();
}

#[tokio::test]
async fn a_browser_that_reads_slowly_does_not_keep_the_next_one_out() {
    const SIZE: usize = 16 << 20;
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    for framing in ["content-length", "transfer-encoding"] {
        let mut slow = gate.say(back("h1")).await;
        let page = "x".repeat(SIZE);
        let visit = office.next().await;
        if framing == "content-length" {
            visit.says(200, &page);
        } else {
            visit.answer(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{SIZE:x}\r\n{page}\r\n0\r\n\r\n"
            ));
        }
        // It has not read a byte yet.
        let next = gate.begin(back("h1")).await;
        office.next().await.answer(WELCOME);
        next.await.unwrap().is_welcome();
        let (head, body) = slow.answer().await;
        assert_eq!((head.status(), body.len()), (200, SIZE), "{framing}: and it gets all of it");
        assert!(body == page);
    }
}

#[tokio::test]
async fn a_page_that_the_app_cuts_off_is_not_passed_on_as_a_whole_one() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    for (hash, head) in
        [("h1", "content-length: 100\r\n\r\nhalf"), ("h2", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")]
    {
        let mut browser = gate.say(back(hash)).await;
        office.next().await.ends(format!("HTTP/1.1 200 OK\r\n{head}"));
        let told = browser.rest().await;
        let as_far_as_it_went = told.contains("\r\ncontent-length: 100\r\n") || !told.ends_with("0\r\n\r\n");
        assert!(told.is_empty() || as_far_as_it_went && !told.contains("content-length: 4"), "{told:?}");
    }
}

#[tokio::test]
async fn a_payer_who_waits_too_long_hears_a_page_that_reloads_itself_and_what_he_posts_is_not_lost() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("{NINJA}return_wait = '200ms'\n")).await;
    let hook = gate.begin(mollie("tr_1")).await;
    let in_the_app = office.next().await;
    let page = gate.ask(back("h1")).await;
    assert_eq!(page.status(), 200);
    assert!(page.body.contains("http-equiv=\"refresh\""), "{page:?}");
    assert_eq!((page.head.one("refresh"), page.head.one("cache-control")), ("2", "no-store"));
    assert_eq!(page.cookies(), 0);
    let pressed = gate.begin(press("h1")).await;
    assert!(office.is_quiet_for(ms(500)).await);
    assert!(!pressed.is_finished());
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    let visit = office.next().await;
    assert!(visit.line().starts_with("POST "), "who gave up waiting is not in the queue: {}", visit.line());
    visit.answer(WELCOME);
    pressed.await.unwrap().is_welcome();

    let reloaded = gate.begin(back("h1")).await;
    office.next().await.answer(WELCOME);
    reloaded.await.unwrap().is_welcome();
}

// ------------------------------------------------------------------------------------------------ double clicks

#[tokio::test]
async fn a_double_click_charges_once_and_the_second_is_sent_where_the_first_one_went() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let first = gate.begin(press("h1")).await;
    let visit = office.next().await;
    assert!(visit.body.ends_with("payment_hash=h1&amount=10"));
    let second = gate.begin(press("h1")).await;
    gate.callbacks(2).await;
    assert!(office.is_quiet_for(ms(100)).await);
    visit.answer(WELCOME);
    first.await.unwrap().is_welcome();
    let third = gate.ask(press("h1")).await;
    for again in [second.await.unwrap(), third] {
        assert_eq!((again.status(), again.cookies()), (303, 0), "{again:?}");
        assert_eq!(again.head.one("location"), "/client/payments/Opnel5aKBz");
    }
    assert!(office.is_quiet(), "charged once");

    // Another payment is no double click.
    let other = gate.begin(press("h2")).await;
    office.next().await.answer(WELCOME);
    other.await.unwrap().is_welcome();
}

#[tokio::test]
async fn a_click_that_went_nowhere_can_be_repeated() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let first = gate.begin(press("h1")).await;
    office.next().await.says(422, "card declined");
    assert_eq!(first.await.unwrap().body, "card declined");
    let second = gate.begin(press("h1")).await;
    office.next().await.answer(WELCOME);
    second.await.unwrap().is_welcome();
}

#[tokio::test]
async fn without_the_rule_each_click_goes_to_the_app_one_after_the_other() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("{NINJA}on_repeat_return = 'forward'\n")).await;
    let clicks = [gate.begin(press("h1")).await, gate.begin(press("h1")).await];
    let visit = office.next().await;
    assert!(office.is_quiet_for(ms(100)).await);
    visit.answer(WELCOME);
    office.next().await.answer(WELCOME);
    for click in clicks {
        click.await.unwrap().is_welcome();
    }
}

// ------------------------------------------------------------------------------------------------ unknown

const QUIET: &str = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\nquiet = '1s'\n";

#[tokio::test]
async fn after_a_return_without_an_answer_nobody_else_comes_in_before_quiet_is_over() {
    for cut_in_the_body in [false, true] {
        let mut office = Office::open().await;
        let gate = Standing::before(&office.url(), QUIET).await;
        let mut broken = gate.say(back("h1")).await;
        let visit = office.next().await;
        let broke = Instant::now();
        if cut_in_the_body {
            visit.ends("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
            assert!(!broken.rest().await.ends_with("0\r\n\r\n"));
        } else {
            visit.resets("");
            assert_eq!(broken.answer().await.0.status(), 502);
        }
        let others = [gate.begin(back("h1")).await, gate.begin(mollie("tr_1")).await];
        for _ in &others {
            let visit = office.next().await;
            assert!(visit.at - broke >= ms(950), "the app may be at work: {:?}", visit.at - broke);
            let answer = if visit.line().starts_with("GET ") { WELCOME } else { BRACKETS };
            visit.answer(answer);
        }
        let [payer, hook] = others;
        payer.await.unwrap().is_welcome();
        hook.await.unwrap().is_brackets();
    }
}

#[tokio::test]
async fn after_a_webhook_without_an_answer_no_payer_comes_in_before_quiet_is_over() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), QUIET).await;
    let hook = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let broke = Instant::now();
    visit.resets("");
    assert_eq!(hook.await.unwrap().status(), 502);
    let payer = gate.begin(back("h1")).await;
    let visit = office.next().await;
    assert!(visit.at - broke >= ms(950), "the app may be at work: {:?}", visit.at - broke);
    assert!(visit.line().starts_with("GET "), "the payer who waits goes before what is sent again: {}", visit.line());
    visit.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    office.next().await.answer(BRACKETS);
}

#[tokio::test]
async fn a_return_to_an_app_that_is_down_is_told_so_and_keeps_nobody_out() {
    let down = Closed::new();
    let gate = Standing::before(&down.url(), NINJA).await;
    for _ in 0..2 {
        let told = gate.ask(back("h1")).await;
        assert_eq!((told.status(), told.decision()), (502, ""));
        assert_eq!(told.head.all("retry-after").len(), 1);
    }
    let mut office = down.open();
    let told = gate.begin(back("h1")).await;
    office.next().await.answer(WELCOME);
    told.await.unwrap().is_welcome();
}

#[tokio::test]
async fn a_linger_keeps_the_payer_out_after_the_answer_without_delaying_it() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &format!("{NINJA}linger = '1s'\n")).await;
    let hook = gate.begin(joined("pi_1", "h1")).await;
    office.next().await.answer(BRACKETS);
    let answered = Instant::now();
    let told = hook.await.unwrap();
    told.is_brackets();
    let payer = gate.begin(back("h1")).await;
    let visit = office.next().await;
    assert!(visit.at - answered >= ms(950), "{:?}", visit.at - answered);
    visit.answer(WELCOME);
    payer.await.unwrap().is_welcome();
}

#[tokio::test]
async fn in_shadow_a_return_waits_for_nobody() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), "preset = 'invoice-ninja'\n[[rule]]\nshadow = true\n").await;
    let hook = gate.begin(mollie("tr_1")).await;
    let in_the_app = office.next().await;
    let payer = gate.begin(back("h1")).await;
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
}

async fn after(delay: Duration, told: impl Future<Output = Told>) -> Told {
    tokio::time::sleep(delay).await;
    told.await
}
