//! Where TLS is spoken, and with which certificates.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use http::Uri;

use super::{
    provider::World,
    report::Report,
    section::{Document, Row, Section, rows},
    setting::{Problem, Setting, Word},
    tree::Node,
};
use crate::{
    acme::{self, Proof},
    ingress::tls::{Certificate, Entry, Files, FilesError},
    time::{Clock, SystemClock},
};

/// A certificate, and where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// What it is called in logs and figures: its first name.
    pub label: Arc<str>,
    /// The addresses.
    pub listen: Vec<SocketAddr>,
    /// The names it is shown for, where they are not those that stand in it.
    pub names: Vec<String>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From files.
    Files {
        /// The files.
        files: Files,
        /// What they held when the configuration was read.
        certificate: Arc<Certificate>,
    },
    /// From the authority in `[acme]`.
    Acme,
}

impl TlsOptions {
    /// The files it comes from, if it does.
    #[must_use]
    pub const fn files(&self) -> Option<&Files> {
        match &self.source {
            Source::Files { files, .. } => Some(files),
            Source::Acme => None,
        }
    }

    /// The entry in the ring of certificates.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry {
            label: Arc::clone(&self.label),
            listen: self.listen.clone(),
            names: self.names.clone(),
            certificate: match &self.source {
                Source::Files { certificate, .. } => Some(Arc::clone(certificate)),
                Source::Acme => None,
            },
        }
    }
}

/// The name of a host, or of all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostName(String);

impl Setting for HostName {
    fn read(node: &Node) -> Result<Self, Problem> {
        let no =
            || Problem::new(format!("{node} is no name of a host"), "write \"pay.example.org\" or \"*.example.org\"");
        let name = node.as_text().ok_or_else(no)?.to_ascii_lowercase();
        let label = |label: &str| {
            let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(fine)
        };
        let bare = name.strip_prefix("*.").unwrap_or(&name);
        if bare.len() <= 253 && bare.split('.').all(label) { Ok(Self(name)) } else { Err(no()) }
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Reads every `[[tls]]`; `plain` are the addresses at which TLS is not spoken.
pub fn read(
    documents: &[Document],
    plain: &[SocketAddr],
    agreed: bool,
    world: &World<'_>,
    report: &mut Report,
) -> Vec<TlsOptions> {
    let mut all: Vec<TlsOptions> = Vec::new();
    for document in documents {
        for row in rows(document, "tls", report) {
            let mut section = Section::single("tls", row.path.clone(), row.source, row.table, report);
            if let Some(mut options) = one(&row, plain, agreed, &mut section, world) {
                options.label = told_apart(&options.label, &all);
                all.push(options);
            }
        }
    }
    all
}

/// Two certificates for one name, of different algorithms, are two figures.
fn told_apart(label: &Arc<str>, others: &[TlsOptions]) -> Arc<str> {
    let taken = |label: &str| others.iter().any(|other| &*other.label == label);
    let numbered = (2..).map(|n| Arc::from(format!("{label}-{n}")));
    std::iter::once(Arc::clone(label)).chain(numbered).find(|label| !taken(label)).unwrap_or_default()
}

fn one(
    row: &Row<'_>,
    plain: &[SocketAddr],
    agreed: bool,
    section: &mut Section<'_>,
    world: &World<'_>,
) -> Option<TlsOptions> {
    let listen = section.get("listen", vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443))]);
    if listen.is_empty() {
        section.fault("listen", "the certificate is shown nowhere", "write at least one address");
    }
    for address in listen.iter().filter(|address| address.port() != 0 && plain.contains(address)) {
        section.fault(
            "listen",
            format!("{address} stands in gateway.listen too, where TLS is not spoken"),
            "take it out of one of them",
        );
    }
    let names = section.find::<Vec<HostName>>("names").unwrap_or_default();
    let names: Vec<String> = names.into_iter().map(|name| name.0).collect();
    let certificate = section.find::<PathBuf>("certificate");
    let key = section.find::<PathBuf>("key");
    let source = match (certificate, key) {
        (Some(certificate), Some(key)) => from_files(Files { certificate, key }, &names, section, world)?,
        (None, None) if !row.table.contains_key("certificate") && !row.table.contains_key("key") => {
            from_authority(&names, agreed, section)?
        }
        _ => {
            for missing in ["certificate", "key"].into_iter().filter(|key| !row.table.contains_key(*key)) {
                section.fault(missing, "it is missing", "write the name of the file");
            }
            return None;
        }
    };
    let own = match &source {
        Source::Files { certificate, .. } => certificate.names().first(),
        Source::Acme => None,
    };
    let label = names.first().or(own).map_or("unnamed", String::as_str);
    Some(TlsOptions { label: Arc::from(label), listen, names, source })
}

fn from_files(files: Files, names: &[String], section: &mut Section<'_>, world: &World<'_>) -> Option<Source> {
    let certificate = match files.load(world.file) {
        Ok(certificate) => certificate,
        Err(error) => {
            section.fault(at_fault(&error, &files), error.to_string(), remedy(&error));
            return None;
        }
    };
    if (world.readable_by_all)(&files.key) {
        section.warn("key", "every user of this machine can read the key", "chmod o-rwx it");
    }
    warn_of_dates(&certificate, section);
    warn_of_names(&certificate, names, section);
    Some(Source::Files { files, certificate: Arc::new(certificate) })
}

fn from_authority(names: &[String], agreed: bool, section: &mut Section<'_>) -> Option<Source> {
    if !agreed {
        section.fault(
            "certificate",
            "there is none, and none may be had from an authority",
            "write `certificate` and `key`, or agree to the authority's terms: acme.agree_to_terms = true",
        );
        return None;
    }
    if names.is_empty() || names.iter().any(|name| name.starts_with('*')) {
        let message = "the authority has to be told whole names, each of which it can ask for a proof";
        section.fault("names", message, "write names = [\"pay.example.org\"]");
        return None;
    }
    Some(Source::Acme)
}

/// Reads `[acme]`.
pub fn read_acme(section: &mut Section<'_>) -> acme::Options {
    let default = acme::Options::default();
    let directory = section.get_with("directory", default.directory, directory);
    if directory.starts_with("http:") {
        section.warn("directory", "whoever is in between can be the authority", "write https://");
    }
    acme::Options {
        directory,
        contact: section.get("contact", default.contact),
        agree_to_terms: section.get("agree_to_terms", default.agree_to_terms),
        path: section.get("path", default.path),
        challenge: section.get("challenge", default.challenge),
        ca: section.find("ca"),
        pause: default.pause,
    }
}

impl Word for Proof {
    const WORDS: &'static [(&'static str, Self)] = &[("http-01", Self::Http), ("tls-alpn-01", Self::TlsAlpn)];
}

fn directory(node: &Node) -> Result<String, Problem> {
    let no = || Problem::new(format!("{node} is no address of an authority"), "write an https:// URL");
    let text = node.as_text().ok_or_else(no)?;
    let uri: Uri = text.parse().map_err(|_| no())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if web { Ok(text.to_owned()) } else { Err(no()) }
}

fn at_fault(error: &FilesError, files: &Files) -> &'static str {
    let (FilesError::Unreadable { path, .. } | FilesError::Unfit { path, .. }) = error;
    if *path == files.certificate { "certificate" } else { "key" }
}

const fn remedy(error: &FilesError) -> &'static str {
    match error {
        FilesError::Unreadable { .. } => "write it, and let the gate's user read it",
        FilesError::Unfit { .. } => {
            "write PEM: the server's own certificate and those that vouch for it in one file, its private key without a \
             password in the other"
        }
    }
}

fn warn_of_dates(certificate: &Certificate, section: &mut Section<'_>) {
    let now = SystemClock.now();
    if certificate.expires() <= now {
        let message = format!("the certificate has expired at {}", certificate.expires());
        section.warn("certificate", message, "renew it; it is taken up when the file changes");
    } else if certificate.begins() > now {
        section.warn("certificate", format!("the certificate is not valid before {}", certificate.begins()), "wait");
    }
}

fn warn_of_names(certificate: &Certificate, names: &[String], section: &mut Section<'_>) {
    let known = certificate.names();
    let covers = |name: &String| {
        let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        known.contains(name) || parent.is_some_and(|parent| known.contains(&parent))
    };
    let foreign: Vec<_> = names.iter().filter(|name| !covers(name)).map(String::as_str).collect();
    if !foreign.is_empty() {
        let message = format!("the certificate is not for {}, but for {}", foreign.join(", "), known.join(", "));
        section.warn("names", message, "leave `names` out, or get a certificate for them");
    }
}
