//! A recorded request, as `oncegate explain` reads it.

use oncegate::cli::recorded::Recorded;

use super::request::recorded;

pub fn try_it(bytes: &[u8]) {
    let read = match Recorded::parse(bytes) {
        Ok(read) => read,
        Err(why) => return assert!(!why.to_string().is_empty(), "whoever gets nothing hears why"),
    };
    assert!(
        bytes.windows(read.body.len().max(1)).any(|part| part.starts_with(&read.body)),
        "its body is what stands there"
    );
    assert!(read.uri.authority().is_none() || read.uri.path_and_query().is_none(), "the target has no authority");
    // Written as it was read, it is the same; and so with an editor's newline after a body whose length is told.
    let mut written = format!("{} {} HTTP/1.1\r\n", read.method, read.uri).into_bytes();
    for (name, value) in &read.headers {
        written.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    written.extend_from_slice(b"\r\n");
    written.extend_from_slice(&read.body);
    let is_same = |raw: &[u8]| {
        let again = Recorded::parse(raw).expect("it was one");
        assert_eq!((&again.method, &again.uri, &again.headers), (&read.method, &read.uri, &read.headers));
        assert_eq!(again.body, read.body);
    };
    is_same(&written);
    if read.headers.contains_key("content-length") {
        written.push(b'\n');
        is_same(&written);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let requests = recorded().into_iter().flat_map(|of| of.requests.into_iter().take(2));
    let more = ["GET /?a HTTP/1.1\nHost: x\n\n", "POST http://pay.test/hook HTTP/1.1\r\nContent-Length: 2\r\n\r\na=\n"];
    requests.map(|(raw, _)| raw).chain(more.map(|raw| raw.as_bytes().to_vec())).collect()
}
