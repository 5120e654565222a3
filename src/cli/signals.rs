//! Signals, and the end of whoever started us.

use std::fmt;
use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or a service manager.
    Terminate,
    /// The terminal has gone, or, without one, an operator wants everything to be looked at again.
    HangUp,
    /// Whoever started us has ended.
    Orphaned,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
            Self::Orphaned => "the end of its parent",
        })
    }
}

/// Completes when a process has ended, or is none. Whoever knows a process by its id only makes sure afterwards that it
/// still is the one that was meant.
///
/// # Errors
///
/// There is no such process, or it cannot be watched.
pub(super) fn end_of(process: Pid) -> io::Result<oneshot::Receiver<()>> {
    let descriptor = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::NONBLOCK)?;
    watch("process", move || {
        let mut waiting = [PollFd::new(&descriptor, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut waiting, None) {}
    })
}

/// Completes when nobody reads stdout any more, also while nothing is written. Never for a file.
///
/// # Errors
///
/// It cannot be watched.
pub(super) fn end_of_stdout() -> io::Result<oneshot::Receiver<()>> {
    let stdout = io::stdout();
    watch("stdout", move || {
        // Errors and hang-ups are told without being asked for.
        let mut waiting = [PollFd::new(&stdout, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut waiting, None) {}
    })
}

/// Waits in a thread, as it is for one event of a whole life; it ends with the process.
fn watch(name: &str, wait: impl FnOnce() + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        wait();
        // Nobody listens any more when we are ending anyway.
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

/// Signals that are caught from now on.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    parent: Option<oneshot::Receiver<()>>,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            parent: None,
        })
    }

    /// Notices the end of the process that has started us, too.
    ///
    /// # Errors
    ///
    /// It cannot be watched, or has ended already.
    pub(super) fn watch_parent(&mut self) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process that started this one has ended");
        let parent = rustix::process::getppid().ok_or_else(gone)?;
        let ended = end_of(parent)?;
        // Between the two calls the parent can have ended, and its id can be another process's.
        if rustix::process::getppid() != Some(parent) {
            return Err(gone());
        }
        self.parent = Some(ended);
        Ok(())
    }

    /// Waits for the next one. Safe to drop while it waits.
    pub(super) async fn next(&mut self) -> Ask {
        let Self { interrupt, terminate, hang_up, parent } = self;
        let orphaned = async {
            match parent.as_mut() {
                // The sender is dropped only after it has sent.
                Some(receiver) => {
                    let _ = receiver.await;
                    *parent = None;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => Ask::Interrupt,
            _ = terminate.recv() => Ask::Terminate,
            _ = hang_up.recv() => Ask::HangUp,
            () = orphaned => Ask::Orphaned,
        }
    }
}
