//! One question over the wire, with the key shown as its provider wants it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
    uri::{PathAndQuery, Uri},
};
use ring::rand::{SecureRandom, SystemRandom};

use super::lock;
use crate::{
    callback::Key,
    outbound::Outbound,
    provider::inquiry::{
        Api, Asking,
        access::{Credential, Unsigned, bearer},
    },
    time::Timestamp,
};

/// A token is not shown any more so long before it runs out: it may run out on the way.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a token is taken to be good whose end is not told.
const UNTOLD: Duration = Duration::from_secs(300);
/// Tokens that are kept; at the bound all are forgotten, for they can be had again.
const MOST: usize = 256;

/// What is needed to show keys: chance, and the tokens that were had for them.
pub struct Showing {
    chance: SystemRandom,
    tokens: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Option<Token>>>>>,
}

/// A token, as it is shown.
#[derive(Clone)]
struct Token {
    field: HeaderValue,
    until: Timestamp,
}

impl Default for Showing {
    fn default() -> Self {
        Self { chance: SystemRandom::new(), tokens: Mutex::default() }
    }
}

impl Showing {
    /// Puts the question to where the configuration says and nowhere else: a redirect is no answer. `now` is wall time.
    ///
    /// # Errors
    ///
    /// If there is no answer, in words that tell no key.
    pub async fn ask(
        &self,
        outbound: &Outbound,
        asking: &Asking,
        key: &Credential,
        now: Timestamp,
    ) -> Result<Response<Bytes>, String> {
        let api = &asking.api;
        match key {
            Credential::Field(field) => send(outbound, api, get(&asking.path)?, Some(field)).await,
            Credential::Exchanged(field, path) => self.with_token(outbound, asking, field, path, now).await,
            Credential::Signer(signer) => {
                let nonce = self.nonce()?;
                let (path, reference) = (&*asking.path, &*asking.reference);
                let question = Unsigned { path, reference, account: "", serial: "", nonce: &nonce, now };
                send(outbound, api, signer.sign(&self.chance, &question)?, None).await
            }
        }
    }

    /// Whoever comes while a token is being had waits for it. One that is refused is thrown away, and another had once.
    async fn with_token(
        &self,
        outbound: &Outbound,
        asking: &Asking,
        field: &HeaderValue,
        path: &str,
        now: Timestamp,
    ) -> Result<Response<Bytes>, String> {
        let api = &asking.api;
        let about = Key::of("token").part("url", &api.url).part("key", field.as_bytes()).finish();
        let place = {
            let mut tokens = lock(&self.tokens);
            if tokens.len() >= MOST && !tokens.contains_key(&about) {
                tokens.clear();
            }
            Arc::clone(tokens.entry(about).or_default())
        };
        let mut refused = None;
        loop {
            let token = {
                let mut kept = place.lock().await;
                match kept.clone().filter(|token| now < token.until && refused.as_ref() != Some(&token.field)) {
                    Some(token) => token,
                    None => {
                        let answer = send(outbound, api, exchange(path)?, Some(field)).await?;
                        if answer.status() != StatusCode::OK {
                            return Ok(answer);
                        }
                        let token = Token::read(answer.body(), now)?;
                        kept.insert(token).clone()
                    }
                }
            };
            let answer = send(outbound, api, get(&asking.path)?, Some(&token.field)).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || refused.is_some() {
                return Ok(answer);
            }
            refused = Some(token.field);
        }
    }

    fn nonce(&self) -> Result<String, String> {
        let mut bytes = [0; 16];
        self.chance.fill(&mut bytes).map_err(|_| "this machine gives no chance".to_owned())?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Token {
    /// A token answer (RFC 6749, section 5.1).
    fn read(body: &[u8], now: Timestamp) -> Result<Self, String> {
        let unreadable = || "its answer holds no token".to_owned();
        let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
        let token = json["access_token"].as_str().ok_or_else(unreadable)?;
        let lasts = json["expires_in"].as_u64().map_or(UNTOLD, Duration::from_secs);
        let field = bearer(token.as_bytes()).map_err(|_| unreadable())?;
        Ok(Self { field, until: now.after(lasts.saturating_sub(MARGIN)) })
    }
}

fn get(path: &str) -> Result<Request<Bytes>, String> {
    Request::get(path).body(Bytes::new()).map_err(|_| format!("{path} is no path"))
}

fn exchange(path: &str) -> Result<Request<Bytes>, String> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(Bytes::from_static(b"grant_type=client_credentials")).map_err(|_| format!("{path} is no path"))
}

async fn send(
    outbound: &Outbound,
    api: &Api,
    mut request: Request<Bytes>,
    shown: Option<&HeaderValue>,
) -> Result<Response<Bytes>, String> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let url: Uri = format!("{}{path}", api.url).parse().map_err(|_| format!("{} is no address", api.url))?;
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    if let Some(field) = shown {
        headers.insert(AUTHORIZATION, field.clone());
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("oncegate/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in api.inquiry.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    outbound.ask(request).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_shortly_before_its_end() {
        let now = Timestamp::from_millis(1_000_000);
        let read = |text: &str| Token::read(text.as_bytes(), now).map(|token| (token.field, token.until));
        let (field, until) = read(r#"{"access_token":"A21","token_type":"Bearer","expires_in":32400}"#).unwrap();
        assert_eq!((field.to_str().unwrap(), until), ("Bearer A21", now.after(Duration::from_secs(32340))));
        assert_eq!(read(r#"{"access_token":"A21"}"#).unwrap().1, now.after(UNTOLD - MARGIN));
        assert_eq!(read(r#"{"access_token":"A21","expires_in":5}"#).unwrap().1, now);
        for wrong in ["", "{}", "[]", r#"{"access_token":7}"#, r#"{"access_token":"a\nb"}"#, r#"{"access_token":""}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
