//! Amounts: from a currency's minor units to major ones, digit by digit and exactly.

use super::extract::decimal;

/// How many decimals a currency has (ISO 4217); most have two, also those that we have never heard of.
#[must_use]
pub fn decimals(currency: &str) -> u8 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// The currency in capitals, if it is a code of three letters.
#[must_use]
pub fn currency(code: &str) -> Option<String> {
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_code.then(|| code.to_ascii_uppercase())
}

/// A whole number of minor units as a decimal number of major ones: `12100` with two decimals is `121.00`.
#[must_use]
pub fn major(minor: &str, decimals: u8) -> Option<String> {
    let (sign, digits) = minor.strip_prefix('-').map_or(("", minor), |digits| ("-", digits));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.is_empty() {
        return None;
    }
    let decimals = usize::from(decimals);
    let padded = format!("{digits:0>width$}", width = decimals + 1);
    let (whole, fraction) = padded.split_at(padded.len() - decimals);
    let point = if decimals == 0 { "" } else { "." };
    decimal(&format!("{sign}{whole}{point}{fraction}"))
}

/// An amount in minor units of a currency, as ISO 4217 has them, in major ones.
#[must_use]
pub fn of(minor: Option<&str>, currency: Option<&str>) -> Option<String> {
    minor.zip(currency).and_then(|(minor, currency)| major(minor, decimals(currency)))
}

/// An amount in major units with at least as many decimals as are usual: `121.0` is `121.00`.
#[must_use]
pub fn padded(text: &str, decimals: u8) -> Option<String> {
    let mut amount = decimal(text)?;
    let known = amount.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if known == 0 && decimals > 0 {
        amount.push('.');
    }
    amount.extend(std::iter::repeat_n('0', usize::from(decimals).saturating_sub(known)));
    Some(amount)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn minor_units_are_told_in_major_ones() {
        for (minor, places, told) in [
            ("12100", 2, Some("121.00")),
            ("5", 2, Some("0.05")),
            ("0", 2, Some("0.00")),
            ("-250", 2, Some("-2.50")),
            ("12100", 0, Some("12100")),
            ("12100", 3, Some("12.100")),
            ("007", 0, Some("7")),
            ("99999999999999999999999999", 2, Some("999999999999999999999999.99")),
            ("12.5", 2, None),
            ("1e3", 2, None),
            ("", 2, None),
            ("-", 0, None),
        ] {
            assert_eq!(major(minor, places).as_deref(), told, "{minor}");
        }
    }

    #[test]
    fn decimals_are_filled_up_and_never_cut() {
        for (text, decimals, told) in [
            ("121.0", 2, "121.00"),
            ("121", 2, "121.00"),
            ("121", 0, "121"),
            ("121.555", 2, "121.555"),
            ("0.5", 3, "0.500"),
        ] {
            assert_eq!(padded(text, decimals).as_deref(), Some(told));
        }
        assert_eq!(padded("1e3", 2), None);
    }

    #[test]
    fn a_currency_is_three_letters() {
        assert_eq!(currency("eur").as_deref(), Some("EUR"));
        assert!(["", "EU", "EURO", "1€", "E R"].iter().all(|code| currency(code).is_none()));
        assert_eq!([decimals("JPY"), decimals("KWD"), decimals("EUR"), decimals("CLF")], [0, 3, 2, 4]);
    }

    proptest! {
        #[test]
        fn no_digit_is_lost(minor in 0_u64.., places in 0_u8..5) {
            let told = major(&minor.to_string(), places).unwrap();
            let digits: u64 = told.replace('.', "").parse().unwrap();
            prop_assert_eq!(digits, minor);
            prop_assert_eq!(told.split_once('.').map_or(0, |(_, fraction)| fraction.len()), usize::from(places));
        }
    }
}
