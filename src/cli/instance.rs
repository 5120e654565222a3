//! What `serve`, `run` and `stdio` have in common: how an instance is started.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use sidegate::config::variables::UnknownVariable;
use sidegate::config::{GatewayMode, GatewayVersion, Overrides, Settings, listen_address};
use sidegate::environment::Environment;
use sidegate::instance::{DefinitionsFrom, InstanceOptions, Network, StartError};
use sidegate::mcpserver::{import, project_file};
use sidegate::telemetry::export::{FLUSH, Telemetry};
use sidegate::telemetry::{Hush, LogFormat, init_logging};
use url::Url;

use super::control::InstanceSelector;
use super::output::{Voice, say_error};
use super::progress::progress;
use super::{ConfigDir, Exit, Failure, OutputFormat};

/// The help of `--listen` where the usual address is not the default.
pub(super) const EPHEMERAL_LISTEN: &str = "Address of the endpoint [default: any free port of 127.0.0.1]";

/// Options of an instance.
#[derive(Debug, clap::Args)]
pub(super) struct InstanceArguments {
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
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    gateway_mirror: Option<Url>,
    /// Never download anything
    #[arg(long)]
    offline: bool,
    /// A gateway that runs elsewhere
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    upstream_url: Option<Url>,
    /// Directory for sockets and logs of this instance
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// How to log to stderr
    #[arg(long, value_enum, default_value_t)]
    log_format: OutputFormat,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    listen_address(text).map_err(|error| error.to_string())
}

fn parse_url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|error| format!("{error}; write a whole URL, such as https://host/path"))
}

impl InstanceArguments {
    /// Where definitions and settings are.
    pub(super) fn config_dir(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        self.config_dir.resolve(environment)
    }

    /// What another command has to be told for the same configuration directory.
    pub(super) fn config_dir_flag(&self) -> String {
        self.config_dir.flag()
    }

    /// The instance that may run already.
    pub(super) fn selector(&self) -> InstanceSelector {
        InstanceSelector::new(self.config_dir.clone(), self.runtime_dir.clone())
    }

    /// Whether log lines are for people.
    pub(super) fn logs_text(&self) -> bool {
        self.log_format == OutputFormat::Text
    }

    /// How to say what happens.
    pub(super) fn voice(&self) -> Voice {
        if self.logs_text() { Voice::Person } else { Voice::Machine }
    }

    /// Whether nothing may be downloaded.
    pub(super) fn offline(&self) -> bool {
        self.offline
    }

    /// Logs as asked for, `default` and above where nothing was asked for, and exports what is to be exported. Must be called
    /// in a runtime.
    pub(super) fn telemetry(
        &self,
        default: &str,
        ephemeral: bool,
        environment: &Environment,
        hush: &Hush,
    ) -> Result<Telemetry, Failure> {
        let unknown = UnknownVariable::all(environment);
        let settings = self.settings(ephemeral, environment).inspect_err(|_| {
            // Nothing is logged yet, and one of them may be why.
            unknown.iter().for_each(|unknown| say_error(&format!("warning: {unknown}")));
        })?;
        let settings = settings.telemetry;
        let telemetry = Telemetry::start(&settings, environment)
            .map_err(|error| start_failure(StartError::Export(error)))?;
        let format = match self.log_format {
            OutputFormat::Text => LogFormat::Text,
            OutputFormat::Json => LogFormat::Json,
        };
        init_logging(format, default, environment, &telemetry, hush);
        telemetry.warn();
        for unknown in unknown {
            tracing::warn!("{unknown}");
        }
        Ok(telemetry)
    }

    /// What an instance is started with. An ephemeral one takes any free port where none is given.
    pub(super) fn options(
        &self,
        ephemeral: bool,
        environment: &Environment,
    ) -> Result<InstanceOptions, Failure> {
        let config_dir = self.config_dir.resolve(environment)?;
        if self.config_dir.given().is_some() && !config_dir.exists() {
            // It may be misspelt.
            let message =
                format!("the configuration directory {} did not exist; it is made", config_dir.display());
            self.voice().warn(&message);
        }
        let settings = self.settings(ephemeral, environment)?;
        let helper = match &settings.helper.value {
            Some(helper) => helper.clone(),
            None => std::env::current_exe()?,
        };
        Ok(InstanceOptions {
            settings,
            definitions: DefinitionsFrom::ConfigDir(config_dir),
            project: None,
            environment: environment.clone(),
            helper: Some(helper),
            listener: None,
            open_files: raise_open_files(),
            ephemeral,
            network: self.network(ephemeral, environment),
            progress: progress(self.voice()),
        })
    }

    /// As [`options`](Self::options), on a socket that somebody else has opened; its address is what counts.
    pub(super) fn options_on(
        &self,
        socket: TcpListener,
        ephemeral: bool,
        environment: &Environment,
    ) -> Result<InstanceOptions, Failure> {
        if self.listen.is_some() {
            let message = "--listen, and a socket from the service manager: both say where to listen";
            return Err(
                Failure::text(Exit::Usage, message).hint("leave --listen out, or do not pass a socket")
            );
        }
        let options = self.options(ephemeral, environment)?;
        let settings = self.settings_at(Some(socket.local_addr()?), ephemeral, environment)?;
        Ok(InstanceOptions { settings, listener: Some(socket), ..options })
    }

    /// The settings, as they are now.
    pub(super) fn settings(&self, ephemeral: bool, environment: &Environment) -> Result<Settings, Failure> {
        self.settings_at(self.listen, ephemeral, environment)
    }

    /// As [`settings`](Self::settings), for an instance that listens at this address, where there is one.
    fn settings_at(
        &self,
        listen: Option<SocketAddr>,
        ephemeral: bool,
        environment: &Environment,
    ) -> Result<Settings, Failure> {
        let config_dir = self.config_dir.resolve(environment)?;
        let ephemeral_listen = ephemeral.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let gateway_mode = self.gateway.as_deref().map(str::parse::<GatewayMode>).transpose();
        let overrides = Overrides {
            listen: listen.or(ephemeral_listen),
            gateway_mode: gateway_mode
                .map_err(|error| Failure::text(Exit::Usage, format!("--gateway: {error}")))?,
            gateway_version: self.gateway_version.clone(),
            gateway_binary: self.gateway_binary.clone(),
            gateway_mirror: self.gateway_mirror.clone(),
            upstream_url: self.upstream_url.clone(),
            runtime_dir: self.runtime_dir.clone(),
            ..Overrides::default()
        };
        Settings::load(&config_dir, environment, &overrides)
            .map_err(|error| Failure::text(Exit::Usage, error.to_string()))
    }

    /// Nothing is downloaded behind the back of a test: neither for an ephemeral instance nor in CI.
    fn network(&self, ephemeral: bool, environment: &Environment) -> Network {
        let in_ci = environment.get_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        match self.offline {
            true => Network::Never,
            false if ephemeral || in_ci => Network::WhenAsked,
            false => Network::InBackground,
        }
    }
}

/// Whose servers are served besides.
#[derive(Debug, clap::Args)]
pub(super) struct ProjectArguments {
    /// Serve the project's servers too: those of .mcp.json in this directory or above it, up to the root of the
    /// repository. Their commands run as you
    #[arg(long)]
    project: bool,
}

impl ProjectArguments {
    /// Whether the servers of a project are wanted, which an instance that runs already does not have.
    pub(super) fn is_wanted(&self) -> bool {
        self.project
    }

    /// The project's file, where it is wanted.
    pub(super) fn file(&self, environment: &Environment, voice: Voice) -> Result<Option<PathBuf>, Failure> {
        self.project.then(|| project(environment, voice)).transpose()
    }
}

/// The project's file. Says what its servers lose by not being the client's that the file is for; the instance says
/// what is wrong.
fn project(environment: &Environment, voice: Voice) -> Result<PathBuf, Failure> {
    let file = project_file(&std::env::current_dir()?);
    if !file.exists() {
        voice.warn(&format!("there is no {}; its servers follow when it is written", file.display()));
    } else if let Ok(found) = import(&file, environment.get_os("HOME").map(Path::new)) {
        for server in found.servers {
            for note in server.notes.attention {
                voice.say(&format!("attention: {}: {}: {note}", file.display(), server.original));
            }
        }
    }
    Ok(file)
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

/// Sends what is still to be exported.
pub(super) async fn flush(telemetry: &Telemetry) {
    if !telemetry.shutdown(FLUSH).await {
        tracing::warn!("not all that was to be exported could be sent in time");
    }
}

/// What a start that failed tells.
pub(super) fn start_failure(error: StartError) -> Failure {
    let exit = match () {
        () if error.is_gateway() => Exit::Gateway,
        () if error.is_usage() => Exit::Usage,
        () => Exit::Failed,
    };
    let hint = error.hint();
    Failure::new(exit, error).maybe_hint(hint)
}
