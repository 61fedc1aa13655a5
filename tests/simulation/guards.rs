//! Moments that a day with outages hardly meets: a disk that fails or dawdles, and a try that ends in a panic.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use oncegate::{
    dispatch::{App, Dispatch, SendError},
    intake::{Intake, reading::Rulebook},
    store::{
        Store,
        embedded::{Embedded, Writer},
    },
    telemetry::Metrics,
    time::SteadyClock,
    transaction::{policy::Policy, state::StoredRequest},
};
use tokio::time::{Instant, sleep};

use super::{Call, Channel, MORNING, Reply, Tag, dispatch, handled, lives::Platter, rules};

const SECOND: Duration = Duration::from_secs(1);

/// An app that refuses the first connections, and takes its time over each request.
#[derive(Default)]
struct Door {
    refuses: Mutex<usize>,
    /// A connection stands already.
    is_at_hand: bool,
    /// Whoever sends panics when the app has the request.
    panics: bool,
    connected: AtomicUsize,
    sent: AtomicUsize,
}

impl App for Door {
    type Connection = ();
    type Body = Full<Bytes>;

    fn at_hand(&self) -> Option<()> {
        self.is_at_hand.then_some(())
    }

    async fn connect(&self) -> Result<(), String> {
        self.connected.fetch_add(1, Ordering::Relaxed);
        sleep(SECOND / 20).await;
        let mut refuses = self.refuses.lock().unwrap();
        if *refuses == 0 {
            return Ok(());
        }
        *refuses -= 1;
        Err("connection refused".to_owned())
    }

    async fn send(&self, (): (), _: &StoredRequest, _: Duration) -> Result<Response<Self::Body>, SendError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "of its own accord");
        sleep(SECOND * 20).await;
        Ok(Response::new(Full::from("[]")))
    }
}

/// A gate over a disk whose writer is turned by the test.
struct Scene {
    dispatch: Arc<Dispatch<Embedded, Door>>,
    intake: Arc<Intake<Embedded, Door>>,
    book: Arc<Rulebook>,
    writer: Writer,
    platter: Platter,
}

impl Scene {
    fn new(door: Door) -> Self {
        let policy = Policy { hold: Duration::ZERO, timeout: SECOND * 30, quiet: SECOND * 30, ..Policy::default() };
        let platter = Platter::default();
        let (engine, writer) = platter.opened(&policy);
        let clock = SteadyClock::starting_at(MORNING);
        let options = dispatch::Options::default();
        let dispatch = Dispatch::new(engine, door, clock, Arc::new(Metrics::new()), options);
        tokio::spawn(Arc::clone(&dispatch).run_timers());
        let book = Arc::new(Rulebook::new(rules(&policy), HashMap::new(), "http://app"));
        Self { intake: Intake::new(Arc::clone(&dispatch)), dispatch, book, writer, platter }
    }

    /// Somebody calls.
    fn called(&self, channel: Channel, uri: &str, body: &str) -> tokio::task::JoinHandle<Reply<Full<Bytes>>> {
        let (payments, identities) = (vec![1], Vec::new());
        let tag = Tag { serial: 0, channel, payments, joined: false, learned: false, identities };
        let (at, uri, body) = (Duration::ZERO, uri.to_owned(), body.to_owned());
        let call = Call { at, uri, body, hangs_up: false, browser: None, tag: tag.clone() };
        tokio::spawn(handled(&call, &tag, None, &self.book, &self.intake))
    }

    fn webhook(&self) -> tokio::task::JoinHandle<Reply<Full<Bytes>>> {
        self.called(Channel::Webhook, "/generic/acme", r#"{"payment":"g1","event":"e1"}"#)
    }

    /// So much time goes by, and all is written meanwhile.
    async fn goes_on(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            while self.writes() {}
            sleep(SECOND / 100).await;
        }
    }

    /// Writes what there is, or opens the disk anew; whether there was anything to do.
    fn writes(&mut self) -> bool {
        match self.writer.gather() {
            Some(group) => {
                self.platter.takes(&group);
                self.writer.write(&group);
                true
            }
            None => self.dispatch.store.fault().is_some() && self.writer.turn(self.dispatch.clock_now()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_would_send_when_he_is_about_to_be_taken_for_dead_does_not_send() {
    // In two commits with a connection to be made between them, and in one.
    for is_at_hand in [false, true] {
        let mut scene = Scene::new(Door { is_at_hand, ..Door::default() });
        let caller = scene.webhook();
        sleep(SECOND).await;
        // All that he waits for is the disk.
        sleep(SECOND * 16).await;
        scene.goes_on(SECOND * 5).await;
        let app = &scene.dispatch.app;
        assert_eq!(app.connected.load(Ordering::Relaxed), usize::from(!is_at_hand));
        assert_eq!(app.sent.load(Ordering::Relaxed), 0, "his lease would end while the app is at work");
        let Reply::Whole(answer) = caller.await.unwrap() else { panic!("an answer of ours") };
        assert!(answer.status().is_server_error(), "the next redelivery gets a real try: {}", answer.status());
        scene.webhook();
        scene.goes_on(SECOND * 5).await;
        assert_eq!(scene.dispatch.app.sent.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_the_disk_did_not_confirm_and_knows_all_the_same_is_given_back() {
    let mut scene = Scene::new(Door::default());
    let payer = scene.called(Channel::Return, "/return?hash=h1", "");
    sleep(SECOND / 100).await;
    scene.platter.fails_next(true);
    scene.goes_on(SECOND * 5).await;
    let Reply::Whole(answer) = payer.await.unwrap() else { panic!("an answer of ours") };
    assert!(answer.status().is_server_error(), "{}", answer.status());
    let counts = scene.dispatch.store.counts();
    assert_eq!((scene.dispatch.app.sent.load(Ordering::Relaxed), counts.leases), (0, 0), "nobody is in the app");
}

#[tokio::test(start_paused = true)]
async fn that_a_try_never_began_is_not_said_of_the_next_one() {
    let mut scene = Scene::new(Door { refuses: Mutex::new(1), ..Door::default() });
    let caller = scene.webhook();
    sleep(SECOND / 100).await;
    while scene.writes() {}
    // The connection is refused, and the disk does not take that in.
    sleep(SECOND / 10).await;
    scene.platter.fails_next(false);
    while scene.writes() {}
    let Reply::Whole(answer) = caller.await.unwrap() else { panic!("an answer of ours") };
    assert!(answer.status().is_server_error(), "{}", answer.status());
    // It is found on the disk, and goes, by the number that the first try would have had.
    scene.goes_on(SECOND * 10).await;
    let counts = scene.dispatch.store.counts();
    assert_eq!((scene.dispatch.app.sent.load(Ordering::Relaxed), counts.in_flight, counts.leases), (1, 1, 1));
    scene.goes_on(SECOND * 20).await;
    let counts = scene.dispatch.store.counts();
    assert_eq!((counts.deliveries, counts.transactions), (0, 1), "accepted");
}

#[tokio::test(start_paused = true)]
async fn a_try_that_ends_in_a_panic_is_unknown_at_once_and_keeps_others_out_for_quiet() {
    let mut scene = Scene::new(Door { panics: true, ..Door::default() });
    scene.webhook();
    scene.goes_on(SECOND).await;
    // Who comes while it is in flight waits.
    let again = scene.webhook();
    scene.goes_on(SECOND).await;
    assert!(again.is_finished(), "nobody is in the app any more who could answer");
    let Reply::Whole(answer) = again.await.unwrap() else { panic!("an answer of ours") };
    assert_eq!(answer.status(), 503, "it is unknown whether the app got it");
    assert_eq!(scene.dispatch.store.counts().leases, 1);
    scene.goes_on(SECOND * 31).await;
    let counts = scene.dispatch.store.counts();
    assert_eq!((scene.dispatch.app.sent.load(Ordering::Relaxed), counts.review, counts.leases), (1, 1, 0));
}
