//! The names of the settings: path in `config.yaml`, environment variable and flag.

/// The configuration directory. Not a key of the file, which is in it.
pub const CONFIG_DIR_VARIABLE: &str = "SIDEGATE_CONFIG_DIR";
/// The file in the configuration directory.
pub const FILE_NAME: &str = "config.yaml";

/// The names of one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// The path in `config.yaml`, or a name for settings that are not in it.
    pub path: &'static str,
    /// The environment variable: `SIDEGATE_` and the path.
    pub variable: &'static str,
    /// The flag, where there is one.
    pub flag: Option<&'static str>,
}

macro_rules! keys {
    ($($name:ident = $path:literal, $variable:literal $(, $flag:literal)?;)*) => {
        $(
            #[doc = concat!("`", $path, "`.")]
            pub const $name: Key = Key {
                path: $path,
                variable: $variable,
                flag: { let flags: &[&'static str] = &[$($flag)?]; flags.first().copied() },
            };
        )*
        /// Every key, in the order of the file.
        pub const ALL: &[Key] = &[$($name),*];
    };
}

keys! {
    LISTEN = "listen", "SIDEGATE_LISTEN", "--listen";
    GATEWAY_MODE = "gateway.mode", "SIDEGATE_GATEWAY_MODE", "--gateway";
    GATEWAY_VERSION = "gateway.version", "SIDEGATE_GATEWAY_VERSION", "--gateway-version";
    GATEWAY_BINARY = "gateway.binary", "SIDEGATE_GATEWAY_BINARY", "--gateway-binary";
    GATEWAY_MIRROR = "gateway.mirror", "SIDEGATE_GATEWAY_MIRROR", "--gateway-mirror";
    GATEWAY_PORTS_DATA = "gateway.ports.data", "SIDEGATE_GATEWAY_PORTS_DATA";
    GATEWAY_PORTS_ADMIN = "gateway.ports.admin", "SIDEGATE_GATEWAY_PORTS_ADMIN";
    GATEWAY_PORTS_STATS = "gateway.ports.stats", "SIDEGATE_GATEWAY_PORTS_STATS";
    GATEWAY_PORTS_READINESS = "gateway.ports.readiness", "SIDEGATE_GATEWAY_PORTS_READINESS";
    GATEWAY_FRONTEND_POLICIES = "gateway.frontendPolicies", "SIDEGATE_GATEWAY_FRONTEND_POLICIES";
    GATEWAY_LOG_LEVEL = "gateway.logLevel", "SIDEGATE_GATEWAY_LOG_LEVEL";
    UPSTREAM_URL = "upstreamUrl", "SIDEGATE_UPSTREAM_URL", "--upstream-url";
    AGGREGATOR_PREFIX = "aggregator.prefix", "SIDEGATE_AGGREGATOR_PREFIX";
    AGGREGATOR_EXPOSURE = "aggregator.exposure", "SIDEGATE_AGGREGATOR_EXPOSURE";
    AGGREGATOR_MANAGEMENT_TOOLS = "aggregator.managementTools", "SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS";
    AGGREGATOR_TOKEN_FILE = "aggregator.tokenFile", "SIDEGATE_AGGREGATOR_TOKEN_FILE";
    AGGREGATOR_ALLOWED_HOSTS = "aggregator.allowedHosts", "SIDEGATE_AGGREGATOR_ALLOWED_HOSTS";
    AGGREGATOR_ALLOWED_ORIGINS = "aggregator.allowedOrigins", "SIDEGATE_AGGREGATOR_ALLOWED_ORIGINS";
    AGGREGATOR_MAX_SESSIONS = "aggregator.maxSessions", "SIDEGATE_AGGREGATOR_MAX_SESSIONS";
    AGGREGATOR_SESSION_IDLE = "aggregator.sessionIdle", "SIDEGATE_AGGREGATOR_SESSION_IDLE";
    AGGREGATOR_MAX_BODY = "aggregator.maxBody", "SIDEGATE_AGGREGATOR_MAX_BODY";
    TELEMETRY_ENDPOINT = "telemetry.endpoint", "SIDEGATE_TELEMETRY_ENDPOINT";
    TELEMETRY_PROTOCOL = "telemetry.protocol", "SIDEGATE_TELEMETRY_PROTOCOL";
    TELEMETRY_GATEWAY_SPANS = "telemetry.gatewaySpans", "SIDEGATE_TELEMETRY_GATEWAY_SPANS";
    TELEMETRY_CALL_IDS = "telemetry.callIds", "SIDEGATE_TELEMETRY_CALL_IDS";
    REDACT = "redact", "SIDEGATE_REDACT";
    DRAIN = "drain", "SIDEGATE_DRAIN";
    RUNTIME_DIR = "runtimeDir", "SIDEGATE_RUNTIME_DIR", "--runtime-dir";
    HELPER = "helper", "SIDEGATE_HELPER";
}

/// Keys that are not in `config.yaml`: they say where an instance is, and one file may serve several.
pub const OUTSIDE_THE_FILE: &[Key] = &[RUNTIME_DIR, HELPER];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_the_path_in_capitals() {
        for key in ALL {
            let mut expected = "SIDEGATE_".to_owned();
            for letter in key.path.chars() {
                match letter {
                    '.' => expected.push('_'),
                    letter if letter.is_ascii_uppercase() => expected.extend(['_', letter]),
                    letter => expected.push(letter.to_ascii_uppercase()),
                }
            }
            assert_eq!(key.variable, expected);
        }
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|key| key.variable).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
