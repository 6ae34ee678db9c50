//! Configuration: composes and validates the options that each component owns.

/// The configuration of one node.
#[derive(Debug, Clone, Default)]
pub struct Config {}
