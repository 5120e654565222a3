//! How tries slow down.

use std::time::Duration;

/// How tries slow down.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// After this long with a session, failures are forgotten.
    pub healthy_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The wait after this many failures in a row, with jitter: between 75 % and 100 % of the doubled wait, so that
    /// servers that failed together do not come back together.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        // Without random bytes there is no jitter, which is no harm.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        full.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::default();
        for (failures, full) in [(1, 200), (2, 400), (5, 3200), (8, 25_600), (9, 30_000), (1000, 30_000)] {
            let wait = retry.wait(failures).as_secs_f64() * 1000.0;
            assert!(
                wait >= f64::from(full) * 0.75 - 1.0 && wait <= f64::from(full) + 1.0,
                "{failures}: {wait}"
            );
        }
    }
}
