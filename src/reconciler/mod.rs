//! Watches the definitions and drives each server from what is desired to what is.
//!
//! Level-triggered: an event only means "look again". Each look reads the whole directory, compares it with what runs,
//! and does what is missing: closes the sessions of servers that have gone, wishes for the routes that are needed, and,
//! once a generation with them is in force, tells the actors of new and changed servers. Servers that have not changed are
//! not touched.
//!
//! | part | owns |
//! | --- | --- |
//! | `detector` | noticing that something has happened |
//! | `look` | what is desired, compared with what is |
//! | `held` | which routes are in use |
//! | [`Front`] | the gateway that takes the calls now, and its replacement |
//! | `route` | from a definition to what is needed to dial it |
//! | `actor` | one server: its session, its retries, its tools |
//! | `advice` | what somebody can do about a server that cannot be reached |
//! | [`Retry`] | how tries slow down |
//! | [`Operator`] | what an operator can ask for: start, stop, restart |
//! | [`state`](ServerState) | where a server stands |
//! | [`status`](ServerStatus) | what users see |
//! | `told` | what clients are told of a server that cannot be called |
//!
//! Invariants: a directory that cannot be read changes nothing; a file that has become wrong does not stop the server
//! that runs; a server is dialled only through a route that is in force; the route of a session stays until the session
//! is closed; a session that works is closed only when its successor works or is known not to, unless the operator says so.
//!
//! Knows nothing of the wire format.

mod actor;
mod advice;
mod detector;
mod front;
mod held;
mod look;
mod operator;
mod retry;
mod route;
mod state;
mod status;
mod told;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::aggregator::registry::Registry;
use crate::bridge::Bridge;
use crate::mcpserver::{Definitions, Reader, SecretNames};
use crate::telemetry::Cause;
use crate::telemetry::secrets::Secrets;
use crate::wire::client::Pool;
use actor::Shared;
use look::{Look, Order, Progress};
use status::Board;

pub use front::{Front, FrontGateway, Routes, Routing};
pub use operator::{Done, OperateError, Operator};
pub use retry::Retry;
pub use route::Surroundings;
pub use state::ServerState;
pub use status::{LastError, STATES, ServerStatus, Statuses};

/// What a reconciler works with.
pub struct ReconcilerOptions {
    /// Reads definitions.
    pub reader: Reader,
    /// Where their files are.
    pub directory: PathBuf,
    /// What ways lead through.
    pub surroundings: Surroundings,
    /// Connections to the gateway.
    pub pool: Pool,
    /// How tries slow down.
    pub retry: Retry,
    /// How long calls in flight have to end when their session is closed.
    pub drain: Duration,
    /// What no state of a server says, and what the definitions add to it.
    pub secrets: Secrets,
    /// Names whose values are secret.
    pub secret_names: SecretNames,
    /// The start, of which connecting the first servers is a part.
    pub cause: Cause,
}

/// What is wrong with the definitions and belongs to no server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Why the directory cannot be read; everything stays as it was meanwhile.
    pub directory: Option<String>,
    /// Files whose name is no server's, each with all that is wrong.
    pub files: Vec<String>,
}

/// A running reconciler.
#[derive(Debug)]
pub struct Reconciler {
    statuses: watch::Receiver<Statuses>,
    problems: watch::Receiver<Problems>,
    progress: watch::Receiver<Progress>,
    orders: mpsc::UnboundedSender<Order>,
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Nobody looks after the servers of a reconciler that is dropped.
    _stop_on_drop: DropGuard,
}

impl Reconciler {
    /// Begins to look after the servers of a directory. Its tasks end with [`shutdown`](Self::shutdown).
    pub fn start(
        options: ReconcilerOptions,
        front: Arc<Front>,
        bridge: Arc<Bridge>,
        registry: Arc<Registry>,
    ) -> Self {
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let board = Board::new(options.secrets.clone(), registry.standings());
        let shared = Arc::new(Shared {
            registry,
            bridge,
            board,
            pool: options.pool.clone(),
            tracker: tracker.clone(),
            retry: options.retry,
            drain: options.drain,
            secrets: options.secrets.clone(),
        });
        let statuses = shared.board.subscribe();
        let (progress_sender, progress) = watch::channel(Progress::Begun);
        let (orders, receiver) = mpsc::unbounded_channel();
        let (problems_sender, problems) = watch::channel(Problems::default());
        let look = Look::new(options, front, shared, progress_sender, problems_sender);
        tracker.spawn(look.run(receiver, stop.clone()));
        let _stop_on_drop = stop.clone().drop_guard();
        Self { statuses, problems, progress, orders, stop, tracker, _stop_on_drop }
    }

    /// All servers, as they change.
    pub fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.clone()
    }

    /// What is wrong and belongs to no server, as it changes.
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    /// What starts, stops and restarts servers of these `definitions`, which are those that the reconciler reads.
    pub fn operator(&self, definitions: Definitions) -> Operator {
        Operator::new(definitions, self.statuses.clone(), self.orders.clone())
    }

    /// Looks at the definitions again, also without an event.
    pub fn rescan(&self) {
        // Nothing changes any more in a reconciler that has ended.
        let _ = self.orders.send(Order::Look(oneshot::channel().0));
    }

    /// Waits until the definitions were read for the first time and their routes are wished for, so that a gateway that
    /// is started now gets them all at once.
    pub async fn wished(&self) {
        // As in `settled`.
        let _ = self.progress.clone().wait_for(|progress| *progress >= Progress::Wished).await;
    }

    /// Waits until the definitions were read, a generation with them is in force, and every server that starts by
    /// itself has succeeded or failed once.
    pub async fn settled(&self) {
        let mut statuses = self.statuses.clone();
        // An error means that the reconciler has ended: nothing will change any more.
        if self.progress.clone().wait_for(|progress| *progress == Progress::Done).await.is_ok() {
            let all_settled = |all: &Statuses| all.values().all(|status| status.state.is_settled());
            let _ = statuses.wait_for(all_settled).await;
        }
    }

    /// Closes every session, in order, and ends all tasks.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
