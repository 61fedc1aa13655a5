//! `oncegate explain`: what the gate would decide about recorded requests, and why.
//!
//! It reads and decides with the code of the running gate, over a store of its own, and takes each request to have been
//! accepted by the app before the next one comes.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::recorded::Recorded;
use crate::{
    callback::{Answer, Channel, Event, Signature, State, Step},
    config::Config,
    intake::{
        looking::questions,
        missing::Beginning,
        reading::{Reading, Rulebook, Statement, Whole, refused},
    },
    lookup::{self, Naming},
    provider::{self, PROVIDERS, contract::Provider, inquiry::Asking},
    rule::{Choices, Learn, ProviderChoice, Route, Rule, Rules},
    store::{Store, Want, memory::Memory},
    time::{Clock, SystemClock, Timestamp},
    transaction::{
        arrival::{Arrival, Course, Decided, Decision, Inquired, arrive},
        effect::{Ending, Input, View},
        lock::LeaseId,
        money::Stage,
        policy::{AnswerBy, OnUnknown, Policy, Treatment},
        state::{Phase, StoredRequest},
        transition::apply,
    },
};

/// What `explain` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  oncegate explain paid.http redelivery.http          the second as it comes after the first
  oncegate explain --at 2026-03-02T10:00:00Z paid.http   signatures are checked for this moment
  oncegate explain --format json *.http | jq .decision
  oncegate explain < recorded.http")]
pub struct Args {
    /// Raw HTTP requests, in the order in which they came; standard input where none is named, or for `-`
    #[arg(value_name = "FILE.http", value_hint = clap::ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// The moment at which they came: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// Take them for this provider's, instead of recognising whose they are
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PROVIDERS.iter().map(|known| known.name)))]
    pub provider: Option<String>,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How decisions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// One JSON object a line, one line an event
    Json,
}

/// Explains the requests.
///
/// # Errors
///
/// When the configuration has faults, or standard output can't be written to.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let config = super::load(config)?;
    let provider = args.provider.as_deref().and_then(provider::by_name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let explainer = Explainer::new(config, provider, args.at.unwrap_or_else(|| SystemClock.now()));
    let stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &stdin[..] } else { &args.files };
    let mut well = true;
    for file in files {
        let name = file.display().to_string();
        match read(file).and_then(|raw| Recorded::parse(&raw)) {
            Ok(recorded) => {
                for line in runtime.block_on(explainer.explain(&name, &recorded))? {
                    let told = match args.format {
                        Format::Json => line.to_string(),
                        Format::Human => for_people(&line),
                    };
                    super::print(format!("{told}\n").as_bytes())?;
                }
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                well = false;
            }
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut raw = Vec::new();
        std::io::stdin().read_to_end(&mut raw)?;
        return Ok(raw);
    }
    std::fs::read(file).context("it can't be read")
}

struct Explainer {
    book: Rulebook,
    /// Where no rule takes a request, it is read all the same, so that one sees what a rule would find.
    unruled: Rules,
    provider: Option<&'static Provider>,
    store: Memory,
    at: Timestamp,
    /// What may be asked of the app's own books, which nobody asks here.
    books: Option<lookup::Options>,
}

/// What the gate would do about a callback beside deciding it, and what is known of its payments when the app has it.
#[derive(Debug, Default)]
struct Beside {
    /// What its provider would be asked.
    inquiry: Option<Asking>,
    /// What the app's database would be asked: the query, and with what.
    lookup: Vec<Value>,
    /// Of each event, by what the app's books would confirm it if nobody knew that the app got it.
    confirm: Vec<Vec<&'static str>>,
    /// Payments that would be waited for, by their references, and how long.
    awaited: Vec<(Arc<str>, Duration)>,
    /// The same of what its answer tells to have begun, by the kind of its name.
    awaits: Vec<(String, Duration)>,
    /// The names that would be remembered to belong together.
    links: Vec<String>,
    /// Of each event, where its payment stands by what the app was told.
    stands: Vec<Option<Stage>>,
}

impl Explainer {
    fn new(config: Config, provider: Option<&'static Provider>, at: Timestamp) -> Self {
        let choices = Choices { channel: Some(Channel::Webhook), ..Choices::default() };
        let any = Rule { choices, ..Rule::default() };
        let unruled = Rules::new(vec![any], config.rules.base().clone());
        let keyrings =
            config.providers.iter().map(|options| (options.provider.name, options.keyring.clone())).collect();
        let store = Memory::new(crate::store::memory::Options::default());
        let (apis, books) = (config.apis(), config.lookup);
        let book = Rulebook::new(config.rules, keyrings, config.upstream.url).asking(apis);
        Self { book, unruled, provider, store, at, books }
    }

    async fn explain(&self, file: &str, recorded: &Recorded) -> anyhow::Result<Vec<Value>> {
        let whole = Whole {
            method: &recorded.method,
            uri: &recorded.uri,
            headers: &recorded.headers,
            body: &recorded.body,
            host: &recorded.host,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let ruled = self.book.rules.classify(&whole.head());
        let learn = match &ruled {
            Some(route) => Arc::clone(&route.learn),
            None => self.book.rules.learns(&whole.head()).unwrap_or_default(),
        };
        let passes = ruled.is_none() && self.provider.is_none();
        let Some(mut route) = ruled.or_else(|| self.unruled.classify(&whole.head())) else { return Ok(Vec::new()) };
        if let Some(provider) = self.provider {
            route.provider = ProviderChoice::Named(provider);
        }
        let reading = Reading::of(&route, &whole, &self.book, self.at);
        let awaits = self.awaits(&learn);
        if passes {
            let why = "no rule takes it for a callback: it is passed through";
            let beside = Beside { awaits, ..Beside::default() };
            return Ok(with_beside(lines(file, None, &reading, &[], why), &learn, &beside));
        }
        let before = self.seen(&reading).await?;
        let (decisions, why) = match (route.channel, refused(&reading)) {
            (Channel::Return, _) => (vec![Decision::Returned], "the payer comes back".to_owned()),
            (_, Some((decision, _, why))) => (vec![decision], why.to_owned()),
            (_, None) => {
                let decided = self.decide(&reading, recorded).await?;
                (decided.decisions, decided.why.to_owned())
            }
        };
        let mut beside = Beside { awaits, ..Beside::default() };
        if refused(&reading).is_none() {
            let begun = Beginning::told(&reading, &self.book, &whole);
            let inquiry = reading.question(&route, &self.book);
            beside = Beside {
                lookup: self.looked_up(&reading, &before),
                confirm: self.confirmed(&reading, &before, inquiry.is_some()),
                inquiry,
                awaited: begun.into_iter().map(|begun| (begun.reference, begun.after)).collect(),
                links: if reading.links().is_empty() { Vec::new() } else { reading.locks() },
                stands: stands(&reading, &self.seen(&reading).await?),
                ..beside
            };
        }
        Ok(with_beside(lines(file, Some(&route), &reading, &decisions, &why), &learn, &beside))
    }

    /// What is known of the payments of a callback, and of its names.
    async fn seen(&self, reading: &Reading) -> anyhow::Result<View> {
        let keys: Vec<_> = reading.statements.iter().flatten().map(|s| s.identified.transaction).collect();
        Ok(self.store.load(Want::Transactions(&keys, &reading.claimed.names), self.at).await?)
    }

    fn looked_up(&self, reading: &Reading, view: &View) -> Vec<Value> {
        let books = self.books.as_ref().filter(|books| books.database.is_some() && !reading.policy.shadow);
        let questions = books.map(|books| questions(&books.names, reading, view)).unwrap_or_default();
        let asked = |(_, naming, value): (usize, &Naming, String)| json!({ "from": naming.from.to_string(), "value": value, "to": naming.to.to_string() });
        questions.into_iter().map(asked).collect()
    }

    /// Only that a payment was made shows in the books, and only the first time. What does not say so may, when its provider is
    /// `asked`.
    fn confirmed(&self, reading: &Reading, view: &View, asked: bool) -> Vec<Vec<&'static str>> {
        let by = |statement: &Statement| {
            let Statement { event, identified, policy, .. } = statement;
            let known = view.transaction(identified.transaction).is_some_and(|known| known.money.paid);
            let is_a_payment = match identified.windowed {
                true => asked,
                false => event.state == Some(State::Paid) && event.step != Some(Step::Order),
            };
            let confirms = matches!(policy.on_unknown, OnUnknown::Confirm | OnUnknown::ConfirmElseResend);
            let books = self.books.as_ref().filter(|_| confirms && is_a_payment && !known);
            let booking = |books: &lookup::Options| {
                let booking = books.booked.iter().find(|booking| booking.provider == reading.provider.name)?;
                let database = books.database.is_some() && booking.sql.is_some();
                Some([(database, "lookup.booked"), (books.api.is_some(), "lookup.api")])
            };
            let sources = books.and_then(booking).into_iter().flatten();
            sources.filter_map(|(is_there, name)| is_there.then_some(name)).collect()
        };
        reading.statements.iter().flatten().map(by).collect()
    }

    /// Whose payments are waited for when an answer of the app tells that they have begun.
    fn awaits(&self, learn: &Learn) -> Vec<(String, Duration)> {
        let waited = |(kind, _): (&str, Vec<String>)| {
            let api = self.book.apis.get(kind.strip_prefix("reference:")?)?;
            Some((kind.to_owned(), api.missing_after?))
        };
        learn.list().filter_map(waited).collect()
    }

    /// Decides as the gate does, then lets the app accept what is forwarded.
    async fn decide(&self, reading: &Reading, recorded: &Recorded) -> anyhow::Result<Decided> {
        let keys: Vec<_> = reading.statements.iter().flatten().map(|s| s.identified.transaction).collect();
        let view = self.store.load(Want::Arrival(&keys, &reading.claimed, &reading.bills()), self.at).await?;
        let request = StoredRequest {
            method: recorded.method.clone(),
            uri: recorded.uri.clone(),
            headers: recorded.headers.clone(),
            body: recorded.body.clone().into(),
        };
        let id = LeaseId(self.store.counts().transactions as u64 * 2);
        let arrival = Arrival {
            source: None,
            came: self.at,
            inquired: Inquired::No,
            kept: None,
            id,
            next: LeaseId(id.0 + 1),
            events: reading.arriving(),
            provider: reading.provider.name,
            request: Arc::new(request),
            claimed: reading.claimed.clone(),
        };
        let (decided, transition) = arrive(&view, arrival, self.at);
        if matches!(decided.course, Course::Deliver(_) | Course::Accept(_) | Course::Shadow) {
            self.store.commit(transition, self.at).await?;
            self.accept(id).await?;
        }
        Ok(decided)
    }

    async fn accept(&self, id: LeaseId) -> anyhow::Result<()> {
        let answer = Arc::new(Answer { status: http::StatusCode::OK, content_type: None, body: None });
        loop {
            let view = self.store.load(Want::Delivery(id), self.at).await?;
            let Some(delivery) = view.delivery(id) else { return Ok(()) };
            let input = match delivery.phase {
                Phase::Held { .. } => Input::HoldOver,
                Phase::Queued => Input::Sending,
                _ => Input::Ended { attempt: delivery.attempts, ending: Ending::Accepted(Arc::clone(&answer)) },
            };
            self.store.commit(apply(&view, id, input, self.at)?, self.at).await?;
        }
    }
}

/// One line for each event; one for a return, and for a callback without a readable event.
fn lines(file: &str, route: Option<&Route>, reading: &Reading, decisions: &[Decision], why: &str) -> Vec<Value> {
    let why = match &reading.statements {
        Err(unread) if !why.contains(&unread.0) => format!("{why}; {unread}"),
        _ => why.to_owned(),
    };
    let line = |statement: Option<&Statement>, decision: Option<&Decision>| {
        let policy = statement.map_or(&reading.policy, |statement| &statement.policy);
        let mut line = Map::new();
        line.insert("file".into(), json!(file));
        line.insert("rule".into(), route.map_or(Value::Null, |_| json!(&*policy.rule)));
        line.insert("channel".into(), route.map_or(Value::Null, |route| json!(route.channel.as_str())));
        line.insert("provider".into(), json!(reading.provider.name));
        let event = statement.map(|statement| &statement.event);
        line.extend(event_fields(event, reading));
        line.insert("signature".into(), json!(reading.signature.as_str()));
        line.insert("identity".into(), json!(statement.map(|statement| statement.identified.identity.to_string())));
        line.insert("locks".into(), json!(reading.locks()));
        line.insert("decision".into(), json!(decision.map(|decision| decision.as_str())));
        line.insert("policy".into(), policy_fields(policy));
        line.insert("why".into(), json!(why));
        Value::Object(line)
    };
    match reading.statements.as_deref() {
        Ok([]) | Err(_) => vec![line(None, decisions.first())],
        Ok(statements) => {
            // A callback that is refused as a whole has one decision for all its events.
            let decision = |at: usize| decisions.get(at).or(decisions.first());
            statements.iter().enumerate().map(|(at, statement)| line(Some(statement), decision(at))).collect()
        }
    }
}

/// Where the payment of each event stands by what the app was told.
fn stands(reading: &Reading, view: &View) -> Vec<Option<Stage>> {
    let stage = |statement: &Statement| {
        let known = view.transaction(statement.identified.transaction)?;
        Some(known.money.stage).filter(|stage| *stage != Stage::Nothing)
    };
    reading.statements.iter().flatten().map(stage).collect()
}

/// The lines with what would be learned from the app's answer, by kind of name, with the places where it may stand, and with all
/// that the gate would do beside.
fn with_beside(mut lines: Vec<Value>, learn: &Learn, beside: &Beside) -> Vec<Value> {
    let time = |span: Duration| humantime::format_duration(span).to_string();
    let question = beside.inquiry.as_ref().map(|asking| format!("{}{}", asking.api.url, asking.path));
    let learned: Map<_, _> = learn.list().map(|(kind, places)| (kind.to_owned(), json!(places))).collect();
    let awaits: Map<_, _> = beside.awaits.iter().map(|(kind, after)| (kind.clone(), json!(time(*after)))).collect();
    for (at, line) in lines.iter_mut().enumerate() {
        let awaited = beside.awaited.iter().find(|(reference, _)| line["reference"] == **reference);
        line["missing_after"] = json!(awaited.map(|(_, after)| time(*after)));
        line["inquiry"] = json!(question);
        line["lookup"] = json!(beside.lookup);
        line["confirm"] = json!(beside.confirm.get(at).map_or(&[][..], Vec::as_slice));
        line["links"] = json!(beside.links);
        line["stands"] = json!(beside.stands.get(at).copied().flatten().map(Stage::as_str));
        line["learn"] = Value::Object(learned.clone());
        line["awaits"] = Value::Object(awaits.clone());
    }
    lines
}

fn event_fields(event: Option<&Event>, reading: &Reading) -> Map<String, Value> {
    let aliases = event.map_or(&reading.aliases, |event| &event.aliases);
    let aliases: Map<_, _> = aliases.iter().map(|alias| (alias.kind.to_string(), json!(alias.value))).collect();
    let text = |pick: fn(&Event) -> Option<&String>| json!(event.and_then(pick));
    let fields = [
        ("reference", json!(event.map(|event| &event.reference).or(reading.reference.as_ref()))),
        ("event_id", text(|event| event.event_id.as_ref())),
        ("event_type", text(|event| event.event_type.as_ref())),
        ("state", json!(event.and_then(|event| event.state).map(|state| state.as_str()))),
        ("step", json!(event.and_then(|event| event.step).map(|step| step.as_str()))),
        ("detail", text(|event| event.detail.as_ref())),
        ("amount", text(|event| event.amount.as_ref())),
        ("currency", text(|event| event.currency.as_ref())),
        ("aliases", Value::Object(aliases)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn policy_fields(policy: &Policy) -> Value {
    let time = |span| humantime::format_duration(span).to_string();
    let treatment = |treatment| match treatment {
        Treatment::Forward => "forward",
        Treatment::Ack => "ack",
        Treatment::Refuse => "refuse",
        Treatment::Review => "review",
    };
    json!({
        "hold": time(policy.hold),
        "linger": time(policy.linger),
        "collapse_window": time(policy.collapse_window),
        "trailing": policy.trailing,
        "retention": time(policy.retention),
        "quiet": time(policy.quiet),
        "return_wait": time(policy.return_wait),
        "timeout": time(policy.timeout),
        "answer": match policy.answer { AnswerBy::Upstream => "upstream", AnswerBy::Accept => "accept" },
        "answer_within": policy.patience().filter(|within| *within != Duration::MAX).map(time),
        "success": policy.success.as_ref().map(|success| success.source()),
        "on_unknown": match policy.on_unknown {
            OnUnknown::Resend => json!("resend"),
            OnUnknown::Review => json!("review"),
            OnUnknown::Confirm => json!("confirm"),
            OnUnknown::ConfirmElseResend => json!(["confirm", "resend"]),
        },
        "on_unverified": treatment(policy.on_unverified),
        "on_unrecognised": treatment(policy.on_unrecognised),
        "on_stale": treatment(policy.on_stale),
        "paid_once": policy.paid_once.iter().map(|kind| &**kind).collect::<Vec<_>>(),
        "shadow": policy.shadow,
    })
}

/// The same, a few short lines.
fn for_people(line: &Value) -> String {
    let text = |name: &str| match &line[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => crate::telemetry::escaped(text).into_owned(),
        other => other.to_string(),
    };
    let learned = |(kind, places): (&String, &Value)| {
        let places: Vec<_> = places.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let awaited = line["awaits"][kind].as_str();
        let awaited =
            awaited.map_or_else(String::new, |after| format!("; if nobody calls, it is asked about after {after}"));
        format!("\n  learns {kind} from {}{awaited}", places.join(" or "))
    };
    let words =
        |name: &str| -> Vec<_> { line[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let asked = beside_for_people(line);
    let locks = words("locks");
    let learned: String = line["learn"].as_object().into_iter().flatten().map(learned).collect();
    let once =
        |kind: &str| line["policy"]["paid_once"].as_array().is_some_and(|once| once.iter().any(|one| one == kind));
    let bills = line["aliases"].as_object().into_iter().flatten().filter(|(kind, _)| once(kind));
    let bills: String = bills
        .map(|(kind, name)| {
            format!("\n  paid once: {kind} {}", crate::telemetry::escaped(name.as_str().unwrap_or("-")))
        })
        .collect();
    let signature = match text("signature").as_str() {
        said if said == Signature::Unchecked.as_str() => "signature not checked".to_owned(),
        said => format!("signature {said}"),
    };
    format!(
        "{}: {}, {}\n  {} {} by rule {}, {signature}\n  reference {}, event {} {}, state {}, {} {}\n  identity {}\n  \
         locks {}{bills}\n  hold {}, linger {}, remembered {}{asked}{learned}",
        text("file"),
        text("decision").replace('-', "passed through"),
        text("why"),
        text("provider"),
        text("channel"),
        text("rule"),
        text("reference"),
        text("event_id"),
        text("event_type"),
        text("state"),
        text("amount"),
        text("currency"),
        text("identity"),
        if locks.is_empty() { "-".to_owned() } else { crate::telemetry::escaped(&locks.join(", ")).into_owned() },
        line["policy"]["hold"].as_str().unwrap_or_default(),
        line["policy"]["linger"].as_str().unwrap_or_default(),
        line["policy"]["retention"].as_str().unwrap_or_default(),
    )
}

/// Whom the gate would ask, what it would remember, and where the payment stands; nothing of what is not.
fn beside_for_people(line: &Value) -> String {
    let escaped = |text: &str| crate::telemetry::escaped(text).into_owned();
    let words =
        |name: &str| -> Vec<_> { line[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let mut told = Vec::new();
    if let Some(stage) = line["stands"].as_str() {
        told.push(format!("then its payment stands as {}", stage.replace('_', " ")));
    }
    if let Some(url) = line["inquiry"].as_str() {
        told.push(format!("its provider would be asked first: {}", escaped(url)));
    }
    for query in line["lookup"].as_array().into_iter().flatten() {
        let text = |name: &str| query[name].as_str().map(escaped).unwrap_or_default();
        told.push(format!(
            "the app's database would be asked for its {}, by {} {}",
            text("to"),
            text("from"),
            text("value")
        ));
    }
    let links = words("links");
    if links.len() > 1 {
        told.push(format!("remembered to belong together: {}", escaped(&links.join(", "))));
    }
    if let Some(after) = line["missing_after"].as_str() {
        told.push(format!("if nobody calls again, it is asked about after {after}"));
    }
    let books = words("confirm");
    if !books.is_empty() {
        told.push(format!(
            "if it is paid and the app's answer is lost, its books are asked: {}",
            books.join(", then ")
        ));
    }
    told.iter().map(|line| format!("\n  {line}")).collect()
}
