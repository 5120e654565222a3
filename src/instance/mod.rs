//! Wires the parts together: start order, stop order, the library's front door.
//!
//! Start: the listen address, the runtime directory, the port leases, the bridge, the definitions, the gateway with all
//! their routes in its first file, and last the aggregate: whoever can connect finds a generation in force.
//!
//! Stop: no new calls, those in flight get their time, clients' sessions end, servers' sessions end and with them the
//! children, then the bridge, the gateway, and the runtime directory. Each step waits for the one before it, so that
//! nothing loses what it still needs.
//!
//! A dropped [`Instance`] ends too, at once and without order.

mod gateway_child;
mod http;
mod runtime_dir;
mod token;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::binary_resolver::{InvalidVersion, Progress, Releases, Request, ResolveError, Resolver};
use crate::bridge::{Bridge, BridgeSettings};
use crate::config::{Exposure, GatewayMode, ManagementTools, Origin, Settings, dirs};
use crate::environment::Environment;
use crate::error::chain;
use crate::mcpserver::Reader;
use crate::ports::{Holder, Port, PortRequest, PortSet, PortSetError, describe_holder, ipv6_available};
use crate::reconciler::{Reconciler, ReconcilerOptions, Retry, Statuses, Surroundings};
use crate::subprocess::{
    Failure, Helper, LogFileSettings, OutputSettings, State, StopRecipe, Supervisor, SupervisorSettings,
};
use crate::wire::server::{HostPolicy, ServerConfig, StreamableHttp, serve_connections};
use crate::yaml_applier::{
    self, Applier, ApplierOptions, ApplyError, BridgeDial, GatewayKey, GatewayPorts, GatewaySettings,
};
use gateway_child::{GatewayService, Program, ValidateOnly, gateway_environment};
use runtime_dir::RuntimeDir;
use token::Token;

pub use runtime_dir::RuntimeDirError;
pub use token::TokenError;

/// How long a stdio server has to end after its stdin was closed, and again after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

/// How long the gateway has to end after SIGTERM; it has nothing to finish by then.
const GATEWAY_GRACE: Duration = Duration::from_secs(3);

/// How long a reload may take: after this the file is written once more, and after this again the child is replaced.
const RELOAD_DEADLINE: Duration = Duration::from_secs(3);

/// What an instance is started with.
pub struct InstanceOptions {
    /// The settings.
    pub settings: Settings,
    /// The directory that definitions are in, below `mcpservers`.
    pub config_dir: PathBuf,
    /// Our environment, for definitions and children.
    pub environment: Environment,
    /// The program that guards children and runs the embedded gateway.
    pub helper: PathBuf,
    /// The soft limit on open files that stdio servers run with; ours when `None`.
    pub open_files: Option<u64>,
    /// Whether listen port and runtime directory are random, and everything is removed at the end.
    pub ephemeral: bool,
    /// Whether nothing may be downloaded.
    pub offline: bool,
    /// Who is told while agentgateway is fetched.
    pub progress: Arc<dyn Progress>,
}

/// What an instance says of itself: the shape of the line that `serve --output json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceInfo {
    /// The version of this shape.
    pub schema: u32,
    /// The MCP endpoint.
    pub url: String,
    /// Our process.
    pub pid: u32,
    /// Where sockets and files are.
    pub runtime_dir: PathBuf,
    /// The file with the token that clients must send.
    pub token_file: Option<PathBuf>,
    /// The gateway, as it was at start.
    pub gateway: GatewayInfo,
    /// Why it is this gateway.
    #[serde(skip)]
    pub gateway_reason: String,
}

/// The gateway of an [`InstanceInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayInfo {
    /// `agentgateway` or `embedded`.
    pub mode: &'static str,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its ports.
    pub ports: PortsInfo,
}

/// The ports of a [`GatewayInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortsInfo {
    /// Calls to servers.
    pub data: u16,
    /// Administration.
    pub admin: u16,
    /// Metrics.
    pub stats: u16,
    /// Readiness.
    pub readiness: u16,
}

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    info: InstanceInfo,
    definitions_dir: PathBuf,
    drain: Duration,
    aggregate: Arc<StreamableHttp<Aggregate>>,
    reconciler: Reconciler,
    bridge: Arc<Bridge>,
    supervisor: Supervisor,
    runtime_dir: RuntimeDir,
    _ports: PortSet,
    tracker: TaskTracker,
    /// No new calls.
    stopping: CancellationToken,
    /// Ends the tasks, also when the instance is dropped.
    stop: DropGuard,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Calls that were cut because they took longer than the drain time.
    pub calls_cut: usize,
}

impl Instance {
    /// Starts an instance; returns when the endpoint listens and a generation is in force.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then. A definition that is wrong, or a server that does not start, is none: see
    /// [`statuses`](Self::statuses).
    pub async fn start(options: InstanceOptions) -> Result<Self, StartError> {
        let InstanceOptions {
            settings,
            config_dir,
            environment,
            helper,
            open_files,
            ephemeral,
            offline,
            progress,
        } = options;
        refuse_unsupported(&settings)?;
        let token = settings.aggregator.token_file.value.as_deref().map(Token::read).transpose()?;
        let listener = listen(settings.listen.value).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: settings.listen.value,
            holder: None,
            source,
        })?;
        let runtime_dir = match ephemeral {
            true => RuntimeDir::ephemeral(
                &environment.get_os("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from),
            )?,
            false => RuntimeDir::take(&settings.runtime_dir.value)?,
        };
        let reader = reader(&config_dir, &environment, &helper)?;
        let (program, gateway_reason) =
            program(&settings, &environment, &helper, offline, &*progress).await?;
        let definitions_dir = reader.definitions_dir();
        let ports = PortSet::lease(&port_request(&settings))?;
        let helper = Helper::Program(helper);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let stop_guard = stop.clone().drop_guard();

        let env = gateway_environment(&environment);
        let version = match &program {
            Program::Agentgateway(verified) => verified.version().to_string(),
            Program::Embedded(_) => env!("CARGO_PKG_VERSION").to_owned(),
        };
        let key = GatewayKey::random().map_err(|error| StartError::Internal(chain(&error)))?;
        let applier = Applier::start(
            ApplierOptions {
                file: runtime_dir.gateway_file(),
                settings: Arc::new(gateway_settings(&settings, &ports)?),
                key: key.clone(),
                validator: match &program {
                    Program::Agentgateway(verified) => Some(Arc::new(ValidateOnly {
                        binary: verified.path().to_owned(),
                        helper: helper.clone(),
                        candidate: runtime_dir.candidate_file(),
                        env: env.clone(),
                        tracker: tracker.clone(),
                    })),
                    Program::Embedded(_) => None,
                },
                reload_deadline: RELOAD_DEADLINE,
            },
            &tracker,
            stop.clone(),
        );

        let socket = runtime_dir.bridge_socket();
        let bridge_settings = BridgeSettings {
            helper: helper.clone(),
            logs: Some(runtime_dir.logs()),
            grace: CHILD_GRACE,
            open_files,
        };
        let bridge = Bridge::start(&socket, bridge_settings)
            .map_err(|source| StartError::Socket { path: socket.clone(), source })?;
        let bridge = Arc::new(bridge);
        let registry = Registry::new(settings.aggregator.prefix.value.as_str());
        let surroundings = Surroundings {
            bridge: BridgeDial::Unix(text(&socket)?),
            environment: environment.clone(),
            agentgateway: matches!(program, Program::Agentgateway(_)),
        };
        let options = ReconcilerOptions {
            directory: reader.definitions_dir(),
            reader,
            gateway: format!("http://127.0.0.1:{}", ports.data.port()),
            key,
            surroundings,
            retry: Retry::default(),
            drain: settings.drain.value,
        };
        let reconciler =
            Reconciler::start(options, applier.clone(), Arc::clone(&bridge), Arc::clone(&registry));
        reconciler.wished().await;

        let mode = if matches!(program, Program::Agentgateway(_)) { "agentgateway" } else { "embedded" };
        let service = GatewayService {
            program,
            applier: applier.clone(),
            file: runtime_dir.gateway_file(),
            env,
            readiness_port: ports.readiness.port().get(),
        };
        let output = OutputSettings {
            file: Some(LogFileSettings::new(runtime_dir.logs())),
            ..OutputSettings::default()
        };
        let supervisor_settings = SupervisorSettings {
            stop: StopRecipe::terminate(GATEWAY_GRACE),
            output,
            ..SupervisorSettings::new("gateway", helper)
        };
        let supervisor = Supervisor::new(service, supervisor_settings, &tracker);
        supervisor.start().await;
        let pid = match first_outcome(&supervisor).await {
            Ok(pid) => pid,
            Err(error) => {
                supervisor.kill().await;
                reconciler.shutdown().await;
                bridge.shutdown().await;
                return Err(error);
            }
        };
        tracker.spawn(replace_when_stuck(applier.status(), supervisor.clone(), stop.clone()));

        let hosts = HostPolicy::loopback()
            .and(&settings.aggregator.allowed_hosts.value, &settings.aggregator.allowed_origins.value);
        let server_config = ServerConfig {
            max_body: usize::try_from(settings.aggregator.max_body.value.0).unwrap_or(usize::MAX),
            max_sessions: settings.aggregator.max_sessions.value.get(),
            session_idle: settings.aggregator.session_idle.value,
            hosts: hosts.clone(),
            ..ServerConfig::default()
        };
        let stopping = CancellationToken::new();
        let aggregate = Aggregate::new(registry, stopping.clone());
        let aggregate = StreamableHttp::new(aggregate, server_config, tracker.clone(), stop.clone());
        let surface = Arc::new(http::Surface {
            aggregate: Arc::clone(&aggregate),
            hosts,
            token,
            statuses: reconciler.statuses(),
            gateway: applier.status(),
        });
        let announcing = Arc::clone(&aggregate);
        let announce_stop = stop.clone();
        tracker.spawn(async move { announcing.endpoint().announce_changes(announce_stop).await });
        let handler = move |request| Arc::clone(&surface).handle(request);
        tracker.spawn(serve_connections(listener, handler, stop.clone(), tracker.clone()));

        let info = InstanceInfo {
            schema: 1,
            url: format!("http://{address}{}", http::AGGREGATE_PATH),
            pid: std::process::id(),
            runtime_dir: runtime_dir.path().to_owned(),
            token_file: settings.aggregator.token_file.value.clone(),
            gateway_reason,
            gateway: GatewayInfo {
                mode,
                version,
                pid,
                ports: PortsInfo {
                    data: ports.data.port().get(),
                    admin: ports.admin.port().get(),
                    stats: ports.stats.port().get(),
                    readiness: ports.readiness.port().get(),
                },
            },
        };
        if let Err(error) = runtime_dir.write_instance(&instance_json(&info)) {
            warn!(%error, "instance.json cannot be written, so commands will not find this instance");
        }
        Ok(Self {
            info,
            definitions_dir,
            drain: settings.drain.value,
            aggregate,
            reconciler,
            bridge,
            supervisor,
            runtime_dir,
            _ports: ports,
            tracker,
            stopping,
            stop: stop_guard,
        })
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

    /// Where definitions are read from.
    pub fn definitions_dir(&self) -> &Path {
        &self.definitions_dir
    }

    /// Looks at the definitions again, also without an event.
    pub fn rescan(&self) {
        self.reconciler.rescan();
    }

    /// Waits until every server that starts by itself has succeeded or failed once.
    pub async fn settled(&self) {
        self.reconciler.settled().await;
    }

    /// Ends everything in order; returns when nothing is left.
    pub async fn shutdown(self) -> ShutdownReport {
        self.stopping.cancel();
        let endpoint = self.aggregate.endpoint();
        let calls = endpoint.calls_in_flight();
        if calls > 0 {
            let seconds = self.drain.as_secs_f32();
            info!(calls, "waiting up to {seconds:.1} s for calls in flight");
        }
        let calls_cut = match tokio::time::timeout(self.drain, endpoint.idle()).await {
            Ok(()) => 0,
            Err(_) => endpoint.calls_in_flight(),
        };
        self.aggregate.close_sessions().await;
        debug!("clients' sessions are closed");
        self.reconciler.shutdown().await;
        debug!("servers' sessions are closed");
        self.bridge.shutdown().await;
        debug!("stdio servers have ended");
        self.supervisor.stop().await;
        debug!("the gateway has ended");
        drop(self.stop);
        drop(self.supervisor);
        self.tracker.close();
        self.tracker.wait().await;
        if let Err(error) = self.runtime_dir.clear() {
            warn!(%error, "the runtime directory could not be cleared");
        }
        ShutdownReport { calls_cut }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| {
        let taken = source.kind() == io::ErrorKind::AddrInUse;
        let holder = taken.then(|| describe_holder(address)).flatten();
        StartError::Listen { address, holder, source }
    })
}

/// Which gateway is to run, and why.
async fn program(
    settings: &Settings,
    environment: &Environment,
    helper: &Path,
    offline: bool,
    progress: &dyn Progress,
) -> Result<(Program, String), StartError> {
    let embedded = |why: &str| Ok((Program::Embedded(helper.to_owned()), why.to_owned()));
    let mode = settings.gateway_mode();
    if mode == GatewayMode::Embedded {
        return embedded("as it was asked for");
    }
    let releases = match &settings.gateway.mirror.value {
        Some(mirror) => Releases::from_mirror(mirror.as_str())?,
        None => Releases::official()?,
    };
    let version = settings.gateway.version.value.as_str();
    let version = version.parse().map_err(|error: InvalidVersion| StartError::Internal(error.to_string()))?;
    let cache = dirs::cache_dir(environment).map_err(|error| StartError::Internal(chain(&error)))?;
    let resolver = Resolver::new(releases, cache);
    let binary = settings.gateway.binary.value.clone();
    let given = binary.is_some();
    let verified = if given || mode == GatewayMode::Agentgateway {
        resolver.resolve(&Request { binary, version, offline }, progress).await?
    } else {
        match resolver.cached(version, progress).await {
            Ok(Some(verified)) => verified,
            Ok(None) => return embedded("until agentgateway is fetched: `sidegate gateway fetch`"),
            // No release for this platform, say: what runs everywhere is what `auto` means then.
            Err(error) => return embedded(&format!("as agentgateway cannot be used: {}", chain(&error))),
        }
    };
    if let Some(warning) = verified.warning() {
        warn!("{warning}");
    }
    let why = if given { "as its binary was given" } else { "from the cache" };
    Ok((Program::Agentgateway(verified), why.to_owned()))
}

/// Settings that say what this version cannot do are refused, not passed over.
fn refuse_unsupported(settings: &Settings) -> Result<(), StartError> {
    let aggregator = &settings.aggregator;
    for (set, what) in [
        (settings.gateway_mode() == GatewayMode::External, "a gateway that runs elsewhere (upstreamUrl)"),
        (aggregator.exposure.value != Exposure::Direct, "aggregator.exposure: meta"),
        (settings.telemetry.endpoint.value.is_some(), "telemetry.endpoint"),
        (
            aggregator.management_tools.origin != Origin::Default
                && aggregator.management_tools.value != ManagementTools::Off,
            "aggregator.managementTools other than off",
        ),
    ] {
        if set {
            return Err(StartError::Unsupported(what));
        }
    }
    Ok(())
}

/// A reader of definitions whose directory is there, so that it can be watched.
fn reader(config_dir: &Path, environment: &Environment, helper: &Path) -> Result<Reader, StartError> {
    let failed = |source| StartError::ConfigDir { path: config_dir.to_owned(), source };
    let reader = definition_reader(config_dir, environment, helper).map_err(failed)?;
    std::fs::create_dir_all(reader.definitions_dir()).map_err(failed)?;
    Ok(reader)
}

/// A reader of the definitions of `config_dir`, in which `${SIDEGATE_EXE}` stands for the binary `helper`.
///
/// # Errors
///
/// `config_dir` is relative, and there is no current directory.
pub fn definition_reader(config_dir: &Path, environment: &Environment, helper: &Path) -> io::Result<Reader> {
    let variables = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let exe = (EXE_VARIABLE.into(), helper.as_os_str().to_owned());
    Reader::new(config_dir, variables.chain([exe]).collect())
}

/// The variable that stands for our own binary in definitions.
pub const EXE_VARIABLE: &str = "SIDEGATE_EXE";

fn port_request(settings: &Settings) -> PortRequest {
    let ports = &settings.gateway.ports;
    let port = |number: Option<std::num::NonZeroU16>| number.and_then(|number| Port::new(number.get()));
    PortRequest {
        data: port(ports.data.value),
        admin: port(ports.admin.value),
        stats: port(ports.stats.value),
        readiness: port(ports.readiness.value),
    }
}

fn gateway_settings(settings: &Settings, ports: &PortSet) -> Result<GatewaySettings, StartError> {
    let port = |lease: &crate::ports::Lease| {
        let number = std::num::NonZeroU16::new(lease.port().get());
        number.ok_or_else(|| StartError::Internal("a lease of port 0".to_owned()))
    };
    let level = settings.gateway.log_level.value.as_str();
    Ok(GatewaySettings {
        ports: GatewayPorts {
            data: port(&ports.data)?,
            admin: port(&ports.admin)?,
            stats: port(&ports.stats)?,
            readiness: port(&ports.readiness)?,
        },
        ipv6: ipv6_available(),
        log_level: level
            .parse()
            .map_err(|error: yaml_applier::InvalidLogLevel| StartError::Internal(chain(&error)))?,
        spans: None,
        frontend_policies: settings.gateway.frontend_policies.value.clone(),
    })
}

fn text(path: &Path) -> Result<String, StartError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| StartError::Internal(format!("the path {} is not UTF-8", path.display())))
}

/// Waits for the first start of the gateway to succeed or fail: what fails at start is told, not tried again.
async fn first_outcome(supervisor: &Supervisor) -> Result<u32, StartError> {
    let mut states = supervisor.watch();
    let settled =
        |state: &State| !matches!(state, State::Idle | State::Starting { .. } | State::Draining { .. });
    match states.wait_for(settled).await.as_deref() {
        Ok(State::Ready(running)) => Ok(running.pid),
        Ok(State::Backoff { failure, .. } | State::Failed(failure)) => {
            Err(StartError::Gateway(Arc::clone(failure)))
        }
        Ok(_) | Err(_) => Err(StartError::Internal("the gateway's supervisor has ended".to_owned())),
    }
}

/// Replaces a gateway that does not take a configuration over.
async fn replace_when_stuck(
    mut status: watch::Receiver<yaml_applier::Status>,
    supervisor: Supervisor,
    stop: CancellationToken,
) {
    let watching = async {
        while status.changed().await.is_ok() {
            let stuck = match &status.borrow_and_update().failure {
                Some((_, error @ ApplyError::NotInForce { .. })) => Some(chain(error)),
                _ => None,
            };
            if let Some(reason) = stuck
                && matches!(supervisor.state(), State::Ready(_))
            {
                supervisor.restart(reason).await;
            }
        }
    };
    // Ends with the instance.
    let _ = stop.run_until_cancelled(watching).await;
}

fn instance_json(info: &InstanceInfo) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut json = serde_json::to_value(info).unwrap_or_default();
    if let Some(object) = json.as_object_mut() {
        object.insert("startedAt".to_owned(), started.into());
    }
    format!("{json}\n")
}

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listen address is not to be had.
    #[error("cannot listen on {address}{}", holder.as_ref().map(|holder| format!(": it is taken by {holder}")).unwrap_or_default())]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Who has it.
        holder: Option<Holder>,
        /// Why.
        source: io::Error,
    },
    /// The configuration directory cannot be used.
    #[error("the configuration directory {} cannot be used", .path.display())]
    ConfigDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime directory cannot be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// The gateway's ports are not to be had.
    #[error(transparent)]
    Ports(#[from] PortSetError),
    /// The bridge's socket cannot be bound.
    #[error("the socket {} cannot be bound", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no agentgateway to run.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The token that clients must send is not to be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The gateway did not start.
    #[error("the gateway {}", .0.report())]
    Gateway(Arc<Failure>),
    /// What this version does not have.
    #[error("{0} is not supported by this version of sidegate")]
    Unsupported(&'static str),
    /// What should not happen.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// Whether the gateway is what is missing.
    pub fn is_gateway(&self) -> bool {
        matches!(self, Self::Resolve(_) | Self::Gateway(_) | Self::Ports(_))
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { holder: Some(_), .. } => {
                Some("stop that process, or choose another address with --listen; port 0 takes any free one")
            }
            Self::Listen { .. } => Some("choose another address with --listen; port 0 takes any free one"),
            Self::RuntimeDir(error) => Some(error.hint()),
            Self::Ports(error) => Some(error.hint()),
            Self::Resolve(error) => error.hint(),
            Self::Token(_) => Some("write a token of at least 16 characters into it, readable by you only"),
            Self::ConfigDir { .. } => Some("give another directory with --config-dir"),
            _ => None,
        }
    }
}
