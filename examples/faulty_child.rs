//! A child that misbehaves on demand, for the tests of whatever starts processes.
//!
//! `faulty_child FAULT [ARGS…]`. It prints `up` when the fault is in place, except where output is the fault.

use std::env::args;
use std::ffi::OsString;
use std::io::{Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit, kill_current_process_group, kill_process, setsid};
use sidegate::subprocess::{ChildTree, Helper, Spec};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["park"] => {
            up()?;
            park()
        }
        ["exit", code] => {
            writeln!(stdout(), "on stdout")?;
            writeln!(stderr(), "on stderr")?;
            write!(stderr(), "last words")?;
            return Ok(ExitCode::from(code.parse::<u8>()?));
        }
        ["signal", number] => {
            let signal = Signal::from_named_raw(number.parse()?).ok_or("no such signal")?;
            kill_process(rustix::process::getpid(), signal)?;
            park()
        }
        ["kill-group"] => kill_current_process_group(Signal::KILL)?,
        // Makes a file, which is how a test's probe knows it to be ready.
        ["ready", file] => {
            std::fs::write(file, "")?;
            park()
        }
        ["ignore-term"] => {
            ignore_term()?;
            up()?;
            park()
        }
        // Ends by itself on SIGTERM, with a code.
        ["on-term", code] => {
            let told = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(Signal::TERM.as_raw(), told.clone())?;
            up()?;
            while !told.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(ExitCode::from(code.parse::<u8>()?));
        }
        ["flood", lines] => {
            let filler = "x".repeat(100);
            for number in 0..lines.parse::<u64>()? {
                writeln!(stdout(), "{number} {filler}")?;
                writeln!(stderr(), "{number} {filler}")?;
            }
        }
        ["close-stdout"] => {
            up()?;
            rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
            park()
        }
        ["echo"] => {
            std::io::copy(&mut stdin(), &mut stdout())?;
        }
        ["surroundings"] => {
            writeln!(stdout(), "cwd={}", std::env::current_dir()?.display())?;
            for (name, value) in std::env::vars() {
                writeln!(stdout(), "{name}={value}")?;
            }
        }
        ["open-files"] => writeln!(stdout(), "{:?}", getrlimit(Resource::Nofile).current)?,
        // Lists its own descriptors but the one that lists them.
        ["descriptors"] => {
            let mut numbers: Vec<u32> = std::fs::read_dir("/proc/self/fd")?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?))
                .collect::<Result<_>>()?;
            numbers.sort_unstable();
            writeln!(stdout(), "{numbers:?}")?;
        }
        ["write-to", variable] => {
            let path = format!("/proc/self/fd/{}", std::env::var(variable)?);
            std::fs::File::options().write(true).open(path)?.write_all(b"ready")?;
        }
        ["tree", kind] => {
            plant(kind)?;
            up()?;
            park()
        }
        // Plants a tree and leaves it behind.
        ["litter", kind] => plant(kind)?,
        // An orphan that ends by itself, which somebody has to reap.
        ["short-orphans"] => {
            for _ in 0..5 {
                myself(&["spawn-and-exit", "exit", "0"])?.wait()?;
            }
            up()?;
            park()
        }
        ["spawn-and-exit", rest @ ..] => {
            myself(rest)?;
        }
        ["setsid-park"] => {
            setsid()?;
            ignore_term()?;
            park()
        }
        ["setsid-and-leave"] => {
            setsid()?;
            myself(&["setsid-park"])?;
        }
        ["bomb", depth] => {
            setsid()?;
            bomb(depth.parse()?)?;
        }
        // Starts a tree of its own, as sidegate does, and waits to be killed.
        ["parent", helper, rest @ ..] => parent(helper, rest)?,
        _ => return Err(format!("no such fault: {args:?}").into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the processes of a hostile tree: none of them listens to SIGTERM, all of them leave session and group.
fn plant(kind: &str) -> Result {
    ignore_term()?;
    match kind {
        "setsid" => drop(myself(&["setsid-park"])?),
        "double-fork" => {
            myself(&["setsid-and-leave"])?.wait()?;
        }
        "wide" => {
            for _ in 0..50 {
                myself(&["setsid-park"])?;
            }
        }
        "bomb" => drop(myself(&["bomb", "5"])?),
        _ => return Err("no such tree".into()),
    }
    Ok(())
}

/// A binary tree of processes, each of which replaces its children as they are killed, up to a number of times.
fn bomb(depth: u32) -> Result {
    ignore_term()?;
    let depth = depth.saturating_sub(1);
    if depth == 0 {
        park();
    }
    let depth = depth.to_string();
    let mut children = [myself(&["bomb", &depth])?, myself(&["bomb", &depth])?];
    let mut replacements = 20;
    loop {
        for child in &mut children {
            if replacements > 0 && child.try_wait()?.is_some() {
                *child = myself(&["bomb", &depth])?;
                replacements -= 1;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn parent(helper: &str, args: &[&str]) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut spec = Spec::new(std::env::current_exe()?).args(args.iter().map(|arg| OsString::from(*arg)));
        spec.env = std::env::vars_os().collect();
        let _tree = ChildTree::spawn(spec, &Helper::Program(PathBuf::from(helper))).await?;
        up()?;
        std::future::pending().await
    })
}

fn myself(args: &[&str]) -> Result<Child> {
    let own = std::env::current_exe()?;
    // None of them holds the test's pipes open: that would be another fault.
    let mut command = Command::new(own);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

fn ignore_term() -> Result {
    signal_hook::flag::register(Signal::TERM.as_raw(), Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

fn up() -> Result {
    Ok(writeln!(stdout(), "up")?)
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}
