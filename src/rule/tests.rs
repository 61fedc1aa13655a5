//! Given these rules and this request: this route, and this policy for this event.

use std::net::Ipv4Addr;

use http::StatusCode;

use super::*;
use crate::{
    expression::WHEN,
    provider::contract::{Ack, Moves, Scheme, Unrecognised},
    rule::{matcher::HeaderPattern, path::Template},
    transaction::policy::{IdentityBy, OnUnknown},
};

static SLOW: Provider = Provider {
    name: "slow",
    title: "Slow",
    marks: &[],
    recognise: |_| false,
    scheme: Scheme::Unsigned,
    events: |_, _| Err(Unrecognised(String::new())),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack { status: StatusCode::OK, content_type: None, body: "" },
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(30 * 24 * 3600),
    sources: &[],
};

fn rule(name: &str, path: &str, choices: Choices) -> Rule {
    let paths = if path.is_empty() { vec![] } else { vec![Template::parse(path, Dialect::Strict).unwrap()] };
    let name = (!name.is_empty()).then(|| name.into());
    Rule { name, matcher: Matcher { paths, ..Matcher::default() }, choices, ..Rule::default() }
}

fn when(mut rule: Rule, source: &str) -> Rule {
    rule.matcher.when = Some(Arc::new(Expression::compile(source, WHEN).unwrap()));
    rule
}

fn webhook() -> Choices {
    Choices { channel: Some(Channel::Webhook), ..Choices::default() }
}

fn hold(seconds: u64) -> Choices {
    Choices { hold: Some(Duration::from_secs(seconds)), ..Choices::default() }
}

/// Asks for the route of a request and hands it and its head to the test.
fn with<T>(
    rules: &Rules,
    target: &str,
    header: Option<&'static str>,
    test: impl FnOnce(Option<Route>, &Head<'_>) -> T,
) -> T {
    let mut headers = HeaderMap::new();
    if let Some(name) = header {
        headers.insert(name, http::HeaderValue::from_static("x"));
    }
    let uri: Uri = target.parse().unwrap();
    let head = Head {
        method: &Method::POST,
        uri: &uri,
        headers: &headers,
        host: "pay.example.org",
        source: Ipv4Addr::LOCALHOST.into(),
    };
    test(rules.classify(&head), &head)
}

fn policy(rules: &Rules, target: &str, event: Option<&Event>) -> Arc<Policy> {
    with(rules, target, None, |route, head| route.unwrap().policy(head, None, event, Signature::Unchecked))
}

#[test]
fn what_no_callback_rule_matches_passes_through() {
    let rules = Rules::new(vec![rule("defaults", "", hold(2)), rule("hook", "/hook", webhook())], Policy::default());
    assert!(with(&rules, "/other", None, |route, _| route.is_none()));
    assert!(with(&rules, "/hook", None, |route, _| route.is_some()));
    assert!(with(&Rules::new(vec![], Policy::default()), "/hook", None, |route, _| route.is_none()));
}

#[test]
fn for_each_key_the_first_matching_rule_that_sets_it_decides() {
    let rules = vec![
        rule("", "/hook", Choices { quiet: Some(Duration::from_secs(9)), ..Choices::default() }),
        rule("first", "/hook", hold(3)),
        rule("second", "/hook", Choices { hold: Some(Duration::ZERO), shadow: Some(true), ..webhook() }),
        rule("elsewhere", "/other", hold(7)),
    ];
    let policy = policy(&Rules::new(rules, Policy::default()), "/hook", None);
    assert_eq!(&*policy.rule, "first");
    assert_eq!((policy.hold, policy.quiet, policy.shadow), (Duration::from_secs(3), Duration::from_secs(9), true));
    assert_eq!(policy.return_wait, Policy::default().return_wait);
}

#[test]
fn the_longest_quiet_is_that_of_a_policy_and_no_default_that_none_has() {
    let quiet = |path, seconds| rule("", path, Choices { quiet: Some(Duration::from_secs(seconds)), ..webhook() });
    let longest = |rules: Vec<Rule>| {
        let base = Policy { quiet: Duration::from_secs(300), ..Policy::default() };
        Rules::new(rules, base).longest_quiet().as_secs()
    };
    assert_eq!(longest(vec![]), 300);
    assert_eq!(longest(vec![quiet("/hook", 60)]), 300, "another path has the default");
    assert_eq!(longest(vec![quiet("/hook", 400)]), 400);
    assert_eq!(
        longest(vec![rule("", "", hold(2)), quiet("/hook", 60), quiet("", 20)]),
        60,
        "no policy has the default"
    );
    assert_eq!(longest(vec![quiet("", 60), quiet("/hook", 400)]), 60, "what comes later is never asked");
    assert_eq!(longest(vec![when(quiet("", 60), "request.method == 'POST'")]), 300, "not for everything");
}

#[test]
fn a_channel_a_provider_or_a_reference_makes_a_callback_and_the_channel_is_webhook_if_none_is_said() {
    let named = Choices { provider: Some(ProviderChoice::Named(&SLOW)), ..Choices::default() };
    let referred = Choices { reference: Some(vec!["form:id".parse().unwrap()]), ..Choices::default() };
    let returned = Choices { channel: Some(Channel::Return), ..Choices::default() };
    let rules = vec![rule("a", "/a", named), rule("b", "/b", referred), rule("c", "/c", returned)];
    let rules = Rules::new(rules, Policy::default());
    for (target, channel) in [("/a", Channel::Webhook), ("/b", Channel::Webhook), ("/c", Channel::Return)] {
        assert_eq!(with(&rules, target, None, |route, _| route.unwrap().channel), channel);
    }
    with(&rules, "/b", None, |route, _| {
        let route = route.unwrap();
        assert_eq!(route.places.reference, ["form:id".parse().unwrap()]);
        assert!(matches!(route.provider, ProviderChoice::Auto));
    });
}

#[test]
fn the_scope_comes_from_the_rule_that_makes_the_callback_and_not_from_one_laid_over_it() {
    let rules = vec![rule("over", "/hook/{all*}", hold(3)), rule("hook", "/hook/{company}/{gateway}", webhook())];
    with(&Rules::new(rules, Policy::default()), "/hook/c/g", None, |route, _| {
        let route = route.unwrap();
        assert_eq!(route.segments, [("company".into(), "c".to_owned()), ("gateway".into(), "g".to_owned())]);
        assert_eq!(&*route.rule, "over");
    });
}

#[test]
fn each_alias_is_a_key_of_its_own() {
    let alias = |kind: &str, place: &str| (Arc::from(kind), vec![place.parse().unwrap()]);
    let rules = vec![
        rule("", "/hook", Choices { aliases: vec![alias("hash", "query:h")], ..Choices::default() }),
        rule("", "/hook", Choices { aliases: vec![alias("hash", "form:h"), alias("order", "form:o")], ..webhook() }),
    ];
    with(&Rules::new(rules, Policy::default()), "/hook", None, |route, _| {
        assert_eq!(route.unwrap().places.aliases, [alias("hash", "query:h"), alias("order", "form:o")]);
    });
}

#[test]
fn a_rule_that_looks_at_the_event_counts_only_where_the_event_agrees() {
    let review =
        Choices { on_unknown: Some(OnUnknown::Resend), identity: Some(IdentityBy::Body), ..Choices::default() };
    let rules = vec![when(rule("large", "", review), "event.amount >= 10000.00"), rule("hook", "/hook", webhook())];
    let rules = Rules::new(rules, Policy::default());
    let event = |amount: Option<&str>| Event { amount: amount.map(str::to_owned), ..Event::default() };
    let large = policy(&rules, "/hook", Some(&event(Some("12000.50"))));
    assert_eq!((&*large.rule, large.on_unknown, large.identity), ("large", OnUnknown::Resend, IdentityBy::Body));
    for other in [Some(event(Some("9.99"))), None] {
        assert_eq!(&*policy(&rules, "/hook", other.as_ref()).rule, "hook");
    }
    assert_eq!(rules.failed_expressions(), 0);
    assert_eq!(&*policy(&rules, "/hook", Some(&event(None))).rule, "hook");
    assert_eq!(rules.failed_expressions(), 1, "null is no number");
}

#[test]
fn a_when_over_the_request_can_make_a_callback() {
    let rules = vec![when(rule("signed", "", webhook()), "'x-sign' in request.headers")];
    let rules = Rules::new(rules, Policy::default());
    assert!(with(&rules, "/any", Some("x-sign"), |route, _| route.is_some()));
    assert!(with(&rules, "/any", None, |route, _| route.is_none()));
}

#[test]
fn every_condition_must_hold() {
    let mut signed = rule("hook", "/hook", webhook());
    signed.matcher.headers = vec![HeaderPattern::parse("X-Sign").unwrap()];
    let mut from_afar = signed.clone();
    from_afar.matcher.sources = vec!["192.0.2.0/24".parse().unwrap()];
    let signed = Rules::new(vec![signed], Policy::default());
    assert!(with(&signed, "/hook", Some("x-sign"), |route, _| route.is_some()));
    assert!(with(&signed, "/hook", None, |route, _| route.is_none()));
    let from_afar = Rules::new(vec![from_afar], Policy::default());
    assert!(with(&from_afar, "/hook", Some("x-sign"), |route, _| route.is_none()));
}

#[test]
fn the_provider_decides_after_the_rules_and_its_time_limit_bounds_the_hold() {
    let rules = vec![
        rule("hook", "/hook", webhook()),
        rule("long", "/long", Choices { hold: Some(Duration::from_secs(60)), ..webhook() }),
    ];
    let rules = Rules::new(rules, Policy { hold: Duration::from_secs(4), ..Policy::default() });
    let policy = |target| {
        with(&rules, target, None, |route, head| route.unwrap().policy(head, Some(&SLOW), None, Signature::Unchecked))
    };
    assert_eq!(policy("/hook").hold, Duration::from_millis(2500));
    assert_eq!(policy("/long").hold, Duration::from_secs(4));
    assert!(policy("/hook").retention > SLOW.retry_span);
}

#[test]
fn the_same_choices_are_the_same_policy() {
    let rules = Rules::new(vec![rule("hook", "/hook", webhook())], Policy::default());
    assert!(Arc::ptr_eq(&policy(&rules, "/hook", None), &policy(&rules, "/hook?x=1", Some(&Event::default()))));
}
