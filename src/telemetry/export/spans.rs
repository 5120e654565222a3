//! Calls as spans: one for what we do for the client, and one within it for what we ask the server. Names and attributes are
//! those of the OpenTelemetry conventions for MCP (semantic-conventions-genai, `docs/gen-ai/mcp.md`), and our own begin with
//! `sidegate.`.
//!
//! Spans are made of the record when a call is over, and not as it goes on: a call that nobody records costs nothing, and
//! the record is the one place that says what has happened.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::queue::{Queue, Sender};
use super::trouble::Trouble;
use crate::telemetry::calls::{CallObserver, CallRecord, Outcome, Subject};
use crate::telemetry::secrets::Secrets;
use crate::telemetry::trace_context;

/// Exports calls.
#[derive(Debug)]
pub(super) struct CallSpans {
    queue: Queue<SpanData>,
    scope: InstrumentationScope,
}

impl CallSpans {
    pub(super) fn new(queue: Queue<SpanData>, scope: InstrumentationScope) -> Self {
        Self { queue, scope }
    }

    fn span(&self, call: &CallRecord, what: Span) -> SpanData {
        let Span { id, parent, parent_is_remote, kind, started, ended, attributes } = what;
        SpanData {
            span_context: SpanContext::new(
                trace_id(call.trace.id),
                span_id(id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent.map_or(SpanId::INVALID, span_id),
            parent_span_is_remote: parent_is_remote,
            span_kind: kind,
            name: name(call),
            start_time: started,
            end_time: ended,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: status(call),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl CallObserver for CallSpans {
    fn finished(&self, call: &CallRecord) {
        if !call.trace.exported {
            return;
        }
        let ended = call.started + call.times.whole;
        let mut attributes = common_attributes(call);
        attributes.push(KeyValue::new("jsonrpc.request.id", unquoted(&call.request_id)));
        attributes.push(KeyValue::new("network.transport", "tcp"));
        attributes.push(KeyValue::new("network.protocol.name", "http"));
        attributes
            .extend(call.protocol_version.map(|version| KeyValue::new("mcp.protocol.version", version)));
        self.queue.push(self.span(
            call,
            Span {
                id: call.trace.server_span,
                parent: call.trace.parent,
                parent_is_remote: call.trace.parent.is_some(),
                kind: SpanKind::Server,
                started: call.started,
                ended,
                attributes,
            },
        ));
        let Some(upstream) = &call.upstream else { return };
        let mut attributes = common_attributes(call);
        attributes.push(KeyValue::new("jsonrpc.request.id", call.upstream_id.to_string()));
        attributes.push(KeyValue::new("sidegate.route", upstream.route.clone()));
        attributes.push(KeyValue::new("sidegate.tries", i64::from(call.tries)));
        attributes
            .extend(upstream.protocol_version.map(|version| KeyValue::new("mcp.protocol.version", version)));
        match call.pid {
            Some(pid) => {
                attributes.push(KeyValue::new("network.transport", "pipe"));
                attributes.push(KeyValue::new("sidegate.child.pid", i64::from(pid)));
            }
            None => {
                attributes.push(KeyValue::new("network.transport", "tcp"));
                attributes.push(KeyValue::new("network.protocol.name", "http"));
                attributes.push(KeyValue::new("server.address", upstream.address.clone()));
                attributes.extend(upstream.port.map(|port| KeyValue::new("server.port", i64::from(port))));
            }
        }
        let started = call.started + call.times.queue;
        self.queue.push(self.span(
            call,
            Span {
                id: call.trace.client_span,
                parent: Some(call.trace.server_span),
                parent_is_remote: false,
                kind: SpanKind::Client,
                started,
                ended: call.times.upstream.map_or(ended, |upstream| started + upstream),
                attributes,
            },
        ));
    }
}

struct Span {
    id: trace_context::SpanId,
    parent: Option<trace_context::SpanId>,
    parent_is_remote: bool,
    kind: SpanKind,
    started: SystemTime,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
}

fn trace_id(id: trace_context::TraceId) -> TraceId {
    TraceId::from_bytes(id.to_bytes())
}

fn span_id(id: trace_context::SpanId) -> SpanId {
    SpanId::from_bytes(id.to_bytes())
}

/// The method, and the tool or prompt: there are few. Not the URI, of which there are many.
fn name(call: &CallRecord) -> Cow<'static, str> {
    match &call.subject {
        Some(Subject::Tool(name) | Subject::Prompt(name)) => format!("{} {name}", call.method).into(),
        Some(Subject::Resource(_)) | None => call.method.clone(),
    }
}

fn status(call: &CallRecord) -> Status {
    match call.outcome {
        None | Some(Outcome::Ok) => Status::Unset,
        Some(_) => {
            let words = call.error.as_deref().unwrap_or_default();
            Status::Error { description: words.to_owned().into() }
        }
    }
}

fn common_attributes(call: &CallRecord) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    attributes.push(KeyValue::new("mcp.method.name", call.method.clone()));
    attributes.push(KeyValue::new("mcp.session.id", call.session.clone()));
    match &call.subject {
        Some(Subject::Tool(name)) => {
            attributes.push(KeyValue::new("gen_ai.tool.name", name.clone()));
            if call.method == "tools/call" {
                attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
            }
        }
        Some(Subject::Prompt(name)) => attributes.push(KeyValue::new("gen_ai.prompt.name", name.clone())),
        Some(Subject::Resource(uri)) => {
            attributes.push(KeyValue::new("mcp.resource.uri", uri.clone()));
        }
        None => {}
    }
    if let Some(Outcome::Error { code }) = call.outcome {
        attributes.push(KeyValue::new("rpc.response.status_code", code.to_string()));
    }
    if let Some(error_type) = call.outcome.and_then(Outcome::error_type) {
        attributes.push(KeyValue::new("error.type", error_type));
    }
    if let Some(server) = &call.server {
        attributes.push(KeyValue::new("sidegate.server", server.to_string()));
    }
    if let Some(generation) = &call.generation {
        attributes.push(KeyValue::new("sidegate.generation", generation.clone()));
    }
    attributes
}

/// A JSON-RPC id without the quotes that it has where it is a string.
fn unquoted(raw: &str) -> String {
    raw.trim_matches('"').to_owned()
}

/// Sends spans, without what may be secret: here, where no call waits for it.
pub(super) struct SpanSender<E> {
    pub(super) exporter: E,
    pub(super) trouble: Trouble,
    pub(super) secrets: Secrets,
}

impl<E: opentelemetry_sdk::trace::SpanExporter + 'static> Sender<SpanData> for SpanSender<E> {
    async fn send(&mut self, mut batch: Vec<SpanData>) -> Result<(), String> {
        batch.iter_mut().for_each(|span| hide_secrets(span, &self.secrets));
        let sent = self.exporter.export(batch).await;
        sent.map_err(|error| self.secrets.redact(&self.trouble.explain(&error)).into_owned())
    }
}

fn hide_secrets(span: &mut SpanData, secrets: &Secrets) {
    let hide = |text: &mut Cow<'static, str>| {
        if let Cow::Owned(shown) = secrets.redact(text) {
            *text = shown.into();
        }
    };
    let hide_in = |attributes: &mut Vec<KeyValue>| {
        for attribute in attributes {
            if let Value::String(text) = &attribute.value
                && let Cow::Owned(shown) = secrets.redact(text.as_str())
            {
                attribute.value = shown.into();
            }
        }
    };
    hide(&mut span.name);
    hide_in(&mut span.attributes);
    if let Status::Error { description } = &mut span.status {
        hide(description);
    }
    for event in &mut span.events.events {
        hide(&mut event.name);
        hide_in(&mut event.attributes);
    }
}

/// Takes spans of `tracing`: those of what goes on besides calls.
#[derive(Debug)]
pub(super) struct OwnSpans(pub(super) Queue<SpanData>);

impl opentelemetry_sdk::trace::SpanProcessor for OwnSpans {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.push(span);
        }
    }

    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(
        &self,
        _timeout: std::time::Duration,
    ) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}
