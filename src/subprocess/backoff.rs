//! How long to wait before the next try.

use std::time::Duration;

/// The rule by which waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffSettings {
    /// The wait after the first failure.
    pub first: Duration,
    /// The wait that later ones double up to.
    pub longest: Duration,
}

impl Default for BackoffSettings {
    /// 200 ms, doubling to 30 s.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(30) }
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: BackoffSettings,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(settings: BackoffSettings) -> Self {
        Self { settings, failures: 0 }
    }

    /// Failures since the last [`reset`](Self::reset).
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and says how long to wait after it.
    ///
    /// `chance` is in `0.0..=1.0` and takes up to a quarter off the wait, so that what failed together is not tried
    /// again together.
    pub(super) fn fail(&mut self, chance: f64) -> Duration {
        let doublings = self.failures;
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let wait = self.settings.first.saturating_mul(factor).min(self.settings.longest);
        wait.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let waits: Vec<u128> = (0..9).map(|_| backoff.fail(0.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        backoff.reset();
        assert_eq!(backoff.fail(0.0), Duration::from_millis(200));
    }

    #[test]
    fn chance_takes_up_to_a_quarter() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        assert_eq!(backoff.fail(1.0), Duration::from_millis(150));
        assert_eq!(backoff.fail(0.5), Duration::from_millis(350));
    }

    #[test]
    fn a_long_row_of_failures_overflows_nothing() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        for _ in 0..100 {
            assert!(backoff.fail(0.0) <= Duration::from_secs(30));
        }
        assert_eq!(backoff.failures(), 100);
    }
}
