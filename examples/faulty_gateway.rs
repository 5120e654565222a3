//! A stand-in for agentgateway that misbehaves on demand, for the tests of whatever looks after gateways.
//!
//! It understands `--version`, `-f FILE` and `-f FILE --validate-only`, and serves with the library's own gateway. A gateway's
//! environment is cleared, so its orders are in files beside its home directory: `gateway-faults` has one line a start, the
//! last of which also stands for all later starts, and `refuse WORD` for `--validate-only`; each start adds a line with its
//! process id to `gateway-starts`.

use std::env::args;
use std::fs::File;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let args: Vec<String> = args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--version"] => {
            writeln!(stdout(), r#"{{"version": "1.2.1"}}"#)?;
            Ok(ExitCode::SUCCESS)
        }
        ["-f", file, "--validate-only"] => validate(Path::new(file)),
        ["-f", file] => serve(Path::new(file)).await,
        _ => Err(format!("no such arguments: {args:?}").into()),
    }
}

fn beside_home(name: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").ok_or("there is no HOME")?;
    Ok(Path::new(&home).with_file_name(name))
}

/// The orders for starts, and the words that are refused.
fn orders() -> Result<(Vec<String>, Vec<String>)> {
    let text = std::fs::read_to_string(beside_home("gateway-faults")?)?;
    let (refused, starts): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("refuse "));
    let refused = refused.iter().filter_map(|line| line.split_once(' ')).map(|(_, word)| word.to_owned());
    Ok((starts.into_iter().map(str::to_owned).collect(), refused.collect()))
}

/// As agentgateway says it, which names only the first of several routes.
fn validate(file: &Path) -> Result<ExitCode> {
    let (text, (_, words)) = (std::fs::read_to_string(file)?, orders()?);
    let Some(position) = words.iter().filter_map(|word| text.find(word.as_str())).min() else {
        writeln!(stdout(), "Configuration is valid!")?;
        return Ok(ExitCode::SUCCESS);
    };
    let routes = text.get(..position).unwrap_or_default().matches("\n          - name:").count();
    let route = routes.saturating_sub(1);
    writeln!(
        stderr(),
        "Error: binds[0].listeners[0].routes[{route}].policies: unknown field `brew`, expected one of \
         `requestHeaderModifier`, `urlRewrite` at line 1 column 77"
    )?;
    Ok(ExitCode::FAILURE)
}

/// The order for this start.
fn order() -> Result<String> {
    let path = beside_home("gateway-starts")?;
    let before = std::fs::read_to_string(&path).unwrap_or_default().lines().count();
    writeln!(File::options().append(true).create(true).open(path)?, "{}", std::process::id())?;
    let (starts, _) = orders()?;
    Ok(starts.get(before).or(starts.last()).cloned().unwrap_or_default())
}

async fn serve(file: &Path) -> Result<ExitCode> {
    let order = order()?;
    let words: Vec<&str> = order.split(' ').collect();
    let text = std::fs::read_to_string(file)?;
    let copy = Copy::of(file)?;
    let mut serves = file.to_owned();
    let mut asked_to_exit = None;
    let mut listens_to_term = true;
    match words.as_slice() {
        [""] | ["none"] => {}
        ["never-ready"] => std::future::pending().await,
        ["exit", code, words @ ..] => {
            writeln!(stderr(), "{}", words.join(" "))?;
            return Ok(ExitCode::from(code.parse::<u8>()?));
        }
        ["exit-on-usr1", code] => asked_to_exit = Some(code.parse::<u8>()?),
        ["ignore-term"] => listens_to_term = false,
        ["flood"] => drop(std::thread::spawn(flood)),
        ["close-stdout"] => {
            let null = File::options().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
        }
        ["generation", body] => serves = copy.put(&with_generation(&text, body)?)?,
        // What the first process of this gateway was given.
        ["predecessor"] => serves = copy.first.clone(),
        ["no-reload"] => serves = copy.put(&text)?,
        ["slow-reload", ms] => {
            serves = copy.put(&text)?;
            tokio::spawn(follow(file.to_owned(), text, copy, Duration::from_millis(ms.parse()?)));
        }
        ["wrong-port"] => serves = copy.put(&with_another_port(&text)?)?,
        _ => return Err(format!("no such fault: {order}").into()),
    }

    let (mut term, mut usr1) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    let stop = CancellationToken::new();
    let serving = sidegate::gateway::serve(serves, stop.clone());
    tokio::pin!(serving);
    loop {
        tokio::select! {
            served = &mut serving => {
                served?;
                return Ok(ExitCode::SUCCESS);
            }
            _ = term.recv(), if listens_to_term => stop.cancel(),
            _ = usr1.recv() => if let Some(code) = asked_to_exit {
                writeln!(stderr(), "told to exit")?;
                return Ok(ExitCode::from(code));
            },
        }
    }
}

fn flood() -> std::io::Result<()> {
    let line = "x".repeat(200);
    loop {
        writeln!(stdout(), "{line}")?;
    }
}

/// A directory of our own beside the file, for another file to serve. It goes away with the file's directory.
struct Copy {
    directory: PathBuf,
    first: PathBuf,
}

impl Copy {
    fn of(file: &Path) -> Result<Self> {
        let directory = file.with_file_name("served");
        std::fs::create_dir_all(&directory)?;
        let first = directory.join("first.yaml");
        if !first.exists() {
            std::fs::copy(file, &first)?;
        }
        Ok(Self { directory, first })
    }

    /// In one step, as a gateway may be reading it.
    fn put(&self, text: &str) -> Result<PathBuf> {
        let (new, path) = (self.directory.join("new"), self.directory.join("served.yaml"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }
}

/// Takes each version of the file over after a while.
async fn follow(file: PathBuf, mut text: String, copy: Copy, delay: Duration) {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        // In the middle of a replacement, or at the end of the test, there is none.
        let Ok(now) = std::fs::read_to_string(&file) else { continue };
        if now != text {
            tokio::time::sleep(delay).await;
            drop(copy.put(&now));
            text = now;
        }
    }
}

/// The first line whose key is `key`, with another value.
fn with_value(text: &str, key: &str, value: &str) -> Result<String> {
    let at = text.find(key).ok_or_else(|| format!("there is no {key:?}"))? + key.len();
    let (before, rest) = text.split_at(at);
    let (_, after) = rest.split_once('\n').unwrap_or((rest, ""));
    Ok(format!("{before}{value}\n{after}"))
}

fn with_generation(text: &str, body: &str) -> Result<String> {
    with_value(text, "body: ", &format!("'{body}'"))
}

fn with_another_port(text: &str) -> Result<String> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    with_value(text, "- port: ", &free.to_string())
}
