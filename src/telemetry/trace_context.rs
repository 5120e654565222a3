//! W3C Trace Context, Level 1 (<https://www.w3.org/TR/trace-context/>): who asks within which trace.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The id of a trace: what belongs to one request of somebody, wherever it was answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

/// The id of one span of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

/// A `traceparent`: the trace, the span in it that asks, and whether the trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span that asks.
    pub span: SpanId,
    /// Whoever asks may have recorded it.
    pub sampled: bool,
}

/// Which contexts of clients servers get (`OTEL_PROPAGATORS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
}

impl Default for Propagation {
    fn default() -> Self {
        Self { trace_context: true, baggage: true }
    }
}

impl TraceId {
    /// The id as a number, as other libraries take it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    /// The id as a number, as other libraries take it.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl TraceParent {
    /// How long its text is.
    pub const LENGTH: usize = 55;

    /// Reads the text of a `traceparent`. What is malformed is none: whoever gets it begins a trace of its own (section
    /// 4.3, "Processing Model for Working with Trace Context").
    pub fn parse(text: &str) -> Option<Self> {
        let version = text.get(..2).filter(|version| is_hex(version) && *version != "ff")?;
        // Versions to come may say more, after another dash (section 3.2.4).
        let (text, rest) = text.split_at_checked(Self::LENGTH)?;
        if !rest.is_empty() && (version == "00" || !rest.starts_with('-')) {
            return None;
        }
        let mut parts = text.split('-').skip(1);
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || flags.len() != 2 || !is_hex(flags) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace: trace.parse().ok()?, span: span.parse().ok()?, sampled })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// A text that is no id of a trace or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is {digits} digits of 0-9 and a-f, not all of them 0")]
pub struct InvalidId {
    digits: usize,
}

impl FromStr for TraceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { digits: 32 };
        if text.len() != invalid.digits || !is_hex(text) {
            return Err(invalid);
        }
        u128::from_str_radix(text, 16).ok().and_then(NonZeroU128::new).map(Self).ok_or(invalid)
    }
}

impl FromStr for SpanId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { digits: 16 };
        if text.len() != invalid.digits || !is_hex(text) {
            return Err(invalid);
        }
        u64::from_str_radix(text, 16).ok().and_then(NonZeroU64::new).map(Self).ok_or(invalid)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower case only, as the specification has it.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Gives new ids: a counter, scattered by a keyed hash whose key is random. No two are the same, nobody else has the
/// same, and none takes a system call.
#[derive(Debug, Default)]
pub struct Ids {
    key: RandomState,
    last: AtomicU64,
}

impl Ids {
    fn number(&self) -> u64 {
        self.key.hash_one(self.last.fetch_add(1, Ordering::Relaxed))
    }

    /// The id of a new trace.
    pub fn trace(&self) -> TraceId {
        let number = (u128::from(self.number()) << 64) | u128::from(self.number());
        TraceId(NonZeroU128::new(number).unwrap_or(NonZeroU128::MIN))
    }

    /// The id of a new span.
    pub fn span(&self) -> SpanId {
        SpanId(NonZeroU64::new(self.number()).unwrap_or(NonZeroU64::MIN))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span.to_string(), "00f067aa0ba902b7");
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), EXAMPLE);
        let unsampled = TraceParent::parse(&EXAMPLE.replace("-01", "-02")).unwrap();
        assert!(!unsampled.sampled, "only the lowest bit says so");
        let later = EXAMPLE.replace("00-4", "cc-4");
        assert_eq!(TraceParent::parse(&later), Some(parent));
        assert_eq!(TraceParent::parse(&format!("{later}-what-ever")), Some(parent));
    }

    #[test]
    fn what_is_malformed_is_none() {
        for wrong in [
            "",
            "00",
            "é",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "00-4bf92f3577b34da6a3ce929d0e0e47-3600f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_are_new() {
        let (ids, others) = (Ids::default(), Ids::default());
        let seen: HashSet<TraceId> = (0..1000).flat_map(|_| [ids.trace(), others.trace()]).collect();
        assert_eq!(seen.len(), 2000);
        let parent = TraceParent { trace: ids.trace(), span: ids.span(), sampled: false };
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
    }
}
