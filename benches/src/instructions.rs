//! How many instructions things take, which does not depend on what else the machine does.
//!
//! The shipped program runs under callgrind, once with few and once with many of what is counted; the difference is the price of
//! one. Waiting and timers cost a little too, so runs differ by about one in a hundred.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::Result;
use crate::client::{Session, Target};
use crate::path::{Kind, free_ports, write_definition};
use crate::process::Process;

/// How much more than the baseline is too much, in hundredths.
const ROOM: f64 = 5.0;

/// Calls of the short run, and of the long one.
const CALLS: [usize; 2] = [200, 2200];
const LARGE_CALLS: [usize; 2] = [20, 220];
/// Tools of a server, the same.
const TOOLS: [usize; 2] = [20, 2020];

const SMALL: usize = 16;
const LARGE: usize = 256 << 10;

/// A key that the gateway asks for, and its digest.
const KEY: &str = "example-key";
const KEY_DIGEST: &str = "c018c41c1afaf2c0b66c64f97d0ee135657b699ad260f299234cd40a5d625e0e";

/// Instructions, by what takes them.
pub(crate) type Counts = BTreeMap<String, f64>;

/// What is counted: a program under callgrind, and the server behind it.
pub(crate) struct Subject<'s> {
    pub(crate) sidegate: &'s Path,
    /// This program, which is the server.
    pub(crate) me: &'s str,
}

impl Subject<'_> {
    /// Counts everything.
    pub(crate) async fn count(&self) -> Result<Counts> {
        let mut counts = Counts::new();
        for (name, size, calls) in [("small call", SMALL, CALLS), ("call of 256 KiB", LARGE, LARGE_CALLS)] {
            counts.insert(
                format!("manager, {name}"),
                self.price(calls, |calls| self.manager(Kind::Http, 1, calls, size)).await?,
            );
            counts.insert(
                format!("manager, {name} to a stdio server"),
                self.price(calls, |calls| self.manager(Kind::Stdio, 1, calls, size)).await?,
            );
            counts.insert(
                format!("gateway, {name}"),
                self.price(calls, |calls| self.gateway(calls, size)).await?,
            );
        }
        let tool = self.price(TOOLS, |tools| self.manager(Kind::Http, tools, 1, SMALL)).await?;
        counts.insert("manager, tool of a server taken into the catalogue".to_owned(), tool);
        Ok(counts)
    }

    async fn price<F: Future<Output = Result<f64>>>(
        &self,
        [few, many]: [usize; 2],
        run: impl Fn(usize) -> F,
    ) -> Result<f64> {
        let difference = run(many).await? - run(few).await?;
        Ok((difference / (many - few) as f64).round())
    }

    /// Sidegate with one server; its gateway and its children are not counted.
    async fn manager(&self, kind: Kind, tools: usize, calls: usize, size: usize) -> Result<f64> {
        let directory = tempfile::tempdir()?;
        let (upstream, url) = self.upstream(tools).await?;
        let spec = match kind {
            Kind::Http => json!({"type": "streamable-http", "url": url}),
            Kind::Stdio => json!({"type": "stdio", "command": self.me, "args": ["upstream", "--stdio"]}),
        };
        write_definition(directory.path(), "bench", &spec)?;
        let mut command = Command::new(self.sidegate);
        // Not ephemeral: valgrind knows no pidfd_open, with which such an instance watches who has started it.
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--output",
            "json",
            "--wait",
            "servers",
            "--gateway",
            "embedded",
        ]);
        command.arg("--config-dir").arg(directory.path());
        command.arg("--runtime-dir").arg(directory.path().join("run")).env("SIDEGATE_LOG", "warn");
        let mut process = Process::start(&mut under_callgrind(&command, directory.path()))?;
        let url = process.url().await?;
        let mut session = Session::initialize(&Target::Http(url)).await?;
        session.find_tool("echo").await?;
        call(&mut session, calls, size).await?;
        let collected = collected(process, directory.path()).await;
        upstream.end().await?;
        collected
    }

    /// The embedded gateway by itself.
    async fn gateway(&self, calls: usize, size: usize) -> Result<f64> {
        let directory = tempfile::tempdir()?;
        let (upstream, url) = self.upstream(1).await?;
        let [data, admin, stats, readiness] = free_ports()?;
        let at = |port| format!("127.0.0.1:{port}");
        let host = url.trim_start_matches("http://").trim_end_matches("/mcp");
        let rule = format!("sha256.encode(request.headers[\"x-sidegate-key\"]) == \"{KEY_DIGEST}\"");
        // As yaml_applier renders a route.
        let route = json!({
            "name": "bench",
            "matches": [{"path": {"pathPrefix": "/mcp/bench"}}],
            "policies": {
                "authorization": {"rules": [rule]},
                "urlRewrite": {"path": {"full": "/mcp"}, "authority": {"full": host}},
                "requestHeaderModifier": {"remove": ["x-sidegate-key"]},
                "responseHeaderModifier": {"set": {"x-sidegate-route": "bench"}},
                "transformations": {"request": {
                    "set": {"traceparent": "request.headers[\"x-sidegate-traceparent\"]"},
                    "remove": ["x-sidegate-traceparent"],
                }},
            },
            "backends": [{"host": host}],
        });
        let config = json!({
            "config": {"adminAddr": at(admin), "statsAddr": at(stats), "readinessAddr": at(readiness)},
            "binds": [{"port": data, "listeners": [{"name": "sidegate", "routes": [route]}]}],
        });
        let file = directory.path().join("agentgateway.yaml");
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new(self.sidegate);
        command.args(["gateway", "serve", "-f"]).arg(&file);
        let mut process = Process::start(&mut under_callgrind(&command, directory.path()))?;
        process.discard_output();
        let target = Target::Keyed { url: format!("http://127.0.0.1:{data}/mcp/bench"), key: KEY };
        let mut session = loop {
            match Session::open(&target).await {
                Ok(session) => break session,
                Err(error) => process.is_running().map_err(|ended| format!("{ended}; {error}"))?,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        call(&mut session, calls, size).await?;
        let collected = collected(process, directory.path()).await;
        upstream.end().await?;
        collected
    }

    async fn upstream(&self, tools: usize) -> Result<(Process, String)> {
        let mut process =
            Process::start(Command::new(self.me).args(["upstream", "--tools", &tools.to_string()]))?;
        let url = process.url().await?;
        Ok((process, url))
    }
}

async fn call(session: &mut Session, calls: usize, size: usize) -> Result {
    for _ in 0..calls {
        session.call(&vec![b'a'; size]).await?;
    }
    Ok(())
}

/// The command as a callgrind run whose result goes into `directory`.
fn under_callgrind(command: &Command, directory: &Path) -> Command {
    let inner = command.as_std();
    let mut outer = Command::new("valgrind");
    outer.args(["--tool=callgrind", "--trace-children=no", "--quiet"]);
    outer.arg(format!("--callgrind-out-file={}", directory.join("callgrind").display()));
    outer.arg(inner.get_program()).args(inner.get_args()).stderr(std::process::Stdio::null());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    outer
}

/// Ends a run, and reads what it has counted.
async fn collected(process: Process, directory: &Path) -> Result<f64> {
    process.end().await?;
    let text = std::fs::read_to_string(directory.join("callgrind"))?;
    // One part for each dump, and one total: the format of callgrind's output, "totals: N".
    let total = text.lines().filter_map(|line| line.strip_prefix("totals: ")).next_back();
    Ok(total.ok_or("callgrind has written no total")?.trim().parse()?)
}

/// Compares with a baseline. Whether nothing costs too much.
pub(crate) fn compare(counts: &Counts, baseline: &Counts) -> bool {
    let mut fine = true;
    for (what, count) in counts {
        let (change, verdict) = match baseline.get(what) {
            None => (0.0, "new: add it to the baseline with --update"),
            Some(before) => {
                let change = (count / before - 1.0) * 100.0;
                let verdict = match change {
                    change if change > ROOM => "TOO MUCH",
                    change if change < -ROOM => "better: keep it with --update",
                    _ => "",
                };
                fine &= change <= ROOM;
                (change, verdict)
            }
        };
        eprintln!("{what:<52} {count:>10.0} instructions {change:>+6.1} %  {verdict}");
    }
    fine
}
