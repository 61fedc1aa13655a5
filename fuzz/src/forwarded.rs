//! Who the client is, by the fields of proxies: a request on the wire, come from a proxy that is believed or from nobody.

use std::{net::SocketAddr, sync::LazyLock};

use http::header::HOST;
use ipnet::IpNet;
use oncegate::ingress::{forwarded::Client, headers::admit};

use super::request::Request;

static TRUSTED: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network")).to_vec());

pub fn try_it(bytes: &[u8]) {
    let Some(Request { method, uri, headers, .. }) = Request::parse(bytes) else { return };
    let mut whole = http::Request::new(());
    (*whole.method_mut(), *whole.uri_mut(), *whole.headers_mut()) = (method, uri.clone(), headers.clone());
    // What the front door does not let in comes no further.
    if admit(&whole).is_err() {
        return;
    }
    let [proxy, somebody]: [SocketAddr; 2] =
        ["[::ffff:10.0.0.1]:1", "192.0.2.9:1"].map(|address| address.parse().expect("an address"));
    for tls in [false, true] {
        let stranger = Client::of(somebody, tls, &uri, &headers, &TRUSTED);
        assert_eq!((stranger.address, stranger.https, stranger.trusted_peer), (somebody.ip(), tls, false));
        assert_eq!(stranger.host.as_bytes(), headers.get(HOST).map_or(&b""[..], |host| host.as_bytes()));
        for peer in [somebody, proxy] {
            let client = Client::of(peer, tls, &uri, &headers, &TRUSTED);
            assert_eq!(client.address, client.address.to_canonical(), "one form of each address");
            let mut written = headers.clone();
            client.write(&mut written);
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
                assert_eq!(written.get_all(name).iter().count(), 1, "{name} once");
            }
            assert!(!written.contains_key("forwarded"), "one way of saying it");
            // An app that believes us reads the same client, unless he is one of the proxies himself.
            let read = Client::of(proxy, false, &uri, &written, &TRUSTED);
            assert_eq!(read.address, client.address, "{headers:?}");
            assert_eq!((read.https, read.port), (client.https, client.port), "{headers:?}");
            if !client.host.is_empty() {
                assert_eq!(read.host, client.host, "{headers:?}");
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let fields = [
        "X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: pay.example:8443\r\n\
         X-Forwarded-Port: 8443\r\n",
        "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: ::ffff:192.0.2.8, [2001:db8::1]:443\r\n",
        "Forwarded: for=192.0.2.7;proto=https;host=\"pay.example\", for=\"[2001:db8::7]:1\";by=_x\r\n",
        "Forwarded: for=\"_ob\\\"fuscated\";PROTO=HTTPS\r\nX-Real-IP: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\n",
        "x_forwarded_for: 1.2.3.4\r\nConnection: x-forwarded-for\r\nX-Forwarded-Ssl: on\r\n",
        "",
    ];
    let request = |fields: &&str| format!("GET /a?b HTTP/1.1\r\nHost: pay.example\r\n{fields}\r\n").into_bytes();
    fields.iter().map(request).collect()
}
