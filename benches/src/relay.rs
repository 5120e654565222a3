//! What a call costs on each path: all paths in one run, one after the other, many times.

use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::load::{self, Load, Sample};
use crate::path::{Kind, Path};

/// Loads that are measured, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// How long each load lasts.
    pub(crate) time: Duration,
    pub(crate) clients: Vec<usize>,
    pub(crate) payloads: Vec<usize>,
    /// More than this many bytes under way at once are not asked for.
    pub(crate) most: usize,
}

impl Plan {
    /// A minute or two.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 3,
            time: Duration::from_millis(200),
            clients: vec![1, 8, 32],
            payloads: vec![16, 10 << 10, 1 << 20],
            most: 1 << 20,
        }
    }

    pub(crate) fn full() -> Self {
        Self { rounds: 5, time: Duration::from_secs(1), most: usize::MAX, ..Self::quick() }
    }

    fn loads(&self) -> Vec<Load> {
        let all = self.payloads.iter().flat_map(|payload| {
            self.clients.iter().map(|clients| Load { clients: *clients, payload: *payload })
        });
        all.filter(|load| load.clients * load.payload <= self.most).collect()
    }
}

/// All samples of one path under one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: &'static str,
    pub(crate) upstream: Kind,
    #[serde(flatten)]
    pub(crate) load: Load,
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// The median of something, and the smallest and the largest.
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> f64) -> [f64; 3] {
        let mut values: Vec<f64> = self.samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        match values.as_slice() {
            [] => [0.0; 3],
            [first, .., last] => [values[values.len() / 2], *first, *last],
            [only] => [*only; 3],
        }
    }

    pub(crate) fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        self.spread(of)[0]
    }
}

/// Measures every path. What the machine does besides hits all paths alike: they take turns.
pub(crate) async fn run(paths: &[Path], plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in plan.loads() {
        let begin = rows.len();
        rows.extend(paths.iter().map(|path| Row {
            path: path.name,
            upstream: path.kind,
            load,
            samples: Vec::with_capacity(plan.rounds),
        }));
        for round in 0..plan.rounds {
            for turn in 0..paths.len() {
                // Nobody always comes after the same other one.
                let index = (turn + round) % paths.len();
                let path = &paths[index];
                let sample = match load::run(&path.target, load, plan.time, path.pid()).await {
                    Ok(sample) => sample,
                    Err(error) => Sample { errors: 1, error: Some(error.to_string()), ..Sample::default() },
                };
                if let (Some(error), 0) = (&sample.error, round) {
                    let line = error.lines().next().unwrap_or_default();
                    eprintln!("{} in front of a {:?} server, {load:?}: {line:.160}", path.name, path.kind);
                }
                rows[begin + index].samples.push(sample);
            }
        }
        for row in &rows[begin..] {
            let [p50, low, high] = row.spread(|sample| sample.p50);
            eprintln!(
                "{:>7} B x{:<2} {:?} {:<26} p50 {p50:>8.0} us ({low:.0}-{high:.0})  {:>8.0}/s  {:.2} CPU s/10k  {:.0} MB",
                load.payload,
                load.clients,
                row.upstream,
                row.path,
                row.median(|sample| sample.rate),
                row.median(|sample| sample.cpu),
                row.median(|sample| sample.memory as f64) / 1e6,
            );
        }
    }
    Ok(rows)
}
