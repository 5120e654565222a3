//! Which traces are recorded.

use super::trace_context::{TraceId, TraceParent};

/// Decides by the client's decision, or by the trace's id (`OTEL_TRACES_SAMPLER`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    of_parent: bool,
    share: f64,
}

impl Default for Sampler {
    /// What the client has decided, and everything that no client has begun.
    fn default() -> Self {
        Self { of_parent: true, share: 1.0 }
    }
}

impl Sampler {
    /// With `of_parent` a client's decision counts; of what is left to decide, `share` is recorded, from 0 to 1.
    pub fn new(of_parent: bool, share: f64) -> Self {
        Self { of_parent, share }
    }

    /// What is recorded of what is left to decide, from 0 to 1.
    pub fn share(self) -> f64 {
        self.share
    }

    /// Whether a trace is recorded.
    pub fn samples(self, trace: TraceId, parent: Option<&TraceParent>) -> bool {
        match parent {
            Some(parent) if self.of_parent => parent.sampled,
            _ => self.takes(trace),
        }
    }

    /// By the lower half of the id, which is random where anything is: everybody who samples so decides the same.
    fn takes(self, trace: TraceId) -> bool {
        let bytes = trace.to_bytes();
        let lower = bytes[8..].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) >> 1;
        // 63 bits; what a float loses of them does not matter.
        #[expect(clippy::cast_precision_loss, reason = "a share is not exact")]
        let place = lower as f64 / (1_u64 << 63) as f64;
        place < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace_context::Ids;

    #[test]
    fn a_clients_decision_counts_where_it_should() {
        let ids = Ids::default();
        let parent = |sampled| TraceParent { trace: ids.trace(), span: ids.span(), sampled };
        let (yes, no) = (parent(true), parent(false));
        for (sampler, of_yes, of_no, of_none) in [
            (Sampler::default(), true, false, true),
            (Sampler::new(true, 0.0), true, false, false),
            (Sampler::new(false, 1.0), true, true, true),
            (Sampler::new(false, 0.0), false, false, false),
        ] {
            assert_eq!(sampler.samples(yes.trace, Some(&yes)), of_yes, "{sampler:?}");
            assert_eq!(sampler.samples(no.trace, Some(&no)), of_no, "{sampler:?}");
            assert_eq!(sampler.samples(ids.trace(), None), of_none, "{sampler:?}");
        }
    }

    #[test]
    fn a_share_is_about_that() {
        let (ids, sampler) = (Ids::default(), Sampler::new(true, 0.25));
        let taken = (0..4000).filter(|_| sampler.samples(ids.trace(), None)).count();
        assert!((800..1200).contains(&taken), "{taken} of 4000");
        let low: TraceId = "ffffffffffffffff0000000000000001".parse().unwrap();
        assert!(sampler.samples(low, None), "only the lower half counts");
    }
}
