//! The trace context of a request: from the client, and on to the server.
//!
//! Clients say it in `_meta` (SEP-414: `traceparent`, `tracestate` and `baggage`, without a prefix), or in the headers of
//! their POST (W3C Trace Context). What stands in `_meta` is about this one request and counts before the headers, which
//! are about whatever the POST carries. Servers get both: those behind pipes see no headers.

use http::{HeaderName, HeaderValue};

use super::request::{BAGGAGE, ClientRequest, Edit, TRACEPARENT, TRACESTATE};
use crate::telemetry::calls::CallTrace;
use crate::telemetry::trace_context::{Propagation, TraceParent};
use crate::wire::json;

/// The span of the client that a request belongs to. What is malformed counts as if it were not there.
pub(super) fn parent(request: &ClientRequest<'_>, propagation: Propagation) -> Option<TraceParent> {
    if !propagation.trace_context {
        return None;
    }
    in_meta(request).or_else(|| TraceParent::parse(request.http.traceparent?))
}

fn in_meta(request: &ClientRequest<'_>) -> Option<TraceParent> {
    TraceParent::parse(&json::string(request.context.traceparent?)?)
}

/// What a server gets besides the request itself.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Headers of the POST.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The same in the text.
    pub(super) edit: Option<Edit>,
}

/// The context that a server gets with `request`.
pub(super) fn outgoing(request: &ClientRequest<'_>, trace: &CallTrace, propagation: Propagation) -> Outgoing {
    let mut outgoing = Outgoing::default();
    let own = in_meta(request);
    // The state belongs to the parent that it came with.
    let state = match own {
        Some(_) => request.context.tracestate.and_then(json::string),
        None => request.http.tracestate.map(Into::into),
    };
    let state = state.filter(|_| trace.parent.is_some() && propagation.trace_context);
    let baggage = request.http.baggage.filter(|_| propagation.baggage);
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            outgoing.headers.push((HeaderName::from_static(name), value));
        }
    };
    let parent = trace.outgoing.filter(|_| propagation.trace_context).map(|parent| parent.to_string());
    if let Some(parent) = &parent {
        put(TRACEPARENT, parent);
        if let Some(state) = &state {
            put(TRACESTATE, state);
        }
    }
    if let Some(baggage) = baggage {
        put(BAGGAGE, baggage);
    }
    outgoing.edit = match (&parent, request.meta.filter(|meta| *meta != "null")) {
        // As the client has written it.
        (Some(_), Some(_)) if own.is_some() && own == trace.outgoing => None,
        (Some(parent), Some(meta)) => Some(match request.context.traceparent {
            Some(raw) => request.replace(raw, parent),
            None => request.insert(meta, &member(TRACEPARENT, parent)),
        }),
        (parent, None) => {
            let state = state.as_deref().filter(|_| parent.is_some());
            let all = [(TRACEPARENT, parent.as_deref()), (TRACESTATE, state), (BAGGAGE, baggage)];
            let mut members = String::new();
            for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                if !members.is_empty() {
                    members.push(',');
                }
                members.push_str(&member(name, value));
            }
            (!members.is_empty()).then(|| request.add_meta(&members))
        }
        (None, Some(_)) => None,
    };
    outgoing
}

fn member(name: &str, value: &str) -> String {
    // What may stand in a header and has no quotes or backslashes stands in JSON as it is.
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') {
        format!(r#""{name}":"{value}""#)
    } else {
        format!(r#""{name}":{}"#, json::quoted(value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;
    use crate::aggregator::request::HttpContext;
    use crate::telemetry::calls::{Begin, CallLog, CallLogOptions};
    use crate::telemetry::sampler::Sampler;
    use crate::wire::message::Message;

    const A: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1111111111111111-01";
    const B: &str = "00-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-2222222222222222-01";

    /// What the server gets: parameters and headers.
    fn relayed(
        params: Option<Value>,
        headers: &[(&'static str, &str)],
        log: &Arc<CallLog>,
    ) -> (Value, Value) {
        let mut text = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call"});
        if let Some(params) = params {
            text["params"] = params;
        }
        let message = Message::from_text(text.to_string().into()).unwrap();
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let mut request = ClientRequest::parse(&message).unwrap();
        request.http = HttpContext::of(&headers);
        let parent = parent(&request, log.propagation());
        let call = log.begin(Begin {
            method: request.method,
            subject: None,
            request_id: request.id,
            session: "".into(),
            protocol_version: None,
            parent,
        });
        let outgoing = outgoing(&request, call.trace(), log.propagation());
        let edits: Vec<Edit> = outgoing.edit.into_iter().collect();
        let sent: Value = serde_json::from_str(&request.for_server(1, &edits)).unwrap();
        let sent_headers: serde_json::Map<String, Value> = outgoing
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        (sent.get("params").cloned().unwrap_or_default(), Value::Object(sent_headers))
    }

    #[test]
    fn a_clients_context_is_passed_on_as_it_is_where_nothing_is_exported() {
        let log = CallLog::new(Vec::new(), false);
        let plain = json!({"name": "x"});
        assert_eq!(relayed(Some(plain.clone()), &[], &log), (plain.clone(), json!({})));
        assert_eq!(relayed(None, &[], &log), (Value::Null, json!({})));

        let headers = [("traceparent", A), ("tracestate", "v=\"1\""), ("baggage", "k=v")];
        let all = json!({"traceparent": A, "tracestate": "v=\"1\"", "baggage": "k=v"});
        let with_meta = json!({"name": "x", "_meta": all});
        assert_eq!(relayed(Some(plain), &headers, &log), (with_meta, all.clone()));
        assert_eq!(relayed(None, &headers, &log), (json!({"_meta": all}), all.clone()));
        assert_eq!(relayed(Some(json!({})), &headers, &log), (json!({"_meta": all}), all.clone()));
        let null = json!({"_meta": null, "name": "x"});
        assert_eq!(relayed(Some(null), &headers, &log), (json!({"_meta": all, "name": "x"}), all));
    }

    #[test]
    fn meta_counts_before_headers() {
        let log = CallLog::new(Vec::new(), false);
        let params = json!({"_meta": {"traceparent": A, "tracestate": "a=1", "progressToken": 1}});
        let (sent, headers) =
            relayed(Some(params.clone()), &[("traceparent", B), ("tracestate", "b=2")], &log);
        assert_eq!(sent, params);
        assert_eq!(headers, json!({"traceparent": A, "tracestate": "a=1"}));
        // One that is malformed is none.
        let wrong = json!({"_meta": {"traceparent": "00-x"}});
        let (sent, headers) = relayed(Some(wrong), &[("traceparent", B)], &log);
        assert_eq!(sent, json!({"_meta": {"traceparent": B}}));
        assert_eq!(headers, json!({"traceparent": B}));
        let seven = json!({"_meta": {"traceparent": 7}});
        assert_eq!(relayed(Some(seven.clone()), &[], &log), (seven, json!({})));
        // Two headers are none, too.
        let empty = json!({"_meta": {}});
        let twice = [("traceparent", A), ("traceparent", B)];
        assert_eq!(relayed(Some(empty.clone()), &twice, &log), (empty, json!({})));
    }

    #[test]
    fn our_span_stands_between_where_it_is_exported() {
        let log =
            CallLog::with(CallLogOptions { sampler: Some(Sampler::default()), ..CallLogOptions::default() });
        for params in [
            json!({"_meta": {"traceparent": A, "x": 1}}),
            json!({"_meta": {"x": 1}}),
            json!({"_meta": {}}),
            json!({"name": "x"}),
        ] {
            let (sent, headers) = relayed(Some(params.clone()), &[("traceparent", A)], &log);
            let parent = sent["_meta"]["traceparent"].as_str().unwrap();
            assert_eq!(headers, json!({"traceparent": parent}));
            let parent = TraceParent::parse(parent).unwrap();
            let a = TraceParent::parse(A).unwrap();
            assert!(parent.trace == a.trace && parent.span != a.span, "{params}");
            assert_eq!(sent["_meta"].get("x"), params["_meta"].get("x"));
            assert_eq!(sent.get("name"), params.get("name"));
        }
    }

    #[test]
    fn what_is_not_to_be_propagated_stays_where_it_is() {
        let propagation = Propagation { trace_context: false, baggage: false };
        let log = CallLog::with(CallLogOptions { propagation, ..CallLogOptions::default() });
        let params = json!({"name": "x"});
        let headers = [("traceparent", A), ("baggage", "k=v")];
        assert_eq!(relayed(Some(params.clone()), &headers, &log), (params, json!({})));
    }
}
