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

mod builder;
mod choice;
mod client;
mod error;
mod gateway_child;
mod gateways;
mod helper;
mod http;
mod info;
mod logs;
mod metrics;
mod operations;
mod reload;
mod runtime_dir;
mod server;
mod status;
mod token;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, info, info_span, warn};
use url::Url;

use crate::admin::control::{ControlListener, SOCKET};
use crate::admin::page::{Page, PageOptions, Reloads, TokenCheck};
use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::aggregator::scope::ALL_PATH;
use crate::binary_resolver::{Progress, Resolver, Version};
use crate::bridge::{Bridge, BridgeSettings};
use crate::config::{Settings, dirs};
use crate::environment::Environment;
use crate::error::chain;
use crate::management::Management;
use crate::mcpserver::{Definitions, Reader, SecretNames, ServerName};
use crate::outbound::Proxies;
use crate::ports::describe_holder;
use crate::reconciler::{Reconciler, ReconcilerOptions, Retry, Statuses, Surroundings};
use crate::subprocess::Helper;
use crate::telemetry::LIFECYCLE;
use crate::telemetry::call_lines::CallLines;
use crate::telemetry::calls::{CallLog, CallLogOptions, CallObserver};
use crate::telemetry::export::{FLUSH, Telemetry};
use crate::telemetry::metrics::Metrics;
use crate::tls;
use crate::wire::client::Pool;
use crate::wire::server::{HostPolicy, ServerConfig, StreamableHttp, serve_connections};
use crate::yaml_applier::{self, BridgeDial};
use client::Client;
use gateway_child::{Program, gateway_environment};
use gateways::{GatewayContext, Gateways, Variable};
use operations::Operations;
use reload::Reloading;
use runtime_dir::RuntimeDir;
use status::Identity;
use token::Token;

pub use builder::{InstanceBuilder, ReadyWhen};
pub use choice::Network;
pub use client::{CallError, CallResult, Tool, reachable};
pub use error::StartError;
pub use info::{GatewayInfo, InstanceInfo, PortsInfo};
pub use runtime_dir::RuntimeDirError;
pub use server::Server;
pub use token::{TokenError, check_token_file};

/// How long a stdio server has to end after its stdin was closed, and again after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

/// How long the last export of metrics may take.
const LAST_METRICS: Duration = Duration::from_secs(3);

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

/// Where the definitions of an instance come from.
#[derive(Clone, Debug)]
pub enum DefinitionsFrom {
    /// `mcpservers/` in this directory, as it changes.
    ConfigDir(PathBuf),
    /// A directory in the runtime directory, which begins with these. It goes away with the runtime directory, so it is for
    /// ephemeral instances.
    These(Vec<(ServerName, Value)>),
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

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Calls that were cut because they took longer than the drain time.
    pub calls_cut: usize,
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
        let starting = Self::begin(options, telemetry);
        starting.instrument(info_span!(target: LIFECYCLE, "sidegate.start")).await
    }

    async fn begin(options: InstanceOptions, telemetry: &Telemetry) -> Result<Self, StartError> {
        let InstanceOptions {
            settings,
            definitions,
            project,
            environment,
            helper,
            listener,
            open_files,
            ephemeral,
            network,
            progress,
        } = options;
        let started = (SystemTime::now(), Instant::now());
        let token = settings.aggregator.token_file.value.as_deref().map(Token::read_or_create).transpose()?;
        let token = token.map(Arc::new);
        let (listener, address) = listen(settings.listen.value, listener).await?;
        let runtime_dir = match ephemeral {
            true => {
                let parent = environment.get_os("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from);
                RuntimeDir::ephemeral(&parent)?
            }
            false => RuntimeDir::take(&settings.runtime_dir.value)?,
        };
        let (config_dir, definitions) = match definitions {
            DefinitionsFrom::ConfigDir(directory) => (directory, Vec::new()),
            DefinitionsFrom::These(definitions) => (runtime_dir.definitions(), definitions),
        };
        let mut reader = reader(&config_dir, &environment, helper.as_deref())?;
        if let Some(file) = project {
            let own = vec![address, settings.usual_listen];
            reader = reader.with_project(&file, environment.get_os("HOME").map(PathBuf::from), own);
        }
        let definitions_dir = reader.definitions_dir();
        let definitions = define(Definitions::new(reader.clone()), definitions).await?;
        let helper_path = helper;
        let helper = match helper_path.clone() {
            Some(helper) => Helper::Program(helper),
            None => {
                warn!(
                    "without the sidegate binary as a helper, the embedded gateway is a task of this process, and stdio servers are ended by their process group only"
                );
                Helper::None
            }
        };
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let stop_guard = stop.clone().drop_guard();

        let registry = Registry::new(settings.aggregator.prefix.value.as_str());
        let metrics = metrics::start(telemetry, &registry)?;

        let spans = gateways::span_export(&settings, telemetry);
        let (gateways, pool, fetch) = match &settings.upstream_url.value {
            Some(url) => {
                if !settings.gateway.frontend_policies.value.is_empty() {
                    warn!("gateway.frontendPolicies do not reach a gateway that runs elsewhere");
                }
                (Gateways::external(url)?, pool_to(url).await?, None)
            }
            None => {
                let choice =
                    choice::choose(&settings, &environment, helper_path.as_deref(), network, &*progress)
                        .instrument(info_span!(target: LIFECYCLE, "sidegate.gateway.resolve"))
                        .await?;
                let gateway_context = GatewayContext {
                    directory: runtime_dir.path().to_owned(),
                    logs: runtime_dir.logs(),
                    helper: helper.clone(),
                    env: gateway_environment(&environment),
                    variable: std::sync::Mutex::new(Variable::new(&settings.gateway, spans.clone())?),
                    drain: settings.drain.value,
                    reloads: metrics.reloads().clone(),
                    tracker: tracker.clone(),
                };
                let gateways = Gateways::prepare(gateway_context, choice.program, &choice.reason)?;
                (gateways, Pool::new(), choice.fetch)
            }
        };

        let mut observers = telemetry.observers();
        observers.push(Arc::clone(metrics.calls()) as Arc<dyn CallObserver>);
        observers.push(Arc::new(CallLines));
        let calls = CallLog::with(CallLogOptions {
            observers,
            sampler: telemetry.sampler(),
            propagation: telemetry.propagation(),
        });
        let proxies = Proxies::of(&environment);
        let socket = runtime_dir.bridge_socket();
        let bridge_settings = BridgeSettings {
            helper,
            proxies: proxies.clone(),
            logs: Some(runtime_dir.logs()),
            grace: CHILD_GRACE,
            open_files,
            children: Arc::clone(calls.children()),
        };
        let bridge = Bridge::start(&socket, bridge_settings)
            .map_err(|source| StartError::Socket { path: socket.clone(), source })?;
        let bridge = Arc::new(bridge);

        let reconciler_options = ReconcilerOptions {
            directory: definitions_dir.clone(),
            reader,
            surroundings: Surroundings {
                bridge: BridgeDial::Unix(text(&socket)?),
                environment: environment.clone(),
                proxies,
            },
            pool,
            retry: Retry::default(),
            drain: settings.drain.value,
        };
        let reconciler = Reconciler::start(
            reconciler_options,
            Arc::clone(gateways.front()),
            Arc::clone(&bridge),
            Arc::clone(&registry),
        );
        let operator = reconciler.operator(definitions.clone());
        let management = Management::new(
            settings.aggregator.management_tools.value,
            operator.clone(),
            definitions,
            reconciler.statuses(),
            SecretNames::new(&settings.redact.value),
        );
        registry.offer_local(Arc::new(management)).await;
        reconciler.wished().instrument(info_span!(target: LIFECYCLE, "sidegate.definitions.read")).await;
        let gateway_span = info_span!(target: LIFECYCLE, "sidegate.gateway.start");
        if let Err(error) = gateways.start().instrument(gateway_span).await {
            reconciler.shutdown().await;
            bridge.shutdown().await;
            gateways.stop().await;
            return Err(error);
        }
        // Ended before the gateways are: a swap that is under way holds them.
        let swapping = stop.child_token();
        tracker.spawn(swapping.clone().run_until_cancelled_owned(Arc::clone(&gateways).watch_ports()));
        // Ended as well when other settings are taken over: what it brings may not be wanted any more.
        let background_fetch = swapping.child_token();
        if let Some((resolver, version)) = fetch {
            let progress = Arc::clone(&progress);
            let fetching = fetch_and_swap(resolver, version, Arc::clone(&gateways), progress);
            tracker.spawn(background_fetch.clone().run_until_cancelled_owned(fetching));
        }

        // Whoever names our own address cannot have been led here by a name of somebody else.
        let own_host = Some(address.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        let hosts = HostPolicy::loopback()
            .and(own_host.as_slice(), &[])
            .and(&settings.aggregator.allowed_hosts.value, &settings.aggregator.allowed_origins.value);
        let server_config = ServerConfig {
            max_body: usize::try_from(settings.aggregator.max_body.value.0).unwrap_or(usize::MAX),
            max_sessions: settings.aggregator.max_sessions.value.get(),
            session_idle: settings.aggregator.session_idle.value,
            hosts: hosts.clone(),
            ..ServerConfig::default()
        };
        let stopping = CancellationToken::new();
        let aggregate = Aggregate::new(Arc::clone(&registry), stopping.clone())
            .exposing(settings.aggregator.exposure.value)
            .with_calls(Arc::clone(&calls))
            .with_call_ids(settings.telemetry.call_ids.value);
        let aggregate = StreamableHttp::new(aggregate, server_config, tracker.clone(), stop.clone());
        metrics.watch(Arc::new(metrics::Parts {
            aggregate: Arc::downgrade(&aggregate),
            registry: Arc::downgrade(&registry),
            bridge: Arc::downgrade(&bridge),
            gateways: Arc::downgrade(&gateways),
            statuses: reconciler.statuses(),
            telemetry: telemetry.clone(),
        }));
        let info = InstanceInfo {
            schema: 1,
            url: format!("http://{address}{}", ALL_PATH),
            pid: std::process::id(),
            runtime_dir: runtime_dir.path().to_owned(),
            token_file: settings.aggregator.token_file.value.clone(),
            gateway: gateways.info().borrow().clone(),
        };
        let operations = Arc::new(Operations {
            identity: Identity { info: info.clone(), config_dir, started },
            gateways: Arc::clone(&gateways),
            registry: Arc::clone(&registry),
            statuses: reconciler.statuses(),
            problems: reconciler.problems(),
            operator: operator.clone(),
            calls: Arc::clone(&calls),
        });
        let status = Arc::clone(&operations);
        let history = Arc::new(Reloads::default());
        let page = Page::new(PageOptions {
            port: address.port(),
            status: Box::new(move || status.status()),
            registry,
            aggregate: Arc::clone(&aggregate),
            operator,
            calls: Arc::clone(&calls),
            reloads: Arc::clone(&history),
            logs: runtime_dir.logs(),
            token: token.clone().map(|token| Box::new(move |text: &str| token.is(text)) as TokenCheck),
            tracker: tracker.clone(),
            stop: stop.clone(),
        })
        .map_err(|error| StartError::Internal(format!("the system gives no random bytes: {error}")))?;
        let surface = Arc::new(http::Surface {
            aggregate: Arc::clone(&aggregate),
            hosts,
            token,
            page,
            statuses: reconciler.statuses(),
            front: Arc::clone(gateways.front()),
            metrics: Arc::clone(&metrics),
        });
        let front = Arc::clone(gateways.front());
        let following = stop.clone().run_until_cancelled_owned(async move {
            let tell = |status: Option<&yaml_applier::Status>| {
                let in_force = status.and_then(|status| status.in_force.as_ref());
                calls.set_generation(in_force.map(|now| now.generation.to_string().into()));
                if let Some(status) = status {
                    history.see(status);
                }
            };
            front.follow(tell).await;
        });
        tracker.spawn(following);
        let announcing = Arc::clone(&aggregate);
        let announce_stop = stop.clone();
        tracker.spawn(async move { announcing.endpoint().announce_changes(announce_stop).await });
        let handler = move |request| Arc::clone(&surface).handle(request);
        tracker.spawn(serve_connections(listener, handler, stop.clone(), tracker.clone()));

        let control = ControlListener::bind(runtime_dir.path())
            .map_err(|source| StartError::Socket { path: runtime_dir.path().join(SOCKET), source })?;
        let client = Client::new(&info.url, info.token_file.as_deref(), tracker.clone());
        let handler = move |request| Arc::clone(&operations).handle(request);
        tracker.spawn(serve_connections(control, handler, stop.clone(), tracker.clone()));
        let (reloads, reload_requests) = mpsc::channel(1);
        let reloading = Reloading {
            gateways: Arc::clone(&gateways),
            environment: environment.clone(),
            helper: helper_path.clone(),
            network,
            progress,
            upstream_url: settings.upstream_url.value.clone(),
            settings: settings.gateway.clone(),
            spans,
            background_fetch,
        };
        tracker.spawn(swapping.clone().run_until_cancelled_owned(reloading.run(reload_requests)));
        if let Err(error) = runtime_dir.write_instance(&info.file()) {
            warn!(%error, "instance.json cannot be written, so commands will not find this instance");
        }
        Ok(Self {
            info,
            settings,
            environment,
            helper: helper_path,
            definitions_dir,
            client,
            aggregate,
            reconciler,
            bridge,
            gateways,
            metrics,
            runtime_dir,
            tracker,
            reloads,
            swapping,
            stopping,
            stop: stop_guard,
            telemetry: None,
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

    /// Ends everything in order; returns when nothing is left.
    pub async fn shutdown(self) -> ShutdownReport {
        self.stopping.cancel();
        self.swapping.cancel();
        self.client.close().await;
        let endpoint = self.aggregate.endpoint();
        let calls = endpoint.calls_in_flight();
        if calls > 0 {
            let seconds = self.settings.drain.value.as_secs_f32();
            info!(calls, "waiting up to {seconds:.1} s for calls in flight");
        }
        let calls_cut = match tokio::time::timeout(self.settings.drain.value, endpoint.idle()).await {
            Ok(()) => 0,
            Err(_) => endpoint.calls_in_flight(),
        };
        self.aggregate.close_sessions().await;
        debug!("clients' sessions are closed");
        self.reconciler.shutdown().await;
        debug!("servers' sessions are closed");
        self.bridge.shutdown().await;
        debug!("stdio servers have ended");
        self.gateways.stop().await;
        debug!("the gateway has ended");
        if !self.metrics.shutdown(LAST_METRICS).await {
            warn!("the last metrics were not exported within {} s", LAST_METRICS.as_secs());
        }
        drop(self.stop);
        self.tracker.close();
        self.tracker.wait().await;
        if let Err(error) = self.runtime_dir.clear() {
            warn!(%error, "the runtime directory could not be cleared");
        }
        if let Some(telemetry) = &self.telemetry
            && !telemetry.shutdown(FLUSH).await
        {
            warn!("not all that was to be exported could be sent in time");
        }
        ShutdownReport { calls_cut }
    }
}

async fn listen(
    address: SocketAddr,
    given: Option<std::net::TcpListener>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source: io::Error| {
        let taken = source.kind() == io::ErrorKind::AddrInUse;
        let holder = taken.then(|| describe_holder(address)).flatten();
        StartError::Listen { address, holder, source }
    };
    let listener = match given {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            TcpListener::from_std(listener).map_err(failed)?
        }
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Connections to the gateway at `url`. Certificates are read only where TLS is spoken.
async fn pool_to(url: &Url) -> Result<Pool, StartError> {
    if url.scheme() != "https" {
        return Ok(Pool::new());
    }
    let failed = |source| StartError::Trust { url: url.clone(), source };
    let read = tokio::task::spawn_blocking(tls::system_client).await;
    let client = read.map_err(io::Error::other).flatten().map_err(failed)?;
    Ok(Pool::with_tls(client))
}

/// A reader of definitions whose directory is there, so that it can be watched.
fn reader(config_dir: &Path, environment: &Environment, helper: Option<&Path>) -> Result<Reader, StartError> {
    let failed = |source| StartError::ConfigDir { path: config_dir.to_owned(), source };
    let reader = definition_reader(config_dir, environment, helper).map_err(failed)?;
    std::fs::create_dir_all(reader.definitions_dir()).map_err(failed)?;
    Ok(reader)
}

/// Writes the definitions that an instance begins with.
async fn define(
    definitions: Definitions,
    these: Vec<(ServerName, Value)>,
) -> Result<Definitions, StartError> {
    let writing = tokio::task::spawn_blocking(move || {
        for (name, spec) in these {
            let written = definitions.create(&name, &spec);
            written.map_err(|source| StartError::Server { name, source })?;
        }
        Ok(definitions)
    });
    writing.await.map_err(|error| StartError::Internal(error.to_string()))?
}

/// A reader of the definitions of `config_dir`, in which `${SIDEGATE_EXE}` stands for the binary `helper`, where there
/// is one.
///
/// # Errors
///
/// `config_dir` is relative, and there is no current directory.
pub fn definition_reader(
    config_dir: &Path,
    environment: &Environment,
    helper: Option<&Path>,
) -> io::Result<Reader> {
    let variables = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let exe = helper.map(|helper| (EXE_VARIABLE.into(), helper.as_os_str().to_owned()));
    let reader = Reader::new(config_dir, variables.chain(exe).collect())?;
    // Without a home there is nowhere to keep intents; whoever needs to is told that the file cannot be written.
    match dirs::state_dir_of(environment, &std::path::absolute(config_dir)?) {
        Ok(state) => Ok(reader.with_state_dir(&state)),
        Err(_) => Ok(reader),
    }
}

/// The variable that stands for our own binary in definitions.
pub const EXE_VARIABLE: &str = "SIDEGATE_EXE";

fn text(path: &Path) -> Result<String, StartError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| StartError::Internal(format!("the path {} is not UTF-8", path.display())))
}

/// Fetches agentgateway and lets it take the embedded gateway's place.
async fn fetch_and_swap(
    resolver: Resolver,
    version: Version,
    gateways: Arc<Gateways>,
    progress: Arc<dyn Progress>,
) {
    let swapped = match resolver.fetch(version, &*progress).await {
        Ok(verified) => {
            let swap = gateways.swap(Some(Program::Agentgateway(verified)), "fetched meanwhile");
            swap.await.map(drop).map_err(|error| chain(&error))
        }
        Err(error) => Err(chain(&error)),
    };
    if let Err(error) = swapped {
        warn!("the embedded gateway stays: agentgateway {version} cannot take its place: {error}");
    }
}
