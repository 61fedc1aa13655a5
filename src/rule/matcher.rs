//! What a rule matches on; an empty list matches everything.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, Method, header::HeaderValue};
use ipnet::IpNet;

use crate::{
    expression::Expression,
    rule::{
        Head,
        path::{NormalPath, Template},
    },
};

/// The conditions of a rule, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matcher {
    /// One of these methods.
    pub methods: Vec<Method>,
    /// One of these paths.
    pub paths: Vec<Template>,
    /// One of these hosts.
    pub hosts: Vec<HostPattern>,
    /// All of these header fields.
    pub headers: Vec<HeaderPattern>,
    /// From one of these networks.
    pub sources: Vec<IpNet>,
    /// And this.
    pub when: Option<Arc<Expression>>,
}

impl Matcher {
    /// Whether it can only be answered for an event.
    #[must_use]
    pub fn reads_event(&self) -> bool {
        self.when.as_ref().is_some_and(|when| when.reads("event"))
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
            && self.paths.is_empty()
            && self.hosts.is_empty()
            && self.headers.is_empty()
            && self.sources.is_empty()
            && self.when.is_none()
    }

    /// Whether a request meets every condition but `when`; the path first, for it tells most requests apart.
    #[must_use]
    pub fn takes(&self, head: &Head<'_>, path: &NormalPath<'_>) -> bool {
        any(&self.paths, |template| template.matches(path))
            && any(&self.methods, |method| serves(method, head.method))
            && any(&self.hosts, |host| host.matches(head.host))
            && self.headers.iter().all(|header| header.matches(head.headers))
            && any(&self.sources, |network| contains(network, head.source))
    }

    /// The named segments of the first path that matches.
    #[must_use]
    pub fn segments(&self, path: &NormalPath<'_>) -> Vec<(Arc<str>, String)> {
        self.paths.iter().find_map(|template| template.values(path)).unwrap_or_default()
    }
}

/// Frameworks run what they have for GET on HEAD too, and leave the body out.
fn serves(method: &Method, asked: &Method) -> bool {
    method == asked || (method == Method::GET && asked == Method::HEAD)
}

fn any<T>(conditions: &[T], matches: impl Fn(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(matches)
}

/// An IPv4 address that comes in IPv6 clothes is an IPv4 address.
fn contains(network: &IpNet, source: IpAddr) -> bool {
    network.contains(&source.to_canonical())
}

/// A host: `pay.example.org`, `pay.example.org:8443`, `*.example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern(String);

impl HostPattern {
    /// Reads a pattern; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
        (!name.is_empty() && name.chars().all(fits)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether a host matches, whatever its case; the port counts only where the pattern has one.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = if has_port(&self.0) { host } else { without_port(host) };
        match self.0.strip_prefix('*') {
            Some(suffix) => {
                host.len() > suffix.len()
                    && host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            None => host.eq_ignore_ascii_case(&self.0),
        }
    }
}

fn has_port(host: &str) -> bool {
    without_port(host).len() < host.len()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// A header field that must be there: `X-Event`, or `X-Event: value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderPattern {
    name: HeaderName,
    value: Option<HeaderValue>,
}

impl HeaderPattern {
    /// Reads a pattern; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(HeaderValue::from_str(value.trim()).ok()?)),
            None => (text, None),
        };
        Some(Self { name: name.trim().parse().ok()?, value })
    }

    fn matches(&self, headers: &http::HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(value) => headers.get_all(&self.name).iter().any(|v| v == value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_matches_by_name_by_port_and_by_suffix() {
        let matches = |pattern, host| HostPattern::parse(pattern).unwrap().matches(host);
        assert!(matches("pay.example.org", "Pay.Example.org"));
        assert!(matches("pay.example.org", "pay.example.org:8443"));
        assert!(!matches("pay.example.org:443", "pay.example.org:8443"));
        assert!(matches("*.example.org", "pay.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("*.example.org", "pay.example.org.evil.test"));
        assert!(matches("[::1]", "[::1]:80"));
        assert_eq!(HostPattern::parse("a b"), None);
        assert_eq!(HostPattern::parse(""), None);
    }

    #[test]
    fn a_mapped_address_is_in_its_ipv4_network() {
        let network: IpNet = "192.0.2.0/24".parse().unwrap();
        assert!(contains(&network, "::ffff:192.0.2.7".parse().unwrap()));
        assert!(!contains(&network, "2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_header_matches_by_name_or_by_value() {
        let headers = http::HeaderMap::from_iter([(http::header::USER_AGENT, HeaderValue::from_static("Mollie"))]);
        assert!(HeaderPattern::parse("user-agent").unwrap().matches(&headers));
        assert!(HeaderPattern::parse("User-Agent: Mollie").unwrap().matches(&headers));
        assert!(!HeaderPattern::parse("User-Agent: curl").unwrap().matches(&headers));
        assert_eq!(HeaderPattern::parse("User Agent"), None);
    }
}
