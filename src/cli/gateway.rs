//! `sidegate gateway …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;
use serde_json::json;
use sidegate::binary_resolver::{DEFAULT_VERSION, Releases, ResolveError, Resolver, Version};
use sidegate::config::dirs;
use sidegate::environment::Environment;
use sidegate::telemetry::export::Telemetry;
use sidegate::telemetry::{Hush, LogFormat, init_logging};
use tokio_util::sync::CancellationToken;

use super::control::InstanceSelector;
use super::output::{Voice, say};
use super::progress::progress;
use super::signals::Signals;
use super::table::table;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Subcommand)]
pub(super) enum GatewayCommand {
    /// Download agentgateway into the cache, if it is not there
    #[command(after_help = "Example:\n  sidegate gateway fetch --gateway-version 1.2.1")]
    Fetch(Release),
    /// Print where the cached agentgateway is
    #[command(after_help = "Example:\n  $(sidegate gateway path) --version")]
    Path(Release),
    /// Hash the cached agentgateway and compare it with its pinned digest
    #[command(after_help = "Example:\n  sidegate gateway verify")]
    Verify(Release),
    /// List the releases that can be fetched, with their digests
    #[command(after_help = "Example:\n  sidegate gateway pins --output json")]
    Pins {
        /// How to print them
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Replace the gateway of a running instance by a new process, without a gap
    #[command(after_help = "Example:\n  sidegate gateway restart")]
    Restart(InstanceSelector),
    /// Run the embedded gateway on a configuration file
    #[command(after_help = "Example:\n  sidegate gateway serve -f agentgateway.yaml")]
    Serve {
        /// The configuration: the subset of agentgateway's that sidegate renders
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The release
    #[arg(long, value_name = "X.Y.Z", default_value_t = DEFAULT_VERSION)]
    gateway_version: Version,
    /// Where to fetch it from instead; the digest makes the host irrelevant
    #[arg(long, value_name = "URL")]
    gateway_mirror: Option<String>,
}

pub(super) fn run(command: GatewayCommand, environment: &Environment) -> Result<ExitCode, Failure> {
    match command {
        GatewayCommand::Pins { output } => pins(output),
        GatewayCommand::Restart(instance) => {
            let waiting = |_| "waiting until the new gateway is ready and the old one has ended".to_owned();
            let gateway =
                instance.ask_patiently(environment, Method::POST, "/v1/gateway/restart", waiting)?;
            let word = |key: &str| gateway[key].as_str().unwrap_or_default().to_owned();
            say(&format!(
                "{} {} (process {}) has taken over",
                word("mode"),
                word("version"),
                gateway["pid"]
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        GatewayCommand::Serve { file } => serve(file, environment),
        GatewayCommand::Fetch(release) => {
            let resolver = resolver(&release, environment)?;
            let verified = block_on(resolver.fetch(release.gateway_version, &*progress(Voice::Person)))?;
            say(&verified.path().display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        GatewayCommand::Path(release) => {
            let resolver = resolver(&release, environment)?;
            match block_on(resolver.cached(release.gateway_version, &*progress(Voice::Person)))? {
                Some(verified) => say(&verified.path().display().to_string())?,
                None => {
                    let message = format!("agentgateway {} is not in the cache", release.gateway_version);
                    return Err(
                        Failure::text(Exit::Gateway, message).hint("fetch it: sidegate gateway fetch")
                    );
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        GatewayCommand::Verify(release) => {
            let resolver = resolver(&release, environment)?;
            let verified = block_on(resolver.verify(release.gateway_version))?;
            let digest = verified.digest().map(|digest| format!(" (SHA-256 {digest})")).unwrap_or_default();
            say(&format!("{}: verified{digest}", verified.path().display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn resolver(release: &Release, environment: &Environment) -> Result<Resolver, Failure> {
    let releases = match &release.gateway_mirror {
        Some(mirror) => Releases::from_mirror(mirror),
        None => Releases::official(),
    };
    let releases = releases.map_err(failure)?;
    let cache = dirs::cache_dir(environment).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(Resolver::new(releases, cache))
}

/// Runs a resolution that Ctrl-C ends.
fn block_on<T>(resolution: impl Future<Output = Result<T, ResolveError>>) -> Result<T, Failure> {
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        tokio::select! {
            result = resolution => result.map_err(failure),
            signal = signals.next() => Err(Failure::text(Exit::Interrupted, format!("interrupted by {signal}"))),
        }
    })
}

fn failure(error: ResolveError) -> Failure {
    let hint = error.hint();
    Failure::new(Exit::Gateway, error).maybe_hint(hint)
}

fn pins(output: OutputFormat) -> Result<ExitCode, Failure> {
    let releases = Releases::official().map_err(failure)?;
    let pins = releases
        .pins()
        .iter()
        .map(|pin| [pin.version.to_string(), pin.platform.to_string(), pin.digest.to_string()]);
    match output {
        OutputFormat::Text => say(&table(["VERSION", "PLATFORM", "SHA-256"], pins))?,
        OutputFormat::Json => {
            let pins: Vec<_> = pins
                .map(|[version, platform, digest]| {
                    json!({"version": version, "platform": platform, "sha256": digest})
                })
                .collect();
            say(&json!({"schema": 1, "pins": pins}).to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the file says. One that cannot be read, or used, is told of by who serves it.
fn log_level(file: &Path) -> String {
    let config = fs_err::read_to_string(file).ok().and_then(|text| sidegate::gateway::validate(&text).ok());
    config.and_then(|config| config.settings.log_level).unwrap_or_else(|| "info".to_owned())
}

fn serve(file: PathBuf, environment: &Environment) -> Result<ExitCode, Failure> {
    init_logging(LogFormat::Text, &log_level(&file), environment, &Telemetry::off(), &Hush::default());
    let stop = CancellationToken::new();
    super::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let stopping = stop.clone();
        let serving = sidegate::gateway::serve(file, stop);
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            _ = signals.next() => {
                stopping.cancel();
                serving.await
            }
        };
        served.map_err(|error| Failure::new(Exit::Gateway, error))?;
        Ok(ExitCode::SUCCESS)
    })
}
