//! What all end-to-end tests stand on.
//!
//! Everything here judges the product from outside: over processes, sockets and files. It shares no code with it, since a
//! judge that decodes with the decoder under test sees nothing. Waiting is always for an event, and always with
//! [`DEADLINE`] as the limit; no test sleeps.

#![expect(dead_code, reason = "each topic uses what it needs; the tools are one kit")]

pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod definitions;
pub(crate) mod forwarder;
pub(crate) mod generated;
pub(crate) mod leaks;
pub(crate) mod load;
pub(crate) mod mcp_client;
pub(crate) mod optional;
pub(crate) mod scripted;
pub(crate) mod sidegate;
pub(crate) mod sse;
pub(crate) mod stdio_client;
pub(crate) mod upstream;
pub(crate) mod watched;

mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::mcp_client::McpClient;
pub(crate) use self::sidegate::Sidegate;
pub(crate) use self::upstream::Upstream;

/// How long anything may take before a test fails. Far above what it does take, so that a loaded machine passes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at what has no event to wait for.
const POLL: Duration = Duration::from_millis(5);

/// Awaits `future`; panics with `what` when it takes longer than [`DEADLINE`].
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> + use<F> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        match tokio::time::timeout(DEADLINE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{what}: not within {DEADLINE:?} (awaited at {caller})"),
        }
    }
}

/// Polls `condition` until it gives a value, for what has no event to wait for: `/proc`, files, another process's
/// tables. Panics with `what` after [`DEADLINE`].
#[track_caller]
pub(crate) fn eventually<T, F: AsyncFnMut() -> Option<T>>(
    what: &str,
    mut condition: F,
) -> impl Future<Output = T> + use<T, F> {
    within(what, async move {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    })
}

/// The executable of one of this package's examples, which `cargo test` builds beside the tests.
pub(crate) fn example_path(name: &str) -> PathBuf {
    let path = profile_dir().join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --examples`, or the tests without naming a single target",
        path.display()
    );
    path
}

/// `target/<profile>`: the directory above the one that this test executable is in.
fn profile_dir() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.parent().and_then(|deps| deps.parent()).unwrap().to_path_buf()
}

/// `size` random bytes in hexadecimal.
fn random_hex(size: usize) -> String {
    let mut bytes = vec![0; size];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}
