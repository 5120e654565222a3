//! A remote MCP server for the product to dial, as a process: the example `everything` over HTTP, or another one.

use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::leaks::Tag;
use super::{example_path, within};

/// A running server. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) url: String,
    pub(crate) tag: Tag,
    child: Child,
}

#[derive(Deserialize)]
struct Listening {
    url: String,
}

impl Upstream {
    /// Starts `everything` with these arguments besides its address.
    pub(crate) async fn everything(arguments: &[&str]) -> Self {
        Self::everything_at("127.0.0.1:0", arguments).await
    }

    /// As [`everything`](Self::everything), at another address.
    pub(crate) async fn everything_at(address: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example_path("everything"));
        command.args(["--http", address]).args(arguments);
        Self::start(command).await
    }

    /// Starts a server that prints `{"url": …}` when it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        let tag = Tag::random();
        let mut child = command
            .env("SIDEGATE_TEST_TAG", tag.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        within("a server's address", stdout.read_line(&mut line)).await.unwrap();
        let Listening { url } = serde_json::from_str(&line).unwrap();
        Self { url, tag, child }
    }

    /// Kills it and waits for its end; its port refuses connections from then on.
    pub(crate) async fn kill(mut self) {
        within("the end of a server", self.child.kill()).await.unwrap();
    }
}
