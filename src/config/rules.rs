//! Reads the rules: the user's, then the preset's.

use std::{sync::Arc, time::Duration};

use super::{
    keys,
    options::Engine,
    provider::World,
    report::{Effective, Finding, Origin, Report, Source},
    section::{Document, Section, rows},
    setting::{Identity, Problem, Setting, Word},
    tree::{Node, Table},
    windows::Placed,
};
use crate::{
    callback::Channel,
    expression::{Expression, ExpressionError, SUCCESS, WHEN},
    provider::{
        extract::{Dialect, Place},
        generic::GENERIC,
    },
    rule::{Aliases, Choices, Learn, Matcher, ProviderChoice, RULES_MAX, Rule, learn::AnswerPlace, path::Template},
    transaction::policy::{AnswerBy, IdentityBy, OnUnknown, Policy},
};

/// The longest name of a rule: it is a label in every metric.
const NAME_MAX: usize = 64;

/// Reads every `[[rule]]` in the order in which they decide.
pub fn read(documents: &[Document], world: &World<'_>, report: &mut Report) -> Vec<Placed> {
    let rows: Vec<_> = documents.iter().flat_map(|document| rows(document, "rule", report)).collect();
    let dialect = common_dialect(rows.iter().map(|row| row.table));
    let provider = sole_provider(rows.iter().map(|row| row.table));
    let mut rules = Vec::new();
    for row in rows {
        let mut section = Section::single("rule", row.path.clone(), row.source, row.table, report);
        let rule = one(&mut section, row.table, Common { dialect, provider }, world);
        let rule = Rule { place: row.path.as_str().into(), ..rule };
        if rules.len() == RULES_MAX {
            let message = format!("there are more than {RULES_MAX} rules");
            section.fault("name", message, "let one rule match several paths: path = [\"/a\", \"/b\"]");
        }
        rules.push(Placed { origin: row.origin(), path: row.path, rule });
    }
    rules
}

/// What holds where no rule and no provider says anything, as `default.KEY`.
pub fn defaults(base: &Policy) -> Vec<Effective> {
    [
        ("identity", Identity::By(base.identity).show()),
        ("paid_once", base.paid_once.iter().map(ToString::to_string).collect::<Vec<_>>().show()),
        ("lock", base.lock.show()),
        ("hold", base.hold.show()),
        ("linger", base.linger.show()),
        ("collapse_window", base.collapse_window.show()),
        ("trailing", base.trailing.show()),
        ("retention", base.retention.show()),
        ("quiet", base.quiet.show()),
        ("return_wait", base.return_wait.show()),
        ("review_retryable", base.review_retryable.show()),
        ("timeout", base.timeout.show()),
        ("answer", base.answer.show()),
        ("order", base.order.show()),
        ("retry", base.retry.show()),
        ("on_duplicate", base.on_duplicate.show()),
        ("on_unknown", base.on_unknown.show()),
        ("on_unverified", base.on_unverified.show()),
        ("on_unrecognised", base.on_unrecognised.show()),
        ("on_stale", base.on_stale.show()),
        ("on_repeat_return", base.on_repeat_return.show()),
        ("shadow", base.shadow.show()),
    ]
    .into_iter()
    .map(|(key, value)| {
        let origin = Origin { source: Source::Sample, line: None };
        Effective { path: format!("default.{key}"), value, origin }
    })
    .collect()
}

/// Paths are normalised before rules decide, so the dialect of a path is the rule's own, or that of the first rule
/// that applies to everything.
fn common_dialect<'t>(rules: impl Iterator<Item = &'t Table>) -> Dialect {
    rules
        .filter(|table| keys::CONDITIONS.iter().all(|condition| !table.contains_key(*condition)))
        .find_map(|table| Dialect::read(table.get("dialect")?).ok())
        .unwrap_or_default()
}

/// The one provider that the rules name; generic where they name none, or several.
fn sole_provider<'t>(rules: impl Iterator<Item = &'t Table>) -> &'t str {
    let mut named = rules.filter_map(|table| table.get("provider")?.as_text()).filter(|name| *name != "auto");
    match named.next() {
        Some(first) if named.all(|other| other == first) => first,
        _ => GENERIC.name,
    }
}

/// What follows from all rules together.
#[derive(Clone, Copy)]
struct Common<'t> {
    dialect: Dialect,
    provider: &'t str,
}

fn one(section: &mut Section<'_>, table: &Table, common: Common<'_>, world: &World<'_>) -> Rule {
    let name = section.find_with("name", name).map(Arc::from);
    let choices = choices(section, table, common.provider, world);
    let matcher = matcher(section, choices.dialect.unwrap_or(common.dialect));
    check_together(section, &matcher, &choices);
    Rule { name, matcher, choices, ..Rule::default() }
}

fn name(node: &Node) -> Result<String, Problem> {
    let name = String::read(node)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        let remedy = format!("write at most {NAME_MAX} letters, digits, -, _ and .");
        return Err(Problem::new(format!("{name:?} is no name for a label"), remedy));
    }
    Ok(name)
}

fn matcher(section: &mut Section<'_>, dialect: Dialect) -> Matcher {
    let mut matcher = Matcher {
        methods: section.find_with("method", some).unwrap_or_default(),
        paths: section.find_with("path", |node| templates(node, dialect)).unwrap_or_default(),
        hosts: section.find_with("host", some).unwrap_or_default(),
        headers: section.find_with("header", some).unwrap_or_default(),
        sources: section.find_with("source", some).unwrap_or_default(),
        when: section.find_with("when", |node| expression(node, WHEN)),
    };
    matcher.sources.iter_mut().for_each(|network| *network = network.trunc());
    matcher
}

/// An empty list would match nothing, or everything: nobody can tell what was meant.
fn some<T: Setting>(node: &Node) -> Result<Vec<T>, Problem> {
    match Vec::read(node)? {
        list if list.is_empty() => {
            Err(Problem::new("an empty list says nothing", "write a value, or leave the key out"))
        }
        list => Ok(list),
    }
}

fn templates(node: &Node, dialect: Dialect) -> Result<Vec<Template>, Problem> {
    some::<String>(node)?
        .iter()
        .map(|text| {
            Template::parse(text, dialect)
                .map_err(|why| Problem::new(format!("{text:?} is no path: {why}"), "write \"/webhook/{shop}\""))
        })
        .collect()
}

fn expression(node: &Node, allowed: &[&str]) -> Result<Arc<Expression>, Problem> {
    let source = String::read(node)?;
    Expression::compile(&source, allowed).map(Arc::new).map_err(|error| {
        let remedy = match &error {
            ExpressionError::Long => "let several rules say it".to_owned(),
            ExpressionError::Syntax(_) => "see https://cel.dev for the language".to_owned(),
            ExpressionError::Unknown { known, .. } => format!("known, nearest first: {}", known.join(", ")),
        };
        Problem::new(error.to_string(), remedy)
    })
}

fn choices(section: &mut Section<'_>, table: &Table, sole: &str, world: &World<'_>) -> Choices {
    let (identity, identity_places) = match section.find("identity") {
        Some(Identity::By(by)) => (Some(by), None),
        Some(Identity::Places(places)) => (Some(IdentityBy::Places), Some(places)),
        None => (None, None),
    };
    let (answer, answer_within) = answers(section);
    Choices {
        answer,
        answer_within,
        channel: section.find("channel"),
        provider: section.find_with("provider", |node| provider(node, world)),
        reference: section.find_with("reference", some),
        event_id: section.find_with("event_id", some),
        state: section.find_with("state", some),
        amount: section.find_with("amount", some),
        currency: section.find_with("currency", some),
        aliases: aliases(section, table),
        learn: learn(section, table, sole, world),
        dialect: section.find("dialect"),
        scope_host: section.find_with("scope", scope),
        identity,
        identity_places,
        signature_required: section.find::<SignatureRule>("signature").map(|rule| rule == SignatureRule::Required),
        paid_once: section.find_with("paid_once", kinds),
        lock: section.find("lock"),
        hold: section.find("hold"),
        linger: section.find("linger"),
        collapse_window: section.find("collapse_window"),
        trailing: section.find("trailing"),
        retention: section.find_with("retention", positive),
        quiet: section.find("quiet"),
        return_wait: section.find("return_wait"),
        review_retryable: section.find("review_retryable"),
        timeout: section.find_with("timeout", positive),
        success: section.find_with("success", |node| expression(node, SUCCESS)),
        order: section.find("order"),
        retry: section.find("retry"),
        on_duplicate: section.find("on_duplicate"),
        on_unknown: section.find("on_unknown"),
        on_unverified: section.find("on_unverified"),
        on_unrecognised: section.find("on_unrecognised"),
        on_stale: section.find("on_stale"),
        on_repeat_return: section.find("on_repeat_return"),
        shadow: section.find("shadow"),
    }
}

/// None is a choice too: then nothing is paid once.
fn kinds(node: &Node) -> Result<Arc<[Arc<str>]>, Problem> {
    Ok(Vec::<String>::read(node)?.into_iter().map(Arc::from).collect())
}

fn positive(node: &Node) -> Result<Duration, Problem> {
    match Duration::read(node)? {
        Duration::ZERO => Err(Problem::new("zero is no time here", "write a longer time, or leave the key out")),
        time => Ok(time),
    }
}

/// The ways of answering that need an engine which survives us are looked at when it is known which one there is.
fn answers(section: &mut Section<'_>) -> (Option<AnswerBy>, Option<Duration>) {
    (section.find("answer"), section.find_with("answer_within", positive))
}

/// Of what can't be confirmed, for there is nobody to ask; a preset's rules are for who names a database and for who does not.
pub fn check_books(rules: &[Placed], report: &mut Report) {
    let own = |placed: &&Placed| !matches!(placed.origin.source, Source::Preset(_));
    let confirms = |placed: &&Placed| placed.rule.choices.on_unknown.is_some_and(OnUnknown::confirms);
    for placed in rules.iter().filter(own).filter(confirms) {
        let (origin, path) = placed.key("on_unknown", report);
        let message = "there is nobody to ask whether a payment was booked".to_owned();
        let remedy =
            "name the app's database and a query (lookup.url, lookup.booked), or write \"resend\" or \"review\"";
        report.warnings.push(Finding { origin, path, message, remedy: remedy.to_owned() });
    }
}

/// What the memory engine can't promise.
pub fn check_engine(rules: &[Placed], engine: &Engine, report: &mut Report) {
    if *engine != Engine::Memory {
        return;
    }
    for placed in rules {
        let choices = &placed.rule.choices;
        let accepts = choices.answer == Some(AnswerBy::Accept);
        let keys = [
            ("answer", accepts, "write \"upstream\", or engine = \"embedded\" under [store]"),
            (
                "answer_within",
                choices.answer_within.is_some(),
                "leave it out, or write engine = \"embedded\" under [store]",
            ),
        ];
        for (key, _, remedy) in keys.into_iter().filter(|(_, set, _)| *set) {
            let (origin, path) = placed.key(key, report);
            let message = "the memory engine forgets what it has acknowledged when the process ends".to_owned();
            report.faults.push(Finding { origin, path, message, remedy: remedy.to_owned() });
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum SignatureRule {
    Optional,
    Required,
}

impl Word for SignatureRule {
    const WORDS: &'static [(&'static str, Self)] = &[("optional", Self::Optional), ("required", Self::Required)];
}

fn provider(node: &Node, world: &World<'_>) -> Result<ProviderChoice, Problem> {
    match String::read(node)?.as_str() {
        "auto" => Ok(ProviderChoice::Auto),
        name => world.provider(name).map(ProviderChoice::Named),
    }
}

/// Upstream and named segments are always in the scope; the host can be.
fn scope(node: &Node) -> Result<bool, Problem> {
    let parts = Vec::<String>::read(node)?;
    match parts.iter().find(|part| *part != "host") {
        Some(other) => Err(Problem::new(format!("the scope has no {other:?}"), "write [\"host\"], or []")),
        None => Ok(!parts.is_empty()),
    }
}

fn aliases(section: &mut Section<'_>, table: &Table) -> Aliases {
    if !table.contains_key("aliases") {
        return Aliases::new();
    }
    let form = "write aliases.NAME = [\"query:NAME\"]";
    let named = section.find_with("aliases", |node| {
        let alias = |(kind, node)| Ok((Arc::from(kind), places(kind, some(node))?));
        named(node, form)?.into_iter().map(alias).collect()
    });
    named.unwrap_or_default()
}

/// The entries of a table whose keys are names.
fn named<'n>(node: &'n Node, form: &str) -> Result<Vec<(&'n str, &'n Node)>, Problem> {
    let table = node.as_table().ok_or_else(|| Problem::new(format!("{} stands here", node.kind()), form))?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match table.keys().find(|kind| kind.is_empty() || !kind.bytes().all(fits)) {
        Some(kind) => Err(Problem::new(format!("{kind:?} is no name"), "write letters, digits, - and _")),
        None => Ok(table.iter().map(|(kind, node)| (kind.as_str(), node)).collect()),
    }
}

/// A problem in a table of names tells which.
fn places<T>(kind: &str, read: Result<T, Problem>) -> Result<T, Problem> {
    read.map_err(|problem| Problem::new(format!("{kind}: {}", problem.message), problem.remedy))
}

/// `learn.NAME = places` in the app's answer; `learn.reference.PROVIDER` for a provider's id of the payment, or
/// `learn.reference` for that of the `sole` one.
fn learn(section: &mut Section<'_>, table: &Table, sole: &str, world: &World<'_>) -> Learn {
    if !table.contains_key("learn") {
        return Learn::default();
    }
    let form = "write learn.NAME = [\"location:NAME\"], or learn.reference.PROVIDER";
    let learned = section.find_with("learn", |node| {
        let mut learn = Learn::default();
        for (kind, node) in named(node, form)? {
            if kind != "reference" {
                learned(&mut learn, kind, node)?;
            } else if node.as_table().is_none() {
                let sole = world.provider(sole).map_or(GENERIC.name, |provider| provider.name);
                learned(&mut learn, &format!("reference:{sole}"), node)?;
            } else {
                for (name, node) in named(node, form)? {
                    learned(&mut learn, &format!("reference:{}", world.provider(name)?.name), node)?;
                }
            }
        }
        Ok(learn)
    });
    learned.unwrap_or_default()
}

fn learned(learn: &mut Learn, kind: &str, node: &Node) -> Result<(), Problem> {
    // An empty list says that nothing is learned here, whatever a later rule says.
    let places: Vec<AnswerPlace> = places(kind, Vec::read(node))?;
    let cookie = |place: &AnswerPlace| match place {
        AnswerPlace::SetCookie(name) => Some(Arc::clone(name)),
        _ => None,
    };
    let cookies: Vec<_> = places.iter().filter_map(cookie).collect();
    match cookies.len() {
        0 => learn.names.push((Arc::from(kind), places)),
        all if all == places.len() => learn.sessions.push((Arc::from(kind), cookies)),
        _ => {
            let message = format!("{kind}: a cookie is a session, and no other place is");
            return Err(Problem::new(message, "give the session a name of its own"));
        }
    }
    Ok(())
}

/// What each key cannot say alone.
fn check_together(section: &mut Section<'_>, matcher: &Matcher, choices: &Choices) {
    if matcher.reads_event() {
        for key in choices.keys_that_read() {
            section.fault(
                key,
                "`when` reads the event, so this cannot decide how the event is read",
                "take it to a rule whose `when` reads only the request",
            );
        }
    }
    if matcher.is_empty() && choices.make_a_callback() {
        section.warn("channel", "this rule takes every request for a callback: pages, uploads, all", "add a `path`");
    }
    check_path_places(section, matcher, choices);
    check_lessons(section, matcher, choices);
}

/// What is learned has to be tied to what the payer comes back with.
fn check_lessons(section: &mut Section<'_>, matcher: &Matcher, choices: &Choices) {
    let learn = &choices.learn;
    let of_webhooks = choices.make_a_callback() && choices.channel != Some(Channel::Return);
    if of_webhooks && !learn.is_empty() {
        let message = "nothing is learned from the answer to a webhook: no payer comes back with it";
        section.warn("learn", message, "take it to the rule of the page that sends the payer to the provider");
    } else if matcher.is_empty() && !learn.is_empty() {
        section.warn("learn", "this rule looks at every answer of the app: pages, files, all", "add a `path`");
    } else if !learn.names.is_empty() && learn.sessions.is_empty() && choices.aliases.is_empty() {
        let message = "what is learned here is tied to nothing that a payer comes back with";
        section.warn("learn", message, "add learn.session = \"set-cookie:NAME\", with the app's session cookie");
    }
}

/// A place in the path must be a segment of the rule's own templates, where it has any.
fn check_path_places(section: &mut Section<'_>, matcher: &Matcher, choices: &Choices) {
    if matcher.paths.is_empty() {
        return;
    }
    let keys = [
        ("reference", &choices.reference),
        ("event_id", &choices.event_id),
        ("state", &choices.state),
        ("amount", &choices.amount),
        ("currency", &choices.currency),
        ("identity", &choices.identity_places),
    ];
    let listed = keys.into_iter().flat_map(|(key, places)| places.iter().flatten().map(move |place| (key, place)));
    let named = choices.aliases.iter().flat_map(|(_, places)| places.iter().map(|place| ("aliases", place)));
    for (key, place) in listed.chain(named) {
        if let Place::Path(name) = place
            && !matcher.paths.iter().any(|template| template.names().any(|known| known == name))
        {
            let message = format!("no path of this rule has a segment {{{name}}}");
            section.fault(key, message, "name the segment in `path`");
        }
    }
}
