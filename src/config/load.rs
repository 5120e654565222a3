//! How the layers make the settings.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use url::Url;

use super::keys::{self, Key};
use super::values::{Configured, InvalidValue};
use super::{
    AggregatorSettings, ByteSize, ConfigError, ConfigMistake, Exposure, GatewayMode, GatewayPorts,
    GatewaySettings, GatewayVersion, LogLevel, ManagementTools, NamePrefix, Origin, OtlpProtocol, Overrides,
    Place, Setting, Settings, TelemetrySettings, dirs,
};
use crate::environment::Environment;
use crate::yaml::{Collector, Fields, FileError, Mistake, Position, Value, parse_bytes, read_file, shown};

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
                allowed_hosts: self.pick(file, keys::AGGREGATOR_ALLOWED_HOSTS, None, Vec::new),
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

    /// The rules of one value beyond its type, and those between values.
    fn check(&mut self, settings: &Settings) {
        let Settings { listen, gateway, upstream_url, aggregator, .. } = settings;
        if !listen.value.ip().to_canonical().is_loopback() && aggregator.token_file.value.is_none() {
            let advice = format!("set {}, or listen on 127.0.0.1", keys::AGGREGATOR_TOKEN_FILE.path);
            self.wrong(
                keys::LISTEN,
                &listen.origin,
                "other machines can reach this address, so a token is needed",
                advice,
            );
        }
        if gateway.mode.value == GatewayMode::External && upstream_url.value.is_none() {
            let advice = format!("set {}", keys::UPSTREAM_URL.path);
            self.wrong(keys::GATEWAY_MODE, &gateway.mode.origin, "external, and nobody says where", advice);
        }
        self.check_upstream_url(upstream_url);
        if aggregator.session_idle.value.is_zero() {
            let key = keys::AGGREGATOR_SESSION_IDLE;
            self.wrong(
                key,
                &aggregator.session_idle.origin,
                "zero ends every session at once",
                "write a time above zero, such as 1h",
            );
        }
        if aggregator.max_body.value.0 == 0 {
            let key = keys::AGGREGATOR_MAX_BODY;
            self.wrong(
                key,
                &aggregator.max_body.origin,
                "zero refuses every request",
                "write a size above zero, such as 4MiB",
            );
        }
        for host in &aggregator.allowed_hosts.value {
            if url::Host::parse(host).is_err() {
                let origin = &aggregator.allowed_hosts.origin;
                let problem = format!("{} is no host", shown(host));
                self.wrong(
                    keys::AGGREGATOR_ALLOWED_HOSTS,
                    origin,
                    problem,
                    "write a name or an address without port",
                );
            }
        }
        for text in &aggregator.allowed_origins.value {
            if !is_origin(text) {
                let origin = &aggregator.allowed_origins.origin;
                let problem = format!("{} is no origin", shown(text));
                self.wrong(
                    keys::AGGREGATOR_ALLOWED_ORIGINS,
                    origin,
                    problem,
                    "write scheme://host or scheme://host:port",
                );
            }
        }
        self.check_ports(&gateway.ports);
    }

    /// Paths are put behind the URL, so nothing may stand there; and nobody would send its user info.
    fn check_upstream_url(&mut self, setting: &Setting<Option<Url>>) {
        let key = keys::UPSTREAM_URL;
        let Some(url) = &setting.value else {
            // In the file, the empty text is the documented default.
            if matches!(setting.origin, Origin::Environment(_) | Origin::Flag(_)) {
                self.wrong(key, &setting.origin, "empty, and no URL", "write a URL, or do not set it");
            }
            return;
        };
        if !matches!(url.scheme(), "http" | "https") {
            self.wrong(
                key,
                &setting.origin,
                "neither http nor https",
                "write a whole URL, such as https://host/path",
            );
        }
        let extra = [
            (url.query().is_some(), "a query"),
            (url.fragment().is_some(), "a fragment"),
            (!url.username().is_empty() || url.password().is_some(), "user info"),
        ];
        for (_, what) in extra.iter().filter(|(is_there, _)| *is_there) {
            let problem = format!("has {what}, which is not sent");
            self.wrong(key, &setting.origin, problem, "write scheme, host, port and path only");
        }
    }

    fn check_ports(&mut self, ports: &GatewayPorts) {
        let all = [
            (keys::GATEWAY_PORTS_DATA, &ports.data),
            (keys::GATEWAY_PORTS_ADMIN, &ports.admin),
            (keys::GATEWAY_PORTS_STATS, &ports.stats),
            (keys::GATEWAY_PORTS_READINESS, &ports.readiness),
        ];
        for (index, (key, port)) in all.iter().enumerate() {
            let earlier =
                all[..index].iter().find(|(_, other)| port.value.is_some() && other.value == port.value);
            if let Some((other, _)) = earlier {
                let problem = format!("the same port as {}", other.path);
                self.wrong(*key, &port.origin, problem, "write another, or 0 to take a free one");
            }
        }
    }

    fn wrong(&mut self, key: Key, origin: &Origin, problem: impl Into<String>, advice: impl Into<String>) {
        let name = match origin {
            Origin::File { line, column, .. } => {
                let position = Position { line: *line, column: *column };
                self.in_file.note(position, key.path, problem, Some(advice.into()));
                return;
            }
            Origin::Flag(name) | Origin::Environment(name) => name,
            Origin::Default => key.path,
        };
        let mistake = Mistake::of_file(problem, Some(advice.into()));
        self.elsewhere.push(ConfigMistake { place: Place::Name(name), mistake });
    }
}

/// `scheme://host[:port]` (RFC 6454 section 6.2), with any scheme: extensions of browsers and editors have their own.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let plain = !scheme.is_empty() && !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '*']);
    plain && Url::parse(text).is_ok()
}

fn of_flag<T>(key: Key, value: T) -> Setting<T> {
    Setting { value, origin: Origin::Flag(key.flag.unwrap_or(key.path)) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Described;

    const EVERYTHING: &str = "\
listen: '[::1]:0'
gateway: {mode: embedded, version: 1.3.1, binary: bin/agw, mirror: 'https://m/', ports: {data: 1, admin: 2, stats: 3, readiness: 4},
          frontendPolicies: {accessLog: {add: {token: hunter22, path: request.path}}}, logLevel: warn}
upstreamUrl: http://127.0.0.1:15000
aggregator: {prefix: y, exposure: meta, managementTools: full, tokenFile: token, allowedHosts: [a.example], allowedOrigins: ['https://a.example:8443'],
             maxSessions: 7, sessionIdle: 90m, maxBody: 1MiB}
telemetry: {endpoint: 'http://u:hunter22@otel:4317', protocol: http/protobuf, gatewaySpans: true, callIds: false}
redact: [ACCOUNT]
drain: 500ms
";

    /// The block of documented defaults, which must be what no file at all means.
    const DEFAULTS: &str = "\
listen: 127.0.0.1:8090
gateway: {mode: auto, version: 1.2.1, binary: \"\", mirror: \"\", ports: {data: 0, admin: 0, stats: 0, readiness: 0},
          frontendPolicies: {}, logLevel: info}
upstreamUrl: \"\"
aggregator: {prefix: x, exposure: direct, managementTools: read, tokenFile: \"\", allowedHosts: [], allowedOrigins: [],
             maxSessions: 1024, sessionIdle: 1h, maxBody: 4MiB}
telemetry: {endpoint: \"\", protocol: grpc, gatewaySpans: false, callIds: true}
redact: []
drain: 10s
";

    fn load(file: &str, variables: &[(&str, &str)], overrides: &Overrides) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), file).unwrap();
        let mut environment = vec![("XDG_RUNTIME_DIR", "/run/user/1")];
        environment.extend(variables);
        let settings = Settings::load(dir.path(), &environment.into_iter().collect(), overrides);
        settings.map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    fn table(settings: &Settings) -> String {
        let hash = settings.runtime_dir.value.file_name().unwrap().to_string_lossy().into_owned();
        let line = |described: Described| {
            let place = match &described.origin {
                Origin::File { line, column, .. } => format!("config.yaml:{line}:{column}"),
                other => other.to_string(),
            };
            let value = match &described.origin {
                Origin::File { path, .. } => {
                    described.value.replace(&path.parent().unwrap().display().to_string(), "<dir>")
                }
                _ => described.value.replace(&hash, "<hash>"),
            };
            format!("{} = {value} ({place})\n", described.key)
        };
        settings.describe().into_iter().map(line).collect()
    }

    #[test]
    fn every_key_is_read() {
        let settings = load(EVERYTHING, &[], &Overrides::default()).unwrap();
        insta::assert_snapshot!(table(&settings));
        assert_eq!(settings.gateway_mode(), GatewayMode::External);
        assert!(settings.gateway.binary.value.as_ref().unwrap().is_absolute());
        for key in keys::ALL.iter().filter(|key| !keys::OUTSIDE_THE_FILE.contains(key)) {
            let described = settings.describe().into_iter().find(|line| line.key == key.path).unwrap();
            assert!(matches!(described.origin, Origin::File { .. }), "{described:?}");
        }
    }

    #[test]
    fn nothing_means_the_documented_defaults() {
        let written = load(DEFAULTS, &[], &Overrides::default()).unwrap();
        let values = |settings: &Settings| -> Vec<_> {
            settings
                .describe()
                .into_iter()
                .filter(|d| d.key != "runtimeDir")
                .map(|d| (d.key, d.value))
                .collect()
        };
        for file in ["", "# nothing\n", "{}", "gateway:\n", "listen: ~\n"] {
            let settings = load(file, &[], &Overrides::default()).unwrap();
            assert_eq!(values(&settings), values(&written));
            assert!(settings.describe().iter().all(|described| described.origin == Origin::Default));
        }
        let absent = Settings::load(
            Path::new("/nonexistent/sidegate"),
            &Environment::default(),
            &Overrides::default(),
        );
        assert_eq!(values(&absent.unwrap()), values(&written));
    }

    /// A text for each key that its type takes and that is not the default.
    fn text_for(key: Key) -> &'static str {
        match key.path {
            "listen" => "127.0.0.1:1",
            "gateway.mode" => "embedded",
            "gateway.version" => "1.3.1",
            "gateway.ports.data" => "1",
            "gateway.ports.admin" => "2",
            "gateway.ports.stats" => "3",
            "gateway.ports.readiness" => "4",
            "gateway.frontendPolicies" => r#"{"a":1}"#,
            "gateway.logLevel" => "debug",
            "gateway.mirror" | "upstreamUrl" | "telemetry.endpoint" => "http://h/",
            "aggregator.exposure" => "meta",
            "aggregator.managementTools" => "off",
            "aggregator.maxSessions" => "9",
            "aggregator.sessionIdle" | "drain" => "9s",
            "aggregator.maxBody" => "9B",
            "aggregator.allowedOrigins" => "https://a",
            "telemetry.protocol" => "http/protobuf",
            "telemetry.gatewaySpans" => "true",
            "telemetry.callIds" => "false",
            "aggregator.allowedHosts" | "redact" => "y, z",
            "gateway.binary" | "aggregator.tokenFile" | "runtimeDir" | "helper" => "/a",
            _ => "a",
        }
    }

    #[test]
    fn every_variable_goes_before_the_file() {
        let variables: Vec<_> = keys::ALL.iter().map(|key| (key.variable, text_for(*key))).collect();
        let settings = load(EVERYTHING, &variables, &Overrides::default()).unwrap();
        for described in settings.describe() {
            let key = keys::ALL.iter().find(|key| key.path == described.key).unwrap();
            assert_eq!(described.origin, Origin::Environment(key.variable));
            let text = text_for(*key);
            let list = format!("[{text}]");
            assert!([text, list.as_str()].contains(&described.value.as_str()), "{described:?}");
        }
    }

    #[test]
    fn flags_go_before_variables() {
        let overrides = Overrides {
            listen: Some(([127, 0, 0, 1], 5).into()),
            gateway_mode: Some(GatewayMode::Agentgateway),
            gateway_version: Some("1.3.0".parse().unwrap()),
            gateway_binary: Some("/flag/agw".into()),
            gateway_mirror: Some(Url::parse("https://flag/").unwrap()),
            upstream_url: Some(Url::parse("http://flag/").unwrap()),
            runtime_dir: Some("/flag/run".into()),
            helper: Some("/flag/helper".into()),
            aggregator_prefix: Some("flag".parse().unwrap()),
            management_tools: Some(ManagementTools::Off),
            token_file: Some("/flag/token".into()),
            drain: Some(Duration::from_secs(5)),
        };
        let variables: Vec<_> = keys::ALL.iter().map(|key| (key.variable, text_for(*key))).collect();
        let settings = load(EVERYTHING, &variables, &overrides).unwrap();
        let flags: Vec<_> = settings
            .describe()
            .into_iter()
            .filter(|described| matches!(described.origin, Origin::Flag(_)))
            .map(|described| format!("{} = {} ({})", described.key, described.value, described.origin))
            .collect();
        insta::assert_snapshot!(flags.join("\n"));
    }

    #[test]
    fn the_usual_address_is_known_where_another_counts() {
        let overrides = Overrides { listen: Some(([127, 0, 0, 1], 0).into()), ..Overrides::default() };
        for (file, usual) in [("", 8090), ("listen: 127.0.0.1:9000", 9000)] {
            let settings = load(file, &[], &overrides).unwrap();
            assert_eq!((settings.listen.value.port(), settings.usual_listen.port()), (0, usual));
        }
        let settings = load("", &[], &Overrides::default()).unwrap();
        assert_eq!(settings.listen.value, settings.usual_listen);
    }

    #[test]
    fn relative_paths_are_those_of_the_current_directory() {
        let here = std::env::current_dir().unwrap();
        let of = |path: &str| Overrides { runtime_dir: Some(path.into()), ..Overrides::default() };
        let settings = load("", &[(keys::HELPER.variable, "bin/helper")], &of("run")).unwrap();
        assert_eq!(settings.runtime_dir.value, here.join("run"));
        assert_eq!(settings.helper.value, Some(here.join("bin/helper")));
        let error = load("", &[], &of("")).unwrap_err();
        assert!(error.starts_with("--runtime-dir: the path \"\" leads nowhere: "), "{error}");
    }

    #[test]
    fn no_secret_is_described() {
        let settings = load(EVERYTHING, &[], &Overrides::default()).unwrap();
        assert!(!table(&settings).contains("hunter22"));
    }

    #[test]
    fn mistakes_of_the_file() {
        let report: String = [
            "lisen: 127.0.0.1:1\ngateway:\n  mode: fast\n  port: {data: 1}\n  ports: {dta: 1, data: 70000}\n",
            "listen: 8090",
            "listen: ':8090'",
            "listen: 0.0.0.0:8090",
            "listen: '[::ffff:127.0.0.1]:1'\ndrain: 10",
            "gateway: {version: 1.2}",
            "gateway: {version: latest, binary: [], mirror: 'ftp://hunter22', frontendPolicies: [], logLevel: loud}",
            "gateway: {mode: external}",
            "gateway: {ports: {data: 9000, admin: 9000, stats: 9001}}",
            "gateway: embedded",
            "aggregator: {prefix: 1x, exposure: all, managementTools: on, maxSessions: 0, sessionIdle: 0s, maxBody: 0B}",
            "aggregator: {maxBody: 4 MB, sessionIdle: 1w, allowedHosts: ['a/b'], allowedOrigins: ['*', 'https://a/b'], tokenFile: 5}",
            "aggregator: {maxBody: -1, allowedHosts: a}",
            "telemetry: {endpoint: otel, protocol: http, gatewaySpans: 'yes'}",
            "redact: [1]\nredact: []",
            "runtimeDir: /tmp/x",
            "listen: [",
            "[]",
        ]
        .iter()
        .map(|file| match load(file, &[], &Overrides::default()) {
            Ok(_) => format!("{file}\nvalid\n\n"),
            Err(report) => format!("{file}\n{report}\n\n"),
        })
        .collect();
        assert!(!report.replace("mirror: 'ftp://hunter22'", "").contains("hunter22"));
        insta::assert_snapshot!(report);
    }

    #[test]
    fn mistakes_of_all_layers_come_at_once() {
        let variables = [
            ("SIDEGATE_GATEWAY_MODE", "fast"),
            ("SIDEGATE_LISTEN", ""),
            ("SIDEGATE_DRAIN", "10"),
            ("SIDEGATE_AGGREGATOR_MAX_BODY", "0"),
            ("SIDEGATE_GATEWAY_PORTS_DATA", "x"),
            ("SIDEGATE_TELEMETRY_GATEWAY_SPANS", "1"),
            ("SIDEGATE_GATEWAY_FRONTEND_POLICIES", "[]"),
            ("SIDEGATE_UPSTREAM_URL", "https://hunter22@"),
        ];
        let overrides = Overrides { gateway_mode: Some(GatewayMode::External), ..Overrides::default() };
        let report = load("drain: soon\n", &variables, &overrides).unwrap_err();
        assert!(!report.contains("hunter22"));
        insta::assert_snapshot!(report);
    }

    #[test]
    fn a_flag_can_need_a_token_too() {
        let overrides = Overrides { listen: Some(([0, 0, 0, 0], 1).into()), ..Overrides::default() };
        let report = load("", &[], &overrides).unwrap_err();
        assert!(report.starts_with("--listen: other machines can reach this address"), "{report}");
        assert!(load("aggregator: {tokenFile: t}", &[], &overrides).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config.yaml")).unwrap();
        let error = Settings::load(dir.path(), &Environment::default(), &Overrides::default()).unwrap_err();
        assert!(error.to_string().ends_with("config.yaml: not a regular file; move it away"), "{error}");
    }

    #[rstest]
    #[case("https://a.example", true)]
    #[case("http://127.0.0.1:8090", true)]
    #[case("chrome-extension://abcdef", true)]
    #[case("a.example", false)]
    #[case("https://", false)]
    #[case("https://a/", false)]
    #[case("https://*.a", false)]
    #[case("null", false)]
    fn origins(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_origin(text), expected);
    }
}
