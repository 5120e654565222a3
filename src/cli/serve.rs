//! `sidegate serve`.

use std::io::IsTerminal as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use sidegate::environment::Environment;
use sidegate::instance::Instance;
use sidegate::reconciler::{STATES, Statuses};
use sidegate::telemetry::export::Telemetry;
use sidegate::telemetry::{Hush, LOG_VARIABLE};

use super::instance::{InstanceArguments, ProjectArguments, flush, start_failure};
use super::output::{Voice, say};
use super::own_path::own_path;
use super::servers::note;
use super::signals::{Ask, Signals};
use super::table::table;
use super::words::quoted;
use super::{Exit, Failure, OutputFormat};

/// How long `--wait servers` waits.
const SETTLE: Duration = Duration::from_secs(60);

/// How long the table for people waits for servers to settle.
const SETTLE_FOR_TABLE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate serve                            serve ~/.config/sidegate/mcpservers
  sidegate serve --listen 127.0.0.1:0       on any free port
  sidegate serve --ephemeral --output json  for a test: nothing is left behind

A listening socket that a service manager passes (LISTEN_FDS, as systemd does)
is served in place of one at --listen. SIGHUP takes gateway settings over, where
there was no terminal at start.

Exit codes: 0 stopped, 1 failed, 2 wrong arguments or settings, 4 no gateway,
130 interrupted.")]
pub(super) struct ServeArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    #[command(flatten)]
    project: ProjectArguments,
    /// Take a random port and runtime directory, remove everything at the end, and end with the starting process
    #[arg(long, conflicts_with = "runtime_dir")]
    ephemeral: bool,
    /// What to wait for before saying that it is ready
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    wait: Wait,
    /// What to print when it is ready: a table, or one line of JSON
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// The endpoint listens and the gateway works
    #[default]
    Gateway,
    /// And every server has succeeded or failed once (60 s at most)
    Servers,
}

pub(super) fn run(arguments: ServeArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    // Before there are threads and children: the variables that speak of the socket are taken away.
    let socket = passed_socket()?;
    let runtime = super::runtime()?;
    let code = runtime.block_on(async {
        let hush = Hush::new(STATES);
        hush.set(is_watched(&arguments, environment));
        let telemetry = arguments.instance.telemetry("info", arguments.ephemeral, environment, &hush)?;
        let code = serve(arguments, socket, environment, &telemetry, &hush).await;
        flush(&telemetry).await;
        code
    });
    // Threads that hang in the file system must not hold us up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// The socket that a service manager has passed (sd_listen_fds(3)).
fn passed_socket() -> Result<Option<TcpListener>, Failure> {
    let mut passed = listenfd::ListenFd::from_env();
    let wrong = |what: String| {
        Failure::text(Exit::Usage, format!("the service manager passes {what}"))
            .hint("give the socket unit one ListenStream= with an IP address and a port")
    };
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_tcp_listener(0).map_err(|error| wrong(format!("no TCP socket: {error}"))),
        sockets => Err(wrong(format!("{sockets} sockets, and one is served"))),
    }
}

async fn serve(
    arguments: ServeArguments,
    socket: Option<TcpListener>,
    environment: &Environment,
    telemetry: &Telemetry,
    hush: &Hush,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let had_terminal = std::io::stdin().is_terminal();
    if arguments.ephemeral {
        signals.watch_parent()?;
    }
    let mut options = match socket {
        Some(socket) => arguments.instance.options_on(socket, arguments.ephemeral, environment)?,
        None => arguments.instance.options(arguments.ephemeral, environment)?,
    };
    let voice = arguments.instance.voice();
    options.project = arguments.project.file(environment, voice)?;
    let instance = tokio::select! {
        started = Instance::start_with(options, telemetry) => started.map_err(start_failure)?,
        ask = next_end(&mut signals, had_terminal, &|| ()) => {
            return Err(Failure::text(Exit::Interrupted, format!("ended by {ask} before it was ready")));
        }
    };
    let rescan = || {
        instance.rescan();
        match arguments.instance.settings(arguments.ephemeral, environment) {
            Ok(settings) => instance.reload(settings),
            Err(failure) => {
                tracing::error!("the settings are not taken over and stay as they were: {}", failure.message);
            }
        }
    };
    let ended = tokio::select! {
        said = say_ready(&instance, &arguments, environment, hush) => match said {
            Ok(()) => Ok(next_end(&mut signals, had_terminal, &rescan).await),
            // Nobody knows of it, so nobody will end it.
            Err(failure) => Err(failure),
        },
        ask = next_end(&mut signals, had_terminal, &rescan) => Ok(ask),
    };
    hush.set(is_watched(&arguments, environment));
    if let Ok(ask) = &ended {
        voice.say(&format!("stopping: {ask}"));
    }
    tokio::select! {
        report = instance.shutdown() => {
            ended?;
            match report.calls_cut {
                0 => voice.say("stopped; nothing is left"),
                1 => voice.say("stopped; 1 call was cut, as it took longer than the drain time"),
                calls => voice.say(&format!("stopped; {calls} calls were cut, as they took longer than the drain time")),
            }
            Ok(ExitCode::SUCCESS)
        }
        // The guards end whatever we have started when we are gone.
        ask = next_end(&mut signals, had_terminal, &|| ()) => {
            Err(Failure::text(Exit::Interrupted, format!("ended at once, by a second signal ({ask})")))
        }
    }
}

/// Whether a person sees what is said and what is logged in one place: the first screen, and the last one, are then kept free
/// of lines that say the same. Whoever says what is to be logged gets it.
fn is_watched(arguments: &ServeArguments, environment: &Environment) -> bool {
    let is_text = arguments.output == OutputFormat::Text && arguments.instance.logs_text();
    let is_asked_for = environment.get_os(LOG_VARIABLE).is_some();
    is_text && !is_asked_for && std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
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

async fn say_ready(
    instance: &Instance,
    arguments: &ServeArguments,
    environment: &Environment,
    hush: &Hush,
) -> Result<(), Failure> {
    if arguments.wait == Wait::Servers {
        wait_for_servers(instance, arguments.instance.voice()).await;
    }
    let info = instance.info();
    if arguments.output == OutputFormat::Json {
        hush.set(false);
        let line = serde_json::to_string(info).map_err(|error| Failure::new(Exit::Failed, error))?;
        return Ok(say(&line)?);
    }
    let gateway = &info.gateway;
    say(&format!("Sidegate {} is ready: {}", env!("CARGO_PKG_VERSION"), info.url))?;
    say(&match (&gateway.version, gateway.pid) {
        (Some(version), Some(pid)) => {
            format!("Gateway: {} {version} (process {pid}), {}", gateway.mode, gateway.reason)
        }
        _ => format!("Gateway: {}, {}", gateway.mode, gateway.reason),
    })?;
    say(&format!("Page: {}", info.page_url()))?;
    // Who waits for the table has waited long enough after this; the states say the rest.
    let _ = tokio::time::timeout(SETTLE_FOR_TABLE, instance.settled()).await;
    // What becomes of servers from here on is logged.
    hush.set(false);
    let statuses = instance.statuses().borrow().clone();
    if statuses.is_empty() {
        say(&first_steps(instance, &arguments.instance.config_dir_flag(), environment)?)?;
    } else {
        say(&format!("\n{}", server_table(&statuses, instance.definitions_dir())))?;
    }
    say("\nPress Ctrl-C to stop.")?;
    Ok(())
}

/// Waits until every server has succeeded or failed once, and names those that have not in time.
pub(super) async fn wait_for_servers(instance: &Instance, voice: Voice) {
    wait_for_servers_up_to(instance, SETTLE, voice).await;
}

/// As [`wait_for_servers`], with another limit.
pub(super) async fn wait_for_servers_up_to(instance: &Instance, limit: Duration, voice: Voice) {
    if tokio::time::timeout(limit, instance.settled()).await.is_err() {
        voice.warn(&format!("not settled after {} s: {}", limit.as_secs(), unsettled(instance)));
    }
}

fn unsettled(instance: &Instance) -> String {
    let statuses = instance.statuses();
    let statuses = statuses.borrow();
    let names =
        statuses.iter().filter(|(_, status)| !status.state.is_settled()).map(|(name, _)| name.to_string());
    names.collect::<Vec<_>>().join(", ")
}

/// The servers, and below them what is wrong with each: a reason is too long for a cell.
fn server_table(statuses: &Statuses, definitions: &Path) -> String {
    // Files are named as they stand in the directory of definitions.
    let directory = format!("{}/", definitions.display());
    let rows = statuses
        .iter()
        .map(|(name, status)| [name.to_string(), status.state.to_string(), status.tools.to_string()]);
    let table = table(["SERVER", "STATE", "TOOLS"], rows);
    let reasons = statuses.iter().filter_map(|(name, status)| {
        let what = match status.state.reason() {
            Some(_) => format!("{name} is {}", status.state),
            None => format!("{name} stays as it was before its file became wrong"),
        };
        let reason = status.state.reason().or(status.stale.as_deref())?;
        Some(format!("\n{}", note(&what, &reason.replace(&directory, ""))))
    });
    let reasons: String = reasons.collect();
    if reasons.is_empty() { table } else { format!("{table}\n{reasons}") }
}

/// What to type next, for somebody who has no servers yet; `dir` says which configuration directory is meant.
fn first_steps(instance: &Instance, dir: &str, environment: &Environment) -> Result<String, Failure> {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_else(|| "sidegate".into());
    let (sidegate, exe) = (quoted(&called), quoted(&own_path(environment)?));
    let definitions = instance.definitions_dir().display();
    Ok(format!(
        "\nNo servers are defined yet. In another terminal, here or later:\n\n  \
         {sidegate} add{dir} example -- {exe} example-server    # one to try, which is built in\n  \
         {sidegate} add{dir} docs --url https://mcp.example.com/mcp\n  \
         {sidegate} import{dir} .mcp.json    # those of Claude, Cursor or VS Code\n  \
         {sidegate} connect{dir} claude    # what your client has to be told\n\n\
         Definitions are files in {definitions}: what you change there is served at once."
    ))
}
