//! The rules of values beyond their types, and those between values.

use url::Url;

use super::Layers;
use crate::config::keys::{self, Key};
use crate::config::values::InvalidValue;
use crate::config::{ConfigMistake, GatewayMode, GatewayPorts, HostName, Origin, Place, Setting, Settings};
use crate::yaml::{Mistake, Position, shown};

impl Layers<'_> {
    /// The rules of one value beyond its type, and those between values.
    pub(super) fn check(&mut self, settings: &Settings) {
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
            self.wrong(
                keys::GATEWAY_MODE,
                &gateway.mode.origin,
                "external needs the address of the gateway",
                advice,
            );
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
            if let Err(InvalidValue { problem, advice }) = host.parse::<HostName>() {
                let origin = &aggregator.allowed_hosts.origin;
                self.wrong(keys::AGGREGATOR_ALLOWED_HOSTS, origin, problem, advice);
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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
