//! What goes on besides calls, as spans: a start, a reload, a server that is connected. They are for export, not for the log.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of these spans.
pub const LIFECYCLE: &str = "sidegate::lifecycle";

/// What brought something about: a span that may be over when the span of its consequence begins. Nothing where nothing is
/// exported.
///
/// A child of a `tracing` span keeps that open: a start would last until the slowest server has answered.
#[derive(Clone, Debug, Default)]
pub struct Cause(Option<Arc<SpanContext>>);

impl Cause {
    /// The span that we are in.
    pub fn current() -> Self {
        let span = Span::current().context().span().span_context().clone();
        Self(span.is_valid().then(|| Arc::new(span)))
    }

    /// Whether anything is known of it.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Makes `span`, which has not begun yet, a part of this.
    pub fn adopt(self, span: &Span) {
        if let Some(cause) = self.0 {
            // Refused only to a span that nobody exports.
            let _ = span.set_parent(Context::new().with_remote_span_context(SpanContext::clone(&cause)));
        }
    }
}
