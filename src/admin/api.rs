//! The API: what waits for a person and what he does about it, a payment's line of life, and history as evidence.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use super::{
    body::Body,
    guard::{Guard, Stopped},
    page, paper,
};
use crate::{
    callback::Key,
    dispatch::{App, Dispatch, StepError},
    provider::{self, generic::GENERIC},
    store::{CommitError, Lines, Store, StoreError, Want},
    telemetry::cardless,
    time::Timestamp,
    transaction::{
        effect::{Act, Input},
        history::{Deed, Line},
        lock::LeaseId,
        state::Delivery,
        transition::Refused,
    },
};

/// Where the API begins.
pub(super) const ROOT: &str = "/api/v1";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
/// Bytes of a request's body; an act is a sentence.
const BODY: usize = 16 << 10;
/// How long a request's body may take to come.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Entries on a page, unless another number is asked for; and at most.
const ENTRIES: usize = 100;
const MOST_ENTRIES: usize = 1000;
/// Lines of history in one answer, unless another number is asked for; and at most. Whoever wants more reads on.
const LINES: usize = 10_000;
const MOST_LINES: usize = 100_000;
/// Lines of one transaction that are shown with it.
const LINES_SHOWN: usize = 1000;
/// Transactions that one reference may lead to.
const TRANSACTIONS: usize = 100;
/// Lines that are read from the store at once, so that nobody waits for it.
const STEP: usize = 512;
/// How long a backup waits for its reader.
const STALL: Duration = Duration::from_secs(30);
/// Characters of who acts, and of why.
const MOST_WHO: usize = 100;
const MOST_WHY: usize = 1000;

/// The API over a gate that runs.
pub struct Api<S, A> {
    dispatch: Arc<Dispatch<S, A>>,
    guard: Guard,
}

/// What is answered instead of what was asked for.
struct Refusal {
    status: StatusCode,
    error: String,
    remedy: String,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, error: error.into(), remedy: remedy.into() }
    }

    fn bad(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, remedy)
    }

    fn gone() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is no such entry",
            "somebody may have dealt with it, or it came to its end by itself: look at the list, or at its history",
        )
    }

    fn response(&self) -> Response<Body> {
        let mut response = json(self.status, &json!({ "error": self.error, "remedy": self.remedy }));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"oncegate\""));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "see what is wrong with the store, and try again")
    }
}

impl From<StepError> for Refusal {
    fn from(error: StepError) -> Self {
        let (status, remedy) = match &error {
            StepError::Refused(Refused::Gone) => return Self::gone(),
            StepError::Refused(Refused::AtWork) => {
                (StatusCode::CONFLICT, "come again when `quiet` is over; settle and discard are possible now")
            }
            StepError::Refused(Refused::Elsewhere) => (StatusCode::CONFLICT, "when you have seen it, discard it"),
            StepError::Refused(Refused::Changed) => (StatusCode::CONFLICT, "look at it again, and act on what you see"),
            StepError::Refused(Refused::OutOfTurn | Refused::Fenced) => {
                (StatusCode::CONFLICT, "it does not wait for a person: it goes its way by itself")
            }
            StepError::Commit(CommitError::Store(error)) => return error.clone().into(),
            StepError::Commit(_) => (StatusCode::SERVICE_UNAVAILABLE, "try again"),
        };
        Self::new(status, error.to_string(), remedy)
    }
}

/// What is asked for.
enum Asked {
    Entries,
    Entry(LeaseId),
    Act(LeaseId, Deed),
    Transactions,
    History,
    Backup,
}

impl<S: Store, A: App> Api<S, A> {
    /// An API over `dispatch`, behind `guard`.
    pub fn new(dispatch: Arc<Dispatch<S, A>>, guard: Guard) -> Arc<Self> {
        Arc::new(Self { dispatch, guard })
    }

    /// Who may use it.
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What waits.
    pub(super) fn waiting(&self) -> page::Waiting {
        let counts = self.dispatch.store.counts();
        let now = self.dispatch.clock_now();
        let age = |since: Option<Timestamp>| since.map(|since| now.since(since)).unwrap_or_default();
        page::Waiting {
            review: (counts.review, age(counts.oldest_review)),
            owed: (counts.owed, age(counts.oldest_owed)),
            shut: self.dispatch.is_shut(),
        }
    }

    /// The answer to one request under [`ROOT`], from somebody at `peer`.
    pub(super) async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        self.answered(request, peer).await.unwrap_or_else(|refusal| refusal.response())
    }

    async fn answered(self: &Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Refusal> {
        self.admit(request.headers(), peer)?;
        let path = request.uri().path().strip_prefix(ROOT).unwrap_or_default();
        let Some((asked, method)) = asked(path) else {
            let about = json!({ "version": env!("CARGO_PKG_VERSION"), "paths": PATHS });
            return match (path, request.method()) {
                ("" | "/", &Method::GET | &Method::HEAD) => Ok(json(StatusCode::OK, &about)),
                ("" | "/", _) => Ok(not_allowed(&Method::GET)),
                _ => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such path", PATHS.join(", "))),
            };
        };
        let reads = method == Method::GET && request.method() == Method::HEAD;
        if !reads && *request.method() != method {
            return Ok(not_allowed(&method));
        }
        let query = Query::of(request.uri().query().unwrap_or_default())?;
        match asked {
            Asked::Entries => self.entries(&query).await,
            Asked::Entry(id) => query.knows(&[]).map(|()| id).map(|id| self.entry(id))?.await,
            Asked::Act(id, deed) => {
                query.knows(&[])?;
                self.act(id, deed, request).await
            }
            Asked::Transactions => self.transactions(&query).await,
            Asked::History => self.history(&query).await,
            Asked::Backup => query.knows(&[]).map(|()| self.backup(peer))?.await,
        }
    }

    fn admit(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), Refusal> {
        self.guard.admits(headers).map_err(|stopped| match stopped {
            Stopped::Stranger => {
                let remedy = "use it from the command line, or from a page of this address";
                Refusal::new(StatusCode::FORBIDDEN, "a page of another site may not use this API", remedy)
            }
            Stopped::Closed if peer.to_canonical().is_loopback() => Refusal::new(
                StatusCode::FORBIDDEN,
                "the API is off: no token is configured",
                "write `token = { env = \"ONCEGATE_ADMIN_TOKEN\" }` into [admin], set the variable to what `openssl rand \
                 -hex 32` makes, and restart the gate",
            ),
            // Others need not know how it could be turned on.
            Stopped::Closed => Refusal::new(StatusCode::FORBIDDEN, "the API is off", "ask whoever runs the gate"),
            Stopped::Unknown => {
                tracing::warn!(client = %peer, "somebody without the token knocked at the admin API");
                let remedy = "send `Authorization: Bearer TOKEN` with the token of [admin]";
                Refusal::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong", remedy)
            }
        })
    }

    async fn entries(&self, query: &Query) -> Result<Response<Body>, Refusal> {
        query.knows(&["after", "limit"])?;
        let limit = query.number("limit", ENTRIES, MOST_ENTRIES)?;
        let after = query.get("after").map_or(Some((Timestamp::EPOCH, LeaseId(0))), place);
        let after =
            after.ok_or_else(|| Refusal::bad("`after` is no place in the list", "take `next` of the page before"))?;
        let now = self.dispatch.clock_now();
        let found = self.dispatch.store.reviews(after, limit).await?;
        let last = found.last().filter(|_| found.len() == limit);
        let next = last.and_then(|last| Some(format!("{}-{}", last.in_review()?.0.as_millis(), last.id.0)));
        let entries: Vec<_> = found.iter().map(|delivery| paper::entry(delivery, now)).collect();
        let waiting = self.dispatch.store.counts().review;
        Ok(json(StatusCode::OK, &json!({ "waiting": waiting, "entries": entries, "next": next })))
    }

    async fn entry(&self, id: LeaseId) -> Result<Response<Body>, Refusal> {
        let delivery = self.delivery(id).await?;
        let now = self.dispatch.clock_now();
        let mut said = paper::entry(&delivery, now);
        let mut keys: Vec<Key> = delivery.letter.events.iter().map(|event| event.transaction).collect();
        keys.dedup();
        said["request"] = paper::request(&delivery.letter);
        said["history"] = self.lines_of(&keys).await?;
        Ok(json(StatusCode::OK, &said))
    }

    async fn delivery(&self, id: LeaseId) -> Result<Delivery, Refusal> {
        let view = self.dispatch.store.load(Want::Delivery(id), self.dispatch.clock_now()).await?;
        view.delivery(id).cloned().ok_or_else(Refusal::gone)
    }

    async fn lines_of(&self, transactions: &[Key]) -> Result<Value, Refusal> {
        let mut lines = Vec::new();
        for key in transactions {
            lines.extend(self.dispatch.store.history(Lines::Of(*key), 0, LINES_SHOWN).await?);
        }
        lines.sort_by_key(|(number, _)| *number);
        lines.dedup_by_key(|(number, _)| *number);
        Ok(lines.iter().take(LINES_SHOWN).map(|(number, line)| paper::line(*number, line)).collect())
    }

    async fn act(&self, id: LeaseId, deed: Deed, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let said = Said::read(request).await?;
        let letter = self.delivery(id).await?.letter;
        let answer = provider::by_name(letter.provider).unwrap_or(&GENERIC).ack.answer();
        let (who, why): (Arc<str>, Arc<str>) = (said.who.into(), said.reason.into());
        let (act, input) = {
            let (who, why) = (Arc::clone(&who), Arc::clone(&why));
            (deed.as_str(), Input::Act(Act { deed, who, why, seen: said.version, answer: Arc::new(answer) }))
        };
        // In a task of its own: whoever hangs up has acted all the same.
        let dispatch = Arc::clone(&self.dispatch);
        let acted = tokio::spawn(async move { dispatch.step(id, &input).await }).await;
        let delivery = acted.map_err(|_| Refusal::from(StoreError("the act broke off".to_owned())))??;
        tracing::info!(delivery = id.0, act, who = &*who, why = &*why, "a person acted");
        let phase = (deed == Deed::Resend).then(|| delivery.phase.as_str());
        Ok(json(StatusCode::OK, &json!({ "id": paper::id(id), "done": act, "phase": phase })))
    }

    async fn transactions(&self, query: &Query) -> Result<Response<Body>, Refusal> {
        query.knows(&["reference"])?;
        let reference = query.get("reference").filter(|reference| !reference.is_empty()).ok_or_else(no_reference)?;
        let now = self.dispatch.clock_now();
        let mut transactions = Vec::new();
        for key in self.dispatch.store.called(reference, TRANSACTIONS).await? {
            let view = self.dispatch.store.load(Want::Transactions(&[key], &[]), now).await?;
            let claims = view.transactions.iter().flat_map(|(_, transaction)| &transaction.claims);
            let known: Vec<_> = claims.map(paper::claim).collect();
            let deliveries: Vec<_> = view.deliveries.iter().map(|delivery| paper::entry(delivery, now)).collect();
            transactions.push(json!({
                "transaction": key.to_string(),
                "money": view.transactions.first().map(|(_, transaction)| transaction.money.stage.as_str()),
                "known": known,
                "deliveries": deliveries,
                "history": self.lines_of(&[key]).await?,
            }));
        }
        Ok(json(StatusCode::OK, &json!({ "reference": cardless(reference), "transactions": transactions })))
    }

    /// All that the store knows, for whoever is on this machine: requests are in it as they came, signatures and all.
    async fn backup(&self, peer: IpAddr) -> Result<Response<Body>, Refusal> {
        if !peer.to_canonical().is_loopback() {
            let error = "a backup holds whole requests, and is not sent over a network";
            return Err(Refusal::new(StatusCode::FORBIDDEN, error, "run `oncegate backup` on the gate's machine"));
        }
        let Some(copy) = self.dispatch.store.copy().await? else {
            let error = "the memory engine keeps nothing that could be copied";
            return Err(Refusal::new(StatusCode::CONFLICT, error, "write `engine = \"embedded\"` under [store]"));
        };
        let (into, pieces) = mpsc::channel(2);
        let dispatch = Arc::clone(&self.dispatch);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            for piece in copy {
                let piece = match piece {
                    // A copy keeps the disk open that the store would open anew.
                    Ok(piece) if dispatch.store.fault().is_none() => piece,
                    Ok(_) => return,
                    Err(error) => return tracing::error!(%error, "the store could not be copied"),
                };
                if !matches!(runtime.block_on(timeout(STALL, into.send(piece))), Ok(Ok(()))) {
                    return;
                }
            }
        });
        let mut response = page::of(StatusCode::OK, "application/octet-stream", String::new());
        *response.body_mut() = Body::Written(pieces);
        Ok(response)
    }

    async fn history(&self, query: &Query) -> Result<Response<Body>, Refusal> {
        query.knows(&["from", "to", "reference", "after", "limit"])?;
        let limit = query.number("limit", LINES, MOST_LINES)?;
        let after = query.number("after", 0, usize::MAX)? as u64;
        if let Some(reference) = query.get("reference") {
            if query.get("from").or(query.get("to")).is_some() {
                return Err(Refusal::bad("a reference and a time are asked for", "ask for one of the two"));
            }
            let keys = self.dispatch.store.called(reference, TRANSACTIONS).await?;
            let mut lines = Vec::new();
            for key in keys {
                lines.extend(self.dispatch.store.history(Lines::Of(key), after, limit).await?);
            }
            lines.sort_by_key(|(number, _)| *number);
            lines.truncate(limit);
            return Ok(flow(Body::Whole(written(&lines).into())));
        }
        let time = |name: &str, otherwise| match query.get(name).map(str::parse::<Timestamp>) {
            None => Ok(otherwise),
            Some(Ok(time)) => Ok(time),
            Some(Err(error)) => Err(Refusal::bad(format!("`{name}`: {error}"), "such as from=2026-03-02T00:00:00Z")),
        };
        let between = Lines::Between(time("from", Timestamp::EPOCH)?, time("to", Timestamp::NEVER)?);
        // The first lines before the answer begins, so that a store that can't be read is told as a failure.
        let first = self.dispatch.store.history(between, after, limit.min(STEP)).await?;
        let (into, pieces) = mpsc::channel(2);
        tokio::spawn(write_on(Arc::clone(&self.dispatch), between, limit, first, into));
        Ok(flow(Body::Written(pieces)))
    }
}

/// Writes line after line, for as long as somebody reads. The last piece is missing where the store fails, which the reader
/// sees by the answer's end.
async fn write_on<S: Store, A: App>(
    dispatch: Arc<Dispatch<S, A>>,
    between: Lines,
    limit: usize,
    mut lines: Vec<(u64, Line)>,
    into: mpsc::Sender<Bytes>,
) {
    let mut left = limit;
    while let Some((number, _)) = lines.last() {
        let (after, asked) = (*number, left.min(STEP));
        left = left.saturating_sub(lines.len());
        if into.send(written(&lines).into()).await.is_err() || left == 0 || lines.len() < asked {
            return;
        }
        match dispatch.store.history(between, after, left.min(STEP)).await {
            Ok(more) => lines = more,
            Err(error) => {
                tracing::error!(%error, "history could not be read to its end");
                let told = json!({ "error": error.to_string() });
                _ = into.send(format!("{told}\n").into()).await;
                return;
            }
        }
    }
}

fn written(lines: &[(u64, Line)]) -> String {
    lines.iter().map(|(number, line)| format!("{}\n", paper::line(*number, line))).collect()
}

const PATHS: [&str; 6] = [
    "GET /api/v1/review",
    "GET /api/v1/review/ID",
    "POST /api/v1/review/ID/resend, settle or discard with {\"reason\", \"who\", \"version\"}",
    "GET /api/v1/transactions?reference=REFERENCE",
    "GET /api/v1/history?from=TIME&to=TIME or ?reference=REFERENCE",
    "GET /api/v1/backup, on the gate's machine: see `oncegate backup`",
];

/// What a path under [`ROOT`] stands for, and by which method it is asked for.
fn asked(path: &str) -> Option<(Asked, Method)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let asked = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("review", None, ..) => Asked::Entries,
        ("review", Some(id), None, _) => Asked::Entry(lease(id)?),
        ("review", Some(id), Some(deed), None) => {
            let deed = Deed::ALL.into_iter().find(|known| known.as_str() == deed)?;
            return Some((Asked::Act(lease(id)?, deed), Method::POST));
        }
        ("transactions", None, ..) => Asked::Transactions,
        ("history", None, ..) => Asked::History,
        ("backup", None, ..) => Asked::Backup,
        _ => return None,
    };
    Some((asked, Method::GET))
}

fn lease(text: &str) -> Option<LeaseId> {
    text.parse().ok().map(LeaseId)
}

/// A place in the list of entries, as `next` names it.
fn place(text: &str) -> Option<(Timestamp, LeaseId)> {
    let (since, id) = text.split_once('-')?;
    Some((Timestamp::from_millis(since.parse().ok()?), lease(id)?))
}

fn no_reference() -> Refusal {
    Refusal::bad("no reference is named", "ask for /api/v1/transactions?reference=REFERENCE")
}

/// The parameters of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: &str) -> Result<Self, Refusal> {
        let decoded = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned)
        };
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        };
        let pairs: Result<_, std::str::Utf8Error> =
            query.split('&').filter(|text| !text.is_empty()).map(pair).collect();
        pairs.map(Self).map_err(|_| Refusal::bad("the query is no UTF-8", "encode it in UTF-8, byte by byte as %XX"))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every parameter is one of these, and there once: a mistyped one would be taken for none.
    fn knows(&self, names: &[&str]) -> Result<(), Refusal> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                let remedy =
                    if names.is_empty() { "there is none".to_owned() } else { format!("known: {}", names.join(", ")) };
                return Err(Refusal::bad(format!("there is no parameter `{name}`"), remedy));
            }
            if self.0[..index].iter().any(|(other, _)| other == name) {
                return Err(Refusal::bad(format!("`{name}` is there twice"), "say it once"));
            }
        }
        Ok(())
    }

    fn number(&self, name: &str, otherwise: usize, most: usize) -> Result<usize, Refusal> {
        match self.get(name).map(str::parse::<usize>) {
            None => Ok(otherwise),
            Some(Ok(number)) if number <= most && (number > 0 || otherwise == 0) => Ok(number),
            Some(_) => {
                Err(Refusal::bad(format!("`{name}` is no number up to {most}"), "write a whole number above zero"))
            }
        }
    }
}

/// What a person says with his act.
struct Said {
    who: String,
    reason: String,
    version: Option<u64>,
}

impl Said {
    async fn read(request: Request<Incoming>) -> Result<Self, Refusal> {
        let remedy = "send {\"reason\": \"…\", \"who\": \"…\", \"version\": N} as application/json";
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(JSON) {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an act is told in JSON", remedy));
        }
        let body = match timeout(BODY_TIME, Limited::new(request.into_body(), BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "an act is a sentence, not a book", remedy));
            }
            Ok(Err(error)) => return Err(Refusal::bad(format!("the body broke off: {error}"), "try again")),
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come", "try again")),
        };
        let said: Value = serde_json::from_slice(&body).map_err(|error| Refusal::bad(error.to_string(), remedy))?;
        let Value::Object(said) = said else { return Err(Refusal::bad("this is no JSON object", remedy)) };
        if let Some(other) = said.keys().find(|key| !matches!(key.as_str(), "reason" | "who" | "version")) {
            return Err(Refusal::bad(format!("an act has no `{other}`"), remedy));
        }
        let text = |name: &str, most: usize| {
            let text = said.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default();
            if text.is_empty() || text.chars().count() > most {
                let error = format!("`{name}` is mandatory: a text of at most {most} characters");
                return Err(Refusal::bad(error, "it stands in history, for whoever asks later"));
            }
            Ok(text.to_owned())
        };
        let version = match said.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(version.as_u64().ok_or_else(|| Refusal::bad("`version` is no version", remedy))?),
        };
        Ok(Self { who: text("who", MOST_WHO)?, reason: text("reason", MOST_WHY)?, version })
    }
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    page::of(status, JSON, format!("{value}\n"))
}

fn flow(body: Body) -> Response<Body> {
    let mut response = page::of(StatusCode::OK, JSON_LINES, String::new());
    *response.body_mut() = body;
    response
}

fn not_allowed(method: &Method) -> Response<Body> {
    let allowed = if *method == Method::GET { "GET, HEAD" } else { method.as_str() };
    let error = json!({ "error": "this method is not possible here", "remedy": format!("use {allowed}") });
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &error);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
