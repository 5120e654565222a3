//! Processes that are measured: starting and ending them, and what they and their descendants use.

use std::collections::HashMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;

/// How long a process may take to start, and to end when it is asked to.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(10);

/// A process of ours. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Stays open: whoever writes to it must not be told that nobody reads.
    stdout: Option<BufReader<ChildStdout>>,
}

/// The line that servers say where they are with.
#[derive(Debug, Deserialize)]
struct Listening {
    url: String,
}

impl Process {
    /// Starts a command. What it writes to stderr is ours.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut process = Self { child, stdout: None };
        process.stdout = process.child.stdout.take().map(BufReader::new);
        Ok(process)
    }

    /// Waits for a first line on stdout that is JSON with a `url`, and gives that.
    pub(crate) async fn url(&mut self) -> Result<String> {
        let Some(stdout) = &mut self.stdout else { return Err("there is no stdout".into()) };
        let mut line = String::new();
        timeout(START, stdout.read_line(&mut line)).await.map_err(|_| "it did not start in time")??;
        let listening: Listening =
            serde_json::from_str(&line).map_err(|error| format!("it said {line:?} on stdout: {error}"))?;
        Ok(listening.url)
    }

    /// Reads what else it writes to stdout, and forgets it: a full pipe would stop it.
    pub(crate) fn discard_output(&mut self) {
        if let Some(mut stdout) = self.stdout.take() {
            tokio::task::spawn_local(
                async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await },
            );
        }
    }

    /// Whether it runs still; where not, how it ended.
    pub(crate) fn is_running(&mut self) -> Result {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("it ended early, with {status}").into()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Asks it to end, and kills it where it does not.
    pub(crate) async fn end(mut self) -> Result {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            kill_process(pid, Signal::TERM)?;
        }
        if timeout(END, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// What a process and all of its descendants use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of user and system, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory, in bytes.
    pub(crate) memory: u64,
    pub(crate) processes: usize,
}

/// What the tree below `root` uses, itself included; nothing for 0.
pub(crate) fn usage(root: u32) -> Result<Usage> {
    let mut usage = Usage::default();
    if root == 0 {
        return Ok(usage);
    }
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have gone meanwhile.
        let Some(stat) = Stat::of(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        stats.insert(pid, stat);
    }
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        todo.extend(children.remove(&pid).unwrap_or_default());
        if let Some(stat) = stats.get(&pid) {
            usage.cpu += stat.ticks as f64 / ticks as f64;
            usage.memory += stat.pages * page;
            usage.processes += 1;
        }
    }
    Ok(usage)
}

/// The resident memory of one process, in bytes.
pub(crate) fn memory(pid: u32) -> Result<u64> {
    let stat = Stat::of(pid).ok_or("the process has gone")?;
    Ok(stat.pages * rustix::param::page_size() as u64)
}

/// What is of interest in `/proc/<pid>/stat` (proc(5)).
struct Stat {
    parent: u32,
    ticks: u64,
    pages: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            ticks: number(14)? + number(15)?,
            pages: number(24)?,
        })
    }
}
