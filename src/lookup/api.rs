//! Invoice Ninja's own API, where its database can't be reached: whether a payment is in its books.
//!
//! Only the configured address is called, whatever an answer says, and what is not exactly as expected confirms nothing.

use std::{fmt, path::Path, sync::Mutex, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, RETRY_AFTER},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::{sync::Semaphore, time::timeout};

use super::{Trouble, lock};
use crate::{
    inquiry::breaker::Breaker,
    outbound::{Outbound, TrustError},
    provider::contract::Secret,
    time::{Clock, SteadyClock},
};

/// How long one question may take, all pages of its answer included. No callback waits for it.
const LIMIT: Duration = Duration::from_secs(10);
/// So many pages are looked through. The search is for a part of many fields, so that others are found, too.
const PAGES: u32 = 3;
/// Payments on a page.
const PER_PAGE: usize = 100;
/// How long it is left alone where it does not say how long.
const LIMITED: Duration = Duration::from_secs(60);

/// What a payment's status is once it has been paid: completed, refunded in part, refunded.
const PAID: [&str; 3] = ["4", "5", "6"];

/// Where it is, and what opens it.
#[derive(Clone, PartialEq)]
pub struct ApiOptions {
    /// The app's address: `https://ninja.example`.
    pub url: Uri,
    /// An API token, of a user who may view payments.
    pub token: Secret,
}

impl fmt::Debug for ApiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The API, with its health.
pub struct Api {
    options: ApiOptions,
    outbound: Outbound,
    /// Questions that it may be asked at once, apart from those to the database, for which callbacks wait.
    places: Semaphore,
    breaker: Mutex<Breaker>,
    clock: SteadyClock,
}

/// A page of payments, as far as it is read.
#[derive(Deserialize)]
struct Page {
    data: Vec<Payment>,
    meta: Meta,
}

#[derive(Deserialize)]
struct Payment {
    transaction_reference: Option<String>,
    status_id: String,
    is_deleted: bool,
}

#[derive(Deserialize)]
struct Meta {
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    current_page: u32,
    total_pages: u32,
}

impl Api {
    /// Nothing is asked before the first question.
    ///
    /// # Errors
    ///
    /// When there are no authorities by which the app could be told from an impostor.
    pub fn new(options: ApiOptions, ca: Option<&Path>, places: usize, clock: SteadyClock) -> Result<Self, TrustError> {
        let places = Semaphore::new(places);
        Ok(Self { options, outbound: Outbound::new(ca)?, places, breaker: Mutex::default(), clock })
    }

    /// Whether the app has booked a payment under this reference.
    pub async fn is_booked(&self, reference: &str) -> Result<bool, Trouble> {
        // Its processes serve those who want to see pages, too. Whoever finds no place comes again.
        let Ok(_turn) = self.places.try_acquire() else { return Err(Trouble::Crowded) };
        if !lock(&self.breaker).admits(self.clock.now()) {
            return Err(Trouble::Resting);
        }
        let said = timeout(LIMIT, self.look_through(reference)).await.unwrap_or(Err(Trouble::TooSlow));
        match &said {
            Err(Trouble::Limited(pause)) => lock(&self.breaker).rest(self.clock.now(), *pause),
            Err(trouble) if trouble.is_of_the_database() => lock(&self.breaker).failed(self.clock.now()),
            Ok(_) | Err(_) => lock(&self.breaker).well(),
        }
        said
    }

    async fn look_through(&self, reference: &str) -> Result<bool, Trouble> {
        for number in 1..=PAGES {
            let page = self.page(reference, number).await?;
            if page.data.iter().any(|payment| payment.is(reference)) {
                return Ok(true);
            }
            if page.meta.pagination.total_pages <= number {
                return Ok(false);
            }
        }
        Err(Trouble::Query(format!("more than {} payments are found by one reference", PAGES as usize * PER_PAGE)))
    }

    async fn page(&self, reference: &str, number: u32) -> Result<Page, Trouble> {
        let response = self.outbound.ask(self.question(reference, number)?).await;
        let response = response.map_err(|error| Trouble::Away(error.to_string()))?;
        match response.status() {
            StatusCode::OK => read(response.body(), number),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Trouble::Refused(format!("the token is not let in ({})", response.status())))
            }
            StatusCode::TOO_MANY_REQUESTS => Err(Trouble::Limited(pause(&response))),
            status if status.is_server_error() => Err(Trouble::Away(format!("it answers with {status}"))),
            status => Err(Trouble::Query(format!("it answers with {status}: is this the address of the app?"))),
        }
    }

    fn question(&self, reference: &str, number: u32) -> Result<Request<Bytes>, Trouble> {
        let wrong = |why: &dyn fmt::Display| Trouble::Query(why.to_string());
        let base = self.options.url.to_string();
        let filter = utf8_percent_encode(reference, NON_ALPHANUMERIC);
        let base = base.trim_end_matches('/');
        let target =
            format!("{base}/api/v1/payments?filter={filter}&status=active,archived&per_page={PER_PAGE}&page={number}");
        let mut token = HeaderValue::from_bytes(self.options.token.expose()).map_err(|error| wrong(&error))?;
        token.set_sensitive(true);
        Request::get(target)
            .header("x-api-token", token)
            // Else what is wrong is told in pages for people.
            .header("x-requested-with", "XMLHttpRequest")
            .header(ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|error| wrong(&error))
    }
}

impl Payment {
    fn is(&self, reference: &str) -> bool {
        self.transaction_reference.as_deref() == Some(reference) && !self.is_deleted && PAID.contains(&&*self.status_id)
    }
}

/// A page, if it is the one that was asked for.
fn read(body: &[u8], number: u32) -> Result<Page, Trouble> {
    let page: Page =
        serde_json::from_slice(body).map_err(|error| Trouble::Query(format!("it can't be read: {error}")))?;
    if page.meta.pagination.current_page != number || page.data.len() > PER_PAGE {
        return Err(Trouble::Query("it answers with another page than was asked for".to_owned()));
    }
    Ok(page)
}

fn pause(response: &Response<Bytes>) -> Duration {
    let told = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    told.map_or(LIMITED, Duration::from_secs)
}

/// The same trouble, said of an API.
pub fn in_words(trouble: &Trouble) -> String {
    let it = "the app's API";
    match trouble {
        Trouble::Away(why) => format!("{it} can't be reached: {why}"),
        Trouble::Refused(why) => format!("{it} refuses us: {why}"),
        Trouble::Query(why) => format!("{it} says what can't be used: {why}"),
        Trouble::TooSlow => format!("{it} took too long"),
        Trouble::Limited(pause) => format!("{it} is asked too often, and wants to be left alone for {pause:?}"),
        Trouble::Resting => format!("{it} has failed before, and is left alone for a while"),
        Trouble::Crowded => format!("{it} is asked about enough others at this moment"),
    }
}
