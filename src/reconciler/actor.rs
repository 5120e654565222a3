//! One server: opens its session, keeps it, and puts its tools into the catalogue.
//!
//! | part | owns |
//! | --- | --- |
//! | `task` | what a server's task does next |
//! | `session` | opening and closing one session |
//!
//! Invariants: calls go to one session at a time; the tools in the catalogue are those of a session that was open; retries
//! never end; after [`Actor::retire`] nothing of the session is left.

mod session;
mod task;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::Retry;
use super::held::RouteLease;
use super::status::Board;
use crate::aggregator::limits::Limits;
use crate::aggregator::link::Link;
use crate::aggregator::registry::Registry;
use crate::bridge::Bridge;
use crate::mcpserver::Definition;
use crate::telemetry::Cause;
use crate::telemetry::secrets::Secrets;
use crate::wire::client::{Origin, Pool};
use task::Task;

/// What all actors share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) bridge: Arc<Bridge>,
    pub(super) board: Board,
    pub(super) pool: Pool,
    pub(super) tracker: TaskTracker,
    pub(super) retry: Retry,
    /// How long calls in flight have to end when their session is closed.
    pub(super) drain: Duration,
    /// What no message may hold.
    pub(super) secrets: Secrets,
}

/// A handle to the task that looks after one server.
#[derive(Debug)]
pub(super) struct Actor {
    commands: mpsc::UnboundedSender<Command>,
    link: Arc<Link>,
    shared: Arc<Shared>,
}

/// How an actor reaches its server.
#[derive(Clone, Debug)]
pub(super) struct Approach {
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    /// The server is a child of the bridge.
    pub(super) is_child: bool,
    /// Its route, and keeps that.
    pub(super) lease: Arc<RouteLease>,
    /// What a session by this way is a part of.
    pub(super) cause: Cause,
}

/// Hears whether the next try to open a session has succeeded, and why not. Dropped when the server is not wanted any more.
pub(super) type Settled = oneshot::Sender<Result<(), String>>;

#[derive(Debug)]
enum Command {
    /// Take over what does not touch the connection.
    Update(Arc<Definition>),
    /// Open a session another way, and let it take the place of the one there is.
    Change(Arc<Definition>, Approach),
    /// Say when there is a session, and do not wait for the next try.
    Nudge(Settled),
    /// Close the session and open another.
    Restart(Settled),
    /// Close the session and end.
    Retire(oneshot::Sender<()>),
}

impl Actor {
    /// Begins to connect a server.
    pub(super) fn start(
        definition: Arc<Definition>,
        approach: Approach,
        origin: watch::Receiver<Arc<Origin>>,
        shared: Arc<Shared>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let link = shared.registry.link(definition.name.clone(), limits(&definition));
        let task = Task::new(definition, approach, origin, Arc::clone(&link), Arc::clone(&shared), receiver);
        shared.tracker.spawn(task.run());
        Self { commands, link, shared }
    }

    /// Takes over a definition that differs only in what does not touch the connection.
    pub(super) fn update(&self, definition: Arc<Definition>) {
        self.send(Command::Update(definition));
    }

    /// Connects the server another way. Calls that are under way end where they are; new ones go to the new session from
    /// when it is open.
    pub(super) fn change(&self, definition: Arc<Definition>, approach: Approach) {
        self.send(Command::Change(definition, approach));
    }

    /// Tells `settled` when there is a session; where a try has failed, the next one begins at once.
    pub(super) fn nudge(&self, settled: Settled) {
        self.send(Command::Nudge(settled));
    }

    /// Closes the session, when the calls in flight have ended, and opens another. New calls wait for it.
    pub(super) fn restart(&self, settled: Settled) {
        self.send(Command::Restart(settled));
    }

    fn send(&self, command: Command) {
        // A task that has ended was retired.
        let _ = self.commands.send(command);
    }

    /// Takes the tools out of the catalogue: what takes their place is in no catalogue with them. The future sees to that, lets
    /// calls in flight end, closes the session, and is done when nothing is left.
    pub(super) fn retire(self) -> impl Future<Output = ()> + Send + 'static {
        // What is on its way must not enter anything any more: the server is somebody else's, or nobody's.
        self.link.retire();
        // Entered now, and not when the future is polled: a successor comes after it.
        drop(self.shared.registry.withdraw(&self.link));
        let (done, wait) = oneshot::channel();
        self.send(Command::Retire(done));
        async move {
            self.shared.registry.withdraw(&self.link).await;
            // An error means that the task has ended, which is as good.
            let _ = wait.await;
        }
    }
}

fn limits(definition: &Definition) -> Limits {
    Limits { timeout: definition.timeout, call_timeout: definition.call_timeout }
}
