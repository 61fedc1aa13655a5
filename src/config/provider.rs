//! What the user has of each provider: secrets and keys, read from the environment and from files.

use std::{cell::RefCell, fmt, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use http::Uri;

use super::{
    keys,
    report::{Finding, Origin, Report},
    section::{Document, Section, misplaced},
    setting::{Problem, Setting},
    tree::{Node, Table, Value},
};
use crate::{
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider, Scheme, Secret, SecretKind, Settings, Signing},
        inquiry::{Api, Apis, Inquire, Missing, Notice, access::ApiKey},
        signature::{Certificate, VerifyingKey},
    },
    watch::Content,
};

/// What loading a configuration sees of the world outside the text.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// A variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The bytes of a file.
    pub file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Whether every user of the machine can read a file.
    pub readable_by_all: &'a dyn Fn(&Path) -> bool,
    /// The providers there are.
    pub providers: &'static [&'static Provider],
}

impl World<'static> {
    /// The real one.
    #[must_use]
    pub fn real() -> Self {
        Self {
            env: &|name| std::env::var(name).ok(),
            file: &|path| std::fs::read(path),
            readable_by_all: &|path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0),
            providers: PROVIDERS,
        }
    }
}

impl World<'_> {
    /// The provider with this name.
    ///
    /// # Errors
    ///
    /// When there is none; the problem tells the nearest.
    pub fn provider(&self, name: &str) -> Result<&'static Provider, Problem> {
        self.providers.iter().copied().find(|provider| provider.name == name).ok_or_else(|| {
            let names = || self.providers.iter().map(|provider| provider.name);
            let known = names().collect::<Vec<_>>().join(", ");
            let meant = keys::nearest(name, names()).map_or_else(String::new, |n| format!("did you mean `{n}`? "));
            Problem::new(format!("there is no provider `{name}`"), format!("{meant}known: {known}"))
        })
    }
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// What the user has of one provider.
#[derive(Clone)]
pub struct ProviderOptions {
    /// Which one.
    pub provider: &'static Provider,
    /// What its callbacks are signed with, made ready; any may match.
    pub keyring: Keyring,
    /// Its API, if there is a key for it and anything to ask.
    pub api: Option<Arc<Api>>,
    /// A fingerprint of all of it, secrets and files included.
    pub print: Content,
}

impl fmt::Debug for ProviderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderOptions")
            .field("provider", &self.provider.name)
            .field("keyring", &self.keyring)
            .field("api", &self.api)
            .finish()
    }
}

impl ProviderOptions {
    /// Tells it the address under which the providers know the gate, for signatures that cover the address.
    pub fn at(&mut self, public_url: Option<&str>) {
        self.keyring.settings.public_url = public_url.map(str::to_owned);
    }
}

/// Whom to ask, of these.
pub fn apis(providers: &[ProviderOptions]) -> Apis {
    let asked = |options: &ProviderOptions| Some((options.provider.name, Arc::clone(options.api.as_ref()?)));
    providers.iter().filter_map(asked).collect()
}

/// Reads every `[provider.NAME]`.
pub fn read(documents: &[Document], world: &World<'_>, report: &mut Report) -> Vec<ProviderOptions> {
    let mut providers = Vec::new();
    for document in documents {
        let Some(node) = document.root.get("provider") else { continue };
        let Some(tables) = node.as_table() else {
            report.faults.push(misplaced(&document.source, node, "provider", "[provider.NAME]"));
            continue;
        };
        for (name, node) in tables {
            let path = format!("provider.{name}");
            let origin = Origin { source: document.source.clone(), line: Some(node.line) };
            match (world.provider(name), node.as_table()) {
                (Ok(provider), Some(table)) => {
                    let mut section = Section::single("provider", path, &document.source, table, report);
                    let said = RefCell::new(Vec::new());
                    node.tell_all(&mut said.borrow_mut());
                    let env = |name: &str| {
                        let value = (world.env)(name)?;
                        said.borrow_mut().extend_from_slice(value.as_bytes());
                        Some(value)
                    };
                    let file = |path: &Path| {
                        let bytes = (world.file)(path)?;
                        said.borrow_mut().extend_from_slice(&bytes);
                        Ok(bytes)
                    };
                    let one = one(provider, table, &mut section, &World { env: &env, file: &file, ..*world });
                    providers.push(ProviderOptions { print: Content::of(&said.borrow()), ..one });
                }
                (Ok(_), None) => report.faults.push(misplaced(&document.source, node, &path, &format!("[{path}]"))),
                (Err(Problem { message, remedy }), _) => {
                    report.faults.push(Finding { origin, path, message, remedy });
                }
            }
        }
    }
    providers
}

/// Warns of a signature that covers the address it was sent to, where nobody says what that is.
pub fn check_addresses(providers: &[ProviderOptions], public_url: Option<&str>, report: &mut Report) {
    let guessing = |options: &&ProviderOptions| {
        let Keyring { keys, settings } = &options.keyring;
        takes(&options.provider.scheme, "notification_url") && !keys.is_empty() && settings.notification_url.is_empty()
    };
    for options in providers.iter().filter(guessing).filter(|_| public_url.is_none()) {
        let path = format!("provider.{}.secrets", options.provider.name);
        let Some(set) = report.effective.iter().find(|value| value.path == path) else { continue };
        let title = options.provider.title;
        let message =
            format!("{title} signs the address that it sends to along, and here it is guessed by the Host field");
        let remedy = format!("write notification_url = \"…\" as {title} knows it, or gateway.public_url");
        report.warnings.push(Finding { origin: set.origin.clone(), path, message, remedy });
    }
}

/// The keys of a section that only some providers' schemes go by.
const SETTINGS: [&str; 4] = ["webhook_id", "notification_url", "tolerance", "ca"];

fn one(provider: &'static Provider, table: &Table, section: &mut Section<'_>, world: &World<'_>) -> ProviderOptions {
    let usual = |bytes: &[u8]| usual_kind(provider, bytes);
    let secrets = secrets("secrets", &usual, table, section, world);
    let settings = settings(&provider.scheme, section, world);
    let keys = match &provider.scheme {
        Scheme::Signed(signing) => keys(provider, signing, &secrets, section),
        Scheme::Unsigned => {
            if !secrets.is_empty() {
                let message = format!("{} does not sign its callbacks, so no secret can serve", provider.title);
                section.warn("secrets", message, "leave them out");
            }
            Vec::new()
        }
    };
    let keyring = Keyring { keys, settings };
    for key in SETTINGS.into_iter().filter(|key| table.contains_key(*key)) {
        if !takes(&provider.scheme, key) {
            section.warn(key, format!("it means nothing to {}", provider.title), "leave it out");
        }
    }
    if provider.name == "paypal" && !keyring.keys.is_empty() && keyring.settings.webhook_id.is_empty() {
        let message = "without the webhook's id, which is signed along, no signature can be checked";
        section.warn("secrets", message, "write webhook_id = \"…\" as PayPal shows it for this webhook");
    }
    let api = api(provider, table, section, world);
    if api.as_deref().is_some_and(signs) {
        signed(&keyring, section);
    }
    ProviderOptions { provider, keyring, api, print: Content::NoFile }
}

/// The keys that are about its API.
const API: [&str; 7] = ["api_key_env", "api_keys", "api_url", "api_timeout", "inquire", "recheck", "missing_after"];
/// How long a callback waits for the answer to a question, where nothing is said and its sender has patience.
const TIMEOUT: Duration = Duration::from_secs(3);
/// When a callback that is a repeat by an answer alone is asked about once more, where nothing is said.
const RECHECK: Duration = Duration::from_secs(30);

/// Whether callbacks that never came are made and signed.
fn signs(api: &Api) -> bool {
    api.missing_after.is_some() && api.inquiry.missing.notice().is_some_and(Notice::is_signed)
}

/// What is made is signed as its provider would have, with the secret of the endpoint.
fn signed(keyring: &Keyring, section: &mut Section<'_>) {
    match &*keyring.keys {
        [] => {
            let message = "what is made has to be signed, and there is no secret for it";
            section.fault("missing_after", message, "write `secrets` as the app has it for this endpoint".to_owned());
        }
        [_] => {}
        _ => {
            let message = "what is made is signed with the first of `secrets`; an app that expects another refuses it";
            section.warn("missing_after", message, "let the one that is in use stand first");
        }
    }
}

/// How long a payment that has begun is waited for at least.
const SOONEST: Duration = Duration::from_secs(1);

/// Whom to ask what has become of payments, and with which keys.
fn api(provider: &'static Provider, table: &Table, section: &mut Section<'_>, world: &World<'_>) -> Option<Arc<Api>> {
    let mut api_keys = listed("api_keys", &|node| api_key(node, world), table, section);
    if let Some(key) = section.find_with("api_key_env", |node| from_env(node, world)) {
        let secret = Secret::new(SecretKind::ApiKey, key);
        api_keys.insert(0, ApiKey { secret, account: None, serial: None });
    }
    let url = section.find_with("api_url", api_url);
    if url.as_ref().is_some_and(|url| url.starts_with("http:")) {
        section.warn("api_url", "keys and answers travel unencrypted", "write https://");
    }
    let timeout: Option<Duration> = section.find("api_timeout");
    let recheck: Option<Duration> = section.find("recheck");
    let inquire: Option<Inquire> = section.find("inquire");
    let missing_after: Option<Duration> = section.find("missing_after");
    let Some(inquiry) = provider.inquiry else {
        for key in API.into_iter().filter(|key| table.contains_key(*key)) {
            section.warn(key, format!("this version asks {} nothing", provider.title), "leave it out");
        }
        return None;
    };
    if missing_after.is_some_and(|after| after < SOONEST) {
        let message = "its own callback would hardly have had the time to come";
        section.fault("missing_after", message, format!("write \"{}\" or more", humantime::format_duration(SOONEST)));
    }
    if let (Some(_), Missing::Not(why)) = (missing_after, &inquiry.missing) {
        let message = format!("what {} should have called for can't be made: {why}", provider.title);
        section.warn("missing_after", message, "leave it out");
    }
    let most = provider.answer_limit / 2;
    if let Some(timeout) = timeout.filter(|timeout| timeout.is_zero() || *timeout > most) {
        let (title, most) = (provider.title, humantime::format_duration(most));
        let message = format!("{} is not between 0 and {most}", humantime::format_duration(timeout));
        section.fault(
            "api_timeout",
            message,
            format!("{title} waits for an answer only twice as long; the app needs the rest"),
        );
    }
    let mut keys = Vec::with_capacity(api_keys.len());
    for (i, key) in api_keys.iter().enumerate() {
        match inquiry.access.ready(key) {
            Ok(key) => keys.push(key),
            Err(why) => {
                let from_env = table.contains_key("api_key_env");
                let (key, place) = match (from_env, i) {
                    (true, 0) => ("api_key_env", String::new()),
                    (true, i) => ("api_keys", format!("[{}]: ", i - 1)),
                    (false, i) => ("api_keys", format!("[{i}]: ")),
                };
                section.fault(key, format!("{place}{why}"), format!("write it as {} shows it", provider.title));
            }
        }
    }
    if keys.is_empty() {
        if api_keys.is_empty() {
            let keyless = ["api_url", "api_timeout", "inquire", "recheck", "missing_after"];
            for key in keyless.into_iter().filter(|key| table.contains_key(*key)) {
                section.warn(key, "without a key nothing is asked", "write api_key_env = \"NAME\", or leave it out");
            }
        }
        return None;
    }
    Some(Arc::new(Api {
        provider: provider.name,
        inquiry,
        url: url.map_or_else(|| inquiry.url.to_owned(), |url| url.trim_end_matches('/').to_owned()),
        keys,
        inquire: inquire.unwrap_or_default(),
        timeout: timeout.unwrap_or_else(|| TIMEOUT.min(provider.answer_limit / 3)),
        recheck: recheck.unwrap_or(RECHECK),
        missing_after: missing_after.filter(|_| inquiry.missing.notice().is_some()),
    }))
}

/// What a secret is where the configuration does not say: what the scheme goes by, told by its first line in PEM.
fn usual_kind(provider: &Provider, bytes: &[u8]) -> SecretKind {
    let Scheme::Signed(Signing { kinds, .. }) = &provider.scheme else { return SecretKind::Hmac };
    let first_line = [
        (SecretKind::PublicKey, &b"-----BEGIN PUBLIC KEY-----"[..]),
        (SecretKind::Certificate, b"-----BEGIN CERTIFICATE-----"),
    ];
    let told = first_line.into_iter().find(|(kind, line)| kinds.contains(kind) && bytes.starts_with(line));
    told.map_or_else(|| kinds.first().copied().unwrap_or(SecretKind::Hmac), |(kind, _)| kind)
}

/// The secrets that serve, made ready.
fn keys(provider: &Provider, signing: &Signing, secrets: &[Secret], section: &mut Section<'_>) -> Vec<VerifyingKey> {
    let mut keys = Vec::with_capacity(secrets.len());
    for (i, secret) in secrets.iter().enumerate() {
        let kinds = || signing.kinds.iter().map(|kind| format!("{:?}", kind.as_str())).collect::<Vec<_>>().join(" or ");
        if !signing.kinds.contains(&secret.kind) {
            let kind = secret.kind.as_str();
            let message = format!("[{i}]: a secret of kind {kind:?} cannot serve {}, and is skipped", provider.title);
            section.warn("secrets", message, format!("leave it out, or say what it is: kind = {}", kinds()));
            continue;
        }
        match (signing.ready)(secret) {
            Ok(key) => keys.push(key),
            Err(why) => {
                section.fault("secrets", format!("[{i}]: {why}"), format!("{} takes {}", provider.title, kinds()))
            }
        }
    }
    keys
}

fn takes(scheme: &Scheme, key: &str) -> bool {
    matches!(scheme, Scheme::Signed(signing) if signing.settings.contains(&key))
}

fn settings(scheme: &Scheme, section: &mut Section<'_>, world: &World<'_>) -> Settings {
    let authorities = |node: &Node| {
        let no = |why: &str| Problem::new(why, "write the file of the authorities' certificates in PEM");
        if takes(scheme, "ca") {
            Certificate::authorities(&from_file(node, world)?).map_err(no)
        } else {
            Ok(Vec::new())
        }
    };
    Settings {
        webhook_id: section.find("webhook_id").unwrap_or_default(),
        notification_url: section.find("notification_url").unwrap_or_default(),
        public_url: None,
        tolerance: section.find("tolerance"),
        ca: section.find_with("ca", authorities).unwrap_or_default(),
    }
}

/// A list of secrets; each is told apart by its place in the list.
fn secrets(
    key: &str,
    usual: &dyn Fn(&[u8]) -> SecretKind,
    table: &Table,
    section: &mut Section<'_>,
    world: &World<'_>,
) -> Vec<Secret> {
    listed(key, &|node| secret(node, usual, world), table, section)
}

/// A list of what is secret, with a warning where it stands in the file itself.
fn listed<T>(key: &str, one: &dyn Fn(&Node) -> Result<T, Problem>, table: &Table, section: &mut Section<'_>) -> Vec<T> {
    let read = section.find_with(key, |node| each(node, one)).unwrap_or_default();
    if written_in_clear(table.get(key)) {
        let message = "a secret stands in the file itself, for every reader and every backup of it";
        section.warn(key, message, "write { env = \"NAME\" } or { file = \"/path\" }");
    }
    read
}

/// Every fault of the list in one problem, so that all are told at once.
fn each<T>(node: &Node, one: &dyn Fn(&Node) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
    let form = "write a list: [{ env = \"NAME\" }, { file = \"/path\" }]";
    let Value::List(items) = &node.value else {
        return Err(Problem::new(format!("{} stands here", node.kind()), form));
    };
    let (mut read, mut messages, mut remedy) = (Vec::new(), Vec::new(), String::new());
    for (i, item) in items.iter().enumerate() {
        match one(item) {
            Ok(item) => read.push(item),
            Err(problem) => {
                messages.push(format!("[{i}]: {}", problem.message));
                remedy = problem.remedy;
            }
        }
    }
    if messages.is_empty() { Ok(read) } else { Err(Problem::new(messages.join("; "), remedy)) }
}

/// A key of an account: a secret, and whose it is where its provider goes by that.
fn api_key(node: &Node, world: &World<'_>) -> Result<ApiKey, Problem> {
    let named = |key: &str| node.as_table().and_then(|table| table.get(key)).map(String::read).transpose();
    let secret = secret_beside(&["account", "serial"], node, &|_| SecretKind::ApiKey, world)?;
    Ok(ApiKey { secret, account: named("account")?, serial: named("serial")? })
}

/// One secret, from the environment, from a file or from the text itself; `usual` tells its kind where it does not.
pub(super) fn secret(node: &Node, usual: &dyn Fn(&[u8]) -> SecretKind, world: &World<'_>) -> Result<Secret, Problem> {
    secret_beside(&[], node, usual, world)
}

/// The same, where these keys stand beside it.
fn secret_beside(
    others: &[&str],
    node: &Node,
    usual: &dyn Fn(&[u8]) -> SecretKind,
    world: &World<'_>,
) -> Result<Secret, Problem> {
    let form = "write { env = \"NAME\" } or { file = \"/path\" }";
    let table = node.as_table().ok_or_else(|| Problem::new(format!("{} is no secret", node.kind()), form))?;
    let known = |key: &str| matches!(key, "env" | "file" | "value" | "kind") || others.contains(&key);
    if let Some(key) = table.keys().find(|key| !known(key)) {
        return Err(Problem::new(format!("a secret has no `{key}`"), form));
    }
    let kind = table.get("kind").map(SecretKind::read).transpose()?;
    let bytes = match (table.get("env"), table.get("file"), table.get("value")) {
        (Some(name), None, None) => from_env(name, world)?,
        (None, Some(path), None) => from_file(path, world)?,
        (None, None, Some(value)) => full(String::read(value)?.into_bytes(), "`value`")?,
        _ => return Err(Problem::new("a secret comes from exactly one of `env`, `file` and `value`", form)),
    };
    Ok(Secret::new(kind.unwrap_or_else(|| usual(&bytes)), bytes))
}

fn from_env(node: &Node, world: &World<'_>) -> Result<Vec<u8>, Problem> {
    let name = String::read(node)?;
    match (world.env)(&name) {
        Some(value) => full(value.into_bytes(), &format!("the environment variable {name}")),
        None => Err(Problem::new(
            format!("the environment variable {name} is not set"),
            "set it for the gate, or leave the key out",
        )),
    }
}

fn from_file(node: &Node, world: &World<'_>) -> Result<Vec<u8>, Problem> {
    let path = std::path::PathBuf::read(node)?;
    let name = path.display();
    let mut bytes = (world.file)(&path).map_err(|error| {
        Problem::new(format!("the file {name} cannot be read: {error}"), "write it, and let the gate's user read it")
    })?;
    // Editors end a file with a line break that is no part of the secret.
    bytes.truncate(bytes.trim_ascii_end().len());
    full(bytes, &format!("the file {name}"))
}

fn full(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>, Problem> {
    if bytes.is_empty() { Err(Problem::new(format!("{what} is empty"), "put the secret there")) } else { Ok(bytes) }
}

fn written_in_clear(node: Option<&Node>) -> bool {
    let Some(Node { value: Value::List(items), .. }) = node else { return false };
    items.iter().any(is_written_in_clear)
}

/// Whether this secret stands in the text itself.
pub(super) fn is_written_in_clear(node: &Node) -> bool {
    node.as_table().is_some_and(|table| table.contains_key("value"))
}

/// The address of an API, without a slash at its end.
pub fn api_url(node: &Node) -> Result<String, Problem> {
    let no = || Problem::new(format!("{node} is no address of an API"), "write \"https://api.example.org\"");
    let text = node.as_text().ok_or_else(no)?;
    let uri: Uri = text.parse().map_err(|_| no())?;
    // A password would stand in each line of the log that tells of a failure.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some() {
        let message = "an address of an API has neither a user nor a query in it";
        return Err(Problem::new(message, "write \"https://api.example.org\", and what opens it in its own key"));
    }
    let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if web { Ok(text.trim_end_matches('/').to_owned()) } else { Err(no()) }
}
