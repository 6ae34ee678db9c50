//! The API's description (`/openapi.json`) and the page that lets people try it (`/docs`).
//!
//! Both work offline: the page's scripts are part of this binary. The schemas in `schemas` are
//! written beside the types they describe, because the entities know nothing of HTTP; tests hold
//! the two together. What routes have in common is added by `complete`.

mod complete;
mod events;
mod evidence;
mod exact;
mod operations;
mod sagas;
mod schemas;
mod webhooks;

pub use events::*;
pub use evidence::*;
pub use exact::either_way;
pub use operations::*;
pub use sagas::*;
pub use schemas::*;
#[cfg(test)]
pub use tests::{describes, example};
pub use webhooks::*;

use super::{
    Api, admin, backup, console, events as events_route, evidence as evidence_routes, extract::Params, fallback,
    faults, ops, problem::Problem, shop, tasks,
};
use axum::{
    Router,
    extract::Path,
    http::{Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use std::sync::{Arc, LazyLock};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quorate",
        description = "Orders, payments and stock on a replicated cluster. Every node answers every request. \
            An acknowledged write is durable on a quorum. Errors are RFC 9457 problems; their codes are in docs/errors.md.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "orders", description = "Placed once, carried to an end by the cluster"),
        (name = "payments", description = "One charge each: an order's, or one of its own"),
        (name = "inventory", description = "What there is of each SKU"),
        (name = "reservations", description = "Units held for a time, without an order"),
        (name = "webhooks", description = "Who outside is told what happens"),
        (name = "operations", description = "Probes and metrics"),
        (name = "administration", description = "What a node knows about its cluster"),
        (name = "documentation", description = "This description, and problem codes"),
    ),
    paths(
        shop::orders::place, shop::orders::read, shop::orders::cancel, shop::orders::events,
        shop::lists::orders, shop::lists::inventory,
        shop::parcels::fulfill, shop::parcels::take_back,
        shop::payments::create, shop::payments::read, shop::payments::capture, shop::payments::void,
        shop::payments::refund,
        shop::inventory::put, shop::inventory::read, shop::inventory::adjust, shop::inventory::adjustments,
        shop::reservations::make, shop::reservations::read, shop::reservations::commit,
        shop::reservations::release, shop::reservations::extend,
        shop::webhooks::create, shop::webhooks::list, shop::webhooks::read, shop::webhooks::update,
        shop::webhooks::delete, shop::webhooks::rotate_secret,
        shop::sagas::sagas,
        ops::livez, ops::healthz, ops::readyz, ops::startupz, ops::metrics_text,
        console::console,
        admin::status, admin::members, admin::leave, admin::shards, admin::entity, admin::config,
        backup::backup, backup::restore,
        events_route::events,
        tasks::tasks, tasks::dead_letters, tasks::dead_letter, tasks::retry, tasks::discard,
        evidence_routes::receipt, evidence_routes::state_hashes, evidence_routes::violations,
        faults::list, faults::inject, faults::end,
        fallback::explain, openapi_json, docs, docs_page, docs_file,
    ),
    components(schemas(ProblemResponse, FieldError, ClusterSnapshot, StreamReset)),
)]
struct Description;

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/docs", get(docs))
        .route("/docs/", get(docs_page))
        .route("/docs/{*file}", get(docs_file))
}

/// The description as JSON; made once.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let described = serde_json::to_value(Description::openapi()).unwrap_or_default();
        complete::complete(described).to_string()
    });
    &DOCUMENT
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub async fn openapi_json(uri: Uri) -> Result<Response, Problem> {
    Params::none(&uri)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document()).into_response())
}

/// Leads to the interactive page.
#[utoipa::path(
    get, path = "/docs", tag = "documentation",
    responses((status = 308, description = "It is at `/docs/`", headers(("location" = String))))
)]
pub async fn docs(uri: Uri) -> Result<Redirect, Problem> {
    Params::none(&uri)?;
    // Relative, as the page itself: the router may be mounted anywhere.
    Ok(Redirect::permanent("docs/"))
}

/// A page to try this API on.
#[utoipa::path(
    get, path = "/docs/", tag = "documentation",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub async fn docs_page(uri: Uri) -> Result<Response, Problem> {
    Params::none(&uri)?;
    page("")
}

/// A script or style of that page.
#[utoipa::path(
    get, path = "/docs/{file}", tag = "documentation",
    params(("file" = String, Path, example = "swagger-ui.css")),
    responses((status = 200, description = "The file", content(
        (String = "text/css"), (String = "text/javascript"), (String = "text/html"), (String = "image/png"),
    )))
)]
pub async fn docs_file(Path(file): Path<String>) -> Result<Response, Problem> {
    page(&file)
}

fn page(file: &str) -> Result<Response, Problem> {
    static CONFIG: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> = LazyLock::new(|| {
        // Relative, so that it works wherever the router is mounted; and no validator, which is a
        // service on the internet.
        let config = utoipa_swagger_ui::Config::new(["../openapi.json"]);
        Arc::new(config.validator_url("none").try_it_out_enabled(true).display_request_duration(true))
    });
    match utoipa_swagger_ui::serve(file, CONFIG.clone()) {
        Ok(Some(found)) => Ok(([(header::CONTENT_TYPE, found.content_type)], found.bytes).into_response()),
        _ => Err(Problem::not_found("file", &file.chars().take(64).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn described() -> Value {
        serde_json::from_str(document()).expect("well-formed JSON")
    }

    fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
        document["paths"].as_object().expect("paths").iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").iter();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = described();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn operation_ids_are_unique_and_operations_are_tagged_and_explained() {
        let document = described();
        let mut ids = std::collections::BTreeSet::new();
        for (name, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name}: no id"));
            assert!(ids.insert(id.to_owned()), "{name}: {id} is taken");
            assert!(operation["tags"][0].is_string(), "{name}: no tag");
            assert!(operation["summary"].is_string(), "{name}: no summary");
        }
    }

    #[test]
    fn every_route_of_the_shop_describes_its_problems_and_its_body_has_an_example() {
        let document = described();
        for (name, operation) in operations(&document).filter(|(name, _)| name.contains(" /v1/")) {
            let responses = operation["responses"].as_object().expect("responses");
            for status in ["400", "404", "429", "503"] {
                let expected = status != "404" || name.contains('{');
                assert_eq!(responses.contains_key(status), expected, "{name}: {status}");
            }
            if let Some(body) = operation["requestBody"]["content"]["application/json"].as_object() {
                let named = body["schema"]["$ref"].as_str().unwrap_or_default().trim_start_matches('#').to_owned();
                let schema = document.pointer(&named).unwrap_or(&Value::Null);
                let examples = schema.get("example").or_else(|| schema.get("examples"));
                assert!(body.contains_key("example") || examples.is_some(), "{name}: no example");
                assert!(responses.contains_key("422") && responses.contains_key("504"), "{name}");
            }
        }
    }

    /// Adds the places below `schema`, references followed, where a number has an open end.
    fn open_ended(document: &Value, schema: &Value, place: &str, found: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            return open_ended(document, document.pointer(pointer).expect("a schema"), place, found);
        }
        let is_number = ["integer", "number"].iter().any(|number| match &schema["type"] {
            Value::Array(types) => types.contains(&Value::from(*number)),
            one => one == number,
        });
        let has = |bounds: [&str; 2]| bounds.iter().any(|bound| schema[bound].is_number());
        if is_number && !(has(["minimum", "exclusiveMinimum"]) && has(["maximum", "exclusiveMaximum"])) {
            found.push(place.to_owned());
        }
        for member in schema["properties"].as_object().into_iter().flatten() {
            open_ended(document, member.1, &format!("{place}.{}", member.0), found);
        }
        for (at, item) in
            ["oneOf", "anyOf", "allOf"].iter().flat_map(|any| schema[any].as_array()).flatten().enumerate()
        {
            open_ended(document, item, &format!("{place}({at})"), found);
        }
        for inner in ["items", "additionalProperties"].iter().filter_map(|inner| schema.get(inner)) {
            open_ended(document, inner, &format!("{place}[]"), found);
        }
    }

    #[test]
    fn every_number_that_a_request_carries_has_its_bounds() {
        let document = described();
        let (mut bodies, mut found) = (0, Vec::new());
        for (name, operation) in operations(&document) {
            if let Some(body) = operation["requestBody"]["content"]["application/json"].get("schema") {
                bodies += 1;
                open_ended(&document, body, &name, &mut found);
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let place = format!("{name} {}", parameter["name"]);
                open_ended(&document, &parameter["schema"], &place, &mut found);
            }
        }
        assert!(bodies > 15, "{bodies}");
        assert_eq!(found, Vec::<String>::new());

        let open = serde_json::json!({"oneOf": [{"type": ["null", "integer"], "maximum": 5}, {"type": "string"}]});
        open_ended(&document, &open, "here", &mut found);
        assert_eq!(found, ["here(0)"]);
    }

    /// Compares a schema with what is really sent: every member is described, and every member
    /// that the schema requires is there.
    pub fn describes(schema: &str, sent: impl serde::Serialize) {
        let document = described();
        let schema = &document["components"]["schemas"][schema];
        let properties = schema["properties"].as_object().expect("an object schema");
        let sent = serde_json::to_value(sent).expect("JSON");
        let sent = sent.as_object().expect("an object");
        for member in sent.keys() {
            assert!(properties.contains_key(member), "{member} is not described");
        }
        for required in schema["required"].as_array().expect("required members") {
            assert!(sent.contains_key(required.as_str().expect("a name")), "{required} is not sent");
        }
    }

    pub fn example<T: serde::de::DeserializeOwned>(schema: &str) -> T {
        let example = described()["components"]["schemas"][schema]["example"].clone();
        serde_json::from_value(example).expect("an example that the route takes")
    }

    #[test]
    fn what_the_shop_shows_is_what_is_described() {
        use crate::{
            commerce::{Order, OrderView, PaymentView, PlaceOrder, StockView, order, payment, stock},
            entity::{Context, Decision, Entity},
        };
        let placed = example::<PlaceOrder>("PlaceOrder").validate().expect("a valid example");
        let context = Context { id: "ord_1", version: 0, now_ms: 1, random: 1 };
        let decision = Order::decide(&order::State::default(), order::Command::Place(Box::new(placed)), &context);
        let Decision::Accept { reply: order::Reply::Order(state), .. } = decision else { panic!("not placed") };
        let view = OrderView::of("ord_1", &state, 1).expect("placed");
        describes("OrderItem", &view.items[0]);
        describes("Money", view.total);
        describes("Order", view);

        let parcel = order::Fulfillment { lines: Vec::new(), tracking: Some("x".into()), at_ms: 1 };
        let back = order::Return {
            lines: vec![order::Line { leg: 0, quantity: 1 }],
            amount: 1,
            refund: order::Refund::Pending,
            tries: 1,
            restocked: false,
            at_ms: 1,
        };
        let mut sent = (*state).clone();
        sent.shipping = order::Shipping { fulfillments: vec![parcel], returns: vec![back] };
        let view = OrderView::of("ord_1", &sent, 1).expect("placed");
        describes("ParcelItem", &view.returns[0].items[0]);
        describes("Fulfillment", &view.fulfillments[0]);
        describes("Return", &view.returns[0]);

        let levels = stock::Levels { listed: true, ..Default::default() };
        describes("Stock", StockView::of_levels("mug", &levels, 1).expect("listed"));
        let state = payment::State { order_id: Some("ord_1".into()), ..Default::default() };
        describes("Payment", PaymentView::of("pay_1", &state, 1).expect("there"));
        let refund = payment::Refund {
            id: "re_1_1".into(),
            amount: 5,
            status: payment::RefundStatus::Failed,
            number: 1,
            round: 0,
            reason: Some("account_closed".into()),
            created_at_ms: 1,
        };
        let state = payment::State { refunds: vec![refund], ..state };
        describes("Refund", &PaymentView::of("pay_1", &state, 1).expect("there").refunds[0]);
    }

    #[test]
    fn what_a_reservation_shows_is_what_is_described() {
        use crate::commerce::{
            ReservationView,
            order::Refusal,
            reservation::{Refused, State, Status},
            stock::Leg,
        };
        let items = vec![Leg { sku: "mug".into(), quantity: 1 }];
        let refused = Some(Refused { sku: "mug".into(), refusal: Refusal::UnknownSku });
        let state = State { items, refused, until_ms: Some(1), ..Default::default() };
        let view = ReservationView::of("res_1", &state, 1).expect("there");
        describes("HeldItem", &view.items[0]);
        describes("OwnReservation", view);
        let described = described()["components"]["schemas"]["OwnReservation"]["properties"]["status"]["enum"].clone();
        assert_eq!(described, serde_json::json!(Status::ALL.map(Status::name)));
    }

    #[test]
    fn examples_of_reservations_are_bodies_that_the_routes_take() {
        use crate::commerce::reservation::{ExtendReservation, MakeReservation};
        assert!(example::<MakeReservation>("MakeReservation").validate().is_ok());
        assert!(example::<ExtendReservation>("ExtendReservation").validate().is_ok());
    }

    #[test]
    fn examples_of_bodies_are_bodies_that_the_routes_take() {
        use crate::commerce::{AdjustStock, CreatePayment, PutStock, payment};
        assert!(example::<CreatePayment>("CreatePayment").validate(1).is_ok());
        assert!(example::<payment::PartOfPayment>("PartOfPayment").validate().is_ok_and(|amount| amount.is_some()));
        let _: payment::VoidPayment = example("VoidPayment");
        assert!(example::<PutStock>("PutStock").validate().is_ok());
        assert!(example::<AdjustStock>("AdjustStock").validate().is_ok());
    }

    #[test]
    fn every_status_of_an_order_is_described() {
        let described = described()["components"]["schemas"]["Order"]["properties"]["status"]["enum"].clone();
        let known: Vec<_> = crate::commerce::order::Status::ALL.iter().map(|status| status.name()).collect();
        assert_eq!(described, serde_json::json!(known));
    }

    #[test]
    fn every_status_that_orders_are_listed_by_is_described() {
        let document = described();
        let parameters = document["paths"]["/v1/orders"]["get"]["parameters"].as_array().expect("parameters").clone();
        let status = parameters.iter().find(|parameter| parameter["name"] == "status").expect("described");
        let described = serde_json::to_string(&status["schema"]).expect("JSON");
        for known in crate::commerce::order::Status::ALL {
            assert!(described.contains(&format!("\"{known}\"")), "{known}: {described}");
        }
    }

    #[test]
    fn every_status_of_a_payment_is_described() {
        let described = described()["components"]["schemas"]["Payment"]["properties"]["status"]["enum"].clone();
        let known: Vec<_> = crate::commerce::payment::Status::ALL.iter().map(|status| status.name()).collect();
        assert_eq!(described, serde_json::json!(known));
    }

    #[test]
    fn every_problem_of_every_route_is_described_with_its_media_type() {
        let document = described();
        for (name, operation) in operations(&document) {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(status.parse::<u16>().is_ok(), "{name}: {status} would describe anything");
                let Some(reference) = response["$ref"].as_str() else { continue };
                assert_eq!(reference, format!("#/components/responses/Problem{status}"), "{name}");
                let content = &document.pointer(&reference[1..]).expect("there")["content"];
                assert!(content.get("application/problem+json").is_some(), "{name}: {content}");
            }
        }
    }

    #[test]
    fn every_write_of_the_shop_describes_its_receipt() {
        let document = described();
        let mut writes = 0;
        for (name, operation) in operations(&document).filter(|(name, _)| name.contains(" /v1/")) {
            let responses = operation["responses"].as_object().expect("responses");
            let good = responses.iter().find(|(status, _)| status.starts_with('2')).expect("a good answer").1;
            let described = good["headers"].get("x-receipt").is_some();
            assert_eq!(described, !name.starts_with("get "), "{name}");
            writes += usize::from(described);
        }
        assert!(writes >= 13, "{writes}");
    }

    #[tokio::test]
    async fn the_page_and_its_scripts_come_from_this_binary() {
        for file in ["", "swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
            assert!(page(file).is_ok(), "{file}");
        }
        let initializer = page("swagger-initializer.js").expect("there");
        let body = axum::body::to_bytes(initializer.into_body(), 1 << 20).await.expect("in memory");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("../openapi.json") && !text.contains("https://"), "{text}");
        assert!(page("no-such-file").is_err());
    }
}
