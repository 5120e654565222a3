//! What happens rarely, made to happen often. `scripts/soak` runs it for longer and shows the figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::support::definitions::{built_in, example};
use super::support::sidegate::{Builder, Ended};
use super::support::{McpClient, Sidegate, eventually, leaks};

/// A number that `scripts/soak` sets.
fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

fn random(below: u32) -> u32 {
    getrandom::u32().unwrap() % below
}

#[expect(clippy::print_stderr, reason = "the figures are what a soak is run for")]
fn show(table: &str) {
    eprintln!("{table}");
}

/// How long a call may take while something is being started again.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Starting,
    Sidegate,
    Gateway,
    Guard,
    Server,
}

impl Victim {
    const ALL: [Self; 5] = [Self::Starting, Self::Sidegate, Self::Gateway, Self::Guard, Self::Server];

    fn name(self) -> &'static str {
        match self {
            Self::Starting => "sidegate, while it starts",
            Self::Sidegate => "sidegate",
            Self::Gateway => "the gateway",
            Self::Guard => "the gateway's guard",
            Self::Server => "a server",
        }
    }

    fn pid(self, sidegate: &Sidegate) -> Option<Pid> {
        match self {
            Self::Starting | Self::Sidegate => Pid::from_raw(sidegate.ready.pid.cast_signed()),
            Self::Gateway => sidegate.gateway_pid(),
            Self::Guard => sidegate.gateway_guard(),
            Self::Server => sidegate.process(|command| command.ends_with("/everything")),
        }
    }
}

#[derive(Clone, Default)]
struct Tally {
    rounds: usize,
    calls: usize,
    /// The errors of those that failed.
    failed: Vec<String>,
    slowest: Duration,
}

/// Waits until all processes of `builder`'s instances have ended, and their locks with them: one that is killed while it
/// starts another leaves a copy of itself, whose environment nobody can read, for the moment until that runs its program.
async fn ended(builder: &Builder) {
    leaks::none(builder.tag()).await;
    let directory = builder.config_dir().with_file_name("tmp");
    eventually("free locks", async || {
        let locks = fs_err::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path().join("lock"));
        let free = |path: std::path::PathBuf| match std::fs::File::open(path) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        locks.into_iter().all(free).then_some(())
    })
    .await;
}

/// One round; each of its asserts is about what must follow a kill.
async fn round(builder: Builder, victim: Victim, tally: &mut Tally) {
    tally.rounds += 1;
    if victim == Victim::Starting {
        builder.clone().start_and_kill(Duration::from_micros(random(150_000).into())).await;
        let killed = Instant::now();
        ended(&builder).await;
        tally.slowest = tally.slowest.max(killed.elapsed());
        return;
    }
    let sidegate = builder.clone().start().await;
    // What the one before has left was swept by this one.
    let parent = sidegate.ready.runtime_dir.parent().unwrap();
    let directories = fs_err::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(directories.collect::<Vec<_>>(), std::slice::from_ref(&sidegate.ready.runtime_dir));

    let client = McpClient::connect(sidegate.url()).await;
    let works = async || {
        let answer = client.call("x_near_echo", json!({"payload": "p"})).await;
        match answer.envelope().result {
            Some(_) => Ok(()),
            None => Err(answer.error()["message"].to_string()),
        }
    };
    eventually("the first call", async || works().await.ok()).await;
    let moment = Instant::now() + Duration::from_micros(random(50_000).into());
    while Instant::now() < moment {
        works().await.expect("nobody has been killed");
        tally.calls += 1;
    }
    if victim != Victim::Sidegate {
        let killed = Instant::now();
        let old = victim.pid(&sidegate).expect("it runs");
        kill_process(old, Signal::KILL).unwrap();
        eventually("calls as before", async || {
            tally.calls += 1;
            // One that was in flight at the kill may be lost, and has no limit of its own; whoever calls next is answered.
            let answer = tokio::time::timeout(CALL_LIMIT, works()).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {CALL_LIMIT:?}")));
            answer.map_err(|error| tally.failed.push(error)).ok()
        })
        .await;
        tally.slowest = tally.slowest.max(killed.elapsed());
        // Until a guard's death was noticed, what it guarded has nobody else: sidegate must not be killed as well.
        eventually("a successor", async || victim.pid(&sidegate).filter(|new| *new != old)).await;
    }
    let killed = Instant::now();
    sidegate.kill().await;
    ended(&builder).await;
    if victim == Victim::Sidegate {
        tally.slowest = tally.slowest.max(killed.elapsed());
    }
}

fn assert_nothing_left(ended: &Ended, tag: &leaks::Tag) {
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(leaks::processes(tag), []);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn kills_at_random_leave_nothing() {
    let rounds = setting("SIDEGATE_TEST_ROUNDS", 20);
    let builder = Sidegate::builder()
        .definition("hostile", &example("faulty_child", &["tree", "double-fork"]))
        .definition("near", &example("everything", &[]));
    let mut tallies = Victim::ALL.map(|_| Tally::default());
    // Each has its turn, in whatever order.
    for number in 0..rounds {
        let index = if number < tallies.len() { number } else { random(5) as usize };
        round(builder.clone(), Victim::ALL[index], &mut tallies[index]).await;
    }
    let tag = builder.tag().clone();
    let (processes, ended) = (leaks::processes(&tag).len(), builder.start().await.stop().await);
    assert_nothing_left(&ended, &tag);

    let mut table = format!(
        "\n{:<27} {:>6} {:>7} {:>7}  {}\n",
        "killed", "rounds", "calls", "failed", "slowest recovery, or end of all processes"
    );
    for (victim, tally) in Victim::ALL.iter().zip(&tallies) {
        let Tally { rounds, calls, failed, slowest } = tally;
        let (name, failed, slowest) = (victim.name(), failed.len(), slowest.as_millis());
        writeln!(table, "{name:<27} {rounds:>6} {calls:>7} {failed:>7}  {slowest} ms").unwrap();
    }
    let files = ended.files_left().len();
    write!(
        table,
        "left after {rounds} rounds: {processes} processes, {files} sockets, files and directories"
    )
    .unwrap();
    let mut errors = BTreeMap::<&str, usize>::new();
    for error in tallies.iter().flat_map(|tally| &tally.failed) {
        *errors.entry(error).or_default() += 1;
    }
    for (error, count) in errors {
        write!(table, "\n{count} calls failed with {error}").unwrap();
    }
    show(&table);
}

#[tokio::test]
async fn many_start_at_once() {
    let (starts, rounds) = (setting("SIDEGATE_TEST_STARTS", 16), setting("SIDEGATE_TEST_START_ROUNDS", 1));
    let (mut times, mut ports) = (Vec::new(), 0);
    for _ in 0..rounds {
        let started = join_all((0..starts).map(|_| async {
            let builder = Sidegate::builder().definition("example", &built_in());
            let begin = Instant::now();
            (builder.start().await, begin.elapsed())
        }));
        let (instances, took): (Vec<_>, Vec<_>) = started.await.into_iter().unzip();
        times.extend(took);
        let mut taken: Vec<u16> = instances
            .iter()
            .map(|sidegate| sidegate.ready.gateway.ports)
            .flat_map(|ports| [ports.data, ports.admin, ports.stats, ports.readiness])
            .map(Option::unwrap)
            .collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), starts * 4, "ports are shared");
        ports += taken.len();
        join_all(instances.into_iter().map(|sidegate| async {
            let tag = sidegate.tag.clone();
            assert_nothing_left(&sidegate.stop().await, &tag);
        }))
        .await;
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times.last().unwrap());
    show(&format!(
        "\n{} starts, {starts} at once: 0 failed, {ports} ports, none of them shared at a time; from spawn to ready: median {} ms, \
         worst {} ms",
        times.len(),
        median.as_millis(),
        worst.as_millis()
    ));
}
