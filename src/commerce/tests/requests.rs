//! What the edge refuses, field by field.

use super::order_of;
use crate::commerce::{
    AdjustStock, CancelOrder, PlaceOrder, PutStock,
    fields::FieldError,
    money::AMOUNT_MAX,
    order::{self, RESERVATION_TTL_MS},
    stock::{Command, ON_HAND_MAX},
};

/// The fields a request is refused for.
fn wrong<T>(validated: Result<T, Vec<FieldError>>) -> Vec<String> {
    validated.err().unwrap_or_default().into_iter().map(|error| error.field).collect()
}

#[test]
fn a_valid_order_passes_and_gets_the_default_ttl() {
    let order = order_of(&[("apple", 2)]).validate().expect("valid");
    assert_eq!((order.items.len(), order.reservation_ttl_ms), (1, RESERVATION_TTL_MS));
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let body = r#"{"customer_id": "", "currency": "usd", "payment_method": "pm_card_ok", "items": [
        {"sku": "apple", "quantity": 0, "unit_price": 5},
        {"sku": "a b", "quantity": -1, "unit_price": -5}], "metadata": {"": "x"}}"#;
    let order: PlaceOrder = serde_json::from_str(body).expect("parses");
    let expected = [
        "customer_id",
        "currency",
        "items[0].quantity",
        "items[1].sku",
        "items[1].quantity",
        "items[1].unit_price",
        "metadata.",
    ];
    assert_eq!(wrong(order.validate()), expected);
}

#[test]
fn the_number_of_lines_is_bounded() {
    assert_eq!(wrong(order_of(&[]).validate()), ["items"]);
    assert_eq!(wrong(order_of(&[("apple", 1); 101]).validate()), ["items"]);
    assert_eq!(wrong(order_of(&[("apple", 1); 100]).validate()), Vec::<String>::new());
}

#[test]
fn money_that_overflows_is_refused() {
    let mut order = order_of(&[("apple", 2)]);
    order.items[0].unit_price = AMOUNT_MAX;
    assert_eq!(wrong(order.clone().validate()), ["items"]);
    order.items[0].unit_price = i64::MAX;
    assert_eq!(wrong(order.validate()).first().map(String::as_str), Some("items[0].unit_price"));
}

#[test]
fn long_strings_and_much_metadata_are_refused() {
    let mut order = order_of(&[("apple", 1)]);
    order.customer_id = "c".repeat(129);
    order.payment_method = "p\n".into();
    order.items[0].sku = "s".repeat(65);
    order.metadata = (0..21).map(|key| (key.to_string(), "v".repeat(if key == 0 { 501 } else { 1 }))).collect();
    let expected = ["customer_id", "payment_method", "items[0].sku", "metadata", "metadata.0"];
    assert_eq!(wrong(order.validate()), expected);
}

#[test]
fn unknown_fields_are_refused_while_parsing() {
    let unknown = r#"{"on_hand": 1, "colour": "red"}"#;
    let error = serde_json::from_str::<PutStock>(unknown).expect_err("unknown").to_string();
    assert!(error.contains("colour"), "{error}");
}

#[test]
fn a_cancel_needs_no_reason_but_bounds_it() {
    let empty: CancelOrder = serde_json::from_str("{}").expect("parses");
    assert_eq!(empty.validate(), Ok(order::Command::Cancel { reason: "requested".into() }));
    let long = CancelOrder { reason: Some("x".repeat(501)) };
    assert_eq!(wrong(long.validate()), ["reason"]);
}

#[test]
fn stock_requests_are_checked() {
    let put = |on_hand, backorder_limit| PutStock { on_hand, backorder_limit }.validate();
    assert_eq!(put(5, None), Ok(Command::Put { on_hand: 5, backorder_limit: 0 }));
    assert_eq!(wrong(put(-1, Some(-1))), ["on_hand", "backorder_limit"]);
    assert_eq!(wrong(put(ON_HAND_MAX as i64 + 1, None)), ["on_hand"]);
    let adjust = |delta, reason: &str| AdjustStock { delta, reason: reason.into() }.validate();
    assert_eq!(wrong(adjust(0, "")), ["delta", "reason"]);
    assert!(adjust(-3, "broken").is_ok());
}

#[test]
fn reservation_requests_are_checked() {
    use crate::commerce::reservation::{ExtendReservation, MakeReservation};
    let make = |body: &str| serde_json::from_str::<MakeReservation>(body).expect("parses").validate();
    assert!(make(r#"{"items": [{"sku": "apple", "quantity": 1}], "ttl": "15m"}"#).is_ok());
    let every = make(r#"{"items": [{"sku": "a b", "quantity": 0}, {"sku": "b", "quantity": -1}], "ttl": "15"}"#);
    assert_eq!(wrong(every), ["items[0].sku", "items[0].quantity", "items[1].quantity", "ttl"]);
    assert_eq!(wrong(make(r#"{"items": [], "ttl": "1s"}"#)), ["items"]);
    let extend = |ttl: &str| ExtendReservation { ttl: ttl.into() }.validate();
    for bad in ["", "0s", "999ms", "25h", "2d", "15 m", "forever"] {
        assert_eq!(wrong(extend(bad)), ["ttl"], "{bad:?}");
    }
    assert!(extend("1s").is_ok() && extend("24h").is_ok() && extend("1d").is_ok());
}
