//! The file itself: a pure function of the plan.

use http::uri::PathAndQuery;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::generation::{ContentHash, Generation};
use super::key::KeyDigest;
use super::plan::{
    BridgeDial, Dial, DialHost, GatewaySettings, McpTarget, OtlpProtocol, Plan, RouteBackend, RoutePlan,
};
use super::policy::{self, PolicyError};
use super::route_name::RouteName;
use super::{GENERATION_PATH, KEY_HEADER, ROUTE_HEADER, ROUTE_PREFIX, TRACEPARENT_HEADER};

/// The default of 90 s reuses connections that servers have closed in the meantime: 3 of 720 calls failed.
const POOL_IDLE_TIMEOUT: &str = "3s";
/// No server can be called so: an underscore is in no DNS label, and of two routes with one name the later wins silently.
const GENERATION_ROUTE: &str = "sidegate_generation";

/// A file's text and what its data port answers once it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The bytes of the file.
    pub text: String,
    /// What [`GENERATION_PATH`] answers.
    pub generation: Generation,
}

/// A plan that cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A server's policies cannot be joined with ours.
    #[error("cannot join the policies of route {route} with ours")]
    Policy {
        /// Whose.
        route: RouteName,
        /// Why.
        source: PolicyError,
    },
    /// A value has no form in YAML.
    #[error("the configuration cannot be written as YAML")]
    Serialize(#[from] serde_saphyr::SerializeError),
    /// A value has no form in JSON, which policies are joined in.
    #[error("a policy cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl Plan {
    /// Renders the file. The same plan gives the same bytes, whatever the order in which it was put together.
    pub fn render(&self) -> Result<Rendered, RenderError> {
        let routes = self
            .routes
            .iter()
            .map(|(name, route)| server_route(&self.settings, &self.key, name, route))
            .collect::<Result<Vec<_>, _>>()?;
        let mut file = File {
            frontend_policies: &self.settings.frontend_policies,
            binds: [Bind {
                port: self.settings.ports.data.get(),
                listeners: [Listener {
                    name: "sidegate",
                    routes: vec![generation_route(&self.key, String::new())],
                }],
            }],
        };
        if let [bind] = &mut file.binds
            && let [listener] = &mut bind.listeners
        {
            listener.routes.extend(routes);
        }

        let head = to_yaml(&Head { config: Config::of(&self.settings) })?;
        let text = |file: &File<'_>| -> Result<String, RenderError> {
            // agentgateway expands everything outside `config:` as a shell would, comments included.
            Ok(format!("{head}{}", to_yaml(file)?.replace('$', "$$")))
        };
        let generation = Generation { content: ContentHash::of(&text(&file)?), nonce: self.nonce };
        if let [bind] = &mut file.binds
            && let [listener] = &mut bind.listeners
            && let Some(first) = listener.routes.first_mut()
        {
            *first = generation_route(&self.key, generation.to_string());
        }
        Ok(Rendered { text: text(&file)?, generation })
    }
}

/// Every string is quoted and stands on one line, so that no reader takes one for a number, a date or a boolean.
fn to_yaml(value: &impl Serialize) -> Result<String, RenderError> {
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false, compact_list_indent: false };
    Ok(serde_saphyr::to_string_with_options(value, options)?)
}

fn key_rule(key: &KeyDigest) -> String {
    format!(r#"sha256.encode(request.headers["{KEY_HEADER}"]) == "{key}""#)
}

fn generation_route(key: &KeyDigest, body: String) -> Route {
    let mut policies = Map::new();
    policies.insert("authorization".into(), json!({ "rules": [key_rule(key)] }));
    policies.insert("directResponse".into(), json!({ "status": 200, "body": body }));
    Route {
        name: GENERATION_ROUTE.to_owned(),
        matches: [Match { path: PathMatch::Exact(GENERATION_PATH.to_owned()) }],
        policies,
        backends: Vec::new(),
    }
}

fn server_route(
    settings: &GatewaySettings,
    key: &KeyDigest,
    name: &RouteName,
    route: &RoutePlan,
) -> Result<Route, RenderError> {
    let mut ours = Map::new();
    ours.insert("authorization".into(), json!({ "rules": [key_rule(key)] }));
    let Destination { rewrite, tls, tunnel, backend } = Destination::of(name, &route.backend);
    let is_put_back = settings.spans.is_none() && rewrite.is_some();
    if let Some((path, authority)) = rewrite {
        let rewrite = json!({ "path": { "full": path.as_str() }, "authority": { "full": authority } });
        ours.insert("urlRewrite".into(), rewrite);
    }
    // Nobody behind the gateway knows what to do with it; where it is put back, that removes it.
    let removed = if is_put_back { vec![KEY_HEADER] } else { vec![KEY_HEADER, TRACEPARENT_HEADER] };
    ours.insert("requestHeaderModifier".into(), json!({ "remove": removed }));
    ours.insert("responseHeaderModifier".into(), json!({ "set": { ROUTE_HEADER: name.server().as_str() } }));
    if is_put_back {
        let traceparent = format!(r#"request.headers["{TRACEPARENT_HEADER}"]"#);
        let request = json!({ "set": { "traceparent": traceparent }, "remove": [TRACEPARENT_HEADER] });
        ours.insert("transformations".into(), json!({ "request": request }));
    }
    if tls {
        ours.insert("backendTLS".into(), json!({}));
    }
    if let Some(proxy) = tunnel {
        ours.insert("backendTunnel".into(), json!({ "proxy": { "host": proxy.to_string() } }));
    }
    let policies = policy::join(ours, &route.policies)
        .map_err(|source| RenderError::Policy { route: name.clone(), source })?;
    Ok(Route {
        name: name.to_string(),
        matches: [Match { path: PathMatch::PathPrefix(format!("{ROUTE_PREFIX}{name}")) }],
        policies,
        backends: vec![backend],
    })
}

/// Where a route leads.
struct Destination<'a> {
    /// What takes the place of the call's path and authority; nothing does where MCP is not passed as it is.
    rewrite: Option<(PathAndQuery, &'a str)>,
    tls: bool,
    tunnel: Option<&'a DialHost>,
    backend: Backend,
}

impl<'a> Destination<'a> {
    fn of(name: &RouteName, backend: &'a RouteBackend) -> Self {
        match backend {
            RouteBackend::Http(http) => {
                let (Dial::Plain(host) | Dial::Tls(host)) = &http.dial;
                Self {
                    rewrite: Some((http.path_and_query.clone(), http.authority.as_str())),
                    tls: matches!(http.dial, Dial::Tls(_)),
                    tunnel: http.tunnel.as_ref(),
                    backend: Backend::Host(host.to_string()),
                }
            }
            RouteBackend::Bridge(dial) => Self {
                rewrite: Some((name.bridge_path(), "bridge")),
                tls: false,
                tunnel: None,
                backend: Backend::Host(match dial {
                    BridgeDial::Unix(path) => format!("unix:{path}"),
                    BridgeDial::Loopback(port) => format!("127.0.0.1:{port}"),
                }),
            },
            RouteBackend::Mcp { target, tunnel } => Self {
                rewrite: None,
                tls: false,
                tunnel: tunnel.as_ref(),
                backend: Backend::Mcp(Box::new(McpBackend { targets: [Target::of(name, target)] })),
            },
        }
    }
}

#[derive(Serialize)]
struct Head<'a> {
    config: Config<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(rename = "enableIpv6", skip_serializing_if = "Option::is_none")]
    enable_ipv6: Option<bool>,
    admin_addr: String,
    stats_addr: String,
    readiness_addr: String,
    logging: Logging<'a>,
    backend: PoolSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracing: Option<Tracing>,
}

impl<'a> Config<'a> {
    fn of(settings: &'a GatewaySettings) -> Self {
        let loopback = |port| format!("127.0.0.1:{port}");
        Self {
            enable_ipv6: (!settings.ipv6).then_some(false),
            admin_addr: loopback(settings.ports.admin),
            stats_addr: loopback(settings.ports.stats),
            readiness_addr: loopback(settings.ports.readiness),
            logging: Logging { level: settings.log_level.as_str(), format: "json" },
            backend: PoolSettings { pool_idle_timeout: POOL_IDLE_TIMEOUT },
            tracing: settings.spans.as_ref().map(|spans| Tracing {
                // How a dollar in the `config:` block is read is not known; in a URL it can be avoided.
                otlp_endpoint: spans.endpoint.as_str().replace('$', "%24"),
                otlp_protocol: match spans.protocol {
                    OtlpProtocol::Grpc => "grpc",
                    OtlpProtocol::Http => "http",
                },
                random_sampling: true,
            }),
        }
    }
}

#[derive(Serialize)]
struct Logging<'a> {
    level: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolSettings {
    pool_idle_timeout: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tracing {
    otlp_endpoint: String,
    otlp_protocol: &'static str,
    random_sampling: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(skip_serializing_if = "Map::is_empty")]
    frontend_policies: &'a Map<String, Value>,
    binds: [Bind; 1],
}

#[derive(Serialize)]
struct Bind {
    port: u16,
    listeners: [Listener; 1],
}

#[derive(Serialize)]
struct Listener {
    name: &'static str,
    routes: Vec<Route>,
}

#[derive(Serialize)]
struct Route {
    name: String,
    matches: [Match; 1],
    policies: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<Backend>,
}

#[derive(Serialize)]
struct Match {
    path: PathMatch,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum PathMatch {
    Exact(String),
    PathPrefix(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Backend {
    Host(String),
    Mcp(Box<McpBackend>),
}

#[derive(Serialize)]
struct McpBackend {
    targets: [Target; 1],
}

#[derive(Serialize)]
struct Target {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdio: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sse: Option<Value>,
}

impl Target {
    fn of(name: &RouteName, target: &McpTarget) -> Self {
        let mut rendered = Self { name: name.to_string(), stdio: None, mcp: None, sse: None };
        match target {
            McpTarget::Stdio { command, args, env } => {
                // `clear_env` is in snake case, alone in the whole schema.
                rendered.stdio = Some(json!({ "cmd": command, "args": args, "env": env, "clear_env": true }));
            }
            // Only `host` as a full URL speaks TLS.
            McpTarget::StreamableHttp(url) => rendered.mcp = Some(json!({ "host": url.as_str() })),
            McpTarget::Sse(url) => rendered.sse = Some(json!({ "host": url.as_str() })),
        }
        rendered
    }
}

#[cfg(test)]
pub(super) mod tests;
