//! The library's front door: an instance of its own, in a few lines.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::choice::Network;
use super::server::Server;
use super::{DefinitionsFrom, Instance, InstanceOptions, StartError, helper};
use crate::binary_resolver::Event;
use crate::config::{GatewayMode, HostName, ManagementTools, NamePrefix, Overrides, Settings};
use crate::environment::Environment;
use crate::mcpserver::{InvalidServerName, ServerName, import};

/// How long servers are waited for, where nobody says more.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What [`InstanceBuilder::start`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadyWhen {
    /// The endpoint listens and the gateway works. Servers may still be on their way.
    #[default]
    Gateway,
    /// And every server that starts by itself has succeeded or failed once.
    ServersSettled,
    /// And every server that starts by itself can be called; one that cannot is an error.
    ServersConnected,
}

/// How an [`Instance`] is to be: [`Instance::builder`].
///
/// It gets a port, a runtime directory, a gateway key and logs of its own, all of which go away with it, so any number of
/// instances can run at once. Where nothing else is said it listens on a free port of 127.0.0.1, and carries calls with
/// agentgateway where that is in the cache, else with the embedded gateway; nothing is downloaded unless
/// [`GatewayMode::Agentgateway`] asks for it. Neither `config.yaml` nor `SIDEGATE_*` variables count.
///
/// Each instance takes about 40 file descriptors of the process, and more with its sessions.
#[derive(Default)]
#[must_use = "nothing happens before `start`"]
pub struct InstanceBuilder {
    servers: Vec<(String, Server)>,
    mcp_json: Vec<PathBuf>,
    config_dir: Option<PathBuf>,
    environment: Option<Environment>,
    overrides: Overrides,
    ready: ReadyWhen,
    ready_within: Option<Duration>,
}

impl InstanceBuilder {
    /// Adds a server, called `name`: 1 to 63 of `a-z`, `0-9` and `-`.
    pub fn server(mut self, name: impl Into<String>, server: Server) -> Self {
        self.servers.push((name.into(), server));
        self
    }

    /// Adds the servers of a `.mcp.json`, or another client's file that `sidegate import` reads, as they are at the start.
    /// Their commands run: the file must be trusted. A server that cannot be taken over is an error.
    pub fn mcp_json(mut self, file: impl Into<PathBuf>) -> Self {
        self.mcp_json.push(file.into());
        self
    }

    /// Serves the definitions in `mcpservers/` of this directory, instead of servers from code: in place, and followed as
    /// they change.
    pub fn config_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.config_dir = Some(directory.into());
        self
    }

    /// The environment that commands are looked up in and get their variables from, and in which `HOME`, `TMPDIR` and
    /// the XDG variables say where things are. That of the process, as it is at the start, where this is not called.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Where to listen; port 0, of 127.0.0.1, where this is not called.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.overrides.listen = Some(address);
        self
    }

    /// Which gateway carries the calls.
    pub fn gateway(mut self, mode: GatewayMode) -> Self {
        self.overrides.gateway_mode = Some(mode);
        self
    }

    /// An agentgateway executable to use as it is.
    pub fn gateway_binary(mut self, file: impl Into<PathBuf>) -> Self {
        self.overrides.gateway_binary = Some(file.into());
        self
    }

    /// What the names of tools begin with; `x` where this is not called.
    pub fn prefix(mut self, prefix: NamePrefix) -> Self {
        self.overrides.aggregator_prefix = Some(prefix);
        self
    }

    /// Which of Sidegate's own tools are offered.
    pub fn management_tools(mut self, tools: ManagementTools) -> Self {
        self.overrides.management_tools = Some(tools);
        self
    }

    /// A file with the token that clients must send; written, readable by this user only, where there is none.
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.overrides.token_file = Some(file.into());
        self
    }

    /// A name that clients may call the instance by, besides `localhost`, `127.0.0.1` and `[::1]`: each request says in its
    /// `Host` header whom it is for, and one for somebody else is answered with 403, as it may come from a page that a name
    /// was pointed here for. For clients in containers, say, that call `host.docker.internal`. Each call adds one.
    ///
    /// ```
    /// # fn main() -> Result<(), sidegate::config::InvalidValue> {
    /// let builder = sidegate::Instance::builder().allowed_host("host.docker.internal".parse()?);
    /// # let _ = builder;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allowed_host(mut self, host: HostName) -> Self {
        self.overrides.allowed_hosts.get_or_insert_default().push(host);
        self
    }

    /// How long calls in flight are waited for at the end.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.overrides.drain = Some(drain);
        self
    }

    /// The `sidegate` binary that guards children and runs the embedded gateway. Where this is not called it is
    /// `SIDEGATE_HELPER`; this program, where it is called `sidegate`; or `sidegate` on `PATH`, where it is of the version of this library.
    ///
    /// Where there is none, the embedded gateway runs as a task of this process, and stdio servers are ended by
    /// their process group: what leaves its group gets away, and nobody ends them when this process is killed. A warning
    /// says so, and [`Instance::helper`].
    pub fn helper(mut self, binary: impl Into<PathBuf>) -> Self {
        self.overrides.helper = Some(binary.into());
        self
    }

    /// What [`start`](Self::start) waits for.
    pub fn ready_when(mut self, ready: ReadyWhen) -> Self {
        self.ready = ready;
        self
    }

    /// How long servers are waited for; 60 s where this is not called.
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.ready_within = Some(limit);
        self
    }

    /// Starts the instance; returns when it is ready.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(self) -> Result<Instance, StartError> {
        let environment = self.environment.unwrap_or_else(|| std::env::vars_os().collect());
        let overrides = Overrides {
            listen: self.overrides.listen.or(Some(([127, 0, 0, 1], 0).into())),
            ..self.overrides
        };
        let helper = match &overrides.helper {
            Some(helper) => Ok(helper.clone()),
            None => helper::find(&environment).await,
        };
        let definitions = match self.config_dir {
            Some(directory) if self.servers.is_empty() && self.mcp_json.is_empty() => {
                DefinitionsFrom::ConfigDir(absolute(directory)?)
            }
            Some(path) => return Err(StartError::TwoSources { path }),
            None => DefinitionsFrom::These(collect(&self.servers, self.mcp_json, &environment).await?),
        };
        let instance = Instance::start(InstanceOptions {
            settings: Settings::of(&environment, &overrides)?,
            definitions,
            project: None,
            environment,
            helper: helper.map_err(|why| tracing::warn!("there is no helper: {why}")).ok(),
            listener: None,
            open_files: None,
            ephemeral: true,
            network: Network::WhenAsked,
            progress: Arc::new(|_: Event<'_>| {}),
        });
        let instance = instance.await?;
        match wait(&instance, self.ready, self.ready_within.unwrap_or(READY_WITHIN)).await {
            Ok(()) => Ok(instance),
            Err(error) => {
                instance.shutdown().await;
                Err(error)
            }
        }
    }
}

/// All servers with their `spec`.
async fn collect(
    servers: &[(String, Server)],
    files: Vec<PathBuf>,
    environment: &Environment,
) -> Result<Vec<(ServerName, Value)>, StartError> {
    let here = absolute(PathBuf::from("."))?;
    let mut all = Vec::new();
    for (name, server) in servers {
        let wrong = |source: InvalidServerName| StartError::ServerName { name: name.clone(), source };
        let spec = server.spec(&here).map_err(|path| StartError::NotUnicode { path })?;
        all.push((name.parse().map_err(wrong)?, spec));
    }
    let home = environment.get_os("HOME").map(PathBuf::from);
    for path in files {
        let (file, home) = (path.clone(), home.clone());
        let imported = tokio::task::spawn_blocking(move || import(&file, home.as_deref())).await;
        let imported = imported.map_err(|error| StartError::Internal(error.to_string()))??;
        for server in imported.servers {
            let (path, name) = (path.clone(), server.original);
            all.push(server.outcome.map_err(|reason| StartError::NotImported { path, name, reason })?);
        }
    }
    Ok(all)
}

fn absolute(path: PathBuf) -> Result<PathBuf, StartError> {
    let absolute = std::path::absolute(&path).map(|path| path.components().collect());
    absolute.map_err(|source| StartError::ConfigDir { path, source })
}

async fn wait(instance: &Instance, ready: ReadyWhen, limit: Duration) -> Result<(), StartError> {
    if ready == ReadyWhen::Gateway {
        return Ok(());
    }
    let in_time = tokio::time::timeout(limit, instance.settled()).await.is_ok();
    let statuses = instance.statuses().borrow().clone();
    let is_missing = |state: &crate::reconciler::ServerState| match ready {
        ReadyWhen::ServersConnected => !state.is_up() && !state.is_resting(),
        ReadyWhen::Gateway | ReadyWhen::ServersSettled => !state.is_settled(),
    };
    let missing: Vec<String> = statuses
        .iter()
        .filter(|(_, status)| is_missing(&status.state))
        .map(|(name, status)| match status.state.reason() {
            Some(reason) => format!("{name} is {}: {reason}", status.state),
            None => format!("{name} is still {}", status.state),
        })
        .collect();
    if missing.is_empty() && in_time {
        return Ok(());
    }
    Err(StartError::NotConnected { servers: missing, limit: (!in_time).then_some(limit) })
}

/// Names only: values can be secrets.
impl fmt::Debug for InstanceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBuilder")
            .field("servers", &self.servers)
            .field("mcp_json", &self.mcp_json)
            .field("config_dir", &self.config_dir)
            .field("overrides", &self.overrides)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}
