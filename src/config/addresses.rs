//! Whether the addresses of one configuration get in each other's way: two at one place, or the gate before itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::Uri;

use super::{
    options::{AdminOptions, GatewayOptions, UpstreamOptions},
    report::Report,
    section::{Document, Section},
    tls::TlsOptions,
};

const LISTEN: &str = "give one of them another port, or take it out";
const LOOP: &str = "write the address of the app, or have the gate listen at another port";

/// Says which get in whose way.
pub fn check(
    gateway: &GatewayOptions,
    tls: &[TlsOptions],
    admin: &AdminOptions,
    upstream: &UpstreamOptions,
    documents: &[Document],
    report: &mut Report,
) {
    for (at, one) in gateway.listen.iter().enumerate() {
        let _told = gateway.listen[..at]
            .iter()
            .any(|other| collide("gateway", *one, *other, "gateway.listen", documents, report));
    }
    let plain = gateway.listen.iter().map(|address| (*address, "gateway.listen"));
    let shown = tls.iter().flat_map(|options| &options.listen).map(|address| (*address, "a [[tls]]"));
    let doors: Vec<_> = plain.chain(shown).collect();
    if let Some(own) = admin.listen {
        let _told = doors.iter().any(|(other, place)| collide("admin", own, *other, place, documents, report));
    }
    let all = doors.into_iter().chain(admin.listen.map(|address| (address, "admin.listen")));
    leads_back(&upstream.url, all, documents, report);
}

/// Two addresses at which the gate is to listen; whether something was said of them.
fn collide(
    section: &'static str,
    one: SocketAddr,
    other: SocketAddr,
    place: &str,
    documents: &[Document],
    report: &mut Report,
) -> bool {
    if one.port() == 0 || one.port() != other.port() {
        return false;
    }
    let (mine, others) = (one.ip().to_canonical(), other.ip().to_canonical());
    if mine == others {
        let message = if section == "gateway" {
            format!("{one} stands here more than once")
        } else {
            format!("{one} stands in {place} too")
        };
        Section::open(section, documents, report).fault("listen", message, LISTEN);
    } else if covers(mine, others) || covers(others, mine) {
        let message = format!("{one} and {other} of {place} may be one place, where only one of them can be had");
        Section::open(section, documents, report).warn("listen", message, LISTEN);
    } else {
        return false;
    }
    true
}

/// The app's address, and those at which the gate itself is met.
fn leads_back<'p>(
    url: &str,
    own: impl Iterator<Item = (SocketAddr, &'p str)>,
    documents: &[Document],
    report: &mut Report,
) {
    let Some((hosts, port)) = asked(url) else { return };
    let met = |own: SocketAddr, host: &IpAddr| {
        let (own, here) = (own.ip().to_canonical(), host.is_loopback() || host.is_unspecified());
        own == *host || here && covers(own, *host) || host.is_unspecified() && own.is_loopback() && covers(*host, own)
    };
    for (address, place) in own.filter(|(address, _)| address.port() == port) {
        let count = hosts.iter().filter(|host| met(address, host)).count();
        if count == 0 {
            continue;
        }
        let mut section = Section::open("upstream", documents, report);
        if count == hosts.len() {
            section.fault("url", format!("{url} is the gate itself ({address} of {place}), and no app"), LOOP);
        } else {
            section.warn("url", format!("{url} may be the gate itself ({address} of {place})"), LOOP);
        }
        return;
    }
}

/// The addresses that a URL surely means, and the port; of other names nobody knows here.
fn asked(url: &str) -> Option<(Vec<IpAddr>, u16)> {
    let uri: Uri = url.parse().ok()?;
    let usual = if uri.scheme_str()? == "https" { 443 } else { 80 };
    let host = uri.host()?;
    let hosts = if host.eq_ignore_ascii_case("localhost") {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        vec![bare.parse::<IpAddr>().ok()?.to_canonical()]
    };
    Some((hosts, uri.port_u16().unwrap_or(usual)))
}

/// Whether who listens at `wide` hears what is sent to `narrow`: `[::]` hears both families.
fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
}
