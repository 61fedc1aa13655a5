//! How each record is written and read again: bytes in an order of our own, so that no library's change changes them.
//!
//! Nothing of this is guessed: a record that can't be read whole is [`Damaged`]. Whoever changes it changes
//! [`FORMAT`](super::folder::FORMAT) and writes the way from the old one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::{
    callback::{Answer, Channel, Key, State, Step},
    expression::{self, Expression},
    provider::{self, generic::GENERIC},
    store::state::{Billed, Remembered},
    time::Timestamp,
    transaction::{
        arrival::Decision,
        history::{Arrived, Deed, Line, Outcome, Reason, What},
        lock::{Claimed, Era, Kind, LeaseId, LockName, Seat},
        money::{Money, Stage},
        policy::{
            AnswerBy, IdentityBy, LockBy, OnDuplicate, OnRepeatReturn, OnUnknown, Order, Policy, Retry, Treatment,
        },
        state::{Bill, Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction, Window},
    },
};

/// A record can't be read: it was written by something else, or is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be read")]
pub struct Damaged(pub &'static str);

/// A lease that is held though no delivery in the app says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it holds.
    pub seat: Seat,
    /// How.
    pub rest: Rest,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// How a lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Its owner is in the app.
    InApp,
    /// The app has answered and may work on.
    Lingers,
    /// It waits for a person, and keeps nothing but its names.
    Names,
}

// ------------------------------------------------------------------------------------------------ pen and eye

/// Writes.
struct Pen<'v>(&'v mut Vec<u8>);

impl Pen<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn key(&mut self, key: Key) {
        self.0.extend_from_slice(key.as_bytes());
    }

    fn time(&mut self, time: Timestamp) {
        self.u64(time.as_millis());
    }

    fn span(&mut self, span: Duration) {
        self.u64(span.as_secs());
        self.u32(span.subsec_nanos());
    }

    fn status(&mut self, status: StatusCode) {
        self.0.extend_from_slice(&status.as_u16().to_be_bytes());
    }

    /// Seven bits a byte, the lowest first.
    fn count(&mut self, count: usize) {
        let mut left = count;
        while left >= 0x80 {
            self.u8((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        self.u8(left as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn all<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.count(values.len());
        values.iter().for_each(|value| write(self, value));
    }

    /// The place of a word among all of its kind.
    fn word<T: PartialEq>(&mut self, all: &[T], value: &T) {
        self.u8(all.iter().position(|known| known == value).unwrap_or(0xff) as u8);
    }
}

/// Reads.
struct Eye<'b> {
    left: &'b [u8],
    what: &'static str,
}

type Read<T> = Result<T, Damaged>;

impl<'b> Eye<'b> {
    /// Reads one whole record.
    fn whole<T>(record: &'b [u8], what: &'static str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let mut eye = Self { left: record, what };
        let value = read(&mut eye)?;
        if eye.left.is_empty() { Ok(value) } else { eye.damaged() }
    }

    fn damaged<T>(&self) -> Read<T> {
        Err(Damaged(self.what))
    }

    fn take(&mut self, count: usize) -> Read<&'b [u8]> {
        let Some((taken, left)) = self.left.split_at_checked(count) else { return self.damaged() };
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.damaged(),
        }
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn key(&mut self) -> Read<Key> {
        Ok(Key::from_bytes(self.array()?))
    }

    fn time(&mut self) -> Read<Timestamp> {
        Ok(Timestamp::from_millis(self.u64()?))
    }

    fn span(&mut self) -> Read<Duration> {
        let (seconds, nanos) = (self.u64()?, self.u32()?);
        if nanos < 1_000_000_000 { Ok(Duration::new(seconds, nanos)) } else { self.damaged() }
    }

    fn status(&mut self) -> Read<StatusCode> {
        StatusCode::from_u16(u16::from_be_bytes(self.array()?)).or_else(|_| self.damaged())
    }

    fn count(&mut self) -> Read<usize> {
        let mut count = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            count |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(count).or_else(|_| self.damaged());
            }
        }
        self.damaged()
    }

    fn bytes(&mut self) -> Read<&'b [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    fn text(&mut self) -> Read<&'b str> {
        std::str::from_utf8(self.bytes()?).or_else(|_| self.damaged())
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    fn all<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.count()?;
        // A count that is damaged asks for no memory: each value takes at least a byte.
        let mut values = Vec::with_capacity(count.min(self.left.len()));
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    fn word<T: Copy>(&mut self, all: &[T]) -> Read<T> {
        let place = usize::from(self.u8()?);
        all.get(place).copied().map_or_else(|| self.damaged(), Ok)
    }
}

// ------------------------------------------------------------------------------------------------ transactions

/// Writes what is known of a transaction; its version is this process's own.
pub fn write_transaction(transaction: &Transaction, into: &mut Vec<u8>) {
    let Transaction { version: _, claims, money } = transaction;
    let mut pen = Pen(into);
    write_money(&mut pen, *money);
    pen.all(claims, |pen, claim| {
        let Claim { identity, fate, told, window, rode } = claim;
        pen.key(*identity);
        pen.u64(*told);
        match (fate, rode) {
            (Fate::Pending(delivery), None) => {
                pen.u8(0);
                pen.u64(delivery.0);
            }
            (Fate::Pending(delivery), Some(answer)) => {
                pen.u8(2);
                pen.u64(delivery.0);
                write_answer(answer, pen);
            }
            (Fate::Settled { answer, expires }, _) => {
                pen.u8(1);
                pen.time(*expires);
                write_answer(answer, pen);
            }
        }
        pen.option(window.as_ref(), |pen, window| {
            pen.time(window.until);
            pen.option(window.next, |pen, next| pen.u64(next.0));
        });
    });
}

/// Reads what is known of a transaction; `shared` keeps one copy of answers that are alike.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_transaction(record: &[u8], shared: &mut impl FnMut(Answer) -> Arc<Answer>) -> Read<Transaction> {
    Eye::whole(record, "a transaction", |eye| {
        let money = read_money(eye)?;
        let claims = eye.all(|eye| {
            let (identity, told) = (eye.key()?, eye.u64()?);
            let (fate, rode) = match eye.u8()? {
                0 => (Fate::Pending(LeaseId(eye.u64()?)), None),
                1 => {
                    let expires = eye.time()?;
                    (Fate::Settled { answer: shared(read_answer(eye)?), expires }, None)
                }
                2 => {
                    let delivery = LeaseId(eye.u64()?);
                    (Fate::Pending(delivery), Some(shared(read_answer(eye)?)))
                }
                _ => return eye.damaged(),
            };
            let window = eye.option(|eye| {
                let until = eye.time()?;
                let next = eye.option(|eye| Ok(LeaseId(eye.u64()?)))?;
                Ok(Box::new(Window { until, next }))
            })?;
            Ok(Claim { identity, fate, told, window, rode })
        })?;
        Ok(Transaction { version: 0, claims, money })
    })
}

/// Formats 1 to 3 knew whether money had moved, and wrote it as 1 or 0.
const MOVED: Money = Money { stage: Stage::Paid, paid: true };

fn write_money(pen: &mut Pen<'_>, money: Money) {
    let Money { stage, paid } = money;
    pen.u8(match money {
        MOVED => 1,
        _ if money == Money::default() => 0,
        _ => {
            let place = Stage::ALL.iter().position(|known| *known == stage).unwrap_or_default() as u8;
            place * 2 + u8::from(paid) + 1
        }
    });
}

fn read_money(eye: &mut Eye<'_>) -> Read<Money> {
    let byte = match eye.u8()? {
        0 => return Ok(Money::default()),
        1 => return Ok(MOVED),
        byte => byte - 1,
    };
    let stage = Stage::ALL.get(usize::from(byte / 2)).copied();
    stage.map_or_else(|| eye.damaged(), |stage| Ok(Money { stage, paid: byte % 2 == 1 }))
}

fn write_answer(answer: &Answer, pen: &mut Pen<'_>) {
    let Answer { status, content_type, body } = answer;
    pen.status(*status);
    pen.option(content_type.as_deref(), Pen::bytes);
    pen.option(body.as_deref(), Pen::bytes);
}

fn read_answer(eye: &mut Eye<'_>) -> Read<Answer> {
    let status = eye.status()?;
    let content_type = eye.option(|eye| Ok(eye.bytes()?.into()))?;
    let body = eye.option(|eye| Ok(eye.bytes()?.into()))?;
    Ok(Answer { status, content_type, body })
}

// ------------------------------------------------------------------------------------------------ deliveries

/// Writes a delivery with all that it carries; its policy is a record of its own.
pub fn write_delivery(delivery: &Delivery, policy: Key, into: &mut Vec<u8>) {
    let Delivery { id: _, version: _, letter, phase, attempts, owed } = delivery;
    let Letter { request, provider, events, claimed, policy: _, arrived } = &**letter;
    let mut pen = Pen(into);
    write_phase(&mut pen, *phase);
    pen.u32(*attempts);
    pen.bool(*owed);
    pen.time(*arrived);
    pen.key(policy);
    pen.bytes(provider.as_bytes());
    pen.all(events, |pen, event| {
        let Carried { reference, transaction, identity, windowed, told, state, step } = event;
        pen.bytes(reference.as_bytes());
        pen.key(*transaction);
        pen.key(*identity);
        pen.bool(*windowed);
        pen.u64(*told);
        pen.option(*state, |pen, state| write_state(pen, state, *step));
    });
    write_claimed(&mut pen, claimed);
    let StoredRequest { method, uri, headers, body } = &**request;
    pen.bytes(method.as_str().as_bytes());
    pen.bytes(uri.to_string().as_bytes());
    pen.count(headers.len());
    for (name, value) in headers {
        pen.bytes(name.as_str().as_bytes());
        pen.bytes(value.as_bytes());
    }
    pen.bytes(body);
}

const REASONS: [Reason; 8] = [
    Reason::Unknown,
    Reason::Exhausted,
    Reason::Conflict,
    Reason::Unrecognised,
    Reason::Unverified,
    Reason::Stale,
    Reason::Overflow,
    Reason::SecondPayment,
];

/// The states alone come first, as formats 1 to 3 wrote them.
const STATES: [(State, Option<Step>); 11] = [
    (State::Pending, None),
    (State::Paid, None),
    (State::Failed, None),
    (State::Cancelled, None),
    (State::Refunded, None),
    (State::ChargedBack, None),
    (State::Pending, Some(Step::Authorised)),
    (State::Cancelled, Some(Step::Expired)),
    (State::Refunded, Some(Step::Part)),
    (State::Refunded, Some(Step::Whole)),
    (State::Paid, Some(Step::Order)),
];

/// A step that belongs to another state says nothing.
fn write_state(pen: &mut Pen<'_>, state: State, step: Option<Step>) {
    let stepped = STATES.contains(&(state, step));
    pen.word(&STATES, &(state, step.filter(|_| stepped)));
}

fn read_state(eye: &mut Eye<'_>) -> Read<(State, Option<Step>)> {
    eye.word(&STATES)
}

fn write_phase(pen: &mut Pen<'_>, phase: Phase) {
    let (number, time) = match phase {
        Phase::Held { until } => (0, until),
        Phase::Queued => (1, Timestamp::EPOCH),
        Phase::InFlight { lease_until } => (2, lease_until),
        Phase::Unknown { since } => (3, since),
        Phase::Retrying { at } => (4, at),
        Phase::Review { since, .. } => (5, since),
        Phase::Recheck { at } => (6, at),
        Phase::Awaited { at } => (7, at),
        Phase::Confirming { since, .. } => (8, since),
    };
    pen.u8(number);
    pen.time(time);
    if let Phase::Review { reason, .. } = phase {
        pen.word(&REASONS, &reason);
    }
    if let Phase::Confirming { at, .. } = phase {
        pen.time(at);
    }
}

fn read_phase(eye: &mut Eye<'_>) -> Read<Phase> {
    let (phase, time) = (eye.u8()?, eye.time()?);
    Ok(match phase {
        0 => Phase::Held { until: time },
        1 => Phase::Queued,
        2 => Phase::InFlight { lease_until: time },
        3 => Phase::Unknown { since: time },
        4 => Phase::Retrying { at: time },
        5 => Phase::Review { since: time, reason: eye.word(&REASONS)? },
        6 => Phase::Recheck { at: time },
        7 => Phase::Awaited { at: time },
        8 => Phase::Confirming { since: time, at: eye.time()? },
        _ => return eye.damaged(),
    })
}

/// Reads a delivery; `policy` finds the policy it was decided with.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_delivery(id: LeaseId, record: &[u8], policy: impl FnOnce(Key) -> Option<Arc<Policy>>) -> Read<Delivery> {
    Eye::whole(record, "a delivery", |eye| {
        let phase = read_phase(eye)?;
        let (attempts, owed, arrived) = (eye.u32()?, eye.bool()?, eye.time()?);
        let policy = policy(eye.key()?).ok_or(Damaged("the policy of a delivery"))?;
        let provider = read_provider(eye)?;
        let events = eye.all(|eye| {
            let (reference, transaction, identity) = (eye.text()?.into(), eye.key()?, eye.key()?);
            let (windowed, told, state) = (eye.bool()?, eye.u64()?, eye.option(read_state)?);
            let (state, step) = (state.map(|(state, _)| state), state.and_then(|(_, step)| step));
            Ok(Carried { reference, transaction, identity, windowed, told, state, step })
        })?;
        let claimed = read_claimed(eye)?;
        let method = Method::from_bytes(eye.bytes()?).or_else(|_| eye.damaged())?;
        let uri = Uri::try_from(eye.bytes()?).or_else(|_| eye.damaged())?;
        let mut headers = HeaderMap::new();
        for _ in 0..eye.count()? {
            let name = HeaderName::from_bytes(eye.bytes()?).or_else(|_| eye.damaged())?;
            let value = HeaderValue::from_bytes(eye.bytes()?).or_else(|_| eye.damaged())?;
            headers.append(name, value);
        }
        let body = Bytes::copy_from_slice(eye.bytes()?);
        let request = Arc::new(StoredRequest { method, uri, headers, body });
        let letter = Arc::new(Letter { request, provider, events, claimed, policy, arrived });
        Ok(Delivery { id, version: 0, letter, phase, attempts, owed })
    })
}

fn write_claimed(pen: &mut Pen<'_>, claimed: &Claimed) {
    let Claimed { channel, names, kinds, exclusive, era } = claimed;
    pen.word(&CHANNELS, channel);
    pen.all(names, |pen, name| write_name(pen, *name));
    pen.all(kinds, |pen, kind| pen.u64(kind.to_bits()));
    pen.bool(*exclusive);
    pen.u64(era.0);
}

fn read_claimed(eye: &mut Eye<'_>) -> Read<Claimed> {
    Ok(Claimed {
        channel: eye.word(&CHANNELS)?,
        names: eye.all(read_name)?,
        kinds: eye.all(|eye| Ok(Kind::from_bits(eye.u64()?)))?,
        exclusive: eye.bool()?,
        era: Era(eye.u64()?),
    })
}

fn write_name(pen: &mut Pen<'_>, name: LockName) {
    pen.u64(name.kind.to_bits());
    pen.key(name.key);
}

fn read_name(eye: &mut Eye<'_>) -> Read<LockName> {
    Ok(LockName { kind: Kind::from_bits(eye.u64()?), key: eye.key()? })
}

// ------------------------------------------------------------------------------------------------ policies

const CHANNELS: [Channel; 2] = [Channel::Webhook, Channel::Return];
const IDENTITIES: [IdentityBy; 6] = [
    IdentityBy::Auto,
    IdentityBy::Event,
    IdentityBy::State,
    IdentityBy::Reference,
    IdentityBy::Body,
    IdentityBy::Places,
];
const LOCKS: [LockBy; 2] = [LockBy::Names, LockBy::Upstream];
const TREATMENTS: [Treatment; 4] = [Treatment::Forward, Treatment::Ack, Treatment::Refuse, Treatment::Review];
const ON_DUPLICATE: [OnDuplicate; 4] =
    [OnDuplicate::Replay, OnDuplicate::Forward, OnDuplicate::Ack, OnDuplicate::Refuse];
/// The last two are known since format 5.
const ON_UNKNOWN: [OnUnknown; 4] =
    [OnUnknown::Resend, OnUnknown::Review, OnUnknown::Confirm, OnUnknown::ConfirmElseResend];
const ON_REPEAT_RETURN: [OnRepeatReturn; 2] = [OnRepeatReturn::Forward, OnRepeatReturn::Redirect];
const ANSWERS: [AnswerBy; 2] = [AnswerBy::Upstream, AnswerBy::Accept];
const ORDERS: [Order; 2] = [Order::Passing, Order::Strict];

/// Writes every choice.
pub fn write_policy(policy: &Policy, into: &mut Vec<u8>) {
    let Policy {
        rule,
        identity,
        lock,
        hold,
        linger,
        collapse_window,
        trailing,
        retention,
        quiet,
        return_wait,
        timeout,
        // About what comes.
        paid_once: _,
        answer,
        answer_within,
        success,
        on_duplicate,
        on_unknown,
        on_unverified,
        on_unrecognised,
        on_stale,
        on_repeat_return,
        order,
        retry,
        review_retryable,
        signature_required,
        shadow,
    } = policy;
    let mut pen = Pen(into);
    pen.bytes(rule.as_bytes());
    pen.word(&IDENTITIES, identity);
    pen.word(&LOCKS, lock);
    for span in [hold, linger, collapse_window, retention, quiet, return_wait, timeout, review_retryable] {
        pen.span(*span);
    }
    pen.option(success.as_ref(), |pen, success| pen.bytes(success.source().as_bytes()));
    pen.word(&ON_DUPLICATE, on_duplicate);
    pen.word(&ON_UNKNOWN, on_unknown);
    for treatment in [on_unverified, on_unrecognised, on_stale] {
        pen.word(&TREATMENTS, treatment);
    }
    pen.word(&ON_REPEAT_RETURN, on_repeat_return);
    pen.word(&ORDERS, order);
    let Retry { first, longest, attempts } = retry;
    pen.span(*first);
    pen.span(*longest);
    pen.u32(*attempts);
    for flag in [trailing, signature_required, shadow] {
        pen.bool(*flag);
    }
    pen.word(&ANSWERS, answer);
    pen.option(*answer_within, Pen::span);
}

/// Reads every choice.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_policy(record: &[u8]) -> Read<Policy> {
    Eye::whole(record, "a policy", |eye| {
        let rule = Arc::from(eye.text()?);
        let (identity, lock) = (eye.word(&IDENTITIES)?, eye.word(&LOCKS)?);
        let mut spans = [Duration::ZERO; 8];
        for span in &mut spans {
            *span = eye.span()?;
        }
        let [hold, linger, collapse_window, retention, quiet, return_wait, timeout, review_retryable] = spans;
        let success = eye.option(|eye| {
            let source = eye.text()?;
            Expression::compile(source, expression::SUCCESS).map(Arc::new).or_else(|_| eye.damaged())
        })?;
        let (on_duplicate, on_unknown) = (eye.word(&ON_DUPLICATE)?, eye.word(&ON_UNKNOWN)?);
        let on_unverified = eye.word(&TREATMENTS)?;
        let on_unrecognised = eye.word(&TREATMENTS)?;
        let on_stale = eye.word(&TREATMENTS)?;
        let (on_repeat_return, order) = (eye.word(&ON_REPEAT_RETURN)?, eye.word(&ORDERS)?);
        let retry = Retry { first: eye.span()?, longest: eye.span()?, attempts: eye.u32()? };
        let [trailing, signature_required, shadow] = [eye.bool()?, eye.bool()?, eye.bool()?];
        // Formats 1 to 3 do not say who may be acknowledged first, which decides what waits for whom.
        let (answer, answer_within) = match eye.left {
            [] => (AnswerBy::Upstream, None),
            _ => (eye.word(&ANSWERS)?, eye.option(Eye::span)?),
        };
        Ok(Policy {
            rule,
            identity,
            lock,
            hold,
            linger,
            collapse_window,
            trailing,
            retention,
            quiet,
            return_wait,
            timeout,
            paid_once: Policy::default().paid_once,
            answer,
            answer_within,
            success,
            on_duplicate,
            on_unknown,
            on_unverified,
            on_unrecognised,
            on_stale,
            on_repeat_return,
            order,
            retry,
            review_retryable,
            signature_required,
            shadow,
        })
    })
}

// ------------------------------------------------------------------------------------------------ leases, names, lines

const RESTS: [Rest; 3] = [Rest::InApp, Rest::Lingers, Rest::Names];

/// Writes a lease.
pub fn write_lease(lease: &Lease, into: &mut Vec<u8>) {
    let Lease { seat: Seat { channel, names, kinds, exclusive, placed, era }, rest, until } = lease;
    let mut pen = Pen(into);
    pen.word(&RESTS, rest);
    pen.option(*until, Pen::time);
    pen.word(&CHANNELS, channel);
    pen.all(names, |pen, name| pen.key(*name));
    pen.all(kinds, |pen, kind| pen.u64(kind.to_bits()));
    pen.bool(*exclusive);
    pen.bool(*placed);
    pen.u64(era.0);
}

/// Reads a lease.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_lease(record: &[u8]) -> Read<Lease> {
    Eye::whole(record, "a lease", |eye| {
        let (rest, until) = (eye.word(&RESTS)?, eye.option(Eye::time)?);
        let channel = eye.word(&CHANNELS)?;
        let names = eye.all(Eye::key)?.into();
        let kinds = eye.all(|eye| Ok(Kind::from_bits(eye.u64()?)))?.into();
        let seat = Seat { channel, names, kinds, exclusive: eye.bool()?, placed: eye.bool()?, era: Era(eye.u64()?) };
        Ok(Lease { seat, rest, until })
    })
}

/// Writes what is remembered of a name.
pub fn write_remembered(remembered: &Remembered, into: &mut Vec<u8>) {
    let Remembered { linked, returned, until } = remembered;
    let mut pen = Pen(into);
    pen.time(*until);
    pen.bool(*returned);
    pen.all(linked, |pen, name| write_name(pen, *name));
}

/// Reads what is remembered of a name.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_remembered(record: &[u8]) -> Read<Remembered> {
    Eye::whole(record, "what is remembered of a name", |eye| {
        let (until, returned) = (eye.time()?, eye.bool()?);
        Ok(Remembered { linked: eye.all(read_name)?, returned, until })
    })
}

/// Writes what has paid a bill; its version is this process's own.
pub fn write_billed(billed: &Billed, into: &mut Vec<u8>) {
    let Billed { bill: Bill { version: _, paid_by }, until } = billed;
    let mut pen = Pen(into);
    pen.time(*until);
    pen.all(paid_by, |pen, payer| pen.key(*payer));
}

/// Reads what has paid a bill.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_billed(record: &[u8]) -> Read<Billed> {
    Eye::whole(record, "what has paid a bill", |eye| {
        let until = eye.time()?;
        Ok(Billed { bill: Bill { version: 0, paid_by: eye.all(Eye::key)? }, until })
    })
}

const OUTCOMES: [Outcome; 4] = [Outcome::Accepted, Outcome::Rejected, Outcome::NotSent, Outcome::Unknown];

/// Writes lines of history in their order, with the number of the first.
pub fn write_lines<'l>(first: u64, lines: impl ExactSizeIterator<Item = &'l Line>, into: &mut Vec<u8>) {
    let mut pen = Pen(into);
    pen.u64(first);
    pen.count(lines.len());
    for line in lines {
        let Line { at, transaction, delivery, attempt, what } = line;
        pen.time(*at);
        pen.key(*transaction);
        pen.option(*delivery, |pen, delivery| pen.u64(delivery.0));
        pen.u32(*attempt);
        write_what(&mut pen, what);
    }
}

/// Reads lines of history, and the number of the first.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_lines(record: &[u8]) -> Read<(u64, Vec<Line>)> {
    Eye::whole(record, "lines of history", |eye| {
        let first = eye.u64()?;
        let lines = eye.all(|eye| {
            let (at, transaction) = (eye.time()?, eye.key()?);
            let delivery = eye.option(|eye| Ok(LeaseId(eye.u64()?)))?;
            Ok(Line { at, transaction, delivery, attempt: eye.u32()?, what: read_what(eye)? })
        })?;
        Ok((first, lines))
    })
}

fn write_what(pen: &mut Pen<'_>, what: &What) {
    match what {
        What::Arrived(Arrived { decision, reference, provider, state, source, why }) => {
            pen.u8(0);
            pen.word(&Decision::ALL, decision);
            pen.bytes(reference.as_bytes());
            pen.bytes(provider.as_bytes());
            pen.option(state.as_ref(), |pen, state| pen.word(&State::ALL, state));
            pen.option(*source, |pen, source| match source {
                IpAddr::V4(address) => pen.bytes(&address.octets()),
                IpAddr::V6(address) => pen.bytes(&address.octets()),
            });
            pen.bytes(why.as_bytes());
        }
        What::Moved(phase) => {
            pen.u8(1);
            write_phase(pen, *phase);
        }
        What::Ended { outcome, status, why } => {
            pen.u8(2);
            pen.word(&OUTCOMES, outcome);
            pen.option(*status, |pen, status| pen.status(status));
            pen.option(why.as_deref(), |pen, why| pen.bytes(why.as_bytes()));
        }
        What::Trailing => pen.u8(3),
        What::Dropped => pen.u8(4),
        What::Acknowledged => pen.u8(6),
        What::Confirmed(booked) => {
            pen.u8(7);
            pen.option(*booked, Pen::bool);
        }
        What::Acted { deed, who, why } => {
            pen.u8(5);
            pen.word(&Deed::ALL, deed);
            pen.bytes(who.as_bytes());
            pen.bytes(why.as_bytes());
        }
    }
}

fn read_what(eye: &mut Eye<'_>) -> Read<What> {
    Ok(match eye.u8()? {
        0 => What::Arrived(Arrived {
            decision: eye.word(&Decision::ALL)?,
            reference: eye.text()?.into(),
            provider: read_provider(eye)?,
            state: eye.option(|eye| eye.word(&State::ALL))?,
            source: eye.option(read_address)?,
            why: eye.text()?.to_owned().into(),
        }),
        1 => What::Moved(read_phase(eye)?),
        2 => What::Ended {
            outcome: eye.word(&OUTCOMES)?,
            status: eye.option(Eye::status)?,
            why: eye.option(|eye| Ok(eye.text()?.into()))?,
        },
        3 => What::Trailing,
        4 => What::Dropped,
        6 => What::Acknowledged,
        7 => What::Confirmed(eye.option(Eye::bool)?),
        5 => What::Acted { deed: eye.word(&Deed::ALL)?, who: eye.text()?.into(), why: eye.text()?.into() },
        _ => return eye.damaged(),
    })
}

fn read_address(eye: &mut Eye<'_>) -> Read<IpAddr> {
    let octets = eye.bytes()?;
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).or_else(|_| eye.damaged())
}

/// A provider that this version does not know is nobody's; its label is all that is lost.
fn read_provider(eye: &mut Eye<'_>) -> Read<&'static str> {
    Ok(provider::by_name(eye.text()?).unwrap_or(&GENERIC).name)
}

/// How far the store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The number of the last group.
    pub group: u64,
    /// The number of the last line of history.
    pub line: u64,
    /// The latest moment at which anything was committed; the epoch where it is not known.
    pub at: Timestamp,
}

impl Tail {
    /// The first moment after anything that was committed; nothing that was drawn by the clock before is drawn again.
    #[must_use]
    pub fn next(self) -> Timestamp {
        if self.at == Timestamp::EPOCH { self.at } else { self.at.after(Duration::from_millis(1)) }
    }
}

/// Writes it.
pub fn write_tail(tail: Tail, into: &mut Vec<u8>) {
    let mut pen = Pen(into);
    pen.u64(tail.group);
    pen.u64(tail.line);
    pen.time(tail.at);
}

/// Reads it.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_tail(record: &[u8]) -> Read<Tail> {
    Eye::whole(record, "the number of the last group", |eye| {
        let (group, line) = (eye.u64()?, eye.u64()?);
        // Format 1 knows no time.
        let at = if eye.left.is_empty() { Timestamp::EPOCH } else { eye.time()? };
        Ok(Tail { group, line, at })
    })
}

/// A number as the key of a record, so that they come in its order.
#[must_use]
pub const fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number that is the key of a record.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_number(key: &[u8]) -> Read<u64> {
    Eye::whole(key, "the number of a record", Eye::u64)
}

/// The digest that is the key of a record.
///
/// # Errors
///
/// [`Damaged`].
pub fn read_key(key: &[u8]) -> Read<Key> {
    Eye::whole(key, "the key of a record", Eye::key)
}
