//! Who the client is, as far as the peer may be believed, and how that is told to the app.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{FORWARDED, HOST},
};
use ipnet::IpNet;

use super::headers::remove_all;
use crate::digits::push_address;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Fields in which a proxy names the client or the way it came, beside `Forwarded` and all of `X-Forwarded-*`.
const TELLING: &[&str] = &[
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "fastly-client-ip",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
];

/// Those of them that a trusted proxy may pass on, because apps read them by themselves.
const KEPT_WHEN_TRUSTED: &[&str] = &["cf-connecting-ip", "cf-connecting-ipv6", "true-client-ip"];

/// The client as the app shall see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its one address, a mapped IPv4 address folded.
    pub address: IpAddr,
    /// Whether it spoke https to the first of the proxies we trust, or to us.
    pub https: bool,
    /// The host it asked for, with the port as it named it.
    pub host: HeaderValue,
    /// The port it asked for.
    pub port: u16,
    /// Whether the peer is a proxy that we trust.
    pub trusted_peer: bool,
}

impl Client {
    /// Reads who the client is.
    ///
    /// A peer counts as trusted only if `trusted` lists it, loopback too. Of a trusted peer's `X-Forwarded-For` (or,
    /// without one, its `Forwarded`) the trusted hops are counted from the right: the first address that is not
    /// trusted is the client. What is not an address ends the count, and the last good hop is the client.
    #[must_use]
    pub fn of(peer: SocketAddr, tls: bool, uri: &Uri, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let address = peer.ip().to_canonical();
        let host = headers.get(HOST).cloned().unwrap_or_else(|| authority_of(uri));
        if !is_trusted(address, trusted) {
            let port = port_of(&host, tls);
            return Self { address, https: tls, host, port, trusted_peer: false };
        }
        let told = Told::read(headers);
        let https = told.https.unwrap_or(tls);
        let host = told.host.unwrap_or(host);
        let port = told.port.unwrap_or_else(|| port_of(&host, https));
        Self { address: farthest(address, &told.hops, trusted), https, host, port, trusted_peer: true }
    }

    /// `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Replaces all that the peer told of the client by what we know; `Host` stays as it is.
    pub fn write(&self, headers: &mut HeaderMap) {
        // Dropped is what names the client or the way it came, under any of its spellings.
        remove_all(headers, |name| is_telling(name, self.trusted_peer));
        headers.reserve(4);
        headers.insert(&X_FORWARDED_FOR, address_value(self.address));
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        headers.insert(&X_FORWARDED_HOST, self.host.clone());
        headers.insert(&X_FORWARDED_PORT, port_value(self.port));
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    // An address is always a valid value; it is its own most careful replacement.
    let mut text = String::with_capacity(40);
    push_address(&mut text, address);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn port_value(port: u16) -> HeaderValue {
    match port {
        80 => HeaderValue::from_static("80"),
        443 => HeaderValue::from_static("443"),
        other => HeaderValue::from(other),
    }
}

fn authority_of(uri: &Uri) -> HeaderValue {
    uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()).unwrap_or_else(|| HeaderValue::from_static(""))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn port_of(host: &HeaderValue, https: bool) -> u16 {
    let named = host.to_str().ok().and_then(|h| h.rsplit_once(':')).and_then(|(_, port)| port.parse().ok());
    named.unwrap_or(if https { 443 } else { 80 })
}

fn is_telling(name: &HeaderName, trusted_peer: bool) -> bool {
    let text = name.as_str();
    // CGI makes one variable of `X-Real-Ip` and `X_Real_Ip`, so that the twin would speak for the other.
    if text.contains('_') {
        let twin = text.replace('_', "-");
        return is_telling_text(&twin, false) || super::headers::is_reserved(&twin);
    }
    is_telling_text(text, trusted_peer)
}

fn is_telling_text(text: &str, trusted_peer: bool) -> bool {
    // Most names of a request start otherwise, and are done here.
    if !matches!(text.as_bytes().first(), Some(b'x' | b'f' | b'c' | b't')) {
        return false;
    }
    text == FORWARDED.as_str()
        || text == "forwarded-for"
        || text.starts_with("x-forwarded")
        || TELLING.contains(&text)
        || (!trusted_peer && KEPT_WHEN_TRUSTED.contains(&text))
}

/// What a trusted proxy says.
#[derive(Default)]
struct Told {
    /// The hops from left to right; `None` where it is no address.
    hops: Vec<Option<IpAddr>>,
    https: Option<bool>,
    host: Option<HeaderValue>,
    port: Option<u16>,
}

impl Told {
    fn read(headers: &HeaderMap) -> Self {
        let mut told = if headers.contains_key(&X_FORWARDED_FOR) {
            Self { hops: list(headers, &X_FORWARDED_FOR).map(|hop| node(hop.trim())).collect(), ..Self::default() }
        } else {
            Self::from_forwarded(headers)
        };
        // A list is in the order of the hops: the first is what the client did.
        let first = |name| list(headers, name).next();
        told.https = first(&X_FORWARDED_PROTO).and_then(scheme).or(told.https);
        told.host = first(&X_FORWARDED_HOST).and_then(host_value).or(told.host);
        told.port = first(&X_FORWARDED_PORT).and_then(|p| p.parse().ok()).or(told.port);
        told
    }

    fn from_forwarded(headers: &HeaderMap) -> Self {
        let mut told = Self::default();
        let lines = headers.get_all(FORWARDED).iter().filter_map(|v| v.to_str().ok());
        for element in lines.flat_map(|line| split_quoted(line, ',')) {
            let mut hop = None;
            for pair in split_quoted(element, ';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = unquoted(value.trim());
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => hop = node(&value),
                    "proto" => told.https = told.https.or_else(|| scheme(&value)),
                    "host" => told.host = told.host.take().or_else(|| host_value(&value)),
                    _ => {}
                }
            }
            told.hops.push(hop);
        }
        told
    }
}

fn farthest(peer: IpAddr, hops: &[Option<IpAddr>], trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Some(address) = hop else { break };
        client = *address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim)
}

fn scheme(text: &str) -> Option<bool> {
    match text {
        t if t.eq_ignore_ascii_case("https") => Some(true),
        t if t.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

fn host_value(text: &str) -> Option<HeaderValue> {
    super::headers::is_authority(text.as_bytes()).then(|| HeaderValue::from_str(text).ok())?
}

/// The address of a hop: bare, with a port, or in brackets; obfuscated names and `unknown` are none.
fn node(text: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once(']')?.0.parse().ok()
    } else if let Ok(address) = text.parse() {
        Some(address)
    } else {
        text.split_once(':')?.0.parse().ok()
    };
    address.map(|a: IpAddr| a.to_canonical())
}

/// Splits at `separator` where it does not stand in a quoted string.
fn split_quoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(inner) => {
            let mut escaped = false;
            inner
                .chars()
                .filter(|c| {
                    escaped = !escaped && *c == '\\';
                    !escaped
                })
                .collect()
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("pay.example"));
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn client(peer: &str, trusted: &[&str], lines: &[(&'static str, &'static str)]) -> Client {
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        Client::of(peer, false, &Uri::from_static("/"), &headers(lines), &trusted)
    }

    fn address(peer: &str, trusted: &[&str], lines: &[(&'static str, &'static str)]) -> String {
        client(peer, trusted, lines).address.to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let lie =
            [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4;proto=https"), ("x-forwarded-proto", "https")];
        assert_eq!(address("203.0.113.9", &["10.0.0.0/8"], &lie), "203.0.113.9");
        assert!(!client("203.0.113.9", &["10.0.0.0/8"], &lie).https);
        assert_eq!(address("127.0.0.1", &[], &lie), "127.0.0.1", "loopback is not trusted by itself");
        assert_eq!(address("::1", &[], &lie), "::1");
    }

    #[test]
    fn a_mapped_address_is_folded_before_anything_is_compared() {
        assert_eq!(address("::ffff:203.0.113.9", &[], &[]), "203.0.113.9");
        assert_eq!(
            address("::ffff:10.0.0.1", &["10.0.0.0/8"], &[("x-forwarded-for", "::ffff:192.0.2.7")]),
            "192.0.2.7"
        );
    }

    #[test]
    fn trusted_hops_are_counted_from_the_right() {
        let chain = |value| [("x-forwarded-for", value)];
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(address("10.0.0.1", &trusted, &chain("6.6.6.6, 192.0.2.7, 10.9.9.9")), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &trusted, &chain("10.1.1.1, 10.2.2.2")), "10.1.1.1");
        assert_eq!(address("10.0.0.1", &trusted, &chain("192.0.2.7, what, fd00::5")), "fd00::5");
        assert_eq!(address("10.0.0.1", &trusted, &chain("192.0.2.7:1234")), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &trusted, &chain("[2001:db8::7]:80")), "2001:db8::7");
        assert_eq!(address("10.0.0.1", &trusted, &chain("")), "10.0.0.1");
        assert_eq!(
            address("10.0.0.1", &trusted, &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.7")]),
            "192.0.2.7"
        );
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_ports_and_hidden_names() {
        let said = |value| [("forwarded", value)];
        let trusted = ["10.0.0.0/8"];
        assert_eq!(address("10.0.0.1", &trusted, &said("for=192.0.2.7;proto=https")), "192.0.2.7");
        assert_eq!(
            address("10.0.0.1", &trusted, &said(r#"For="[2001:db8:cafe::17]:4711", for=10.3.3.3"#)),
            "2001:db8:cafe::17"
        );
        assert_eq!(address("10.0.0.1", &trusted, &said(r#"for=192.0.2.7, for="_hidden,;x""#)), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &trusted, &said("for=192.0.2.7, for=unknown")), "10.0.0.1");
        let client = client("10.0.0.1", &trusted, &said(r#"for=192.0.2.7;host="shop.example:8443";proto=HTTPS"#));
        assert!(client.https);
        assert_eq!((client.host.to_str().unwrap(), client.port), ("shop.example:8443", 8443));
    }

    #[test]
    fn the_app_hears_of_one_address_and_of_nothing_the_client_made_up() {
        let said = [
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x_forwarded_for", "3.3.3.3"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "4.4.4.4"),
            ("cf-connecting-ip", "5.5.5.5"),
            ("true-client-ip", "6.6.6.6"),
            ("forwarded", "for=7.7.7.7"),
            ("content_length", "8"),
            ("x-hub-signature", "sha256=1"),
        ];
        let mut out = headers(&said);
        client("203.0.113.9", &[], &said).write(&mut out);
        let mut left: Vec<_> = out.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "host: pay.example",
                "x-forwarded-for: 203.0.113.9",
                "x-forwarded-host: pay.example",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-hub-signature: sha256=1",
            ]
        );
    }

    #[test]
    fn a_trusted_proxy_may_name_the_client_in_its_own_field() {
        let said =
            [("cf-connecting-ip", "192.0.2.7"), ("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
        let mut out = headers(&said);
        client("10.0.0.1", &["10.0.0.0/8"], &said).write(&mut out);
        assert_eq!(out["cf-connecting-ip"], "192.0.2.7");
        assert_eq!(
            (&out["x-forwarded-proto"], &out["x-forwarded-port"]),
            (&"https".parse().unwrap(), &"443".parse().unwrap())
        );
    }
}
