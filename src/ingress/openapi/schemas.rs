//! Schemas and parameters of the description. Nothing here is ever made or read: the real types
//! are in `commerce` and `cluster`.
#![allow(dead_code)]

use super::exact::{Currency, delta, metadata};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToResponse, ToSchema};

/// An error answer (RFC 9457). `code` is stable; docs/errors.md says what to do about each.
#[derive(Serialize, ToSchema, ToResponse)]
#[response(
    description = "A problem; `code` says which",
    content_type = "application/problem+json",
    example = json!({
        "type": "/problems/validation-failed", "title": "The request is well-formed but not acceptable", "status": 422,
        "detail": "items[0].quantity: must be from 1 to 1000000, is 0", "code": "validation-failed",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "errors": [{"field": "items[0].quantity", "detail": "must be from 1 to 1000000, is 0"}]
    })
)]
pub struct ProblemResponse {
    /// Path of a short explanation.
    #[schema(example = "/problems/no-quorum")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    #[schema(example = "no-quorum")]
    code: String,
    /// Finds the request in the nodes' logs.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
    /// The fields, parameters or headers that are wrong.
    errors: Option<Vec<FieldError>>,
    /// With `illegal-transition`: where the resource is.
    state: Option<String>,
    /// With `illegal-transition`: where it can go from there.
    allowed: Option<Vec<String>>,
    /// With `payment-belongs-to-order`.
    order_id: Option<String>,
    /// With `version-mismatch`: the version it is at.
    version: Option<u64>,
    /// With `out-of-stock`: the SKU that is not to be had.
    sku: Option<String>,
    /// With `conflict`, where there are several, and with `out-of-stock`: a stable word for why.
    reason: Option<String>,
    /// With `out-of-stock`: how many of the SKU can be had.
    available: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub struct FieldError {
    #[schema(example = "items[0].quantity")]
    field: String,
    detail: String,
}

/// What a problem code means.
#[derive(Serialize, ToSchema)]
pub struct Explanation {
    code: String,
    r#type: String,
    status: u16,
    title: String,
    fix: String,
    documentation: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConsistencyParam {
    /// `linearizable` sees every write acknowledged before; `local` is this node's replica, which
    /// may be stale, and works without a quorum.
    #[param(inline)]
    consistency: Option<ConsistencyWord>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyWord {
    Linearizable,
    Local,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct WriteHeaders {
    /// 1 to 255 visible ASCII characters: makes the change once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: Option<String>,
    /// The `ETag` that the resource must have.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct PlaceHeaders {
    /// 1 to 255 visible ASCII characters: places the order once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: String,
    /// Wait up to so many seconds (at most 30) for a final state.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// At most so many.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// The id of the last one seen.
    #[param(min_length = 1)]
    starting_after: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderFilters {
    /// Only the orders of this customer.
    #[param(min_length = 1, max_length = 128, example = "cus_1")]
    customer_id: Option<String>,
    /// Only orders that are this now.
    #[param(inline)]
    status: Option<OrderStatus>,
    /// Only orders that were placed at this time or later.
    #[param(format = DateTime, example = "2026-11-23T00:00:00Z")]
    created_after: Option<String>,
    /// Only orders that were placed before this time.
    #[param(format = DateTime, example = "2026-11-24T00:00:00Z")]
    created_before: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct StreamHeaders {
    /// `text/event-stream` for the events as they happen.
    #[param(rename = "Accept", example = "text/event-stream")]
    accept: Option<String>,
    /// On a stream: the id of the last event that was seen. Goes before `starting_after`.
    #[param(rename = "Last-Event-ID", example = "evt_6h303vaz912sekgbtnhkqjstc6_2")]
    last_event_id: Option<String>,
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    data: Vec<T>,
    has_more: bool,
}

/// Integer minor units of an ISO 4217 currency.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"amount": 1999, "currency": "USD"}))]
pub struct Money {
    #[schema(minimum = 0, maximum = 999_999_999_999_999_u64)]
    amount: u64,
    #[schema(example = "USD")]
    currency: String,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "customer_id": "cus_1", "currency": "USD", "payment_method": "pm_card_ok",
    "items": [{"sku": "mug-blue", "quantity": 2, "unit_price": 1999}]
}))]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    customer_id: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<OrderItem>,
    currency: Currency,
    /// The sandbox gateway knows `pm_card_ok`, `pm_card_declined`, `pm_card_timeout`,
    /// `pm_card_slow`, `pm_card_flaky`.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    payment_method: String,
    /// Wait for stock where there is none, as far as the SKU's `backorder_limit` allows.
    #[schema(default = false, nullable = false)]
    backorder: Option<bool>,
    /// At most 20 members, and 16 KiB of keys and values.
    #[schema(schema_with = metadata, required = false)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderItem {
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-.0-~]+$", example = "mug-blue")]
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
    /// Minor units of the order's currency.
    #[schema(minimum = 0, maximum = 999_999_999_999_999_u64, example = 1999)]
    unit_price: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelOrder {
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FulfillOrder {
    /// What was sent; absent: everything that is left.
    #[schema(min_items = 1, max_items = 100)]
    items: Option<Vec<ParcelLine>>,
    /// The carrier's name for the parcel.
    #[schema(min_length = 1, max_length = 64, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    tracking: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReturnOrder {
    /// What came back; absent: everything that was sent and has not.
    #[schema(min_items = 1, max_items = 100)]
    items: Option<Vec<ParcelLine>>,
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: Option<String>,
}

/// So many units of one SKU of the order.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParcelLine {
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-.0-~]+$", example = "mug-blue")]
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
}

/// So many units of one SKU of the order, those of several lines together.
#[derive(Serialize, ToSchema)]
pub struct ParcelItem {
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-.0-~]+$", example = "mug-blue")]
    sku: String,
    #[schema(minimum = 1)]
    quantity: u32,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct SettleHeaders {
    /// 1 to 255 visible ASCII characters: makes the change once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: Option<String>,
    /// The `ETag` that the resource must have.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
    /// Wait up to so many seconds (at most 30) until nothing is under way any more.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Fulfillment {
    #[schema(example = "ful_6h303vaz912sekgbtnhkqjstc6_1")]
    id: String,
    items: Vec<ParcelItem>,
    tracking: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct Return {
    #[schema(example = "ret_6h303vaz912sekgbtnhkqjstc6_1")]
    id: String,
    items: Vec<ParcelItem>,
    /// The price of its items: what is given back for them.
    refund: Money,
    /// `pending`, `succeeded`, `declined` by the gateway, or `unresolved`: it does not say.
    #[schema(example = "succeeded")]
    refund_status: String,
    /// Its items are on hand again.
    restocked: bool,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct Order {
    #[schema(example = "ord_6h303vaz912sekgbtnhkqjstc6")]
    id: String,
    #[schema(inline)]
    status: OrderStatus,
    /// Where its money is.
    #[schema(example = "captured")]
    payment_status: String,
    #[schema(example = "unfulfilled")]
    fulfillment_status: String,
    customer_id: String,
    items: Vec<OrderItem>,
    #[schema(example = "USD")]
    currency: String,
    /// Computed by the server.
    total: Money,
    /// One per SKU, once granted.
    reservations: Vec<Reservation>,
    /// What was sent, oldest first.
    fulfillments: Vec<Fulfillment>,
    /// What came back, oldest first.
    returns: Vec<Return>,
    payment_id: String,
    backorder: bool,
    metadata: BTreeMap<String, String>,
    /// Why it was (or is about to be) rejected, cancelled or expired.
    reason: Option<Reason>,
    /// Why it needs attention.
    attention: Option<String>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    Pending,
    Backordered,
    Reserved,
    Authorized,
    Confirmed,
    PartiallyFulfilled,
    Fulfilled,
    PartiallyReturned,
    Returned,
    Rejected,
    Expired,
    Compensating,
    Cancelled,
    NeedsAttention,
}

#[derive(Serialize, ToSchema)]
pub struct Reservation {
    #[schema(example = "res_6h303vaz912sekgbtnhkqjstc6_1")]
    id: String,
    sku: String,
    quantity: u32,
    /// `held`, `committed`, `released`, `expired` or `backordered`.
    #[schema(example = "held")]
    status: String,
    /// Absent while the order waits for stock.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct Reason {
    /// Stable, for programs.
    #[schema(example = "insufficient-stock")]
    code: String,
    detail: String,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"on_hand": 100}))]
#[serde(deny_unknown_fields)]
pub struct PutStock {
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    on_hand: u64,
    /// How far below zero `available` may go.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_u64)]
    backorder_limit: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"delta": -2, "reason": "broken"}))]
#[serde(deny_unknown_fields)]
pub struct AdjustStock {
    /// Not 0.
    #[schema(schema_with = delta)]
    delta: i64,
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: String,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "sku": "mug-blue", "on_hand": 98, "reserved": 3, "available": 95, "committed": 2, "backordered": 0,
    "backorder_limit": 0, "version": 9
}))]
pub struct Stock {
    sku: String,
    on_hand: u64,
    reserved: u64,
    /// `on_hand - reserved - backordered`: below zero when more is owed to backorders than there is.
    available: i64,
    /// Taken by orders and reservations.
    committed: u64,
    /// What backorders wait for.
    backordered: u64,
    /// How far below zero `available` may go.
    backorder_limit: u64,
    /// Came back from customers; absent while nothing has.
    returned: Option<u64>,
    version: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "amount": {"amount": 1999, "currency": "USD"}, "payment_method": "pm_card_ok", "capture": false
}))]
#[serde(deny_unknown_fields)]
pub struct CreatePayment {
    amount: PositiveMoney,
    /// What the gateway knows the card by. The sandbox gateway knows `pm_card_ok`,
    /// `pm_card_declined`, `pm_card_timeout`, `pm_card_slow`, `pm_card_flaky`.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    payment_method: String,
    /// Capture all of it as soon as it is authorized.
    #[schema(default = false, nullable = false)]
    capture: Option<bool>,
    /// At most 20 members, and 16 KiB of keys and values.
    #[schema(schema_with = metadata, required = false)]
    metadata: Option<BTreeMap<String, String>>,
}

/// A part of a payment, in its currency; without an amount, all that there is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"amount": {"amount": 500, "currency": "USD"}}))]
#[serde(deny_unknown_fields)]
pub struct PartOfPayment {
    amount: Option<PositiveMoney>,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"items": [{"sku": "mug-blue", "quantity": 2}], "ttl": "15m"}))]
#[serde(deny_unknown_fields)]
pub struct MakeReservation {
    /// The same SKU on two lines is merged.
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<ReserveItem>,
    /// How long it is held once it is: a whole number and `ms`, `s`, `m`, `h` or `d`, from `1s` to `24h`.
    #[schema(example = "15m", pattern = "^[0-9]+(ms|s|m|h|d)$")]
    ttl: String,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveItem {
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-.0-~]+$", example = "mug-blue")]
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
}

/// The units of one SKU, those of several lines together.
#[derive(Serialize, ToSchema)]
pub struct HeldItem {
    #[schema(example = "mug-blue")]
    sku: String,
    #[schema(minimum = 1)]
    quantity: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ttl": "15m"}))]
#[serde(deny_unknown_fields)]
pub struct ExtendReservation {
    /// From now: a whole number and `ms`, `s`, `m`, `h` or `d`, from `1s` to `24h`.
    #[schema(example = "15m", pattern = "^[0-9]+(ms|s|m|h|d)$")]
    ttl: String,
}

/// No members.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({}))]
#[serde(deny_unknown_fields)]
pub struct VoidPayment {}

/// Integer minor units of an ISO 4217 currency, at least one.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"amount": 1999, "currency": "USD"}))]
#[serde(deny_unknown_fields)]
pub struct PositiveMoney {
    #[schema(minimum = 1, maximum = 999_999_999_999_999_u64)]
    amount: u64,
    currency: Currency,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CreatePaymentHeaders {
    /// 1 to 255 visible ASCII characters: creates the payment once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: String,
    /// Wait up to so many seconds (at most 30) until the gateway owes no answer.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct PaymentHeaders {
    /// 1 to 255 visible ASCII characters: makes the change once, however often it is sent.
    #[param(rename = "Idempotency-Key", example = "6f1f2f0e-5d4e-4b8f-9a54-0f5f6f1d2c3b")]
    idempotency_key: Option<String>,
    /// The `ETag` that the payment must have.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
    /// Wait up to so many seconds (at most 30) until the gateway owes no answer.
    #[param(rename = "Prefer", example = "wait=5")]
    prefer: Option<String>,
}

/// No members.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({}))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Units held for a time, without an order.
#[derive(Serialize, ToSchema)]
pub struct OwnReservation {
    #[schema(example = "res_6h303vaz912sekgbtnhkqjstc6")]
    id: String,
    #[schema(inline)]
    status: OwnReservationStatus,
    /// One per SKU, sorted by SKU.
    items: Vec<HeldItem>,
    /// Absent until it is held.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Why it was rejected.
    reason: Option<Reason>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OwnReservationStatus {
    Pending,
    Held,
    Committed,
    Released,
    Expired,
    Rejected,
}

#[derive(Serialize, ToSchema)]
pub struct Payment {
    #[schema(example = "pay_01h2xcejqtf2nbrexx3vqjhp41")]
    id: String,
    #[schema(inline)]
    status: PaymentStatus,
    /// Absent for a payment of its own.
    order_id: Option<String>,
    amount: Option<Money>,
    captured: Option<Money>,
    refunded: Option<Money>,
    /// Oldest first.
    refunds: Vec<Refund>,
    #[schema(example = "pm_card_ok")]
    payment_method: String,
    metadata: BTreeMap<String, String>,
    /// `authorize`, `capture`, `void` or `refund` while the gateway owes the answer to it.
    #[schema(example = "capture")]
    in_progress: Option<String>,
    /// Until when it may be captured, while it is authorized.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Why it was declined, or what is unknown.
    reason: Option<String>,
    version: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    Created,
    Authorizing,
    Authorized,
    Capturing,
    Captured,
    Declined,
    Voided,
    AuthorizationExpired,
    Unknown,
}

#[derive(Serialize, ToSchema)]
pub struct Refund {
    #[schema(example = "re_01h2xcejqtf2nbrexx3vqjhp41_1")]
    id: String,
    amount: Option<Money>,
    /// `pending`, `unknown`, `succeeded` or `failed`.
    #[schema(example = "succeeded")]
    status: String,
    /// Why it failed, or what is unknown.
    reason: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// One entry of a history.
#[derive(Serialize, ToSchema)]
pub struct Event {
    #[schema(example = "evt_01h2xcejqtf2nbrexx3vqjhp41_1")]
    id: String,
    /// 1 for the first, without gaps.
    sequence: u64,
    #[schema(example = "placed")]
    r#type: String,
    #[schema(format = DateTime)]
    at: String,
    #[schema(value_type = Object)]
    data: Value,
}

/// One entry of a history as a server-sent event.
#[derive(Serialize, ToSchema)]
pub struct StreamedEvent {
    #[schema(example = "evt_01h2xcejqtf2nbrexx3vqjhp41_1")]
    id: String,
    /// The entry's `type`.
    #[schema(example = "placed")]
    event: String,
    /// The JSON of the entry.
    data: String,
}

#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(example = "ok")]
    status: String,
    /// With `?verbose`.
    checks: Option<Vec<HealthCheck>>,
}

#[derive(Serialize, ToSchema)]
pub struct HealthCheck {
    name: String,
    ok: bool,
    detail: String,
}

#[derive(Serialize, ToSchema)]
pub struct NodeStatus {
    /// 32 hexadecimal digits.
    cluster: Option<String>,
    node: Option<u64>,
    name: String,
    version: String,
    uptime_ms: u64,
    #[schema(example = "ready")]
    phase: String,
    shards_without_owner: Vec<u16>,
    shards_owned: u64,
    /// Broken invariants that this node has found and that still stand.
    violations: u64,
}

#[derive(Serialize, ToSchema)]
pub struct Member {
    node: u64,
    name: String,
    address: String,
    http: String,
    zone: Option<String>,
    /// `alive`, `suspect` or `down`, as this node sees it.
    gossip: String,
    linked: bool,
    is_self: bool,
    /// It goes for good once no shard counts on it any more.
    leaving: bool,
}

#[derive(Serialize, ToSchema)]
pub struct LeavingMember {
    #[schema(example = "berlin-4")]
    name: String,
    leaving: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Shard {
    shard: u16,
    replicas: Vec<u64>,
    /// Other nodes than `replicas` while a new one is being filled; empty where this node holds no replica.
    voters: Vec<u64>,
    owner: Option<u64>,
    term: u64,
    applied_index: Option<u64>,
    last_log_index: Option<u64>,
    outbox: u64,
    active_entities: u64,
}

#[derive(Serialize, ToSchema)]
pub struct EntityKey {
    entity_type: String,
    id: String,
}

#[derive(Serialize, ToSchema)]
pub struct Entity {
    key: EntityKey,
    shard: u16,
    owner: Option<u64>,
    version: u64,
    applied_index: u64,
    state: Value,
}
