//! The gateway as a child: what to run, and when it is ready.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::binary_resolver::{Verified, verify_running};
use crate::environment::Environment;
use crate::subprocess::{
    BoxError, ChildTree, Ending, Helper, Output, OutputSettings, Service, Source, Spec, StopRecipe, Stream,
};
use crate::telemetry::secrets::Secrets;
use crate::yaml_applier::{Applier, GatewayPorts, SpawnNonce, ValidateError, Validator};

/// Waits between probes of a gateway that starts: agentgateway needs 4 to 13 ms.
const FIRST_PROBE: Duration = Duration::from_millis(2);
const LONGEST_PROBE: Duration = Duration::from_millis(50);

/// How long the generation may take to be in force once the gateway says that it is ready.
const PROOF: Duration = Duration::from_secs(10);

/// How long `--validate-only` may take.
const VALIDATION: Duration = Duration::from_secs(10);

/// What a gateway sees of our environment. It reads many more variables, each of which would override the file.
const ENVIRONMENT: &[&str] = &["PATH", "HOME", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Which program is the gateway.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// agentgateway: this very file.
    Agentgateway(Verified),
    /// The embedded gateway, run by the helper at this path; a task of this process where there is none.
    Embedded(Option<PathBuf>),
}

impl Program {
    fn command(&self) -> Spec {
        match self {
            Self::Agentgateway(verified) => Spec::new(verified.path()),
            Self::Embedded(Some(helper)) => Spec::new(helper).args(["gateway", "serve"]),
            // Nothing of it counts.
            Self::Embedded(None) => Spec::default(),
        }
    }
}

/// The environment of a gateway.
pub(super) fn gateway_environment(environment: &Environment) -> Vec<(OsString, OsString)> {
    let known = ENVIRONMENT
        .iter()
        .filter_map(|name| Some((OsString::from(name), environment.get_os(name)?.to_owned())));
    known.collect()
}

/// Starts gateways, each with a file of its own generation.
pub(super) struct GatewayService {
    pub(super) program: Program,
    pub(super) applier: Applier,
    pub(super) file: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) ports: GatewayPorts,
    /// Counts the processes that were begun.
    pub(super) starts: Arc<AtomicU64>,
}

/// A port on which somebody listens while the gateway that it was leased for does not run: a program that sets
/// SO_REUSEADDR can.
pub(super) fn stolen_port(ports: &GatewayPorts) -> Option<NonZeroU16> {
    let GatewayPorts { data, admin, stats, readiness } = *ports;
    [data, admin, stats, readiness].into_iter().find(|port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()));
        // On loopback this is answered at once, one way or the other.
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    })
}

impl Service for GatewayService {
    async fn spec(&mut self) -> Result<Spec, BoxError> {
        // agentgateway stays up without its data port and says that it is ready: only the proof would fail, seconds later.
        if let Some(port) = stolen_port(&self.ports) {
            return Err(format!("somebody else listens on its port {port}").into());
        }
        self.applier.prepare(SpawnNonce::random()?).await?;
        let mut spec = self.program.command().arg("-f").arg(&self.file);
        spec.env.clone_from(&self.env);
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(spec)
    }

    async fn ready(&mut self, pid: u32) -> Result<(), BoxError> {
        if let Program::Agentgateway(verified) = &self.program {
            // Before any traffic: what runs is the file that was hashed, not one that took its place since.
            verify_running(pid, verified)?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.readiness.get()));
        let mut wait = FIRST_PROBE;
        while !is_ready(address).await {
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_PROBE);
        }
        self.applier.prove(PROOF).await?;
        Ok(())
    }
}

/// Whether the readiness port says so. Anything else, a refused connection too, is "not yet": the end of the process
/// is noticed by whoever runs it.
async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::get("/healthz/ready").header("host", "localhost").body(Empty::<Bytes>::new());
        let request = request.map_err(io::Error::other)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            response.into_body().collect().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(status)
        };
        tokio::select! {
            status = answer => status,
            ended = connection => Err(io::Error::other(format!("{ended:?}"))),
        }
    };
    matches!(timeout(Duration::from_secs(1), ask).await, Ok(Ok(StatusCode::OK)))
}

/// Asks agentgateway whether it takes a configuration.
pub(super) struct ValidateOnly {
    pub(super) binary: PathBuf,
    pub(super) helper: Helper,
    /// Where candidates are written; a directory that only we can enter.
    pub(super) candidate: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    /// What is in none of its complaints.
    pub(super) secrets: Secrets,
    pub(super) tracker: TaskTracker,
}

impl Validator for ValidateOnly {
    fn validate<'a>(
        &'a self,
        candidate: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), ValidateError>> + Send + 'a>> {
        Box::pin(async move {
            fs_err::tokio::write(&self.candidate, candidate).await.map_err(ValidateError::Unavailable)?;
            let mut spec = Spec::new(&self.binary).arg("-f").arg(&self.candidate).arg("--validate-only");
            spec.env.clone_from(&self.env);
            // A task, because nobody could wait for what a dropped future has half started.
            let given_up = CancellationToken::new();
            let _guard = given_up.clone().drop_guard();
            let output = OutputSettings {
                // Whoever asked is told what it said.
                quiet: true,
                filter: Some(self.secrets.line_filter()),
                ..OutputSettings::default()
            };
            let running = run(spec, output, self.helper.clone(), self.tracker.clone(), given_up);
            let ran = self.tracker.spawn(running).await.map_err(io::Error::other).flatten();
            let (ending, lines) = ran.map_err(ValidateError::Unavailable)?;
            match ending {
                Ending::Exited(0) => Ok(()),
                Ending::Exited(_) => Err(ValidateError::Refused { reason: lines.join("\n") }),
                _ => Err(ValidateError::Unavailable(io::Error::other(format!("agentgateway {ending}")))),
            }
        })
    }
}

/// Runs a command to its end and gives its last lines. When nobody wants them any more, it is ended.
async fn run(
    mut spec: Spec,
    output: OutputSettings,
    helper: Helper,
    tracker: TaskTracker,
    given_up: CancellationToken,
) -> io::Result<(Ending, Vec<String>)> {
    (spec.stdout, spec.stderr) = (Stream::Piped, Stream::Piped);
    let mut tree = ChildTree::spawn(spec, &helper).await.map_err(io::Error::other)?;
    let stdout = tree.take_stdout().map(|pipe| (Source::Stdout, pipe));
    let stderr = tree.take_stderr().map(|pipe| (Source::Stderr, pipe));
    let output = Output::drain("agentgateway (once)", stdout.into_iter().chain(stderr), output, &tracker);
    let ended = given_up.run_until_cancelled(timeout(VALIDATION, tree.wait())).await;
    tree.stop(&StopRecipe::kill()).await;
    let tail = output.tail();
    output.finish().await;
    let ending = ended
        .ok_or_else(|| io::Error::other("nobody wants the answer any more"))?
        .map_err(|_| io::Error::other(format!("no answer within {VALIDATION:?}")))?;
    Ok((ending, tail.lines()))
}
