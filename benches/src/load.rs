//! Closed-loop load: each session makes its next call when it has the answer to the last one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Result;
use crate::client::{Session, Target};
use crate::process::usage;

/// Calls of each session that nobody counts.
const WARM_UP: usize = 20;
/// But no longer than this part of the time that is measured.
const WARM_UP_PART: u32 = 2;

/// A session that has failed this often in a row makes no more calls.
const GIVE_UP: usize = 3;

/// One kind of load.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Load {
    /// Sessions at once.
    pub(crate) clients: usize,
    /// Bytes of the argument, which the answer holds too.
    pub(crate) payload: usize,
}

/// What was measured under one load, once.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Latencies in microseconds.
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    /// Calls a second.
    pub(crate) rate: f64,
    pub(crate) calls: u64,
    /// CPU seconds of the processes in between, for 10 000 calls.
    pub(crate) cpu: f64,
    /// Their resident memory at the end, in bytes.
    pub(crate) memory: u64,
    pub(crate) errors: u64,
    /// The first error.
    pub(crate) error: Option<String>,
}

/// Makes calls for `time`. `root` is the process whose tree is measured, 0 for none.
pub(crate) async fn run(target: &Target, load: Load, time: Duration, root: u32) -> Result<Sample> {
    let filler: Rc<[u8]> = filler(load.payload).into();
    let mut warming = tokio::task::JoinSet::new();
    for number in 0..load.clients {
        let (target, filler) = (target.clone(), Rc::clone(&filler));
        warming.spawn_local(async move {
            let mut caller = Caller { session: Session::open(&target).await?, filler, number, calls: 0 };
            let begun = Instant::now();
            for _ in 0..WARM_UP {
                caller.call().await?;
                if begun.elapsed() * WARM_UP_PART > time {
                    break;
                }
            }
            Result::Ok(caller)
        });
    }
    let mut callers = Vec::with_capacity(load.clients);
    while let Some(warm) = warming.join_next().await {
        callers.push(warm??);
    }

    let before = usage(root)?;
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for caller in callers {
        let target = target.clone();
        running.spawn_local(caller.run(target, begun + time));
    }
    let mut latencies = histogram()?;
    let (mut sample, mut sessions) = (Sample::default(), Vec::new());
    while let Some(done) = running.join_next().await {
        let done = done??;
        latencies.add(&done.latencies)?;
        sample.errors += done.errors;
        sample.error = sample.error.or(done.error);
        sessions.push(done.session);
    }
    let elapsed = begun.elapsed();
    let after = usage(root)?;
    for session in sessions {
        session.close().await;
    }

    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    sample.calls = latencies.len();
    (sample.p50, sample.p95, sample.p99) = (micros(0.5), micros(0.95), micros(0.99));
    sample.rate = sample.calls as f64 / elapsed.as_secs_f64();
    sample.cpu = (after.cpu - before.cpu) * 10_000.0 / sample.calls.max(1) as f64;
    sample.memory = after.memory;
    Ok(sample)
}

/// One session's calls.
struct Caller {
    session: Session,
    filler: Rc<[u8]>,
    number: usize,
    calls: u64,
}

/// What became of them.
struct Done {
    session: Session,
    latencies: Histogram<u64>,
    errors: u64,
    error: Option<String>,
}

impl Caller {
    /// Makes a call with a payload that no other call has.
    async fn call(&mut self) -> Result<Duration> {
        self.calls += 1;
        let mut payload = self.filler.to_vec();
        // 16 bytes.
        let mark = format!("{:03}-{:011}-", self.number, self.calls);
        payload[..mark.len()].copy_from_slice(mark.as_bytes());
        let begun = Instant::now();
        self.session.call(&payload).await?;
        Ok(begun.elapsed())
    }

    async fn run(mut self, target: Target, until: Instant) -> Result<Done> {
        let (mut latencies, mut errors, mut error) = (histogram()?, 0, None);
        let mut in_a_row = 0;
        while Instant::now() < until && in_a_row < GIVE_UP {
            match self.call().await {
                Ok(latency) => {
                    in_a_row = 0;
                    latencies.saturating_record(u64::try_from(latency.as_nanos())?);
                }
                Err(failure) => {
                    in_a_row += 1;
                    errors += 1;
                    error.get_or_insert_with(|| failure.to_string());
                    if let Ok(session) = Session::open(&target).await {
                        self.session = session;
                    }
                }
            }
        }
        Ok(Done { session: self.session, latencies, errors, error })
    }
}

/// Nanoseconds, to three digits, up to a minute.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Text of a length that needs no escapes, and does not compress to nothing.
fn filler(length: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        LETTERS[usize::try_from(state >> 58).unwrap_or(0)]
    });
    // The mark of a call stands in it.
    letters.take(length.max(16)).collect()
}
