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
    callback::{Answer, Channel, Event, Signature},
    config::Config,
    intake::reading::{Reading, Rulebook, Statement, Whole, refused},
    provider::{self, PROVIDERS, contract::Provider, inquiry::Asking},
    rule::{Choices, Learn, ProviderChoice, Route, Rule, Rules},
    store::{Store, Want, memory::Memory},
    time::{Clock, SystemClock, Timestamp},
    transaction::{
        arrival::{Arrival, Course, Decided, Decision, Inquired, arrive},
        effect::{Ending, Input},
        lock::LeaseId,
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
/// When the configuration has faults, or a file cannot be read.
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
                    match args.format {
                        Format::Json => println!("{line}"),
                        Format::Human => println!("{}", for_people(&line)),
                    }
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
}

impl Explainer {
    fn new(config: Config, provider: Option<&'static Provider>, at: Timestamp) -> Self {
        let choices = Choices { channel: Some(Channel::Webhook), ..Choices::default() };
        let any = Rule { choices, ..Rule::default() };
        let unruled = Rules::new(vec![any], config.rules.base().clone());
        let keyrings =
            config.providers.iter().map(|options| (options.provider.name, options.keyring.clone())).collect();
        let store = Memory::new(crate::store::memory::Options::default());
        let apis = config.apis();
        let book = Rulebook::new(config.rules, keyrings, config.upstream.url).asking(apis);
        Self { book, unruled, provider, store, at }
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
        if passes {
            let why = "no rule takes it for a callback: it is passed through";
            return Ok(with_learn(lines(file, None, &reading, &[], why), &learn, None));
        }
        let (decisions, why) = match (route.channel, refused(&reading)) {
            (Channel::Return, _) => (vec![Decision::Returned], "the payer comes back".to_owned()),
            (_, Some((decision, _, why))) => (vec![decision], why.to_owned()),
            (_, None) => {
                let decided = self.decide(&reading, recorded).await?;
                (decided.decisions, decided.why.to_owned())
            }
        };
        let question = reading.question(&route, &self.book).filter(|_| refused(&reading).is_none());
        Ok(with_learn(lines(file, Some(&route), &reading, &decisions, &why), &learn, question))
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

/// What would be learned from the app's answer, by kind of name, with the places where it may stand; and what the provider
/// would be asked, whom nobody asks here.
fn with_learn(mut lines: Vec<Value>, learn: &Learn, question: Option<Asking>) -> Vec<Value> {
    let question = question.map(|asking| format!("{}{}", asking.api.url, asking.path));
    lines.iter_mut().for_each(|line| line["inquiry"] = json!(question));
    let learned: Map<_, _> = learn.list().map(|(kind, places)| (kind.to_owned(), json!(places))).collect();
    lines.iter_mut().for_each(|line| line["learn"] = Value::Object(learned.clone()));
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
    let locks: Vec<_> = line["locks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let learned = |(kind, places): (&String, &Value)| {
        let places: Vec<_> = places.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("\n  learns {kind} from {}", places.join(" or "))
    };
    let asked = line["inquiry"].as_str().map_or_else(String::new, |url| {
        format!("\n  its provider would be asked first: {}", crate::telemetry::escaped(url))
    });
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
