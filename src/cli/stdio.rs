//! `sidegate stdio`: the aggregate over stdin and stdout.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use rustix::process::Pid;
use sidegate::config::Exposure;
use sidegate::environment::Environment;
use sidegate::instance::{Instance, Nesting};
use sidegate::telemetry::Hush;
use sidegate::telemetry::export::Telemetry;
use sidegate::wire::client::Pool;
use sidegate::wire::pipe::{PipeConfig, Stop, relay};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::io::StreamReader;

use super::instance::{EPHEMERAL_LISTEN, InstanceArguments, ProjectArguments, flush, start_failure};
use super::mcp::client_config;
use super::serve::wait_for_servers_up_to;
use super::signals::{Ask, Signals, end_of, end_of_stdout};
use super::{Exit, Failure};

/// How long an instance of our own waits for its servers before the client hears of anything. Clients ask for the tools at
/// once, some never again, and some give up after 30 s.
const SETTLE: Duration = Duration::from_secs(10);

/// How often an instance is looked for that is replaced at the same time.
const LOOKS: usize = 3;

/// How much of stdin is read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug, clap::Args)]
#[command(mut_arg("listen", |listen| listen.help(EPHEMERAL_LISTEN)))]
#[command(after_help = "Example, as clients have it in their settings:
  {\"mcpServers\": {\"sidegate\": {\"command\": \"sidegate\", \"args\": [\"stdio\"]}}}

Where an instance of this configuration directory runs, it serves that one; the
options of an instance do not count then. Where none runs, and with --project,
it starts one of its own, on a random port, which ends with it; nothing is left
behind. Nothing is downloaded unless --gateway agentgateway asks for it. An
instance that --runtime-dir or SIDEGATE_INSTANCE names must run.

It ends with stdin, when nobody reads stdout any more, or at SIGTERM; calls that
are under way have the drain time. Where the instance that it serves goes away
it ends with code 1, and whoever started it starts it again.

With --exposure meta this client sees a few tools that find and call all others,
whatever the instance shows to others.

Exit codes: 0 ended, 1 failed or the instance has gone, 2 wrong arguments or
settings, 4 no gateway, 5 the instance that was named does not run, 130
interrupted.")]
pub(super) struct StdioArguments {
    /// How tools are shown to this client: direct or meta [default: as the instance shows them]
    #[arg(long, value_name = "HOW")]
    exposure: Option<Exposure>,
    #[command(flatten)]
    instance: InstanceArguments,
    #[command(flatten)]
    project: ProjectArguments,
}

pub(super) fn run(arguments: &StdioArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let code = runtime.block_on(async {
        let telemetry = arguments.instance.telemetry("warn", true, environment, &Hush::default())?;
        let code = serve(arguments, environment, &telemetry).await;
        flush(&telemetry).await;
        code
    });
    // Threads that hang in the file system, or in writing to whoever does not read, must not hold us up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(
    arguments: &StdioArguments,
    environment: &Environment,
    telemetry: &Telemetry,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let drain = arguments.instance.settings(true, environment)?.drain.value;
    let starting = async {
        match Running::find(arguments, environment).await? {
            Some(running) => Ok(Host::Running(running)),
            None => start(arguments, environment, telemetry).await.map(Box::new).map(Host::Own),
        }
    };
    let mut host = tokio::select! {
        host = starting => host?,
        ask = signals.next() => {
            let message = format!("ended by {ask} before it was ready");
            return Err(Failure::text(Exit::Interrupted, message));
        }
    };
    let (url, token_file) = match &host {
        Host::Running(running) => (&running.url, running.token_file.as_deref()),
        Host::Own(instance) => (&instance.info().url, instance.info().token_file.as_deref()),
    };
    let config =
        PipeConfig { pool: Pool::new(), server: client_config(url, token_file, arguments.exposure)?, drain };
    let ended = relay_until_asked(config, &mut host, &mut signals).await;
    let at_once = ended.as_ref().is_err_and(|failure| failure.exit == Exit::Interrupted);
    if let Host::Own(instance) = host
        && !at_once
    {
        tokio::select! {
            report = instance.shutdown() => tracing::debug!(?report, "ended in order"),
            // The guards end whatever we have started when we are gone.
            _ = signals.next() => {}
        }
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Who serves.
enum Host {
    Running(Running),
    Own(Box<Instance>),
}

/// An instance that runs already.
struct Running {
    url: String,
    token_file: Option<PathBuf>,
    pid: u32,
    ended: oneshot::Receiver<()>,
}

impl Running {
    /// The instance that is meant; `None` where none runs and nobody has named one.
    async fn find(arguments: &StdioArguments, environment: &Environment) -> Result<Option<Self>, Failure> {
        if arguments.project.is_wanted() {
            return Ok(None);
        }
        let selector = arguments.instance.selector();
        // One that ends meanwhile is none at the second look, or another one that has taken its place.
        for _ in 0..LOOKS {
            let Some(status) = selector.status_if_running(environment).await? else { return Ok(None) };
            let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
            let Some(Ok(ended)) = pid.map(end_of) else { continue };
            // Whoever answers now under this id was there when its end began to be watched.
            match selector.status_if_running(environment).await? {
                Some(again) if again.pid == status.pid => {
                    let (url, token_file, pid) = (again.url, again.token_file, again.pid);
                    return Ok(Some(Self { url, token_file, pid, ended }));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Err(Failure::text(Exit::Failed, "the process of the instance cannot be watched")
            .hint("run the command where the instance runs, as the same user"))
    }
}

async fn start(
    arguments: &StdioArguments,
    environment: &Environment,
    telemetry: &Telemetry,
) -> Result<Instance, Failure> {
    let mut options = arguments.instance.options(true, environment)?;
    options.project = arguments.project.file(environment, arguments.instance.voice())?;
    let config_dir = arguments.instance.config_dir(environment)?;
    if Nesting::of(environment).has(&config_dir, options.project.as_deref()) {
        let message =
            "this Sidegate is started by one of its own servers, and would serve itself (SIDEGATE_VIA)";
        return Err(Failure::text(Exit::Failed, message).hint(
            "remove the server whose command starts it; an agent that is a server and has Sidegate as one needs an instance that runs (`sidegate serve`)",
        ));
    }
    let instance = Instance::start_with(options, telemetry).await.map_err(start_failure)?;
    wait_for_servers_up_to(&instance, SETTLE, arguments.instance.voice()).await;
    Ok(instance)
}

async fn relay_until_asked(
    config: PipeConfig,
    host: &mut Host,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let had_terminal = io::stdin().is_terminal();
    let (stop, stopped) = watch::channel(Stop::Never);
    let output_closed = end_of_stdout()?;
    let relaying = relay(stdin()?, tokio::io::stdout(), config, stopped);
    tokio::pin!(relaying, output_closed);
    let mut asked = 0;
    let (mut gone, mut is_closed) = (None, false);
    loop {
        tokio::select! {
            ended = &mut relaying => {
                return match gone {
                    Some(message) => Err(Failure::text(Exit::Failed, message)
                        .hint("start the client's server again; it finds the instance that runs then, or starts one")),
                    None => ended.map_err(|error| Failure::new(Exit::Failed, error)),
                };
            }
            ask = signals.next() => match (ask, &*host) {
                (Ask::HangUp, Host::Own(instance)) if !had_terminal => instance.rescan(),
                (Ask::HangUp, Host::Running(_)) if !had_terminal => {}
                (ask, _) => {
                    asked += 1;
                    if asked > 1 {
                        let message = format!("ended at once, by a second signal ({ask})");
                        return Err(Failure::text(Exit::Interrupted, message));
                    }
                    stop.send_replace(Stop::Drain);
                }
            },
            () = end(host), if gone.is_none() => {
                let message = match &*host {
                    Host::Running(running) => format!("the instance (process {}) has ended", running.pid),
                    Host::Own(_) => "the instance has ended".to_owned(),
                };
                stop.send_replace(Stop::Now(message.clone()));
                gone = Some(message);
            }
            _ = &mut output_closed, if !is_closed => {
                is_closed = true;
                stop.send_replace(Stop::Now("nobody reads the output any more".to_owned()));
            }
        }
    }
}

/// Waits until an instance that is not ours has ended.
async fn end(host: &mut Host) {
    match host {
        Host::Running(running) => {
            // The sender is dropped only after it has sent.
            let _ = (&mut running.ended).await;
        }
        Host::Own(_) => std::future::pending().await,
    }
}

/// Stdin, read by a thread of its own: what blocks in reading must not be waited for at the end, and the descriptor is
/// shared with others, so that it stays as it is.
fn stdin() -> io::Result<impl AsyncRead + Unpin + Send> {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match stdin.read(&mut chunk) {
                Ok(0) => return,
                Ok(size) => {
                    chunk.truncate(size);
                    Ok(chunk.into())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            // Nobody takes it any more when we are ending.
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    })?;
    let chunks = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    Ok(StreamReader::new(Box::pin(chunks)))
}
