//! The embedded gateway: a small reverse proxy for the configuration subset that this project renders.
//!
//! Reads the same file as agentgateway, from the same ports, with the same reload, readiness and refusals, so that either can
//! stand behind the data port. What it cannot do it refuses by name; it never serves half a policy.
//!
//! Theory of operation: [`serve`] binds four listeners on 127.0.0.1 and publishes one immutable snapshot of
//! the file. A call looks its route up in the snapshot it finds, and runs to its end on it whatever is loaded meanwhile.
//! The upstream connection of a call is driven by the task that serves the call, not by one of its own: a small call costs no
//! wake-up of another task, and dropping the call drops its connection.
//!
//! Invariants:
//! - a file that does not parse changes nothing;
//! - a request is sent twice only when hyper says that the first connection took none of it;
//! - bodies are never buffered: what one side has sent, the other sees at once.
//!
//! Knows nothing of MCP, of the aggregator, of signals and of where its log goes.

mod body;
mod config;
mod dial;
mod error;
mod headers;
mod listen;
mod metrics;
mod pool;
mod proxy;
mod reload;
mod route;
mod state;
mod surfaces;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub use config::{Config, ConfigError, Settings};
pub use error::{ServeError, Surface};

/// How long calls in flight may run on after the end was asked for. Short: whoever asks has drained before.
const DRAIN: Duration = Duration::from_millis(500);

/// Parses a configuration and refuses, with the reason, what this gateway cannot serve.
pub fn validate(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text)
}

/// Serves `file` until `shutdown`, and reloads it when it changes. Returns when nothing of it runs any more.
///
/// The `config:` block and the data port are read once; a later file that changes them is refused.
pub async fn serve(file: PathBuf, shutdown: CancellationToken) -> Result<(), ServeError> {
    let text = fs_err::tokio::read_to_string(&file).await.map_err(ServeError::Read)?;
    let config = Config::parse(&text).map_err(|source| ServeError::Config { file: file.clone(), source })?;
    let settings = config.settings.clone();
    let gateway = Arc::new(state::Gateway::new(config));

    let listeners = listen::Listeners::bind(&settings)?;
    // Before the first call: a change between the read above and the watch would be missed.
    let watcher = reload::Watcher::start(file, text, Arc::clone(&gateway));
    info!(data = %listeners.data_address(), readiness = %settings.readiness, "embedded gateway serves");

    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(watcher.run()));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(state::sweep(Arc::clone(&gateway))));
    listeners.serve(&gateway, &tasks, &shutdown, &cut);

    shutdown.cancelled().await;
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        info!(calls = tasks.len(), "cutting what is still in flight");
        cut.cancel();
        tasks.wait().await;
    }
    Ok(())
}
