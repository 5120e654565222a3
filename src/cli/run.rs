//! `sidegate run`: an instance of its own for one command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sidegate::environment::Environment;
use sidegate::instance::Instance;
use sidegate::telemetry::Hush;
use sidegate::telemetry::export::Telemetry;
use tokio::process::{Child, Command};

use super::instance::{EPHEMERAL_LISTEN, InstanceArguments, ProjectArguments, flush, start_failure};
use super::serve::wait_for_servers;
use super::signals::{Ask, Signals};
use super::{Exit, Failure};

/// Exit codes as `env` and `timeout` have them.
const OWN_FAILURE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long the command has to end after SIGTERM when its starter has gone.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(mut_arg("listen", |listen| listen.help(EPHEMERAL_LISTEN)))]
#[command(after_help = "Example:
  sidegate run -- pytest tests/

The command finds the endpoint in SIDEGATE_URL and the runtime directory in
SIDEGATE_INSTANCE. It starts when every server has succeeded or failed once.
Port and runtime directory are random, and nothing is left behind.

Exit codes: the command's own; 128 and the number of the signal that ended it;
127 command not found, 126 not executable; 125 sidegate itself failed.")]
pub(super) struct RunArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    #[command(flatten)]
    project: ProjectArguments,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(arguments: &RunArguments, environment: &Environment) -> ExitCode {
    let ran = super::runtime().and_then(|runtime| {
        let code = runtime.block_on(async {
            let telemetry = arguments.instance.telemetry("warn", true, environment, &Hush::default())?;
            let code = run_command(arguments, environment, &telemetry).await;
            flush(&telemetry).await;
            code
        });
        // Threads that hang in the file system must not hold us up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    });
    ExitCode::from(ran.unwrap_or_else(|failure| {
        failure.say();
        if failure.exit == Exit::Interrupted { Exit::Interrupted as u8 } else { OWN_FAILURE }
    }))
}

async fn run_command(
    arguments: &RunArguments,
    environment: &Environment,
    telemetry: &Telemetry,
) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    signals.watch_parent()?;
    let mut options = arguments.instance.options(true, environment)?;
    options.project = arguments.project.file(environment, arguments.instance.voice())?;
    let starting = async {
        let instance = Instance::start_with(options, telemetry).await.map_err(start_failure)?;
        wait_for_servers(&instance, arguments.instance.voice()).await;
        Ok::<_, Failure>(instance)
    };
    let instance = tokio::select! {
        started = starting => started?,
        ask = signals.next() => {
            let message = format!("ended by {ask} before the command was started");
            return Err(Failure::text(Exit::Interrupted, message));
        }
    };
    let code = match spawn(&arguments.command, &instance) {
        Ok(child) => wait(child, &mut signals).await,
        Err(error) => {
            let program =
                arguments.command.first().map(|program| program.display().to_string()).unwrap_or_default();
            Failure::text(Exit::Failed, format!("{program} cannot be run: {error}")).say();
            Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE })
        }
    };
    tokio::select! {
        report = instance.shutdown() => tracing::debug!(?report, "ended in order"),
        // The guards end whatever we have started when we are gone.
        _ = signals.next() => {}
    }
    Ok(code?)
}

/// Starts the command in our own process group and session: it may be interactive, and Ctrl-C is for it too.
fn spawn(command: &[OsString], instance: &Instance) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(arguments)
        .env("SIDEGATE_URL", instance.url())
        .env("SIDEGATE_INSTANCE", &instance.info().runtime_dir)
        .spawn()
}

async fn wait(mut child: Child, signals: &mut Signals) -> io::Result<u8> {
    loop {
        let ask = tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            ask = signals.next() => ask,
        };
        match ask {
            // The terminal has sent it to the command as well, which knows what to do.
            Ask::Interrupt => {}
            Ask::Terminate => signal(&child, Signal::TERM),
            Ask::HangUp => signal(&child, Signal::HUP),
            Ask::Orphaned => {
                signal(&child, Signal::TERM);
                if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                    child.kill().await?;
                }
            }
        }
    }
}

/// Passes a signal on. A command that has ended meanwhile does not need it.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE)
}
