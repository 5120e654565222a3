//! The settings, and how they are shown.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use url::Url;

use super::keys::{self, Key};
use super::values::Configured;
use super::{
    ByteSize, Exposure, GatewayMode, GatewayVersion, HostName, LogLevel, ManagementTools, NamePrefix, Origin,
    OtlpProtocol, Setting,
};
use crate::mcpserver::SecretNames;

/// How an instance is to run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Where the aggregate is served. Not loopback only with a token file.
    pub listen: Setting<SocketAddr>,
    /// Where it is served when nobody asks for another address: what other clients have been told, also where this
    /// instance listens elsewhere.
    pub usual_listen: SocketAddr,
    /// The gateway child.
    pub gateway: GatewaySettings,
    /// A gateway that runs elsewhere; see [`Settings::gateway_mode`].
    pub upstream_url: Setting<Option<Url>>,
    /// The aggregate.
    pub aggregator: AggregatorSettings,
    /// Traces and metrics.
    pub telemetry: TelemetrySettings,
    /// More names whose values are secret.
    pub redact: Setting<Vec<String>>,
    /// How long calls in flight are waited for at the end.
    pub drain: Setting<Duration>,
    /// Where the instance keeps its sockets and files.
    pub runtime_dir: Setting<PathBuf>,
    /// The program that runs what must be a process of its own, if not found by itself.
    pub helper: Setting<Option<PathBuf>>,
}

/// `gateway` in `config.yaml`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GatewaySettings {
    /// As written; what counts is [`Settings::gateway_mode`].
    pub mode: Setting<GatewayMode>,
    /// The release of agentgateway.
    pub version: Setting<GatewayVersion>,
    /// An agentgateway to use as it is.
    pub binary: Setting<Option<PathBuf>>,
    /// Where releases are fetched from instead.
    pub mirror: Setting<Option<Url>>,
    /// Ports to use instead of leased ones.
    pub ports: GatewayPorts,
    /// agentgateway's `frontendPolicies`, passed through.
    pub frontend_policies: Setting<Map<String, Json>>,
    /// How much it logs.
    pub log_level: Setting<LogLevel>,
}

/// The gateway's ports; `None` leases one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GatewayPorts {
    /// Calls.
    pub data: Setting<Option<NonZeroU16>>,
    /// Administration.
    pub admin: Setting<Option<NonZeroU16>>,
    /// Metrics.
    pub stats: Setting<Option<NonZeroU16>>,
    /// Readiness.
    pub readiness: Setting<Option<NonZeroU16>>,
}

/// `aggregator` in `config.yaml`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AggregatorSettings {
    /// What exposed names begin with.
    pub prefix: Setting<NamePrefix>,
    /// How tools are offered.
    pub exposure: Setting<Exposure>,
    /// Which of our own tools are offered.
    pub management_tools: Setting<ManagementTools>,
    /// A file with the token that clients must send.
    pub token_file: Setting<Option<PathBuf>>,
    /// More names allowed in `Host`.
    pub allowed_hosts: Setting<Vec<String>>,
    /// Values allowed in `Origin`, `scheme://host[:port]`.
    pub allowed_origins: Setting<Vec<String>>,
    /// The most sessions at once.
    pub max_sessions: Setting<NonZeroUsize>,
    /// How long a session may be silent; above zero.
    pub session_idle: Setting<Duration>,
    /// The largest request body; above zero.
    pub max_body: Setting<ByteSize>,
}

/// `telemetry` in `config.yaml`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TelemetrySettings {
    /// The OTLP collector.
    pub endpoint: Setting<Option<Url>>,
    /// How it is spoken to.
    pub protocol: Setting<OtlpProtocol>,
    /// Whether agentgateway exports spans of its own.
    pub gateway_spans: Setting<bool>,
    /// Whether results tell the ids of their calls.
    pub call_ids: Setting<bool>,
}

/// What flags, or a user of the library, have set.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is the field of `Settings` with the same name")]
pub struct Overrides {
    pub listen: Option<SocketAddr>,
    pub gateway_mode: Option<GatewayMode>,
    pub gateway_version: Option<GatewayVersion>,
    pub gateway_binary: Option<PathBuf>,
    pub gateway_mirror: Option<Url>,
    pub upstream_url: Option<Url>,
    pub runtime_dir: Option<PathBuf>,
    pub helper: Option<PathBuf>,
    pub aggregator_prefix: Option<NamePrefix>,
    pub management_tools: Option<ManagementTools>,
    pub token_file: Option<PathBuf>,
    pub allowed_hosts: Option<Vec<HostName>>,
    pub drain: Option<Duration>,
}

/// A setting as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// The key.
    pub key: &'static str,
    /// The value as it would be written, without secrets.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Settings {
    /// The mode that counts: an upstream URL means [`GatewayMode::External`], whatever `gateway.mode` says.
    pub fn gateway_mode(&self) -> GatewayMode {
        if self.upstream_url.value.is_some() { GatewayMode::External } else { self.gateway.mode.value }
    }

    /// Every setting, in the order of the file.
    pub fn describe(&self) -> Vec<Described> {
        fn line<T: Configured>(key: Key, setting: &Setting<T>) -> Described {
            Described { key: key.path, value: setting.value.show(), origin: setting.origin.clone() }
        }
        let Self {
            listen,
            usual_listen: _,
            gateway,
            upstream_url,
            aggregator,
            telemetry,
            redact,
            drain,
            runtime_dir,
            helper,
        } = self;
        let frontend_policies = Setting {
            value: SecretNames::new(&redact.value).hide_in_map(&gateway.frontend_policies.value),
            origin: gateway.frontend_policies.origin.clone(),
        };
        let runtime_dir =
            Setting { value: Some(runtime_dir.value.clone()), origin: runtime_dir.origin.clone() };
        vec![
            line(keys::LISTEN, listen),
            line(keys::GATEWAY_MODE, &gateway.mode),
            line(keys::GATEWAY_VERSION, &gateway.version),
            line(keys::GATEWAY_BINARY, &gateway.binary),
            line(keys::GATEWAY_MIRROR, &gateway.mirror),
            line(keys::GATEWAY_PORTS_DATA, &gateway.ports.data),
            line(keys::GATEWAY_PORTS_ADMIN, &gateway.ports.admin),
            line(keys::GATEWAY_PORTS_STATS, &gateway.ports.stats),
            line(keys::GATEWAY_PORTS_READINESS, &gateway.ports.readiness),
            line(keys::GATEWAY_FRONTEND_POLICIES, &frontend_policies),
            line(keys::GATEWAY_LOG_LEVEL, &gateway.log_level),
            line(keys::UPSTREAM_URL, upstream_url),
            line(keys::AGGREGATOR_PREFIX, &aggregator.prefix),
            line(keys::AGGREGATOR_EXPOSURE, &aggregator.exposure),
            line(keys::AGGREGATOR_MANAGEMENT_TOOLS, &aggregator.management_tools),
            line(keys::AGGREGATOR_TOKEN_FILE, &aggregator.token_file),
            line(keys::AGGREGATOR_ALLOWED_HOSTS, &aggregator.allowed_hosts),
            line(keys::AGGREGATOR_ALLOWED_ORIGINS, &aggregator.allowed_origins),
            line(keys::AGGREGATOR_MAX_SESSIONS, &aggregator.max_sessions),
            line(keys::AGGREGATOR_SESSION_IDLE, &aggregator.session_idle),
            line(keys::AGGREGATOR_MAX_BODY, &aggregator.max_body),
            line(keys::TELEMETRY_ENDPOINT, &telemetry.endpoint),
            line(keys::TELEMETRY_PROTOCOL, &telemetry.protocol),
            line(keys::TELEMETRY_GATEWAY_SPANS, &telemetry.gateway_spans),
            line(keys::TELEMETRY_CALL_IDS, &telemetry.call_ids),
            line(keys::REDACT, redact),
            line(keys::DRAIN, drain),
            line(keys::RUNTIME_DIR, &runtime_dir),
            line(keys::HELPER, helper),
        ]
    }
}
