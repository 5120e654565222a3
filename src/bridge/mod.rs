//! Serves what the gateway cannot dial, stdio servers first, as streamable HTTP on a Unix socket.
//!
//! `POST /<server>` with `initialize` starts the server's command; that child belongs to the session, and ends with it:
//! on DELETE, when the child exits, when the session expires, and when the bridge is shut down. Messages pass
//! unchanged. An answer goes to the request with its id, progress to the request with its token, and everything else
//! the child says goes to the session's GET stream.
//!
//! | part | owns |
//! | --- | --- |
//! | `child` | one session: a child, its pipes, and which request waits for what |
//! | `environment` | what a child sees of our environment |
//!
//! Invariants: one child a session; after a session was closed its child and all its descendants are gone; a session
//! whose child has ended is not known any more, and says why to whoever waits.
//!
//! Knows nothing of gateways and of exposed names.

mod child;
mod environment;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mcpserver::ServerName;
use crate::subprocess::{Helper, Tail};
use crate::sync::lock;
use crate::wire::message::{Message, View};
use crate::wire::rpc::RpcError;
use crate::wire::server::{
    Endpoint, HostPolicy, Opened, Reply, RequestContext, ServerConfig, SessionHandle, StreamableHttp,
    serve_connections,
};
use child::ChildSession;
pub use environment::inherited_environment;

/// The largest message that a child may send, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// Sessions of all servers together.
const MAX_SESSIONS: usize = 65_536;

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
}

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    http: Arc<StreamableHttp<Stdio>>,
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
            hosts: HostPolicy::any(),
            ..ServerConfig::default()
        };
        let stdio =
            Stdio { settings, targets: Mutex::default(), tracker: tracker.clone(), stop: stop.clone() };
        let http = StreamableHttp::new(stdio, config, tracker.clone(), stop.clone());
        let handler = {
            let http = Arc::clone(&http);
            move |request| Arc::clone(&http).handle(request)
        };
        tracker.spawn(serve_connections(listener, handler, stop.clone(), tracker.clone()));
        Ok(Self { http, tracker, stop })
    }

    /// The path at which a server is served.
    pub fn path(server: &ServerName) -> String {
        format!("/{server}")
    }

    /// Serves `server` by starting `target` for each session from now on. Sessions that are open keep their child.
    pub fn set(&self, server: &ServerName, target: StdioTarget) {
        let target = Arc::new(Served { server: server.clone(), target, tail: Mutex::default() });
        self.http.endpoint().targets().insert(Self::path(server), target);
    }

    /// Opens no more sessions for `server`.
    pub fn remove(&self, server: &ServerName) {
        self.http.endpoint().targets().remove(&Self::path(server));
    }

    /// The last lines that the newest child of `server` wrote to stderr, or to stdout where they were no messages.
    pub fn last_lines(&self, server: &ServerName) -> Vec<String> {
        let target = self.http.endpoint().targets().get(&Self::path(server)).cloned();
        target.and_then(|served| lock(&served.tail).as_ref().map(Tail::lines)).unwrap_or_default()
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
struct Stdio {
    settings: BridgeSettings,
    targets: Mutex<HashMap<String, Arc<Served>>>,
    tracker: TaskTracker,
    /// Ends every child.
    stop: CancellationToken,
}

/// A server that sessions can be opened for.
#[derive(Debug)]
struct Served {
    server: ServerName,
    target: StdioTarget,
    /// The output of the newest child.
    tail: Mutex<Option<Tail>>,
}

impl Stdio {
    fn targets(&self) -> MutexGuard<'_, HashMap<String, Arc<Served>>> {
        lock(&self.targets)
    }
}

impl Endpoint for Stdio {
    type Session = ChildSession;

    async fn initialize(
        &self,
        request: &Message,
        context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<ChildSession>, RpcError> {
        let served = self.targets().get(&context.path).cloned();
        let served = served.ok_or_else(|| {
            RpcError::new(RpcError::UPSTREAM, format!("no stdio server is served at {}", context.path))
        })?;
        ChildSession::open(&served, &self.settings, &self.tracker, &self.stop, request, handle).await
    }

    async fn request(&self, session: &Arc<ChildSession>, request: Message, _: &RequestContext, reply: Reply) {
        session.request(&request, reply).await;
    }

    async fn deliver(&self, session: &Arc<ChildSession>, message: Message) {
        if let View::Notification { method: "notifications/cancelled", params } = message.view() {
            session.cancelled(params);
        }
        session.send(message.text().clone()).await;
    }

    async fn closed(&self, session: &Arc<ChildSession>) {
        session.end().await;
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
