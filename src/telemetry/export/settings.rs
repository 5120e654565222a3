//! What is exported, and where to: the variables of the OpenTelemetry specification, and `telemetry` of `config.yaml`.
//!
//! A signal is exported where somebody has said where to. The variable of one signal counts before all, then what is set
//! for all signals: `SIDEGATE_TELEMETRY_*`, `OTEL_EXPORTER_OTLP_*`, `config.yaml`. `OTEL_*` variables are often set for other
//! programs too: what is wrong or unknown in them is passed over with a warning.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_otlp::Compression;
use opentelemetry_sdk::Resource;
use url::Url;

use super::trouble::Trouble;
use crate::config::{Origin, OtlpProtocol, Setting, TelemetrySettings};
use crate::environment::Environment;
use crate::mcpserver::{SecretNames, is_word, parts_of_header};
use crate::telemetry::sampler::Sampler;
use crate::telemetry::trace_context::Propagation;

/// The name of the service, where nobody has said another.
const SERVICE: &str = "sidegate";

/// How long one export may take, where nobody has said (OpenTelemetry, "OTLP Exporter Configuration").
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often metrics are sent, where nobody has said (OpenTelemetry, "Environment Variable Specification").
const METRIC_INTERVAL: Duration = Duration::from_secs(60);

/// The port on which collectors take OTLP over HTTP; on others gRPC is what is usual.
const HTTP_PORT: u16 = 4318;

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// Spans.
    pub traces: Option<Destination>,
    /// Metrics.
    pub metrics: Option<Destination>,
    /// Log records.
    pub logs: Option<Destination>,
    /// Who exports.
    pub resource: Resource,
    /// Which traces are recorded that nobody has begun before us.
    pub sampler: Sampler,
    /// What is passed on from clients to servers.
    pub propagation: Propagation,
    /// How spans wait to be sent.
    pub span_batches: Batches,
    /// How log records wait to be sent.
    pub log_batches: Batches,
    /// How often metrics are sent.
    pub metric_interval: Duration,
    /// What was passed over in the environment, in words for a person.
    pub warnings: Vec<String>,
}

/// Where a signal goes.
#[derive(Clone)]
pub struct Destination {
    /// For gRPC the server, for HTTP the whole URL.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Headers of every request; they may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one export may take.
    pub timeout: Duration,
    /// How what is sent is compressed, where it is.
    pub compression: Option<Compression>,
    /// A PEM file with the certificates to trust, instead of those of the machine.
    pub certificate: Option<PathBuf>,
    /// PEM files with our certificate, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Why it could not be reached.
    pub(super) trouble: Trouble,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&HeaderName> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Destination")
            .field("host", &self.endpoint.host_str())
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// How what is exported waits (`OTEL_BSP_*`, `OTEL_BLRP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// How much may wait; what comes then is dropped, and counted.
    pub most_waiting: usize,
    /// How much is sent at once.
    pub most_at_once: usize,
    /// How long what is there waits for more.
    pub delay: Duration,
}

/// A signal, as the variables name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// Where OTLP over HTTP takes it, below the endpoint of all signals.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

impl ExportSettings {
    /// What collectors are told and nobody else may see: of headers whose names say so, or whose values are no words, the
    /// values, and what in them follows a scheme.
    pub fn secrets(&self) -> Vec<String> {
        let names = SecretNames::new(&[]);
        let destinations = [&self.traces, &self.metrics, &self.logs].into_iter().flatten();
        let headers = destinations.flat_map(|destination| &destination.headers);
        headers
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .filter(|(name, value)| names.is_secret_header(name) || !is_word(value))
            .flat_map(|(name, value)| parts_of_header(name, value))
            .collect()
    }

    /// What is to be exported.
    pub fn resolve(config: &TelemetrySettings, environment: &Environment) -> Self {
        let mut reader = Reader { config, environment, warnings: Vec::new() };
        let disabled = reader.is_true("OTEL_SDK_DISABLED");
        let destination = |reader: &mut Reader<'_>, signal| match disabled {
            true => None,
            false => reader.destination(signal),
        };
        Self {
            traces: destination(&mut reader, Signal::Traces),
            metrics: destination(&mut reader, Signal::Metrics),
            logs: destination(&mut reader, Signal::Logs),
            resource: reader.resource(),
            sampler: reader.sampler(),
            propagation: reader.propagation(),
            span_batches: reader.batches("OTEL_BSP", Duration::from_secs(5)),
            log_batches: reader.batches("OTEL_BLRP", Duration::from_secs(1)),
            metric_interval: reader
                .number("OTEL_METRIC_EXPORT_INTERVAL")
                .filter(|interval| *interval > 0)
                .map_or(METRIC_INTERVAL, Duration::from_millis),
            warnings: reader.warnings,
        }
    }
}

struct Reader<'r> {
    config: &'r TelemetrySettings,
    environment: &'r Environment,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// The value of a variable; one that is empty is not set (OpenTelemetry, "Environment Variable Specification").
    fn get(&mut self, name: &str) -> Option<String> {
        match self.environment.get(name) {
            Ok(value) => value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned),
            Err(error) => {
                self.warnings.push(format!("{error}, so it is ignored"));
                None
            }
        }
    }

    fn parsed<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Option<T>, wanted: &str) -> Option<T> {
        let value = self.get(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.warnings.push(format!("{name} is ignored: it must be {wanted}"));
        }
        parsed
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.parsed(name, |value| value.parse().ok(), "a number")
    }

    fn is_true(&mut self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<WHAT>`, else `OTEL_EXPORTER_OTLP_<WHAT>`; the name of the one that is set.
    fn of_signal(&mut self, signal: Signal, what: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name());
        let all = format!("OTEL_EXPORTER_OTLP_{what}");
        [own, all].into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn destination(&mut self, signal: Signal) -> Option<Destination> {
        let exporter = format!("OTEL_{}_EXPORTER", signal.name());
        let wanted = self.get(&exporter);
        match wanted.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            // Prometheus asks us; it is served without being asked for.
            Some("prometheus") if signal == Signal::Metrics => return None,
            Some(_) => {
                self.warnings.push(format!("{exporter} is neither otlp nor none, so nothing is exported"));
                return None;
            }
        }
        let (endpoint, is_own) = self.endpoint(signal, wanted.is_some())?;
        let protocol = self.protocol(signal, &endpoint);
        let endpoint = match protocol {
            OtlpProtocol::HttpProtobuf if !is_own => below(&endpoint, signal.path()),
            _ => endpoint,
        };
        let timeout = self.of_signal(signal, "TIMEOUT").and_then(|(name, _)| self.number(&name));
        let certificate = self.of_signal(signal, "CERTIFICATE").map(|(_, path)| path.into());
        let client = self.of_signal(signal, "CLIENT_CERTIFICATE").map(|(_, path)| path.into());
        let key = self.of_signal(signal, "CLIENT_KEY").map(|(_, path)| path.into());
        Some(Destination {
            endpoint,
            protocol,
            headers: self.headers(signal),
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
            compression: self.compression(signal),
            certificate,
            identity: client.zip(key),
            trouble: Trouble::default(),
        })
    }

    fn compression(&mut self, signal: Signal) -> Option<Compression> {
        let (name, value) = self.of_signal(signal, "COMPRESSION")?;
        match value.to_ascii_lowercase().as_str() {
            "gzip" => Some(Compression::Gzip),
            "none" => None,
            _ => {
                self.warnings
                    .push(format!("{name} is ignored, and nothing is compressed: it must be gzip or none"));
                None
            }
        }
    }

    /// Where to, and whether that was said for this signal alone.
    fn endpoint(&mut self, signal: Signal, is_wanted: bool) -> Option<(Url, bool)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name());
        if let Some(url) = self.url(&own) {
            return Some((url, true));
        }
        let Setting { value, origin } = &self.config.endpoint;
        let (configured, in_file) = (value.clone(), matches!(origin, Origin::File { .. }));
        let of_all = |reader: &mut Self| reader.url("OTEL_EXPORTER_OTLP_ENDPOINT");
        let url = match configured {
            Some(url) if in_file => of_all(self).or(Some(url)),
            Some(url) => Some(url),
            None => of_all(self),
        };
        // Whoever asks for an exporter and not for an endpoint gets that of the specification.
        url.or_else(|| is_wanted.then(|| Url::parse("http://localhost:4317").ok()).flatten())
            .map(|url| (url, false))
    }

    fn url(&mut self, name: &str) -> Option<Url> {
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        self.parsed(name, |value| Url::parse(value).ok().filter(is_http), "a URL with http or https")
    }

    fn protocol(&mut self, signal: Signal, endpoint: &Url) -> OtlpProtocol {
        let Setting { value: configured, origin } = self.config.protocol.clone();
        let in_file = matches!(origin, Origin::File { .. });
        if let Some((name, value)) = self.of_signal(signal, "PROTOCOL") {
            match value.as_str() {
                "grpc" => return OtlpProtocol::Grpc,
                "http/protobuf" => return OtlpProtocol::HttpProtobuf,
                _ => self.warnings.push(format!("{name} is ignored: it must be grpc or http/protobuf")),
            }
        }
        match origin {
            Origin::Default if !in_file && endpoint.port() == Some(HTTP_PORT) => OtlpProtocol::HttpProtobuf,
            _ => configured,
        }
    }

    /// `name=value,…`, with values as they stand in URLs.
    fn headers(&mut self, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
        let Some((variable, text)) = self.of_signal(signal, "HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let header = pair.split_once('=').and_then(|(name, value)| {
                let value = percent_decoded(value.trim())?;
                let mut value = HeaderValue::from_str(&value).ok()?;
                value.set_sensitive(true);
                Some((name.trim().to_ascii_lowercase().parse().ok()?, value))
            });
            match header {
                Some(header) => headers.push(header),
                // Not which: it may be a secret.
                None => self.warnings.push(format!("a part of {variable} is ignored: it must be name=value")),
            }
        }
        headers
    }

    fn resource(&mut self) -> Resource {
        let mut attributes = vec![
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ];
        let text = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let mut service = SERVICE.to_owned();
        for (key, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
            match (key.trim(), percent_decoded(value.trim())) {
                ("service.name", Some(value)) => service = value,
                (key, Some(value)) => attributes.push(KeyValue::new(key.to_owned(), value)),
                (key, None) => {
                    self.warnings
                        .push(format!("{key} in OTEL_RESOURCE_ATTRIBUTES is ignored: its value is not UTF-8 with %xx for other bytes"));
                }
            }
        }
        let service = self.get("OTEL_SERVICE_NAME").unwrap_or(service);
        Resource::builder_empty()
            .with_attributes([
                KeyValue::new("telemetry.sdk.name", "opentelemetry"),
                KeyValue::new("telemetry.sdk.language", "rust"),
            ])
            .with_attributes(attributes)
            .with_service_name(service)
            .build()
    }

    fn sampler(&mut self) -> Sampler {
        let Some(name) = self.get("OTEL_TRACES_SAMPLER") else { return Sampler::default() };
        let wanted = "a number from 0 to 1";
        let in_range = |value: &str| value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let share = self.parsed("OTEL_TRACES_SAMPLER_ARG", in_range, wanted).unwrap_or(1.0);
        let (of_parent, share) = match name.as_str() {
            "always_on" => (false, 1.0),
            "always_off" => (false, 0.0),
            "traceidratio" => (false, share),
            "parentbased_always_on" => (true, 1.0),
            "parentbased_always_off" => (true, 0.0),
            "parentbased_traceidratio" => (true, share),
            _ => {
                self.warnings.push("OTEL_TRACES_SAMPLER is ignored: it must be always_on, always_off, traceidratio, or one of these behind parentbased_".to_owned());
                return Sampler::default();
            }
        };
        Sampler::new(of_parent, share)
    }

    fn propagation(&mut self) -> Propagation {
        let Some(names) = self.get("OTEL_PROPAGATORS") else { return Propagation::default() };
        let mut propagation = Propagation { trace_context: false, baggage: false };
        for name in names.split(',').map(str::trim) {
            match name {
                "tracecontext" => propagation.trace_context = true,
                "baggage" => propagation.baggage = true,
                "none" => {}
                other => self.warnings.push(format!(
                    "{other} in OTEL_PROPAGATORS is ignored: known are tracecontext, baggage and none"
                )),
            }
        }
        propagation
    }

    fn batches(&mut self, prefix: &str, delay: Duration) -> Batches {
        let mut count = |what: &str, default: usize| {
            let number = self.number(&format!("{prefix}_{what}")).and_then(|number| number.try_into().ok());
            number.filter(|number| *number > 0).unwrap_or(default)
        };
        let most_waiting = count("MAX_QUEUE_SIZE", 2048);
        let most_at_once = count("MAX_EXPORT_BATCH_SIZE", 512).min(most_waiting);
        let delay = self.number(&format!("{prefix}_SCHEDULE_DELAY")).map_or(delay, Duration::from_millis);
        Batches { most_waiting, most_at_once, delay }
    }
}

/// `url` with `path` after its own.
fn below(url: &Url, path: &str) -> Url {
    let mut below = url.clone();
    below.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
    below
}

/// Text in which `%41` stands for `A` (RFC 3986 section 2.1); `None` where it does not give text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = tail;
            }
            (b'%', _) => return None,
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Settings};

    /// What `file` and `variables` come to.
    fn resolve(file: &str, variables: &[(&str, &str)]) -> ExportSettings {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.yaml"), file).unwrap();
        let home = [("HOME", "/h")].into_iter();
        let environment = Environment::from_iter(home.chain(variables.iter().copied()));
        let settings = Settings::load(directory.path(), &environment, &Overrides::default()).unwrap();
        ExportSettings::resolve(&settings.telemetry, &environment)
    }

    fn endpoint(destination: Option<Destination>) -> String {
        destination.map_or_else(String::new, |destination| {
            format!("{} {}", destination.protocol.as_str(), destination.endpoint)
        })
    }

    #[test]
    fn nothing_is_exported_unless_somebody_says_where_to() {
        let nothing = resolve("", &[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(nothing.traces.is_none() && nothing.metrics.is_none() && nothing.logs.is_none());
        let disabled = resolve(
            "telemetry: {endpoint: 'http://a:4317'}",
            &[("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4317")],
        );
        assert!(disabled.traces.is_none() && disabled.metrics.is_none() && disabled.logs.is_none());
    }

    #[test]
    fn the_variable_of_a_signal_counts_before_all_and_the_file_last() {
        let file = "telemetry: {endpoint: 'http://file:1'}";
        assert_eq!(endpoint(resolve(file, &[]).traces), "grpc http://file:1/");
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318/x");
        let http = resolve(file, &[general]);
        assert_eq!(endpoint(http.traces), "http/protobuf http://general:4318/x/v1/traces");
        assert_eq!(endpoint(http.metrics), "http/protobuf http://general:4318/x/v1/metrics");
        let ours = ("SIDEGATE_TELEMETRY_ENDPOINT", "http://ours:2");
        assert_eq!(endpoint(resolve(file, &[general, ours]).logs), "grpc http://ours:2/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://own/as-it-is");
        let protocol = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        let settings = resolve(file, &[general, ours, own, protocol]);
        assert_eq!(endpoint(settings.traces), "http/protobuf https://own/as-it-is");
        assert_eq!(endpoint(settings.logs), "grpc http://ours:2/");
    }

    #[test]
    fn each_signal_is_compressed_as_its_variable_says_or_that_for_all() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        let compressions = |variables: &[(&str, &str)]| {
            let settings = resolve("", &[&[all], variables].concat());
            let all = [settings.traces, settings.metrics, settings.logs];
            (all.map(|destination| destination.unwrap().compression), settings.warnings)
        };
        let (gzip, none) = (Some(Compression::Gzip), None);
        assert_eq!(compressions(&[]), ([none; 3], Vec::new()));
        let general = ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP");
        assert_eq!(compressions(&[general]), ([gzip; 3], Vec::new()));
        let own = ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none");
        assert_eq!(compressions(&[general, own]), ([gzip, none, gzip], Vec::new()));
        let wrong = ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "brotli");
        let (found, warnings) = compressions(&[general, wrong]);
        assert_eq!(found, [gzip, gzip, none]);
        assert_eq!(
            warnings,
            [
                "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION is ignored, and nothing is compressed: it must be gzip or none"
            ]
        );
    }

    #[test]
    fn exporters_are_chosen_by_name() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317");
        let settings = resolve(
            "",
            &[
                all,
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRICS_EXPORTER", "prometheus"),
                ("OTEL_LOGS_EXPORTER", "console"),
            ],
        );
        assert!(settings.traces.is_none() && settings.metrics.is_none() && settings.logs.is_none());
        assert_eq!(
            settings.warnings,
            ["OTEL_LOGS_EXPORTER is neither otlp nor none, so nothing is exported"]
        );
        let asked = resolve("", &[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert_eq!(endpoint(asked.traces), "grpc http://localhost:4317/");
        assert!(asked.logs.is_none());
    }

    #[test]
    fn headers_and_attributes_are_decoded_and_mistakes_are_said_without_values() {
        let settings = resolve(
            "",
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter22, x-a=1,=hunter23"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=caf%C3%A9"),
                ("OTEL_PROPAGATORS", "tracecontext,b3"),
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
            ],
        );
        let traces = settings.traces.clone().unwrap();
        let headers: Vec<_> =
            traces.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("authorization", "Bearer hunter22"), ("x-a", "1")]);
        assert_eq!(traces.timeout, TIMEOUT);
        let attribute = |key: &'static str| settings.resource.get(&key.into()).map(|value| value.to_string());
        assert_eq!(attribute("service.name").as_deref(), Some("a"));
        assert_eq!(attribute("team").as_deref(), Some("café"));
        assert_eq!(settings.propagation, Propagation { trace_context: true, baggage: false });
        assert_eq!(settings.sampler, Sampler::new(false, 0.5));
        assert_eq!((settings.span_batches.most_waiting, settings.span_batches.most_at_once), (10, 10));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let warnings = settings.warnings.join("\n");
        for part in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TIMEOUT", "b3 in OTEL_PROPAGATORS"] {
            assert!(warnings.contains(part), "{warnings}");
        }
    }

    #[test]
    fn a_collectors_headers_are_secret_but_for_words() {
        let headers = "x-honeycomb-team=abcdefgh,x-honeycomb-dataset=sidegate-calls,authorization=Custom%20word,x-tenant=7d1A-x";
        let settings = resolve(
            "",
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:4317"),
                ("OTEL_EXPORTER_OTLP_HEADERS", headers),
            ],
        );
        assert_eq!(settings.secrets(), ["abcdefgh", "Custom word", "word", "7d1A-x"]);
    }
}
