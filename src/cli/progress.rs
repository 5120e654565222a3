//! What is said while agentgateway is fetched.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use sidegate::binary_resolver::{Event, Progress};

use super::output::Voice;

/// A bar for a person at a terminal, lines elsewhere.
pub(super) fn progress(voice: Voice) -> Arc<dyn Progress> {
    let lines = Lines { tenths: Mutex::default(), voice };
    match voice {
        Voice::Person if std::io::stderr().is_terminal() => Arc::new(Bar { bar: Mutex::default(), lines }),
        Voice::Person | Voice::Machine => Arc::new(lines),
    }
}

/// Shows how far a download is as a bar; everything else as lines.
#[derive(Debug)]
struct Bar {
    bar: Mutex<Option<ProgressBar>>,
    lines: Lines,
}

impl Progress for Bar {
    fn report(&self, event: Event<'_>) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { total, resumed_at, .. } => {
                self.lines.report(event);
                let template = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
                let style =
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                let started = total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style);
                started.set_position(resumed_at);
                *bar = Some(started);
            }
            Event::Received { bytes, .. } => {
                if let Some(bar) = bar.as_ref() {
                    bar.set_position(bytes);
                }
            }
            _ => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                self.lines.report(event);
            }
        }
    }
}

/// Says each step, and how far a download is at every tenth of it.
#[derive(Debug)]
struct Lines {
    tenths: Mutex<u64>,
    voice: Voice,
}

impl Progress for Lines {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Waiting { pid: Some(pid) } => {
                self.voice.say(&format!("waiting for process {pid}, which fetches it"))
            }
            Event::Waiting { pid: None } => self.voice.say("waiting for another process, which fetches it"),
            Event::MovedAside { path, to, expected, actual } => self.voice.warn(&format!(
                "{} was changed (SHA-256 {actual}, pinned {expected}); it is now {}",
                path.display(),
                to.display()
            )),
            Event::Started { url, total, resumed_at } => {
                *self.tenths() = 0;
                let size = total.map(|total| format!(", {}", megabytes(total))).unwrap_or_default();
                let from =
                    if resumed_at > 0 { format!(", from {}", megabytes(resumed_at)) } else { String::new() };
                self.voice.say(&format!("fetching {url}{size}{from}"));
            }
            Event::Received { bytes, total: Some(total) } => {
                let now = bytes.saturating_mul(10) / total.max(1);
                let mut tenths = self.tenths();
                if now > *tenths && now < 10 {
                    *tenths = now;
                    self.voice.say(&format!("  {} of {}", megabytes(bytes), megabytes(total)));
                }
            }
            Event::Retrying { error, attempt, delay } => {
                self.voice.warn(&format!("{error}; try {attempt} in {:.1} s", delay.as_secs_f32()))
            }
            Event::Installed { path } => self.voice.say(&format!("installed {}", path.display())),
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
