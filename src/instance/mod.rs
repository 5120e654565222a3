//! Wires the parts together: start order, stop order, the library's front door.
//!
//! | part | owns |
//! | --- | --- |
//! | `start`, `shutdown` | the order in which the parts begin and end |
//! | `builder`, `server` | the front door of the library |
//! | `definitions` | where definitions come from |
//! | `choice`, `background_fetch` | which gateway is run, at first and when a better one was fetched |
//! | `gateways` | the gateway that takes the calls, and what takes its place |
//! | `span_export` | where agentgateway exports spans of its own |
//! | `gateway_child` | one gateway, as a child or as a task |
//! | `helper` | the program that guards children |
//! | `reload` | taking over settings while the instance runs |
//! | `http` | what is served at the listen address, and to whom |
//! | `operations`, `status` | what the control socket can ask for |
//! | `client` | the instance's own calls |
//! | `metrics` | what is measured when somebody asks |
//! | `runtime_dir`, `logs`, `info` | the runtime directory, and what is in it |
//! | `token` | the token of clients |
//!
//! A dropped [`Instance`] ends too, at once and without order.

mod background_fetch;
mod builder;
mod choice;
mod client;
mod definitions;
mod error;
mod gateway_child;
mod gateways;
mod helper;
mod http;
mod info;
mod logs;
mod metrics;
mod nesting;
mod operations;
mod reload;
mod runtime_dir;
mod server;
mod shutdown;
mod span_export;
mod start;
mod status;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};

use crate::aggregator::endpoint::Aggregate;
use crate::binary_resolver::Progress;
use crate::bridge::Bridge;
use crate::config::Settings;
use crate::environment::Environment;
use crate::reconciler::{Reconciler, Statuses};
use crate::telemetry::LIFECYCLE;
use crate::telemetry::export::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::wire::server::StreamableHttp;
use client::Client;
use gateway_child::Program;
use gateways::Gateways;
use runtime_dir::RuntimeDir;

pub use builder::{InstanceBuilder, ReadyWhen};
pub use choice::Network;
pub use client::{CallError, CallResult, Tool, reachable};
pub use definitions::{DefinitionsFrom, EXE_VARIABLE, definition_reader};
pub use error::StartError;
pub use info::{GatewayInfo, InstanceInfo, PortsInfo};
pub use nesting::Nesting;
pub use runtime_dir::RuntimeDirError;
pub use server::Server;
pub use shutdown::ShutdownReport;
pub use token::{TokenError, check_token_file};

/// What an instance is started with.
pub struct InstanceOptions {
    /// The settings.
    pub settings: Settings,
    /// Where definitions come from.
    pub definitions: DefinitionsFrom,
    /// The `.mcp.json` of a project, whose servers come beside those definitions; see
    /// [`project_file`](crate::mcpserver::project_file).
    pub project: Option<PathBuf>,
    /// Our environment, for definitions and children.
    pub environment: Environment,
    /// The program that guards children and runs the embedded gateway; see [`InstanceBuilder::helper`] for what becomes
    /// of an instance without one.
    pub helper: Option<PathBuf>,
    /// A listening socket to serve on, in place of one at the settings' address.
    pub listener: Option<std::net::TcpListener>,
    /// The soft limit on open files that stdio servers run with; ours when `None`.
    pub open_files: Option<u64>,
    /// Whether listen port and runtime directory are random, and everything is removed at the end.
    pub ephemeral: bool,
    /// When agentgateway may be downloaded.
    pub network: Network,
    /// Who is told while agentgateway is fetched.
    pub progress: Arc<dyn Progress>,
}

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    info: InstanceInfo,
    settings: Settings,
    environment: Environment,
    helper: Option<PathBuf>,
    definitions_dir: PathBuf,
    client: Client,
    aggregate: Arc<StreamableHttp<Aggregate>>,
    reconciler: Reconciler,
    bridge: Arc<Bridge>,
    gateways: Arc<Gateways>,
    metrics: Arc<Metrics>,
    runtime_dir: RuntimeDir,
    tracker: TaskTracker,
    reloads: mpsc::Sender<Settings>,
    /// No more swaps.
    swapping: CancellationToken,
    /// No new calls.
    stopping: CancellationToken,
    /// Ends the tasks, also when the instance is dropped.
    stop: DropGuard,
    /// What is exported, where nobody else ends it.
    telemetry: Option<Telemetry>,
}

/// What takes a gateway's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewGateway {
    /// The same program.
    Same,
    /// The embedded gateway.
    Embedded,
    /// The agentgateway at this path.
    Binary(PathBuf),
}

impl Instance {
    /// Describes an instance of its own: for a test, or for a program that has one inside.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use serde_json::json;
    /// use sidegate::Instance;
    ///
    /// let instance = Instance::builder().start().await?;
    /// println!("any MCP client: {}", instance.url());
    ///
    /// let result = instance.call("core_mcpserver_list", json!({})).await?;
    /// assert!(!result.is_error());
    /// instance.shutdown().await;
    /// # Ok(()) })}
    /// ```
    pub fn builder() -> InstanceBuilder {
        InstanceBuilder::default()
    }

    /// Starts an instance; returns when the endpoint listens and a generation is in force.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then. A definition that is wrong, or a server that does not start, is none: see
    /// [`statuses`](Self::statuses).
    pub async fn start(options: InstanceOptions) -> Result<Self, StartError> {
        let telemetry = Telemetry::start(&options.settings.telemetry, &options.environment)?;
        telemetry.warn();
        let mut instance = Self::start_with(options, &telemetry).await?;
        instance.telemetry = Some(telemetry);
        Ok(instance)
    }

    /// As [`start`](Self::start), for who exports as well what is logged, and ends that: calls are told to `telemetry`,
    /// whatever the settings say.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(options: InstanceOptions, telemetry: &Telemetry) -> Result<Self, StartError> {
        let starting = start::begin(options, telemetry);
        starting.instrument(info_span!(target: LIFECYCLE, "sidegate.start")).await
    }

    /// What it is.
    pub fn info(&self) -> &InstanceInfo {
        &self.info
    }

    /// The MCP endpoint.
    pub fn url(&self) -> &str {
        &self.info.url
    }

    /// All servers, as they change.
    pub fn statuses(&self) -> watch::Receiver<Statuses> {
        self.reconciler.statuses()
    }

    /// All tools, as clients see them.
    ///
    /// # Errors
    ///
    /// [`CallError`]
    pub async fn tools(&self) -> Result<Vec<Tool>, CallError> {
        self.client.tools().await
    }

    /// Calls a tool by its exposed name, as a client that takes no part in sampling, elicitation and the like. All
    /// calls of an instance are of one session.
    ///
    /// # Errors
    ///
    /// [`CallError`]. That the tool itself fails is none: [`CallResult::is_error`].
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<CallResult, CallError> {
        self.client.call(tool, &arguments).await
    }

    /// The last lines that a stdio server has written to stderr, or `gateway` has: up to 10 MiB. Empty where it has written
    /// nothing. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// The files cannot be read.
    pub fn logs(&self, name: &str) -> io::Result<Vec<String>> {
        logs::read(&self.runtime_dir.logs(), name)
    }

    /// The helper that guards its children; `None` where it has none, with all that
    /// [that means](InstanceBuilder::helper).
    pub fn helper(&self) -> Option<&Path> {
        self.helper.as_deref()
    }

    /// Where definitions are read from.
    pub fn definitions_dir(&self) -> &Path {
        &self.definitions_dir
    }

    /// The gateway that takes the calls, as it changes.
    pub fn gateway(&self) -> watch::Receiver<GatewayInfo> {
        self.gateways.info()
    }

    /// Replaces the gateway by a new process, without a gap: no call fails, no session notices.
    ///
    /// # Errors
    ///
    /// The new one does not get as far as taking the calls. The old one goes on.
    pub async fn replace_gateway(&self, by: NewGateway, reason: &str) -> Result<GatewayInfo, StartError> {
        let program = match by {
            NewGateway::Same => None,
            NewGateway::Embedded => Some(Program::Embedded(self.helper.clone())),
            NewGateway::Binary(binary) => {
                Some(choice::given(&self.settings, &self.environment, &binary).await?)
            }
        };
        self.gateways.swap(program, reason).await
    }

    /// Looks at the definitions again, also without an event.
    pub fn rescan(&self) {
        self.reconciler.rescan();
    }

    /// Takes over settings that can change while the instance runs: those of the gateway, which is swapped where they
    /// have changed. Returns at once; what comes of it is in the log and in [`gateway`](Self::gateway).
    pub fn reload(&self, settings: Settings) {
        if self.reloads.try_send(settings).is_err() {
            warn!("settings are being taken over already; try again later");
        }
    }

    /// Waits until every server that starts by itself has succeeded or failed once.
    pub async fn settled(&self) {
        self.reconciler.settled().await;
    }
}
