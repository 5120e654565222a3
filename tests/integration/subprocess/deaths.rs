//! Who may be killed: the command, the guard, we.

use std::process::Stdio;
use std::time::Duration;

use rstest::rstest;
use rustix::process::{Signal, kill_process};
use sidegate::subprocess::{Ending, StopRecipe};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{TAG, Tagged, eventually, faulty_child, guarded, pid, soon, start};

#[rstest]
#[case("setsid", 4)]
#[case("double-fork", 4)]
#[case("wide", 53)]
#[case("bomb", 34)]
#[tokio::test]
async fn a_tree_ends_with_its_parent(#[case] kind: &str, #[case] size: usize) {
    let tag = Tagged::new();
    let mut parent = Command::new(faulty_child())
        .args(["parent", env!("CARGO_BIN_EXE_sidegate"), "tree", kind])
        .env(TAG, &tag.value)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    soon(parent.stdout.take().unwrap().read_exact(&mut [0; 3])).await.unwrap();
    tag.at_least(size).await;
    parent.start_kill().unwrap();
    soon(parent.wait()).await.unwrap();
    tag.none_left().await;
}

#[rstest]
#[case("setsid", 3)]
#[case("double-fork", 3)]
#[case("wide", 52)]
#[case("bomb", 33)]
#[tokio::test]
async fn a_tree_is_swept_up_when_its_guard_is_killed(#[case] kind: &str, #[case] size: usize) {
    let tag = Tagged::new();
    let mut tree = start(tag.spec(&["tree", kind]), &guarded()).await;
    tag.at_least(size).await;
    kill_process(pid(tree.guard_pid().unwrap()), Signal::KILL).unwrap();
    assert_eq!(soon(tree.wait()).await, Ending::GuardLost);
    tag.assert_none_left();
    assert_eq!(soon(tree.stop(&StopRecipe::terminate(Duration::from_secs(60)))).await.left, 0);
}

#[tokio::test]
async fn a_tree_is_swept_up_when_it_is_dropped_after_its_guard() {
    let tag = Tagged::new();
    let tree = start(tag.spec(&["tree", "double-fork"]), &guarded()).await;
    tag.at_least(3).await;
    let guard = pid(tree.guard_pid().unwrap());
    kill_process(guard, Signal::KILL).unwrap();
    let stat = format!("/proc/{}/stat", guard.as_raw_nonzero());
    eventually("the guard is dead", || std::fs::read_to_string(&stat).unwrap().contains(") Z ")).await;
    drop(tree);
    tag.none_left().await;
}

#[rstest]
#[case(Signal::TERM)]
#[case(Signal::INT)]
#[tokio::test]
async fn a_guard_passes_on_what_is_meant_to_end_it(#[case] signal: Signal) {
    let tag = Tagged::new();
    let mut tree = start(tag.spec(&["park"]), &guarded()).await;
    kill_process(pid(tree.guard_pid().unwrap()), signal).unwrap();
    assert_eq!(soon(tree.wait()).await, Ending::Killed(signal.as_raw()));
    soon(tree.stop(&StopRecipe::kill())).await;
    tag.assert_none_left();
}

#[tokio::test]
async fn a_guard_does_not_bear_our_name() {
    let tag = Tagged::new();
    let tree = start(tag.spec(&["park"]), &guarded()).await;
    let guard = tree.guard_pid().unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{guard}/comm")).unwrap(), "tree-guard\n");
}

#[tokio::test]
async fn a_guard_runs_nothing_for_a_parent_that_is_not_its_own() {
    let tag = Tagged::new();
    // Process 1 is no parent of this child.
    let status = Command::new(env!("CARGO_BIN_EXE_sidegate"))
        .args(["__guard", "1", "--"])
        .arg(faulty_child())
        .args(["litter", "setsid"])
        .env(TAG, &tag.value)
        .stdin(Stdio::null())
        .status();
    assert_eq!(soon(status).await.unwrap().code(), Some(125));
    tag.assert_none_left();
}

/// The kill comes at any moment: before the guard runs, while the tree grows, when it is up.
///
/// `SIDEGATE_TEST_ROUNDS` says how often, for a soak.
#[tokio::test]
async fn nothing_outlives_a_parent_killed_at_random() {
    let rounds = std::env::var("SIDEGATE_TEST_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let kind = ["setsid", "double-fork", "wide", "bomb"][round % 4];
        let tag = Tagged::new();
        let mut parent = Command::new(faulty_child())
            .args(["parent", env!("CARGO_BIN_EXE_sidegate"), "tree", kind])
            .env(TAG, &tag.value)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let moment = u64::from(getrandom::u32().unwrap() % 40_000);
        tokio::time::sleep(Duration::from_micros(moment)).await;
        parent.start_kill().unwrap();
        soon(parent.wait()).await.unwrap();
        tag.none_left().await;
    }
}
