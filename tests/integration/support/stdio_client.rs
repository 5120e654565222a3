//! A client of `sidegate stdio`: lines in, lines out, and nothing in between.

use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::leaks::Tag;
use super::sidegate::{Builder, Ended, Output, send, show};
use super::within;

/// A running `sidegate stdio`. Killed when dropped; a test that panics shows its stderr.
#[derive(Debug)]
pub(crate) struct StdioClient {
    pub(crate) tag: Tag,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Output,
    directory: Arc<TempDir>,
}

impl StdioClient {
    /// Starts it on the configuration of `builder`, with these arguments besides; with the embedded gateway, unless they
    /// name one.
    pub(crate) fn start(builder: &Builder, arguments: &[&str]) -> Self {
        let builder = builder.clone().env("SIDEGATE_CONFIG_DIR", builder.config_dir());
        let mut all = vec!["stdio"];
        if !arguments.contains(&"--gateway") {
            all.extend(["--gateway", "embedded"]);
        }
        all.extend(arguments);
        let (mut command, directory) = builder.command_to_start(&all);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        Self {
            tag: builder.tag().clone(),
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            stderr: Output::collect(child.stderr.take().unwrap()),
            child,
            directory,
        }
    }

    /// As [`start`](Self::start), with an initialized session in the newest version.
    pub(crate) async fn connect(builder: &Builder, arguments: &[&str]) -> Self {
        let mut client = Self::start(builder, arguments);
        client.initialize("2025-11-25", json!({})).await;
        client
    }

    /// Opens a session; gives the result.
    pub(crate) async fn initialize(&mut self, version: &str, capabilities: Value) -> Value {
        let info = json!({"name": "sidegate-tests", "version": "0"});
        let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": info});
        self.request("init", "initialize", params).await;
        let answer = self.answer("init").await;
        self.notify("notifications/initialized", json!({})).await;
        answer["result"].clone()
    }

    /// Writes a line.
    pub(crate) async fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        within("a line on stdin", stdin.write_all(format!("{line}\n").as_bytes())).await.unwrap();
    }

    pub(crate) async fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        let id: Value = id.into();
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
    }

    pub(crate) async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()).await;
    }

    /// Sends `tools/call`.
    pub(crate) async fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.request(id, "tools/call", json!({"name": tool, "arguments": arguments})).await;
    }

    /// The next line; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let stdout = self.stdout.as_mut().expect("stdout is open");
        let mut line = String::new();
        within("a line on stdout", stdout.read_line(&mut line)).await.unwrap();
        (!line.is_empty()).then(|| line.strip_suffix('\n').expect("whole lines").to_owned())
    }

    /// The next message, which must come.
    pub(crate) async fn message(&mut self) -> Value {
        let line = self.line().await.expect("a message before the end");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The answer to a request; what comes before it is dropped, but for answers to others.
    pub(crate) async fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let message = self.message().await;
            if message.get("method").is_none() {
                assert_eq!(message["id"], id, "{message}");
                return message;
            }
        }
    }

    /// Waits for a notification or request of that method; others are dropped.
    pub(crate) async fn expect(&mut self, method: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["method"] == method {
                return message;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it still runs")
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Waits until it ends by itself. What it has written and nobody has read is in [`Ended::stdout`].
    pub(crate) async fn wait(mut self) -> Ended {
        let mut stdout = String::new();
        if let Some(mut pipe) = self.stdout.take() {
            within("the end of stdout", pipe.read_to_string(&mut stdout)).await.unwrap();
        }
        let status = within("the end of sidegate stdio", self.child.wait()).await.unwrap();
        let stderr = self.stderr.finish().await;
        Ended { status, stdout, stderr, directory: Arc::clone(&self.directory) }
    }

    /// Ends stdin and waits for the end, which must be an orderly one, with nothing more to say.
    pub(crate) async fn finish(mut self) -> Ended {
        self.close_stdin();
        let ended = self.wait().await;
        assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
        ended
    }
}

impl Drop for StdioClient {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.stderr.text());
        }
    }
}
