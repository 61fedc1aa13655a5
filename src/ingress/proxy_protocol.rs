//! The header in which a proxy that passes bytes on says whose they are: PROXY protocol, versions 1 and 2, read from a
//! growing buffer.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Nothing here guesses whether there is a header: who is
//! to send one is configured, and must.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The twelve bytes that version 2 begins with; no other protocol does.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PREFIX: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const LINE_MAX: usize = 107;
/// What stands before the addresses of version 2.
const FIXED: usize = 16;
/// The longest header of version 2 that is read: room for the certificate of a client, and far below the 64 KiB that can
/// be announced.
pub const MAX: usize = 16 * 1024;

const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// What a header says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself, as in a health check.
    Local,
    /// It speaks for somebody whose address it does not know, or which is none of the internet's.
    Unknown,
    /// It speaks for a client.
    Proxied {
        /// Who connected to the proxy, a mapped IPv4 address folded.
        source: SocketAddr,
        /// What he connected to.
        destination: SocketAddr,
        /// Whether he spoke TLS to the proxy (version 2 with `PP2_TYPE_SSL`); version 1 never says.
        tls: bool,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They begin as neither version does.
    #[error("there is no PROXY header")]
    Absent,
    /// Version 1: the line is too long, or is not what such a line says.
    #[error("the line of the PROXY header is malformed")]
    Line,
    /// Version 2: another version, or a command, family or transport that is not defined.
    #[error("the PROXY header says what version 2 does not define")]
    Undefined,
    /// Version 2: longer than anybody needs.
    #[error("the PROXY header is longer than {MAX} bytes")]
    TooLong,
    /// Version 2: the addresses or the fields after them are cut short.
    #[error("the PROXY header is cut short")]
    Cut,
    /// Version 2: the checksum in it is another.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

/// Reads the header at the beginning of `bytes`, and how many bytes it takes; `None` while more of them are needed.
///
/// # Errors
/// As soon as no further byte could make a header of them.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins(bytes, SIGNATURE) {
        version_2(bytes)
    } else if begins(bytes, PREFIX) {
        version_1(bytes)
    } else {
        Err(Malformed::Absent)
    }
}

/// Whether `bytes` are, or may become, something that begins with `mark`.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let common = bytes.len().min(mark.len());
    bytes[..common] == mark[..common]
}

fn version_1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|b| *b == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(Malformed::Line) };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let header = line.and_then(|line| said(&line[PREFIX.len()..])).ok_or(Malformed::Line)?;
    Ok(Some((header, end + 1)))
}

/// What the line says after its first word.
fn said(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(Header::Unknown),
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| proxied((source, from), (destination, to), false))
}

/// A port as this line has it: digits, and no zero before others.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    digits.then(|| text.parse().ok())?
}

fn proxied(source: (IpAddr, u16), destination: (IpAddr, u16), tls: bool) -> Header {
    let folded = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Header::Proxied { source: folded(source), destination: folded(destination), tls }
}

fn version_2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some((&[command, family, high, low], _)) = bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(None);
    };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Undefined),
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX {
        return Err(Malformed::TooLong);
    }
    let family = Family::of(family)?;
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let (addresses, fields) = whole[FIXED..].split_at_checked(family.size()).ok_or(Malformed::Cut)?;
    let told = told(whole, FIXED + family.size(), fields)?;
    let header = match family {
        _ if local => Header::Local,
        Family::Other | Family::Unix | Family::Datagram(_) => Header::Unknown,
        Family::V4 => between::<4>(addresses, told.tls),
        Family::V6 => between::<16>(addresses, told.tls),
    };
    Ok(Some((header, length)))
}

/// The address family and transport.
#[derive(Clone, Copy)]
enum Family {
    /// Unspecified: no addresses that a receiver could use.
    Other,
    V4,
    V6,
    /// Two paths of 108 bytes.
    Unix,
    /// UDP, whose addresses say nothing of a stream; so many bytes.
    Datagram(usize),
}

impl Family {
    const fn of(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte {
            0x00 => Self::Other,
            0x11 => Self::V4,
            0x21 => Self::V6,
            0x31 | 0x32 => Self::Unix,
            0x12 => Self::Datagram(12),
            0x22 => Self::Datagram(36),
            _ => return Err(Malformed::Undefined),
        })
    }

    /// The bytes that its addresses take.
    const fn size(self) -> usize {
        match self {
            Self::Other => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
            Self::Datagram(size) => size,
        }
    }
}

fn between<const N: usize>(bytes: &[u8], tls: bool) -> Header
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&bytes[at..at + N]);
        IpAddr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    proxied((address(0), port(2 * N)), (address(N), port(2 * N + 2)), tls)
}

#[derive(Default)]
struct Told {
    tls: bool,
}

/// What the fields after the addresses tell. Those of an unspecified family are not read: there, a receiver is to skip
/// whatever comes.
fn told(whole: &[u8], begin: usize, fields: &[u8]) -> Result<Told, Malformed> {
    let mut told = Told::default();
    if begin == FIXED {
        return Ok(told);
    }
    let (mut rest, mut at) = (fields, begin);
    while let Some((&[kind, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, next) = after.split_at_checked(length).ok_or(Malformed::Cut)?;
        match (kind, value) {
            (TYPE_CRC32C, value) => check(whole, at + 3, value)?,
            (TYPE_SSL, [client, ..]) => told.tls = client & CLIENT_SSL != 0,
            _ => {}
        }
        at += 3 + length;
        rest = next;
    }
    if rest.is_empty() { Ok(told) } else { Err(Malformed::Cut) }
}

/// The checksum is over the whole header, with zeros in its own place.
fn check(whole: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    let sum = value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed::Checksum)?;
    let zeroed = whole.iter().enumerate().map(|(i, b)| if (at..at + 4).contains(&i) { 0 } else { *b });
    if crc32c(zeroed) == sum { Ok(()) } else { Err(Malformed::Checksum) }
}

/// Castagnoli's, bit by bit: a header is short and rare.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn whole(bytes: &[u8]) -> Header {
        match read(bytes) {
            Ok(Some((header, length))) if length == bytes.len() => header,
            other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn between(source: &str, destination: &str, tls: bool) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap(), tls }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 203, 0, 113, 1, 0x30, 0x39, 1, 0xbb];

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], value].concat()
    }

    #[test]
    fn a_line_names_both_ends() {
        assert_eq!(
            whole(b"PROXY TCP4 192.0.2.7 203.0.113.1 12345 443\r\n"),
            between("192.0.2.7:12345", "203.0.113.1:443", false)
        );
        assert_eq!(
            whole(b"PROXY TCP6 2001:db8::7 2001:DB8::1 0 65535\r\n"),
            between("[2001:db8::7]:0", "[2001:db8::1]:65535", false)
        );
        assert_eq!(whole(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), between("192.0.2.7:1", "[::1]:2", false));
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Header::Unknown);
        assert_eq!(whole(b"PROXY UNKNOWN ffff::ffff whatever 1\r\n"), Header::Unknown);
    }

    #[test]
    fn what_is_almost_a_line_is_refused() {
        for bad in [
            "PROXY TCP4 192.0.2.7 203.0.113.1 12345 443\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 12345\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 12345 443 \r\n",
            "PROXY  TCP4 192.0.2.7 203.0.113.1 12345 443\r\n",
            "PROXY TCP4 192.0.2.07 203.0.113.1 12345 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 012345 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.1 1 \r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY tcp4 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 203.0.113.1 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.7\r203.0.113.1 1 2\r\n",
        ] {
            assert_eq!(read(bad.as_bytes()), Err(Malformed::Line), "{bad:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX));
        assert_eq!(read(long.as_bytes()), Err(Malformed::Line));
        assert_eq!(read(&long.as_bytes()[..LINE_MAX]), Err(Malformed::Line), "it waits for no end");
        for other in ["GET / HTTP/1.1\r\n", "proxy TCP4", "PROXX", "PROXY\t", "\r\n\r\nPRI"] {
            assert_eq!(read(other.as_bytes()), Err(Malformed::Absent), "{other:?}");
        }
    }

    #[test]
    fn the_binary_form_names_both_ends() {
        assert_eq!(whole(&v2(0x21, 0x11, &V4)), between("192.0.2.7:12345", "203.0.113.1:443", false));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[16..32].copy_from_slice(&"::ffff:203.0.113.1".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..].copy_from_slice(&[0, 1, 0, 2]);
        assert_eq!(whole(&v2(0x21, 0x21, &v6)), between("[2001:db8::7]:1", "203.0.113.1:2", false));
    }

    #[test]
    fn who_speaks_for_himself_or_for_nobody_we_could_name_is_told_apart() {
        assert_eq!(whole(&v2(0x20, 0x00, b"")), Header::Local);
        assert_eq!(whole(&v2(0x20, 0x11, &V4)), Header::Local);
        assert_eq!(whole(&v2(0x21, 0x00, b"anything at all")), Header::Unknown);
        assert_eq!(whole(&v2(0x21, 0x31, &[b'/'; 216])), Header::Unknown);
        assert_eq!(whole(&v2(0x21, 0x12, &V4)), Header::Unknown);
    }

    #[test]
    fn the_fields_after_the_addresses_are_read_and_unknown_ones_skipped() {
        let with = |fields: &[Vec<u8>]| v2(0x21, 0x11, &[&V4[..], &fields.concat()].concat());
        let spoken = |client| field(TYPE_SSL, &[client, 0, 0, 0, 0]);
        assert_eq!(
            whole(&with(&[field(0xEA, b"x"), spoken(CLIENT_SSL)])),
            between("192.0.2.7:12345", "203.0.113.1:443", true)
        );
        assert_eq!(whole(&with(&[spoken(0)])), between("192.0.2.7:12345", "203.0.113.1:443", false));
        let mut summed = with(&[field(0x04, b"pad"), field(TYPE_CRC32C, &[0; 4])]);
        let sum = crc32c(summed.iter().copied()).to_be_bytes();
        let at = summed.len() - 4;
        summed[at..].copy_from_slice(&sum);
        whole(&summed);
        summed[at] ^= 1;
        assert_eq!(read(&summed), Err(Malformed::Checksum));
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283, "the check value of the algorithm");
    }

    #[test]
    fn what_is_almost_a_binary_header_is_refused() {
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x31, 0x11), (0x21, 0x13), (0x21, 0x41), (0x21, 0x01)] {
            assert_eq!(read(&v2(command, family, &V4)), Err(Malformed::Undefined), "{command:x} {family:x}");
        }
        assert_eq!(read(&v2(0x21, 0x11, &V4[..11])), Err(Malformed::Cut));
        assert_eq!(read(&v2(0x21, 0x11, &[&V4[..], &[4, 0]].concat())), Err(Malformed::Cut));
        assert_eq!(read(&v2(0x21, 0x11, &[&V4[..], &[4, 0, 2, 0]].concat())), Err(Malformed::Cut));
        let long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(read(&long), Err(Malformed::TooLong), "it waits for none of them");
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| SocketAddr::new(address.to_canonical(), port))
    }

    /// Two ends of one family, as either version writes them.
    fn written(source: SocketAddr, destination: SocketAddr, binary: bool) -> Vec<u8> {
        let v6 = |address: SocketAddr| match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        match (source.ip(), destination.ip(), binary) {
            (IpAddr::V4(from), IpAddr::V4(to), true) => {
                v2(0x21, 0x11, &[&from.octets()[..], &to.octets(), &ports].concat())
            }
            (_, _, true) => v2(0x21, 0x21, &[&v6(source).octets()[..], &v6(destination).octets(), &ports].concat()),
            (IpAddr::V4(from), IpAddr::V4(to), false) => {
                format!("PROXY TCP4 {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
            }
            (_, _, false) => {
                let (from, to) = (v6(source), v6(destination));
                format!("PROXY TCP6 {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut_and_whatever_follows(
            source in any_address(),
            destination in any_address(),
            binary in any::<bool>(),
            after in vec(any::<u8>(), 0..40),
        ) {
            let header = written(source, destination, binary);
            for cut in 0..header.len() {
                prop_assert_eq!(read(&header[..cut]), Ok(None));
            }
            let meant = Header::Proxied { source, destination, tls: false };
            prop_assert_eq!(read(&[&header[..], &after].concat()), Ok(Some((meant, header.len()))));
        }

        #[test]
        fn whatever_comes_is_read_or_refused_and_a_verdict_stays(
            start in prop_oneof![
                Just(Vec::new()),
                Just(PREFIX.to_vec()),
                Just(b"PROXY TCP4 ".to_vec()),
                Just(SIGNATURE.to_vec()),
                (0x20u8..0x22, any::<u8>(), 0u8..2, any::<u8>())
                    .prop_map(|(c, f, h, l)| [SIGNATURE, &[c, f, h, l]].concat()),
            ],
            rest in vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, rest].concat();
            let mut verdict = Ok(None);
            for end in 0..=bytes.len() {
                let now = read(&bytes[..end]);
                if verdict != Ok(None) {
                    prop_assert_eq!(now, verdict);
                }
                if let Ok(Some((_, length))) = now {
                    prop_assert!(length <= end && length <= MAX);
                }
                verdict = now;
            }
        }
    }
}
