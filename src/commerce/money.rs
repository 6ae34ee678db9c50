//! Amounts of money: integer minor units of one ISO 4217 currency, never negative.
//!
//! Limit: one amount is at most [`AMOUNT_MAX`] minor units (10^15 − 1), so that every amount is
//! exact as a JSON number too. Arithmetic is checked and never mixes currencies.

use super::currencies;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The largest amount, in minor units.
pub const AMOUNT_MAX: i64 = 999_999_999_999_999;

/// An ISO 4217 currency in circulation; always one of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// An amount of minor units (cents for USD, yen for JPY), `0..=AMOUNT_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawMoney")]
pub struct Money {
    amount: i64,
    currency: Currency,
}

/// Why an amount is not money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not an ISO 4217 currency in circulation (three capital letters)")]
    UnknownCurrency(String),
    #[error("an amount is from 0 to {AMOUNT_MAX} minor units")]
    OutOfRange,
    #[error("{0} and {1} cannot be mixed")]
    MixedCurrencies(Currency, Currency),
}

#[derive(Deserialize)]
struct RawMoney {
    amount: i64,
    currency: Currency,
}

impl Currency {
    /// Every code there is, in order.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        currencies::TABLE.iter().filter_map(|(code, _)| std::str::from_utf8(code).ok())
    }

    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Digits after the decimal point: 2 for USD, 0 for JPY, 3 for KWD.
    pub fn exponent(self) -> u8 {
        find(self.0).map_or(0, |(_, exponent)| exponent)
    }
}

impl Money {
    pub fn new(amount: i64, currency: Currency) -> Result<Self, Error> {
        if !(0..=AMOUNT_MAX).contains(&amount) {
            return Err(Error::OutOfRange);
        }
        Ok(Self { amount, currency })
    }

    pub fn zero(currency: Currency) -> Self {
        Self { amount: 0, currency }
    }

    /// Minor units.
    pub fn amount(&self) -> i64 {
        self.amount
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }

    pub fn checked_add(self, other: Self) -> Result<Self, Error> {
        let sum = self.amount.checked_add(self.same(other)?);
        Self::new(sum.ok_or(Error::OutOfRange)?, self.currency)
    }

    /// An error if the result would be negative.
    pub fn checked_sub(self, other: Self) -> Result<Self, Error> {
        let rest = self.amount.checked_sub(self.same(other)?);
        Self::new(rest.ok_or(Error::OutOfRange)?, self.currency)
    }

    pub fn checked_mul(self, times: u32) -> Result<Self, Error> {
        let product = self.amount.checked_mul(i64::from(times));
        Self::new(product.ok_or(Error::OutOfRange)?, self.currency)
    }

    fn same(self, other: Self) -> Result<i64, Error> {
        if self.currency != other.currency {
            return Err(Error::MixedCurrencies(self.currency, other.currency));
        }
        Ok(other.amount)
    }
}

fn find(code: [u8; 3]) -> Option<([u8; 3], u8)> {
    let at = currencies::TABLE.binary_search_by_key(&code, |(code, _)| *code).ok()?;
    currencies::TABLE.get(at).copied()
}

impl FromStr for Currency {
    type Err = Error;

    fn from_str(code: &str) -> Result<Self, Error> {
        let known = code.as_bytes().try_into().ok().and_then(find);
        // The text may come from outside: an error must not carry a megabyte of it along.
        let unknown = || Error::UnknownCurrency(code.chars().take(16).collect());
        known.map(|(code, _)| Self(code)).ok_or_else(unknown)
    }
}

impl TryFrom<String> for Currency {
    type Error = Error;

    fn try_from(code: String) -> Result<Self, Error> {
        code.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl TryFrom<RawMoney> for Money {
    type Error = Error;

    fn try_from(raw: RawMoney) -> Result<Self, Error> {
        Self::new(raw.amount, raw.currency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Money {
    /// `19.99 USD`, `500 JPY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = usize::from(self.currency.exponent());
        if exponent == 0 {
            return write!(f, "{} {}", self.amount, self.currency);
        }
        let unit = 10_i64.pow(u32::from(self.currency.exponent()));
        let (whole, part) = (self.amount / unit, self.amount % unit);
        write!(f, "{whole}.{part:0exponent$} {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(amount: i64, code: &str) -> Money {
        Money::new(amount, code.parse().expect("a known currency")).expect("in range")
    }

    #[test]
    fn the_table_is_sorted_so_that_every_code_is_found() {
        assert!(currencies::TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (code, exponent) in currencies::TABLE {
            let text = std::str::from_utf8(&code).expect("ASCII");
            assert_eq!(text.parse::<Currency>().expect("found").exponent(), exponent);
        }
    }

    #[test]
    fn exponents_follow_iso_4217() {
        for (code, exponent) in [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0)] {
            assert_eq!(code.parse::<Currency>().expect("known").exponent(), exponent, "{code}");
        }
    }

    /// Every currency that does not have two digits; a wrong one here would charge a hundredfold.
    #[test]
    fn currencies_without_two_digits_are_exactly_these() {
        let of = |exponent: u8| {
            let codes = currencies::TABLE.iter().filter(|(_, digits)| *digits == exponent);
            codes.map(|(code, _)| std::str::from_utf8(code).expect("ASCII")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(0), "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF");
        assert_eq!(of(3), "BHD IQD JOD KWD LYD OMR TND");
        assert_eq!(of(4), "CLF UYW");
        assert!(currencies::TABLE.iter().all(|(_, digits)| matches!(digits, 0 | 2..=4)));
    }

    #[test]
    fn the_largest_amount_is_exact_as_a_json_number_of_any_reader() {
        let largest = serde_json::to_value(money(AMOUNT_MAX, "CLF")).expect("serialises");
        assert_eq!(largest["amount"].as_f64().map(|double| double as i64), Some(AMOUNT_MAX));
        assert_eq!(money(AMOUNT_MAX, "CLF").to_string(), "99999999999.9999 CLF");
        assert_eq!(serde_json::from_value::<Money>(largest).expect("read back"), money(AMOUNT_MAX, "CLF"));
    }

    #[test]
    fn what_is_not_a_whole_amount_of_a_known_currency_is_not_read_as_money() {
        for bad in [
            r#"{"amount":19.99,"currency":"USD"}"#,
            r#"{"amount":1e3,"currency":"USD"}"#,
            r#"{"amount":"5","currency":"USD"}"#,
            r#"{"amount":1000000000000000,"currency":"USD"}"#,
            r#"{"amount":18446744073709551616,"currency":"USD"}"#,
            r#"{"amount":5,"currency":"usd"}"#,
            r#"{"amount":5}"#,
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_and_malformed_codes_are_refused() {
        for code in ["", "usd", "US", "USDX", "XXX", "ZZZ", "XAU", "€€€"] {
            assert!(code.parse::<Currency>().is_err(), "{code:?}");
        }
    }

    #[test]
    fn currencies_are_never_mixed() {
        assert!(matches!(money(1, "USD").checked_add(money(1, "EUR")), Err(Error::MixedCurrencies(..))));
        assert!(matches!(money(1, "USD").checked_sub(money(1, "EUR")), Err(Error::MixedCurrencies(..))));
    }

    #[test]
    fn amounts_outside_the_limits_are_refused() {
        let usd: Currency = "USD".parse().expect("known");
        assert_eq!(Money::new(-1, usd), Err(Error::OutOfRange));
        assert_eq!(Money::new(AMOUNT_MAX + 1, usd), Err(Error::OutOfRange));
        assert_eq!(money(AMOUNT_MAX, "USD").checked_add(money(1, "USD")), Err(Error::OutOfRange));
        assert_eq!(money(1, "USD").checked_sub(money(2, "USD")), Err(Error::OutOfRange));
        assert_eq!(money(AMOUNT_MAX, "USD").checked_mul(u32::MAX), Err(Error::OutOfRange));
        assert!(serde_json::from_str::<Money>(r#"{"amount":-5,"currency":"USD"}"#).is_err());
    }

    #[test]
    fn money_is_written_as_the_contract_says() {
        let json = serde_json::to_string(&money(1999, "USD")).expect("serialises");
        assert_eq!(json, r#"{"amount":1999,"currency":"USD"}"#);
        let shown = [money(1999, "USD"), money(5, "KWD"), money(500, "JPY")].map(|m| m.to_string());
        assert_eq!(shown, ["19.99 USD", "0.005 KWD", "500 JPY"]);
    }

    proptest! {
        #[test]
        fn an_amount_is_shown_with_the_digits_of_its_currency(
            amount in 0..=AMOUNT_MAX, at in 0..currencies::TABLE.len()
        ) {
            let (code, exponent) = currencies::TABLE[at];
            let shown = money(amount, std::str::from_utf8(&code).expect("ASCII")).to_string();
            let (number, _) = shown.split_once(' ').expect("number and code");
            let digits = number.split_once('.').map_or(0, |(_, part)| part.len());
            prop_assert_eq!(digits, usize::from(exponent));
            prop_assert_eq!(number.replace('.', "").parse::<i64>(), Ok(amount), "no digit is lost");
        }

        #[test]
        fn money_survives_its_encodings(amount in 0..=AMOUNT_MAX, at in 0..currencies::TABLE.len()) {
            let (code, _) = currencies::TABLE[at];
            let sum = money(amount, std::str::from_utf8(&code).expect("ASCII"));
            let stored = crate::entity::codec::encode("money", &sum).expect("encodes");
            prop_assert_eq!(crate::entity::codec::decode::<Money>("money", &stored), Ok(sum));
            let sent = serde_json::to_string(&sum).expect("serialises");
            prop_assert_eq!(serde_json::from_str::<Money>(&sent).expect("read back"), sum);
        }

        #[test]
        fn arithmetic_agrees_with_wide_integers(a in 0..=AMOUNT_MAX, b in 0..=AMOUNT_MAX, times: u32) {
            let (x, y) = (money(a, "USD"), money(b, "USD"));
            let exact = |wide: i128| (0..=i128::from(AMOUNT_MAX)).contains(&wide).then_some(wide);
            let got = |result: Result<Money, Error>| result.ok().map(|m| i128::from(m.amount()));
            prop_assert_eq!(got(x.checked_add(y)), exact(i128::from(a) + i128::from(b)));
            prop_assert_eq!(got(x.checked_sub(y)), exact(i128::from(a) - i128::from(b)));
            prop_assert_eq!(got(x.checked_mul(times)), exact(i128::from(a) * i128::from(times)));
        }
    }
}
