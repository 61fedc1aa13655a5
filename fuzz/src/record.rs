//! A record of the store, of the kind that its first byte says.

use std::{fmt::Debug, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use oncegate::{
    callback::{Channel, Key, State},
    store::embedded::record::{self, Damaged, Lease, Rest, Tail},
    time::Timestamp,
    transaction::{
        arrival::Decision,
        history::{Arrived, Deed, Line, Outcome, What},
        lock::{Claimed, Era, LeaseId, LockName, Seat},
        money::Money,
        policy::{OnUnknown, Policy},
        state::{Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction, Window},
    },
};

pub fn try_it(bytes: &[u8]) {
    let Some((kind, record)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => same(record, read_transaction, record::write_transaction),
        1 => same(record, read_delivery, |value, into| record::write_delivery(value, policy_key(), into)),
        2 => same(record, record::read_policy, record::write_policy),
        3 => same(record, record::read_lease, record::write_lease),
        4 => same(record, record::read_remembered, record::write_remembered),
        5 => same(record, record::read_billed, record::write_billed),
        6 => same(record, record::read_lines, |(first, lines), into| record::write_lines(*first, lines.iter(), into)),
        _ => same(record, record::read_tail, |value, into| record::write_tail(*value, into)),
    }
}

/// Whatever can be read is written and read again as the same, and a record that is cut is none.
fn same<T: Debug>(bytes: &[u8], read: fn(&[u8]) -> Result<T, Damaged>, write: fn(&T, &mut Vec<u8>)) {
    let Ok(value) = read(bytes) else { return };
    let mut written = Vec::new();
    write(&value, &mut written);
    let again = read(&written).unwrap_or_else(|why| panic!("{why}: {value:?}"));
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    let mut twice = Vec::new();
    write(&again, &mut twice);
    assert_eq!(twice, written, "{value:?}");
    assert!(read(&[&written[..], b"\0"].concat()).is_err(), "with a byte more it is none: {value:?}");
}

fn policy_key() -> Key {
    Key::of("policy").finish()
}

fn read_transaction(record: &[u8]) -> Result<Transaction, Damaged> {
    record::read_transaction(record, &mut Arc::new)
}

fn read_delivery(record: &[u8]) -> Result<Delivery, Damaged> {
    record::read_delivery(LeaseId(1), record, |key| (key == policy_key()).then(|| Arc::new(Policy::default())))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let at = Timestamp::from_millis(1_775_000_000_000);
    let key = Key::of("fuzz").finish();
    let name = LockName::new("app", ["reference", ""], "tr_1");
    let claimed =
        Claimed { channel: Channel::Webhook, names: vec![name], kinds: vec![name.kind], exclusive: false, era: Era(7) };
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("pay.example"))]);
    let uri = Uri::from_static("/hook?id=%69d");
    let request = StoredRequest { method: Method::POST, uri, headers, body: (&b"id=tr_1"[..]).into() };
    let carried = Carried {
        reference: "tr_1".into(),
        transaction: key,
        identity: key,
        windowed: true,
        told: 7,
        state: Some(State::Paid),
        step: None,
    };
    let seat = Seat::of(&claimed);
    let letter = Letter {
        request: Arc::new(request),
        provider: "mollie",
        events: vec![carried],
        claimed,
        policy: Arc::new(Policy::default()),
        arrived: at,
    };
    let delivery = Delivery {
        id: LeaseId(1),
        version: 0,
        letter: Arc::new(letter),
        phase: Phase::Queued,
        attempts: 1,
        owed: true,
    };
    let confirming = Phase::Confirming { since: at, at: at.after(Duration::from_secs(1)) };
    let asks = Delivery { phase: confirming, ..delivery.clone() };
    let confirms = |on_unknown| Policy { on_unknown, ..Policy::default() };
    let window = Some(Box::new(Window { until: at, next: Some(LeaseId(2)) }));
    let claim = Claim { identity: key, fate: Fate::Pending(LeaseId(1)), told: 7, window, rode: None };
    let transaction = Transaction { version: 0, claims: vec![claim], money: Money::default() };
    let lease = Lease { seat, rest: Rest::Lingers, until: Some(at.after(Duration::from_secs(1))) };
    let line = |what| Line { at, transaction: key, delivery: Some(LeaseId(1)), attempt: 3, what };
    let arrived = Arrived {
        decision: Decision::First,
        reference: "tr_1".into(),
        provider: "mollie",
        state: Some(State::Paid),
        source: Some([192, 0, 2, 7].into()),
        why: "nobody has called before".into(),
    };
    let lines = [
        line(What::Arrived(arrived)),
        line(What::Trailing),
        line(What::Dropped),
        line(What::Moved(Phase::Awaited { at })),
        line(What::Moved(confirming)),
        line(What::Ended { outcome: Outcome::Rejected, status: Some(StatusCode::GONE), why: Some("gone".into()) }),
        line(What::Confirmed(Some(true))),
        line(What::Acted { deed: Deed::Settle, who: "me".into(), why: "it is booked".into() }),
    ];
    // Only the store can make one of these, so they stand here as they are written.
    let time = at.as_millis().to_be_bytes();
    let remembered = [&time[..], &[1, 1], &name.kind.to_bits().to_be_bytes(), name.key.as_bytes()].concat();
    let remembered = record::read_remembered(&remembered).expect("what is remembered of a name");
    let billed = record::read_billed(&[&time[..], &[1], key.as_bytes()].concat()).expect("what has paid a bill");
    let write = |kind: u8, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![kind];
        write(&mut bytes);
        bytes
    };
    vec![
        write(0, &|into| record::write_transaction(&transaction, into)),
        write(1, &|into| record::write_delivery(&delivery, policy_key(), into)),
        write(1, &|into| record::write_delivery(&asks, policy_key(), into)),
        write(2, &|into| record::write_policy(&Policy::default(), into)),
        write(2, &|into| record::write_policy(&confirms(OnUnknown::Confirm), into)),
        write(2, &|into| record::write_policy(&confirms(OnUnknown::ConfirmElseResend), into)),
        write(3, &|into| record::write_lease(&lease, into)),
        write(4, &|into| record::write_remembered(&remembered, into)),
        write(5, &|into| record::write_billed(&billed, into)),
        write(6, &|into| record::write_lines(7, lines.iter(), into)),
        write(7, &|into| record::write_tail(Tail { group: 1, line: 2, at }, into)),
    ]
}
