//! The supervisor over real processes. Its rules of time are tested beside it, where the clock can be stopped.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sidegate::subprocess::{
    BackoffSettings, BoxError, Ending, Failure, LogFileSettings, RestartPolicy, Service, Spec, State,
    StopRecipe, Supervisor, SupervisorSettings,
};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{Tagged, faulty_child, guarded, pid, soon};

const LONG: Duration = Duration::from_secs(60);

/// A faulty child that is ready when it has made its file.
struct Faulty {
    tag: String,
    fault: Vec<String>,
    ready: PathBuf,
}

impl Service for Faulty {
    async fn spec(&mut self) -> Result<Spec, BoxError> {
        // A file of an earlier start proves nothing.
        std::fs::remove_file(&self.ready).ok();
        Ok(Spec::new(faulty_child()).args(&self.fault).env(super::TAG, &self.tag))
    }

    async fn ready(&mut self, _: u32) -> Result<(), BoxError> {
        while !self.ready.exists() {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

struct World {
    tag: Tagged,
    dir: tempfile::TempDir,
    tasks: TaskTracker,
}

impl World {
    fn new() -> Self {
        Self { tag: Tagged::new(), dir: tempfile::tempdir().unwrap(), tasks: TaskTracker::new() }
    }

    /// A supervisor of a child with this fault; `READY` in it stands for the file that makes it ready.
    fn supervise(&self, fault: &[&str], change: impl FnOnce(&mut SupervisorSettings)) -> Supervisor {
        let ready = self.dir.path().join("ready");
        let file = ready.to_str().unwrap();
        let fault = fault.iter().map(|arg| if *arg == "READY" { file } else { arg }.to_owned()).collect();
        let mut settings = SupervisorSettings::new("faulty", guarded());
        settings.backoff =
            BackoffSettings { first: Duration::from_millis(5), longest: Duration::from_millis(20) };
        settings.stop = StopRecipe::terminate(LONG);
        settings.ready_within = LONG;
        change(&mut settings);
        Supervisor::new(Faulty { tag: self.tag.value.clone(), fault, ready }, settings, &self.tasks)
    }
}

async fn failure(supervisor: &Supervisor) -> std::sync::Arc<Failure> {
    let mut watch = supervisor.watch();
    let state = soon(watch.wait_for(|state| matches!(state, State::Failed(_)))).await.unwrap().clone();
    match state {
        State::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_early_exit_is_told_at_once_with_its_last_words() {
    let world = World::new();
    let supervisor = world.supervise(&["exit", "3"], |settings| settings.restart = RestartPolicy::AtMost(0));
    supervisor.start().await;
    let failure = failure(&supervisor).await;
    assert_eq!(failure.ending(), Some(Ending::Exited(3)));
    // One pipe each, so that only the order within a stream is certain.
    let tail = failure.tail();
    assert!(tail.contains(&"on stdout".to_owned()), "{tail:?}");
    assert!(
        tail.ends_with(&["last words".to_owned()]) || tail.contains(&"last words".to_owned()),
        "{tail:?}"
    );
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_child_that_is_never_ready_is_ended() {
    let world = World::new();
    let supervisor = world.supervise(&["tree", "double-fork"], |settings| {
        settings.restart = RestartPolicy::AtMost(0);
        settings.ready_within = Duration::from_millis(200);
        settings.stop = StopRecipe::terminate(Duration::from_millis(20));
    });
    supervisor.start().await;
    let failure = failure(&supervisor).await;
    assert!(matches!(*failure, Failure::NotReady { .. }), "{failure:?}");
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_child_that_dies_is_replaced() {
    let world = World::new();
    let supervisor = world.supervise(&["ready", "READY"], |_| {});
    supervisor.start().await;
    let mut last = soon(supervisor.ready()).await.unwrap();
    for start in 2..6 {
        kill_process(pid(last.pid), Signal::KILL).unwrap();
        let mut watch = supervisor.watch();
        let newer = |state: &State| matches!(state, State::Ready(running) if running.start == start);
        soon(watch.wait_for(newer)).await.unwrap();
        let running = soon(supervisor.ready()).await.unwrap();
        assert_ne!(running.pid, last.pid);
        assert_eq!(world.tag.alive().len(), 2, "one guard, one command");
        last = running;
    }
    soon(supervisor.stop()).await;
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_guard_that_dies_is_replaced() {
    let world = World::new();
    let supervisor = world.supervise(&["ready", "READY"], |_| {});
    supervisor.start().await;
    let first = soon(supervisor.ready()).await.unwrap();
    let guard = world.tag.alive().into_iter().find(|process| *process != pid(first.pid)).unwrap();
    let mut watch = supervisor.watch();
    kill_process(guard, Signal::KILL).unwrap();
    soon(watch.wait_for(|state| matches!(state, State::Ready(running) if running.start == 2))).await.unwrap();
    assert_eq!(world.tag.alive().len(), 2, "one guard, one command");
    soon(supervisor.stop()).await;
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_restart_takes_the_place_of_the_old() {
    let world = World::new();
    let supervisor = world.supervise(&["ready", "READY"], |_| {});
    supervisor.start().await;
    let first = soon(supervisor.ready()).await.unwrap();
    soon(supervisor.restart("a test wants it")).await;
    let second = soon(supervisor.ready()).await.unwrap();
    assert_eq!((first.start, second.start), (1, 2));
    assert_eq!(world.tag.alive().len(), 2, "one guard, one command");
    soon(supervisor.stop()).await;
    soon(supervisor.stop()).await;
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_stop_during_a_start_leaves_nothing() {
    for delay in 0..10 {
        let world = World::new();
        let supervisor = world.supervise(&["tree", "setsid"], |settings| settings.stop = StopRecipe::kill());
        supervisor.start().await;
        sleep(Duration::from_micros(delay * 700)).await;
        soon(supervisor.stop()).await;
        world.tag.assert_none_left();
        assert_eq!(supervisor.state().name(), "stopped");
    }
}

#[tokio::test]
async fn a_kill_cuts_a_stop_short() {
    let world = World::new();
    let supervisor = world.supervise(&["ignore-term"], |_| {});
    supervisor.start().await;
    let mut watch = supervisor.watch();
    soon(watch.wait_for(|state| state.pid().is_some())).await.unwrap();
    soon(async {
        tokio::join!(supervisor.stop(), async {
            watch.wait_for(|state| matches!(state, State::Draining { .. })).await.unwrap();
            supervisor.kill().await;
        })
    })
    .await;
    world.tag.assert_none_left();
}

#[tokio::test]
async fn a_supervisor_without_handles_is_none() {
    let world = World::new();
    let supervisor = world.supervise(&["tree", "double-fork"], |_| {});
    supervisor.start().await;
    world.tag.at_least(3).await;
    drop(supervisor);
    world.tasks.close();
    soon(world.tasks.wait()).await;
    world.tag.assert_none_left();
}

#[tokio::test]
async fn no_line_of_a_flood_is_lost() {
    let world = World::new();
    let logs = world.dir.path().join("logs");
    let supervisor = world.supervise(&["flood", "20000"], |settings| {
        settings.restart = RestartPolicy::AtMost(0);
        settings.output.file = Some(LogFileSettings { directory: logs.clone(), size_limit: u64::MAX });
    });
    supervisor.start().await;
    let failure = failure(&supervisor).await;
    assert_eq!((failure.ending(), failure.tail().len()), (Some(Ending::Exited(0)), 50));
    let text = std::fs::read_to_string(logs.join("faulty.log")).unwrap();
    assert_eq!(text.lines().count(), 40_000);
    world.tag.assert_none_left();
}
