//! The checkout as a browser lives it: sent away to the provider by one answer of the app, and found again by it when the
//! payer comes back.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::{
    Office, Standing, Told,
    curl::{Done, curl, is_here},
    office::{BRACKETS, Visit, WELCOME},
    standing::{HOOK, NINJA, mollie, post},
};

/// Long enough to see what must not happen.
const A_WHILE: Duration = Duration::from_millis(100);

/// A browser: the one cookie that it has of the app, which changes with every answer.
#[derive(Clone, Debug, Default)]
struct Browser {
    session: Option<String>,
}

impl Browser {
    fn cookie(&self) -> String {
        let cookie = |value: &String| format!("Cookie: theme=dark; invoice_ninja_session={value}\r\n");
        self.session.as_ref().map(cookie).unwrap_or_default()
    }

    fn get(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: pay.example\r\n{}\r\n", self.cookie())
    }

    fn post(&self, target: &str, body: &str) -> String {
        post(target, &format!("{}Content-Type: application/x-www-form-urlencoded\r\n", self.cookie()), body)
    }

    /// Comes back from the provider.
    fn back(&self, hash: &str) -> String {
        self.get(&format!("/payments/process/response?company_gateway_id=1&payment_hash={hash}&payment_method_id=13"))
    }

    /// Takes over what an answer set.
    fn heard(&mut self, told: &Told) {
        for line in told.head.all("set-cookie") {
            if let Some(rest) = line.strip_prefix("invoice_ninja_session=") {
                self.session = rest.split(';').next().map(str::to_owned);
            }
        }
    }
}

/// An answer that sends the browser there, with a new value for its session.
fn sent_to(address: &str, session: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: {address}\r\nset-cookie: XSRF-TOKEN=x{session}; path=/\r\n\
         set-cookie: invoice_ninja_session={session}; expires=Tue, 01-Dec-2026 10:00:00 GMT; Max-Age=7200; path=/; \
         httponly; samesite=lax\r\ncontent-length: 0\r\n\r\n"
    )
}

fn page(session: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\
         set-cookie: invoice_ninja_session={session}; path=/; httponly\r\ncontent-length: 4\r\n\r\npage"
    )
}

fn select_issuer(id: &str) -> String {
    format!("https://www.mollie.com/checkout/select-issuer/ideal/{id}")
}

/// A gate before an app whose every answer is the test's.
struct Scene {
    office: Office,
    gate: Standing,
    drawn: u32,
}

impl Scene {
    async fn set() -> Self {
        Self::with(NINJA).await
    }

    async fn with(config: &str) -> Self {
        let office = Office::open().await;
        let gate = Standing::before(&office.url(), config).await;
        Self { office, gate, drawn: 0 }
    }

    fn session(&mut self) -> String {
        self.drawn += 1;
        format!("eyJpdiI6{}%3D", self.drawn)
    }

    async fn views(&mut self, browser: &mut Browser, target: &str) {
        let told = self.gate.begin(browser.get(target)).await;
        let session = self.session();
        self.office.next().await.answer(page(&session));
        browser.heard(&told.await.unwrap());
    }

    /// The browser asks to pay, and is sent to this address.
    async fn is_sent(&mut self, browser: &mut Browser, address: &str) {
        let told = self.gate.begin(browser.post("/client/payments/process", "_token=t&company_gateway_id=1")).await;
        let session = self.session();
        self.office.next().await.answer(sent_to(address, &session));
        let told = told.await.unwrap();
        assert_eq!(
            (told.status(), told.head.one("location"), told.cookies()),
            (302, address, 2),
            "it comes as it went"
        );
        browser.heard(&told);
        assert_eq!(browser.session.as_ref(), Some(&session));
    }

    async fn pays(&mut self, browser: &mut Browser, id: &str) {
        self.views(browser, "/client/invoices").await;
        self.is_sent(browser, &select_issuer(id)).await;
    }

    /// A webhook that is now in the app.
    async fn hooks(&mut self, reference: &str) -> (JoinHandle<Told>, Visit) {
        let told = self.gate.begin(mollie(reference)).await;
        let visit = self.office.next().await;
        assert!(visit.body.ends_with(reference), "{}", visit.body);
        (told, visit)
    }

    /// Comes back and goes to the app at once.
    async fn passes(&mut self, request: String) {
        let told = self.gate.begin(request).await;
        self.office.next().await.answer(WELCOME);
        told.await.unwrap().is_welcome();
    }

    /// Comes back and has to wait.
    async fn waits(&mut self, request: String) -> JoinHandle<Told> {
        let told = self.gate.begin(request).await;
        assert!(self.office.is_quiet_for(A_WHILE).await, "it must not go");
        told
    }

    /// Who is in the app now comes back with this, and gets a page and a new value for his session, as everybody does.
    async fn welcomes(&mut self, with: &str) {
        let visit = self.office.next().await;
        assert!(visit.line().contains(with), "{visit:?}");
        let session = self.session();
        visit.answer(sent_to("/client/payments/1", &session));
    }

    async fn ends((told, visit): (JoinHandle<Told>, Visit)) {
        visit.answer(BRACKETS);
        told.await.unwrap().is_brackets();
    }

    /// Who has waited goes now.
    async fn goes(&mut self, told: JoinHandle<Told>) {
        self.office.next().await.answer(WELCOME);
        told.await.unwrap().is_welcome();
    }

    fn joined(&self, by: &str) -> f64 {
        self.gate.figure(&format!("joined_total{{by=\"{by}\"}}"))
    }
}

#[tokio::test]
async fn a_webhook_and_its_payers_return_are_joined_by_the_name_in_the_checkouts_address() {
    let mut scene = Scene::set().await;
    let [mut payer, mut stranger] = [Browser::default(), Browser::default()];
    scene.pays(&mut payer, "7UhSN1zuXS").await;
    // Some pages have the whole id in their address.
    scene.pays(&mut stranger, "tr_WDqYK6vllg").await;
    let hook = scene.hooks("tr_7UhSN1zuXS").await;
    let told = scene.waits(payer.back("h1")).await;
    scene.passes(stranger.back("h2")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
    assert_eq!((scene.joined("learned"), scene.joined("none")), (3.0, 0.0), "both returns and the webhook");
    assert_eq!(scene.gate.figure("late_link_total"), 0.0);
}

#[tokio::test]
async fn a_webhook_waits_for_its_own_payer_and_for_no_other() {
    let mut scene = Scene::set().await;
    let [mut payer, mut stranger] = [Browser::default(), Browser::default()];
    scene.pays(&mut payer, "7UhSN1zuXS").await;
    scene.pays(&mut stranger, "WDqYK6vllg").await;
    let told = scene.gate.begin(payer.back("h1")).await;
    let in_the_app = scene.office.next().await;
    let hook = scene.hooks("tr_WDqYK6vllg").await;
    let own = scene.gate.begin(mollie("tr_7UhSN1zuXS")).await;
    assert!(scene.office.is_quiet_for(A_WHILE).await);
    Scene::ends(hook).await;
    in_the_app.answer(WELCOME);
    told.await.unwrap().is_welcome();
    scene.office.next().await.answer(BRACKETS);
    own.await.unwrap().is_brackets();
}

#[tokio::test]
async fn two_tabs_of_one_session_are_not_mixed_up() {
    let mut scene = Scene::set().await;
    let [mut payer, mut stranger] = [Browser::default(), Browser::default()];
    scene.pays(&mut payer, "tab1").await;
    scene.views(&mut payer, "/client/invoices/2").await;
    scene.pays(&mut payer, "tab2").await;
    scene.pays(&mut stranger, "another").await;
    scene.pays(&mut stranger, "one_more").await;
    // Only his last session value is left, whichever tab comes back first.
    for (reference, hash, another) in [("tr_tab1", "h1", "tr_another"), ("tr_tab2", "h2", "tr_one_more")] {
        let others = scene.hooks(another).await;
        let hook = scene.hooks(reference).await;
        let told = scene.waits(payer.back(hash)).await;
        Scene::ends(hook).await;
        scene.goes(told).await;
        Scene::ends(others).await;
    }
}

/// A payer at curl, with the file in which it keeps its cookies.
struct Shell {
    jar: tempfile::NamedTempFile,
    base: String,
}

impl Shell {
    fn at(scene: &Scene) -> Self {
        Self { jar: tempfile::NamedTempFile::new().unwrap(), base: format!("http://{}", scene.gate.v4()) }
    }

    fn asks(&self, target: &str, more: &[&str]) -> JoinHandle<Done> {
        let (jar, url) = (self.jar.path().to_str().unwrap(), format!("{}{target}", self.base));
        curl([&["--cookie", jar, "--cookie-jar", jar, &url], more].concat())
    }

    async fn pays(&self, scene: &mut Scene, id: &str) {
        let viewed = self.asks("/client/invoices", &[]);
        let session = scene.session();
        scene.office.next().await.answer(page(&session));
        assert_eq!(viewed.await.unwrap().said, "page");
        let sent = self.asks("/client/payments/process", &["--data", "_token=t&company_gateway_id=1"]);
        let visit = scene.office.next().await;
        assert!(visit.head.one("cookie").contains(&format!("invoice_ninja_session={session}")), "{visit:?}");
        let (session, address) = (scene.session(), select_issuer(id));
        visit.answer(sent_to(&address, &session));
        assert_eq!(sent.await.unwrap().complaint, format!("1.1 302 {address}"));
    }

    fn returns(&self, hash: &str) -> JoinHandle<Done> {
        self.asks(&format!("/payments/process/response?company_gateway_id=1&payment_hash={hash}"), &[])
    }
}

#[tokio::test]
async fn a_checkout_with_curl_is_joined_and_keeps_tabs_apart_and_others_free() {
    if !is_here("curl", "the checkout with curl") {
        return;
    }
    let mut scene = Scene::set().await;
    let [payer, stranger] = [Shell::at(&scene), Shell::at(&scene)];
    // Two tabs of one browser, and somebody else who pays again and again.
    payer.pays(&mut scene, "tab1").await;
    payer.pays(&mut scene, "tab2").await;
    for (reference, hash) in [("tr_tab1", "h1"), ("tr_tab2", "h2")] {
        stranger.pays(&mut scene, &format!("other{hash}")).await;
        let hook = scene.hooks(reference).await;
        let own = payer.returns(hash);
        assert!(scene.office.is_quiet_for(A_WHILE * 3).await, "it waits for its own webhook");
        let other = stranger.returns(&format!("other-{hash}"));
        scene.welcomes("other-h").await;
        let told = other.await.unwrap();
        assert!(told.complaint.starts_with("1.1 302 http"), "nobody else waits: {told:?}");
        Scene::ends(hook).await;
        scene.welcomes(&format!("payment_hash={hash} ")).await;
        assert!(own.await.unwrap().complaint.ends_with("/client/payments/1"));
    }
    assert_eq!((scene.joined("none"), scene.gate.figure("late_link_total")), (0.0, 0.0));
}

#[tokio::test]
async fn two_tabs_that_ask_at_once_are_not_mixed_up() {
    let mut scene = Scene::set().await;
    let mut payer = Browser::default();
    scene.views(&mut payer, "/client/invoices").await;
    let ask = payer.post("/client/payments/process", "x=1");
    let first = scene.gate.begin(&ask).await;
    let first_visit = scene.office.next().await;
    let second = scene.gate.begin(&ask).await;
    scene.office.next().await.answer(sent_to(&select_issuer("tab2"), "s2"));
    payer.heard(&second.await.unwrap());
    first_visit.answer(sent_to(&select_issuer("tab1"), "s1"));
    first.await.unwrap();
    assert_eq!(payer.session.as_deref(), Some("s2"), "the later answer came first");
    for (reference, hash) in [("tr_tab1", "h1"), ("tr_tab2", "h2")] {
        let hook = scene.hooks(reference).await;
        let told = scene.waits(payer.back(hash)).await;
        Scene::ends(hook).await;
        scene.goes(told).await;
    }
}

#[tokio::test]
async fn a_session_that_never_changes_serves_as_well() {
    let mut scene = Scene::set().await;
    let mut payers = ["one", "two"].map(|session| Browser { session: Some(session.to_owned()) });
    for (payer, id) in payers.iter_mut().zip(["11", "22"]) {
        let told = scene.gate.begin(payer.post("/client/payments/process", "x=1")).await;
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", select_issuer(id));
        scene.office.next().await.answer(answer);
        assert_eq!(told.await.unwrap().status(), 302);
    }
    let hook = scene.hooks("tr_11").await;
    let told = scene.waits(payers[0].back("h1")).await;
    scene.passes(payers[1].back("h2")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
}

#[tokio::test]
async fn what_is_learned_while_the_webhook_is_held_is_in_time() {
    // No hold takes all of the provider's time, so this one ends by itself after some seconds.
    let mut scene = Scene::with("preset = 'invoice-ninja'\n[[rule]]\nhold = '60s'\n").await;
    let mut payer = Browser::default();
    scene.views(&mut payer, "/client/invoices").await;
    let hook = scene.gate.begin(mollie("tr_1")).await;
    scene.gate.waiters(1).await;
    scene.is_sent(&mut payer, &select_issuer("1")).await;
    let told = scene.gate.begin(payer.back("h1")).await;
    let visit = scene.office.next().await;
    assert!(visit.line().starts_with("GET "), "the payer goes first: {}", visit.line());
    let went = visit.at;
    visit.answer(WELCOME);
    told.await.unwrap().is_welcome();
    let visit = scene.office.next().await;
    assert!(visit.at - went < Duration::from_secs(5), "his return ends the hold: {:?}", visit.at - went);
    visit.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    assert_eq!(scene.gate.figure("late_link_total"), 0.0);
}

#[tokio::test]
async fn what_is_learned_when_the_webhook_is_in_the_app_is_late_and_is_counted_and_holds_from_then_on() {
    let mut scene = Scene::set().await;
    let mut payer = Browser::default();
    let hook = scene.hooks("tr_1").await;
    assert_eq!(scene.joined("none"), 1.0);
    scene.is_sent(&mut payer, &select_issuer("1")).await;
    assert_eq!(scene.gate.figure("late_link_total"), 1.0);
    let told = scene.waits(payer.back("h1")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
    assert_eq!(scene.joined("learned"), 1.0, "the return");
}

#[tokio::test]
async fn who_was_sent_away_under_no_readable_name_is_kept_from_all_webhooks() {
    let mut scene = Scene::set().await;
    let mut payer = Browser::default();
    scene.pays(&mut payer, "readable").await;
    scene.is_sent(&mut payer, "https://www.mollie.com/checkout/test-mode?method=ideal&token=3.x2z").await;
    let hook = scene.hooks("tr_whose").await;
    let told = scene.waits(payer.back("h1")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
}

#[tokio::test]
async fn who_has_begun_something_that_no_head_shows_is_kept_from_all_webhooks() {
    let mut scene = Scene::set().await;
    let mut payer = Browser::default();
    scene.pays(&mut payer, "readable").await;
    let told = scene.gate.begin(payer.post("/livewire/update", "{}")).await;
    scene.office.next().await.answer(page("s9"));
    payer.heard(&told.await.unwrap());
    let hook = scene.hooks("tr_whose").await;
    let told = scene.waits(payer.back("h1")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
}

/// What GoCardless tells of a payment to which a payer consented in this flow.
fn gocardless(flow: &str) -> String {
    let links = format!(r#"{{"billing_request":"BRQ-of-{flow}","billing_request_flow":"{flow}"}}"#);
    let event =
        format!(r#"{{"id":"EV{flow}","resource_type":"billing_requests","action":"fulfilled","links":{links}}}"#);
    post(HOOK, "Content-Type: application/json\r\n", &format!(r#"{{"events":[{event}]}}"#))
}

#[tokio::test]
async fn an_instant_bank_payment_is_joined_by_the_flow_in_which_the_payer_consented() {
    let mut scene = Scene::set().await;
    let [mut payer, mut stranger] = [Browser::default(), Browser::default()];
    scene.is_sent(&mut payer, "https://pay.gocardless.com/billing/static/flow?id=BRF1").await;
    scene.is_sent(&mut stranger, "https://pay-sandbox.gocardless.com/billing/static/flow?id=BRF2").await;
    let hook = scene.gate.begin(gocardless("BRF1")).await;
    let in_the_app = scene.office.next().await;
    let back = |browser: &Browser, hash| browser.get(&format!("/gocardless/ibp_redirect/CompanyKey/VolejRejNm/{hash}"));
    let told = scene.waits(back(&payer, "h1")).await;
    scene.passes(back(&stranger, "h2")).await;
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    scene.goes(told).await;
    assert_eq!((scene.joined("learned"), scene.joined("callback")), (3.0, 0.0));
}

#[tokio::test]
async fn a_payment_that_is_begun_inside_a_return_is_known_by_the_hash_it_was_begun_with() {
    let mut scene = Scene::set().await;
    let browser = Browser::default();
    let charge = "_token=t&payment_hash=h1&gateway_response=tkn";
    let told = scene.gate.begin(browser.post("/payments/process/response", charge)).await;
    scene.office.next().await.answer(sent_to(&select_issuer("card1"), "s1"));
    assert_eq!(told.await.unwrap().status(), 302);
    // He comes back in another browser, which has no session.
    let back = browser.get("/mollie/3ds_redirect/CompanyKey/VolejRejNm/h1");
    scene.pays(&mut Browser::default(), "stranger").await;
    let stranger = scene.hooks("tr_stranger").await;
    let hook = scene.hooks("tr_card1").await;
    let told = scene.waits(back).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
    // What he posts may begin another payment, so it is kept from every webhook.
    let told = scene.waits(browser.post("/payments/process/response", &format!("{charge}2"))).await;
    Scene::ends(stranger).await;
    scene.goes(told).await;
}

#[tokio::test]
async fn whose_address_does_not_show_the_payments_name_is_kept_from_all_webhooks() {
    for address in [
        "https://pay.mollie.com/authenticate/b47ef2ce1d3bea2ddadf3895080d1d4c",
        "https://www.mollie.com/checkout/order/xvb27",
        "https://www.mollie.com/checkout/credit-card/embedded",
    ] {
        let mut scene = Scene::set().await;
        let mut payer = Browser::default();
        let charge = "_token=t&payment_hash=h1&gateway_response=tkn";
        let told = scene.gate.begin(payer.post("/payments/process/response", charge)).await;
        scene.office.next().await.answer(sent_to(address, "s1"));
        payer.heard(&told.await.unwrap());
        let hook = scene.hooks("tr_7UhSN1zuXS").await;
        let told = scene.waits(payer.get("/mollie/3ds_redirect/CompanyKey/VolejRejNm/h1")).await;
        Scene::ends(hook).await;
        scene.goes(told).await;
        assert_eq!((scene.joined("learned"), scene.joined("none")), (0.0, 1.0), "{address}");
    }
}

#[tokio::test]
async fn who_was_told_under_a_wrong_name_is_kept_from_webhooks_of_which_no_answer_told() {
    let mut scene = Scene::set().await;
    let [mut payer, mut stranger] = [Browser::default(), Browser::default()];
    // An address of the usual form, and something else than the payment's id in it.
    scene.pays(&mut payer, "another_name").await;
    scene.pays(&mut stranger, "strange").await;
    let hook = scene.hooks("tr_7UhSN1zuXS").await;
    let told = scene.waits(payer.back("h1")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
    // Of this one an answer told, and it was another payer's.
    let hook = scene.hooks("tr_strange").await;
    scene.passes(payer.back("h1")).await;
    Scene::ends(hook).await;
}

#[tokio::test]
async fn nobody_ties_himself_to_anothers_payment_or_shuts_out_more_than_he_has_begun() {
    let mut scene = Scene::set().await;
    let [mut payer, mut hostile] = [Browser::default(), Browser::default()];
    scene.pays(&mut payer, "victim").await;
    scene.views(&mut hostile, "/client/invoices?to=https://www.mollie.com/checkout/a/victim").await;
    let forged = "to=https://www.mollie.com/checkout/a/victim&session=x";
    let told = scene.gate.begin(hostile.post("/client/payments/process", forged)).await;
    scene.office.next().await.answer(sent_to("/client/login", "s8"));
    hostile.heard(&told.await.unwrap());
    // Nine payments of his own are more than he can be told from strangers by.
    for n in 0..9 {
        scene.is_sent(&mut hostile, &select_issuer(&format!("own{n}"))).await;
    }
    let hook = scene.hooks("tr_victim").await;
    let waits = scene.waits(hostile.back("h-of-nobody")).await;
    // It is the channel that keeps him: the payer himself waits for his own webhook only, and before him.
    Scene::ends(hook).await;
    scene.goes(waits).await;
    let told = scene.gate.begin(hostile.back("h-of-nobody")).await;
    let in_the_app = scene.office.next().await;
    scene.passes(payer.back("h1")).await;
    in_the_app.answer(WELCOME);
    told.await.unwrap().is_welcome();
}

#[tokio::test]
async fn a_session_comes_back_from_no_more_payments_than_it_has_begun() {
    let mut scene = Scene::set().await;
    let [mut payer, mut another] = [Browser::default(), Browser::default()];
    scene.pays(&mut payer, "1").await;
    scene.pays(&mut another, "begun_in_another_browser").await;
    let hook = scene.hooks("tr_begun_in_another_browser").await;
    scene.passes(payer.back("h1")).await;
    scene.passes(payer.back("h1")).await;
    let told = scene.waits(payer.back("h2")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
}

#[tokio::test]
async fn nothing_is_learned_where_no_rule_says_so() {
    let office = Office::open().await;
    let rules = "[[rule]]\nhold = '0s'\n[[rule]]\npath = '/payment_webhook/{key}/{gateway}'\nprovider = 'mollie'\n\
                 [[rule]]\npath = '/payments/process/response'\nchannel = 'return'\n\
                 aliases.payment_hash = 'query:payment_hash'\n";
    let gate = Standing::before(&office.url(), rules).await;
    let mut scene = Scene { office, gate, drawn: 0 };
    let mut payer = Browser::default();
    scene.pays(&mut payer, "1").await;
    let hook = scene.hooks("tr_2").await;
    let told = scene.waits(payer.back("h1")).await;
    Scene::ends(hook).await;
    scene.goes(told).await;
    assert_eq!((scene.joined("learned"), scene.joined("none")), (0.0, 1.0));
}
