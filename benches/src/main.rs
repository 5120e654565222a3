//! Measures Sidegate beside what it competes with: `scripts/bench`.
//!
//! | part | owns |
//! | --- | --- |
//! | `upstream` | the server at the end, which answers at once |
//! | `client` | sessions that cost little |
//! | `load` | calls one after the other, their latencies, what they cost |
//! | `path` | who stands in between: nobody, Sidegate, agentgateway, peers |
//! | `relay` | what a call costs on each path |
//! | `lifecycle` | what it takes to start, change, stop and grow |
//! | `instructions` | how many instructions things take |
//! | `process` | processes, and what they use |
//! | `report` | the figures as JSON and as Markdown |
//!
//! One thread makes all calls, the server has one of its own, and both are processes of their own: what is in between is
//! measured apart from them. What is in between still shares the machine with them, so figures are to be compared within a
//! run, not between machines.

mod client;
mod instructions;
mod lifecycle;
mod load;
mod path;
mod process;
mod relay;
mod report;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use tokio::process::Command;
use tokio::task::LocalSet;

use path::{Programs, Upstream};
use process::Process;
use report::Report;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures Sidegate beside what it competes with.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Other>,
    #[command(flatten)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Count instructions under callgrind, and compare with a baseline
    Instructions {
        /// The sidegate to measure
        #[arg(long, env = "SIDEGATE_BENCH_SIDEGATE", default_value = "sidegate")]
        sidegate: PathBuf,
        /// What was counted before
        #[arg(long, value_name = "FILE")]
        baseline: PathBuf,
        /// Make what is counted now the baseline
        #[arg(long)]
        update: bool,
    },
    /// The server at the end of all paths
    #[command(hide = true)]
    Upstream {
        #[arg(long, default_value_t = 1)]
        tools: usize,
        #[arg(long)]
        stdio: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Bench {
    /// The sidegate to measure
    #[arg(long, env = "SIDEGATE_BENCH_SIDEGATE", default_value = "sidegate")]
    sidegate: PathBuf,
    /// Another sidegate, to see what has changed
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// A real agentgateway
    #[arg(long, env = "SIDEGATE_TEST_AGENTGATEWAY")]
    agentgateway: Option<PathBuf>,
    /// The executable of the mcp-proxy crate
    #[arg(long, env = "SIDEGATE_BENCH_MCP_PROXY")]
    mcp_proxy: Option<PathBuf>,
    /// A Python that has fastmcp
    #[arg(long, env = "SIDEGATE_BENCH_FASTMCP")]
    fastmcp: Option<PathBuf>,
    /// The cli.js of mcp-hub
    #[arg(long, env = "SIDEGATE_BENCH_MCP_HUB")]
    mcp_hub: Option<PathBuf>,
    /// A minute or two instead of half an hour
    #[arg(long)]
    quick: bool,
    /// Only what calls cost, or only the lifecycle
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Only paths whose names hold this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    path: Vec<String>,
    /// Only this many sessions at once; may be given more than once
    #[arg(long, value_name = "N")]
    clients: Vec<usize>,
    /// Only payloads of this many bytes; may be given more than once
    #[arg(long, value_name = "BYTES")]
    payload: Vec<usize>,
    /// Seconds that each load lasts
    #[arg(long, value_name = "SECONDS")]
    time: Option<f64>,
    /// How often each load is repeated
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the figures go, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Relay,
    Lifecycle,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Into::into).and_then(
            |runtime| {
                LocalSet::new().block_on(&runtime, async {
                    match arguments.command {
                        Some(Other::Upstream { tools, stdio: true }) => upstream::stdio(tools),
                        Some(Other::Upstream { tools, stdio: false }) => upstream::http(tools).await,
                        Some(Other::Instructions { sidegate, baseline, update }) => {
                            count(&sidegate, &baseline, update).await
                        }
                        None => bench(arguments.bench).await,
                    }
                })
            },
        );
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(bench: Bench) -> Result {
    let begun = Instant::now();
    let mut programs = Programs {
        sidegate: bench.sidegate.clone(),
        before: bench.before.clone(),
        agentgateway: bench.agentgateway.clone(),
        mcp_proxy: bench.mcp_proxy.clone(),
        fastmcp: bench.fastmcp.clone(),
        mcp_hub: bench.mcp_hub.clone(),
    };
    if programs.agentgateway.is_none() {
        programs.agentgateway = cached_agentgateway(&programs.sidegate).await;
    }
    let mut report = Report::new(&programs, asked_for()).await;

    let me = std::env::current_exe()?.to_string_lossy().into_owned();
    let mut server = Process::start(Command::new(&me).arg("upstream"))?;
    let mut large_server = Process::start(Command::new(&me).args(["upstream", "--tools", "20"]))?;
    let url = server.url().await?;
    let command = [me, "upstream".to_owned(), "--stdio".to_owned()];
    let upstream = Upstream { url: &url, command: &command };

    if bench.only != Some(Part::Lifecycle) {
        let mut plan = if bench.quick { relay::Plan::quick() } else { relay::Plan::full() };
        plan.rounds = bench.rounds.unwrap_or(plan.rounds);
        plan.time = bench.time.map_or(plan.time, Duration::from_secs_f64);
        for (chosen, all) in [(bench.clients, &mut plan.clients), (bench.payload, &mut plan.payloads)] {
            if !chosen.is_empty() {
                *all = chosen;
            }
        }
        let wanted =
            |name: &str| bench.path.is_empty() || bench.path.iter().any(|text| name.contains(text.as_str()));
        let paths = path::start_all(&programs, &upstream, &wanted).await?;
        report.rows = relay::run(&paths, &plan).await?;
        for path in paths {
            path.end().await?;
        }
    }
    if bench.only != Some(Part::Relay) {
        let plan = if bench.quick { lifecycle::Plan::quick() } else { lifecycle::Plan::full() };
        let many_tools = large_server.url().await?;
        for gateway in [None, programs.agentgateway.as_ref()]
            .into_iter()
            .take(1 + usize::from(programs.agentgateway.is_some()))
        {
            let subject = lifecycle::Subject {
                sidegate: &programs.sidegate,
                gateway,
                upstream: &upstream,
                many_tools: &many_tools,
            };
            report.figures.extend(subject.run(&plan).await?);
        }
    }
    report.seconds = begun.elapsed().as_secs();
    for (file, text) in [(bench.json, report.json()?), (bench.markdown, report.markdown())] {
        if let Some(file) = file {
            if let Some(directory) = file.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::write(&file, text)?;
            eprintln!("written: {}", file.display());
        }
    }
    Ok(())
}

/// The arguments that matter to the figures; files of this machine do not.
fn asked_for() -> String {
    const OF_INTEREST: [&str; 7] =
        ["--quick", "--only", "--path", "--clients", "--payload", "--time", "--rounds"];
    let mut text = String::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if OF_INTEREST.contains(&argument.as_str()) {
            text.extend([" ", &argument]);
            if argument != "--quick" {
                text.extend(arguments.next().iter().flat_map(|value| [" ", value]));
            }
        }
    }
    text
}

async fn count(sidegate: &std::path::Path, baseline: &std::path::Path, update: bool) -> Result {
    let me = std::env::current_exe()?.to_string_lossy().into_owned();
    let counts = instructions::Subject { sidegate, me: &me }.count().await?;
    let before = match std::fs::read_to_string(baseline) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(error) if update && error.kind() == std::io::ErrorKind::NotFound => instructions::Counts::new(),
        Err(error) => return Err(format!("{}: {error}", baseline.display()).into()),
    };
    let fine = instructions::compare(&counts, &before);
    if update {
        std::fs::write(baseline, serde_json::to_string_pretty(&counts)? + "\n")?;
        eprintln!("written: {}", baseline.display());
    } else if !fine {
        return Err("more instructions than the baseline allows".into());
    }
    Ok(())
}

/// The agentgateway that Sidegate has downloaded and verified, where there is one.
async fn cached_agentgateway(sidegate: &std::path::Path) -> Option<PathBuf> {
    let output = Command::new(sidegate).args(["gateway", "path"]).output().await.ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_file()).then_some(path)
}
