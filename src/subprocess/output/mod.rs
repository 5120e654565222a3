//! What a child prints: always read, told to the log, kept for messages.
//!
//! Invariants:
//!
//! - the pipes are read until their end whatever happens to those we pass the lines to, so a child never blocks on us;
//! - each line is logged, whole or cut at [`OutputSettings::line_limit`], also a last one without a newline;
//! - memory is bounded: one line for each pipe, and the lines kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::lines::Lines;
use self::log_file::LogFile;

mod lines;
mod log_file;

pub use self::log_file::LogFileSettings;

/// For how long the end of a pipe is waited for after the tree has gone: a process that got away may still hold it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Which pipe a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// What becomes of a line before anybody gets it: who knows of secrets takes them out.
pub type LineFilter = Arc<dyn Fn(String) -> String + Send + Sync>;

/// What happens to lines.
#[derive(Clone)]
pub struct OutputSettings {
    /// How many lines are kept for messages.
    pub kept: usize,
    /// Where a line is cut, in bytes.
    pub line_limit: usize,
    /// The file that lines are written to as well.
    pub file: Option<LogFileSettings>,
    /// Lines go to the log at `debug`, not at `info`: for a child that says much of what is seen elsewhere.
    pub quiet: bool,
    /// What each line goes through first; as it is where there is none.
    pub filter: Option<LineFilter>,
}

impl fmt::Debug for OutputSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, line_limit, file, quiet, filter: _ } = self;
        f.debug_struct("OutputSettings")
            .field("kept", kept)
            .field("line_limit", line_limit)
            .field("file", file)
            .field("quiet", quiet)
            .finish_non_exhaustive()
    }
}

impl Default for OutputSettings {
    /// The last 50 lines, 16 KiB each, no file.
    fn default() -> Self {
        Self { kept: 50, line_limit: 16 * 1024, file: None, quiet: false, filter: None }
    }
}

/// The last lines of a child, which can be looked at from anywhere and at any time.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// The lines kept so far, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, line: &str, kept: usize) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while lines.len() >= kept.max(1) {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

/// The task that reads a child's pipes. Dropped, it stops reading.
#[derive(Debug)]
pub struct Output {
    tail: Tail,
    task: AbortOnDropHandle<()>,
    hurry: CancellationToken,
}

impl Output {
    /// Begins to read `pipes`, as the output of the child `name`, in a task on `tasks`.
    pub fn drain(
        name: &str,
        pipes: impl IntoIterator<Item = (Source, pipe::Receiver)>,
        settings: OutputSettings,
        tasks: &TaskTracker,
    ) -> Self {
        let tail = Tail::default();
        let hurry = CancellationToken::new();
        let drain = Drain {
            name: name.to_owned(),
            kept: settings.kept,
            quiet: settings.quiet,
            tail: tail.clone(),
            filter: settings.filter,
            file: settings.file.map(|file| LogFile::new(name, file)),
        };
        let mut stdout = None;
        let mut stderr = None;
        for (source, pipe) in pipes {
            let lines = Lines::new(pipe, settings.line_limit);
            match source {
                Source::Stdout => stdout = Some(lines),
                Source::Stderr => stderr = Some(lines),
            }
        }
        let task: JoinHandle<()> = tasks.spawn(drain.run(stdout, stderr, hurry.clone()));
        Self { tail, task: AbortOnDropHandle::new(task), hurry }
    }

    /// The last lines, from now on and after the end.
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Waits until the last line has been dealt with. For after the tree has gone, when the pipes have come to their end.
    pub async fn finish(mut self) {
        if timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.hurry.cancel();
            // The task has nothing to wait for any more; it fails only with the runtime.
            self.task.await.ok();
        }
    }
}

struct Drain {
    name: String,
    kept: usize,
    quiet: bool,
    tail: Tail,
    filter: Option<LineFilter>,
    file: Option<LogFile>,
}

impl Drain {
    async fn run(
        mut self,
        mut stdout: Option<Lines<pipe::Receiver>>,
        mut stderr: Option<Lines<pipe::Receiver>>,
        hurry: CancellationToken,
    ) {
        while stdout.is_some() || stderr.is_some() {
            let (source, more) = tokio::select! {
                more = fill(&mut stdout), if stdout.is_some() => (Source::Stdout, more),
                more = fill(&mut stderr), if stderr.is_some() => (Source::Stderr, more),
                () = hurry.cancelled() => {
                    tracing::warn!(child = %self.name, "output is still held open by a process that got away");
                    break;
                }
            };
            let pipe = match source {
                Source::Stdout => &mut stdout,
                Source::Stderr => &mut stderr,
            };
            if let Some(lines) = pipe {
                let ready = if more { lines.take_lines() } else { lines.take_rest() };
                self.pass_on(source, ready).await;
            }
            if !more {
                *pipe = None;
            }
        }
        for (source, lines) in [(Source::Stdout, stdout), (Source::Stderr, stderr)] {
            if let Some(mut lines) = lines {
                self.pass_on(source, lines.take_rest()).await;
            }
        }
    }

    async fn pass_on(&mut self, source: Source, lines: Vec<String>) {
        let lines: Vec<String> = match &self.filter {
            Some(filter) => lines.into_iter().map(|line| filter(line)).collect(),
            None => lines,
        };
        for line in &lines {
            self.tail.push(line, self.kept);
            if self.quiet {
                tracing::debug!(target: "sidegate::child", child = %self.name, %source, "{line}");
            } else {
                tracing::info!(target: "sidegate::child", child = %self.name, %source, "{line}");
            }
        }
        if let Some(file) = &mut self.file {
            file.append(&lines).await;
        }
    }
}

/// Reads once; false at the end of the pipe.
async fn fill(lines: &mut Option<Lines<pipe::Receiver>>) -> bool {
    match lines {
        Some(lines) => lines.fill().await,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn settings() -> OutputSettings {
        OutputSettings { kept: 3, line_limit: 16, ..OutputSettings::default() }
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_up_to_the_very_last() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let output = Output::drain("x", [(Source::Stderr, reader)], settings(), &TaskTracker::new());
        let tail = output.tail();
        writer.write_all(b"1\n2\n3\n4\nno newline").await.unwrap();
        drop(writer);
        output.finish().await;
        assert_eq!(tail.lines(), ["3", "4", "no newline"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_stays_open_holds_nobody_up() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let output = Output::drain("x", [(Source::Stdout, reader)], settings(), &TaskTracker::new());
        let tail = output.tail();
        writer.write_all(b"half a line").await.unwrap();
        output.finish().await;
        assert_eq!(tail.lines(), ["half a line"]);
        drop(writer);
    }

    #[tokio::test]
    async fn a_log_file_that_cannot_be_written_stops_nothing() {
        let (mut writer, reader) = pipe::pipe().unwrap();
        let file = LogFileSettings { directory: "/dev/null/logs".into(), size_limit: 100 };
        let settings = OutputSettings { file: Some(file), ..settings() };
        let output = Output::drain("x", [(Source::Stdout, reader)], settings, &TaskTracker::new());
        let tail = output.tail();
        // More than a pipe holds.
        for number in 0..20_000 {
            writer.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
        }
        drop(writer);
        output.finish().await;
        assert_eq!(tail.lines().last().map(String::as_str), Some("line 19999"));
    }
}
