//! The invariants of the module, over processes that are made up, with the clock stopped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::stop::Step;
use super::super::tree::{Ending, SpawnError, Stopped};
use super::process::{Launcher, Process};
use super::*;

/// What the next process does.
#[derive(Clone, Copy)]
enum Play {
    /// Is ready after a while, and runs until it is stopped, which takes what the recipe says.
    Run { ready: Duration },
    /// Ends by itself.
    Exit { after: Duration, ready: Duration },
    /// Cannot be started.
    NoStart,
    /// Cannot even be prepared.
    NoSpec,
    /// Says that it is not usable.
    Refuse,
}

const SOON: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::from_secs(1_000_000);
const RUN: Play = Play::Run { ready: SOON };

/// The stage: what is to be played, and what has been seen.
#[derive(Clone)]
struct Stage {
    plays: Arc<Mutex<VecDeque<Play>>>,
    current: Arc<Mutex<Play>>,
    specs: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    starts: Arc<Mutex<Vec<Instant>>>,
    tasks: TaskTracker,
}

impl Stage {
    /// The plays in turn, the last one over and over.
    fn new(plays: &[Play]) -> Self {
        Self {
            plays: Arc::new(Mutex::new(plays.iter().copied().collect())),
            current: Arc::new(Mutex::new(RUN)),
            specs: Arc::default(),
            alive: Arc::default(),
            most: Arc::default(),
            starts: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    fn supervise(&self, change: impl FnOnce(&mut SupervisorSettings)) -> Supervisor {
        let mut settings = SupervisorSettings::new("made-up", Helper::None);
        change(&mut settings);
        Supervisor::with_launcher(self.clone(), self.clone(), settings, &self.tasks)
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn gaps(&self) -> Vec<Duration> {
        let starts = self.starts.lock().unwrap();
        starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Service for Stage {
    async fn spec(&mut self) -> Result<Spec, BoxError> {
        let play = {
            let mut plays = self.plays.lock().unwrap();
            if plays.len() > 1 { plays.pop_front() } else { plays.front().copied() }.unwrap()
        };
        *self.current.lock().unwrap() = play;
        self.starts.lock().unwrap().push(Instant::now());
        let number = self.specs.fetch_add(1, Ordering::SeqCst);
        if matches!(play, Play::NoSpec) { Err("no ports".into()) } else { Ok(Spec::new(number.to_string())) }
    }

    async fn ready(&mut self, _: u32) -> Result<(), BoxError> {
        let play = *self.current.lock().unwrap();
        match play {
            Play::Run { ready } | Play::Exit { ready, .. } => sleep(ready).await,
            Play::Refuse => return Err("a stranger answered".into()),
            Play::NoStart | Play::NoSpec => unreachable!("never spawned"),
        }
        Ok(())
    }
}

impl Launcher for Stage {
    type Process = Actor;

    async fn launch(&mut self, spec: Spec) -> Result<Actor, SpawnError> {
        let play = *self.current.lock().unwrap();
        if matches!(play, Play::NoStart) {
            return Err(SpawnError::NeedsGuard("a made-up start"));
        }
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(alive, Ordering::SeqCst);
        let end = match play {
            Play::Exit { after, .. } => Instant::now() + after,
            _ => Instant::now() + NEVER,
        };
        let number: u32 = spec.program.to_str().unwrap().parse().unwrap();
        Ok(Actor { pid: number + 1, end, alive: self.alive.clone() })
    }
}

/// A made-up process; it is alive until it is dropped.
struct Actor {
    pid: u32,
    end: Instant,
    alive: Arc<AtomicUsize>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Process for Actor {
    fn pid(&self) -> u32 {
        self.pid
    }

    async fn wait(&mut self) -> Ending {
        tokio::time::sleep_until(self.end).await;
        Ending::Exited(1)
    }

    async fn stop(&mut self, recipe: &StopRecipe) -> Stopped {
        for step in recipe.steps() {
            if let Step::Wait(limit) = step {
                tokio::time::timeout(*limit, self.wait()).await.ok();
            }
        }
        Stopped { ending: Ending::Killed(9), left: 0 }
    }

    async fn last_words(self) -> Vec<String> {
        vec!["last words".to_owned()]
    }
}

async fn until(supervisor: &Supervisor, wanted: &str) -> State {
    let mut watch: watch::Receiver<State> = supervisor.watch();
    watch.wait_for(|state| state.name() == wanted).await.unwrap().clone()
}

/// 1 and 8: whatever is asked for, and however processes end, there is one at a time, of a spec of its own.
#[tokio::test(start_paused = true)]
async fn one_tree_at_a_time_and_a_fresh_spec_for_each() {
    let exit = Play::Exit { after: Duration::from_millis(300), ready: SOON };
    let stage = Stage::new(&[exit, Play::Refuse, RUN, Play::NoStart, exit, RUN]);
    let supervisor = stage.supervise(|_| {});
    for round in 0..40 {
        match round % 5 {
            0 => supervisor.restart("a test wants it").await,
            1 | 3 => supervisor.start().await,
            2 => supervisor.stop().await,
            _ => sleep(Duration::from_millis(500)).await,
        }
    }
    supervisor.start().await;
    let running = supervisor.ready().await.unwrap();
    assert_eq!(stage.most.load(Ordering::SeqCst), 1);
    assert_eq!(usize::try_from(running.pid).unwrap(), stage.specs.load(Ordering::SeqCst), "the newest spec");
}

/// 2: nothing runs in the states that name no process.
#[tokio::test(start_paused = true)]
async fn quiet_states_are_quiet() {
    let stage = Stage::new(&[Play::Exit { after: SOON / 2, ready: SOON }, RUN]);
    let supervisor = stage.supervise(|_| {});
    assert_eq!((supervisor.state().name(), stage.alive()), ("idle", 0));
    supervisor.start().await;
    until(&supervisor, "backoff").await;
    assert_eq!(stage.alive(), 0);
    supervisor.ready().await.unwrap();
    assert_eq!(stage.alive(), 1);
    supervisor.stop().await;
    assert_eq!((supervisor.state().name(), stage.alive()), ("stopped", 0));

    let stage = Stage::new(&[Play::Refuse]);
    let supervisor = stage.supervise(|settings| settings.restart = RestartPolicy::AtMost(2));
    supervisor.start().await;
    until(&supervisor, "failed").await;
    assert_eq!((stage.alive(), stage.specs.load(Ordering::SeqCst)), (0, 3));
}

/// 3: an exit during the probe is told at once, one after it leaves `Ready` at once.
#[tokio::test(start_paused = true)]
async fn ready_means_alive() {
    let stage = Stage::new(&[
        Play::Exit { after: SOON, ready: NEVER },
        Play::Exit { after: Duration::from_secs(5), ready: SOON },
    ]);
    let supervisor = stage.supervise(|_| {});
    let begun = Instant::now();
    supervisor.start().await;
    let State::Backoff { failure, failures: 1, .. } = until(&supervisor, "backoff").await else { panic!() };
    assert_eq!(begun.elapsed(), SOON);
    assert_eq!(failure.report(), "exited with code 1 before it was ready; its last line: last words");
    let running = supervisor.ready().await.unwrap();
    assert_eq!(running.start, 2);
    let State::Backoff { failure, .. } = until(&supervisor, "backoff").await else { panic!() };
    assert_eq!(running.since.elapsed(), Duration::from_secs(5) - SOON);
    assert!(matches!(*failure, Failure::Exit { ending: Ending::Exited(1), .. }), "{failure:?}");
}

/// 3: of a probe that succeeds in the same instant in which the process ends, the end counts.
#[tokio::test(start_paused = true)]
async fn the_dead_are_never_ready() {
    let stage = Stage::new(&[Play::Exit { after: SOON, ready: SOON }]);
    let supervisor = stage.supervise(|settings| settings.restart = RestartPolicy::AtMost(20));
    let mut watch = supervisor.watch();
    supervisor.start().await;
    let end =
        watch.wait_for(|state| matches!(state, State::Ready(_) | State::Failed(_))).await.unwrap().clone();
    assert_eq!(end.name(), "failed");
}

/// 4: a stop returns when nothing is left, in every state, twice, and from several tasks.
#[tokio::test(start_paused = true)]
async fn a_stop_is_a_stop() {
    for (plays, state) in [
        (&[RUN][..], "idle"),
        (&[Play::Run { ready: NEVER }], "starting"),
        (&[RUN], "ready"),
        (&[Play::Refuse], "draining"),
        (&[Play::NoSpec], "backoff"),
        (&[Play::NoStart], "backoff"),
    ] {
        let stage = Stage::new(plays);
        let supervisor = stage.supervise(|_| {});
        if state != "idle" {
            supervisor.start().await;
        }
        until(&supervisor, state).await;
        tokio::join!(supervisor.stop(), supervisor.stop());
        assert_eq!((supervisor.state().name(), stage.alive()), ("stopped", 0), "{state}");
        supervisor.stop().await;
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(supervisor.state().name(), "stopped", "{state}");
    }
}

/// 4: a kill does not wait for the recipe of a stop that is under way.
#[tokio::test(start_paused = true)]
async fn a_kill_cuts_a_stop_short() {
    let stage = Stage::new(&[RUN]);
    let supervisor = stage.supervise(|settings| settings.stop = StopRecipe::terminate(NEVER));
    supervisor.start().await;
    let begun = supervisor.ready().await.unwrap().since;
    tokio::join!(supervisor.stop(), async {
        until(&supervisor, "draining").await;
        supervisor.kill().await;
    });
    assert_eq!((begun.elapsed(), stage.alive()), (Duration::ZERO, 0));
}

/// 5: a start during a stop starts again after it.
#[tokio::test(start_paused = true)]
async fn a_start_during_a_stop_follows_it() {
    let stage = Stage::new(&[RUN]);
    let supervisor = stage.supervise(|_| {});
    supervisor.start().await;
    supervisor.ready().await.unwrap();
    tokio::join!(supervisor.stop(), async {
        until(&supervisor, "draining").await;
        supervisor.start().await;
    });
    assert_eq!(supervisor.ready().await.unwrap().start, 2);
    assert_eq!((stage.alive(), stage.most.load(Ordering::SeqCst)), (1, 1));
}

/// 5: a stop during a restart, or during the end of one that was not usable, is the last word.
#[tokio::test(start_paused = true)]
async fn a_stop_during_a_restart_ends_it() {
    let stage = Stage::new(&[RUN]);
    let supervisor = stage.supervise(|_| {});
    supervisor.start().await;
    supervisor.ready().await.unwrap();
    supervisor.restart("a test wants it").await;
    assert_eq!(supervisor.state().name(), "draining");
    supervisor.stop().await;
    assert_eq!((supervisor.state().name(), stage.alive()), ("stopped", 0));
    assert!(matches!(supervisor.ready().await, Err(NeverReady::Stopped)));
}

/// 5: what runs or is about to is not started twice.
#[tokio::test(start_paused = true)]
async fn a_start_of_what_is_started_is_nothing() {
    let stage = Stage::new(&[RUN]);
    let supervisor = stage.supervise(|_| {});
    supervisor.start().await;
    supervisor.start().await;
    let first = supervisor.ready().await.unwrap();
    supervisor.start().await;
    assert_eq!(supervisor.ready().await.unwrap(), first);
}

/// 6: without handles there is no process and no task, whatever it was doing.
#[tokio::test(start_paused = true)]
async fn nobodys_child_does_not_exist() {
    for (plays, state) in [
        (&[RUN][..], "idle"),
        (&[Play::Run { ready: NEVER }], "starting"),
        (&[RUN], "ready"),
        (&[Play::Refuse], "draining"),
        (&[Play::NoStart], "backoff"),
    ] {
        let stage = Stage::new(plays);
        let supervisor = stage.supervise(|settings| settings.stop = StopRecipe::terminate(NEVER));
        if state != "idle" {
            supervisor.start().await;
        }
        until(&supervisor, state).await;
        let begun = Instant::now();
        drop(supervisor);
        stage.tasks.close();
        stage.tasks.wait().await;
        assert_eq!((begun.elapsed(), stage.alive()), (Duration::ZERO, 0), "{state}");
    }
}

/// 7: waits double up to the longest, less a quarter at most.
#[tokio::test(start_paused = true)]
async fn failures_slow_down() {
    let stage = Stage::new(&[Play::NoStart]);
    let supervisor = stage.supervise(|_| {});
    supervisor.start().await;
    sleep(Duration::from_secs(300)).await;
    let gaps = stage.gaps();
    assert!(gaps.len() > 10, "{gaps:?}");
    for (failures, gap) in gaps.into_iter().enumerate() {
        let whole = Duration::from_millis(200 << failures.min(8)).min(Duration::from_secs(30));
        // A timer is a millisecond exact.
        assert!(gap >= whole.mul_f64(0.75) && gap <= whole + Duration::from_millis(2), "{failures}: {gap:?}");
    }
}

/// 7: a healthy while makes up for all failures before it, a short one does not.
#[tokio::test(start_paused = true)]
async fn health_is_remembered() {
    for (uptime, failures) in [(Duration::from_secs(59), 4), (Duration::from_secs(61), 1)] {
        let last = Play::Exit { after: uptime + SOON, ready: SOON };
        let stage = Stage::new(&[Play::NoStart, Play::NoStart, Play::NoStart, last, RUN]);
        let supervisor = stage.supervise(|_| {});
        supervisor.start().await;
        supervisor.ready().await.unwrap();
        let State::Backoff { failures: counted, .. } = until(&supervisor, "backoff").await else { panic!() };
        assert_eq!(counted, failures, "{uptime:?}");
    }
}

/// 7: who asks for a start does not wait for the next try.
#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait() {
    let stage = Stage::new(&[Play::NoStart, Play::NoStart, RUN]);
    let slow = BackoffSettings { first: NEVER, longest: NEVER };
    let supervisor = stage.supervise(|settings| settings.backoff = slow);
    let begun = Instant::now();
    supervisor.start().await;
    until(&supervisor, "backoff").await;
    supervisor.start().await;
    until(&supervisor, "backoff").await;
    supervisor.restart("a test wants it").await;
    supervisor.ready().await.unwrap();
    assert_eq!(begun.elapsed(), SOON);
}

/// 9: a probe has its time, and then the process is ended.
#[tokio::test(start_paused = true)]
async fn probes_are_bounded() {
    let stage = Stage::new(&[Play::Run { ready: NEVER }]);
    let supervisor = stage.supervise(|settings| {
        settings.restart = RestartPolicy::AtMost(0);
        settings.stop = StopRecipe::kill();
    });
    let begun = Instant::now();
    supervisor.start().await;
    let Err(NeverReady::Failed(failure)) = supervisor.ready().await else { panic!() };
    assert_eq!((begun.elapsed(), stage.alive()), (Duration::from_secs(30), 0));
    assert_eq!(failure.report(), "was not ready after 30s; its last line: last words");
}

/// What has been given up starts again when it is told to, with all its tries.
#[tokio::test(start_paused = true)]
async fn a_failed_one_can_be_started_again() {
    let stage = Stage::new(&[Play::NoSpec, Play::NoSpec, Play::NoSpec, RUN]);
    let supervisor = stage.supervise(|settings| settings.restart = RestartPolicy::AtMost(1));
    supervisor.start().await;
    let Err(NeverReady::Failed(failure)) = supervisor.ready().await else { panic!() };
    assert_eq!(failure.report(), "could not be prepared: no ports");
    supervisor.start().await;
    assert_eq!(supervisor.ready().await.unwrap().start, 1);
}
