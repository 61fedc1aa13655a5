//! The configuration as a whole: loads it, lays it over preset and sample, and tells every fault at once.

mod addresses;
pub mod change;
pub mod keys;
mod lookup;
pub mod options;
pub mod provider;
pub mod report;
mod rules;
mod section;
mod setting;
mod tls;
mod tree;
mod windows;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

pub use self::{
    options::{AdminOptions, Engine, GatewayOptions, StoreOptions, UpstreamOptions},
    provider::{ProviderOptions, World},
    report::{Effective, Finding, Origin, Report, Source},
    tls::{Source as CertificateSource, TlsOptions},
};
use self::{
    section::{Document, Section},
    setting::Problem,
    tree::Node,
};
use crate::{
    acme,
    provider::{contract::Keyring, inquiry::Apis},
    rule::Rules,
    telemetry::LogOptions,
    transaction::policy::OnUnknown,
    watch::Content,
};

/// The sample, which is the default: the values of its sections hold where the user's file says nothing.
pub const SAMPLE: &str = include_str!("../config.toml");

/// The presets by name.
const PRESETS: &[(&str, &str)] = &[("invoice-ninja", include_str!("config/invoice-ninja.toml"))];

/// Everything the gate is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The preset it was laid over.
    pub preset: Option<&'static str>,
    /// Where the gate listens, and its bounds.
    pub gateway: GatewayOptions,
    /// Where TLS is spoken, and with which certificates.
    pub tls: Vec<TlsOptions>,
    /// The authority that certificates may come from.
    pub acme: acme::Options,
    /// Where the app is.
    pub upstream: UpstreamOptions,
    /// What is remembered.
    pub store: StoreOptions,
    /// Where operators look in.
    pub admin: AdminOptions,
    /// What is logged.
    pub log: LogOptions,
    /// The app's own database, if it may be asked.
    pub lookup: Option<crate::lookup::Options>,
    /// What the user has of each provider.
    pub providers: Vec<ProviderOptions>,
    /// Which requests are callbacks, and what is done with them.
    pub rules: Rules,
}

impl Config {
    /// Whom to ask what has become of payments.
    #[must_use]
    pub fn apis(&self) -> Apis {
        provider::apis(&self.providers)
    }

    /// What a provider's callbacks may be signed with, if anything is configured.
    #[must_use]
    pub fn keyring(&self, provider: &str) -> Option<&Keyring> {
        self.providers.iter().find(|options| options.provider.name == provider).map(|options| &options.keyring)
    }
}

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Loaded {
    config: Config,
    /// What keeps the gate from running, in the order of the file.
    pub faults: Vec<Finding>,
    /// What it runs with all the same.
    pub warnings: Vec<Finding>,
    /// Every value in force, and where it came from.
    pub effective: Vec<Effective>,
    /// Every file that was read, or could not be, and what it was.
    pub files: Vec<(PathBuf, Content)>,
}

impl Loaded {
    /// Loads a file; that it cannot be read is a fault like any other.
    #[must_use]
    pub fn from_file(path: &Path, world: &World<'_>) -> Self {
        let name = path.display().to_string();
        let read = (world.file)(path);
        let content = content(&read);
        let (text, fault) = match read.map(String::from_utf8) {
            Ok(Ok(text)) => (text, None),
            Ok(Err(_)) => (String::new(), Some("the file is no UTF-8 text".to_owned())),
            Err(error) => (String::new(), Some(format!("the file cannot be read: {error}"))),
        };
        let mut loaded = Self::from_text(&name, &text, world);
        loaded.files.insert(0, (path.to_owned(), content));
        loaded.faults.extend(fault.map(|message| Finding {
            origin: Origin { source: Source::File(name.into()), line: None },
            path: String::new(),
            message,
            remedy: "name another with --config, or begin with the config.toml that comes with Oncegate".to_owned(),
        }));
        loaded
    }

    /// Loads a text that is called `name` in messages.
    #[must_use]
    pub fn from_text(name: &str, text: &str, world: &World<'_>) -> Self {
        let mut report = Report::default();
        let user = document(Source::File(name.into()), text, &mut report);
        let preset = preset(std::slice::from_ref(&user), &mut report);
        let mut documents = vec![user];
        if let Some((name, text)) = preset {
            documents.push(document(Source::Preset(name), text, &mut report));
        }
        let files = RefCell::new(Vec::new());
        let file = |path: &Path| {
            let read = (world.file)(path);
            files.borrow_mut().push((path.to_owned(), content(&read)));
            read
        };
        let config = read(preset.map(|(name, _)| name), documents, &World { file: &file, ..*world }, &mut report);
        let Report { mut faults, warnings, effective } = report;
        faults.sort_by_key(|fault| fault.origin.line);
        let mut files = files.into_inner();
        if faults.is_empty() {
            // What they hold is taken up when it changes, without the configuration.
            let is_certificate = |path: &Path| {
                config.tls.iter().filter_map(TlsOptions::files).any(|f| path == f.certificate || path == f.key)
            };
            files.retain(|(path, _)| !is_certificate(path));
        }
        Self { config, faults, warnings, effective, files }
    }

    /// Where operators look in, as far as that could be read, whatever else is wrong.
    #[must_use]
    pub const fn admin(&self) -> &AdminOptions {
        &self.config.admin
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    ///
    /// Every fault.
    pub fn into_config(self) -> Result<Config, Vec<Finding>> {
        if self.faults.is_empty() { Ok(self.config) } else { Err(self.faults) }
    }
}

fn content(read: &std::io::Result<Vec<u8>>) -> Content {
    read.as_ref().map_or_else(|error| Content::Unreadable(error.kind()), |bytes| Content::of(bytes))
}

fn document(source: Source, text: &str, report: &mut Report) -> Document {
    let (root, errors) = tree::parse(text);
    report.faults.extend(errors.into_iter().map(|error| Finding {
        origin: Origin { source: source.clone(), line: error.line },
        path: String::new(),
        message: format!("this is no TOML: {}", error.message),
        remedy: "see https://toml.io".to_owned(),
    }));
    Document { source, root }
}

fn preset(user: &[Document], report: &mut Report) -> Option<(&'static str, &'static str)> {
    Section::root(user, report).find_with("preset", |node: &Node| {
        let known = || PRESETS.iter().map(|(name, _)| *name);
        let typed = node.as_text().unwrap_or_default();
        PRESETS.iter().find(|(name, _)| *name == typed).copied().ok_or_else(|| {
            let near =
                keys::nearest(typed, known()).map_or_else(String::new, |name| format!("did you mean {name:?}? "));
            let remedy = format!("{near}known: {}", known().collect::<Vec<_>>().join(", "));
            Problem::new(format!("{node} is no preset"), remedy)
        })
    })
}

/// Rules and providers come from the user and the preset only; the sample's stand there to be read.
fn read(preset: Option<&'static str>, mut documents: Vec<Document>, world: &World<'_>, report: &mut Report) -> Config {
    let mut providers = provider::read(&documents, world, report);
    let rules = rules::read(&documents, world, report);
    documents.push(document(Source::Sample, SAMPLE, report));
    let gateway = GatewayOptions::read(&mut Section::open("gateway", &documents, report));
    let acme = tls::read_acme(&mut Section::open("acme", &documents, report));
    let tls = tls::read(&documents, &gateway.listen, acme.agree_to_terms, world, report);
    if gateway.listen.is_empty() && tls.is_empty() {
        let mut section = Section::open("gateway", &documents, report);
        section.fault("listen", "the gate listens nowhere", "write at least one address, or a [[tls]]");
    }
    let store = StoreOptions::read(&mut Section::open("store", &documents, report), world);
    if gateway.reuse_port && store.engine == Engine::Memory {
        let mut section = Section::open("gateway", &documents, report);
        let message = "two gates side by side do not know of each other's locks: one payment may be in the app twice";
        section.warn("reuse_port", message, "let systemd keep the sockets between one gate and the next (README.md)");
    }
    let upstream = UpstreamOptions::read(&mut Section::open("upstream", &documents, report), world);
    let admin = AdminOptions::read(&mut Section::open("admin", &documents, report), world);
    addresses::check(&gateway, &tls, &admin, &upstream, &documents, report);
    let lookup = lookup::read(&mut Section::open("lookup", &documents, report), world);
    let mut base = windows::base_policy(&upstream, &store.engine);
    if lookup.as_ref().is_some_and(|options| !options.booked.is_empty()) {
        base.on_unknown = OnUnknown::Confirm;
    } else {
        rules::check_books(&rules, report);
    }
    rules::check_engine(&rules, &store.engine, report);
    report.effective.extend(rules::defaults(&base));
    let configured: Vec<_> = providers.iter().map(|options| options.provider).collect();
    windows::check(&rules, &base, &configured, &provider::apis(&providers), lookup.as_ref(), world, report);
    provider::check_addresses(&providers, gateway.public_url.as_deref(), report);
    providers.iter_mut().for_each(|options| options.at(gateway.public_url.as_deref()));
    Config {
        preset,
        gateway,
        tls,
        acme,
        store,
        admin,
        lookup,
        log: options::read_log(&mut Section::open("log", &documents, report)),
        upstream,
        providers,
        rules: Rules::new(rules.into_iter().map(|placed| placed.rule).collect(), base),
    }
}

#[cfg(test)]
mod tests;
