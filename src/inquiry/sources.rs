//! How much one sender can make us ask about payments that nobody knows.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::time::Timestamp;

/// A question that led to nothing is paid for with so much time,
const COST: Duration = Duration::from_secs(1);
/// of which one sender may be this far ahead: so many guesses at once, and then one a second. A provider tells of many payments
/// at once, and pays for each until it is answered.
const AHEAD: Duration = Duration::from_secs(240);
/// So many senders are remembered. Beyond them newcomers are not counted: the bounds of the provider hold, and who means it
/// is not shut out by who comes from everywhere.
const MOST: usize = 16_384;

/// Who has asked how much.
#[derive(Debug, Default)]
pub struct Sources {
    /// Until when each has paid.
    paid: HashMap<IpAddr, Timestamp>,
    /// When those were last forgotten who owe nothing.
    swept: Option<Timestamp>,
}

impl Sources {
    /// Whether a question may be asked for this sender; it is paid for until it is given back.
    pub fn admit(&mut self, source: IpAddr, now: Timestamp) -> bool {
        let source = network(source);
        if self.paid.len() >= MOST && !self.paid.contains_key(&source) {
            if self.swept.is_none_or(|swept| swept.after(COST) <= now) {
                self.swept = Some(now);
                self.paid.retain(|_, paid| *paid > now);
            }
            if self.paid.len() >= MOST {
                return true;
            }
        }
        let paid = self.paid.entry(source).or_insert(now);
        let after = (*paid).max(now).after(COST);
        let admitted = after <= now.after(AHEAD);
        if admitted {
            *paid = after;
        }
        admitted
    }

    /// It led to something.
    pub fn give_back(&mut self, source: IpAddr) {
        if let Some(paid) = self.paid.get_mut(&network(source)) {
            *paid = Timestamp::from_millis(paid.as_millis().saturating_sub(COST.as_millis() as u64));
        }
    }
}

/// Of IPv6 a sender has a network, not an address.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !(u128::from(u64::MAX)))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_guesses_is_slowed_down_and_nobody_else_is() {
        let mut sources = Sources::default();
        let admitted = (0..1000).filter(|_| sources.admit(from("2001:db8::1"), T0)).count();
        assert_eq!(admitted, 240);
        assert!(!sources.admit(from("2001:db8::2"), T0), "it is the same network");
        assert!(sources.admit(from("2001:db8:1::1"), T0) && sources.admit(from("192.0.2.1"), T0));
        assert!(sources.admit(from("2001:db8::1"), T0.after(COST)), "time makes it good");
        assert!(!sources.admit(from("2001:db8::1"), T0.after(COST)));
    }

    #[test]
    fn what_leads_to_something_costs_nothing() {
        let mut sources = Sources::default();
        for _ in 0..1000 {
            assert!(sources.admit(from("192.0.2.1"), T0));
            sources.give_back(from("192.0.2.1"));
        }
    }

    #[test]
    fn senders_from_everywhere_fill_nothing_and_shut_nobody_out() {
        let mut sources = Sources::default();
        for host in 0..2 * MOST as u32 {
            assert!(sources.admit(IpAddr::from(host.to_be_bytes()), T0));
            assert!(sources.paid.len() <= MOST);
        }
        assert!(sources.admit(from("198.51.100.1"), T0.after(AHEAD)));
        assert_eq!(sources.paid.len(), 1, "what is paid off is forgotten");
    }
}
