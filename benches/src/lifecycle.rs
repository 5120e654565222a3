//! What it takes to start, to change, to stop and to grow.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use crate::Result;
use crate::client::{Session, Target};
use crate::path::{Upstream, serve, write_definition};
use crate::process::{Process, memory, usage};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How often each thing is done.
    pub(crate) times: usize,
    /// How many instances are started at once, and how often.
    pub(crate) starts: &'static [(usize, usize)],
    pub(crate) servers: &'static [usize],
    pub(crate) sessions: &'static [usize],
}

impl Plan {
    pub(crate) fn quick() -> Self {
        Self { times: 5, starts: &[(32, 1)], servers: &[1, 10, 50], sessions: &[1, 10, 100] }
    }

    pub(crate) fn full() -> Self {
        Self {
            times: 15,
            starts: &[(32, 5), (64, 20)],
            servers: &[1, 10, 100, 500],
            sessions: &[1, 10, 100, 1000],
        }
    }
}

/// Between two edits of definitions.
const QUIET: Duration = Duration::from_millis(500);

/// One figure, with all that was measured for it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) gateway: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
}

impl Figure {
    /// Median, smallest and largest.
    pub(crate) fn spread(&self) -> [f64; 3] {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        match values.as_slice() {
            [] => [0.0; 3],
            [first, .., last] => [values[values.len() / 2], *first, *last],
            [only] => [*only; 3],
        }
    }
}

/// Sidegate with one of its gateways.
pub(crate) struct Subject<'s> {
    pub(crate) sidegate: &'s Path,
    pub(crate) gateway: Option<&'s PathBuf>,
    pub(crate) upstream: &'s Upstream<'s>,
    /// A server with many tools.
    pub(crate) many_tools: &'s str,
}

/// An instance of its own, with its definitions.
struct Running {
    process: Process,
    url: String,
    directory: TempDir,
}

impl Subject<'_> {
    /// Measures everything.
    pub(crate) async fn run(&self, plan: &Plan) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let name = if self.gateway.is_some() { "agentgateway" } else { "embedded" };
        let mut add = |what: &str, unit, values| {
            let figure = Figure { what: what.to_owned(), gateway: name, unit, values };
            let [median, low, high] = figure.spread();
            eprintln!("{name:<12} {what:<58} {median:>8.1} {unit} ({low:.1}-{high:.1})");
            figures.push(figure);
        };

        let (mut ready, mut stopped) = (Vec::new(), Vec::new());
        for _ in 0..plan.times {
            let begun = Instant::now();
            let running = self.start(&[], "gateway").await?;
            ready.push(millis(begun));
            let begun = Instant::now();
            running.process.end().await?;
            stopped.push(millis(begun));
        }
        add("start to ready, no servers", "ms", ready);
        add("stop, no servers", "ms", stopped);

        for (kind, spec) in [("remote", self.remote()), ("stdio", self.stdio())] {
            let (mut called, mut stopped) = (Vec::new(), Vec::new());
            for _ in 0..plan.times {
                let begun = Instant::now();
                let running = self.start(&[("one".to_owned(), spec.clone())], "gateway").await?;
                let mut session = Session::initialize(&Target::Http(running.url.clone())).await?;
                until_called(&mut session, "x_one_echo").await?;
                called.push(millis(begun));
                let begun = Instant::now();
                running.process.end().await?;
                stopped.push(millis(begun));
            }
            add(&format!("start to first call, one {kind} server"), "ms", called);
            add(&format!("stop, one {kind} server"), "ms", stopped);
        }

        for (kind, spec) in [("remote", self.remote()), ("stdio", self.stdio())] {
            let running = self.start(&[], "gateway").await?;
            let mut session = Session::initialize(&Target::Http(running.url.clone())).await?;
            let mut callable = Vec::new();
            for number in 0..plan.times {
                let name = format!("new-{number}");
                // Whoever edits files does not do it every few milliseconds; that would be coalesced.
                tokio::time::sleep(QUIET).await;
                let begun = Instant::now();
                write_definition(running.directory.path(), &name, &spec)?;
                until_called(&mut session, &format!("x_{name}_echo")).await?;
                callable.push(millis(begun));
            }
            add(&format!("definition written to callable, {kind}"), "ms", callable);
            running.process.end().await?;
        }

        for (at_once, rounds) in plan.starts.iter().copied() {
            let (together, failures) = self.start_together(at_once, rounds).await?;
            add(&format!("{at_once} starts at once, all ready"), "ms", together);
            let failures = vec![f64::from(failures)];
            add(&format!("failures in {} starts, {at_once} at once", at_once * rounds), "", failures);
        }

        let many: Vec<_> = (0..20).map(|number| (format!("s{number}"), self.many_tools())).collect();
        let running = self.start(&many, "servers").await?;
        let sessions = clients(&running.url, 50).await?;
        add(
            "manager's memory, 20 servers, 400 tools, 50 clients",
            "MB",
            vec![megabytes(memory(running.process.pid())?)],
        );
        add("the same, all processes", "MB", vec![megabytes(usage(running.process.pid())?.memory)]);
        drop(sessions);
        running.process.end().await?;

        for count in plan.servers {
            let many: Vec<_> = (0..*count).map(|number| (format!("s{number}"), self.many_tools())).collect();
            let begun = Instant::now();
            let running = self.start(&many, "servers").await?;
            add(&format!("start to all connected, {count} servers of 20 tools"), "ms", vec![millis(begun)]);
            let _client = clients(&running.url, 1).await?;
            let used = megabytes(memory(running.process.pid())?);
            add(&format!("manager's memory, {count} servers of 20 tools, 1 client"), "MB", vec![used]);
            running.process.end().await?;
        }

        let running = self.start(&[("one".to_owned(), self.many_tools())], "servers").await?;
        let mut sessions = Vec::new();
        for count in plan.sessions {
            sessions.extend(clients(&running.url, count - sessions.len()).await?);
            let used = megabytes(memory(running.process.pid())?);
            add(&format!("manager's memory, 1 server, {count} clients"), "MB", vec![used]);
        }
        drop(sessions);
        running.process.end().await?;
        Ok(figures)
    }

    /// Starts instances with one server each, all at once, and ends them. Gives how long each round took, and how many starts have
    /// failed.
    async fn start_together(&self, at_once: usize, rounds: usize) -> Result<(Vec<f64>, u32)> {
        let (mut together, mut failures) = (Vec::new(), 0);
        for _ in 0..rounds {
            let begun = Instant::now();
            let starting = (0..at_once)
                .map(|_| async { self.start(&[("one".to_owned(), self.remote())], "servers").await });
            let (started, failed): (Vec<_>, Vec<_>) =
                join_all(starting).await.into_iter().partition(Result::is_ok);
            together.push(millis(begun));
            for error in failed.into_iter().filter_map(Result::err) {
                eprintln!("a start failed: {error}");
                failures += 1;
            }
            let ends = started.into_iter().filter_map(Result::ok).map(|running| running.process.end());
            for ended in join_all(ends).await {
                ended?;
            }
        }
        Ok((together, failures))
    }

    async fn start(&self, definitions: &[(String, serde_json::Value)], wait: &str) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("mcpservers"))?;
        for (name, spec) in definitions {
            write_definition(directory.path(), name, spec)?;
        }
        let mut process = Process::start(&mut serve(self.sidegate, directory.path(), self.gateway, wait))?;
        let url = process.url().await?;
        Ok(Running { process, url, directory })
    }

    fn remote(&self) -> serde_json::Value {
        json!({"type": "streamable-http", "url": self.upstream.url})
    }

    fn many_tools(&self) -> serde_json::Value {
        json!({"type": "streamable-http", "url": self.many_tools})
    }

    fn stdio(&self) -> serde_json::Value {
        let command = self.upstream.command;
        json!({"type": "stdio", "command": command[0], "args": command[1..]})
    }
}

/// Sessions that have listed the tools and called one.
async fn clients(url: &str, count: usize) -> Result<Vec<Session>> {
    let target = Target::Http(url.to_owned());
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        let mut session = Session::open(&target).await?;
        session.call(b"hello").await?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Calls a tool until there is one.
async fn until_called(session: &mut Session, tool: &str) -> Result {
    const LIMIT: Duration = Duration::from_secs(30);
    let begun = Instant::now();
    let params = json!({"name": tool, "arguments": {"text": "hello"}});
    loop {
        match session.ask("tools/call", &params).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
