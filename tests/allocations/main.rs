//! What is asked of memory to recognise, check and read a callback: a bounded number of times its body, whatever else it brings.

#[allow(dead_code, reason = "the doors of the fuzzer need more of it")]
#[path = "../../fuzz/src/request.rs"]
mod request;

use allocation_counter::measure;
use http::{HeaderName, HeaderValue};
use oncegate::provider::{
    contract::{Keyring, Provider},
    extract::{Dialect, Reader},
    recognise,
};

use crate::request::{Request, recorded};

/// Whatever stands in a body, so much is asked for at most: for each of its bytes, and beside that. An element of XML that says
/// one byte is the worst of them.
const FOR_A_BYTE: u64 = 100;
const BESIDE: u64 = 32 * 1024;
/// Of the requests that were recorded of one provider so many are tried, and made larger by so many bytes, and by twice as many.
const TRIED: usize = 3;
const LARGER: usize = 6 * 1024;

/// The bytes that are asked for while a callback is read.
fn asked_for(provider: &Provider, request: &Request, keyring: &Keyring, dialect: Dialect) -> u64 {
    let read = || {
        let reader = Reader::new(&request.view(), dialect);
        _ = recognise(&reader);
        _ = provider.scheme.check(&reader, keyring, oncegate::time::Timestamp::EPOCH);
        _ = (provider.events)(&reader, keyring);
    };
    // What is made once for all callbacks is there.
    read();
    measure(read).bytes_total
}

/// What a body may be made larger by: more of what nobody reads, in its own form; whatever nests, repeats or has to be decoded.
fn larger(body: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let fill = |piece: &str| piece.repeat(bytes / piece.len());
    let text = String::from_utf8_lossy(body);
    let mut bodies = vec![[body, fill(" ").as_bytes()].concat(), [body, fill("&x=%20").as_bytes()].concat()];
    if let Some(rest) = text.trim_start().strip_prefix('{') {
        for more in ["\"x\":1,", "\"x\":\"\\u00e9\\n\",", "\"x\":[[[{}]]],", "\"id\":\"evt_1\",", "\"events\":[{}],"] {
            bodies.push(format!("{{{}{rest}", fill(more)).into_bytes());
        }
    }
    if text.starts_with('<') {
        bodies.push(text.replacen("</", &format!("{}</", fill("<x>1</x>")), 1).into_bytes());
    }
    bodies
}

#[test]
fn reading_a_callback_asks_for_memory_in_proportion_to_its_body_and_to_nothing_else() {
    let mut tried = 0;
    for of in recorded() {
        for (raw, _) in of.requests.iter().take(TRIED) {
            let Some(mut request) = Request::parse(raw) else { continue };
            for dialect in [Dialect::Php, Dialect::Strict] {
                let plain = request.body.clone();
                let asked = asked_for(of.provider, &request, &of.keyring, dialect);
                assert!(asked <= BESIDE + FOR_A_BYTE * plain.len() as u64, "{}: {asked}", of.provider.name);
                for (once, twice) in larger(&plain, LARGER).into_iter().zip(larger(&plain, 2 * LARGER)) {
                    let begins = String::from_utf8_lossy(&once[..once.len().min(80)]).into_owned();
                    let most = BESIDE + FOR_A_BYTE * once.len() as u64;
                    request.body = once;
                    let once = asked_for(of.provider, &request, &of.keyring, dialect);
                    request.body = twice;
                    let twice = asked_for(of.provider, &request, &of.keyring, dialect);
                    assert!(once <= most, "{}: {once} of {most}: {begins}", of.provider.name);
                    // What grows grows as the body does; what doubles its room may be a step ahead.
                    assert!(twice <= 3 * once + BESIDE, "{}: {once}, then {twice}: {begins}", of.provider.name);
                    tried += 1;
                }
                request.body = plain;
                // Fields that nobody reads, and a long target, cost nothing.
                let head = request.headers.clone();
                for at in 0..60 {
                    let name: HeaderName = format!("x-nobody-{at}").parse().unwrap();
                    request.headers.append(name, HeaderValue::from_str(&"v".repeat(500)).unwrap());
                }
                assert_eq!(asked_for(of.provider, &request, &of.keyring, dialect), asked, "{}", of.provider.name);
                request.headers = head;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}
