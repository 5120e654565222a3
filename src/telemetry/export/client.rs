//! How collectors are reached: exporters for each signal, over gRPC and HTTP.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use tokio::runtime::Handle;

use super::settings::Destination;
use super::trouble::Trouble;
use crate::config::OtlpProtocol;
use crate::error::chain;
use crate::tls::{self, ClientIdentity};

/// The largest answer of a collector that is read, in bytes.
const MOST_ANSWER: usize = 1 << 20;

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file that a variable names cannot be used.
    #[error("the certificate or key for the collector, {}, cannot be used", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The exporter takes no such thing.
    #[error("{signal} cannot be exported")]
    Build {
        /// What was to be exported.
        signal: &'static str,
        /// Why.
        source: ExporterBuildError,
    },
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken to the collector")]
    Tls(#[source] io::Error),
}

/// One for each kind of exporter: their builders have no type in common.
macro_rules! exporter {
    ($name:ident, $exporter:ty, $signal:literal) => {
        impl Destination {
            #[doc = concat!("An exporter of ", $signal, ". Must be called in a runtime, which it will use.")]
            ///
            /// # Errors
            ///
            /// A file that is named cannot be used, or the endpoint.
            pub fn $name(&self) -> Result<$exporter, ExportError> {
                let endpoint = self.endpoint.as_str();
                let built = match self.protocol {
                    OtlpProtocol::Grpc => {
                        let builder = <$exporter>::builder()
                            .with_tonic()
                            .with_endpoint(endpoint.trim_end_matches('/'))
                            .with_timeout(self.timeout)
                            .with_retry_policy(RetryPolicy::recommended())
                            .with_metadata(self.metadata());
                        let builder = match self.compression {
                            Some(compression) => builder.with_compression(compression),
                            None => builder,
                        };
                        match self.tonic_tls()? {
                            Some(tls) => builder.with_tls_config(tls).build(),
                            None => builder.build(),
                        }
                    }
                    OtlpProtocol::HttpProtobuf => {
                        let builder = <$exporter>::builder()
                            .with_http()
                            .with_protocol(Protocol::HttpBinary)
                            .with_endpoint(endpoint)
                            .with_timeout(self.timeout)
                            .with_headers(self.header_texts())
                            .with_http_client(self.http_client()?);
                        match self.compression {
                            Some(compression) => builder.with_compression(compression).build(),
                            None => builder.build(),
                        }
                    }
                };
                built.map_err(|source| ExportError::Build { signal: $signal, source })
            }
        }
    };
}

exporter!(span_exporter, SpanExporter, "traces");
exporter!(log_exporter, LogExporter, "logs");
exporter!(metric_exporter, MetricExporter, "metrics");

impl Destination {
    fn is_tls(&self) -> bool {
        self.endpoint.scheme() == "https"
    }

    fn metadata(&self) -> MetadataMap {
        MetadataMap::from_headers(self.headers.iter().cloned().collect::<HeaderMap>())
    }

    fn header_texts(&self) -> HashMap<String, String> {
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).ok();
        self.headers.iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
    }

    fn tonic_tls(&self) -> Result<Option<ClientTlsConfig>, ExportError> {
        if !self.is_tls() {
            return Ok(None);
        }
        let config = match &self.certificate {
            Some(path) => {
                let pem = read(path)?;
                // It would take a file without any, and then trust nobody.
                tls::roots_of(&pem).map_err(|source| file_error(path, source))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().trust_anchors(tls::system_roots().roots),
        };
        Ok(Some(match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
            None => config,
        }))
    }

    fn http_client(&self) -> Result<CollectorClient, ExportError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let config = if self.is_tls() {
            let roots = match &self.certificate {
                Some(path) => tls::roots_of(&read(path)?).map_err(|source| file_error(path, source))?,
                None => tls::system_roots(),
            };
            let identity = match &self.identity {
                Some((certificate, key)) => Some(
                    ClientIdentity::from_pem(&read(certificate)?, &read(key)?)
                        .map_err(|source| file_error(certificate, source))?,
                ),
                None => None,
            };
            tls::client_as(roots, identity).map_err(ExportError::Tls)?
        } else {
            tls::client(rustls::RootCertStore::empty()).map_err(ExportError::Tls)?
        };
        let client = Client::builder(TokioExecutor::new()).build(HttpsConnector::from((connector, config)));
        let (runtime, timeout, trouble) = (Handle::current(), self.timeout, self.trouble.clone());
        Ok(CollectorClient { client, runtime, timeout, trouble })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ExportError> {
    std::fs::read(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> ExportError {
    ExportError::File { path: path.to_owned(), source }
}

/// Sends requests over connections of our runtime, whichever thread asks: exporters of metrics have one of their own.
#[derive(Clone, Debug)]
struct CollectorClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
    trouble: Trouble,
}

impl HttpClient for CollectorClient {
    // As `async_trait`, which the trait is written with, would have it.
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let exchange = async move {
            let response = client.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MOST_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        let exchange = self.runtime.spawn(tokio::time::timeout(timeout, exchange));
        let trouble = self.trouble.clone();
        Box::pin(async move {
            let exchanged: Result<_, HttpError> = async { exchange.await?? }.await;
            trouble.note(exchanged.as_ref().err().map(|error| chain(&**error)));
            exchanged
        })
    }
}
