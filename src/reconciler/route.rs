//! From a definition to what is needed to dial it.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;
use url::Url;

use crate::bridge::{Bridge, RemoteTarget, StdioTarget, Target, inherited_environment};
use crate::environment::Environment;
use crate::mcpserver::{AuthKind, Definition, Isolation, Remote, Route, Stdio, Transport};
use crate::yaml_applier::{BridgeDial, Dial, DialHost, HttpBackend, RouteBackend, RoutePlan};

/// How long a port of this machine has to take a connection.
const LOCALHOST_ANSWERS: Duration = Duration::from_millis(500);

/// How a server is dialled.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Its route in the gateway.
    pub(super) route: RoutePlan,
    /// What the bridge serves it with, where it stands behind the bridge.
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
}

/// What ways lead through.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The bridge's socket, as the gateway dials it.
    pub bridge: BridgeDial,
    /// What children inherit from.
    pub environment: Environment,
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
}

/// The way to the server of `definition`, through agentgateway or the embedded gateway.
///
/// # Errors
///
/// Why there is none: the definition asks for what cannot be done here.
pub(super) fn way(
    definition: &Definition,
    surroundings: &Surroundings,
    agentgateway: bool,
    reach: Reach,
) -> Result<Way, String> {
    let unsupported = |what: &str| Err(format!("{what} is not supported by this version of sidegate"));
    if definition.auth.kind != AuthKind::None || definition.auth.forward_token {
        return unsupported("spec.auth");
    }
    if definition.isolation == Isolation::Session {
        return unsupported("spec.isolation: session");
    }
    if definition.route == Route::Mcp {
        return unsupported("spec.route: mcp");
    }
    if !definition.policies.is_empty() && !agentgateway {
        let why = "spec.policies are agentgateway's; this instance runs the embedded gateway, which has none";
        return Err(why.to_owned());
    }
    match &definition.transport {
        Transport::Stdio(stdio) => Ok(stdio_way(definition, stdio, surroundings)),
        Transport::StreamableHttp(remote) if reach == Reach::BridgeOnly => {
            Ok(passed_through(definition, remote, surroundings))
        }
        Transport::StreamableHttp(remote) => remote_way(definition, remote, surroundings),
        Transport::Sse(remote) => {
            let headers = remote.headers.iter().cloned().collect();
            let target = Target::Sse(Arc::new(RemoteTarget { url: remote.url.clone(), headers }));
            Ok(bridge_way(definition, target, Vec::new(), surroundings))
        }
    }
}

fn stdio_way(definition: &Definition, stdio: &Stdio, surroundings: &Surroundings) -> Way {
    let ours = surroundings.environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env =
        inherited_environment(ours, |name| stdio.inherit_env.iter().any(|pattern| pattern.matches(name)));
    env.extend(stdio.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value.expose()))));
    let target = StdioTarget {
        command: OsString::from(&stdio.command),
        args: stdio.args.iter().map(OsString::from).collect(),
        env,
        cwd: stdio.cwd.clone(),
    };
    bridge_way(definition, Target::Stdio(Arc::new(target)), Vec::new(), surroundings)
}

fn bridge_way(
    definition: &Definition,
    target: Target,
    headers: Vec<(HeaderName, HeaderValue)>,
    surroundings: &Surroundings,
) -> Way {
    let path = Bridge::path(&definition.name);
    let backend = HttpBackend {
        dial: Dial::Bridge(surroundings.bridge.clone()),
        // A server name is a path segment as it is.
        path_and_query: path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/")),
        authority: Authority::from_static("bridge"),
        tunnel: None,
    };
    Way { route: plan(definition, backend), target: Some(target), headers }
}

/// Through the bridge where a gateway would not come through: see [`DialHost::new`].
fn remote_way(definition: &Definition, remote: &Remote, surroundings: &Surroundings) -> Result<Way, String> {
    let url = &remote.url;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().and_then(NonZeroU16::new);
    let port = port.ok_or_else(|| format!("spec.url {url} has no port"))?;
    let Ok(address) = DialHost::new(host, port) else {
        return Ok(passed_through(definition, remote, surroundings));
    };
    let dial = if url.scheme() == "https" { Dial::Tls(address) } else { Dial::Plain(address) };
    let invalid = |part: &str| format!("spec.url {url}: its {part} cannot be sent");
    let backend = HttpBackend {
        dial,
        path_and_query: path_and_query(url).parse().map_err(|_| invalid("path"))?,
        authority: authority(url).parse().map_err(|_| invalid("host"))?,
        tunnel: None,
    };
    Ok(Way { route: plan(definition, backend), target: None, headers: remote.headers.clone() })
}

fn passed_through(definition: &Definition, remote: &Remote, surroundings: &Surroundings) -> Way {
    // What is passed through has the headers of the definition already.
    let target = RemoteTarget { url: remote.url.clone(), headers: HeaderMap::new() };
    bridge_way(definition, Target::Http(Arc::new(target)), remote.headers.clone(), surroundings)
}

fn plan(definition: &Definition, backend: HttpBackend) -> RoutePlan {
    RoutePlan { policies: definition.policies.clone(), backend: RouteBackend::Http(backend) }
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

    fn way_of(spec: &str, agentgateway: bool) -> Result<Way, String> {
        let environment =
            Environment::from_iter([("PATH", "/bin"), ("GITHUB_TOKEN", "secret"), ("TEAM", "core")]);
        let surroundings = Surroundings {
            bridge: BridgeDial::Unix("/run/b.sock".to_owned()),
            environment: environment.clone(),
        };
        let reader = Reader::new(Path::new("/etc/sidegate"), environment).unwrap();
        let text = format!("apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {{{spec}}}\n");
        way(
            &reader.read(Path::new("a.yaml"), text.as_bytes()).unwrap(),
            &surroundings,
            agentgateway,
            Reach::Any,
        )
    }

    fn http(way: Way) -> HttpBackend {
        match way.route.backend {
            RouteBackend::Http(backend) => backend,
            RouteBackend::Mcp(_) => panic!("not an HTTP route"),
        }
    }

    #[test]
    fn a_stdio_server_is_behind_the_bridge_with_its_own_environment() {
        let spec = "type: stdio, command: x, args: [a], env: {PATH: /mine}, inheritEnv: [TEAM], cwd: sub";
        let way = way_of(spec, false).unwrap();
        let Some(Target::Stdio(target)) = &way.target else { panic!("{:?}", way.target) };
        let env: Vec<_> =
            target.env.iter().map(|(n, v)| (n.to_str().unwrap(), v.to_str().unwrap())).collect();
        assert_eq!(env, [("PATH", "/bin"), ("TEAM", "core"), ("PATH", "/mine")]);
        assert_eq!(target.cwd, Path::new("/etc/sidegate/sub"));
        let backend = http(way);
        assert_eq!(backend.dial, Dial::Bridge(BridgeDial::Unix("/run/b.sock".to_owned())));
        assert_eq!(backend.path_and_query, "/a");
    }

    #[test]
    fn a_remote_server_is_dialled_as_its_url_says() {
        let backend =
            http(way_of("type: streamable-http, url: 'http://h.example:9000/mcp?tenant=a'", false).unwrap());
        assert_eq!(
            backend.dial,
            Dial::Plain(DialHost::new("h.example", NonZeroU16::new(9000).unwrap()).unwrap())
        );
        assert_eq!(backend.path_and_query, "/mcp?tenant=a");
        assert_eq!(backend.authority, "h.example:9000");
        let backend = http(way_of("type: streamable-http, url: 'https://h.example'", false).unwrap());
        assert_eq!(
            backend.dial,
            Dial::Tls(DialHost::new("h.example", NonZeroU16::new(443).unwrap()).unwrap())
        );
        assert_eq!((backend.path_and_query.as_str(), backend.authority.as_str()), ("/", "h.example"));
    }

    #[test]
    fn what_a_gateway_cannot_dial_is_behind_the_bridge() {
        let headers = "headers: {X-Team: core}";
        let sse = way_of(&format!("type: sse, url: 'https://h.example/sse?a=b', {headers}"), false).unwrap();
        let Some(Target::Sse(target)) = &sse.target else { panic!("{:?}", sse.target) };
        assert_eq!(target.url.as_str(), "https://h.example/sse?a=b");
        assert_eq!(target.headers["x-team"], "core");
        assert!(sse.headers.is_empty(), "the bridge sends them");
        let backend = http(sse);
        assert_eq!(backend.dial, Dial::Bridge(BridgeDial::Unix("/run/b.sock".to_owned())));

        let far =
            way_of(&format!("type: streamable-http, url: 'http://[::1]:80/mcp', {headers}"), true).unwrap();
        let Some(Target::Http(target)) = &far.target else { panic!("{:?}", far.target) };
        assert_eq!(target.url.as_str(), "http://[::1]/mcp");
        assert!(target.headers.is_empty());
        assert_eq!(far.headers.len(), 1, "the request carries them");
        assert_eq!(http(far).path_and_query, "/a");
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (spec, why) in [
            ("type: stdio, command: x, isolation: session", "spec.isolation: session"),
            ("type: stdio, command: x, route: mcp", "spec.route: mcp"),
            ("type: streamable-http, url: 'http://h', auth: {type: oauth}", "spec.auth"),
            ("type: stdio, command: x, policies: {cors: {}}", "embedded gateway"),
        ] {
            let error = way_of(spec, false).unwrap_err();
            assert!(error.contains(why), "{spec}: {error}");
        }
        assert!(way_of("type: stdio, command: x, policies: {cors: {}}", true).is_ok());
    }
}
