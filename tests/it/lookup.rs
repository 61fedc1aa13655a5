//! Names that the app's own database knows: found on real servers, and missed without harm.

use mysql_async::prelude::Queryable;

use crate::support::{
    Authority, MariaDb, Office, Postgres, Standing, ms,
    office::{BRACKETS, WELCOME},
    standing::{NINJA, back, mollie, post},
};

const HASH: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// The app notes under which hash it has begun a payment.
async fn begin(database: &MariaDb, hash: &str, reference: &str) {
    let data = format!(r#"{{"invoices":[{{"amount":"121.00"}}],"payment_id":"{reference}"}}"#);
    let row = "INSERT INTO payment_hashes (hash, data) VALUES (?, ?)";
    database.root("ninja").await.exec_drop(row, (hash, data)).await.unwrap();
}

fn looked_up(gate: &Standing, result: &str) -> f64 {
    gate.figure(&format!("lookups_total{{result=\"{result}\"}}"))
}

/// The preset without a hold and a bound, asking as `lookup` says.
async fn gate(office: &Office, lookup: &str) -> Standing {
    Standing::before(&office.url(), &format!("upstream.max_callbacks = 'unlimited'\n{NINJA}{lookup}")).await
}

/// A webhook about `tr_1` is in the app: whether a stranger who comes back waits for it, and its own payer does.
async fn strangers_wait(gate: &Standing, office: &mut Office) -> bool {
    let webhook = gate.begin(mollie("tr_1")).await;
    let in_app = office.next().await;
    let stranger = gate.begin(back(OTHER)).await;
    let waits = office.is_quiet_for(ms(400)).await;
    let (webhook, in_app, stranger) = if waits {
        in_app.answer(BRACKETS);
        office.next().await.answer(WELCOME);
        (webhook, None, stranger)
    } else {
        (webhook, Some(in_app), stranger)
    };
    if let Some(in_app) = in_app {
        panic!("the stranger was let in, and the test has lost him: {in_app:?}");
    }
    webhook.await.unwrap().is_brackets();
    stranger.await.unwrap().is_welcome();
    waits
}

#[tokio::test]
async fn a_webhook_and_a_return_find_each_other_in_the_apps_database() {
    let (database, mut office) = (MariaDb::start().await, Office::open().await);
    begin(&database, HASH, "tr_1").await;
    let gate = gate(&office, &database.asked()).await;
    let webhook = gate.begin(mollie("tr_1")).await;
    let in_app = office.next().await;
    // Its own payer waits for it, and a stranger does not.
    let payer = gate.begin(back(HASH)).await;
    let stranger = gate.begin(back(OTHER)).await;
    let visit = office.next().await;
    assert!(visit.line().contains(OTHER), "{}", visit.line());
    visit.answer(WELCOME);
    stranger.await.unwrap().is_welcome();
    assert!(office.is_quiet_for(ms(200)).await);
    in_app.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    assert_eq!(gate.figure("joined_total{by=\"lookup\"}"), 1.0);
    // The webhook's hash was found; of the two returns the stranger's hash is in no book, and the payer's link is known.
    assert_eq!((looked_up(&gate, "found"), looked_up(&gate, "not_found")), (1.0, 1.0));
}

#[tokio::test]
async fn what_a_return_has_found_its_webhook_need_not_ask() {
    let (database, mut office) = (MariaDb::start().await, Office::open().await);
    begin(&database, HASH, "tr_1").await;
    let gate = gate(&office, &database.asked()).await;
    let payer = gate.begin(back(HASH)).await;
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    let webhook = gate.begin(mollie("tr_1")).await;
    let in_app = office.next().await;
    let stranger = gate.begin(back(OTHER)).await;
    office.next().await.answer(WELCOME);
    stranger.await.unwrap().is_welcome();
    in_app.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    assert_eq!((looked_up(&gate, "found"), looked_up(&gate, "not_found")), (1.0, 1.0));
}

#[tokio::test]
async fn a_payment_that_the_database_does_not_know_is_kept_from_all_who_come_back() {
    let (database, mut office) = (MariaDb::start().await, Office::open().await);
    begin(&database, HASH, "tr_10").await;
    let gate = gate(&office, &database.asked()).await;
    assert!(strangers_wait(&gate, &mut office).await);
    assert_eq!(gate.figure("joined_total{by=\"none\"}"), 1.0);
}

#[tokio::test]
async fn whatever_is_wrong_with_the_database_a_callback_goes_as_if_there_were_none() {
    let mut database = MariaDb::start().await;
    begin(&database, HASH, "tr_1").await;
    let own = |sql: &str| {
        format!("{}names = [{{ from = 'reference.mollie', to = 'payment_hash', sql = \"{sql}\" }}]\n", database.asked())
    };
    let cases = [
        (own("SELECT no_such_column FROM payment_hashes WHERE hash = ?"), "wrong"),
        (own("SELECT email FROM users WHERE email = ?"), "wrong"),
        (own("SELECT NOW() FROM payment_hashes WHERE ? IS NOT NULL"), "wrong"),
        (
            own("SELECT hash FROM payment_hashes, (SELECT SLEEP(30)) nap WHERE data LIKE ?").replace("'5s'", "'500ms'"),
            "timeout",
        ),
        (database.asked().replace("only%2Freads", "guessed"), "refused"),
        (database.asked().replace("/ninja?", "/elsewhere?"), "refused"),
    ];
    for (lookup, result) in cases {
        let mut office = Office::open().await;
        let gate = gate(&office, &lookup).await;
        assert!(strangers_wait(&gate, &mut office).await, "{lookup}");
        assert!(looked_up(&gate, result) >= 1.0, "{result}: {lookup}");
        assert_eq!(looked_up(&gate, "found"), 0.0, "{lookup}");
    }
    let mut office = Office::open().await;
    let gate = gate(&office, &database.asked()).await;
    database.stop();
    assert!(strangers_wait(&gate, &mut office).await);
    assert!(looked_up(&gate, "failed") >= 1.0);
    // It is asked again when it is back.
    database.start_again().await;
    let webhook = gate.begin(post("/payment_webhook/Other/VolejRejNm", "", "id=tr_1")).await;
    office.next().await.answer(BRACKETS);
    webhook.await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_left_alone_and_costs_nobody_his_time() {
    let mut database = MariaDb::start().await;
    let mut office = Office::open().await;
    let gate = gate(&office, &database.asked()).await;
    database.stop();
    for number in 0..10 {
        let webhook = gate.begin(mollie(&format!("tr_{number}"))).await;
        office.next().await.answer(BRACKETS);
        webhook.await.unwrap().is_brackets();
    }
    assert_eq!((looked_up(&gate, "failed"), looked_up(&gate, "resting")), (5.0, 5.0));
}

#[tokio::test]
async fn nothing_can_be_written_by_the_gate_whatever_the_query_says_and_the_user_may() {
    let (database, mut office) = (MariaDb::start().await, Office::open().await);
    let mut root = database.root("ninja").await;
    root.query_drop(
        "CREATE FUNCTION spoil(hash VARCHAR(255)) RETURNS VARCHAR(255) MODIFIES SQL DATA BEGIN \
         INSERT INTO users (email) VALUES (hash); RETURN hash; END",
    )
    .await
    .unwrap();
    root.query_drop("GRANT ALL ON ninja.* TO oncegate@localhost").await.unwrap();
    let lookup = format!(
        "{}names = [{{ from = 'reference.mollie', to = 'payment_hash', sql = 'SELECT spoil(?)' }}]\n",
        database.asked()
    );
    let gate = gate(&office, &lookup).await;
    let webhook = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    assert_eq!(looked_up(&gate, "wrong"), 1.0);
    let written: Option<u64> = root.query_first("SELECT COUNT(*) FROM users").await.unwrap();
    assert_eq!(written, Some(0));
}

#[tokio::test]
async fn what_is_in_a_callback_never_becomes_a_part_of_the_query() {
    let (database, mut office) = (MariaDb::start().await, Office::open().await);
    begin(&database, HASH, "tr_1").await;
    let lookup = format!(
        "[[rule]]\npath = '/hook'\nprovider = 'generic'\nreference = 'form:id'\n{}\
         names = [{{ from = 'reference.generic', to = 'payment_hash', sql = \"SELECT hash FROM payment_hashes WHERE data LIKE ?\" }}]\n",
        database.asked()
    );
    let gate = gate(&office, &lookup).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for body in
        ["id=%27OR%271%27%3D%271", "id=%27%29UNION%28SELECT%28hash%29FROM%28payment_hashes%29%29%3B", "id=%22%5C%27"]
    {
        let webhook = gate.begin(post("/hook", form, body)).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(webhook.await.unwrap().decision(), "first", "{body}");
    }
    assert_eq!((looked_up(&gate, "found"), looked_up(&gate, "not_found")), (0.0, 3.0));
}

#[tokio::test]
async fn a_postgresql_is_asked_in_the_same_way() {
    let database = Postgres::start(&[
        "CREATE TABLE orders (token text PRIMARY KEY, reference text, number bigint, code uuid)",
        "INSERT INTO orders VALUES ('t1', 'tr_1', 1, NULL), ('t2', 'tr_2', 2, '00000000-0000-0000-0000-000000000001')",
        "CREATE ROLE oncegate LOGIN PASSWORD 'reads'",
        "GRANT SELECT (token, reference, number, code) ON orders TO oncegate",
    ])
    .await;
    let shop = "upstream.max_callbacks = 'unlimited'\n[[rule]]\npath = '/hook'\nprovider = 'generic'\nreference = 'form:id'\nhold = '0s'\n\
        [[rule]]\npath = '/back'\nchannel = 'return'\naliases.token = 'query:token'\n";
    let asked = |password: &str, sql: &str| {
        let url = database.url("oncegate", password);
        // Time enough for the slowest machine, but where none is enough.
        let timeout = if sql.contains("pg_sleep") { "500ms" } else { "5s" };
        format!(
            "{shop}[lookup]\ntimeout = '{timeout}'\nurl = {{ value = '{url}' }}\nnames = [{{ from = 'reference.generic', to = 'token', sql = \"{sql}\" }}]\n"
        )
    };
    let back = |token: &str| format!("GET /back?token={token} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let hook = |id: &str| post("/hook", "Content-Type: application/x-www-form-urlencoded\r\n", &format!("id={id}"));
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    for (password, sql, result) in [
        ("reads", "SELECT token FROM orders WHERE reference = $1", "found"),
        ("reads", "SELECT number FROM orders WHERE reference = $1", "found"),
        ("reads", "SELECT code FROM orders WHERE reference = $1", "wrong"),
        ("reads", "SELECT nothing FROM orders WHERE reference = $1", "wrong"),
        ("reads", "SELECT token FROM orders WHERE reference = $1 AND pg_sleep(30) IS NOT NULL", "timeout"),
        ("guessed", "SELECT token FROM orders WHERE reference = $1", "refused"),
    ] {
        let mut office = Office::open().await;
        let gate = Standing::before(&office.url(), &asked(password, sql)).await;
        let webhook = gate.begin(hook("tr_1")).await;
        let in_app = office.next().await;
        assert!(looked_up(&gate, result) >= 1.0, "{result}: {sql}");
        let stranger = gate.begin(back("t2")).await;
        if result == "found" {
            office.next().await.answer(ok);
            in_app.answer(ok);
        } else {
            assert!(office.is_quiet_for(ms(100)).await, "{sql}");
            in_app.answer(ok);
            office.next().await.answer(ok);
        }
        webhook.await.unwrap();
        stranger.await.unwrap();
    }
}

#[tokio::test]
async fn check_tries_the_queries_and_tells_of_privileges_that_are_not_needed() {
    let database = MariaDb::start().await;
    let folder = tempfile::tempdir().unwrap();
    let check = |lookup: &str| {
        let path = folder.path().join("config.toml");
        std::fs::write(&path, format!("preset = 'invoice-ninja'\n{lookup}")).unwrap();
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_oncegate"))
            .args(["check", "--connect", "--config"])
            .arg(path)
            .output()
            .unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    };
    let (fine, told) = check(&database.asked());
    assert!(fine && told.ends_with("asked the database: 0 faults, 0 warnings\n"), "{told}");
    let mut root = database.root("ninja").await;
    root.query_drop("GRANT UPDATE ON ninja.payments TO oncegate@localhost").await.unwrap();
    let (fine, told) = check(&database.asked());
    let warning = "warning: lookup.url: the user may do more than is needed: it may UPDATE on `ninja`.`payments`; ";
    assert!(fine && told.contains(warning), "{told}");
    let (fine, told) = check(&format!(
        "{}names = [{{ from = 'reference.mollie', to = 'x', sql = 'SELECT id FROM invoices WHERE id = ?' }}]\n",
        database.asked()
    ));
    assert!(!fine && told.contains("fault: lookup.names[0].sql: the query does not work: "), "{told}");
    let (fine, told) = check(&database.asked().replace("only%2Freads", "guessed"));
    assert!(!fine && told.contains("fault: lookup.url: the database refuses us: "), "{told}");
    assert!(!told.contains("guessed"), "{told}");
    let postgres = Postgres::start(&[
        "CREATE TABLE orders (token text, reference text)",
        "CREATE ROLE oncegate LOGIN PASSWORD 'reads'",
        "GRANT SELECT ON orders TO oncegate",
    ])
    .await;
    let asked = |postgres: &Postgres| {
        format!(
            "[lookup]\nbooked = []\nnames = [{{ from = 'reference.mollie', to = 'token', sql = 'SELECT token FROM orders WHERE reference = $1' }}]\nurl = {{ value = '{}' }}\n",
            postgres.url("oncegate", "reads")
        )
    };
    let (fine, told) = check(&asked(&postgres));
    assert!(fine && told.ends_with("asked the database: 0 faults, 0 warnings\n"), "{told}");
    postgres.owner().await.batch_execute("GRANT DELETE ON orders TO oncegate").await.unwrap();
    let (fine, told) = check(&asked(&postgres));
    assert!(fine && told.contains("may do more than is needed: it may write to orders; "), "{told}");
}

#[tokio::test]
async fn a_database_behind_tls_is_asked_if_its_certificate_is_from_whom_we_trust_and_for_its_name() {
    let (trusted, stranger) = (Authority::new(), Authority::new());
    let pair = trusted.issue("database", &["localhost"]);
    let mariadb = MariaDb::under_tls(&pair).await;
    begin(&mariadb, HASH, "tr_1").await;
    let postgres = Postgres::under_tls(
        &pair,
        &[
            "CREATE TABLE orders (token text PRIMARY KEY, reference text)",
            "INSERT INTO orders VALUES ('t1', 'tr_1')",
            "CREATE ROLE oncegate LOGIN PASSWORD 'reads'",
            "GRANT SELECT (token, reference) ON orders TO oncegate",
        ],
    )
    .await;
    // Each finds nothing by a connection that can be overheard.
    let under_tls = [
        "SELECT hash FROM payment_hashes WHERE data LIKE CONCAT('%', ?, '%') AND EXISTS (SELECT 1 FROM \
         information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher' AND VARIABLE_VALUE <> '')",
        "SELECT token FROM orders WHERE reference = $1 AND (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())",
    ];
    let in_clear = |url: String| url.replace("?require_ssl=true", "").replace("?sslmode=require", "");
    let urls = |host: &str| [mariadb.url_under_tls(host), postgres.url_under_tls(host, "oncegate", "reads")];
    let trusting = |authority: &Authority| format!("ca = '{}'\n", authority.believed_in_a_file().display());
    for (urls, ca, result) in [
        (urls("localhost"), trusting(&trusted), "found"),
        (urls("localhost"), trusting(&stranger), "failed"),
        (urls("127.0.0.1"), trusting(&trusted), "failed"),
        (urls("127.0.0.1").map(in_clear), String::new(), "not_found"),
    ] {
        for (url, sql) in urls.into_iter().zip(under_tls) {
            let mut office = Office::open().await;
            let lookup = format!(
                "[lookup]\ntimeout = '5s'\nurl = {{ value = '{url}' }}\n{ca}booked = []\n\
                 names = [{{ from = 'reference.mollie', to = 'payment_hash', sql = \"{sql}\" }}]\n"
            );
            let gate = gate(&office, &lookup).await;
            let webhook = gate.begin(mollie("tr_1")).await;
            office.next().await.answer(BRACKETS);
            webhook.await.unwrap().is_brackets();
            assert_eq!(looked_up(&gate, result), 1.0, "{result}: {url}");
        }
    }
}
