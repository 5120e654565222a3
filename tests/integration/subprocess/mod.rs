//! Trees of real processes: nothing of them may be left, whatever they do and whoever is killed.
//!
//! What is left is counted by a variable that each test gives its processes, in `/proc/*/environ`: neither a new session nor
//! a new parent removes it. `faults` shows that the count finds a leak where there is one.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sidegate::subprocess::{ChildTree, Helper, Spec, Stream};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout};

mod deaths;
mod faults;
mod supervisor;
mod surroundings;

/// The variable by which a test knows its own processes again.
const TAG: &str = "FAULTY_CHILD_TAG";

/// For what ought to happen at once, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

fn guarded() -> Helper {
    Helper::Program(PathBuf::from(env!("CARGO_BIN_EXE_sidegate")))
}

/// The example `faulty_child`, which cargo builds beside the tests.
fn faulty_child() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/faulty_child");
    assert!(path.is_file(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// The processes of one test.
struct Tagged {
    value: String,
}

impl Tagged {
    fn new() -> Self {
        Self { value: format!("{:016x}", getrandom::u64().unwrap()) }
    }

    /// The faulty child with a fault, its output piped.
    fn spec(&self, fault: &[&str]) -> Spec {
        let mut spec = Spec::new(faulty_child()).args(fault.iter().copied()).env(TAG, &self.value);
        spec.stdout = Stream::Piped;
        spec
    }

    /// All that live, guards included.
    fn alive(&self) -> Vec<Pid> {
        let wanted = format!("{TAG}={}", self.value);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let pid = path.file_name().unwrap().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && let Ok(environ) = std::fs::read(path.join("environ"))
                && environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
            {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until there are at least so many.
    async fn at_least(&self, count: usize) {
        eventually("the tree is up", || self.alive().len() >= count).await;
    }

    /// Waits until there are none.
    async fn none_left(&self) {
        eventually("no process is left", || self.alive().is_empty()).await;
    }

    fn assert_none_left(&self) {
        let left: Vec<String> = self
            .alive()
            .iter()
            .map(|pid| {
                let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
                std::fs::read_to_string(path).unwrap_or_default().replace('\0', " ")
            })
            .collect();
        assert!(left.is_empty(), "left: {left:#?}");
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Tagged {
    fn drop(&mut self) {
        for _ in 0..100 {
            let alive = self.alive();
            if alive.is_empty() {
                return;
            }
            for pid in alive {
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Fails instead of hanging.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it hangs")
}

/// Starts a tree and waits until its fault is in place.
async fn start(spec: Spec, helper: &Helper) -> ChildTree {
    let mut tree = soon(ChildTree::spawn(spec, helper)).await.unwrap();
    let mut stdout = tree.take_stdout().unwrap();
    let mut up = [0; 3];
    soon(stdout.read_exact(&mut up)).await.unwrap();
    assert_eq!(&up, b"up\n");
    tree
}

async fn read_all(mut pipe: pipe::Receiver) -> String {
    let mut text = String::new();
    soon(pipe.read_to_string(&mut text)).await.unwrap();
    text
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}
