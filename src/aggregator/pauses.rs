//! The pauses between tries of what could not be sent: a gateway is away, or has no route yet.

use std::time::Duration;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(250);

/// Each is twice as long as the one before, up to a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    /// Before the first.
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long the next one is.
    pub(super) fn next(self) -> Duration {
        self.next
    }

    /// Waits for the next one. It counts as over when it is given up.
    pub(super) async fn pass(&mut self) {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        tokio::time::sleep(now).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_get_longer_up_to_a_limit() {
        let (mut pauses, mut waited) = (Pauses::new(), Vec::new());
        for _ in 0..7 {
            let begun = tokio::time::Instant::now();
            pauses.pass().await;
            waited.push(begun.elapsed().as_millis());
        }
        assert_eq!(waited, [10, 20, 40, 80, 160, 250, 250]);
        assert_eq!(pauses.next(), LONGEST);
    }
}
