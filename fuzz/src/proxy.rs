//! The header in which a proxy says whose bytes it passes on, at the beginning of a connection.

use oncegate::ingress::proxy_protocol::{MAX, read};

pub fn try_it(bytes: &[u8]) {
    let whole = read(bytes);
    assert_eq!(whole, read(bytes), "read twice");
    match whole {
        Ok(Some((header, length))) => {
            assert!(length <= bytes.len() && length <= MAX, "it takes {length} of {} bytes", bytes.len());
            assert_eq!(read(&bytes[..length]), Ok(Some((header, length))), "what follows does not change it");
            // However the bytes come in, nothing is known before its last one.
            for cut in (0..length).rev().take(64).chain(0..length.min(64)) {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{cut} of {length} bytes");
            }
        }
        Ok(None) => {
            assert!(bytes.len() < MAX, "nobody is waited for without end");
            for cut in 0..bytes.len().min(64) {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{cut} bytes of what may become one");
            }
        }
        Err(why) => assert_eq!(read(&[bytes, b"\r\n"].concat()), Err(why), "no further byte could make one of it"),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let version_2 = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
    };
    let four = [192, 0, 2, 7, 203, 0, 113, 1, 0x30, 0x39, 1, 0xbb];
    let six = [&[0x20; 32][..], &[0x30, 0x39, 1, 0xbb]].concat();
    let tls = [&four[..], &[0x20, 0, 5, 1, 0, 0, 0, 0, 0x03, 0, 4, 1, 2, 3, 4]].concat();
    vec![
        b"PROXY TCP4 192.0.2.7 203.0.113.1 12345 443\r\nGET /".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
        b"PROXY UNKNOWN and whatever\r\n".to_vec(),
        version_2(0x21, 0x11, &four),
        version_2(0x21, 0x21, &six),
        version_2(0x21, 0x31, &[0; 216]),
        version_2(0x20, 0x00, &[]),
        version_2(0x21, 0x11, &tls),
    ]
}
