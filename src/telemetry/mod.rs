//! What a node says about itself: logs on stderr, metrics as Prometheus text, trace ids.
//!
//! ```text
//! tracing events ─▶ init() subscriber ─▶ stderr (text or JSON)
//! counter!/gauge!/histogram! ─▶ metrics() recorder ─▶ render() ─▶ GET /metrics
//! ```
//!
//! Both are process-wide, because the facades under them are. Metric names live in [`names`] and
//! nowhere else. This module never listens on a port and never decides anything.

mod exporter;
pub mod limited;
mod log;
pub mod names;
mod process;
pub mod trace;

pub use exporter::{Metrics, metrics};
pub use limited::Limited;
pub use log::{Error, Format, Options, init};
pub use trace::{TraceId, Traceparent};
