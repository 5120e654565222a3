//! The order of start: the listen address, the runtime directory, the port leases, the bridge, the definitions, the gateway with
//! all their routes in its first file, and last the aggregate: whoever can connect finds a generation in force.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span, warn};
use url::Url;

use super::background_fetch::fetch_and_swap;
use super::client::Client;
use super::definitions::{self, DefinitionsFrom};
use super::gateway_child::gateway_environment;
use super::gateways::{GatewayContext, Gateways, Variable};
use super::nesting::{self, Nesting};
use super::operations::Operations;
use super::reload::Reloading;
use super::runtime_dir::RuntimeDir;
use super::span_export::span_export;
use super::status::Identity;
use super::token::Token;
use super::{Instance, InstanceInfo, InstanceOptions, StartError, choice, http, metrics};
use crate::admin::control::{ControlListener, SOCKET};
use crate::admin::page::{Page, PageOptions, Reloads, TokenCheck};
use crate::aggregator::behind::InstanceId;
use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::aggregator::scope::ALL_PATH;
use crate::bridge::{Bridge, BridgeSettings, inherited_environment};
use crate::config::Settings;
use crate::environment::Environment;
use crate::management::Management;
use crate::mcpserver::{Definitions, Ourselves, SecretNames};
use crate::outbound::Proxies;
use crate::ports::describe_holder;
use crate::reconciler::{Front, Reconciler, ReconcilerOptions, Retry, Surroundings};
use crate::subprocess::Helper;
use crate::telemetry::call_lines::CallLines;
use crate::telemetry::calls::{CallLog, CallLogOptions, CallObserver};
use crate::telemetry::export::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::secrets::Secrets;
use crate::telemetry::{Cause, LIFECYCLE};
use crate::tls;
use crate::wire::client::Pool;
use crate::wire::server::{HostPolicy, ServerConfig, StreamableHttp, serve_connections};
use crate::yaml_applier::{self, BridgeDial};

/// How long a stdio server has to end after its stdin was closed, and again after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

/// Starts the parts of an instance, one after the other. What has been started when one fails ends with what is dropped here.
pub(super) async fn begin(options: InstanceOptions, telemetry: &Telemetry) -> Result<Instance, StartError> {
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
    let secrets = telemetry.secrets();
    let secret_names = SecretNames::new(&settings.redact.value);
    learn_inherited(secrets, &secret_names, &environment);
    secrets.learn(secret_names.values_in(&settings.gateway.frontend_policies.value, &environment));
    let token = settings.aggregator.token_file.value.as_deref();
    let token = token.map(|file| Token::read_or_create(file, secrets)).transpose()?.map(Arc::new);
    let random_port = settings.listen.value.port() == 0;
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
    let mut reader = definitions::reader(&config_dir, &environment, helper.as_deref())?;
    let told = Nesting::of(&environment).told(&config_dir, project.as_deref())?;
    if let Some(file) = project {
        let ourselves = Ourselves::new(helper.clone(), &config_dir, vec![address, settings.usual_listen]);
        reader = reader.with_project(&file, environment.get_os("HOME").map(PathBuf::from), ourselves);
    }
    let definitions_dir = reader.definitions_dir();
    let definitions = definitions::define(Definitions::new(reader.clone()), definitions).await?;
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

    let identity = InstanceId::random().map_err(|error| no_random_bytes(&error))?;
    let registry = Registry::of(identity, settings.aggregator.prefix.value.as_str());
    let metrics = metrics::start(telemetry, &registry)?;

    let spans = span_export(&settings, telemetry);
    let (gateways, pool, fetch) = match &settings.upstream_url.value {
        Some(url) => {
            if !settings.gateway.frontend_policies.value.is_empty() {
                warn!("gateway.frontendPolicies do not reach a gateway that runs elsewhere");
            }
            (Gateways::external(url)?, pool_to(url).await?, None)
        }
        None => {
            let choice = choice::choose(&settings, &environment, helper_path.as_deref(), network, &*progress)
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
                secrets: secrets.clone(),
                tracker: tracker.clone(),
            };
            let gateways = Gateways::prepare(gateway_context, choice.program, &choice.reason)?;
            (gateways, Pool::new(), choice.fetch)
        }
    };

    let calls = call_log(telemetry, &metrics);
    let proxies = Proxies::of(&environment);
    let socket = runtime_dir.bridge_socket();
    let bridge_settings = BridgeSettings {
        helper,
        proxies: proxies.clone(),
        logs: Some(runtime_dir.logs()),
        grace: CHILD_GRACE,
        open_files,
        environment: vec![(nesting::VARIABLE.into(), told)],
        children: Arc::clone(calls.children()),
        secrets: secrets.clone(),
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
        secrets: secrets.clone(),
        secret_names: secret_names.clone(),
        cause: Cause::current(),
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
        secret_names,
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

    let hosts = hosts(address, &settings);
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
        identity: Identity { info: info.clone(), config_dir, random_port, started },
        gateways: Arc::clone(&gateways),
        registry: Arc::clone(&registry),
        statuses: reconciler.statuses(),
        problems: reconciler.problems(),
        operator: operator.clone(),
        calls: Arc::clone(&calls),
        secrets: secrets.clone(),
    });
    let status = Arc::clone(&operations);
    let history = Arc::new(Reloads::new(secrets.clone()));
    let page = Page::new(PageOptions {
        port: address.port(),
        status: Box::new(move || status.status()),
        registry: Arc::clone(&registry),
        aggregate: Arc::clone(&aggregate),
        operator,
        calls: Arc::clone(&calls),
        reloads: Arc::clone(&history),
        logs: runtime_dir.logs(),
        token: token.clone().map(|token| Box::new(move |text: &str| token.is(text)) as TokenCheck),
        tracker: tracker.clone(),
        stop: stop.clone(),
    })
    .map_err(|error| no_random_bytes(&error))?;
    let surface = Arc::new(http::Surface {
        aggregate: Arc::clone(&aggregate),
        hosts,
        token,
        page,
        statuses: reconciler.statuses(),
        registry: Arc::clone(&registry),
        front: Arc::clone(gateways.front()),
        metrics: Arc::clone(&metrics),
    });
    let following = follow(Arc::clone(gateways.front()), calls, history);
    tracker.spawn(stop.clone().run_until_cancelled_owned(following));
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
    Ok(Instance {
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

fn no_random_bytes(error: &getrandom::Error) -> StartError {
    StartError::Internal(format!("the system gives no random bytes: {error}"))
}

/// Records calls for all who observe them.
fn call_log(telemetry: &Telemetry, metrics: &Metrics) -> Arc<CallLog> {
    let mut observers = telemetry.observers();
    observers.push(Arc::clone(metrics.calls()) as Arc<dyn CallObserver>);
    let secrets = telemetry.secrets().clone();
    observers.push(Arc::new(CallLines { secrets: secrets.clone() }));
    CallLog::with(CallLogOptions {
        observers,
        sampler: telemetry.sampler(),
        propagation: telemetry.propagation(),
        secrets,
        log_records: telemetry.loggers().is_some(),
    })
}

/// What stdio servers inherit from us without being told to, and what its name says is secret.
fn learn_inherited(secrets: &Secrets, names: &SecretNames, environment: &Environment) {
    let ours = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let inherited = inherited_environment(ours, |_| false);
    let inherited = inherited.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    secrets.learn(names.values_of(inherited, environment));
}

/// By which names clients may reach the endpoint, and from where.
fn hosts(address: SocketAddr, settings: &Settings) -> HostPolicy {
    // Whoever names our own address cannot have been led here by a name of somebody else.
    let own_host = Some(address.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    HostPolicy::loopback()
        .and(own_host.as_slice(), &[])
        .and(&settings.aggregator.allowed_hosts.value, &settings.aggregator.allowed_origins.value)
}

/// Tells those who want to know what the gateway has in force, as that changes.
async fn follow(front: Arc<Front>, calls: Arc<CallLog>, history: Arc<Reloads>) {
    let tell = |status: Option<&yaml_applier::Status>| {
        let in_force = status.and_then(|status| status.in_force.as_ref());
        calls.set_generation(in_force.map(|now| now.generation.to_string().into()));
        if let Some(status) = status {
            history.see(status);
        }
    };
    front.follow(tell).await;
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

fn text(path: &Path) -> Result<String, StartError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| StartError::Internal(format!("the path {} is not UTF-8", path.display())))
}
