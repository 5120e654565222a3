//! How the layers make the settings.

mod check;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::keys::{self, Key};
use super::values::{Configured, InvalidValue};
use super::{
    AggregatorSettings, ByteSize, ConfigError, ConfigMistake, Exposure, GatewayMode, GatewayPorts,
    GatewaySettings, GatewayVersion, LogLevel, ManagementTools, NamePrefix, Origin, OtlpProtocol, Overrides,
    Place, Setting, Settings, TelemetrySettings, dirs,
};
use crate::environment::Environment;
use crate::yaml::{Collector, Fields, FileError, Mistake, Position, Value, parse_bytes, read_file};

impl Settings {
    /// Reads `config.yaml` of `config_dir`, which must be absolute and need not exist, and lays `environment` and
    /// `overrides` over it. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// All mistakes of the file and of the variables.
    pub fn load(
        config_dir: &Path,
        environment: &Environment,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let path: Arc<Path> = config_dir.join(keys::FILE_NAME).into();
        let collector = Collector::default();
        let root = match read_file(&path) {
            Ok(content) => parse_bytes(&content, &collector),
            Err(FileError::Absent) => None,
            Err(error) => {
                collector.push(error.mistake());
                None
            }
        };
        let file = File::new(root.as_ref().map(|root| Value::root(root, &collector)));
        let mut layers =
            Layers { environment, path: &path, config_dir, in_file: &collector, elsewhere: Vec::new() };
        let settings = layers.settings(&file, overrides);
        layers.check(&settings);

        let mut elsewhere = layers.elsewhere;
        let in_file = |mistake| ConfigMistake { place: Place::File(path.to_path_buf()), mistake };
        let mut mistakes: Vec<_> = collector.into_sorted().into_iter().map(in_file).collect();
        mistakes.append(&mut elsewhere);
        if mistakes.is_empty() { Ok(settings) } else { Err(ConfigError { mistakes }) }
    }

    /// The defaults, with `overrides` over them. No file is read, and of the variables only where things are counts:
    /// [`dirs`].
    ///
    /// # Errors
    ///
    /// What is wrong with the overrides together: an address that others can reach needs a token, say.
    pub fn of(environment: &Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        let places =
            environment.iter().filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"SIDEGATE_"));
        let places = places.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (collector, path) = (Collector::default(), Arc::from(Path::new(keys::FILE_NAME)));
        let mut layers = Layers {
            environment: &places,
            path: &path,
            config_dir: Path::new("/"),
            in_file: &collector,
            elsewhere: Vec::new(),
        };
        let settings = layers.settings(&File::new(None), overrides);
        layers.check(&settings);
        let mistakes = layers.elsewhere;
        if mistakes.is_empty() { Ok(settings) } else { Err(ConfigError { mistakes }) }
    }
}

/// The mappings of `config.yaml`, each `None` where it is absent or wrong.
struct File<'a> {
    root: Option<Fields<'a>>,
    gateway: Option<Fields<'a>>,
    ports: Option<Fields<'a>>,
    aggregator: Option<Fields<'a>>,
    telemetry: Option<Fields<'a>>,
}

impl<'a> File<'a> {
    fn new(root: Option<Value<'a>>) -> Self {
        fn within<'a>(
            outer: &Option<Fields<'a>>,
            key: &str,
            allowed: &'static [&'static str],
        ) -> Option<Fields<'a>> {
            outer.as_ref()?.get(key)?.fields(allowed)
        }
        let root = root.and_then(|root| {
            root.fields(&["listen", "gateway", "upstreamUrl", "aggregator", "telemetry", "redact", "drain"])
        });
        let gateway = within(
            &root,
            "gateway",
            &["mode", "version", "binary", "mirror", "ports", "frontendPolicies", "logLevel"],
        );
        let ports = within(&gateway, "ports", &["data", "admin", "stats", "readiness"]);
        let aggregator = within(
            &root,
            "aggregator",
            &[
                "prefix",
                "exposure",
                "managementTools",
                "tokenFile",
                "allowedHosts",
                "allowedOrigins",
                "maxSessions",
                "sessionIdle",
                "maxBody",
            ],
        );
        let telemetry = within(&root, "telemetry", &["endpoint", "protocol", "gatewaySpans", "callIds"]);
        Self { root, gateway, ports, aggregator, telemetry }
    }

    fn get(&self, key: Key) -> Option<&Value<'a>> {
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let fields = match section {
            "" => &self.root,
            "gateway" => &self.gateway,
            "gateway.ports" => &self.ports,
            "aggregator" => &self.aggregator,
            "telemetry" => &self.telemetry,
            _ => return None,
        };
        fields.as_ref()?.get(name)
    }
}

struct Layers<'a> {
    environment: &'a Environment,
    path: &'a Arc<Path>,
    config_dir: &'a Path,
    in_file: &'a Collector,
    elsewhere: Vec<ConfigMistake>,
}

impl Layers<'_> {
    fn settings(&mut self, file: &File<'_>, flags: &Overrides) -> Settings {
        let usual_listen = self.pick(file, keys::LISTEN, None, || ([127, 0, 0, 1], 8090).into());
        Settings {
            usual_listen: usual_listen.value,
            listen: flags.listen.map_or(usual_listen, |listen| of_flag(keys::LISTEN, listen)),
            gateway: GatewaySettings {
                mode: self.pick(file, keys::GATEWAY_MODE, flags.gateway_mode, || GatewayMode::Auto),
                version: self.pick(
                    file,
                    keys::GATEWAY_VERSION,
                    flags.gateway_version.clone(),
                    GatewayVersion::default,
                ),
                binary: self.pick_path(file, keys::GATEWAY_BINARY, flags.gateway_binary.as_ref()),
                mirror: self
                    .pick(file, keys::GATEWAY_MIRROR, flags.gateway_mirror.clone().map(Some), || None),
                ports: GatewayPorts {
                    data: self.pick(file, keys::GATEWAY_PORTS_DATA, None, || None),
                    admin: self.pick(file, keys::GATEWAY_PORTS_ADMIN, None, || None),
                    stats: self.pick(file, keys::GATEWAY_PORTS_STATS, None, || None),
                    readiness: self.pick(file, keys::GATEWAY_PORTS_READINESS, None, || None),
                },
                frontend_policies: self.pick(file, keys::GATEWAY_FRONTEND_POLICIES, None, Map::new),
                log_level: self.pick(file, keys::GATEWAY_LOG_LEVEL, None, || LogLevel::Info),
            },
            upstream_url: self.pick(file, keys::UPSTREAM_URL, flags.upstream_url.clone().map(Some), || None),
            aggregator: AggregatorSettings {
                prefix: self.pick(
                    file,
                    keys::AGGREGATOR_PREFIX,
                    flags.aggregator_prefix.clone(),
                    NamePrefix::default,
                ),
                exposure: self.pick(file, keys::AGGREGATOR_EXPOSURE, None, || Exposure::Direct),
                management_tools: self.pick(
                    file,
                    keys::AGGREGATOR_MANAGEMENT_TOOLS,
                    flags.management_tools,
                    || ManagementTools::Read,
                ),
                token_file: self.pick_path(file, keys::AGGREGATOR_TOKEN_FILE, flags.token_file.as_ref()),
                allowed_hosts: self.pick(
                    file,
                    keys::AGGREGATOR_ALLOWED_HOSTS,
                    flags.allowed_hosts.as_ref().map(|hosts| hosts.iter().map(ToString::to_string).collect()),
                    Vec::new,
                ),
                allowed_origins: self.pick(file, keys::AGGREGATOR_ALLOWED_ORIGINS, None, Vec::new),
                max_sessions: self.pick(file, keys::AGGREGATOR_MAX_SESSIONS, None, || {
                    NonZeroUsize::MIN.saturating_add(1023)
                }),
                session_idle: self
                    .pick(file, keys::AGGREGATOR_SESSION_IDLE, None, || Duration::from_secs(3600)),
                max_body: self.pick(file, keys::AGGREGATOR_MAX_BODY, None, || ByteSize(4 << 20)),
            },
            telemetry: TelemetrySettings {
                endpoint: self.pick(file, keys::TELEMETRY_ENDPOINT, None, || None),
                protocol: self.pick(file, keys::TELEMETRY_PROTOCOL, None, || OtlpProtocol::Grpc),
                gateway_spans: self.pick(file, keys::TELEMETRY_GATEWAY_SPANS, None, || false),
                call_ids: self.pick(file, keys::TELEMETRY_CALL_IDS, None, || true),
            },
            redact: self.pick(file, keys::REDACT, None, Vec::new),
            drain: self.pick(file, keys::DRAIN, flags.drain, || Duration::from_secs(10)),
            runtime_dir: {
                let picked = self.pick_path(file, keys::RUNTIME_DIR, flags.runtime_dir.as_ref());
                match picked.value {
                    Some(value) => Setting { value, origin: picked.origin },
                    None => Setting {
                        value: dirs::runtime_dir(self.environment, self.config_dir),
                        origin: Origin::Default,
                    },
                }
            },
            helper: self.pick_path(file, keys::HELPER, flags.helper.as_ref()),
        }
    }

    /// The value of the highest layer that has one. All layers are read, for their mistakes.
    fn pick<T: Configured>(
        &mut self,
        file: &File<'_>,
        key: Key,
        flag: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        let from_file = file.get(key).and_then(|value| {
            let Position { line, column } = value.position();
            let origin = Origin::File { path: Arc::clone(self.path), line, column };
            Some(Setting { value: T::from_yaml(value)?, origin })
        });
        let from_environment = self.variable_of(key);
        flag.map(|value| of_flag(key, value))
            .or(from_environment)
            .or(from_file)
            .unwrap_or_else(|| Setting { value: default(), origin: Origin::Default })
    }

    /// As [`Self::pick`], as an absolute path: one in the file is relative to its directory, others to the current one.
    fn pick_path(&mut self, file: &File<'_>, key: Key, flag: Option<&PathBuf>) -> Setting<Option<PathBuf>> {
        let mut setting = self.pick(file, key, flag.cloned().map(Some), || None);
        let Some(path) = &mut setting.value else { return setting };
        match setting.origin {
            Origin::File { .. } => *path = self.config_dir.join(&path),
            Origin::Environment(name) | Origin::Flag(name) => match std::path::absolute(&path) {
                Ok(absolute) => *path = absolute,
                Err(error) => {
                    let problem = format!("the path {:?} leads nowhere: {error}", path.display());
                    let mistake = Mistake::of_file(problem, Some("write an absolute path".to_owned()));
                    self.elsewhere.push(ConfigMistake { place: Place::Name(name), mistake });
                }
            },
            Origin::Default => {}
        }
        setting
    }

    fn variable_of<T: Configured>(&mut self, key: Key) -> Option<Setting<T>> {
        let mistake = match self.environment.get(key.variable) {
            Ok(None) => return None,
            Ok(Some(text)) => match T::from_text(text) {
                Ok(value) => return Some(Setting { value, origin: Origin::Environment(key.variable) }),
                Err(InvalidValue { problem, advice }) => Mistake::of_file(problem, Some(advice)),
            },
            Err(_) => Mistake::of_file("not UTF-8 text", None),
        };
        self.elsewhere.push(ConfigMistake { place: Place::Name(key.variable), mistake });
        None
    }
}

fn of_flag<T>(key: Key, value: T) -> Setting<T> {
    Setting { value, origin: Origin::Flag(key.flag.unwrap_or(key.path)) }
}

#[cfg(test)]
mod tests;
