//! From a definition to what is needed to dial it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::front::GatewayKind;
use crate::bridge::{RemoteTarget, StdioTarget, Target, inherited_environment};
use crate::environment::Environment;
use crate::mcpserver::{AuthKind, Definition, Remote, Route, ServerName, Stdio, Transport};
use crate::outbound::{Proxies, Proxy};
use crate::yaml_applier::{BridgeDial, Dial, DialHost, HttpBackend, McpTarget, RouteBackend, RoutePlan};

/// How long a port of this machine has to take a connection.
const LOCALHOST_ANSWERS: Duration = Duration::from_millis(500);

/// How many servers are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// How a server is dialled.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Its route in the gateway; none where the gateway has its routes from somebody else.
    pub(super) route: Option<RoutePlan>,
    /// What the bridge serves where the route leads, where it leads to the bridge.
    pub(super) target: Option<Target>,
    /// Headers of every request to it.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Way {
    /// Who was found to reach the server.
    pub(super) fn reach(&self) -> Reach {
        match self.target {
            Some(Target::Http(_)) => Reach::BridgeOnly,
            Some(Target::Stdio(_) | Target::Sse(_)) | None => Reach::Any,
        }
    }

    /// The server that the bridge passes requests through to. It alone knows its sessions: a route that leads to it leads
    /// nowhere else as long as one of them is open. Other sessions are the bridge's own, and stay with what they were opened
    /// with: a new command needs no new route.
    pub(super) fn passed_to(&self) -> Option<&Arc<RemoteTarget>> {
        match &self.target {
            Some(Target::Http(target)) => Some(target),
            Some(Target::Stdio(_) | Target::Sse(_)) | None => None,
        }
    }

    /// Whether the server is a child of ours.
    pub(super) fn is_child(&self) -> bool {
        matches!(self.target, Some(Target::Stdio(_)))
    }
}

/// What ways lead through.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The bridge's socket, as the gateway dials it.
    pub bridge: BridgeDial,
    /// What children inherit from.
    pub environment: Environment,
    /// The proxies on the way to remote servers.
    pub proxies: Proxies,
}

/// Who can reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every gateway, as far as the definition tells.
    Any,
    /// The bridge: to agentgateway `localhost` is 127.0.0.1, where the server does not answer.
    BridgeOnly,
}

impl Reach {
    /// Asks at `localhost`, where a definition points there. A server that does not answer at all may do so later at
    /// either address, and the bridge tries both.
    pub(super) async fn of(definition: &Definition) -> Self {
        let Transport::StreamableHttp(remote) = &definition.transport else { return Self::Any };
        let Some(port) = remote.url.port_or_known_default() else { return Self::Any };
        if remote.url.host_str() != Some("localhost") {
            return Self::Any;
        }
        let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        match tokio::time::timeout(LOCALHOST_ANSWERS, connecting).await {
            Ok(Ok(_)) => Self::Any,
            Ok(Err(_)) | Err(_) => Self::BridgeOnly,
        }
    }

    /// As [`of`](Self::of), for many definitions side by side: each address that does not answer takes its time.
    pub(super) async fn of_all(definitions: Vec<Arc<Definition>>) -> BTreeMap<ServerName, Self> {
        let asking = definitions.into_iter().map(async |definition| {
            let reach = Self::of(&definition).await;
            (definition.name.clone(), reach)
        });
        stream::iter(asking).buffer_unordered(ASKED_AT_ONCE).collect().await
    }
}

/// The way to the server of `definition`, through a gateway of this kind.
///
/// # Errors
///
/// Why there is none: the definition asks for what cannot be done here.
pub(super) fn way(
    definition: &Definition,
    surroundings: &Surroundings,
    gateway: GatewayKind,
    reach: Reach,
) -> Result<Way, String> {
    let unsupported = |what: &str| Err(format!("{what} is not supported by this version of sidegate"));
    if definition.auth.kind != AuthKind::None || definition.auth.forward_token {
        return unsupported("spec.auth").map_err(|what: String| {
            format!("{what}: remove it; a token that does not change can be sent by spec.headers")
        });
    }
    if gateway == GatewayKind::External {
        return external_way(definition);
    }
    if gateway == GatewayKind::Embedded {
        let agentgateways = [
            (!definition.policies.is_empty(), "spec.policies are agentgateway's"),
            (definition.route == Route::Mcp, "spec.route: mcp is agentgateway's own MCP backend"),
        ];
        if let Some((_, what)) = agentgateways.iter().find(|(asked_for, _)| *asked_for) {
            return Err(format!(
                "{what}; this instance runs the embedded gateway, which has none: use --gateway agentgateway"
            ));
        }
    }
    if definition.route == Route::Mcp {
        return mcp_way(definition, surroundings);
    }
    match &definition.transport {
        Transport::Stdio(stdio) => Ok(stdio_way(definition, stdio, surroundings)),
        Transport::StreamableHttp(remote) if reach == Reach::BridgeOnly => {
            passed_through(definition, remote, surroundings)
        }
        Transport::StreamableHttp(remote) => remote_way(definition, remote, surroundings),
        Transport::Sse(remote) => {
            let headers = remote.headers.iter().cloned().collect();
            let target = target_of(remote, headers, surroundings)?;
            Ok(bridge_way(definition, Target::Sse(Arc::new(target)), Vec::new(), surroundings))
        }
    }
}

/// Through a gateway that runs elsewhere: whoever gives it its routes decides how the server is dialled, and under which
/// policies. What needs our bridge for that is out of its reach.
fn external_way(definition: &Definition) -> Result<Way, String> {
    let out_of_reach = |what: &str| {
        Err(format!(
            "{what} needs a gateway on this machine, and this instance uses one elsewhere (upstreamUrl)"
        ))
    };
    match &definition.transport {
        Transport::Stdio(_) => out_of_reach("a stdio server"),
        Transport::Sse(_) if definition.route == Route::Http => {
            out_of_reach("spec.type: sse without spec.route: mcp")
        }
        Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
            Ok(Way { route: None, target: None, headers: remote.headers.clone() })
        }
    }
}

fn stdio_way(definition: &Definition, stdio: &Stdio, surroundings: &Surroundings) -> Way {
    let target = StdioTarget {
        command: OsString::from(&stdio.command),
        args: stdio.args.iter().map(OsString::from).collect(),
        env: child_environment(stdio, surroundings),
        cwd: stdio.cwd.clone(),
    };
    bridge_way(definition, Target::Stdio(Arc::new(target)), Vec::new(), surroundings)
}

fn child_environment(stdio: &Stdio, surroundings: &Surroundings) -> Vec<(OsString, OsString)> {
    let ours = surroundings.environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env =
        inherited_environment(ours, |name| stdio.inherit_env.iter().any(|pattern| pattern.matches(name)));
    env.extend(stdio.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value.expose()))));
    env
}

fn bridge_way(
    definition: &Definition,
    target: Target,
    headers: Vec<(HeaderName, HeaderValue)>,
    surroundings: &Surroundings,
) -> Way {
    let backend = RouteBackend::Bridge(surroundings.bridge.clone());
    Way { route: Some(plan(definition, backend)), target: Some(target), headers }
}

/// Through the bridge where a gateway would not come through: see [`DialHost::new`].
fn remote_way(definition: &Definition, remote: &Remote, surroundings: &Surroundings) -> Result<Way, String> {
    let url = &remote.url;
    let Ok(address) = DialHost::new(url.host_str().unwrap_or_default(), port(url)?) else {
        return passed_through(definition, remote, surroundings);
    };
    let dial = if url.scheme() == "https" { Dial::Tls(address) } else { Dial::Plain(address) };
    let invalid = |part: &str| format!("spec.url {url}: its {part} cannot be sent");
    let backend = HttpBackend {
        dial,
        path_and_query: path_and_query(url).parse().map_err(|_| invalid("path"))?,
        authority: authority(url).parse().map_err(|_| invalid("host"))?,
        tunnel: tunnel(url, surroundings)?,
    };
    let route = plan(definition, RouteBackend::Http(backend));
    Ok(Way { route: Some(route), target: None, headers: remote.headers.clone() })
}

fn passed_through(
    definition: &Definition,
    remote: &Remote,
    surroundings: &Surroundings,
) -> Result<Way, String> {
    // What is passed through has the headers of the definition already.
    let target = target_of(remote, HeaderMap::new(), surroundings)?;
    Ok(bridge_way(definition, Target::Http(Arc::new(target)), remote.headers.clone(), surroundings))
}

/// What the bridge dials.
fn target_of(
    remote: &Remote,
    headers: HeaderMap,
    surroundings: &Surroundings,
) -> Result<RemoteTarget, String> {
    // The bridge asks for itself; here it is only whether it can.
    surroundings.proxies.on_the_way_to(&remote.url).map_err(|error| error.to_string())?;
    Ok(RemoteTarget { url: remote.url.clone(), headers })
}

/// Through agentgateway's own MCP backend, which dials servers by URL and starts commands itself.
fn mcp_way(definition: &Definition, surroundings: &Surroundings) -> Result<Way, String> {
    let remote = |remote: &Remote, target: fn(Url) -> McpTarget| {
        let url = &remote.url;
        // What it cannot dial costs more than this server's route.
        DialHost::new(url.host_str().unwrap_or_default(), port(url)?)
            .map_err(|error| format!("spec.url cannot be dialled by agentgateway's MCP backend: {error}"))?;
        if url.query().is_some() {
            return Err(
                "agentgateway's MCP backend loses the query of spec.url; use spec.route: http".to_owned()
            );
        }
        let tunnel = tunnel(url, surroundings)?;
        // Measured on 1.2.1: Host, and with it the URL that the proxy is asked for, has no port where the host is a name.
        let named = matches!(url.host(), Some(Host::Domain(_)));
        if tunnel.is_some() && url.scheme() == "http" && named && url.port().is_some() {
            let why = "agentgateway's MCP backend loses the port of spec.url on the way through a proxy; use spec.route: http";
            return Err(why.to_owned());
        }
        Ok((target(url.clone()), tunnel, remote.headers.clone()))
    };
    let (target, tunnel, headers) = match &definition.transport {
        Transport::StreamableHttp(server) => remote(server, McpTarget::StreamableHttp)?,
        Transport::Sse(server) => remote(server, McpTarget::Sse)?,
        Transport::Stdio(stdio) => (gateways_child(stdio, surroundings)?, None, Vec::new()),
    };
    let route = plan(definition, RouteBackend::Mcp { target, tunnel });
    Ok(Way { route: Some(route), target: None, headers })
}

/// A command that agentgateway starts. It knows no working directory, so a shell goes there first.
fn gateways_child(stdio: &Stdio, surroundings: &Surroundings) -> Result<McpTarget, String> {
    let text = |value: OsString| value.into_string();
    let cwd = text(stdio.cwd.clone().into_os_string())
        .map_err(|_| "spec.cwd is not UTF-8, as spec.route: mcp needs it".to_owned())?;
    let env = child_environment(stdio, surroundings).into_iter();
    // A variable that is no text cannot stand in a file that is one.
    let env = env.filter_map(|(name, value)| Some((text(name).ok()?, text(value).ok()?))).collect();
    let mut args = vec!["-c".to_owned(), r#"cd -- "$0" && exec "$@""#.to_owned(), cwd, stdio.command.clone()];
    args.extend(stdio.args.iter().cloned());
    Ok(McpTarget::Stdio { command: "/bin/sh".to_owned(), args, env })
}

fn port(url: &Url) -> Result<NonZeroU16, String> {
    let port = url.port_or_known_default().and_then(NonZeroU16::new);
    port.ok_or_else(|| format!("spec.url {url} has no port"))
}

/// The proxy on the way to `url`, as a gateway dials it.
fn tunnel(url: &Url, surroundings: &Surroundings) -> Result<Option<DialHost>, String> {
    let proxy = surroundings.proxies.on_the_way_to(url).map_err(|error| error.to_string())?;
    let dialled = |proxy: Proxy| {
        DialHost::new(&proxy.host, proxy.port)
            .map_err(|error| format!("the proxy on the way to it cannot be dialled: {error}"))
    };
    proxy.map(dialled).transpose()
}

fn plan(definition: &Definition, backend: RouteBackend) -> RoutePlan {
    RoutePlan { policies: definition.policies.clone(), backend }
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// What the server sees as Host: with the port only where it is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mcpserver::Reader;

    #[tokio::test(start_paused = true)]
    async fn addresses_that_do_not_answer_are_asked_side_by_side() {
        // Its queue is full, and nobody takes anything out.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let moment = Duration::from_millis(50);
        let full: Vec<_> = (0..4)
            .map(|_| std::net::TcpStream::connect_timeout(&address, moment))
            .take_while(Result::is_ok)
            .collect();
        assert!((1..4).contains(&full.len()), "{}", full.len());

        let environment = Environment::from_iter([("PATH", "/bin")]);
        let reader = Reader::new(Path::new("/"), environment).unwrap();
        let definition = |number: usize| {
            let text = format!(
                "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\n\
                 spec: {{type: streamable-http, url: 'http://localhost:{}/mcp'}}\n",
                address.port()
            );
            Arc::new(reader.read(Path::new(&format!("s{number}.yaml")), text.as_bytes()).unwrap())
        };
        let begun = tokio::time::Instant::now();
        let reaches = Reach::of_all((0..ASKED_AT_ONCE).map(definition).collect()).await;
        assert_eq!(reaches.len(), ASKED_AT_ONCE);
        assert!(reaches.values().all(|reach| *reach == Reach::BridgeOnly));
        assert!(begun.elapsed() < LOCALHOST_ANSWERS * 2, "{:?}", begun.elapsed());
    }

    fn way_of(spec: &str, gateway: GatewayKind) -> Result<Way, String> {
        let environment = Environment::from_iter([
            ("PATH", "/bin"),
            ("GITHUB_TOKEN", "secret"),
            ("TEAM", "core"),
            ("HTTPS_PROXY", "http://proxy.test:3128"),
            ("HTTP_PROXY", "http://proxy.test:3128"),
            ("NO_PROXY", "h.example"),
        ]);
        let surroundings = Surroundings {
            bridge: BridgeDial::Unix("/run/b.sock".to_owned()),
            proxies: Proxies::of(&environment),
            environment: environment.clone(),
        };
        let reader = Reader::new(Path::new("/etc/sidegate"), environment).unwrap();
        let text = format!("apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {{{spec}}}\n");
        way(&reader.read(Path::new("a.yaml"), text.as_bytes()).unwrap(), &surroundings, gateway, Reach::Any)
    }

    fn http(way: Way) -> HttpBackend {
        match way.route.unwrap().backend {
            RouteBackend::Http(backend) => backend,
            other => panic!("not dialled by the gateway itself: {other:?}"),
        }
    }

    fn bridge() -> RouteBackend {
        RouteBackend::Bridge(BridgeDial::Unix("/run/b.sock".to_owned()))
    }

    #[test]
    fn a_stdio_server_is_behind_the_bridge_with_its_own_environment() {
        let spec = "type: stdio, command: x, args: [a], env: {PATH: /mine}, inheritEnv: [TEAM], cwd: sub";
        let way = way_of(spec, GatewayKind::Embedded).unwrap();
        let Some(Target::Stdio(target)) = &way.target else { panic!("{:?}", way.target) };
        let env: Vec<_> =
            target.env.iter().map(|(n, v)| (n.to_str().unwrap(), v.to_str().unwrap())).collect();
        let proxy = "http://proxy.test:3128";
        let proxies = [("HTTPS_PROXY", proxy), ("HTTP_PROXY", proxy), ("NO_PROXY", "h.example")];
        let rest = [("PATH", "/bin"), ("TEAM", "core"), ("PATH", "/mine")];
        assert_eq!(env, [&proxies[..], &rest].concat());
        assert_eq!(target.cwd, Path::new("/etc/sidegate/sub"));
        assert_eq!(way.route.unwrap().backend, bridge());
    }

    #[test]
    fn a_remote_server_is_dialled_as_its_url_says() {
        let backend = http(
            way_of("type: streamable-http, url: 'http://h.example:9000/mcp?tenant=a'", GatewayKind::Embedded)
                .unwrap(),
        );
        assert_eq!(
            backend.dial,
            Dial::Plain(DialHost::new("h.example", NonZeroU16::new(9000).unwrap()).unwrap())
        );
        assert_eq!(backend.path_and_query, "/mcp?tenant=a");
        assert_eq!(backend.authority, "h.example:9000");
        let backend =
            http(way_of("type: streamable-http, url: 'https://h.example'", GatewayKind::Embedded).unwrap());
        assert_eq!(
            backend.dial,
            Dial::Tls(DialHost::new("h.example", NonZeroU16::new(443).unwrap()).unwrap())
        );
        assert_eq!((backend.path_and_query.as_str(), backend.authority.as_str()), ("/", "h.example"));
    }

    #[test]
    fn what_a_gateway_cannot_dial_is_behind_the_bridge() {
        let headers = "headers: {X-Team: core}";
        let sse =
            way_of(&format!("type: sse, url: 'https://h.example/sse?a=b', {headers}"), GatewayKind::Embedded)
                .unwrap();
        let Some(Target::Sse(target)) = &sse.target else { panic!("{:?}", sse.target) };
        assert_eq!(target.url.as_str(), "https://h.example/sse?a=b");
        assert_eq!(target.headers["x-team"], "core");
        assert!(sse.headers.is_empty(), "the bridge sends them");
        assert_eq!(sse.route.unwrap().backend, bridge());

        let far = way_of(
            &format!("type: streamable-http, url: 'http://[::1]:80/mcp', {headers}"),
            GatewayKind::Agentgateway,
        )
        .unwrap();
        let Some(Target::Http(target)) = &far.target else { panic!("{:?}", far.target) };
        assert_eq!(target.url.as_str(), "http://[::1]/mcp");
        assert!(target.headers.is_empty());
        assert_eq!(far.headers.len(), 1, "the request carries them");
        assert_eq!(far.route.unwrap().backend, bridge());
    }

    #[test]
    fn a_proxy_is_asked_unless_the_host_is_excepted() {
        let tunnel = |url: &str| {
            let spec = format!("type: streamable-http, url: '{url}'");
            let tunnel = http(way_of(&spec, GatewayKind::Embedded).unwrap()).tunnel;
            tunnel.map(|proxy| proxy.to_string())
        };
        assert_eq!(tunnel("https://far.test").as_deref(), Some("proxy.test:3128"));
        assert_eq!(tunnel("http://far.test:9000").as_deref(), Some("proxy.test:3128"));
        assert_eq!(tunnel("https://h.example"), None);
    }

    fn mcp(spec: &str) -> Result<(McpTarget, Option<DialHost>), String> {
        let way = way_of(&format!("{spec}, route: mcp"), GatewayKind::Agentgateway)?;
        assert!(way.target.is_none(), "the bridge has nothing to do with it");
        match way.route.unwrap().backend {
            RouteBackend::Mcp { target, tunnel } => Ok((target, tunnel)),
            other => panic!("not an MCP route: {other:?}"),
        }
    }

    #[test]
    fn agentgateways_own_backend_dials_urls_and_starts_commands_in_their_directory() {
        let url: Url = "https://far.test/mcp".parse().unwrap();
        let (target, tunnel) = mcp("type: streamable-http, url: 'https://far.test/mcp'").unwrap();
        assert_eq!(target, McpTarget::StreamableHttp(url));
        assert_eq!(tunnel.map(|proxy| proxy.to_string()).as_deref(), Some("proxy.test:3128"));
        let url: Url = "http://h.example:9000/sse".parse().unwrap();
        assert_eq!(mcp("type: sse, url: 'http://h.example:9000/sse'"), Ok((McpTarget::Sse(url), None)));
        let spec = "type: stdio, command: x, args: [a, $b], env: {PATH: /mine}, cwd: sub";
        let (McpTarget::Stdio { command, args, env }, None) = mcp(spec).unwrap() else { panic!("not stdio") };
        assert_eq!(command, "/bin/sh");
        assert_eq!(args, ["-c", r#"cd -- "$0" && exec "$@""#, "/etc/sidegate/sub", "x", "a", "$b"]);
        assert_eq!(env.get("PATH").map(String::as_str), Some("/mine"));
        assert!(!env.contains_key("GITHUB_TOKEN"));
        for (spec, why) in [
            ("type: streamable-http, url: 'http://h/mcp?a=1'", "loses the query"),
            ("type: sse, url: 'http://[::1]:80/sse'", "neither an IPv4 address"),
            ("type: sse, url: 'http://far.test:9000/sse'", "loses the port"),
        ] {
            assert!(mcp(spec).unwrap_err().contains(why), "{spec}");
        }
    }

    #[test]
    fn a_gateway_elsewhere_needs_no_route_and_has_no_bridge() {
        let way = way_of(
            "type: streamable-http, url: 'http://[::1]:80/?a', headers: {A: b}, policies: {cors: {}}",
            GatewayKind::External,
        );
        let way = way.unwrap();
        assert!(way.route.is_none() && way.target.is_none());
        assert_eq!(way.headers.len(), 1);
        assert!(way_of("type: sse, url: 'http://h/sse', route: mcp", GatewayKind::External).is_ok());
        for spec in [
            "type: stdio, command: x",
            "type: stdio, command: x, route: mcp",
            "type: sse, url: 'http://h/sse'",
        ] {
            assert!(way_of(spec, GatewayKind::External).unwrap_err().contains("(upstreamUrl)"), "{spec}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (spec, why) in [
            (
                "type: stdio, command: x, route: mcp",
                "spec.route: mcp is agentgateway's own MCP backend; this",
            ),
            ("type: streamable-http, url: 'http://h', auth: {type: oauth}", "spec.auth"),
            ("type: stdio, command: x, policies: {cors: {}}", "embedded gateway"),
        ] {
            let error = way_of(spec, GatewayKind::Embedded).unwrap_err();
            assert!(error.contains(why), "{spec}: {error}");
        }
        assert!(way_of("type: stdio, command: x, policies: {cors: {}}", GatewayKind::Agentgateway).is_ok());
    }
}
