//! A CEL expression of the configuration, compiled once: `when` over a request and its event, `success` over an answer.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators},
    objects::{Key, Map},
};
use http::{HeaderMap, Method};

use crate::callback::{Event, Signature};

/// The variables that a `when` may read.
pub const WHEN: &[&str] = &["request", "event"];
/// The variables that a `success` may read.
pub const SUCCESS: &[&str] = &["status", "content_type", "body", "json"];

/// Longer texts are refused: an expression is walked by recursion, and its depth is bounded by its length.
pub const LENGTH_MAX: usize = 1024;
/// Brackets inside brackets; the library's own bound comes after its recursion.
const NESTING_MAX: usize = 24;

const REQUEST_FIELDS: &[&str] = &["method", "path", "host", "query", "headers", "source"];
const EVENT_FIELDS: &[&str] = &[
    "provider",
    "reference",
    "event_id",
    "event_type",
    "state",
    "detail",
    "amount",
    "currency",
    "aliases",
    "signature",
];

/// What an expression may call; operators and macros aside.
const FUNCTIONS: &[&str] =
    &["bool", "bytes", "contains", "double", "endsWith", "int", "matches", "size", "startsWith", "string", "uint"];

/// Building the standard library costs more than most evaluations, so it is built once.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled CEL expression with its source text.
pub struct Expression {
    source: String,
    program: Program,
    roots: BTreeSet<String>,
}

/// Why a text is no expression for its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is longer than [`LENGTH_MAX`], or its brackets stand too deep in one another.
    #[error("is longer than {LENGTH_MAX} bytes, or nested deeper than {NESTING_MAX}")]
    Long,
    /// It is no CEL.
    #[error("is no CEL expression: {0}")]
    Syntax(String),
    /// It reads something that is not there.
    #[error("there is no `{name}` here")]
    Unknown {
        /// What it reads.
        name: String,
        /// What it could read instead, nearest first.
        known: Vec<String>,
    },
}

/// Why an expression has no answer for one request, event or answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It failed: a comparison with null, a missing header.
    #[error("{0}")]
    Failed(String),
    /// It came to something other than true or false.
    #[error("came to {0} instead of true or false")]
    NotBool(String),
}

/// What a `when` sees of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// `request.method`
    pub method: &'a Method,
    /// `request.path`: the normalised path.
    pub path: &'a str,
    /// `request.host`
    pub host: &'a str,
    /// `request.query`: a map; of a name that stands there twice, the last value.
    pub query: &'a str,
    /// `request.headers`: a map with lower-case names; several fields of one name are joined by a comma.
    pub headers: &'a HeaderMap,
    /// `request.source`
    pub source: IpAddr,
}

/// What a `when` sees of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    /// The event; amounts are seen as numbers, and what is absent as null.
    pub event: &'a Event,
    /// `event.provider`: who was taken to have sent it.
    pub provider: &'a str,
    /// `event.signature`
    pub signature: Signature,
}

impl Expression {
    /// Compiles an expression that may read the variables `allowed`.
    ///
    /// # Errors
    ///
    /// When the text is no CEL, or reads a variable, a field or a function that does not exist.
    pub fn compile(source: &str, allowed: &[&str]) -> Result<Self, ExpressionError> {
        if source.len() > LENGTH_MAX || nesting(source) > NESTING_MAX {
            return Err(ExpressionError::Long);
        }
        let program = ENVIRONMENT.compile(source).map_err(|errors| syntax(&errors))?;
        let mut reading = Reading { allowed, roots: BTreeSet::new() };
        reading.walk(program.expression(), &mut Vec::new())?;
        let roots = reading.roots;
        Ok(Self { source: source.to_owned(), program, roots })
    }

    /// The text as written in the configuration.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it reads the variable `root`.
    #[must_use]
    pub fn reads(&self, root: &str) -> bool {
        self.roots.contains(root)
    }

    /// The provider of every event for which this is true, where it says so outright: `event.provider == 'NAME'`, alone or
    /// beside something else by `&&`.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        provider_of(self.program.expression())
    }

    /// Whether a rule with this `when` matches.
    ///
    /// # Errors
    ///
    /// When the expression fails or comes to no truth value; such a rule does not match.
    pub fn eval_when(
        &self,
        request: &RequestFacts<'_>,
        event: Option<&EventFacts<'_>>,
    ) -> Result<bool, EvaluationError> {
        let mut context = context();
        if self.reads("request") {
            context.add_variable_from_value("request", request_value(request));
        }
        if self.reads("event") {
            context.add_variable_from_value("event", event.map_or(Value::Null, event_value));
        }
        self.truth(&context)
    }

    /// Whether an answer of the app is a success.
    ///
    /// # Errors
    ///
    /// When the expression fails or comes to no truth value.
    pub fn eval_success(&self, status: u16, content_type: Option<&str>, body: &[u8]) -> Result<bool, EvaluationError> {
        let mut context = context();
        context.add_variable_from_value("status", Value::Int(i64::from(status)));
        context.add_variable_from_value("content_type", text(content_type.unwrap_or_default()));
        if self.reads("body") {
            context.add_variable_from_value("body", text(&String::from_utf8_lossy(body)));
        }
        if self.reads("json") {
            let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
            context.add_variable_from_value("json", json_value(&json));
        }
        self.truth(&context)
    }

    fn truth(&self, context: &Context<'_, '_>) -> Result<bool, EvaluationError> {
        match self.program.execute(context) {
            Ok(Value::Bool(truth)) => Ok(truth),
            Ok(other) => Err(EvaluationError::NotBool(other.type_of().to_string())),
            Err(error) => Err(EvaluationError::Failed(error.to_string())),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn context<'p, 'v>() -> Context<'p, 'v> {
    Context::with_env(Arc::clone(&ENVIRONMENT))
}

fn provider_of(node: &IdedExpr) -> Option<&str> {
    let Expr::Call(call) = &node.expr else { return None };
    let [left, right] = &call.args[..] else { return None };
    match call.func_name.as_str() {
        operators::LOGICAL_AND => provider_of(left).or_else(|| provider_of(right)),
        operators::EQUALS if is_provider(left) => literal(right),
        operators::EQUALS if is_provider(right) => literal(left),
        _ => None,
    }
}

fn is_provider(node: &IdedExpr) -> bool {
    let Expr::Select(select) = &node.expr else { return false };
    select.field == "provider" && matches!(&select.operand.expr, Expr::Ident(root) if root == "event")
}

fn literal(node: &IdedExpr) -> Option<&str> {
    if let Expr::Literal(LiteralValue::String(text)) = &node.expr { Some(text.inner()) } else { None }
}

/// How deep brackets stand in one another; those in strings count as well, and nobody writes so many.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The first complaint in one line, without the picture of the source that the library draws under it.
fn syntax(errors: &cel::ParseErrors) -> ExpressionError {
    let first = errors.errors.first().map_or_else(String::new, |e| format!("{} (column {})", e.msg, e.pos.1));
    ExpressionError::Syntax(first)
}

/// Collects what an expression reads, and refuses what it cannot read.
struct Reading<'a> {
    allowed: &'a [&'a str],
    roots: BTreeSet<String>,
}

impl Reading<'_> {
    /// `bound` holds the variables of the comprehensions around this node.
    fn walk(&mut self, node: &IdedExpr, bound: &mut Vec<String>) -> Result<(), ExpressionError> {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name, bound),
            Expr::Select(select) => {
                if let Expr::Ident(root) = &select.operand.expr
                    && !bound.contains(root)
                {
                    field(root, &select.field)?;
                }
                self.walk(&select.operand, bound)
            }
            Expr::Call(call) => {
                function(&call.func_name)?;
                call.target.iter().map(|t| &**t).chain(&call.args).try_for_each(|arg| self.walk(arg, bound))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.walk(element, bound)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr), bound),
            Expr::Struct(value) => self.entries(value.entries.iter().map(|e| &e.expr), bound),
            Expr::Comprehension(all) => {
                self.walk(&all.iter_range, bound)?;
                self.walk(&all.accu_init, bound)?;
                let before = bound.len();
                bound.extend([all.iter_var.clone(), all.accu_var.clone()]);
                bound.extend(all.iter_var2.clone());
                let inner =
                    [&all.loop_cond, &all.loop_step, &all.result].into_iter().try_for_each(|n| self.walk(n, bound));
                bound.truncate(before);
                inner
            }
        }
    }

    fn variable(&mut self, name: &str, bound: &[String]) -> Result<(), ExpressionError> {
        if bound.iter().any(|b| b == name) || name.starts_with('@') {
            return Ok(());
        }
        if !self.allowed.contains(&name) {
            return Err(unknown(name.to_owned(), name, self.allowed));
        }
        self.roots.insert(name.to_owned());
        Ok(())
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        bound: &mut Vec<String>,
    ) -> Result<(), ExpressionError> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.walk(&field.value, bound)?,
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, bound)?;
                    self.walk(&entry.value, bound)?;
                }
            }
        }
        Ok(())
    }
}

fn field(root: &str, field: &str) -> Result<(), ExpressionError> {
    let known = match root {
        "request" => REQUEST_FIELDS,
        "event" => EVENT_FIELDS,
        _ => return Ok(()),
    };
    if known.contains(&field) { Ok(()) } else { Err(unknown(format!("{root}.{field}"), field, known)) }
}

fn function(name: &str) -> Result<(), ExpressionError> {
    let operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if operator || FUNCTIONS.contains(&name) { Ok(()) } else { Err(unknown(format!("{name}()"), name, FUNCTIONS)) }
}

fn unknown(full: String, name: &str, known: &[&str]) -> ExpressionError {
    let mut known: Vec<String> = known.iter().map(|&k| k.to_owned()).collect();
    known.sort_by_key(|k| strsim::damerau_levenshtein(k, name));
    ExpressionError::Unknown { name: full, known }
}

fn request_value(request: &RequestFacts<'_>) -> Value {
    map([
        ("method", text(request.method.as_str())),
        ("path", text(request.path)),
        ("host", text(request.host)),
        ("query", query_value(request.query)),
        ("headers", headers_value(request.headers)),
        ("source", text(&request.source.to_string())),
    ])
}

fn event_value(facts: &EventFacts<'_>) -> Value {
    let event = facts.event;
    let maybe = |value: Option<&str>| value.map_or(Value::Null, text);
    let amount = event.amount.as_deref().and_then(|a| a.parse().ok()).map_or(Value::Null, Value::Float);
    map([
        ("provider", text(facts.provider)),
        ("reference", text(&event.reference)),
        ("event_id", maybe(event.event_id.as_deref())),
        ("event_type", maybe(event.event_type.as_deref())),
        ("state", maybe(event.state.map(crate::callback::State::as_str))),
        ("detail", maybe(event.detail.as_deref())),
        ("amount", amount),
        ("currency", maybe(event.currency.as_deref())),
        ("aliases", map(event.aliases.iter().map(|a| (&*a.kind, text(&a.value))))),
        ("signature", text(facts.signature.as_str())),
    ])
}

fn headers_value(headers: &HeaderMap) -> Value {
    map(headers.keys().map(|name| {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        (name.as_str(), text(&values.join(", ")))
    }))
}

fn query_value(query: &str) -> Value {
    let decoded = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), text(&decoded(value)))
    });
    map(pairs)
}

fn json_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => number.as_f64().map_or(Value::Null, Value::Float),
        },
        serde_json::Value::String(string) => text(string),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(json_value).collect())),
        serde_json::Value::Object(fields) => map(fields.iter().map(|(name, value)| (name, json_value(value)))),
    }
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let map: HashMap<Key, Value> =
        entries.into_iter().map(|(name, value)| (Key::String(Arc::new(name.into())), value)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::callback::{Alias, State};

    fn event() -> Event {
        Event {
            reference: "tr_1".into(),
            amount: Some("10000.00".into()),
            currency: Some("EUR".into()),
            state: Some(State::Paid),
            aliases: vec![Alias { kind: "payment_hash".into(), value: "abc".into() }],
            ..Event::default()
        }
    }

    fn when(source: &str, event: Option<&Event>) -> Result<bool, EvaluationError> {
        let headers = HeaderMap::from_iter([(http::header::USER_AGENT, http::HeaderValue::from_static("Mollie"))]);
        let request = RequestFacts {
            method: &Method::POST,
            path: "/webhook",
            host: "pay.example.org",
            query: "a=1&b=x+%C3%A9",
            headers: &headers,
            source: Ipv4Addr::LOCALHOST.into(),
        };
        let facts = event.map(|event| EventFacts { event, provider: "mollie", signature: Signature::Unchecked });
        Expression::compile(source, WHEN).expect(source).eval_when(&request, facts.as_ref())
    }

    #[test]
    fn a_when_reads_the_event_and_the_request() {
        let event = event();
        for truth in [
            "event.amount >= 10000.00 && event.currency == 'EUR'",
            "event.amount > 9999",
            "event.state == 'paid' && event.provider == 'mollie' && event.signature == 'unchecked'",
            "event.event_id == null",
            "event.aliases.payment_hash == 'abc'",
            "event.reference.startsWith('tr_') && event.reference.matches('^tr_[0-9]+$')",
            "request.method == 'POST' && request.path == '/webhook' && request.source == '127.0.0.1'",
            "request.headers['user-agent'] == 'Mollie' && request.query.b == 'x é'",
            "request.host.endsWith('.example.org')",
            "request.headers.exists(h, h == 'user-agent')",
            "event.currency in ['EUR', 'USD']",
            "has(request.query.a) && !has(request.query.c)",
        ] {
            assert_eq!(when(truth, Some(&event)), Ok(true), "{truth}");
        }
        assert_eq!(when("event.amount > 10000.00", Some(&event)), Ok(false));
    }

    #[test]
    fn what_is_absent_is_null_and_a_comparison_with_it_fails() {
        let nothing = Event::default();
        assert!(when("event.amount >= 1.0", Some(&nothing)).is_err());
        assert_eq!(when("event.currency == 'EUR'", Some(&nothing)), Ok(false));
        assert!(when("event.amount >= 1.0", None).is_err());
        assert!(when("request.headers['x-none'] == ''", None).is_err());
        assert_eq!(when("request.method", None), Err(EvaluationError::NotBool("string".into())));
    }

    #[test]
    fn what_has_no_answer_fails_and_does_not_panic() {
        for source in [
            "Foo{a: 1}.a == 1",
            "{1: 2}.a == 1",
            "[1][5] == 1",
            "1/0 == 1",
            "1%0 == 1",
            "request.path[0] == 'x'",
            "-9223372036854775807 - 2 == 1",
            "int('x') == 1",
            "request.path.matches('(')",
            "request.headers[event] == 'x'",
            "event.aliases.none == 'x'",
            "request.path.map(p, p) == []",
        ] {
            if let Ok(expression) = Expression::compile(source, WHEN) {
                drop(expression);
                assert!(when(source, Some(&event())).is_err(), "{source}");
            }
        }
    }

    #[test]
    fn an_expression_knows_what_it_reads() {
        let both = Expression::compile("event.amount > 1.0 && request.method == 'POST'", WHEN).unwrap();
        assert!(both.reads("event") && both.reads("request"));
        let one = Expression::compile("request.headers.exists(event, event == 'x')", WHEN).unwrap();
        assert!(!one.reads("event"), "a bound variable is no root");
    }

    #[test]
    fn an_expression_tells_for_whose_events_alone_it_is_true() {
        let told = |source: &str| Expression::compile(source, WHEN).unwrap().provider().map(ToOwned::to_owned);
        for source in [
            "event.provider == 'stripe'",
            "'stripe' == event.provider",
            "event.amount > 1.0 && (event.state == 'paid' && event.provider == 'stripe')",
        ] {
            assert_eq!(told(source).as_deref(), Some("stripe"), "{source}");
        }
        for source in [
            "event.provider != 'stripe'",
            "event.provider == 'stripe' || event.state == 'paid'",
            "!(event.provider == 'stripe')",
            "event.reference == 'stripe'",
            "request.host == 'stripe'",
            "event.provider == event.reference",
            "[event].exists(event, event.provider == 'stripe')",
        ] {
            assert_eq!(told(source), None, "{source}");
        }
    }

    #[test]
    fn what_does_not_exist_is_refused_with_the_nearest_name() {
        for (source, wrong, right) in [
            ("evnt.amount > 1.0", "evnt", "event"),
            ("event.amout > 1.0", "event.amout", "amount"),
            ("request.methd == 'GET'", "request.methd", "method"),
            ("request.path.startWith('/x')", "startWith()", "startsWith"),
        ] {
            match Expression::compile(source, WHEN) {
                Err(ExpressionError::Unknown { name, known }) => {
                    assert_eq!((&*name, &*known[0]), (wrong, right), "{source}");
                }
                other => panic!("{source}: {other:?}"),
            }
        }
        assert!(matches!(Expression::compile("event.amount >=", WHEN), Err(ExpressionError::Syntax(_))));
        assert!(Expression::compile("event.amount > 1.0", SUCCESS).is_err());
    }

    #[test]
    fn a_success_reads_the_answer() {
        let success = |source: &str, body: &str| {
            Expression::compile(source, SUCCESS).expect(source).eval_success(
                200,
                Some("application/json"),
                body.as_bytes(),
            )
        };
        assert_eq!(success("status == 200 && body == '[]'", "[]"), Ok(true));
        assert_eq!(success("json.result == 'ok' && json.n[1] == 2", r#"{"result":"ok","n":[1,2]}"#), Ok(true));
        assert_eq!(success("json == null", "<html>"), Ok(true));
        assert_eq!(success("content_type.startsWith('text/')", ""), Ok(false));
        let failed_payment = "status < 300 && !(body.startsWith('{') && has(json.code) && has(json.message))";
        assert_eq!(success(failed_payment, r#"{"message":"declined","code":400}"#), Ok(false));
        assert_eq!(success(failed_payment, "[]"), Ok(true));
    }

    const PARTS: &[&str] = &[
        "event.amount",
        "event.reference",
        "event.aliases",
        "request.headers",
        "request.path",
        "event",
        "null",
        "1",
        "0.5",
        "'x'",
        "[1]",
        "{'a': 1}",
        "-",
        "!",
        "+",
        "/",
        "%",
        "==",
        "<",
        "in",
        "&&",
        "||",
        "?",
        ":",
        ".a",
        "[0]",
        ".size()",
        ".matches('x')",
        ".contains('x')",
        ".all(x, x == 1)",
        "int(1.5)",
        "9223372036854775807",
        "{1: 2}",
        "A{b: 1}",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_makes_the_compiler_panic(source in "[a-z0-9.'\"()\\[\\]{}<>=!&|?: +*/%\\\\-]{0,40}") {
            let _ = Expression::compile(&source, WHEN);
        }

        #[test]
        fn no_expression_panics_when_it_runs(parts in prop::collection::vec(prop::sample::select(PARTS), 1..8)) {
            let source = parts.join(" ");
            if Expression::compile(&source, WHEN).is_ok() {
                let _ = when(&source, Some(&event()));
            }
        }
    }
}
