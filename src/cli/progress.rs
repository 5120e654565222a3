//! What is said while agentgateway is fetched.

use std::sync::Mutex;
use std::sync::PoisonError;

use sidegate::binary_resolver::{Event, Progress};

use super::output::say_error;

/// Says each step on stderr, and how far a download is at every tenth of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    tenths: Mutex<u64>,
}

impl Progress for Lines {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Waiting { pid: Some(pid) } => {
                say_error(&format!("waiting for process {pid}, which fetches it"))
            }
            Event::Waiting { pid: None } => say_error("waiting for another process, which fetches it"),
            Event::MovedAside { path, to, expected, actual } => say_error(&format!(
                "warning: {} was changed (SHA-256 {actual}, pinned {expected}); it is now {}",
                path.display(),
                to.display()
            )),
            Event::Started { url, total, resumed_at } => {
                *self.tenths() = 0;
                let size = total.map(|total| format!(", {}", megabytes(total))).unwrap_or_default();
                let from =
                    if resumed_at > 0 { format!(", from {}", megabytes(resumed_at)) } else { String::new() };
                say_error(&format!("fetching {url}{size}{from}"));
            }
            Event::Received { bytes, total: Some(total) } => {
                let now = bytes.saturating_mul(10) / total.max(1);
                let mut tenths = self.tenths();
                if now > *tenths && now < 10 {
                    *tenths = now;
                    say_error(&format!("  {} of {}", megabytes(bytes), megabytes(total)));
                }
            }
            Event::Retrying { error, attempt, delay } => {
                say_error(&format!("warning: {error}; try {attempt} in {:.1} s", delay.as_secs_f32()))
            }
            Event::Installed { path } => say_error(&format!("installed {}", path.display())),
            // Without a size there is nothing to compare with; what is new in later versions is not needed here.
            _ => {}
        }
    }
}

impl Lines {
    fn tenths(&self) -> std::sync::MutexGuard<'_, u64> {
        self.tenths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}
