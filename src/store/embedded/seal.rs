//! Deliveries, with the requests that they carry, sealed with a key that is not on the disk.
//!
//! Each process seals with a key of its own, drawn from the configured one and a salt that stands beside what is sealed, and
//! counts; so no nonce is used twice, however often it is sealed and however often the gate is started.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};

use super::record::Damaged;

/// Bytes of a key.
pub const KEY: usize = 32;
/// What a sealed record begins with; a delivery begins with the number of its phase, which is small.
const MARK: u8 = 0xe1;
const NAME: usize = 8;
const SALT: usize = 16;
/// The mark, the name of the key, the salt and the count.
const HEAD: usize = 1 + NAME + SALT + 8;

/// The keys: the first one seals, and each of them opens. None of them where nothing is sealed.
#[derive(Clone, Default)]
pub struct Seals(Option<Arc<Inner>>);

struct Inner {
    keys: Vec<([u8; NAME], [u8; KEY])>,
    salt: [u8; SALT],
    own: LessSafeKey,
    count: AtomicU64,
}

impl Seals {
    /// Seals with the first of these.
    ///
    /// # Errors
    ///
    /// When the machine has no chance to give.
    pub fn of(keys: &[[u8; KEY]]) -> Result<Self, Unspecified> {
        let Some(first) = keys.first() else { return Ok(Self::default()) };
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt)?;
        let own = drawn(first, &salt)?;
        let keys = keys.iter().map(|key| (name(key), *key)).collect();
        Ok(Self(Some(Arc::new(Inner { keys, salt, own, count: AtomicU64::new(0) }))))
    }

    /// Seals what stands in `into` from `start` on, which is the record of the delivery `id`.
    pub(super) fn seal(&self, id: &[u8], into: &mut Vec<u8>, start: usize) {
        let Some(inner) = &self.0 else { return };
        let mut record = into.split_off(start);
        let count = inner.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        if inner.own.seal_in_place_append_tag(nonce(count), Aad::from(id), &mut record).is_err() {
            // Of more than sixty gigabytes it can't be done. It is not written in clear for all that.
            return tracing::error!("a delivery could not be sealed, and is not kept");
        }
        into.push(MARK);
        into.extend_from_slice(&inner.keys[0].0);
        into.extend_from_slice(&inner.salt);
        into.extend_from_slice(&count);
        into.extend_from_slice(&record);
    }

    /// The record in clear, and whether it is kept as it would be written now.
    pub(super) fn open<'r>(&self, id: &[u8], record: &'r [u8]) -> Result<(Cow<'r, [u8]>, bool), Damaged> {
        if record.first() != Some(&MARK) {
            return Ok((Cow::Borrowed(record), self.0.is_none()));
        }
        let broken = Damaged("a sealed delivery");
        let (head, sealed) = record.split_at_checked(HEAD).ok_or(broken)?;
        let (named, rest) = head[1..].split_at(NAME);
        let (salt, count) = rest.split_at(SALT);
        let keys = self.0.as_ref().map_or(&[][..], |inner| &inner.keys);
        let place = keys.iter().position(|(name, _)| name == named);
        let place = place.ok_or(Damaged("a delivery that was sealed with a key which is not under `store.keys`"))?;
        let own = drawn(&keys[place].1, salt).map_err(|_| broken)?;
        let mut opened = sealed.to_vec();
        let count = count.try_into().map_err(|_| broken)?;
        let length = own.open_in_place(nonce(count), Aad::from(id), &mut opened).map_err(|_| broken)?.len();
        opened.truncate(length);
        Ok((Cow::Owned(opened), place == 0))
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seals({} keys)", self.0.as_ref().map_or(0, |inner| inner.keys.len()))
    }
}

/// The key of one process.
fn drawn(key: &[u8; KEY], salt: &[u8]) -> Result<LessSafeKey, Unspecified> {
    let secret = Salt::new(HKDF_SHA256, salt).extract(key);
    let drawn = secret.expand(&[b"oncegate store"], &AES_256_GCM)?;
    Ok(LessSafeKey::new(UnboundKey::from(drawn)))
}

/// By what a key is found, which tells nothing of it.
fn name(key: &[u8; KEY]) -> [u8; NAME] {
    let digest = digest(&SHA256, &[b"oncegate store key ", &key[..]].concat());
    let mut name = [0; NAME];
    name.copy_from_slice(&digest.as_ref()[..NAME]);
    name
}

fn nonce(count: [u8; 8]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&count);
    Nonce::assume_unique_for_key(nonce)
}
