//! What the checks of signatures share: keyed hashes in constant time, with any of several secrets.

use ring::hmac;

use super::contract::{Secret, SecretKind};

/// The secrets of one kind; those of another kind cannot serve.
pub fn secrets(all: &[Secret], kind: SecretKind) -> impl Iterator<Item = &Secret> {
    all.iter().filter(move |secret| secret.kind == kind)
}

/// Whether any of these secrets makes any of these tags over the message.
///
/// Every pair is tried whatever the others came to, and each comparison takes the same time wherever it differs.
#[must_use]
pub fn any_hmac<'s>(
    algorithm: hmac::Algorithm,
    secrets: impl Iterator<Item = &'s Secret>,
    message: &[u8],
    tags: &[Vec<u8>],
) -> bool {
    let mut valid = false;
    for secret in secrets {
        let key = hmac::Key::new(algorithm, secret.expose());
        for tag in tags {
            valid |= hmac::verify(&key, message, tag).is_ok();
        }
    }
    valid
}

/// The bytes that a hexadecimal text spells, in either case.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_is_read_in_either_case_and_nothing_else_is() {
        assert_eq!(unhex("00fFA0"), Some(vec![0, 255, 160]));
        for wrong in ["0", "0g", "+1", "é"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_secret_and_any_tag_may_match_but_one_must() {
        let secret = |bytes: &[u8]| Secret::new(SecretKind::Hmac, bytes);
        let tag = |bytes: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"message").as_ref().to_vec();
        let old_and_new = [secret(b"old"), secret(b"new")];
        let check = |tags: &[Vec<u8>]| any_hmac(hmac::HMAC_SHA256, old_and_new.iter(), b"message", tags);
        assert!(check(&[tag(b"new")]));
        assert!(check(&[tag(b"other"), tag(b"old")]));
        assert!(!check(&[tag(b"other")]));
        assert!(!check(&[]));
    }
}
