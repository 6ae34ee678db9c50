//! Trace ids and the W3C `traceparent` header (Trace Context, level 1).

use std::{fmt, str::FromStr};

/// 128 bits, never zero, shown as 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(u128);

/// The header `traceparent: 00-<trace id>-<parent span>-<flags>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: TraceId,
    /// The caller's span; never zero.
    pub parent: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
}

/// Text that is no trace id or no `traceparent`. The standard asks to start a new trace then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C trace context")]
pub struct Invalid;

impl TraceId {
    /// A new trace.
    pub fn random() -> Self {
        Self(rand::random::<u128>().max(1))
    }
}

impl Traceparent {
    /// A new trace with a new root span.
    pub fn random() -> Self {
        Self { trace_id: TraceId::random(), parent: rand::random::<u64>().max(1), sampled: true }
    }

    /// The same trace, seen from a new span of ours: what to send onwards.
    #[must_use]
    pub fn child(self) -> Self {
        Self { parent: rand::random::<u64>().max(1), ..self }
    }

    /// Reads a header; versions above 00 are read as far as 00 goes, as the standard demands.
    pub fn parse(header: &str) -> Result<Self, Invalid> {
        let header = header.trim();
        let mut fields = header.splitn(5, '-');
        let mut field = |digits| fields.next().and_then(|text| hex(text, digits)).ok_or(Invalid);
        let (version, trace_id, parent, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let more = fields.next().is_some();
        if version == 0xff || (version == 0 && more) || trace_id == 0 || parent == 0 {
            return Err(Invalid);
        }
        let parent = u64::try_from(parent).map_err(|_| Invalid)?;
        Ok(Self { trace_id: TraceId(trace_id), parent, sampled: flags & 1 == 1 })
    }
}

/// Exactly `digits` lower-case hex digits; the standard allows no others.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TraceId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        hex(text, 32).filter(|id| *id != 0).map(Self).ok_or(Invalid)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.parent, u8::from(self.sampled))
    }
}

impl FromStr for Traceparent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_read_and_written() {
        let parsed = Traceparent::parse(EXAMPLE).expect("valid");
        assert_eq!(parsed.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parsed.parent, parsed.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parsed.to_string(), EXAMPLE);
        assert_eq!(parsed.child().trace_id, parsed.trace_id);
        assert_ne!(parsed.child().parent, parsed.parent);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = EXAMPLE.replacen("00-", "cc-", 1) + "-what-comes-later";
        let parsed = Traceparent::parse(&later).expect("valid");
        assert_eq!(parsed, Traceparent::parse(EXAMPLE).expect("valid"));
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let wrong = [
            String::new(),
            "00".into(),
            EXAMPLE.replacen("00-", "ff-", 1),
            EXAMPLE.to_uppercase(),
            format!("{EXAMPLE}-more"),
            format!("{EXAMPLE}0"),
            EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            EXAMPLE.replace("4bf9", "4bg9"),
            EXAMPLE.replace("4bf92", "+bf92"),
            EXAMPLE.replace("4bf92f", "äbf92"),
        ];
        for header in wrong {
            assert_eq!(Traceparent::parse(&header), Err(Invalid), "{header:?}");
        }
    }

    #[test]
    fn trace_ids_are_32_hex_digits_there_and_back() {
        for id in [TraceId(1), TraceId(u128::MAX), TraceId::random()] {
            assert_eq!(id.to_string().len(), 32);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("0".repeat(32).parse::<TraceId>(), Err(Invalid));
        assert_ne!(TraceId::random(), TraceId::random());
    }
}
