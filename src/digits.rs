//! Numbers, bytes and addresses as text, without the formatting machinery, which costs ten times as much.

use std::{fmt::Write, net::IpAddr};

/// The digits of one number, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; 20],
    first: usize,
}

impl Digits {
    /// In decimal.
    #[must_use]
    pub fn decimal(number: u64) -> Self {
        Self::of(number, 10)
    }

    /// In hexadecimal, lower case.
    #[must_use]
    pub fn hexadecimal(number: u64) -> Self {
        Self::of(number, 16)
    }

    #[inline]
    fn of(mut number: u64, base: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], first: 20 };
        loop {
            digits.first -= 1;
            digits.bytes[digits.first] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
            if number == 0 {
                return digits;
            }
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.first..]
    }

    /// The same as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// Adds a number in decimal.
pub fn push_number(text: &mut String, number: u64) {
    text.push_str(Digits::decimal(number).as_str());
}

/// Bytes in hexadecimal, lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Adds an address, a mapped IPv4 address folded.
pub fn push_address(text: &mut String, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    text.push('.');
                }
                push_number(text, octet.into());
            }
        }
        // Writing to a string does not fail.
        IpAddr::V6(address) => _ = write!(text, "{address}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_formatting_machinery(number in prop_oneof![any::<u64>(), 0..1000_u64]) {
            prop_assert_eq!(Digits::decimal(number).as_str().to_owned(), number.to_string());
            prop_assert_eq!(Digits::hexadecimal(number).as_str().to_owned(), format!("{number:x}"));
        }

        #[test]
        fn so_are_those_of_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let machinery: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(hex(&bytes), machinery);
        }

        #[test]
        fn so_are_addresses(address in any::<IpAddr>()) {
            let mut text = String::new();
            push_address(&mut text, address);
            prop_assert_eq!(text, address.to_canonical().to_string());
        }
    }
}
