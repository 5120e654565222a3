//! From the file as written to what calls are served from; each refusal names the place.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use rustls::pki_types::ServerName as TlsName;

use super::file::{self, File};
use super::{
    Action, Address, BackendId, Config, ConfigError, Forward, HeaderEdit, HostPort, KeyRule, PathRule,
    RouteConfig, Settings, TlsId, Trust, rule, time,
};

/// agentgateway's defaults.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `$$` is a dollar. agentgateway expands `$NAME` from its environment, which is never asked for in a file of ours.
pub(super) fn expand(text: &str) -> Result<String, ConfigError> {
    let mut expanded = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            expanded.push('$');
            rest = after.strip_prefix('$').ok_or_else(|| ConfigError::Unsupported {
                place: format!("line {}", index + 1),
                what: format!(
                    "${}",
                    after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
                ),
            })?;
        }
        expanded.push_str(rest);
    }
    Ok(expanded)
}

pub(super) fn syntax(error: &serde_saphyr::Error) -> ConfigError {
    use serde_saphyr::Error;

    let place = error.location().map_or_else(
        || "the configuration".to_owned(),
        |location| format!("line {} column {}", location.line(), location.column()),
    );
    match error.without_snippet() {
        Error::SerdeUnknownField { field: what, .. } | Error::SerdeUnknownVariant { variant: what, .. } => {
            ConfigError::Unsupported { place, what: what.clone() }
        }
        other => ConfigError::Syntax { reason: other.to_string() },
    }
}

fn invalid(path: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { path: path.into(), reason: reason.into() }
}

fn unsupported(path: impl Into<String>, what: impl Into<String>) -> ConfigError {
    ConfigError::Unsupported { place: path.into(), what: what.into() }
}

pub(super) fn lower(file: File) -> Result<Config, ConfigError> {
    let [bind] = file.binds.as_slice() else {
        return Err(unsupported("binds", "any number of binds but one"));
    };
    let [listener] = bind.listeners.as_slice() else {
        return Err(unsupported("binds[0].listeners", "any number of listeners but one"));
    };
    let block = &file.config;
    let duration = |path: &str, text: &Option<String>, default| match text {
        None => Ok(default),
        Some(text) => time::parse(text)
            .ok_or_else(|| invalid(path, format!("{text:?} is no length of time such as 3s"))),
    };
    let settings = Settings {
        data: NonZeroU16::new(bind.port).ok_or_else(|| invalid("binds[0].port", "a port is 1 to 65535"))?,
        admin: loopback("config.adminAddr", &block.admin_addr)?,
        stats: loopback("config.statsAddr", &block.stats_addr)?,
        readiness: loopback("config.readinessAddr", &block.readiness_addr)?,
        log_level: block.logging.level.clone(),
        pool_idle_timeout: duration(
            "config.backend.poolIdleTimeout",
            &block.backend.pool_idle_timeout,
            POOL_IDLE_TIMEOUT,
        )?,
        connect_timeout: duration(
            "config.backend.connectTimeout",
            &block.backend.connect_timeout,
            CONNECT_TIMEOUT,
        )?,
    };
    let routes = listener
        .routes
        .iter()
        .enumerate()
        .map(|(index, written)| route(&format!("binds[0].listeners[0].routes[{index}]"), written))
        .collect::<Result<Vec<_>, _>>()?;
    refuse_twins(&routes)?;
    Ok(Config { settings, routes, file })
}

/// agentgateway lets the later of two silently replace the earlier.
fn refuse_twins(routes: &[RouteConfig]) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for route in routes {
        let paths = route.paths.iter().map(|path| match path {
            PathRule::Exact(path) => format!("exact path {path}"),
            PathRule::Prefix(path) => format!("path prefix {path}"),
        });
        for twin in paths.chain([format!("route {}", route.name)]) {
            if let Some(twin) = seen.replace(twin) {
                return Err(invalid("binds[0].listeners[0].routes", format!("{twin} stands there twice")));
            }
        }
    }
    Ok(())
}

fn loopback(path: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    let address: SocketAddr =
        text.parse().map_err(|_| invalid(path, format!("{text:?} is no address and port")))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(unsupported(path, text)) }
}

fn route(path: &str, written: &file::Route) -> Result<RouteConfig, ConfigError> {
    let policies = &written.policies;
    let at = |name: &str| format!("{path}.policies.{name}");
    let key = policies
        .authorization
        .as_ref()
        .map(|rules| key_rule(&at("authorization.rules"), rules))
        .transpose()?;
    let action = match (&policies.direct_response, written.backends.as_slice()) {
        (Some(answer), []) => Action::Answer {
            status: StatusCode::from_u16(answer.status)
                .map_err(|_| invalid(at("directResponse.status"), "a status is 100 to 999"))?,
            body: Bytes::from(answer.body.clone()),
        },
        (None, [backend]) => Action::Forward(Box::new(forward(path, policies, backend)?)),
        (Some(_), _) => {
            return Err(unsupported(format!("{path}.backends"), "a backend beside directResponse"));
        }
        (None, _) => return Err(unsupported(format!("{path}.backends"), "any number of backends but one")),
    };
    let paths = written
        .matches
        .iter()
        .map(|matched| match &matched.path {
            file::PathMatch::Exact(text) => PathRule::Exact(text.clone()),
            file::PathMatch::PathPrefix(text) => PathRule::Prefix(text.trim_end_matches('/').to_owned()),
        })
        .collect();
    let response = header_edit(&at("responseHeaderModifier"), policies.response_header_modifier.as_ref())?;
    Ok(RouteConfig { name: written.name.clone(), paths, key, action, response })
}

fn key_rule(path: &str, written: &file::Authorization) -> Result<KeyRule, ConfigError> {
    let [text] = written.rules.as_slice() else {
        return Err(unsupported(path, "any number of rules but one"));
    };
    rule::key_rule(text).ok_or_else(|| unsupported(path, text))
}

fn forward(path: &str, policies: &file::Policies, backend: &file::Backend) -> Result<Forward, ConfigError> {
    let at = |name: &str| format!("{path}.policies.{name}");
    let rewrite = policies
        .url_rewrite
        .as_ref()
        .ok_or_else(|| unsupported(at("urlRewrite"), "a backend without a rewrite"))?;
    let (mut copy, mut remove) = (Vec::new(), Vec::new());
    if let Some(file::Transformations { request }) = &policies.transformations {
        let at = at("transformations.request");
        for (target, expression) in &request.set {
            let source =
                rule::header_value(expression).ok_or_else(|| unsupported(format!("{at}.set"), expression))?;
            copy.push((header_name(&at, target)?, source));
        }
        remove = request.remove.iter().map(|name| header_name(&at, name)).collect::<Result<_, _>>()?;
    }
    let backend = backend_id(path, policies, backend)?;
    let path: PathAndQuery = rewrite
        .path
        .full
        .parse()
        .map_err(|error| invalid(at("urlRewrite.path.full"), format!("no path: {error}")))?;
    let uri = match (&backend.tunnel, &backend.tls) {
        // RFC 9112 section 3.2.2. With TLS there is a tunnel, in which the proxy reads nothing.
        (Some(_), None) => Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(rewrite.authority.full.as_str())
            .path_and_query(path)
            .build()
            .map_err(|error| invalid(at("urlRewrite.authority.full"), error.to_string()))?,
        _ => Uri::from(path),
    };
    Ok(Forward {
        uri,
        host: header_value(&at("urlRewrite.authority.full"), &rewrite.authority.full)?,
        request: header_edit(&at("requestHeaderModifier"), policies.request_header_modifier.as_ref())?,
        copy,
        remove,
        backend,
    })
}

fn backend_id(
    path: &str,
    policies: &file::Policies,
    backend: &file::Backend,
) -> Result<BackendId, ConfigError> {
    let at = format!("{path}.backends[0].host");
    let address = match backend.host.strip_prefix("unix:") {
        Some(socket) => Address::Unix(socket.into()),
        None => Address::Tcp(host_port(&at, &backend.host)?),
    };
    let tunnel = policies
        .backend_tunnel
        .as_ref()
        .map(|tunnel| host_port(&format!("{path}.policies.backendTunnel.proxy.host"), &tunnel.proxy.host))
        .transpose()?;
    let tls = policies
        .backend_tls
        .as_ref()
        .map(|written| {
            let at = format!("{path}.policies.backendTLS");
            let name = match (&written.hostname, &address) {
                (Some(name), _) => name,
                (None, Address::Tcp(target)) => &target.host,
                (None, Address::Unix(_)) => return Err(invalid(at, "a Unix socket has no name to verify")),
            };
            let name = TlsName::try_from(name.clone())
                .map_err(|error| invalid(&at, format!("{name:?}: {error}")))?;
            let trust = match (written.insecure, &written.root) {
                (true, _) => Trust::Anyone,
                (false, Some(root)) => Trust::File(root.into()),
                (false, None) => Trust::System,
            };
            Ok(TlsId { name, trust })
        })
        .transpose()?;
    if tunnel.is_some() && matches!(address, Address::Unix(_)) {
        return Err(invalid(at, "a Unix socket is not behind a proxy"));
    }
    Ok(BackendId { address, tunnel, tls })
}

fn host_port(path: &str, text: &str) -> Result<HostPort, ConfigError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        // agentgateway rejects the whole file for one.
        Some((host, _)) if host.contains(':') => Err(unsupported(path, text)),
        Some((host, port)) if !host.is_empty() => Ok(HostPort { host: host.to_owned(), port }),
        _ => Err(invalid(path, format!("{text:?} is no host:port"))),
    }
}

fn header_edit(path: &str, written: Option<&file::HeaderModifier>) -> Result<HeaderEdit, ConfigError> {
    let Some(written) = written else { return Ok(HeaderEdit::default()) };
    let pairs = |pairs: &std::collections::BTreeMap<String, String>| {
        pairs
            .iter()
            .map(|(name, value)| Ok((header_name(path, name)?, header_value(path, value)?)))
            .collect::<Result<Vec<_>, ConfigError>>()
    };
    Ok(HeaderEdit {
        set: pairs(&written.set)?,
        add: pairs(&written.add)?,
        remove: written.remove.iter().map(|name| header_name(path, name)).collect::<Result<_, _>>()?,
    })
}

fn header_name(path: &str, text: &str) -> Result<HeaderName, ConfigError> {
    text.parse().map_err(|_| invalid(path, format!("{text:?} is no header name")))
}

fn header_value(path: &str, text: &str) -> Result<HeaderValue, ConfigError> {
    HeaderValue::from_str(text).map_err(|_| invalid(path, format!("{text:?} is no header value")))
}
