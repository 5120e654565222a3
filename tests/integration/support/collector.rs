//! An OTLP collector in this process: over gRPC, or over HTTP with protobuf.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use sidegate::wire::server::serve_connections;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;

use super::certificates::Certificates;
use super::eventually;
use super::sidegate::Builder;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otlp {
    Grpc,
    Http,
}

/// A running collector; ends when dropped.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    pub(crate) protocol: &'static str,
    received: Received,
    _stop: DropGuard,
}

/// What has come: everything with the name of the service that sent it.
#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    logs: Arc<Mutex<Vec<LogRecord>>>,
    headers: Arc<Mutex<Vec<String>>>,
    encodings: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    pub(crate) async fn start(otlp: Otlp) -> Self {
        Self::start_with(otlp, None).await
    }

    /// A collector that speaks TLS only.
    pub(crate) async fn start_tls(otlp: Otlp, certificates: &Certificates) -> Self {
        Self::start_with(otlp, Some(certificates)).await
    }

    async fn start_with(otlp: Otlp, tls: Option<&Certificates>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (received, stop) = (Received::default(), CancellationToken::new());
        match otlp {
            Otlp::Grpc => {
                let mut server = tonic::transport::Server::builder();
                if let Some(tls) = tls {
                    server = server.tls_config(tls.of_tonic()).unwrap();
                }
                let traces = TraceServiceServer::new(received.clone());
                let logs = LogsServiceServer::new(received.clone());
                let serving = server
                    .add_service(traces.accept_compressed(CompressionEncoding::Gzip))
                    .add_service(logs.accept_compressed(CompressionEncoding::Gzip))
                    .serve_with_incoming_shutdown(
                        TcpIncoming::from(listener),
                        stop.clone().cancelled_owned(),
                    );
                tokio::spawn(serving);
            }
            Otlp::Http => {
                let received = received.clone();
                match tls {
                    Some(tls) => {
                        let acceptor = TlsAcceptor::from(tls.of_rustls());
                        let serving = serve_tls(listener, acceptor, received);
                        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
                    }
                    None => {
                        let handler = move |request| received.clone().post(request);
                        tokio::spawn(serve_connections(listener, handler, stop.clone(), TaskTracker::new()));
                    }
                }
            }
        }
        let protocol = match otlp {
            Otlp::Grpc => "grpc",
            Otlp::Http => "http/protobuf",
        };
        Self { endpoint, protocol, received, _stop: stop.drop_guard() }
    }

    /// All spans that have come, with the names of their services.
    pub(crate) fn spans(&self) -> Vec<(String, Span)> {
        self.received.spans.lock().unwrap().clone()
    }

    /// The `authorization` headers of the requests that have come.
    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.received.headers.lock().unwrap().clone()
    }

    /// How the requests that have come were compressed, those that were not left out.
    pub(crate) fn encodings(&self) -> Vec<String> {
        self.received.encodings.lock().unwrap().clone()
    }

    /// All log records that have come.
    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        self.received.logs.lock().unwrap().clone()
    }

    /// Waits until a log record has come that is as asked.
    pub(crate) async fn log_where(&self, is_it: impl Fn(&LogRecord) -> bool) -> LogRecord {
        eventually("a log record at the collector", async || self.logs().into_iter().find(|log| is_it(log)))
            .await
    }

    /// Waits until spans have come that are as asked; gives those of them.
    pub(crate) async fn spans_where(&self, count: usize, is_it: impl Fn(&Span) -> bool) -> Vec<Span> {
        eventually("spans at the collector", async || {
            let spans: Vec<Span> =
                self.spans().into_iter().map(|(_, span)| span).filter(|span| is_it(span)).collect();
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

impl Received {
    fn traces(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap();
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service = attribute(&attributes, "service.name").unwrap_or_default();
            let all = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            spans.extend(all.map(|span| (service.clone(), span)));
        }
    }

    fn records(&self, request: ExportLogsServiceRequest) {
        let all = request.resource_logs.into_iter().flat_map(|of_resource| of_resource.scope_logs);
        self.logs.lock().unwrap().extend(all.flat_map(|of_scope| of_scope.log_records));
    }

    fn note_encoding<T>(&self, request: &tonic::Request<T>) {
        let encoding = request.metadata().get("grpc-encoding").and_then(|value| value.to_str().ok());
        let encoding = encoding.filter(|encoding| *encoding != "identity").map(str::to_owned);
        self.encodings.lock().unwrap().extend(encoding);
    }

    async fn post(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        self.headers.lock().unwrap().extend(authorization.map(str::to_owned));
        let encoding =
            request.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        let mut body = request.into_body().collect().await.unwrap().to_bytes();
        if encoding.as_deref() == Some("gzip") {
            let mut text = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut text).unwrap();
            body = text.into();
        }
        self.encodings.lock().unwrap().extend(encoding);
        let mut response = Response::new(Full::default());
        match path.as_str() {
            "/v1/traces" => self.traces(ExportTraceServiceRequest::decode(body).unwrap()),
            "/v1/logs" => self.records(ExportLogsServiceRequest::decode(body).unwrap()),
            _ => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        response
    }
}

/// Serves each connection that comes, over TLS; one that is refused is closed.
async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor, received: Received) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, received) = (acceptor.clone(), received.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let received = received.clone();
                async move { Ok::<_, Infallible>(received.post(request).await) }
            });
            // The other side may close it at any time.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.headers.lock().unwrap().extend(authorization.map(str::to_owned));
        self.note_encoding(&request);
        self.traces(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.note_encoding(&request);
        self.records(request.into_inner());
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

/// An instance that exports.
pub(crate) trait Exporting {
    /// Everything goes to `collector`, soon.
    fn exporting_to(self, collector: &Collector) -> Self;
}

impl Exporting for Builder {
    fn exporting_to(self, collector: &Collector) -> Self {
        self.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", collector.protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-token-1")
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .env("OTEL_BLRP_SCHEDULE_DELAY", "20")
    }
}

/// The value of an attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(text(found.value.as_ref()?))
}

/// A value as text.
pub(crate) fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
