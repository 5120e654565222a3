//! Our side of a guard.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, getpid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::cull::cull;
use super::super::guard::{END, Invocation, MAX_DESCRIPTORS, Opening, Report};
use super::super::procfs;
use super::super::spec::TREE_VARIABLE;
use super::{Ending, Signal, SpawnError, Stopped};

/// A guard that has not started its command after this time is none.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What a guard is to do.
pub(super) struct Job {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) open_files: Option<u64>,
    pub(super) opening: Opening,
}

/// A guard whose command was started.
#[derive(Debug)]
pub(super) struct Guarded {
    pid: Pid,
    process: Child,
    control: Control,
    tag: String,
    ending: Option<Ending>,
    /// How many are left, once the tree has gone.
    left: Option<usize>,
}

impl Guarded {
    /// Starts a guard; `command` is the helper, with the surroundings of the job's command.
    pub(super) async fn spawn(
        command: Command,
        helper: &Path,
        job: Job,
        tag: String,
    ) -> Result<(u32, Self), SpawnError> {
        let program = job.program.clone();
        let (process, mut control) = launch(command, helper, job)?;
        let no_guard = |reason: String| SpawnError::NoGuard { helper: helper.to_owned(), reason };
        let first = timeout(START_LIMIT, control.next()).await;
        let pid = match first.map_err(|_| no_guard("it did not start the command".to_owned()))? {
            Some(Report::Started(pid)) => pid,
            Some(Report::NotRun(errno)) => {
                return Err(SpawnError::NotRun { program, source: io::Error::from_raw_os_error(errno) });
            }
            Some(Report::NoGuard(errno)) => {
                return Err(no_guard(io::Error::from_raw_os_error(errno).to_string()));
            }
            Some(Report::Status(_) | Report::Gone(_)) | None => {
                return Err(no_guard("it ended, or spoke of something else".to_owned()));
            }
        };
        let guard = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let guard = guard.ok_or_else(|| no_guard("it has no process id".to_owned()))?;
        Ok((pid, Self { pid: guard, process, control, tag, ending: None, left: None }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(super) async fn wait(&mut self) -> Ending {
        while self.ending.is_none() && self.left.is_none() {
            self.step().await;
        }
        self.ending.unwrap_or(Ending::GuardLost)
    }

    pub(super) async fn signal(&mut self, signal: Signal) {
        if let Ok(number) = u8::try_from(signal.as_raw()) {
            self.control.order(number).await;
        }
    }

    pub(super) async fn end(&mut self) -> Stopped {
        if self.left.is_none() {
            self.control.order(END).await;
        }
        let left = loop {
            match self.left {
                Some(left) => break left,
                None => self.step().await,
            }
        };
        // The guard has nothing to do any more but to exit, and is of the tree too. An error says that it is reaped.
        self.process.wait().await.ok();
        Stopped { ending: self.ending.unwrap_or(Ending::GuardLost), left }
    }

    /// Takes one report in.
    async fn step(&mut self) {
        match self.control.next().await {
            Some(Report::Status(status)) => {
                self.ending = Some(Ending::from_status(ExitStatus::from_raw(status)));
            }
            Some(Report::Gone(left)) => self.left = Some(left),
            Some(Report::Started(_) | Report::NotRun(_) | Report::NoGuard(_)) => {}
            None => {
                let (session, tag) = (self.pid, self.tag.clone());
                let swept = tokio::task::spawn_blocking(move || sweep(session, &tag)).await;
                // A sweep is cut off only by the end of the runtime, in which nobody hears of it.
                self.left = Some(swept.unwrap_or_default());
            }
        }
    }
}

/// A live guard learns of the drop by the end of the control socket. A dead one left its tree to us.
impl Drop for Guarded {
    fn drop(&mut self) {
        if self.left.is_none() && self.process.try_wait().is_ok_and(|status| status.is_some()) {
            sweep(self.pid, &self.tag);
        }
    }
}

fn launch(mut command: Command, helper: &Path, job: Job) -> Result<(Child, Control), SpawnError> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    send_opening(&ours, &job.opening)?;
    ours.set_nonblocking(true)?;
    let control = Control { stream: UnixStream::from_std(ours)?, received: Vec::new() };
    let invocation = Invocation {
        parent: getpid().as_raw_nonzero().get(),
        open_files: job.open_files,
        program: job.program.into(),
        args: job.args,
    };
    // With `command` goes our copy of the guard's end, so that the guard's death closes the last one.
    let process = command.args(invocation.to_args()).stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
    let process = process.map_err(|source| SpawnError::Helper { helper: helper.to_owned(), source })?;
    Ok((process, control))
}

fn send_opening(socket: &std::os::unix::net::UnixStream, opening: &Opening) -> io::Result<()> {
    if opening.descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(&opening.stdin)
        .chain(opening.descriptors.iter().map(|(_, descriptor)| descriptor))
        .map(AsFd::as_fd)
        .collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1 + MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&opening.payload())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Our end of the control socket.
#[derive(Debug)]
struct Control {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    /// The next report; `None` once the guard is dead. Can be cancelled without losing one.
    async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return std::str::from_utf8(&line).ok()?.trim_end().parse().ok();
            }
            if !self.stream.read_buf(&mut self.received).await.is_ok_and(|count| count > 0) {
                return None;
            }
        }
    }

    /// Sends a signal's number, or [`END`].
    async fn order(&mut self, order: u8) {
        // A guard that cannot hear is dead, which the next report says.
        self.stream.write_all(&[order]).await.ok();
    }
}

/// Ends what a killed guard left behind; returns how many could not be ended. Blocks for some milliseconds.
fn sweep(session: Pid, tag: &str) -> usize {
    let variable = format!("{TREE_VARIABLE}={tag}");
    let own = getpid();
    let swept = cull(|| {
        let mut found = procfs::descendants(&procfs::processes()?, true, |process| {
            process.session == session.as_raw_nonzero().get()
                || procfs::carries(process.pid, variable.as_bytes())
        });
        found.retain(|process| process.alive && process.pid != own);
        Ok(found)
    });
    match swept {
        Ok(left) => {
            tracing::warn!(
                guard = session.as_raw_nonzero().get(),
                left,
                "a guard was killed; its tree was swept up"
            );
            left
        }
        Err(error) => {
            tracing::error!(guard = session.as_raw_nonzero().get(), %error, "a guard was killed; its tree cannot be found");
            1
        }
    }
}
