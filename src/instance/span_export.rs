//! Where agentgateway exports spans of its own.

use tracing::warn;

use crate::config;
use crate::telemetry::export::Telemetry;
use crate::yaml_applier::{OtlpProtocol, SpanExport};

/// Where agentgateway exports spans of its own, where it does: where we export ours.
pub(super) fn span_export(settings: &config::Settings, telemetry: &Telemetry) -> Option<SpanExport> {
    if !settings.telemetry.gateway_spans.value {
        return None;
    }
    let Some(destination) = telemetry.settings().and_then(|settings| settings.traces.as_ref()) else {
        warn!("telemetry.gatewaySpans is ignored: no spans are exported; set telemetry.endpoint");
        return None;
    };
    let mut endpoint = destination.endpoint.clone();
    let protocol = match destination.protocol {
        config::OtlpProtocol::Grpc => OtlpProtocol::Grpc,
        config::OtlpProtocol::HttpProtobuf => {
            // It puts this behind the endpoint itself.
            let path = endpoint.path().trim_end_matches('/').trim_end_matches("v1/traces").to_owned();
            endpoint.set_path(&path);
            OtlpProtocol::Http
        }
    };
    Some(SpanExport { endpoint, protocol })
}
