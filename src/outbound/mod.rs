//! HTTP/1.1 to the outside: what the card gateway and webhooks have in common.
//!
//! It follows no redirects, uses no proxy, and sends each request once: whether and when to try again
//! is the caller's business. What is https is sent to nobody whose certificate is not good.

mod connections;
mod trust;
mod url;

pub use connections::{ANSWER_BYTES_MAX, Connections, Outgoing};
pub use trust::{Options, Trust};
pub use url::{BadUrl, HttpUrl, Origin};

/// Why a request has no answer. It says nothing about whether the request was carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
