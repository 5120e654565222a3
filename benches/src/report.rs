//! The figures, as JSON and as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tokio::process::Command;

use crate::Result;
use crate::lifecycle::Figure;
use crate::load::Sample;
use crate::path::{Kind, Programs};
use crate::relay::Row;

/// Everything that was measured in one run, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    versions: Vec<(&'static str, String)>,
    /// What was asked for.
    arguments: String,
    pub(crate) seconds: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
    /// The load average of the last minute, before anything was started.
    load: String,
}

impl Machine {
    fn this() -> Self {
        // What cannot be read is left out of the report.
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: value(&read("/proc/meminfo"), "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Report {
    pub(crate) async fn new(programs: &Programs, arguments: String) -> Self {
        let mut versions = vec![("sidegate", first_line(&programs.sidegate, &["version"]).await)];
        if let Some(program) = &programs.agentgateway {
            versions.push(("agentgateway", first_line(program, &["-V"]).await));
        }
        if let Some(program) = &programs.mcp_proxy {
            versions.push(("mcp-proxy", crate_version(program)));
        }
        if let Some(python) = &programs.fastmcp {
            let show = "import fastmcp, platform; print(fastmcp.__version__, 'on Python', platform.python_version())";
            versions.push(("fastmcp", first_line(python, &["-c", show]).await));
        }
        if let Some(program) = &programs.mcp_hub {
            let node = first_line(Path::new("node"), &["--version"]).await;
            let package = program.ancestors().nth(2).map(|root| root.join("package.json"));
            let version = package
                .and_then(|file| std::fs::read_to_string(file).ok())
                .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
                .and_then(|package| package["version"].as_str().map(str::to_owned));
            versions.push(("mcp-hub", format!("{} on Node {node}", version.unwrap_or_default())));
        }
        Self {
            machine: Machine::this(),
            versions,
            arguments,
            seconds: 0,
            rows: Vec::new(),
            figures: Vec::new(),
        }
    }

    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The whole page.
    pub(crate) fn markdown(&self) -> String {
        let mut page = String::from(INTRODUCTION);
        let Machine { cpu, cores, memory, kernel, load } = &self.machine;
        // Writing to a string does not fail.
        let _ = write!(
            page,
            "\n## Where\n\n| | |\n| --- | --- |\n| machine | {cpu}, {cores} cores, {memory}, Linux {kernel} |\n\
             | load before the run | {load} |\n| run | `just bench{}`, {} s |\n",
            self.arguments, self.seconds
        );
        for (name, version) in &self.versions {
            let _ = writeln!(page, "| {name} | {version} |");
        }
        for kind in [Kind::Http, Kind::Stdio] {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.upstream == kind).collect();
            if rows.is_empty() {
                continue;
            }
            let what = match kind {
                Kind::Http => "a remote server",
                Kind::Stdio => "a stdio server",
            };
            let _ = write!(page, "\n## Calls to {what}\n");
            let mut load = None;
            for row in rows {
                let this = (row.load.payload, row.load.clients);
                if load.replace(this) != Some(this) {
                    let clients = if this.1 == 1 { "client" } else { "clients" };
                    let _ = write!(page, "\n### {}, {} {clients}\n\n{HEAD}", size(this.0), this.1);
                }
                page.push_str(&line(row));
            }
        }
        if !self.figures.is_empty() {
            page.push_str("\n## Starting, changing, stopping, growing\n\n| what | gateway | median | range |\n| --- | --- | ---: | ---: |\n");
            for figure in &self.figures {
                let [median, low, high] = figure.spread();
                let Figure { what, gateway, unit, values } = figure;
                let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
                let range = if values.len() > 1 { format!("{low:.1} – {high:.1}") } else { String::new() };
                let _ = writeln!(page, "| {what} | {gateway} | {median:.1}{unit} | {range} |");
            }
        }
        page
    }
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `just bench`; do not edit. The harness is in [benches](../benches/src/main.rs), the peers are installed by
`benches/peers`.

All paths of a table were measured in one run, taking turns: each figure is the median of the rounds, with the smallest and the
largest where a range is given. Each client is an MCP session that makes its next call when it has the answer to the last one; each
answer is checked to hold what was sent, which differs from call to call. The server at the end answers at once. It, the
clients and whatever is in between share the machine, so compare figures of one table, not of two machines.

- *p50*, *p95*, *p99*: from before a call is sent to after its answer was read.
- *CPU*: seconds of CPU time, user and system, that everything in between needs for 10 000 calls, all of its processes counted;
  without the clients and without a remote server. A stdio server is a process of whoever starts it, so it is counted there.
- *memory*: resident, of the same processes, at the end.
- agentgateway logs no calls, by itself as behind Sidegate, where that is the default.
- Calls to a stdio server do not go through the embedded gateway ([decision 10](decisions/010-children-without-the-embedded-gateway.md)).
- In front of the stdio server *direct* means one process for each client.
";

const HEAD: &str = "\
| path | p50 µs | range | p95 µs | p99 µs | calls/s | range | CPU s | memory MB | errors |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

fn line(row: &Row) -> String {
    let median = |of: fn(&Sample) -> f64| row.median(of);
    let [p50, p50_low, p50_high] = row.spread(|sample| sample.p50);
    let [rate, rate_low, rate_high] = row.spread(|sample| sample.rate);
    let errors: u64 = row.samples.iter().map(|sample| sample.errors).sum();
    // What does not work has no figures.
    if let (0.0, Some(error)) = (rate, row.samples.iter().find_map(|sample| sample.error.as_deref())) {
        let why = error.lines().next().unwrap_or_default().replace(['|', '<', '>'], " ");
        return format!("| {} | fails: {why:.60} | | | | | | | | {errors} |\n", row.path);
    }
    let (cpu, memory) = (median(|sample| sample.cpu), median(|sample| sample.memory as f64) / 1e6);
    // Nobody stands in between on a direct path.
    let (cpu, memory) = if memory == 0.0 {
        (String::new(), String::new())
    } else {
        (format!("{cpu:.2}"), format!("{memory:.0}"))
    };
    format!(
        "| {} | {p50:.0} | {p50_low:.0} – {p50_high:.0} | {:.0} | {:.0} | {rate:.0} | {rate_low:.0} – {rate_high:.0} | {cpu} | {memory} | {errors} |\n",
        row.path,
        median(|sample| sample.p95),
        median(|sample| sample.p99),
    )
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 0x10_0000),
    }
}

/// The first line that a program says, without its own name.
async fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().await;
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim();
    line.split_once(' ')
        .filter(|(name, _)| !name.starts_with(|c: char| c.is_ascii_digit()))
        .map_or(line, |(_, rest)| rest)
        .to_owned()
}

/// The version of a crate's program, from cargo's own list beside it: it says none itself.
fn crate_version(program: &Path) -> String {
    let list = program.ancestors().nth(2).map(|root| root.join(".crates.toml"));
    let text = list.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("\"mcp-proxy "));
    line.and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned()
}
