//! Serves what the gateway cannot dial as streamable HTTP on a Unix socket: stdio servers, servers that speak the
//! HTTP+SSE transport of 2024-11-05, and servers at addresses that agentgateway cannot dial.
//!
//! `POST /<route>` with `initialize` starts a stdio server's command, or opens an SSE server's event stream; that
//! belongs to the session, and ends with it: on DELETE, when the child exits or the stream ends, when the session
//! expires, and when the bridge is shut down. Messages pass unchanged. An answer goes to the request with its id,
//! progress to the request with its token, and everything else the server says goes to the session's GET stream.
//! Requests to a streamable HTTP server are passed through as they are.
//!
//! | part | owns |
//! | --- | --- |
//! | `served` | what is served at which path |
//! | `child` | one session with a stdio server: a child and its pipes |
//! | `openings` | which sessions with a stdio server are being opened, and whether they may be |
//! | `sse` | one session with an SSE server: its event stream, and where messages are posted |
//! | `pending` | which request of a session waits for what |
//! | `remote` | how servers on the network are dialled; passing requests through |
//! | `environment` | what a child sees of our environment |
//!
//! Invariants: one child or stream a session; after a session was closed its child and all its descendants are gone; a
//! session whose child or stream has ended is not known any more, and says why to whoever waits; a session ends at the path
//! where it began.
//!
//! Knows nothing of gateways, but the names of the routes that lead here, and of exposed names.

mod child;
mod environment;
mod openings;
mod pending;
mod remote;
mod served;
mod sse;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::Request;
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mcpserver::ServerName;
use crate::outbound::Proxies;
use crate::subprocess::{Helper, Root, Tail};
use crate::sync::lock;
use crate::telemetry::calls::Children;
use crate::telemetry::secrets::Secrets;
use crate::wire::client::Local;
use crate::wire::message::Message;
use crate::wire::rpc::RpcError;
use crate::wire::server::{
    Endpoint, HostPolicy, Opened, Priming, Reply, RequestContext, ServerConfig, SessionHandle,
    StreamableHttp, serve_connections,
};
use crate::yaml_applier::RouteName;
use child::ChildSession;
pub use environment::inherited_environment;
pub use openings::Refusal;
pub use remote::RemoteTarget;
use remote::Web;
use served::{Served, Table};
use sse::SseSession;

/// The largest message that a server may send, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// A session that nobody has confirmed holds a process. Whoever opened it is this program, and quick.
const UNCONFIRMED: Duration = Duration::from_secs(5);

/// Sessions of all servers together.
const MAX_SESSIONS: usize = 65_536;

/// How long a call may take before its response becomes an event stream, which is resumed when a gateway ends under it.
const JSON_GRACE: Duration = Duration::from_millis(100);

/// How long to wait before a stream is resumed. Whoever does is on this machine.
const RETRY: Duration = Duration::from_millis(50);

/// What stands behind the bridge.
#[derive(Clone, Debug)]
pub enum Target {
    /// A command, one child a session.
    Stdio(Arc<StdioTarget>),
    /// A server that speaks the HTTP+SSE transport of 2024-11-05.
    Sse(Arc<RemoteTarget>),
    /// A streamable HTTP server, to which requests are passed through.
    Http(Arc<RemoteTarget>),
}

/// A command that speaks MCP over stdio.
#[derive(Clone)]
pub struct StdioTarget {
    /// The command: looked up on the `PATH` of `env`, or relative to `cwd` when it holds a slash.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// What all sessions of a bridge share.
#[derive(Clone, Debug)]
pub struct BridgeSettings {
    /// The program that guards children.
    pub helper: Helper,
    /// The directory of the children's log files; none are written without.
    pub logs: Option<PathBuf>,
    /// How long a child has to end after its stdin was closed, and again after SIGTERM.
    pub grace: Duration,
    /// The soft limit on open files that children run with; ours when `None`.
    pub open_files: Option<u64>,
    /// Variables that every child has, whatever its target says.
    pub environment: Vec<(OsString, OsString)>,
    /// The proxies on the way to servers on the network.
    pub proxies: Proxies,
    /// Who wants to know which child answers what.
    pub children: Arc<Children>,
    /// What no line of a child may show, in the log, its file or a message.
    pub secrets: Secrets,
}

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    http: Arc<StreamableHttp<Servers>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Bridge {
    /// Listens on the Unix socket `socket`, which must not exist.
    ///
    /// # Errors
    ///
    /// The socket cannot be bound.
    pub fn start(socket: &Path, settings: BridgeSettings) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let config = ServerConfig {
            // The aggregator has checked sizes, hosts and idle clients before.
            max_body: usize::MAX,
            max_sessions: MAX_SESSIONS,
            session_idle: Duration::from_secs(24 * 3600),
            unconfirmed: UNCONFIRMED,
            hosts: HostPolicy::any(),
            // All clients are our own.
            priming: Priming::Always,
            json_grace: JSON_GRACE,
            retry: RETRY,
            ..ServerConfig::default()
        };
        let servers = Servers {
            web: Arc::new(Web::through(settings.proxies.clone())),
            settings,
            served: Mutex::default(),
            tracker: tracker.clone(),
        };
        let http = StreamableHttp::new(servers, config, tracker.clone(), stop.clone());
        let handler = {
            let http = Arc::clone(&http);
            move |request: Request<Incoming>| {
                let http = Arc::clone(&http);
                async move {
                    let served = http.endpoint().served().at(request.uri().path()).cloned();
                    match served.as_ref().map(|served| &served.target) {
                        Some(Target::Http(target)) => http.endpoint().web.pass(target, request).await,
                        _ => http.handle(request).await.map(Either::Left),
                    }
                }
            }
        };
        tracker.spawn(serve_connections(listener, handler, stop.clone(), tracker.clone()));
        Ok(Self { http, tracker, stop })
    }

    /// A way to what is served where `route` leads that needs no socket.
    pub fn local(&self, route: &RouteName) -> Local {
        Local::new(Arc::clone(&self.http) as _, route.bridge_path())
    }

    /// Serves `target` where `route` leads, for each session from now on. Sessions with children and SSE servers that are open
    /// there keep what they have; those that are passed through are known to their server only, so `target` must be the one
    /// there is, or the first.
    pub fn set(&self, route: &RouteName, target: Target) {
        self.http.endpoint().served().set(route, target, &self.stop);
    }

    /// Serves nothing any more where `route` leads, and ends the sessions that are left there: such as could not be closed in
    /// order, or were given up while they were being opened. Where the server has no other path, gives the tracker that is
    /// empty when its last child has ended.
    pub fn remove(&self, route: &RouteName) -> Option<TaskTracker> {
        self.http.endpoint().served().remove(route)
    }

    /// Gives up the sessions of the stdio server behind `route` that are being opened, and opens none as long as the value
    /// lives. `None` where nothing is served.
    pub fn refuse(&self, route: &RouteName) -> Option<Refusal> {
        Some(self.by(route)?.server.openings.refuse())
    }

    /// Waits until nothing is left of the sessions of the server behind `route` that were given up while they were being
    /// opened.
    pub async fn given_up(&self, route: &RouteName) {
        if let Some(served) = self.by(route) {
            served.server.openings.given_up().await;
        }
    }

    fn by(&self, route: &RouteName) -> Option<Arc<Served>> {
        self.http.endpoint().served().by(route).cloned()
    }

    /// The last lines that the newest child behind `route` wrote to stderr.
    pub fn last_lines(&self, route: &RouteName) -> Vec<String> {
        self.by(route).and_then(|served| lock(&served.tail).as_ref().map(Tail::lines)).unwrap_or_default()
    }

    /// The trees of processes that run, by server.
    pub fn trees(&self) -> Vec<(ServerName, Vec<Root>)> {
        self.http.endpoint().served().trees()
    }

    /// Closes every session and ends every child; returns when nothing of them is left.
    pub async fn shutdown(&self) {
        self.http.close_sessions().await;
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Drop for Bridge {
    /// Without a shutdown nobody waits, but nothing is left behind either: a dropped child ends.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The endpoint behind the socket.
#[derive(Debug)]
struct Servers {
    settings: BridgeSettings,
    served: Mutex<Table>,
    web: Arc<Web>,
    tracker: TaskTracker,
}

impl Servers {
    fn served(&self) -> MutexGuard<'_, Table> {
        lock(&self.served)
    }
}

/// An open session.
#[derive(Debug)]
enum Session {
    Child(Arc<ChildSession>),
    Sse(Arc<SseSession>),
}

impl Endpoint for Servers {
    type Session = Session;

    async fn initialize(
        &self,
        request: &Message,
        context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<Session>, RpcError> {
        let tracker = &self.tracker;
        let served = self.served().at(&context.path).cloned();
        let served = served.ok_or_else(|| {
            RpcError::new(RpcError::UPSTREAM, format!("no server is served at {}", context.path))
        })?;
        let stop = &served.stop;
        match &served.target {
            Target::Stdio(target) => {
                let opening =
                    ChildSession::open(&served, target, &self.settings, tracker, stop, request, handle);
                opening.await.map(|opened| opened.map(Session::Child))
            }
            Target::Sse(target) => {
                let opening = SseSession::open(target, &self.web, tracker, stop, request, context, handle);
                opening.await.map(|opened| opened.map(Session::Sse))
            }
            Target::Http(_) => {
                let why = format!("{} has just become something else; try again", context.path);
                Err(RpcError::new(RpcError::UPSTREAM, why))
            }
        }
    }

    async fn request(
        &self,
        session: &Arc<Session>,
        request: Message,
        context: &RequestContext,
        reply: Reply,
    ) {
        match &**session {
            Session::Child(child) => child.request(&request, reply).await,
            Session::Sse(sse) => sse.request(&request, context, reply).await,
        }
    }

    async fn deliver(&self, session: &Arc<Session>, message: Message) {
        match &**session {
            Session::Child(child) => child.deliver(&message).await,
            Session::Sse(sse) => sse.deliver(&message).await,
        }
    }

    async fn closed(&self, session: &Arc<Session>) {
        match &**session {
            Session::Child(child) => child.end().await,
            Session::Sse(sse) => sse.end().await,
        }
    }
}

impl std::fmt::Debug for StdioTarget {
    /// Names only: arguments and values can hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioTarget")
            .field("command", &self.command)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
