//! Schemas that say more than the macros can.

use crate::commerce;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{Object, ObjectBuilder, OneOfBuilder, Schema, Type},
    },
};

/// Most on hand, and so the largest change of it.
const UNITS_MAX: i64 = 1_000_000_000_000;

/// A currency in circulation, by its ISO 4217 code.
#[derive(Serialize)]
pub struct Currency;

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        let description = "A currency in circulation, by its ISO 4217 code.";
        let schema = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        schema.enum_values(Some(commerce::Currency::codes())).into()
    }
}

impl ToSchema for Currency {
    fn name() -> Cow<'static, str> {
        "Currency".into()
    }
}

/// What a client keeps with a resource.
pub fn metadata() -> Object {
    let key = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(40));
    let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(500));
    let object = ObjectBuilder::new().schema_type(Type::Object).max_properties(Some(20));
    object.property_names(Some(key)).additional_properties(Some(value)).build()
}

/// Any change of what is on hand but none.
pub fn delta() -> Schema {
    either_way(UNITS_MAX).build().into()
}

/// Whole numbers up to `most` and down to as many below zero, but not 0.
pub fn either_way(most: i64) -> OneOfBuilder {
    let range = |from: i64, to: i64| {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(from)).maximum(Some(to)).build()
    };
    OneOfBuilder::new().item(range(-most, -1)).item(range(1, most))
}
