//! What comes back from the app, on its way to those who wait: read whole, told, and kept once where it is alike.

use std::{
    fmt::Display,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;

use crate::{callback::Answer, spread::Spread, transaction::effect::Ending};

/// What those who wait on a delivery hear.
#[derive(Clone, Debug)]
pub struct Heard {
    /// How the try ended.
    pub ending: Ending,
    /// The whole answer: its header fields for the caller who came first and for nobody else, its body for all who wait.
    pub full: Option<Arc<Full>>,
    /// How long the app took.
    pub took: Duration,
}

impl Heard {
    /// Nothing was sent.
    pub const fn not_sent(why: String) -> Self {
        Self::unheard(Ending::NotSent(why))
    }

    pub(super) const fn unheard(ending: Ending) -> Self {
        Self { ending, full: None, took: Duration::ZERO }
    }
}

/// An answer with all that belongs to the one caller whose request it answers.
#[derive(Clone, Debug)]
pub struct Full {
    /// The header fields as the app sent them.
    pub headers: HeaderMap,
    /// The body; empty where it was too large.
    pub body: Bytes,
    /// What others may hear of it too.
    pub answer: Arc<Answer>,
}

/// Reads a body whole; `None` where it is larger than `limit`, which is then left unread.
pub(super) async fn read<B: Body<Data = Bytes, Error: Display> + Unpin>(
    mut body: B,
    limit: usize,
) -> Result<Option<Bytes>, String> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + whole.len() + data.len() > limit {
            return Ok(None);
        }
        if first.is_empty() && whole.is_empty() {
            // Most answers come in one piece, and are not copied.
            first = data;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(if whole.is_empty() { first } else { whole.freeze() }))
}

/// Keeps one copy of answers that are alike: an app says `200 []` a million times.
pub(super) struct Interner {
    hasher: Spread,
    slots: Vec<Mutex<Option<Arc<Answer>>>>,
}

impl Default for Interner {
    fn default() -> Self {
        Self { hasher: Spread::default(), slots: (0..64).map(|_| Mutex::new(None)).collect() }
    }
}

impl Interner {
    pub(super) fn intern(&self, status: StatusCode, content_type: Option<&[u8]>, body: Option<&[u8]>) -> Arc<Answer> {
        let slot = (self.hasher.hash_one((status, content_type, body)) % 64) as usize;
        let mut slot = self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Arc<Answer>| {
            known.status == status && known.content_type.as_deref() == content_type && known.body.as_deref() == body
        };
        if let Some(known) = slot.as_ref().filter(same) {
            return Arc::clone(known);
        }
        let answer = Answer { status, content_type: content_type.map(Into::into), body: body.map(Into::into) };
        Arc::clone(slot.insert(Arc::new(answer)))
    }
}
