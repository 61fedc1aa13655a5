//! A small certificate authority that speaks ACME (RFC 8555): it checks signatures, asks for the proofs it wants, and signs.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use oncegate::time::{Clock, SystemClock};
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use ring::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, client::danger, pki_types},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Wire, wire::soon};

/// What it was asked and what it has found.
#[derive(Default)]
struct Book {
    accounts: Vec<Value>,
    orders: Vec<Order>,
    nonces: Vec<String>,
    given: usize,
    issued: usize,
    refusals: usize,
}

struct Order {
    names: Vec<String>,
    proved: Vec<bool>,
    certificate: Option<String>,
    invalid: bool,
}

/// The authority.
#[derive(Clone)]
pub struct Double(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    authority: Authority,
    book: Mutex<Book>,
    /// Where a name is found: port 80 and 443 of all names in the world.
    http: Mutex<Option<SocketAddr>>,
    tls: Mutex<Option<SocketAddr>>,
    /// How long what it signs is valid, in seconds, before now and from now on.
    life: (i64, i64),
}

impl Double {
    pub async fn open(life: (i64, i64)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            authority: Authority::new(),
            book: Mutex::default(),
            http: Mutex::default(),
            tls: Mutex::default(),
            life,
        }));
        let served = double.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let double = served.clone();
                let service = service_fn(move |request| {
                    let double = double.clone();
                    async move { Ok::<_, std::convert::Infallible>(double.hear(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        double
    }

    pub fn directory(&self) -> String {
        self.url("directory")
    }

    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// From now on every name is found at these addresses.
    pub fn finds_names_at(&self, http: SocketAddr, tls: SocketAddr) {
        *self.0.http.lock().unwrap() = Some(http);
        *self.0.tls.lock().unwrap() = Some(tls);
    }

    pub fn accounts(&self) -> usize {
        self.0.book.lock().unwrap().accounts.len()
    }

    pub fn issued(&self) -> usize {
        self.0.book.lock().unwrap().issued
    }

    pub fn refusals(&self) -> usize {
        self.0.book.lock().unwrap().refusals
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.0.address)
    }

    async fn hear(&self, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let (status, location, answer) = match path.as_str() {
            "directory" => (200, None, self.sitemap()),
            "nonce" => (200, None, Value::Null),
            _ => match self.signed(&path, &body) {
                Ok((key, payload)) => self.treat(&path, &key, &payload).await,
                Err(why) => (400, None, json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": why })),
            },
        };
        let nonce = {
            let mut book = self.0.book.lock().unwrap();
            book.given += 1;
            let nonce = format!("nonce-{}", book.given);
            book.nonces.push(nonce.clone());
            nonce
        };
        let mut response = Response::builder().status(status).header("replay-nonce", nonce);
        if let Some(location) = location {
            response = response.header("location", location);
        }
        let text = answer.as_str().map_or_else(|| answer.to_string(), ToOwned::to_owned);
        response.body(Full::new(Bytes::from(text))).unwrap()
    }

    fn sitemap(&self) -> Value {
        json!({ "newNonce": self.url("nonce"), "newAccount": self.url("account"), "newOrder": self.url("order") })
    }

    /// The key and the payload of a signed request, if all is as RFC 8555 §6.2 wants it.
    fn signed(&self, path: &str, body: &[u8]) -> Result<(Value, Value), String> {
        let jws: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let part = |name: &str| jws[name].as_str().unwrap_or_default();
        let header: Value = serde_json::from_slice(&decoded(part("protected"))).map_err(|error| error.to_string())?;
        if header["url"] != self.url(path) {
            return Err(format!("signed for another address: {header}"));
        }
        let mut book = self.0.book.lock().unwrap();
        let known = book.nonces.iter().position(|nonce| header["nonce"] == **nonce).ok_or("an unknown nonce")?;
        book.nonces.remove(known);
        let key = match header["kid"].as_str() {
            None => header["jwk"].clone(),
            Some(account) => {
                let number: usize = account.rsplit('/').next().unwrap().parse().map_err(|_| "no account")?;
                book.accounts.get(number).ok_or("no account")?.clone()
            }
        };
        let coordinate = |name: &str| decoded(key[name].as_str().unwrap_or_default());
        let point = [&[4], &coordinate("x")[..], &coordinate("y")].concat();
        let message = format!("{}.{}", part("protected"), part("payload"));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(message.as_bytes(), &decoded(part("signature")))
            .map_err(|_| "a wrong signature")?;
        Ok((key, serde_json::from_slice(&decoded(part("payload"))).unwrap_or(Value::Null)))
    }

    async fn treat(&self, path: &str, key: &Value, payload: &Value) -> (u16, Option<String>, Value) {
        let words: Vec<&str> = path.split('/').collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        match words[..] {
            ["account"] => {
                if payload["termsOfServiceAgreed"] != true {
                    return (403, None, json!({ "type": "urn:ietf:params:acme:error:userActionRequired" }));
                }
                let mut book = self.0.book.lock().unwrap();
                book.accounts.push(key.clone());
                let url = self.url(&format!("account/{}", book.accounts.len() - 1));
                (201, Some(url), json!({ "status": "valid" }))
            }
            ["order"] => {
                let names: Vec<String> = payload["identifiers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|identifier| identifier["value"].as_str().unwrap().to_owned())
                    .collect();
                let id = {
                    let mut book = self.0.book.lock().unwrap();
                    let proved = vec![false; names.len()];
                    book.orders.push(Order { names, proved, certificate: None, invalid: false });
                    book.orders.len() - 1
                };
                (201, Some(self.url(&format!("order/{id}"))), self.order(id))
            }
            ["order", _] => (200, None, self.order(number(1))),
            ["authorization", _, _] => (200, None, self.authorization(number(1), number(2))),
            ["challenge", _, _, kind] => {
                let (id, at) = (number(1), number(2));
                let name = self.0.book.lock().unwrap().orders[id].names[at].clone();
                let expected = format!("{}.{}", token(id, at), thumbprint(key));
                let proved = match kind {
                    "http-01" => self.proved_by_http(&name, &token(id, at), &expected).await,
                    _ => self.proved_by_tls(&name, &expected).await,
                };
                let mut book = self.0.book.lock().unwrap();
                book.orders[id].proved[at] = proved;
                book.orders[id].invalid |= !proved;
                book.refusals += usize::from(!proved);
                (200, None, self.challenge(id, at, kind, if proved { "valid" } else { "processing" }))
            }
            ["finalize", _] => {
                let id = number(1);
                self.sign(id, &decoded(payload["csr"].as_str().unwrap()));
                (200, None, self.order(id))
            }
            ["certificate", _] => {
                let chain = self.0.book.lock().unwrap().orders[number(1)].certificate.clone().unwrap();
                (200, None, Value::String(chain))
            }
            _ => (404, None, json!({ "type": "urn:ietf:params:acme:error:malformed" })),
        }
    }

    fn order(&self, id: usize) -> Value {
        let book = self.0.book.lock().unwrap();
        let order = &book.orders[id];
        let status = match order {
            Order { invalid: true, .. } => "invalid",
            Order { certificate: Some(_), .. } => "valid",
            Order { proved, .. } if proved.iter().all(|proved| *proved) => "ready",
            _ => "pending",
        };
        let authorizations: Vec<_> =
            (0..order.names.len()).map(|at| self.url(&format!("authorization/{id}/{at}"))).collect();
        json!({
            "status": status,
            "authorizations": authorizations,
            "finalize": self.url(&format!("finalize/{id}")),
            "certificate": self.url(&format!("certificate/{id}")),
        })
    }

    fn authorization(&self, id: usize, at: usize) -> Value {
        let name = self.0.book.lock().unwrap().orders[id].names[at].clone();
        let challenges = ["http-01", "tls-alpn-01"].map(|kind| self.challenge(id, at, kind, "pending"));
        json!({ "status": "pending", "identifier": { "type": "dns", "value": name }, "challenges": challenges })
    }

    fn challenge(&self, id: usize, at: usize, kind: &str, status: &str) -> Value {
        let url = self.url(&format!("challenge/{id}/{at}/{kind}"));
        json!({ "type": kind, "url": url, "token": token(id, at), "status": status })
    }

    async fn proved_by_http(&self, name: &str, token: &str, expected: &str) -> bool {
        let address = found(&self.0.http).await;
        let Ok(stream) = soon(TcpStream::connect(address)).await else { return false };
        let mut wire = Wire::new(stream);
        wire.write(format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        let (head, body) = wire.answer().await;
        head.status() == 200 && body == expected
    }

    async fn proved_by_tls(&self, name: &str, expected: &str) -> bool {
        let address = found(&self.0.tls).await;
        let seen = Arc::new(Seen::default());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(seen.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let server = pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        let Ok(stream) = soon(TlsConnector::from(Arc::new(config)).connect(server, stream)).await else { return false };
        if stream.get_ref().1.alpn_protocol() != Some(b"acme-tls/1") {
            return false;
        }
        let der = seen.0.lock().unwrap().clone().unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let proof = certificate.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let wanted = [&[4, 32], digest(&SHA256, expected.as_bytes()).as_ref()].concat();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        names == 1 && proof.is_some_and(|proof| proof.critical && proof.value == wanted)
    }

    fn sign(&self, id: usize, csr: &[u8]) {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let mut book = self.0.book.lock().unwrap();
        assert!(book.orders[id].proved.iter().all(|proved| *proved), "nothing is signed that was not proved");
        assert!(!request.public_key.der_bytes().is_empty());
        let now = i64::try_from(SystemClock.now().as_millis() / 1000).unwrap();
        let moment = |offset: i64| {
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs((now + offset).cast_unsigned())
        };
        (request.params.not_before, request.params.not_after) = (moment(-self.0.life.0), moment(self.0.life.1));
        let certificate = self.0.authority.sign_request(&request);
        book.orders[id].certificate = Some(certificate);
        book.issued += 1;
    }
}

/// Where names are found; a test says so as soon as it knows.
async fn found(place: &Mutex<Option<SocketAddr>>) -> SocketAddr {
    soon(async {
        loop {
            if let Some(address) = *place.lock().unwrap() {
                return address;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

fn token(id: usize, at: usize) -> String {
    format!("token-{id}-{at}")
}

/// RFC 7638.
fn thumbprint(key: &Value) -> String {
    let text = format!("{{\"crv\":{},\"kty\":{},\"x\":{},\"y\":{}}}", key["crv"], key["kty"], key["x"], key["y"]);
    encoded(digest(&SHA256, text.as_bytes()).as_ref())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encoded(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |six: &[u8]| (0..6).fold(0, |all, at| all << 1 | usize::from(six.get(at).copied().unwrap_or(0)));
    bits.chunks(6).map(|six| char::from(ALPHABET[value(six)])).collect()
}

fn decoded(text: &str) -> Vec<u8> {
    let places: HashMap<u8, usize> = ALPHABET.iter().enumerate().map(|(at, letter)| (*letter, at)).collect();
    let bits: Vec<u8> = text
        .bytes()
        .flat_map(|letter| (0..6).rev().map(|at| (places[&letter] >> at & 1) as u8).collect::<Vec<_>>())
        .collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
}

/// Believes whatever it is shown, and keeps it: the proof is in it.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<Vec<u8>>>);

impl danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        own: &pki_types::CertificateDer<'_>,
        _: &[pki_types::CertificateDer<'_>],
        _: &pki_types::ServerName<'_>,
        _: &[u8],
        _: pki_types::UnixTime,
    ) -> Result<danger::ServerCertVerified, tokio_rustls::rustls::Error> {
        *self.0.lock().unwrap() = Some(own.to_vec());
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &pki_types::CertificateDer<'_>,
        _: &tokio_rustls::rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &pki_types::CertificateDer<'_>,
        _: &tokio_rustls::rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<tokio_rustls::rustls::SignatureScheme> {
        use tokio_rustls::rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256};
        vec![ECDSA_NISTP256_SHA256, ED25519, RSA_PSS_SHA256]
    }
}
