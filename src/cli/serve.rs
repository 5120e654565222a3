//! `sidegate serve`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use sidegate::config::{GatewayMode, GatewayVersion, Overrides, Settings, listen_address};
use sidegate::environment::Environment;
use sidegate::instance::{Instance, InstanceOptions, Network, StartError};
use sidegate::reconciler::Statuses;
use sidegate::telemetry::{LogFormat, init_logging};
use url::Url;

use super::output::{say, say_error};
use super::progress::Lines;
use super::signals::{Ask, Signals};
use super::table::table;
use super::{ConfigDir, Exit, Failure, OutputFormat};

/// How long `--wait servers` waits.
const SETTLE: Duration = Duration::from_secs(60);

/// How long the table for people waits for servers to settle.
const SETTLE_FOR_TABLE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate serve                              serve ~/.config/sidegate/mcpservers/*.yaml
  sidegate serve --listen 127.0.0.1:0         on any free port
  sidegate serve --ephemeral --output json    for a test: random port, nothing is left behind

Exit codes: 0 stopped, 1 failed, 2 wrong arguments or settings, 4 no gateway, 130 interrupted.")]
pub(super) struct ServeArguments {
    #[command(flatten)]
    config_dir: ConfigDir,
    /// Address of the endpoint; port 0 takes any free one [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Option<SocketAddr>,
    /// Which gateway carries the calls: auto, agentgateway or embedded [default: auto]
    #[arg(long, value_name = "MODE", value_parser = clap::builder::PossibleValuesParser::new(["auto", "agentgateway", "embedded"]))]
    gateway: Option<String>,
    /// An agentgateway executable to use as it is
    #[arg(long, value_name = "FILE")]
    gateway_binary: Option<PathBuf>,
    /// The release of agentgateway to fetch [default: 1.2.1]
    #[arg(long, value_name = "X.Y.Z")]
    gateway_version: Option<GatewayVersion>,
    /// Where to fetch agentgateway from instead
    #[arg(long, value_name = "URL")]
    gateway_mirror: Option<Url>,
    /// Never download anything
    #[arg(long)]
    offline: bool,
    /// A gateway that runs elsewhere
    #[arg(long, value_name = "URL")]
    upstream_url: Option<Url>,
    /// Directory for sockets and logs of this instance
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    runtime_dir: Option<PathBuf>,
    /// Take a random port and runtime directory, remove everything at the end, and end with the starting process
    #[arg(long)]
    ephemeral: bool,
    /// What to wait for before saying that it is ready
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    wait: Wait,
    /// What to print when it is ready: a table, or one line of JSON
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
    /// How to log to stderr
    #[arg(long, value_enum, default_value_t)]
    log_format: OutputFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// The endpoint listens and the gateway works
    #[default]
    Gateway,
    /// And every server has succeeded or failed once (60 s at most)
    Servers,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    listen_address(text).map_err(|error| error.to_string())
}

pub(super) fn run(arguments: ServeArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    init_logging(
        match arguments.log_format {
            OutputFormat::Text => LogFormat::Text,
            OutputFormat::Json => LogFormat::Json,
        },
        environment,
    );
    let runtime = super::runtime()?;
    let code = runtime.block_on(serve(arguments, environment));
    // Threads that hang in the file system must not hold us up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(arguments: ServeArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let had_terminal = std::io::stdin().is_terminal();
    if arguments.ephemeral {
        signals.watch_parent()?;
    }
    let options = options(&arguments, environment)?;
    let instance = tokio::select! {
        started = Instance::start(options) => started.map_err(failure)?,
        ask = next_end(&mut signals, had_terminal, &|| ()) => {
            return Err(Failure::text(Exit::Interrupted, format!("ended by {ask} before it was ready")));
        }
    };
    let rescan = || instance.rescan();
    let ask = tokio::select! {
        said = say_ready(&instance, &arguments) => {
            said?;
            next_end(&mut signals, had_terminal, &rescan).await
        }
        ask = next_end(&mut signals, had_terminal, &rescan) => ask,
    };
    say_error(&format!("stopping: {ask}"));
    tokio::select! {
        report = instance.shutdown() => {
            match report.calls_cut {
                0 => say_error("stopped; nothing is left"),
                1 => say_error("stopped; 1 call was cut, as it took longer than the drain time"),
                calls => say_error(&format!("stopped; {calls} calls were cut, as they took longer than the drain time")),
            }
            Ok(ExitCode::SUCCESS)
        }
        // The guards end whatever we have started when we are gone.
        ask = next_end(&mut signals, had_terminal, &|| ()) => {
            Err(Failure::text(Exit::Interrupted, format!("ended at once, by a second signal ({ask})")))
        }
    }
}

/// Waits for a signal that ends us. SIGHUP does where there was a terminal; otherwise it calls `rescan`.
async fn next_end(signals: &mut Signals, had_terminal: bool, rescan: &dyn Fn()) -> Ask {
    loop {
        match signals.next().await {
            Ask::HangUp if !had_terminal => rescan(),
            ask => return ask,
        }
    }
}

fn options(arguments: &ServeArguments, environment: &Environment) -> Result<InstanceOptions, Failure> {
    let config_dir = arguments.config_dir.resolve(environment)?;
    let ephemeral_listen = arguments.ephemeral.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let gateway_mode = arguments.gateway.as_deref().map(str::parse::<GatewayMode>).transpose();
    let overrides = Overrides {
        listen: arguments.listen.or(ephemeral_listen),
        gateway_mode: gateway_mode
            .map_err(|error| Failure::text(Exit::Usage, format!("--gateway: {error}")))?,
        gateway_version: arguments.gateway_version.clone(),
        gateway_binary: arguments.gateway_binary.clone(),
        gateway_mirror: arguments.gateway_mirror.clone(),
        upstream_url: arguments.upstream_url.clone(),
        runtime_dir: arguments.runtime_dir.clone(),
        helper: None,
    };
    let settings = Settings::load(&config_dir, environment, &overrides)
        .map_err(|error| Failure::text(Exit::Usage, error.to_string()))?;
    let helper = match &settings.helper.value {
        Some(helper) => helper.clone(),
        None => std::env::current_exe()?,
    };
    Ok(InstanceOptions {
        settings,
        config_dir,
        environment: environment.clone(),
        helper,
        open_files: raise_open_files(),
        ephemeral: arguments.ephemeral,
        network: network(arguments, environment),
        progress: Arc::new(Lines::default()),
    })
}

/// Nothing is downloaded behind the back of a test: neither for an ephemeral instance nor in CI.
fn network(arguments: &ServeArguments, environment: &Environment) -> Network {
    let in_ci = environment.get_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    match arguments.offline {
        true => Network::Never,
        false if arguments.ephemeral || in_ci => Network::WhenAsked,
        false => Network::InBackground,
    }
}

/// Raises the soft limit on open files to the hard one, as each stream takes two; gives the old one, for children that
/// may not be ready for more (`select`, or loops over all descriptors).
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum }) {
        Ok(()) => old.current,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            None
        }
    }
}

fn failure(error: StartError) -> Failure {
    let exit = if error.is_gateway() { Exit::Gateway } else { Exit::Failed };
    let hint = error.hint();
    Failure::new(exit, error).maybe_hint(hint)
}

async fn say_ready(instance: &Instance, arguments: &ServeArguments) -> Result<(), Failure> {
    if arguments.wait == Wait::Servers && tokio::time::timeout(SETTLE, instance.settled()).await.is_err() {
        say_error(&format!("warning: not settled after {} s: {}", SETTLE.as_secs(), unsettled(instance)));
    }
    let info = instance.info();
    if arguments.output == OutputFormat::Json {
        let line = serde_json::to_string(info).map_err(|error| Failure::new(Exit::Failed, error))?;
        return Ok(say(&line)?);
    }
    let gateway = &info.gateway;
    say(&format!("Sidegate {} is ready: {}", env!("CARGO_PKG_VERSION"), info.url))?;
    say(&format!(
        "Gateway: {} {} (process {}), {}",
        gateway.mode, gateway.version, gateway.pid, gateway.reason
    ))?;
    // Who waits for the table has waited long enough after this; the states say the rest.
    let _ = tokio::time::timeout(SETTLE_FOR_TABLE, instance.settled()).await;
    let statuses = instance.statuses().borrow().clone();
    if statuses.is_empty() {
        say("No servers are defined yet. Write a definition, for example:")?;
        say(&example(&instance.definitions_dir().join("example.yaml")))?;
    } else {
        say(&format!("\n{}", server_table(&statuses)))?;
    }
    say("\nPress Ctrl-C to stop.")?;
    Ok(())
}

fn unsettled(instance: &Instance) -> String {
    let statuses = instance.statuses();
    let statuses = statuses.borrow();
    let names =
        statuses.iter().filter(|(_, status)| !status.state.is_settled()).map(|(name, _)| name.to_string());
    names.collect::<Vec<_>>().join(", ")
}

fn server_table(statuses: &Statuses) -> String {
    let rows = statuses.iter().map(|(name, status)| {
        let reason = status.state.reason().or(status.stale.as_deref()).unwrap_or_default();
        [name.to_string(), status.state.to_string(), status.tools.to_string(), reason.replace('\n', "; ")]
    });
    table(["SERVER", "STATE", "TOOLS", ""], rows)
}

fn example(path: &std::path::Path) -> String {
    let text = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {type: stdio, command: \"${SIDEGATE_EXE}\", args: [example-server]}";
    format!("\n  cat > {} <<'EOF'\n{text}\nEOF", path.display()).replace('\n', "\n  ")
}
