//! Several processes and tasks that want the same release, and the proof of what runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use sidegate::binary_resolver::{DEFAULT_VERSION, Event, Origin, ResolveError, verify_running};
use tokio::sync::Notify;

use super::release_server::{ReleaseServer, file, held, stall, status, whole};
use super::*;

const BASE: &str = "SIDEGATE_TEST_RESOLVER_BASE";
const CACHE: &str = "SIDEGATE_TEST_RESOLVER_CACHE";
const SEED: u8 = 40;

/// This test binary as another process that fetches `content(SEED)` and prints its events and result.
fn other(base: &str, cache: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "resolver::processes::other_process",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(BASE, base).env(CACHE, cache).stdout(Stdio::piped());
    command
}

#[tokio::test]
#[ignore = "the body of the process that other tests start"]
async fn other_process() {
    let (Ok(base), Some(cache)) = (std::env::var(BASE), std::env::var_os(CACHE)) else { return };
    let resolver = resolver_with(&base, Path::new(&cache), &content(SEED), limits());
    let progress = |event: Event<'_>| match event {
        Event::Received { bytes, .. } => say(&format!("event received {bytes}")),
        Event::Waiting { pid } => say(&format!("event waiting {pid:?}")),
        _ => {}
    };
    match resolver.fetch(DEFAULT_VERSION, &progress).await {
        Ok(verified) => say(&format!("result {:?}", verified.origin())),
        Err(error) => say(&format!("result error {error}")),
    }
}

/// Writes to the stdout of the process; `println!` would write to the harness.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// Reads the child's stdout up to a line that holds `text`, and returns that line from there on.
fn read_until(child: &mut Child, text: &str) -> String {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines.map(Result::unwrap).find_map(|line| line.find(text).map(|at| line[at..].to_owned()));
    found.unwrap_or_else(|| panic!("the process ended without {text:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_download_once() {
    let data = content(SEED);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| file(seen, &served, "\"a\"")).await;
    let cache = Cache::new();
    let resolvers: Vec<Resolver> = (0..16).map(|_| cache.resolver(&server.url(), &data)).collect();
    let found = try_join_all(resolvers.iter().map(fetch)).await.unwrap();
    assert_eq!(found.iter().filter(|found| found.origin() == Origin::Downloaded).count(), 1);
    assert_eq!(server.seen().len(), 1);
    assert_eq!(cache.files(), ["agentgateway-linux-amd64", "agentgateway-linux-amd64.verified"]);
}

#[tokio::test]
async fn who_waits_is_told_for_whom() {
    let data = content(SEED);
    let (served, waiting) = (data.clone(), Arc::new(Notify::new()));
    let gate = waiting.clone();
    // The answer is held back until the other one has said that it waits.
    let server = ReleaseServer::start(move |_| held(&served, gate.clone())).await;
    let cache = Cache::new();
    let resolver = cache.resolver(&server.url(), &data);
    let told = AtomicBool::new(false);
    let progress = |event: Event<'_>| {
        if let Event::Waiting { pid: Some(pid) } = event {
            assert_eq!(pid, std::process::id());
            told.store(true, Ordering::SeqCst);
            waiting.notify_one();
        }
    };
    let (first, second) =
        tokio::join!(resolver.fetch(DEFAULT_VERSION, &progress), resolver.fetch(DEFAULT_VERSION, &progress));
    let mut origins = [first.unwrap().origin(), second.unwrap().origin()].map(|origin| format!("{origin:?}"));
    origins.sort();
    assert_eq!(origins, ["Cached", "Downloaded"]);
    assert!(told.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_download_once() {
    let data = content(SEED);
    let server = ReleaseServer::start(move |seen| file(seen, &data, "\"a\"")).await;
    let cache = Cache::new();
    let children: Vec<Child> =
        (0..12).map(|_| other(&server.url(), &cache.root()).spawn().unwrap()).collect();
    let results = tokio::task::spawn_blocking(move || {
        let wait = |mut child: Child| {
            let result = read_until(&mut child, "result ");
            child.wait().unwrap();
            result
        };
        children.into_iter().map(wait).collect::<Vec<_>>()
    });
    let mut results = results.await.unwrap();
    results.sort();
    assert_eq!(results.pop().as_deref(), Some("result Downloaded"));
    assert!(results.iter().all(|result| result == "result Cached"), "{results:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_left_is_removed_by_the_next() {
    let data = content(SEED);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => stall(&served, 1000),
        _ => whole(&served),
    })
    .await;
    let cache = Cache::new();
    let mut child = other(&server.url(), &cache.root()).spawn().unwrap();
    let killed = tokio::task::spawn_blocking(move || {
        read_until(&mut child, "event received 1000");
        child.kill().unwrap();
        child.wait().unwrap();
    });
    killed.await.unwrap();
    let left = cache.files();
    assert!(left.len() == 1 && left[0].ends_with(".part"), "{left:?}");

    let found = fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    assert_eq!(found.origin(), Origin::Downloaded);
    assert_eq!(cache.files(), ["agentgateway-linux-amd64", "agentgateway-linux-amd64.verified"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_are_used_for_others_and_not_for_this_machine() {
    let data = content(SEED);
    let server = ReleaseServer::start(move |seen| file(seen, &data, "\"a\"")).await;
    let proxy = ReleaseServer::start(|_| status(502)).await;
    let run = |base: &str| {
        let cache = Cache::new();
        let mut command = other(base, &cache.root());
        for name in ["NO_PROXY", "no_proxy", "https_proxy", "http_proxy", "all_proxy", "REQUEST_METHOD"] {
            command.env_remove(name);
        }
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            command.env(name, proxy.url());
        }
        let mut child = command.spawn().unwrap();
        tokio::task::spawn_blocking(move || {
            let result = read_until(&mut child, "result ");
            child.wait().unwrap();
            drop(cache);
            result
        })
    };
    assert_eq!(run(&server.url()).await.unwrap(), "result Downloaded");
    assert_eq!(proxy.seen(), []);

    let result = run("https://releases.invalid").await.unwrap();
    assert!(result.starts_with("result error"), "{result}");
    assert!(!proxy.seen().is_empty());
    assert!(proxy.seen().iter().all(|seen| seen.path == "releases.invalid:443"), "{:?}", proxy.seen());
}

/// Ends a process when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a copy of `sleep`. Its file may still be open for writing in a process that another test has forked.
fn spawn(path: &Path) -> Running {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        // Some systems have one program that does as its name says.
        match Command::new(path).arg0("sleep").arg("600").spawn() {
            Ok(child) => return Running(child),
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                assert!(std::time::Instant::now() < deadline, "{error}");
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn the_running_process_is_the_verified_file_or_is_found_out() {
    let sleep = std::fs::canonicalize("/bin/sleep").unwrap();
    let data = std::fs::read(&sleep).unwrap();
    let served = data.clone();
    let server = ReleaseServer::start(move |_| whole(&served)).await;
    let cache = Cache::new();
    let verified = fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    let ours = spawn(verified.path());
    verify_running(ours.0.id(), &verified).unwrap();

    let stranger = spawn(&sleep);
    let error = verify_running(stranger.0.id(), &verified).unwrap_err();
    assert!(matches!(error, ResolveError::OtherFile { pid, .. } if pid == stranger.0.id()), "{error:?}");

    // Another file under the verified name, with the same bytes and the same time.
    let other = cache.directory().join("other");
    std::fs::copy(verified.path(), &other).unwrap();
    let time = std::fs::metadata(verified.path()).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&other).unwrap();
    file.set_times(std::fs::FileTimes::new().set_modified(time)).unwrap();
    drop(file);
    std::fs::rename(&other, verified.path()).unwrap();
    let replaced = spawn(verified.path());
    assert!(matches!(verify_running(replaced.0.id(), &verified), Err(ResolveError::OtherFile { .. })));
    // What was started before still is what it was.
    verify_running(ours.0.id(), &verified).unwrap();

    let mut ended = ours;
    ended.0.kill().unwrap();
    ended.0.wait().unwrap();
    assert!(matches!(verify_running(ended.0.id(), &verified), Err(ResolveError::Io { .. })));
}
