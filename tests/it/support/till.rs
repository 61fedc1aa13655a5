//! The API of a provider as a test wants it: Mollie's payments, and whatever can be wrong with such an API.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::wire::Head;

/// The API, open while the test runs.
pub struct Till {
    address: SocketAddr,
    drawer: Arc<Mutex<Drawer>>,
}

#[derive(Default)]
struct Drawer {
    payments: HashMap<String, Value>,
    keys: Vec<String>,
    /// What it answers elsewhere, by method, path and query.
    places: HashMap<String, (u16, Value)>,
    /// What it says in place of an answer.
    says: Option<String>,
    takes: Duration,
    asked: Vec<(Head, String)>,
}

impl Till {
    /// It lets in whoever has the key `test_a`.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drawer = Arc::new(Mutex::new(Drawer { keys: vec!["test_a".to_owned()], ..Drawer::default() }));
        let open = Arc::clone(&drawer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&open)));
            }
        });
        Self { address, drawer }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the configuration says of it, with these keys and more.
    pub fn asked_with(&self, keys: &[&str], more: &str) -> String {
        let keys: Vec<_> = keys.iter().map(|key| format!("{{ value = '{key}' }}")).collect();
        format!("[provider.mollie]\napi_url = '{}'\napi_keys = [{}]\n{more}\n", self.url(), keys.join(", "))
    }

    /// This is a payment now; a hash is given along.
    pub fn knows(&self, reference: &str, status: &str, hash: &str) {
        let payment = json!({
            "resource": "payment",
            "id": reference,
            "mode": "test",
            "status": status,
            "amount": { "value": "121.00", "currency": "EUR" },
            "metadata": { "hash": hash },
        });
        self.drawer.lock().unwrap().payments.insert(reference.to_owned(), payment);
    }

    /// This much is given back, in these refunds.
    pub fn refunded(&self, reference: &str, amount: &str, refunds: &[&str]) {
        self.changes(reference, |payment| {
            payment["amountRefunded"] = json!({ "value": amount, "currency": "EUR" });
            payment["_embedded"]["refunds"] =
                refunds.iter().map(|id| json!({ "resource": "refund", "id": id, "status": "refunded" })).collect();
        });
    }

    pub fn changes(&self, reference: &str, change: impl FnOnce(&mut Value)) {
        change(self.drawer.lock().unwrap().payments.get_mut(reference).unwrap());
    }

    /// What is asked for `reference` is answered with this, whatever it is.
    pub fn answers(&self, reference: &str, payment: Value) {
        self.drawer.lock().unwrap().payments.insert(reference.to_owned(), payment);
    }

    /// Whoever asks with this method, path and query is answered with this.
    pub fn at(&self, place: &str, status: u16, answer: Value) {
        self.drawer.lock().unwrap().places.insert(place.to_owned(), (status, answer));
    }

    pub fn lets_in(&self, keys: &[&str]) {
        self.drawer.lock().unwrap().keys = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// Whatever is asked is answered with these bytes; with nothing, as it should be.
    pub fn says(&self, bytes: Option<&str>) {
        self.drawer.lock().unwrap().says = bytes.map(str::to_owned);
    }

    /// It takes so long to answer.
    pub fn takes(&self, time: Duration) {
        self.drawer.lock().unwrap().takes = time;
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Head> {
        self.drawer.lock().unwrap().asked.iter().map(|(head, _)| head.clone()).collect()
    }

    /// The same with the bodies.
    pub fn heard(&self) -> Vec<(Head, String)> {
        self.drawer.lock().unwrap().asked.clone()
    }
}

async fn serve(mut stream: TcpStream, drawer: Arc<Mutex<Drawer>>) {
    let mut read = Vec::new();
    let (head, body) = loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = Head::parse(std::str::from_utf8(&read[..end + 4]).expect("heads are text"));
            let length: usize =
                head.all("content-length").first().map_or(0, |length| length.parse().expect("a length"));
            if read.len() == end + 4 + length {
                break (head, String::from_utf8(read.split_off(end + 4)).expect("text"));
            }
        }
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    };
    let (said, takes) = {
        let mut drawer = drawer.lock().unwrap();
        drawer.asked.push((head.clone(), body));
        // What is so when the question comes, whatever happens until the answer is there.
        (drawer.says.clone().unwrap_or_else(|| drawer.answer(&head)), drawer.takes)
    };
    tokio::time::sleep(takes).await;
    let _ = stream.write_all(said.as_bytes()).await;
}

impl Drawer {
    fn answer(&self, head: &Head) -> String {
        let place = head.line.trim_end_matches(" HTTP/1.1");
        if let Some((status, answer)) = self.places.get(place) {
            return whole(*status, answer);
        }
        let path = head.line.split(' ').nth(1).unwrap();
        let reference =
            path.strip_prefix("/v2/payments/").and_then(|rest| rest.strip_suffix("?embed=refunds,chargebacks"));
        let Some(key) = head.all("authorization").first().and_then(|shown| shown.strip_prefix("Bearer ")) else {
            return whole(404, &json!({}));
        };
        let payment = reference.and_then(|reference| self.payments.get(reference));
        match payment {
            _ if !self.keys.iter().any(|known| known == key) => whole(401, &json!({ "status": 401 })),
            // A payment of an account is known to that account's key only.
            Some(payment) if payment["account"].as_str().is_none_or(|account| account == key) => whole(200, payment),
            _ => whole(404, &json!({ "status": 404 })),
        }
    }
}

/// An answer.
pub fn whole(status: u16, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/hal+json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
