//! Public keys and certificates as the configuration or a callback brings them, and whether one leads to an authority.

use std::fmt;

use ring::signature::{RsaParameters, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};

use crate::time::Timestamp;

/// The public key of an RSA pair.
#[derive(Clone)]
pub struct RsaKey(Box<[u8]>);

impl RsaKey {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    ///
    /// If it is none, or not one of RSA.
    pub fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let no = "it is no public key in PEM: it begins with -----BEGIN PUBLIC KEY-----";
        // Some give it without the first line and the last.
        let bare = || std::str::from_utf8(pem).ok().and_then(|text| super::base64(&text.replace(['\r', '\n'], "")));
        let der = match SubjectPublicKeyInfoDer::from_pem_slice(pem) {
            Ok(der) => der,
            Err(_) => bare().map(SubjectPublicKeyInfoDer::from).ok_or(no)?,
        };
        Self::of_info(&der).ok_or("it is no public key of RSA")
    }

    /// The key inside a SubjectPublicKeyInfo (RFC 5280, section 4.1): an algorithm, and the key as a string of bits.
    fn of_info(der: &[u8]) -> Option<Self> {
        /// 1.2.840.113549.1.1.1
        const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        let mut info = Der(Der(der).take(SEQUENCE)?);
        let mut algorithm = Der(info.take(SEQUENCE)?);
        if algorithm.take(OBJECT_IDENTIFIER)? != RSA_ENCRYPTION {
            return None;
        }
        let bits = info.take(BIT_STRING)?;
        // The first byte counts the bits that do not belong to it.
        bits.strip_prefix(&[0]).map(|key| Self(key.into()))
    }

    /// Whether the pair's other half signed the message.
    #[must_use]
    pub fn verifies(&self, algorithm: &'static RsaParameters, message: &[u8], tag: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, &self.0).verify(message, tag).is_ok()
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey")
    }
}

/// A certificate of an RSA key, with the certificates that came along to vouch for it.
#[derive(Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    vouching: Vec<CertificateDer<'static>>,
    key: RsaKey,
    from: Timestamp,
    until: Timestamp,
}

impl Certificate {
    /// Reads a certificate in PEM, and those that follow it as vouching for it.
    ///
    /// # Errors
    ///
    /// If it is none, or none of RSA.
    pub fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let no = "it is no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----";
        let mut all = CertificateDer::pem_slice_iter(pem);
        let der = all.next().and_then(Result::ok).ok_or(no)?;
        let vouching = all.collect::<Result<_, _>>().map_err(|_| "one of the certificates that follow is none")?;
        Self::of_der(&der)
            .map(|(key, from, until)| Self { der, vouching, key, from, until })
            .ok_or("it is no certificate of an RSA key")
    }

    /// Reads authorities in PEM, one after the other.
    ///
    /// # Errors
    ///
    /// If one of them is no certificate, or there is none.
    pub fn authorities(pem: &[u8]) -> Result<Vec<Self>, &'static str> {
        let first = Self::parse(pem)?;
        let other = |der: &CertificateDer<'static>| {
            let (key, from, until) = Self::of_der(der)?;
            Some(Self { der: der.clone(), vouching: Vec::new(), key, from, until })
        };
        let others: Option<Vec<_>> = first.vouching.iter().map(other).collect();
        let others = others.ok_or("one of the certificates that follow is none of an RSA key")?;
        Ok([vec![Self { vouching: Vec::new(), ..first }], others].concat())
    }

    /// The key, and from when until when it is good (RFC 5280, section 4.1).
    fn of_der(der: &[u8]) -> Option<(RsaKey, Timestamp, Timestamp)> {
        let mut whole = Der(Der(der).take(SEQUENCE)?);
        let mut signed = Der(whole.take(SEQUENCE)?);
        signed.take_if(VERSION);
        signed.take(INTEGER)?;
        // The algorithm of its signature, and who made it.
        signed.take(SEQUENCE)?;
        signed.take(SEQUENCE)?;
        let mut validity = Der(signed.take(SEQUENCE)?);
        let (from, until) = (validity.time()?, validity.time()?);
        // Whose it is.
        signed.take(SEQUENCE)?;
        Some((RsaKey::of_info(signed.0)?, from, until))
    }

    /// Whether it is in force, and, where there are authorities, leads to one of them.
    #[must_use]
    pub fn is_good(&self, authorities: &[Self], now: Timestamp) -> bool {
        let in_force = self.from <= now && now <= self.until;
        let is_one = || authorities.iter().any(|authority| authority.der == self.der);
        in_force && (authorities.is_empty() || is_one() || self.leads_to(authorities, now).is_ok())
    }

    fn leads_to(&self, authorities: &[Self], now: Timestamp) -> Result<(), Error> {
        let anchors: Vec<_> =
            authorities.iter().map(|authority| anchor_from_trusted_cert(&authority.der)).collect::<Result<_, _>>()?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.as_millis()));
        let end = EndEntityCert::try_from(&self.der)?;
        end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &self.vouching, now, AnyUsage, None, None)?;
        Ok(())
    }

    /// Its public key.
    #[must_use]
    pub const fn key(&self) -> &RsaKey {
        &self.key
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} to {})", self.from, self.until)
    }
}

/// No provider says what its certificates are meant for.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Values in DER (X.690), one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, if it is of this sort.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match *head {
            [found, _] if found != tag => return None,
            [_, length @ 0..=0x7f] => (usize::from(length), rest),
            [_, 0x81] => (usize::from(*rest.first()?), rest.get(1..)?),
            [_, 0x82] => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            // Nothing of ours is longer.
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    fn take_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            _ = self.take(tag);
        }
    }

    /// A moment, in either of the two forms; before 1970 there is none.
    fn time(&mut self) -> Option<Timestamp> {
        let (century, text) = match self.0.first()? {
            &UTC_TIME => {
                let text = self.take(UTC_TIME)?;
                (if *text.first()? < b'5' { "20" } else { "19" }, text)
            }
            _ => ("", self.take(GENERALIZED_TIME)?),
        };
        let text = format!("{century}{}", std::str::from_utf8(text).ok()?);
        let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14 && digits.is_ascii())?;
        let part = |from: usize, to: usize| &digits[from..to];
        let [year, month, day] = [part(0, 4), part(4, 6), part(6, 8)];
        let [hour, minute, second] = [part(8, 10), part(10, 12), part(12, 14)];
        format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};

    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// An RSA key of a test, made with `openssl genrsa 2048`; nothing else knows it.
    const RSA_PEM: &str = include_str!("../../../tests/fixtures/keys/rsa.pem");

    fn rsa() -> KeyPair {
        KeyPair::from_pem_and_sign_algo(RSA_PEM, &PKCS_RSA_SHA256).unwrap()
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2055, 1, 1);
        params
    }

    fn authority(name: &str) -> (CertificateParams, KeyPair, String) {
        let mut params = params(name);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rsa();
        let pem = params.self_signed(&key).unwrap().pem();
        (params, key, pem)
    }

    #[test]
    fn a_certificate_is_good_between_its_times() {
        let pem = params("pay.example").self_signed(&rsa()).unwrap().pem();
        let certificate = Certificate::parse(pem.as_bytes()).unwrap();
        assert!(certificate.is_good(&[], at("2026-03-01T00:00:00Z")));
        assert!(certificate.is_good(&[], at("2054-12-31T00:00:00Z")), "beyond the two digits of a year");
        assert!(
            !certificate.is_good(&[], at("2025-12-31T23:59:59Z"))
                && !certificate.is_good(&[], at("2055-01-02T00:00:00Z"))
        );
    }

    #[test]
    fn with_authorities_a_certificate_has_to_lead_to_one_of_them() {
        let (params_of_ca, key, ca) = authority("one");
        let (_, _, other) = authority("other");
        let issuer = Issuer::from_params(&params_of_ca, &key);
        let leaf = params("pay.example").signed_by(&rsa(), &issuer).unwrap().pem();
        let leaf = Certificate::parse(leaf.as_bytes()).unwrap();
        let trusted = |pem: &str| Certificate::authorities(pem.as_bytes()).unwrap();
        let now = at("2026-03-01T00:00:00Z");
        assert!(leaf.is_good(&trusted(&ca), now));
        assert!(leaf.is_good(&trusted(&format!("{other}{ca}")), now));
        assert!(!leaf.is_good(&trusted(&other), now));
        let itself = Certificate::parse(ca.as_bytes()).unwrap();
        assert!(itself.is_good(&trusted(&ca), now), "an authority vouches for itself");
        assert!(!itself.is_good(&trusted(&other), now));
    }

    #[test]
    fn what_is_no_key_and_no_certificate_is_told_so() {
        let pem = rsa().public_key_pem();
        assert!(RsaKey::parse(pem.as_bytes()).is_ok());
        assert!(RsaKey::parse(b"secret").unwrap_err().contains("BEGIN PUBLIC KEY"));
        assert!(Certificate::parse(pem.as_bytes()).unwrap_err().contains("BEGIN CERTIFICATE"));
        let curve = KeyPair::generate().unwrap();
        assert!(RsaKey::parse(curve.public_key_pem().as_bytes()).unwrap_err().contains("RSA"));
        let curved = params("pay.example").self_signed(&curve).unwrap().pem();
        assert!(Certificate::parse(curved.as_bytes()).unwrap_err().contains("RSA"));
        assert!(Certificate::authorities(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            assert!(Certificate::of_der(&bytes).is_none() && RsaKey::of_info(&bytes).is_none());
        }
    }
}
