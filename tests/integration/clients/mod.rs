//! Full rounds of the clients that others have written, with servers that others have written behind both gateways.
//!
//! Each client does the same steps: [`STEPS`]. Those of the TypeScript and the Python SDK are programs of their own,
//! `round.mjs` and `round.py`; that of the Rust SDK is in [`rust`]. The servers:
//!
//! | name | is |
//! | --- | --- |
//! | `time` | `mcp-server-time`, of the Python SDK |
//! | `npm` | `@modelcontextprotocol/server-everything`, of the TypeScript SDK |
//! | `far` | the example `everything`, of the Rust SDK, over HTTP |
//! | `near` | the same over stdio |
//! | `own` | the same, a process for each client: it must end when the client has closed its session |
//! | `late` | the same; its definition is added by the client during the round |

mod rust;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rstest::rstest;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::support::definitions::{example, remote, stdio, with};
use super::support::optional::{Through, npm_server_everything, python_with_time_server, typescript_sdk};
use super::support::{Sidegate, Upstream, eventually, within};

/// What each client does, in this order.
const STEPS: [&str; 15] = [
    "initialize",
    "lists",
    "calls",
    "prompts",
    "resources",
    "templates",
    "subscriptions",
    "completion",
    "logging",
    "progress",
    "cancellation",
    "sampling",
    "elicitation",
    "changes",
    "close",
];

/// An instance with the servers of this module, and the definition that a client moves into place.
struct Stage {
    sidegate: Sidegate,
    /// The definition of `late`, not yet where Sidegate looks.
    prepared: PathBuf,
    definition: PathBuf,
    python: PathBuf,
    _far: Upstream,
}

impl Stage {
    /// `None` where this machine lacks something.
    async fn set(through: Through) -> Option<Self> {
        let script = npm_server_everything()?;
        let python = python_with_time_server()?;
        let builder = through.builder()?;
        let far = Upstream::everything(&[]).await;
        let builder = builder
            .definition("time", &stdio(python.to_str().unwrap(), &["-m", "mcp_server_time"]))
            .definition("npm", &stdio("node", &[script.to_str().unwrap(), "stdio"]))
            .definition("far", &remote(&far.url))
            .definition("near", &example("everything", &[]))
            .definition("own", &with(example("everything", &[]), "isolation: session"))
            .file("late.yaml", &example("everything", &[]))
            .wait_for_servers();
        let config = builder.config_dir();
        let definition = config.join("mcpservers/late.yaml");
        let prepared = config.with_file_name("late.yaml");
        let sidegate = builder.start().await;
        Some(Self { sidegate, prepared, definition, python, _far: far })
    }

    /// Runs a client's program to its end, and looks at each step as it is done.
    async fn play(self, mut program: Command) {
        let mut client = program
            .arg(self.sidegate.url())
            .args([&self.prepared, &self.definition])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        for step in STEPS {
            // An end before that is a failure, whose reason is on stderr.
            let done = within(step, lines.next_line()).await.unwrap();
            assert_eq!(done.as_deref(), Some(step));
        }
        let own = within("a process id", lines.next_line()).await.unwrap().unwrap();
        assert!(within("the end of the client", client.wait()).await.unwrap().success());
        self.end(own.parse().unwrap()).await;
    }

    /// The client has gone: so must its own server, while the instance runs on.
    async fn end(self, own: u32) {
        let process = PathBuf::from(format!("/proc/{own}"));
        eventually("the end of the client's own server", async || (!process.exists()).then_some(())).await;
        let ended = self.sidegate.stop().await;
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/clients").join(name)
}

#[rstest]
#[tokio::test]
async fn the_typescript_sdk_does_a_full_round(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(sdk) = typescript_sdk() else { return };
    let Some(stage) = Stage::set(through).await else { return };
    let mut node = Command::new("node");
    node.arg(program("round.mjs")).arg(sdk);
    stage.play(node).await;
}

#[rstest]
#[tokio::test]
async fn the_python_sdk_does_a_full_round(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(stage) = Stage::set(through).await else { return };
    let mut python = Command::new(&stage.python);
    python.arg(program("round.py"));
    stage.play(python).await;
}

#[rstest]
#[tokio::test]
async fn the_rust_sdk_does_a_full_round(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(stage) = Stage::set(through).await else { return };
    let own = rust::round(stage.sidegate.url(), &stage.prepared, &stage.definition).await;
    stage.end(own).await;
}
