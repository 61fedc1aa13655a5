//! Who may use the API: whoever knows the token, and no page of another site in the browser of somebody who does.

use std::sync::{PoisonError, RwLock};

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, HOST, ORIGIN},
};
use ring::{hmac, rand::SystemRandom};

use crate::provider::contract::Secret;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The guard at the door of the API.
pub struct Guard {
    /// Drawn anew by each process, so that what is compared is never the token itself.
    key: hmac::Key,
    /// The tag of the token; without one nobody comes in.
    tag: RwLock<Option<hmac::Tag>>,
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No token is configured.
    Closed,
    /// A page of another site asks.
    Stranger,
    /// He does not say the token.
    Unknown,
}

/// The machine has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has no randomness to give")]
pub struct NoRandomness;

impl Guard {
    /// A guard who lets those in who know the token.
    ///
    /// # Errors
    ///
    /// When the machine has no randomness to give.
    pub fn new(token: Option<&Secret>) -> Result<Self, NoRandomness> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandomness)?;
        let guard = Self { key, tag: RwLock::default() };
        guard.knows(token);
        Ok(guard)
    }

    /// From now on it is this token.
    pub fn knows(&self, token: Option<&Secret>) {
        let tag = token.map(|token| hmac::sign(&self.key, token.expose()));
        *self.tag.write().unwrap_or_else(PoisonError::into_inner) = tag;
    }

    /// Whether whoever asks with these header fields may come in. The comparison takes the same time wherever two texts
    /// differ.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admits(&self, headers: &HeaderMap) -> Result<(), Stopped> {
        if is_stranger(headers) {
            return Err(Stopped::Stranger);
        }
        let tag = self.tag.read().unwrap_or_else(PoisonError::into_inner);
        let tag = tag.as_ref().ok_or(Stopped::Closed)?;
        let said = bearer(headers).ok_or(Stopped::Unknown)?;
        hmac::verify(&self.key, said, tag.as_ref()).map_err(|_| Stopped::Unknown)
    }
}

/// Whether a browser says that a page of another site is asking.
fn is_stranger(headers: &HeaderMap) -> bool {
    let site = headers.get(&SEC_FETCH_SITE).map(http::HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    headers.get_all(ORIGIN).iter().any(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
    })
}

/// The one token that is said; of several nobody could tell which is meant.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut said = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (said.next(), said.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::contract::SecretKind;

    fn asks(fields: &[(&'static str, &'static str)]) -> Result<(), Stopped> {
        let token = Secret::new(SecretKind::Token, *b"0123456789abcdef");
        let headers = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Guard::new(Some(&token)).unwrap().admits(&headers.collect())
    }

    #[test]
    fn only_the_token_itself_opens() {
        assert_eq!(asks(&[("authorization", "Bearer 0123456789abcdef")]), Ok(()));
        assert_eq!(asks(&[("authorization", "bearer  0123456789abcdef ")]), Ok(()));
        for wrong in ["", "Bearer", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef", "Bearer 0123456789abcdeF"]
        {
            assert_eq!(asks(&[("authorization", wrong)]), Err(Stopped::Unknown), "{wrong}");
        }
        assert_eq!(asks(&[("authorization", "Bearer 0123456789abcde")]), Err(Stopped::Unknown));
        assert_eq!(asks(&[]), Err(Stopped::Unknown));
    }

    #[test]
    fn without_a_token_nobody_comes_in_and_the_token_can_change() {
        let guard = Guard::new(None).unwrap();
        let said: HeaderMap = [(AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap())].into_iter().collect();
        assert_eq!(guard.admits(&said), Err(Stopped::Closed));
        guard.knows(Some(&Secret::new(SecretKind::Token, *b"0123456789abcdef")));
        assert_eq!(guard.admits(&said), Ok(()));
        guard.knows(Some(&Secret::new(SecretKind::Token, *b"another-token-now")));
        assert_eq!(guard.admits(&said), Err(Stopped::Unknown));
    }

    #[test]
    fn a_page_of_another_site_does_not_come_in_even_with_the_token() {
        let token = ("authorization", "Bearer 0123456789abcdef");
        let host = ("host", "127.0.0.1:9090");
        assert_eq!(asks(&[token, host, ("origin", "http://127.0.0.1:9090")]), Ok(()));
        assert_eq!(asks(&[token, host, ("sec-fetch-site", "same-origin")]), Ok(()));
        for strange in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9091"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(asks(&[token, host, strange]), Err(Stopped::Stranger), "{strange:?}");
        }
    }
}
