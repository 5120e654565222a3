//! Commands that end badly, or not at all.

use std::time::Duration;

use rstest::rstest;
use rustix::process::{Signal, kill_process};
use sidegate::subprocess::{ChildTree, Ending, Helper, Step, StopRecipe, Stream};

use super::{Tagged, eventually, guarded, pid, read_all, soon, start};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

#[rstest]
#[case::success(&["exit", "0"], Ending::Exited(0))]
#[case::code(&["exit", "7"], Ending::Exited(7))]
#[case::code_that_looks_like_a_signal(&["exit", "137"], Ending::Exited(137))]
#[case::code_that_looks_like_a_guards(&["exit", "125"], Ending::Exited(125))]
#[case::kill(&["signal", "9"], Ending::Killed(9))]
#[case::term(&["signal", "15"], Ending::Killed(15))]
#[case::its_own_group(&["kill-group"], Ending::Killed(9))]
#[tokio::test]
async fn endings_are_told_exactly(
    #[case] fault: &[&str],
    #[case] ending: Ending,
    #[values(guarded(), Helper::None)] helper: Helper,
) {
    let tag = Tagged::new();
    let mut tree = ChildTree::spawn(tag.spec(fault), &helper).await.unwrap();
    assert_eq!(soon(tree.wait()).await, ending);
    assert_eq!(soon(tree.wait()).await, ending, "asked twice");
    let stopped = soon(tree.stop(&StopRecipe::stdio(LONG))).await;
    assert_eq!((stopped.ending, stopped.left), (ending, 0));
    tag.assert_none_left();
}

#[rstest]
#[tokio::test]
async fn each_step_of_a_recipe_is_enough_for_some(#[values(guarded(), Helper::None)] helper: Helper) {
    let recipe = StopRecipe::new([
        Step::CloseStdin,
        Step::Wait(SHORT),
        Step::Signal(Signal::TERM),
        Step::Wait(Duration::from_millis(500)),
    ]);
    for (fault, ending) in [
        (&["on-term", "3"][..], Ending::Exited(3)),
        (&["park"], Ending::Killed(15)),
        (&["ignore-term"], Ending::Killed(9)),
    ] {
        let tag = Tagged::new();
        let mut spec = tag.spec(fault);
        spec.stdin = Stream::Piped;
        let mut tree = start(spec, &helper).await;
        assert_eq!(soon(tree.stop(&recipe)).await.ending, ending, "{fault:?}");
        tag.assert_none_left();
    }
    let tag = Tagged::new();
    let mut spec = tag.spec(&["echo"]);
    spec.stdin = Stream::Piped;
    let mut tree = ChildTree::spawn(spec, &helper).await.unwrap();
    assert_eq!(soon(tree.stop(&StopRecipe::stdio(LONG))).await.ending, Ending::Exited(0));
    tag.assert_none_left();
}

#[rstest]
#[case("setsid", 3)]
#[case("double-fork", 3)]
#[case("wide", 52)]
#[case("bomb", 33)]
#[tokio::test]
async fn no_hostile_tree_survives_a_stop(#[case] kind: &str, #[case] size: usize) {
    let tag = Tagged::new();
    let mut tree = start(tag.spec(&["tree", kind]), &guarded()).await;
    tag.at_least(size).await;
    let stopped = soon(tree.stop(&StopRecipe::terminate(SHORT))).await;
    assert_eq!((stopped.ending, stopped.left), (Ending::Killed(9), 0));
    tag.assert_none_left();
}

#[rstest]
#[case("setsid")]
#[case("double-fork")]
#[case("wide")]
#[case("bomb")]
#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it(#[case] kind: &str) {
    let tag = Tagged::new();
    let mut tree = ChildTree::spawn(tag.spec(&["litter", kind]), &guarded()).await.unwrap();
    assert_eq!(soon(tree.wait()).await, Ending::Exited(0));
    // Without a stop: the guard needs nobody to tell it.
    tag.none_left().await;
    assert_eq!(soon(tree.stop(&StopRecipe::kill())).await.left, 0);
}

#[tokio::test]
async fn a_dropped_tree_ends() {
    let tag = Tagged::new();
    let tree = start(tag.spec(&["tree", "double-fork"]), &guarded()).await;
    tag.at_least(3).await;
    drop(tree);
    tag.none_left().await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_leaves_nothing() {
    let helper = guarded();
    for polls in 0..20 {
        let tag = Tagged::new();
        let mut spawn = Box::pin(ChildTree::spawn(tag.spec(&["tree", "setsid"]), &helper));
        for _ in 0..polls {
            if futures_util::poll!(spawn.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        drop(spawn);
        tag.none_left().await;
    }
}

#[tokio::test]
async fn a_stop_that_is_cancelled_can_be_repeated() {
    let tag = Tagged::new();
    let mut tree = start(tag.spec(&["ignore-term"]), &guarded()).await;
    let recipe = StopRecipe::terminate(LONG);
    assert!(tokio::time::timeout(SHORT, tree.stop(&recipe)).await.is_err());
    assert_eq!(soon(tree.stop(&StopRecipe::kill())).await.ending, Ending::Killed(9));
    tag.assert_none_left();
}

#[tokio::test]
async fn a_closed_stdout_is_seen_while_the_command_runs() {
    let tag = Tagged::new();
    let mut tree = ChildTree::spawn(tag.spec(&["close-stdout"]), &guarded()).await.unwrap();
    assert_eq!(read_all(tree.take_stdout().unwrap()).await, "up\n");
    assert_eq!(soon(tree.stop(&StopRecipe::terminate(LONG))).await.ending, Ending::Killed(15));
}

#[tokio::test]
async fn orphans_are_reaped_while_the_command_runs() {
    let tag = Tagged::new();
    let tree = start(tag.spec(&["short-orphans"]), &guarded()).await;
    let guard = tree.guard_pid().unwrap();
    let children = format!("/proc/{guard}/task/{guard}/children");
    eventually("only the command is left to the guard", || {
        std::fs::read_to_string(&children).unwrap().trim() == tree.pid().to_string()
    })
    .await;
}

/// The guard is what holds a tree together: without it the same fault is a leak, and the count above finds it.
#[tokio::test]
async fn without_a_guard_the_leak_is_found() {
    let tag = Tagged::new();
    let mut tree = start(tag.spec(&["tree", "double-fork"]), &Helper::None).await;
    tag.at_least(2).await;
    soon(tree.stop(&StopRecipe::kill())).await;
    let left = tag.alive();
    assert_eq!(left.len(), 1, "the descendant in a session of its own");
    assert_ne!(left.first().copied(), Some(pid(tree.pid())));
    for leaked in left {
        kill_process(leaked, Signal::KILL).unwrap();
    }
    tag.none_left().await;
}
