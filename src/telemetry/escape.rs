//! Text from outside, made safe to stand in one line of a log.

use std::borrow::Cow;

/// How much of one value from outside a log line shows, in characters.
const SHOWN: usize = 256;
/// How many digits a card number has.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// What may stay readable of a card number: the issuer at its head and the end that is printed on receipts.
const CARD_HEAD: usize = 6;
const CARD_TAIL: usize = 4;

/// A value that came from outside: cut to a bounded length, and without card numbers.
///
/// A reference of digits alone may look like a card number by chance (one in ten does); its head and tail stay readable,
/// so that it can still be told apart. Control characters are left to the log, which escapes them wherever they
/// come from.
#[must_use]
pub fn outside(text: &str) -> Cow<'_, str> {
    let cut = cut(text);
    if is_surely_cardless(&cut) { cut } else { Cow::Owned(mask_cards(&cut)) }
}

/// The whole of a text without card numbers, those in groups (`4111 1111 1111 1111`) included.
#[must_use]
pub fn cardless(text: &str) -> Cow<'_, str> {
    if is_surely_cardless(text) {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let (run, after) = from.split_at(card_like(from));
        masked.push_str(before);
        push_grouped(&mut masked, run);
        rest = after;
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

/// How long the run of digits is that begins here; groups of three to six count as one run, as on a card.
fn card_like(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let group = |length: usize| (3..=6).contains(&length);
    let first = digits(text);
    let mut end = first;
    while group(first) && text[end..].starts_with([' ', '-', '+']) && group(digits(&text[end + 1..])) {
        end += 1 + digits(&text[end + 1..]);
    }
    end
}

fn push_grouped(masked: &mut String, run: &str) {
    let digits: String = run.chars().filter(char::is_ascii_digit).collect();
    if digits.len() == run.len() {
        return push_digits(masked, &digits);
    }
    let mut shown = String::with_capacity(digits.len());
    push_digits(&mut shown, &digits);
    let mut shown = shown.chars();
    masked.extend(run.chars().map(|c| if c.is_ascii_digit() { shown.next().unwrap_or('*') } else { c }));
}

/// The text with every character that could break or disguise a line written out as `\u{…}`, `\n`, `\r` or `\t`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_treacherous(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Control characters, and those invisible ones that reorder, join or end a line for its reader.
pub(super) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN || text.chars().nth(SHOWN).is_none() {
        return Cow::Borrowed(text);
    }
    // A card number that the cut goes through would no longer be known as one: masked first, then cut.
    let head: String = text.chars().take(SHOWN + CARD_DIGITS.end()).collect();
    Cow::Owned(mask_cards(&head).chars().take(SHOWN).chain(['…']).collect())
}

fn is_surely_cardless(text: &str) -> bool {
    text.bytes().filter(u8::is_ascii_digit).count() < *CARD_DIGITS.start()
}

fn mask_cards(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let length = from.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = from.split_at(length);
        masked.push_str(before);
        push_digits(&mut masked, digits);
        rest = after;
    }
    masked.push_str(rest);
    masked
}

fn push_digits(masked: &mut String, digits: &str) {
    if !CARD_DIGITS.contains(&digits.len()) || !passes_luhn(digits) {
        masked.push_str(digits);
        return;
    }
    masked.push_str(&digits[..CARD_HEAD]);
    masked.extend(std::iter::repeat_n('*', digits.len() - CARD_HEAD - CARD_TAIL));
    masked.push_str(&digits[digits.len() - CARD_TAIL..]);
}

fn passes_luhn(digits: &str) -> bool {
    let sum: u32 = digits.bytes().rev().enumerate().map(|(i, b)| luhn_weight(i, u32::from(b - b'0'))).sum();
    sum.is_multiple_of(10)
}

fn luhn_weight(place: usize, digit: u32) -> u32 {
    match (place % 2, digit * 2) {
        (0, _) => digit,
        (_, double) if double > 9 => double - 9,
        (_, double) => double,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_is_masked_wherever_it_stands() {
        assert_eq!(outside("x4111111111111111y"), "x411111******1111y");
        assert_eq!(outside("378282246310005"), "378282*****0005");
        assert_eq!(outside("4111111111111112"), "4111111111111112", "fails the check digit");
        assert_eq!(outside("tr_7UhSN1zuXS"), "tr_7UhSN1zuXS");
    }

    #[test]
    fn a_card_number_in_groups_is_masked_in_a_text_of_any_length() {
        assert_eq!(cardless("n=4111 1111 1111 1111&x"), "n=4111 11** **** 1111&x");
        assert_eq!(cardless("{\"n\":\"4111-1111-1111-1111\"}"), "{\"n\":\"4111-11**-****-1111\"}");
        assert_eq!(cardless("3782+822463+10005"), "3782+82****+*0005");
        assert_eq!(cardless("é4111111111111111é"), "é411111******1111é");
        let innocent = ["2026-11-22 10:00:00 1234567890", "12 34 56 78 90 12 34 56", "4111 1111 1111 1112", "1-2-3"];
        for text in innocent {
            assert_eq!(cardless(text), text);
        }
        let long = format!("{}4111111111111111", "x".repeat(10_000));
        assert!(cardless(&long).ends_with("411111******1111") && cardless(&long).len() == long.len());
    }

    #[test]
    fn a_card_number_at_the_cut_is_masked_before_it_is_cut() {
        let shown = outside(&format!("{}4111111111111111", "ü".repeat(SHOWN - 14))).into_owned();
        assert!(shown.ends_with("411111******11…"), "{shown}");
        assert_eq!(shown.chars().count(), SHOWN + 1);
    }

    #[test]
    fn what_could_disguise_a_line_is_written_out() {
        assert_eq!(escaped("a\r\n\x1b[31m\u{202e}b\u{9b}"), r"a\r\n\u{1b}[31m\u{202e}b\u{9b}");
        assert_eq!(escaped("Zahlung für Öl"), "Zahlung für Öl");
    }
}
