//! The gateway in use, and its replacement by another beside it.
//!
//! A swap starts the new gateway on ports, with a key and with a file of its own; proves that the latest routes are in
//! force there; lets it take the calls; waits for the requests that are under way through the old one; and ends that.
//! Sessions are the servers' and the bridge's, so they do not notice.
//!
//! Invariants: one swap at a time; the gateway in front runs; a swap that fails leaves everything as it was. A gateway that
//! runs elsewhere is called, and nothing else.

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use url::Url;

use super::StartError;
use super::gateway_child::{GatewayService, Program, ValidateOnly, stolen_port};
use super::info::{GatewayInfo, PortsInfo};
use crate::config;
use crate::error::chain;
use crate::gateway;
use crate::ports::{Lease, Port, PortRequest, PortSet, ipv6_available};
use crate::reconciler::{Front, FrontGateway, Routing};
use crate::subprocess::{
    Helper, LogFileSettings, OutputSettings, State, StopRecipe, Supervisor, SupervisorSettings, Work,
};
use crate::sync::lock;
use crate::telemetry::metrics::ReloadMetrics;
use crate::telemetry::secrets::Secrets;
use crate::wire::client::{Habits, Origin};
use crate::yaml_applier::{
    self, Applier, ApplierOptions, ApplyError, GatewayKey, GatewayPorts, GatewaySettings, InvalidLogLevel,
    KEY_HEADER, LogLevel, SpanExport, TRACEPARENT_HEADER,
};

/// How long a gateway has to end after SIGTERM; it has nothing to finish by then.
const GRACE: Duration = Duration::from_secs(3);

/// How long a reload may take: after this the file is written once more, and after this again the child is replaced.
const RELOAD_DEADLINE: Duration = Duration::from_secs(3);

/// How often a gateway gets new ports because strangers listen on the ones it had.
const PORT_TRIES: u32 = 5;

/// What every gateway of an instance has in common.
#[derive(Debug)]
pub(super) struct GatewayContext {
    /// Each gateway gets a directory of its own in here: it watches the directory of its file.
    pub(super) directory: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) helper: Helper,
    pub(super) env: Vec<(OsString, OsString)>,
    /// What the next gateway is started with.
    pub(super) variable: std::sync::Mutex<Variable>,
    /// How long requests through a gateway that was replaced have to end.
    pub(super) drain: Duration,
    /// Measures what becomes of changes of gateways' files.
    pub(super) reloads: ReloadMetrics,
    /// What no line of a gateway may show; learns the key of each.
    pub(super) secrets: Secrets,
    pub(super) tracker: TaskTracker,
}

/// Settings of a gateway that can change from one to the next.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    ports: PortRequest,
    log_level: LogLevel,
    frontend_policies: serde_json::Map<String, serde_json::Value>,
    spans: Option<SpanExport>,
}

impl Variable {
    pub(super) fn new(
        settings: &config::GatewaySettings,
        spans: Option<SpanExport>,
    ) -> Result<Self, StartError> {
        let ports = &settings.ports;
        let port = |number: Option<NonZeroU16>| number.and_then(|number| Port::new(number.get()));
        let level = log_filter(settings);
        Ok(Self {
            ports: PortRequest {
                data: port(ports.data.value),
                admin: port(ports.admin.value),
                stats: port(ports.stats.value),
                readiness: port(ports.readiness.value),
            },
            log_level: level.parse().map_err(|error: InvalidLogLevel| StartError::Internal(chain(&error)))?,
            frontend_policies: settings.frontend_policies.value.clone(),
            spans,
        })
    }
}

/// What happens is told at `info`, and each call at `debug`, as everywhere in Sidegate: agentgateway has a line for each request
/// at `info`, which costs it more than carrying a small one does. Whoever has set up `accessLog` wants it all the same.
fn log_filter(settings: &config::GatewaySettings) -> &'static str {
    let access_log = settings.frontend_policies.value.contains_key("accessLog");
    match settings.log_level.value {
        config::LogLevel::Info if !access_log => "info,request=warn",
        level => level.as_str(),
    }
}

/// One gateway: its leases, its file and its process.
pub(super) struct Gateway {
    program: Program,
    reason: String,
    directory: PathBuf,
    ports: PortSet,
    front: FrontGateway,
    applier: Applier,
    supervisor: Supervisor,
    /// How often its process was begun.
    starts: Arc<AtomicU64>,
    /// Ends the tasks that belong to this gateway.
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
    tracker: TaskTracker,
}

impl Gateway {
    /// A gateway that does not run yet.
    fn new(
        context: &GatewayContext,
        program: Program,
        reason: &str,
        number: u32,
    ) -> Result<Self, StartError> {
        let directory = context.directory.join(format!("gateway-{number}"));
        let made = std::fs::create_dir(&directory);
        made.map_err(|source| StartError::Directory { path: directory.clone(), source })?;
        let mut variable = context.variable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if matches!(program, Program::Embedded(_)) && variable.spans.take().is_some() {
            warn!(
                "telemetry.gatewaySpans is ignored: the embedded gateway has no spans; use --gateway agentgateway"
            );
        }
        let ports = PortSet::lease(&variable.ports)?;
        let key = GatewayKey::random().map_err(|error| StartError::Internal(chain(&error)))?;
        context.secrets.keep(key.header_value().to_str());
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(KEY_HEADER), key.header_value());
        let authority: Authority = format!("127.0.0.1:{}", ports.data.port())
            .parse()
            .map_err(|error| StartError::Internal(format!("the data port has no address: {error}")))?;
        let file = directory.join("agentgateway.yaml");
        let validator = match &program {
            Program::Agentgateway(verified) => Some(Arc::new(ValidateOnly {
                binary: verified.path().to_owned(),
                helper: context.helper.clone(),
                // Not beside the file, whose directory is watched.
                candidate: context.directory.join(format!("candidate-{number}.yaml")),
                env: context.env.clone(),
                secrets: context.secrets.clone(),
                tracker: context.tracker.clone(),
            }) as Arc<dyn yaml_applier::Validator>),
            Program::Embedded(_) => None,
        };
        let stop = CancellationToken::new();
        let applier = Applier::start(
            ApplierOptions {
                file: file.clone(),
                settings: Arc::new(settings(&variable, &ports)),
                key,
                validator,
                reload_deadline: RELOAD_DEADLINE,
                reloads: Some(context.reloads.clone()),
            },
            &context.tracker,
            stop.clone(),
        );
        let starts = Arc::new(AtomicU64::new(0));
        let service = GatewayService {
            program: program.clone(),
            starts: Arc::clone(&starts),
            applier: applier.clone(),
            file: file.clone(),
            env: context.env.clone(),
            ports: gateway_ports(&ports),
        };
        let supervisor_settings = SupervisorSettings {
            stop: StopRecipe::terminate(GRACE),
            output: OutputSettings {
                file: Some(LogFileSettings::new(&context.logs)),
                // It is in the file; there may be a line for each request.
                quiet: true,
                filter: Some(context.secrets.line_filter()),
                ..OutputSettings::default()
            },
            ..SupervisorSettings::new("gateway", context.helper.clone())
        };
        let supervisor = match &program {
            Program::Embedded(None) => {
                let serve = move |stop| -> Work {
                    let served = gateway::serve(file.clone(), stop);
                    Box::pin(async move { served.await.map_err(Into::into) })
                };
                Supervisor::of_task(service, serve, supervisor_settings, &context.tracker)
            }
            _ => Supervisor::new(service, supervisor_settings, &context.tracker),
        };
        let agentgateway = matches!(program, Program::Agentgateway(_));
        let habits = Habits {
            // A gateway may put spans of its own into a trace that nobody gets to see.
            rewrites: Some((
                HeaderName::from_static("traceparent"),
                HeaderName::from_static(TRACEPARENT_HEADER),
            )),
            // The embedded one has no policies, no spans and no log of its own that calls to our own children would be in.
            adds_nothing: !agentgateway,
        };
        let front = FrontGateway {
            origin: Origin::gateway(authority, headers, habits),
            routing: Routing::Ours { applier: applier.clone(), agentgateway },
        };
        let stop_on_drop = stop.clone().drop_guard();
        let (reason, tracker) = (reason.to_owned(), context.tracker.clone());
        Ok(Self {
            program,
            reason,
            directory,
            ports,
            front,
            applier,
            supervisor,
            starts,
            stop,
            _stop_on_drop: stop_on_drop,
            tracker,
        })
    }

    pub(super) fn front(&self) -> FrontGateway {
        self.front.clone()
    }

    /// Starts the process; returns when its generation is in force. What fails is told, not tried again.
    async fn start(&self) -> Result<(), StartError> {
        self.supervisor.start().await;
        let mut states = self.supervisor.watch();
        let settled =
            |state: &State| !matches!(state, State::Idle | State::Starting { .. } | State::Draining { .. });
        let outcome = match states.wait_for(settled).await.as_deref() {
            Ok(State::Ready(_)) => Ok(()),
            Ok(State::Backoff { failure, .. } | State::Failed(failure)) => {
                Err(StartError::Gateway(Arc::clone(failure)))
            }
            Ok(_) | Err(_) => Err(StartError::Internal("the gateway's supervisor has ended".to_owned())),
        };
        if outcome.is_err() {
            self.supervisor.kill().await;
            return outcome;
        }
        let stuck = replace_when_stuck(self.applier.status(), self.supervisor.clone());
        self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(stuck));
        Ok(())
    }

    fn stolen_port(&self) -> Option<NonZeroU16> {
        stolen_port(&gateway_ports(&self.ports))
    }

    fn process(&self) -> Process {
        Process { states: self.supervisor.watch(), starts: Arc::clone(&self.starts), restarts_before: 0 }
    }

    fn info(&self) -> GatewayInfo {
        let port = |lease: &Lease| Some(lease.port().get());
        let (mode, version) = match &self.program {
            Program::Agentgateway(verified) => ("agentgateway", verified.version().to_string()),
            Program::Embedded(_) => ("embedded", env!("CARGO_PKG_VERSION").to_owned()),
        };
        GatewayInfo {
            mode,
            version: Some(version),
            pid: self.supervisor.state().pid(),
            ports: PortsInfo {
                data: port(&self.ports.data),
                admin: port(&self.ports.admin),
                stats: port(&self.ports.stats),
                readiness: port(&self.ports.readiness),
            },
            reason: self.reason.clone(),
        }
    }

    /// Ends the process and what belongs to it; returns when nothing is left.
    async fn end(self) {
        self.supervisor.stop().await;
        self.stop.cancel();
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            warn!(%error, directory = %self.directory.display(), "what belonged to a gateway is left behind");
        }
    }
}

fn gateway_ports(ports: &PortSet) -> GatewayPorts {
    GatewayPorts {
        data: ports.data.port().into(),
        admin: ports.admin.port().into(),
        stats: ports.stats.port().into(),
        readiness: ports.readiness.port().into(),
    }
}

fn settings(variable: &Variable, ports: &PortSet) -> GatewaySettings {
    GatewaySettings {
        ports: gateway_ports(ports),
        ipv6: ipv6_available(),
        log_level: variable.log_level.clone(),
        spans: variable.spans.clone(),
        frontend_policies: variable.frontend_policies.clone(),
    }
}

/// Replaces a process that does not take a configuration over.
async fn replace_when_stuck(mut status: watch::Receiver<yaml_applier::Status>, supervisor: Supervisor) {
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
}

/// The gateways of an instance: one in front, and now and then another that takes its place. Or the one that somebody
/// else looks after, which is there from the beginning to the end.
pub(super) struct Gateways {
    front: Arc<Front>,
    info: watch::Sender<GatewayInfo>,
    /// `None`: the gateway runs elsewhere.
    own: Option<OwnGateways>,
}

/// Gateways that are started, replaced and ended here.
struct OwnGateways {
    context: GatewayContext,
    /// `None` once everything has ended.
    current: Mutex<Option<Gateway>>,
    process: std::sync::Mutex<Process>,
    numbers: AtomicU32,
    swaps: AtomicU32,
}

/// What can be seen of the process of the gateway in front, also while a swap is under way.
struct Process {
    states: watch::Receiver<State>,
    starts: Arc<AtomicU64>,
    /// How often those of earlier gateways were started again.
    restarts_before: u64,
}

impl Process {
    fn restarts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Gateways {
    /// The first gateway, which does not run yet: routes can be wished for.
    pub(super) fn prepare(
        context: GatewayContext,
        program: Program,
        reason: &str,
    ) -> Result<Arc<Self>, StartError> {
        let first = Gateway::new(&context, program, reason, 1)?;
        let front = Front::new(first.front());
        let info = watch::Sender::new(first.info());
        let process = std::sync::Mutex::new(first.process());
        let (numbers, swaps) = (AtomicU32::new(2), AtomicU32::new(0));
        let current = Mutex::new(Some(first));
        let own = OwnGateways { context, current, process, numbers, swaps };
        Ok(Arc::new(Self { front, info, own: Some(own) }))
    }

    /// The gateway that runs at `url`: nothing is started, written or ended.
    pub(super) fn external(url: &Url) -> Result<Arc<Self>, StartError> {
        let origin = Origin::at(url).map_err(|error| StartError::Internal(chain(&error)))?;
        let front = Front::new(FrontGateway { origin, routing: Routing::Theirs });
        let info = GatewayInfo {
            mode: "external",
            version: None,
            pid: None,
            ports: PortsInfo { data: None, admin: None, stats: None, readiness: None },
            reason: format!("at {url}"),
        };
        Ok(Arc::new(Self { front, info: watch::Sender::new(info), own: None }))
    }

    pub(super) fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// What the gateway in front is.
    pub(super) fn info(&self) -> watch::Receiver<GatewayInfo> {
        self.info.subscribe()
    }

    /// Where the process of the gateway in front stands; `None` where it has none here.
    pub(super) fn state(&self) -> Option<State> {
        Some(lock(&self.own.as_ref()?.process).states.borrow().clone())
    }

    /// How often the process of the gateway in front was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.own.as_ref().map(|own| lock(&own.process).restarts()).unwrap_or_default()
    }

    /// How often a gateway's process was started again, that of any gateway since the beginning.
    pub(super) fn all_restarts(&self) -> u64 {
        let all = |process: &Process| process.restarts_before + process.restarts();
        self.own.as_ref().map(|own| all(&lock(&own.process))).unwrap_or_default()
    }

    /// How often another gateway has taken the place of one before it.
    pub(super) fn swaps(&self) -> u32 {
        self.own.as_ref().map(|own| own.swaps.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Starts the first gateway; with new ports where strangers took the ones it had.
    pub(super) async fn start(&self) -> Result<(), StartError> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut current = own.current.lock().await;
        for _ in 0..PORT_TRIES {
            let Some(gateway) = current.as_ref() else { break };
            let failure = match gateway.start().await {
                Ok(()) => {
                    self.info.send_replace(gateway.info());
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let Some(port) = gateway.stolen_port() else { return Err(failure) };
            warn!(port, "somebody else listens on a port of the gateway, which gets new ones");
            let (program, reason) = (gateway.program.clone(), gateway.reason.clone());
            let next = own.next(program, &reason)?;
            // Nothing runs in front, so there is nothing to prove before.
            self.front.replace(next.front());
            own.look_at(&next);
            if let Some(old) = current.replace(next) {
                old.end().await;
            }
        }
        Err(StartError::Internal(format!("somebody took the gateway's ports {PORT_TRIES} times in a row")))
    }

    /// Replaces the gateway in front by another, without a gap.
    pub(super) async fn swap(
        &self,
        program: Option<Program>,
        reason: &str,
    ) -> Result<GatewayInfo, StartError> {
        let own = self.own.as_ref().ok_or(StartError::Elsewhere)?;
        let mut current = own.current.lock().await;
        let Some(old) = current.as_ref() else {
            return Err(StartError::Internal("the instance is stopping".to_owned()));
        };
        let next = own.next(program.unwrap_or_else(|| old.program.clone()), reason)?;
        if let Err(error) = self.bring_to_front(&next).await {
            next.end().await;
            return Err(error);
        }
        let info = next.info();
        info!(
            mode = info.mode,
            version = info.version.as_deref(),
            pid = info.pid,
            reason,
            "another gateway has taken the calls over"
        );
        self.info.send_replace(info.clone());
        own.look_at(&next);
        own.swaps.fetch_add(1, Ordering::Relaxed);
        if let Some(old) = current.replace(next) {
            if tokio::time::timeout(own.context.drain, old.front.origin.idle()).await.is_err() {
                warn!("requests through the old gateway are cut: they take longer than the drain time");
            }
            old.end().await;
        }
        Ok(info)
    }

    /// Another reason why the embedded gateway is in front, where it is.
    pub(super) async fn embedded_stays(&self, reason: &str) {
        let Some(own) = &self.own else { return };
        let mut current = own.current.lock().await;
        if let Some(gateway) =
            current.as_mut().filter(|gateway| matches!(gateway.program, Program::Embedded(_)))
        {
            gateway.reason = reason.to_owned();
            self.info.send_modify(|info| info.reason = reason.to_owned());
        }
    }

    /// What the next gateway is started with.
    pub(super) fn set_variable(&self, variable: Variable) {
        if let Some(own) = &self.own {
            *own.context.variable.lock().unwrap_or_else(PoisonError::into_inner) = variable;
        }
    }

    /// Ends the gateway in front, for good.
    pub(super) async fn stop(&self) {
        let Some(own) = &self.own else { return };
        if let Some(gateway) = own.current.lock().await.take() {
            gateway.end().await;
        }
    }

    /// Gives the gateway new ports when it has crashed and strangers have taken the old ones meanwhile.
    pub(super) async fn watch_ports(self: Arc<Self>) {
        let Some(own) = &self.own else { return };
        loop {
            let Some(mut states) =
                own.current.lock().await.as_ref().map(|gateway| gateway.supervisor.watch())
            else {
                return;
            };
            let failed = states.wait_for(|state| matches!(state, State::Backoff { .. })).await.is_ok();
            let stolen = match own.current.lock().await.as_ref() {
                None => return,
                Some(gateway) if failed && matches!(gateway.supervisor.state(), State::Backoff { .. }) => {
                    gateway.stolen_port()
                }
                Some(_) => None,
            };
            if let Some(port) = stolen {
                warn!(port, "somebody else listens on a port of the gateway, which gets new ones");
                if let Err(error) = self.swap(None, "the ports of the last one were taken").await {
                    warn!("the gateway could not be given new ports: {}", chain(&error));
                }
            }
            // Whatever comes next is a change of this state, or of the gateway in front.
            let mut info = self.info.subscribe();
            tokio::select! {
                _ = states.changed() => {}
                _ = info.changed() => {}
            }
        }
    }

    async fn bring_to_front(&self, next: &Gateway) -> Result<(), StartError> {
        // Its first file has all routes.
        next.applier.apply(self.front.routes());
        next.start().await?;
        let taken = self.front.take_over(next.front()).await;
        taken.map(drop).map_err(|error| StartError::Internal(chain(&error)))
    }
}

impl OwnGateways {
    /// The process of `gateway` is the one that can be seen.
    fn look_at(&self, gateway: &Gateway) {
        let mut process = lock(&self.process);
        let restarts_before = process.restarts_before + process.restarts();
        *process = Process { restarts_before, ..gateway.process() };
    }

    fn next(&self, program: Program, reason: &str) -> Result<Gateway, StartError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Gateway::new(&self.context, program, reason, number)
    }
}

impl std::fmt::Debug for Gateways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateways").field("info", &*self.info.borrow()).finish_non_exhaustive()
    }
}
