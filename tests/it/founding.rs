//! The founding case, on a real MariaDB: webhooks and returns that report one payment, to an app that looks and then books.

use std::{sync::Arc, time::Duration};

use mysql_async::{Conn, prelude::Queryable};
use tokio::sync::Mutex;

use crate::support::{
    MariaDb, Office, Standing, Till,
    office::{BRACKETS, Visit, WELCOME},
    standing::{NINJA, connect, heard, mollie, post},
};

/// Between the look and the booking; longer than any two requests that are sent at once are apart.
const GAP: Duration = Duration::from_millis(60);

/// How webhook and return come to know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Inquiry,
    Lookup,
    Learning,
    None,
}

/// The app: its connections to its database, none of which locks anything.
struct App {
    idle: Mutex<Vec<Conn>>,
}

impl App {
    async fn open(database: &MariaDb, mut office: Office) -> Arc<Self> {
        let mut idle = Vec::new();
        for _ in 0..12 {
            idle.push(database.root("ninja").await);
        }
        let app = Arc::new(Self { idle: Mutex::new(idle) });
        let open = Arc::clone(&app);
        tokio::spawn(async move {
            loop {
                let (visit, app) = (office.next().await, Arc::clone(&open));
                tokio::spawn(async move { app.serve(visit).await });
            }
        });
        app
    }

    async fn serve(&self, visit: Visit) {
        let mut books = self.idle.lock().await.pop().expect("no more are in the app than there are connections");
        if visit.line().starts_with("POST /client/payments/process ") {
            let id = visit.body.split_once("tr_").expect("a payment to begin").1.to_owned();
            self.idle.lock().await.push(books);
            return visit.answer(format!(
                "HTTP/1.1 302 Found\r\nlocation: https://www.mollie.com/checkout/select-method/{id}\r\n\
                 set-cookie: invoice_ninja_session=of-{id}; path=/\r\ncontent-length: 0\r\n\r\n"
            ));
        }
        let payer = visit.line().starts_with("GET ");
        let reference: String = if payer {
            let hash = visit.line().split_once("payment_hash=").expect("a hash").1.split(['&', ' ']).next().unwrap();
            let query = "SELECT JSON_UNQUOTE(JSON_EXTRACT(data, '$.payment_id')) FROM payment_hashes WHERE hash = ?";
            books.exec_first(query, (hash,)).await.unwrap().expect("a payment that was begun")
        } else {
            visit.body.strip_prefix("id=").expect("an id").to_owned()
        };
        // Where the race is: between the look and the booking nothing keeps another request out.
        let query = "SELECT id FROM payments WHERE transaction_reference = ?";
        let known: Option<u64> = books.exec_first(query, (&reference,)).await.unwrap();
        tokio::time::sleep(GAP).await;
        if known.is_none() {
            let row = "INSERT INTO payments (transaction_reference, status_id) VALUES (?, 4)";
            books.exec_drop(row, (&reference,)).await.unwrap();
        }
        self.idle.lock().await.push(books);
        visit.answer(if payer { WELCOME } else { BRACKETS });
    }
}

/// The app has begun a payment, and noted under which hash.
async fn begin(books: &mut Conn, number: usize) -> (String, String) {
    let (reference, hash) = (format!("tr_{number}x{}", "f".repeat(6)), format!("{number:032}"));
    let data = format!(r#"{{"payment_id":"{reference}"}}"#);
    books.exec_drop("INSERT INTO payment_hashes (hash, data) VALUES (?, ?)", (&hash, data)).await.unwrap();
    (reference, hash)
}

fn back(hash: &str, session: &str) -> String {
    format!(
        "GET /payments/process/response?company_gateway_id=1&payment_hash={hash}&payment_method_id=13 HTTP/1.1\r\n\
         Host: pay.example\r\nCookie: invoice_ninja_session={session}\r\n\r\n"
    )
}

/// How often each payment is in the books that is there at all.
async fn booked(books: &mut Conn) -> Vec<(String, u64)> {
    books.query("SELECT transaction_reference, COUNT(*) FROM payments GROUP BY 1 ORDER BY 1").await.unwrap()
}

async fn one_payment_each(way: Way) {
    let (database, till, office) = (MariaDb::start().await, Till::open().await, Office::open().await);
    let more = match way {
        Way::Inquiry => till.asked_with(&["test_a"], ""),
        Way::Lookup => database.asked(),
        Way::Learning | Way::None => String::new(),
    };
    let gate = Standing::before(&office.url(), &format!("upstream.max_callbacks = 'unlimited'\n{NINJA}{more}")).await;
    let _app = App::open(&database, office).await;
    let mut books = database.root("ninja").await;
    // The webhook so much before the returns, or after them; and three returns at once.
    let offsets = [-120_i64, -60, -30, -10, -1, 0, 1, 10, 30, 60, 120];
    let mut asking = Vec::new();
    for (number, offset) in offsets.into_iter().enumerate() {
        let (reference, hash) = begin(&mut books, number).await;
        till.knows(&reference, "paid", &hash);
        let session = match way {
            Way::Learning => {
                let begun =
                    gate.ask(post("/client/payments/process", "Cookie: invoice_ninja_session=new\r\n", &reference));
                assert_eq!(begun.await.status(), 302);
                format!("of-{}", &reference["tr_".len()..])
            }
            _ => "stranger".to_owned(),
        };
        let (webhook, ret) = (mollie(&reference), back(&hash, &session));
        let late = |by: i64| Duration::from_millis(by.max(0).unsigned_abs());
        let requests = [(webhook.clone(), late(offset)), (webhook, late(offset))];
        let returns = [(); 3].map(|()| (ret.clone(), late(-offset)));
        for (request, wait) in requests.into_iter().chain(returns) {
            let at = gate.v4();
            asking.push(tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let mut wire = connect(at).await;
                wire.write(request).await;
                heard(wire).await.status()
            }));
        }
        // Several payers are under way at once, and the app is not so full that nobody could meet.
        if number % 4 == 3 {
            for asked in asking.drain(..) {
                assert!(matches!(asked.await.unwrap(), 200 | 302));
            }
        }
    }
    for asked in asking {
        assert!(matches!(asked.await.unwrap(), 200 | 302));
    }
    let booked = booked(&mut books).await;
    assert_eq!(booked.len(), offsets.len(), "{booked:?}");
    assert!(booked.iter().all(|(_, times)| *times == 1), "by {way:?}: {booked:?}");
    let joined = match way {
        Way::Inquiry => "inquiry",
        Way::Lookup => "lookup",
        Way::Learning => "learned",
        Way::None => "none",
    };
    assert!(gate.figure(&format!("joined_total{{by=\"{joined}\"}}")) > 0.0, "by {way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_each_by_inquiry() {
    one_payment_each(Way::Inquiry).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_each_by_lookup() {
    one_payment_each(Way::Lookup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_each_by_learning() {
    one_payment_each(Way::Learning).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_each_by_keeping_the_channels_apart() {
    one_payment_each(Way::None).await;
}

#[tokio::test]
async fn without_the_gate_the_app_books_twice() {
    let (database, office) = (MariaDb::start().await, Office::open().await);
    let at = office.url().trim_start_matches("http://").parse().unwrap();
    let _app = App::open(&database, office).await;
    let mut books = database.root("ninja").await;
    for number in 0..3 {
        let (reference, hash) = begin(&mut books, number).await;
        let (mut webhook, mut payer) = (connect(at).await, connect(at).await);
        webhook.write(mollie(&reference)).await;
        payer.write(back(&hash, "stranger")).await;
        assert_eq!((heard(webhook).await.status(), heard(payer).await.status()), (200, 302));
    }
    let booked = booked(&mut books).await;
    assert!(booked.iter().any(|(_, times)| *times == 2), "{booked:?}");
}
