//! Configurations that load and configurations that do not, each with what is said about it.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, Method, StatusCode, Uri};
use proptest::prelude::*;

use super::*;
use crate::{
    callback::{Alias, Channel, Event, Signature},
    provider::{
        contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised},
        inquiry::{
            Inquire, Inquiry, Missing, NoEvent,
            access::{Access, Credential},
        },
        signature::VerifyingKey,
    },
    rule::{Head, Route},
    transaction::policy::{IdentityBy, OnRepeatReturn, OnUnknown, Policy},
};

const fn provider(name: &'static str, scheme: Scheme) -> Provider {
    Provider {
        name,
        title: name,
        marks: &[],
        recognise: |_| false,
        scheme,
        events: |_, _| Err(Unrecognised(String::new())),
        event_ids: false,
        batches: false,
        inquiry: None,
        ack: Ack { status: StatusCode::OK, content_type: None, body: "" },
        refusal: 400,
        paid_once: &[],
        moves: Moves::Undocumented,
        answer_limit: Duration::from_secs(15),
        retry_span: Duration::from_secs(26 * 3600),
        sources: &[],
    }
}

static GENERIC: Provider = provider("generic", Scheme::Unsigned);
static MOLLIE: Provider = Provider { inquiry: Some(&INQUIRY), ..provider("mollie", Scheme::Unsigned) };
static INQUIRY: Inquiry = Inquiry {
    unclear: true,
    url: "https://api.example.org",
    questions: &[],
    headers: &[],
    access: Access::Bearer,
    read: |_| Err(NoEvent::NotFound),
    missing: Missing::Not("it is made up"),
    sources: &[],
};
static STRIPE: Provider = provider(
    "stripe",
    Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::Token],
        settings: &["tolerance"],
        repeats: &[],
        ready: |secret| Ok(VerifyingKey::Text(secret.expose().into())),
        check: |_, _, _| Signature::Unchecked,
    }),
);

static PROVIDERS: &[&Provider] = &[&GENERIC, &MOLLIE, &STRIPE];

fn pair(until: i32) -> (Vec<u8>, Vec<u8>) {
    let mut params = rcgen::CertificateParams::new(["pay.example.org".into(), "*.pay.example.org".into()]).unwrap();
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(until, 1, 1));
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem().into_bytes(), key.serialize_pem().into_bytes())
}

static PAIR: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| pair(2901));
static OLD: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| pair(2002));

/// A world where every variable but UNSET is set and every file but /nowhere is there.
fn world() -> World<'static> {
    World {
        env: &|name| match name {
            "UNSET" => None,
            "APP_DATABASE" => Some("mysql://oncegate:secret@localhost/ninja".to_owned()),
            "ONCEGATE_STORE_KEY" => Some("0a".repeat(32)),
            _ => Some(format!("{name}-value")),
        },
        file: &|path| match path.to_str() {
            Some("/nowhere") => Err(io::ErrorKind::NotFound.into()),
            Some("/etc/oncegate/pay.example.org.pem") => Ok(PAIR.0.clone()),
            Some("/etc/oncegate/pay.example.org.key") => Ok(PAIR.1.clone()),
            Some("/old.pem") => Ok(OLD.0.clone()),
            Some("/old.key") => Ok(OLD.1.clone()),
            _ => Ok(b"from-file\n".to_vec()),
        },
        readable_by_all: &|path| path == Path::new("/old.key"),
        providers: PROVIDERS,
    }
}

fn load(text: &str) -> Loaded {
    Loaded::from_text("test.toml", text, &world())
}

fn config(text: &str) -> Config {
    load(text).into_config().unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load(text);
    assert_eq!(loaded.faults, []);
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// The texts of one folder; that it has some is a part of the test.
fn cases(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(cases.len() >= 4, "only {} cases in {}", cases.len(), folder.display());
    cases
}

#[test]
fn valid_configurations_have_no_faults() {
    for (path, text) in cases("valid") {
        assert_eq!(load(&text).faults, [], "{}", path.display());
    }
}

#[test]
fn invalid_configurations_are_told_every_fault_at_once() {
    for (path, text) in cases("invalid") {
        let loaded = load(&text);
        let told: Vec<_> =
            loaded.faults.iter().map(|f| (f.path.clone(), format!("{}; {}", f.message, f.remedy))).collect();
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# fault: ")).collect();
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        for fault in &expected {
            let (at, piece) = fault.split_once(": ").unwrap();
            let found = told.iter().any(|(path, said)| path == at && said.contains(piece));
            assert!(found, "{}: nobody says {fault:?}: {told:#?}", path.display());
        }
        if !path.ends_with("syntax.toml") {
            assert_eq!(told.len(), expected.len(), "{}: {told:#?}", path.display());
        }
        for fault in &loaded.faults {
            assert!(fault.origin.line.is_some() && !fault.remedy.is_empty(), "{fault:?}");
        }
    }
}

#[test]
fn the_gate_is_no_app_of_its_own() {
    let told = |listen: &str, url: &str| {
        let text = format!("admin.listen = 'off'\ngateway.listen = {listen}\nupstream.url = '{url}'\n");
        let Loaded { faults, warnings, .. } = load(&text);
        assert!(faults.iter().chain(&warnings).all(|said| said.path == "upstream.url" && said.origin.line == Some(3)));
        (faults.len(), warnings.len())
    };
    let (fault, warning, fine) = ((1, 0), (0, 1), (0, 0));
    for (listen, url, expected) in [
        ("['[::]:8080']", "http://127.0.0.1:8080", fault),
        ("['[::]:8080']", "http://[::1]:8080", fault),
        ("['[::]:8080']", "http://localhost:8080", fault),
        ("['[::]:8080']", "http://0.0.0.0:8080", fault),
        ("['0.0.0.0:8080']", "http://127.0.0.2:8080", fault),
        ("['0.0.0.0:80']", "http://127.0.0.1", fault),
        ("['192.0.2.1:8080']", "http://192.0.2.1:8080", fault),
        ("['127.0.0.1:8080']", "http://0.0.0.0:8080", fault),
        ("['127.0.0.1:8080']", "http://LOCALHOST:8080", warning),
        ("['0.0.0.0:8080']", "http://[::1]:8080", fine),
        ("['[::]:8080']", "http://127.0.0.1:8081", fine),
        ("['[::]:8080']", "http://192.0.2.1:8080", fine),
        ("['[::]:8080']", "http://app:8080", fine),
        ("['[::]:8080']", "unix:/run/app", fine),
        ("['127.0.0.1:0']", "http://127.0.0.1:8080", fine),
    ] {
        assert_eq!(told(listen, url), expected, "{listen} {url}");
    }
    let looks_in = load("upstream.url = 'http://127.0.0.1:9090'");
    assert!(looks_in.faults[0].to_string().contains("127.0.0.1:9090 of admin.listen"), "{:?}", looks_in.faults);
}

#[test]
fn addresses_that_may_be_one_place_are_warned_of() {
    let told = |listen: &str, admin: &str| warnings(&format!("gateway.listen = {listen}\nadmin.listen = '{admin}'\n"));
    assert!(told("['[::]:9090']", "127.0.0.1:9090")[0].contains("[::]:9090 of gateway.listen may be one place"));
    assert!(told("['0.0.0.0:80', '[::]:80']", "off")[0].starts_with("test.toml:1: gateway.listen: "));
    assert_eq!(
        told("['127.0.0.1:8080', '[::1]:8080', '127.0.0.1:0', '127.0.0.1:0']", "127.0.0.1:0"),
        Vec::<String>::new()
    );
}

#[test]
fn a_fault_is_told_with_its_line() {
    let loaded = load("[gateway]\nmax_waiters = 1\n\n[[rule]]\nname = 'a'\n[[rule]]\nhold = 'long'\n");
    let said: Vec<_> = loaded.faults.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("test.toml:7: rule[1].hold: \"long\" is no time"), "{}", said[0]);
}

#[test]
fn a_missing_file_is_a_fault_with_a_remedy() {
    let loaded = Loaded::from_file(Path::new("/nowhere"), &world());
    assert_eq!(loaded.faults.len(), 1);
    assert!(loaded.faults[0].to_string().contains("--config"));
}

#[test]
fn the_sample_is_the_default() {
    let sample = config(SAMPLE);
    let empty = config("");
    assert_eq!(empty.gateway, sample.gateway);
    assert_eq!(empty.gateway, GatewayOptions::default());
    assert_eq!(empty.upstream, UpstreamOptions::default());
    assert_eq!(empty.store, StoreOptions::default());
    assert_eq!(empty.admin, AdminOptions::default());
    assert_eq!(empty.log, LogOptions::default());
    assert_eq!(empty.acme, acme::Options::default());
    assert_eq!(sample.preset, Some("invoice-ninja"));
    assert_eq!(load(SAMPLE).warnings, []);
}

#[test]
fn preset_and_rules_come_from_the_users_file_only() {
    let empty = config("");
    assert_eq!((empty.preset, empty.rules.list().len(), empty.providers.len()), (None, 0, 0));
}

/// The sample with every example in force.
fn uncommented() -> String {
    let key = |line: &&str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with('[') || rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    SAMPLE.lines().map(|line| if key(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_declared_key_stands_in_the_sample_and_every_key_of_the_sample_is_declared() {
    let (root, errors) = tree::parse(&uncommented());
    assert!(errors.is_empty(), "the examples are TOML");
    let keys_of = |node: &Node| node.as_table().map(|t| t.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    for section in keys::SECTIONS {
        let node = match (section.section, &root[section.section].value) {
            ("provider", tree::Value::Table(providers)) => &providers["mollie"],
            (_, tree::Value::List(rules)) => &rules[0],
            _ => &root[section.section],
        };
        let mut declared: Vec<_> = section.keys.iter().map(|&key| key.to_owned()).collect();
        declared.sort();
        assert_eq!(keys_of(node), declared, "[{}]", section.section);
    }
    let mut declared = keys::ROOT.to_vec();
    declared.sort_unstable();
    assert_eq!(root.keys().collect::<Vec<_>>(), declared);
}

#[test]
fn every_example_of_the_sample_is_read() {
    let loaded = load(&uncommented());
    assert_eq!(loaded.faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [""; 0]);
    for section in keys::SECTIONS {
        for key in section.keys {
            let read = |e: &Effective| e.path.starts_with(section.section) && e.path.rsplit('.').next() == Some(key);
            assert!(loaded.effective.iter().any(read), "nobody reads [{}] {key}", section.section);
        }
    }
}

#[test]
fn the_examples_of_rules_that_show_a_default_show_the_real_one() {
    let rule = |keys: &str| config(&format!("[[rule]]\npath = '/x'\nchannel = 'webhook'\n{keys}"));
    let examples: String = SAMPLE
        .lines()
        .skip_while(|line| !line.starts_with("#identity"))
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|line| !line.starts_with("answer_within") && !line.starts_with("success"))
        .map(|line| format!("{line}\n"))
        .collect();
    let policy = |config: &Config| format!("{:?}", policy(config, "POST", "/x", &[], None));
    assert_eq!(policy(&rule(&examples)), policy(&rule("")));
}

#[test]
fn a_certificate_is_read_with_its_key_and_called_by_its_first_name() {
    let tls = "[[tls]]\ncertificate = '/etc/oncegate/pay.example.org.pem'\nkey = '/etc/oncegate/pay.example.org.key'\n";
    let read = config(&format!("{tls}{tls}names = 'a.pay.example.org'\nlisten = '127.0.0.1:443'\n{tls}")).tls;
    let shown: Vec<_> = read.iter().map(|tls| (&*tls.label, tls.listen[0].to_string())).collect();
    let expected =
        [("pay.example.org", "[::]:443"), ("a.pay.example.org", "127.0.0.1:443"), ("pay.example.org-2", "[::]:443")];
    assert_eq!(shown, expected.map(|(name, address)| (name, address.to_owned())));
}

#[test]
fn a_certificate_that_cannot_be_shown_is_a_fault_at_its_key() {
    let faults = |text: &str| -> Vec<String> {
        load(&format!("[[tls]]\n{text}")).faults.iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
    };
    let good = "certificate = '/etc/oncegate/pay.example.org.pem'\nkey = '/etc/oncegate/pay.example.org.key'\n";
    for (text, fault) in [
        ("certificate = '/x'", "tls[0].key: it is missing"),
        ("key = '/x'", "tls[0].certificate: it is missing"),
        ("certificate = '/nowhere'\nkey = '/x'", "tls[0].certificate: the file /nowhere cannot be read"),
        ("certificate = '/x'\nkey = '/old.key'", "tls[0].certificate: /x: no certificate can be read"),
        ("certificate = '/old.pem'\nkey = '/nowhere'", "tls[0].key: the file /nowhere cannot be read"),
        ("certificate = '/old.pem'\nkey = '/x'", "tls[0].key: /x: no private key can be read"),
        (
            "certificate = '/old.pem'\nkey = '/etc/oncegate/pay.example.org.key'",
            "tls[0].key: /etc/oncegate/pay.example.org.key: the key belongs to another certificate",
        ),
        ("names = 'a.example'", "tls[0].certificate: there is none, and none may be had"),
        ("[acme]\nagree_to_terms = true", "tls[0].names: the authority has to be told whole names"),
        ("names = '*.a.example'\n[acme]\nagree_to_terms = true", "tls[0].names: the authority has to be told"),
        ("names = 'a.example'\n[acme]\nagree_to_terms = true\ndirectory = 'ftp://x'", "acme.directory: "),
        (&format!("{good}listen = []"), "tls[0].listen: the certificate is shown nowhere"),
        (&format!("{good}names = 'a b'"), "tls[0].names: \"a b\" is no name of a host"),
        (&format!("{good}listen = '[::]:8080'"), "tls[0].listen: [::]:8080 stands in gateway.listen too"),
    ] {
        let found = faults(text);
        assert!(matches!(&found[..], [only] if only.starts_with(fault)), "{text}: {found:?}");
    }
    let nowhere = load("gateway.listen = []").faults;
    assert!(nowhere[0].message.contains("listens nowhere"), "{nowhere:?}");
    assert_eq!(load(&format!("gateway.listen = []\n[[tls]]\n{good}")).faults, []);
}

#[test]
fn a_certificate_that_has_expired_or_is_for_others_and_a_key_that_all_can_read_are_warned_of() {
    let told =
        warnings("[[tls]]\ncertificate = '/old.pem'\nkey = '/old.key'\nnames = ['b.example', 'x.pay.example.org']\n");
    let says = |what: &str| assert!(told.iter().any(|warning| warning.contains(what)), "{what}: {told:?}");
    says("tls[0].key: every user of this machine can read the key");
    says("tls[0].certificate: the certificate has expired at 2002-01-01");
    says("tls[0].names: the certificate is not for b.example, but for pay.example.org, *.pay.example.org");
    assert_eq!(told.len(), 3);
}

fn with<T>(
    config: &Config,
    method: &str,
    target: &str,
    headers: &[&'static str],
    test: impl FnOnce(Option<Route>, &Head<'_>) -> T,
) -> T {
    let method: Method = method.parse().unwrap();
    let uri: Uri = target.parse().unwrap();
    let mut map = HeaderMap::new();
    for name in headers {
        map.insert(*name, http::HeaderValue::from_static("x"));
    }
    let head = Head { method: &method, uri: &uri, headers: &map, host: "h", source: Ipv4Addr::LOCALHOST.into() };
    test(config.rules.classify(&head), &head)
}

fn route(config: &Config, method: &str, target: &str) -> Option<Route> {
    with(config, method, target, &[], |route, _| route)
}

fn policy(
    config: &Config,
    method: &str,
    target: &str,
    headers: &[&'static str],
    event: Option<(&'static Provider, &Event)>,
) -> Arc<Policy> {
    with(config, method, target, headers, |route, head| {
        let (provider, event) = event.unzip();
        route.expect(target).policy(head, provider, event, Signature::Unchecked)
    })
}

#[test]
fn the_preset_knows_the_routes_of_the_app() {
    let config = config("preset = 'invoice-ninja'");
    assert_eq!(config.upstream.max_callbacks.map(std::num::NonZeroUsize::get), Some(4));
    for (method, target, channel) in [
        ("POST", "/payment_webhook/key/gw", Some(Channel::Webhook)),
        ("GET", "/payment_webhook/key/gw?txid=1", Some(Channel::Webhook)),
        ("POST", "/index.php/payment_webhook/key/gw/", Some(Channel::Webhook)),
        ("POST", "//%70ayment_webhook/./key/gw", Some(Channel::Webhook)),
        ("POST", "/payment_notification_webhook/key/gw/client", Some(Channel::Webhook)),
        ("POST", "/api/v1/ppcp/webhook", Some(Channel::Webhook)),
        ("GET", "/payments/process/response?payment_hash=x", Some(Channel::Return)),
        ("POST", "/payments/process/response", Some(Channel::Return)),
        ("GET", "/mollie/3ds_redirect/key/gw/hash", Some(Channel::Return)),
        ("GET", "/checkout/3ds_redirect/key/gw/hash", Some(Channel::Return)),
        ("GET", "/gocardless/ibp_redirect/key/gw/hash", Some(Channel::Return)),
        ("PUT", "/payment_webhook/key/gw", None),
        ("POST", "/payment_webhook/key", None),
        ("POST", "/client/payments/process", None),
        ("GET", "/", None),
    ] {
        assert_eq!(route(&config, method, target).map(|route| route.channel), channel, "{method} {target}");
    }
    let hook = route(&config, "POST", "/payment_webhook/key/gw").unwrap();
    assert_eq!(hook.segments, [("company_key".into(), "key".to_owned()), ("gateway".into(), "gw".to_owned())]);
    assert_eq!((&*hook.rule, &*hook.places.aliases[0].0), ("invoice-ninja-webhook", "payment_hash"));
    assert!(load("preset = 'invoice-ninja'").warnings.is_empty());
}

/// What is learned on the way to this page or callback, as `kind=places`.
fn learned(config: &Config, method: &str, target: &str) -> Vec<String> {
    with(config, method, target, &[], |route, head| {
        let learn = route.map(|route| route.learn).or_else(|| config.rules.learns(head)).unwrap_or_default();
        learn.list().map(|(kind, places)| format!("{kind}={}", places.join(","))).collect()
    })
}

#[test]
fn names_are_learned_where_a_rule_says_so_and_nowhere_else() {
    let config = config(
        "[[rule]]\npath = '/pay/{page*}'\nlearn.session = 'set-cookie:sid'\nlearn.order = []\n\
         [[rule]]\npath = ['/pay/now', '/thanks']\n\
         learn = { order = 'location:order', reference = { mollie = ['location:https://m.example/{id} as tr_{id}'] } }\n\
         [[rule]]\npath = '/thanks'\nchannel = 'return'\n\
         aliases = { session = ['cookie:sid', 'cookie:old'], order = 'query:order' }\n\
         [[rule]]\npath = '/old'\nlearn.reference = 'header:X-Payment'\nlearn.session = 'set-cookie:sid'\n",
    );
    let mollie = "reference:mollie=location:https://m.example/{id} as tr_{id}";
    assert_eq!(learned(&config, "GET", "/pay/now"), [mollie, "session=set-cookie:sid"], "an empty list reads nothing");
    assert_eq!(learned(&config, "GET", "/pay/later"), ["session=set-cookie:sid"]);
    let thanks = ["order=location:order", mollie, "session=set-cookie:sid,set-cookie:old"];
    assert_eq!(learned(&config, "GET", "/thanks"), thanks, "a cookie called like a session is one");
    let aliases = route(&config, "GET", "/thanks").unwrap().places.aliases.clone();
    assert_eq!(aliases.iter().map(|(kind, _)| &**kind).collect::<Vec<_>>(), ["order"], "and no name of a payment");
    assert_eq!(learned(&config, "GET", "/old"), ["reference:generic=header:x-payment", "session=set-cookie:sid"]);
    assert!(learned(&config, "GET", "/other").is_empty());
    let sole = "[[rule]]\npath = '/hook'\nprovider = 'mollie'\n\
                [[rule]]\npath = '/pay'\nlearn = { session = 'set-cookie:sid', reference = 'location:id' }\n";
    assert_eq!(learned(&self::config(sole), "GET", "/pay")[0], "reference:mollie=location:id");
    let two = format!("{sole}[[rule]]\npath = '/other'\nprovider = 'stripe'\n");
    assert_eq!(learned(&self::config(&two), "GET", "/pay")[0], "reference:generic=location:id");
}

#[test]
fn the_preset_learns_on_the_pages_of_the_portal_and_where_payers_return() {
    let config = config("preset = 'invoice-ninja'");
    for (method, target) in [
        ("POST", "/client/payments/process"),
        ("GET", "/client/invoices"),
        ("POST", "/livewire/update"),
        ("GET", "/payments/process/response?payment_hash=x"),
        ("POST", "/index.php/payments/process/response"),
        ("GET", "/mollie/3ds_redirect/key/gw/hash"),
    ] {
        let learned = learned(&config, method, target);
        assert_eq!(learned.len(), 3, "{method} {target}: {learned:?}");
        assert!(learned.contains(&"session=set-cookie:*_session".to_owned()), "{learned:?}");
    }
    for target in ["/", "/api/v1/invoices", "/payment_webhook/key/gw", "/images/logo.png"] {
        assert!(learned(&config, "POST", target).is_empty(), "{target}");
    }
}

#[test]
fn the_preset_tells_bodies_apart_unless_the_provider_is_known() {
    let config = config("preset = 'invoice-ninja'");
    let event = Event { reference: "pi_1".into(), ..Event::default() };
    let hook = "/payment_webhook/key/gw";
    let generic = policy(&config, "POST", hook, &[], Some((&GENERIC, &event)));
    assert_eq!(generic.identity, IdentityBy::Body);
    assert_eq!((generic.hold, generic.quiet), (Duration::from_secs(2), Duration::from_secs(60)));
    assert_eq!(config.rules.longest_quiet(), generic.quiet, "what is kept after a crash is kept no longer");
    assert_eq!(generic.on_unknown, OnUnknown::ConfirmElseResend);
    assert_eq!(policy(&config, "POST", hook, &[], Some((&MOLLIE, &event))).identity, IdentityBy::Auto);
    assert_eq!(policy(&config, "GET", hook, &[], Some((&GENERIC, &event))).identity, IdentityBy::Places);
}

#[test]
fn the_preset_keeps_the_lock_for_jobs_that_the_app_defers() {
    let config = config("preset = 'invoice-ninja'");
    let linger = |provider: &'static str, event_type: &str, joined: bool| {
        let alias = Alias { kind: "payment_hash".into(), value: "x".into() };
        let aliases = if joined { vec![alias] } else { Vec::new() };
        let event = Event { event_type: Some(event_type.into()), aliases, ..Event::default() };
        let provider = crate::provider::by_name(provider).unwrap();
        policy(&config, "POST", "/payment_webhook/key/gw", &[], Some((provider, &event))).linger.as_secs()
    };
    for (provider, event_type, seconds) in [
        ("stripe", "payment_intent.succeeded", 7),
        ("stripe", "payment_intent.processing", 7),
        ("stripe", "charge.refunded", 7),
        ("stripe", "charge.failed", 4),
        ("stripe", "charge.succeeded", 0),
        ("stripe", "customer.source.updated", 0),
        ("paypal", "CHECKOUT.ORDER.COMPLETED", 2),
        ("paypal", "PAYMENT.CAPTURE.COMPLETED", 0),
        ("square", "payment.updated", 7),
        ("square", "refund.updated", 0),
        ("checkout", "payment_approved", 12),
        ("checkout", "payment_captured", 0),
        ("gocardless", "payments.confirmed", 0),
        ("generic", "payment_intent.succeeded", 0),
    ] {
        assert_eq!(linger(provider, event_type, true), seconds, "{provider} {event_type}");
        assert_eq!(linger(provider, event_type, false), 0, "{provider} {event_type} unjoined");
    }
}

#[test]
fn the_preset_redirects_a_repeated_post_and_no_get() {
    let config = config("preset = 'invoice-ninja'");
    let repeat = |method| policy(&config, method, "/payments/process/response", &[], None).on_repeat_return;
    assert_eq!(repeat("POST"), OnRepeatReturn::Redirect);
    assert_eq!(repeat("GET"), OnRepeatReturn::Forward);
}

#[test]
fn the_users_keys_go_before_the_presets() {
    let config = config("preset = 'invoice-ninja'\nupstream.max_callbacks = 9\n[[rule]]\nname = 'mine'\nhold = '5s'\n");
    assert_eq!(config.upstream.max_callbacks.map(std::num::NonZeroUsize::get), Some(9));
    let policy = policy(&config, "POST", "/payment_webhook/key/gw", &[], None);
    assert_eq!((&*policy.rule, policy.hold, policy.quiet.as_secs()), ("mine", Duration::from_secs(5), 60));
}

#[test]
fn a_rule_of_ones_own_reads_paths_as_the_preset_does() {
    let own = "[[rule]]\nname = 'own'\npath = '/hook'\nchannel = 'webhook'\n";
    assert!(route(&config(&format!("preset = 'invoice-ninja'\n{own}")), "POST", "/index.php/hook/").is_some());
    assert!(route(&config(own), "POST", "/index.php/hook/").is_none());
}

#[test]
fn silence_of_the_app_is_as_long_as_its_time_limit_where_no_rule_says() {
    let config = config("upstream.timeout = '42s'\n[[rule]]\npath = '/x'\nchannel = 'webhook'\n");
    let policy = policy(&config, "POST", "/x", &[], None);
    assert_eq!((policy.quiet.as_secs(), policy.timeout.as_secs(), &*policy.rule), (42, 42, "default"));
}

#[test]
fn a_secret_that_cannot_serve_is_skipped_and_a_key_that_means_nothing_is_told() {
    let told =
        warnings("[provider.stripe]\nsecrets = [{ env = 'A', kind = 'basic' }, { env = 'B' }]\nwebhook_id = 'x'\n");
    let [skipped, nothing] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        skipped.contains("[0]: a secret of kind \"basic\" cannot serve") && skipped.contains("\"hmac\" or \"token\"")
    );
    assert!(nothing.contains("webhook_id") && nothing.contains("means nothing to stripe"), "{nothing}");
    let config = config("[provider.stripe]\nsecrets = [{ env = 'A', kind = 'basic' }]\ntolerance = '30s'\n");
    let keyring = config.keyring("stripe").unwrap();
    assert_eq!((keyring.keys.len(), keyring.settings.tolerance), (0, Some(Duration::from_secs(30))));
}

#[test]
fn an_address_that_is_signed_along_has_to_be_told() {
    let world = World { providers: crate::provider::PROVIDERS, ..world() };
    let told = |more: &str| -> Vec<String> {
        let text = format!("[provider.square]\nsecrets = [{{ env = 'A' }}]\n{more}");
        Loaded::from_text("test.toml", &text, &world).warnings.iter().map(ToString::to_string).collect()
    };
    let [warning] = &*told("") else { panic!("{:?}", told("")) };
    assert!(warning.starts_with("test.toml:2: provider.square.secrets: Square signs the address"), "{warning}");
    assert_eq!(told("notification_url = 'https://pay.example.org/square'\n"), Vec::<String>::new());
    assert_eq!(told("[gateway]\npublic_url = 'https://pay.example.org'\n"), Vec::<String>::new());
    let text = "[provider.square]\nnotification_url = []\n[provider.stripe]\nsecrets = [{ env = 'A' }]\n";
    assert_eq!(Loaded::from_text("test.toml", text, &world).warnings, []);
}

#[test]
fn a_key_that_is_none_is_a_fault_at_its_place() {
    let world = World { providers: crate::provider::PROVIDERS, ..world() };
    let faults = |text: &str| -> Vec<String> {
        Loaded::from_text("test.toml", text, &world).faults.iter().map(ToString::to_string).collect()
    };
    let told = faults("[provider.paypal]\nwebhook_id = 'W'\nsecrets = [{ file = '/f' }]\n");
    assert!(told[0].contains("provider.paypal.secrets") && told[0].contains("BEGIN CERTIFICATE"), "{told:?}");
    let told = faults("[provider.paypal]\nwebhook_id = 'W'\nca = '/f'\n");
    assert!(told[0].contains("provider.paypal.ca") && told[0].contains("BEGIN CERTIFICATE"), "{told:?}");
}

#[test]
fn secrets_come_from_the_environment_and_from_files_and_are_never_shown() {
    let text = "[provider.stripe]\nsecrets = [{ env = 'A' }, { file = '/f', kind = 'token' }, { value = 'hush' }]\n";
    let config = config(text);
    let text_of = |key: &VerifyingKey| match key {
        VerifyingKey::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let secrets: Vec<_> = config.keyring("stripe").unwrap().keys.iter().map(text_of).collect();
    assert_eq!(secrets, ["A-value", "from-file", "hush"]);
    assert!(config.keyring("mollie").is_none());
    let loaded = load(text);
    assert!(!format!("{loaded:?}").contains("hush"));
    assert_eq!(loaded.warnings.len(), 1, "a secret by value");
}

#[test]
fn the_token_of_the_api_is_never_shown_and_its_dangers_are_told() {
    let text = "[admin]\nlisten = '192.0.2.1:9090'\ntoken = { value = '0123456789abcdef' }\n";
    let loaded = load(text);
    assert!(!format!("{loaded:?}").contains("0123456789abcdef"));
    assert_eq!(loaded.warnings.iter().filter(|warning| warning.path == "admin.token").count(), 2, "{loaded:?}");
    let token = config(text).admin.token.map(|token| token.expose().to_vec());
    assert_eq!(token.as_deref(), Some(b"0123456789abcdef".as_slice()));
    assert_eq!(warnings("[admin]\ntoken = { env = 'ONCEGATE_ADMIN_TOKEN' }\n"), Vec::<String>::new());
}

#[test]
fn a_key_of_the_store_is_what_it_has_to_be_or_a_fault_at_its_place() {
    let key = "0123456789abcdef".repeat(4);
    let read = config(&format!("[store]\nkeys = [{{ value = '{key}' }}, {{ env = 'ONCEGATE_STORE_KEY' }}]")).store;
    assert_eq!((read.sealing().len(), read.sealing()[0][7], read.sealing()[1]), (2, 0xef, [10; 32]));
    assert!(!format!("{read:?}").contains(&key));
    for wrong in ["{ env = 'UNSET' }", "{ env = 'SHORT' }", "{ file = '/nowhere' }", &format!("{{ value = '{key}0' }}")]
    {
        let faults = load(&format!("[store]\nkeys = [{wrong}]")).faults;
        assert!(
            faults.len() == 1 && faults[0].path == "store.keys" && !faults[0].remedy.is_empty(),
            "{wrong}: {faults:?}"
        );
    }
    let told = |text: &str| warnings(&format!("[store]\n{text}\n"));
    assert!(told(&format!("keys = [{{ value = '{key}' }}]"))[0].contains("the file itself"));
    assert!(told("engine = 'memory'\nkeys = [{ env = 'ONCEGATE_STORE_KEY' }]")[0].contains("no effect"));
}

#[test]
fn unsafe_windows_are_warned_of() {
    // Where nobody is acknowledged before the app has answered.
    let rule =
        |keys: &str| warnings(&format!("store.engine = 'memory'\n[[rule]]\npath = '/x'\nprovider = 'mollie'\n{keys}"));
    assert_eq!(rule("hold = '2s'\nretention = '2d'"), Vec::<String>::new());
    assert!(
        rule("hold = '2s'\nretention = '1h'")[0].starts_with("test.toml:6: "),
        "{:?}",
        rule("hold = '2s'\nretention = '1h'")
    );
    assert!(rule("retention = '1h'")[0].contains("rule[0].retention: mollie delivers again for up to 1day 2h"));
    assert!(rule("hold = '20s'")[0].contains("rule[0].hold: "));
    assert!(rule("hold = '8s'\nlinger = '8s'")[0].contains("make 16s, but mollie waits 15s"));
    assert_eq!(rule("linger = '5s'\nquiet = '5s'"), Vec::<String>::new());
    assert!(
        rule("linger = '5s'\nquiet = '4s'")[0].contains("rule[0].quiet: the app works on for 5s after it has answered")
    );
}

#[test]
fn who_waits_too_long_is_acknowledged_in_time_where_the_engine_survives() {
    let forgetful = "[store]\nengine = 'memory'\n";
    let rule = "[[rule]]\npath = '/x'\nprovider = 'mollie'\n";
    let event = Event::default();
    let patience = |text: &str| {
        let config = config(text);
        policy(&config, "POST", "/x", &[], Some((&MOLLIE, &event))).patience().map(|patience| patience.as_secs())
    };
    assert_eq!(patience(&format!("{forgetful}{rule}")), None, "memory forgets what it has promised");
    assert_eq!(patience(rule), Some(14));
    assert_eq!(patience(&format!("{rule}answer_within = '3s'")), Some(3));
    assert_eq!(patience(&format!("{rule}answer = 'accept'")), Some(0));
    let told = |keys: &str| warnings(&format!("{rule}{keys}"));
    assert_eq!(told("hold = '9s'\nlinger = '9s'"), Vec::<String>::new(), "it does not hang up");
    assert!(told("answer_within = '15s'")[0].contains("mollie waits 15s for an answer, and would hear ours after 15s"));
    assert_eq!(told("answer_within = '14s'"), Vec::<String>::new());
    let faults = |text: &str| load(text).faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let told = faults(&format!("{forgetful}{rule}answer = 'accept'\n"));
    assert!(told[0].starts_with("test.toml:6: rule[0].answer: the memory engine forgets"), "{told:?}");
}

#[test]
fn windows_are_compared_with_the_providers_that_one_has() {
    let told = |text: &str| {
        let world = World { providers: crate::provider::PROVIDERS, ..world() };
        // Where nobody is acknowledged before the app has answered.
        let loaded = Loaded::from_text("test.toml", &format!("store.engine = 'memory'\n{text}"), &world);
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told("preset = 'invoice-ninja'"), Vec::<String>::new(), "the preset is made for all of them");
    let rule = "[[rule]]\npath = '/x'\nprovider = 'auto'\nhold = '8s'\n";
    assert_eq!(told(rule), Vec::<String>::new(), "nobody says that one of those comes who wait less");
    assert!(told(&format!("{rule}[provider.razorpay]\nsecrets = [{{ env = 'A' }}]"))[0].contains("razorpay waits 5s"));
    assert!(told(&rule.replace("8s", "80s"))[0].contains("make 1m 20s"));
    // The database is asked while it is held, and may take longer than that.
    let short = rule.replace("8s", "4s");
    let razorpay = "[provider.razorpay]\nsecrets = [{ env = 'A' }]\n";
    let lookup = "[lookup]\nurl = { value = 'mysql://ninja@127.0.0.1/ninja' }\ntimeout = '5s'\n";
    let asks = "names = [{ from = 'reference.razorpay', to = 'order', sql = 'SELECT ?' }]\n";
    let slow = |more: &str| told(&format!("{short}{razorpay}{more}")).iter().any(|one| one.contains("make 5s"));
    assert!(!slow("") && slow(&format!("{lookup}{asks}")));
    // The preset's own rules, written into one's own file: each provider is held up by its own jobs and by nobody else's.
    let copied = |provider: &str| {
        let preset = include_str!("invoice-ninja.toml");
        let known = "[gateway]\npublic_url = 'https://pay.example.org'\n";
        let text = format!("{preset}[provider.{provider}]\nsecrets = [{{ env = 'A' }}]\n{known}");
        // It names no database, and says so.
        told(&text).into_iter().filter(|warning| !warning.contains(" lookup.")).collect::<Vec<_>>()
    };
    for provider in ["stripe", "square", "razorpay"] {
        assert_eq!(copied(provider), Vec::<String>::new(), "{provider}");
    }
    let slow = copied("checkout");
    assert_eq!(slow.len(), 2, "{slow:?}");
    assert!(slow[0].contains("rule[0].hold: hold and the longest linger ahead make 14s, but checkout waits 10s"));
    assert!(slow[1].contains("rule[4].linger: ") && slow[1].contains("make 13s, but checkout waits 10s"));
}

#[test]
fn what_can_be_read_by_others_or_does_nothing_is_warned_of() {
    for (text, piece) in [
        ("[admin]\nlisten = '0.0.0.0:9090'", "admin.listen: metrics and health can be read"),
        ("[provider.mollie]\nsecrets = [{ env = 'A' }]", "does not sign its callbacks"),
        ("[provider.mollie]\napi_url = 'http://localhost'", "unencrypted"),
        ("[provider.mollie]\nrecheck = '5s'", "provider.mollie.recheck: without a key nothing is asked"),
        ("[provider.stripe]\napi_key_env = 'A'", "provider.stripe.api_key_env: this version asks stripe nothing"),
        ("[provider.mollie]\napi_keys = [{ value = 'x' }]", "stands in the file itself"),
        ("[store]\nengine = 'memory'\npath = 'data'", "no effect on the memory engine"),
        ("[[rule]]\nlearn.session = 'set-cookie:session'", "every answer of the app"),
        ("[[rule]]\npath = '/x'\nlearn.order = 'location:order'", "tied to nothing"),
        ("[[rule]]\npath = '/x'\nchannel = 'webhook'\nlearn.session = 'set-cookie:s'", "answer to a webhook"),
        ("[[rule]]\non_unknown = 'confirm'", "rule[0].on_unknown: there is nobody to ask whether"),
        ("[lookup]\napi = 'https://ninja.example'\napi_token = { env = 'T' }", "lookup.api: nobody says about whose"),
        ("[lookup]\napi_token = { env = 'T' }", "lookup.api_token: nobody is asked with it"),
        (
            "preset = 'invoice-ninja'\n[lookup]\napi = 'http://ninja.example'\napi_token = { env = 'T' }",
            "lookup.api: the token and the names of payments travel unencrypted",
        ),
        ("[lookup]\nbooked = []", "lookup.booked: nothing is asked where no database is named"),
        ("[[rule]]\nchannel = 'webhook'", "takes every request for a callback"),
        ("[upstream]\nca = '/x.pem'", "only asked about https"),
        ("[lookup]\nnames = []", "lookup.names: nothing is asked where no database is named"),
        ("[lookup]\nurl = { env = 'APP_DATABASE' }", "lookup.url: there is nothing to ask of it"),
        ("[lookup]\nurl = { value = 'mysql://o:o@db.example/n' }", "lookup.url: a password stands in the file itself"),
        ("[lookup]\nurl = { value = 'mysql://o:o@db.example/n' }", "travel to another machine unencrypted"),
        ("[lookup]\nurl = { value = 'postgresql://o:o@db.example/n' }", "travel to another machine unencrypted"),
        ("gateway.reuse_port = true\nstore.engine = 'memory'", "do not know of each other's locks"),
    ] {
        let warnings = warnings(text);
        assert!(warnings.iter().any(|w| w.contains(piece)), "{text}: {warnings:?}");
    }
}

#[test]
fn books_that_two_accounts_may_be_confused_in_are_warned_of() {
    let told = |provider: &str, path: &str| {
        let text = format!(
            "[[rule]]\npath = {path}\nprovider = '{provider}'\nreference = 'form:id'\n\
             [lookup]\nurl = {{ value = 'mysql://o:o@127.0.0.1/n' }}\n\
             booked = [{{ from = 'reference.{provider}', sql = 'SELECT a FROM b WHERE a = ?' }}]\n"
        );
        warnings(&text).iter().any(|warning| warning.contains("lookup.booked: references of generic are one of a kind"))
    };
    assert!(told("generic", "'/hook/{account}'") && told("generic", "['/hook/a', '/hook/b']"));
    assert!(!told("generic", "'/hook'"), "there is one account");
    assert!(!told("mollie", "'/hook/{account}'"), "its ids are its own");
}

#[test]
fn the_time_a_question_may_take_counts_as_held() {
    let text = |more: &str| {
        format!(
            "[store]\nengine = 'memory'\n[[rule]]\npath = '/x'\nprovider = 'mollie'\nlinger = '8s'\nhold = '1s'\n[provider.mollie]\n{more}"
        )
    };
    assert_eq!(warnings(&text("")), Vec::<String>::new());
    let warned = warnings(&text("api_key_env = 'A'\napi_timeout = '7s'"));
    assert!(warned.iter().any(|warning| warning.contains("make 15s, but mollie waits 15s")), "{warned:?}");
}

#[test]
fn whom_to_ask_is_read_with_every_key_and_no_key_is_ever_shown() {
    let text = "[provider.mollie]\napi_key_env = 'A'\napi_keys = [{ env = 'A' }, { value = 'k2' }]\napi_timeout = '2s'\ninquire = 'unclear'";
    let config = load(text).into_config().expect("it is sound");
    let api = &config.apis()["mollie"];
    assert_eq!((api.keys.len(), &*api.url, api.timeout), (3, "https://api.example.org", Duration::from_secs(2)));
    assert_eq!(api.recheck, Duration::from_secs(30));
    let Credential::Field(shown) = &api.keys[2] else { panic!("{:?}", api.keys) };
    assert_eq!((shown, api.inquire), (&http::HeaderValue::from_static("Bearer k2"), Inquire::Unclear));
    assert!(!format!("{:?}", config.providers).contains("k2"));
    let patient = "[provider.mollie]\napi_key_env = 'A'\napi_url = 'https://here.example/mollie/'";
    let patient = load(patient).into_config().expect("it is sound");
    let api = &patient.apis()["mollie"];
    assert_eq!((&*api.url, api.timeout), ("https://here.example/mollie", Duration::from_secs(3)));
    assert!(
        load("[provider.mollie]\napi_url = 'https://here.example'")
            .into_config()
            .expect("it is sound")
            .apis()
            .is_empty()
    );
}

#[test]
fn what_opens_an_api_does_not_stand_in_its_address() {
    for address in ["https://ops:pw@ninja.example", "https://ninja.example/?token=pw"] {
        for key in [
            "lookup.api_token = { env = 'T' }\nlookup.api",
            "provider.mollie.api_key_env = 'A'\nprovider.mollie.api_url",
        ] {
            let told = load(&format!("{key} = '{address}'\n")).into_config().expect_err("it would be logged");
            let told = format!("{told:?}");
            assert!(told.contains("neither a user nor a query") && !told.contains("pw"), "{told}");
        }
    }
}

#[test]
fn every_effective_value_says_where_it_came_from() {
    let loaded = load("preset = 'invoice-ninja'\n[gateway]\nmax_waiters = 5\n");
    let line = |path: &str| {
        let found = loaded.effective.iter().find(|e| e.path == path).expect(path);
        format!("{} {}", found.value, found.origin)
    };
    assert_eq!(line("gateway.max_waiters"), "5 test.toml:3");
    assert_eq!(line("gateway.drain"), "\"30s\" default");
    assert!(line("upstream.max_callbacks").starts_with("4 preset invoice-ninja:"));
    assert_eq!(line("default.on_unknown"), "\"review\" default");
}

#[test]
fn no_depth_overflows_the_stack() {
    let deep = |text: &str| text.repeat(100_000 / text.len());
    for text in [deep("a=["), format!("a = {}", deep("[")), format!("a = {}", deep("{a=")), deep("a."), deep("[a.")] {
        assert!(!load(&text).faults.is_empty());
    }
    for when in ["(", "[", "{", "!", "-", "a.", "1+", "a?b:", "a[", "has(", "a||", "request.path.size("] {
        let _ = load(&format!("[[rule]]\nwhen = '{}'\n", deep(when)));
        let _ = load(&format!("[[rule]]\nwhen = '{}'\n", when.repeat(crate::expression::LENGTH_MAX / when.len())));
        let _ =
            load(&format!("[[rule]]\nwhen = '{}a'\n", when.repeat((crate::expression::LENGTH_MAX - 1) / when.len())));
    }
}

#[test]
fn too_many_rules_are_a_fault() {
    let rules = "[[rule]]\nhold = '1s'\n".repeat(crate::rule::RULES_MAX + 1);
    assert!(load(&rules).faults[0].message.contains("more than 128 rules"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_text_makes_loading_panic(text in ".{0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn no_value_makes_loading_panic(section in 0..keys::SECTIONS.len(), key in 0_usize..64, value in 0_usize..12) {
        let section = &keys::SECTIONS[section];
        let key = section.keys[key % section.keys.len()];
        let values = ["1", "-1", "1.5", "true", "''", "'x'", "[]", "[[]]", "{}", "{ a = 1 }", "1979-05-27", "9e99"];
        let head = match section.section {
            "rule" => "[[rule]]".to_owned(),
            "provider" => "[provider.mollie]".to_owned(),
            name => format!("[{name}]"),
        };
        let _ = load(&format!("{head}\n{key} = {}\n", values[value]));
    }

    #[test]
    fn no_damage_to_the_sample_makes_loading_panic(at in 0..SAMPLE.len(), with in "[\"\\[\\]{}=.#\n0a]{0,3}") {
        if let (Some(before), Some(after)) = (SAMPLE.get(..at), SAMPLE.get(at + 1..)) {
            let _ = load(&format!("{before}{with}{after}"));
        }
    }
}
