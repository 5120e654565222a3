//! Ending a set of processes that may be growing while it is ended.
//!
//! Each pass lists the set, pins each member by a pidfd (so that a recycled pid is never hit), kills all by SIGKILL and
//! waits until they are dead; it is over when the caller's listing is empty. A set that has grown back after the first
//! pass is a fork bomb or close to one: from then on each pass first freezes what it finds by SIGSTOP until a
//! listing finds nothing new. The frozen ones keep their places in the process table, which stops what is not
//! frozen yet from multiplying into them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::procfs::{self, Process};

/// After this time what still lives is given up: it sleeps in the kernel, where no signal reaches it.
const LIMIT: Duration = Duration::from_secs(30);

/// How many are pinned in one pass: well below the usual soft limit of 1024 descriptors.
const BATCH: usize = 256;

/// How often a pass looks for more to freeze.
const FREEZE_LISTINGS: usize = 64;

/// How long one pass waits for the deaths it has ordered.
const PASS: Duration = Duration::from_secs(1);

/// Kills what `living` lists, again and again, until it lists nothing; returns how many had to be left alive.
///
/// Blocks. Those left are another user's, or could not be killed within [`LIMIT`].
///
/// # Errors
///
/// Those of `living`.
pub(super) fn cull(mut living: impl FnMut() -> io::Result<Vec<Process>>) -> io::Result<usize> {
    let deadline = Instant::now() + LIMIT;
    let mut regrown = false;
    loop {
        let victims = living()?;
        if victims.is_empty() {
            return Ok(0);
        }
        let count = victims.len();
        let mut held = Held::default();
        held.pin(victims, None);
        if regrown {
            for _ in 0..FREEZE_LISTINGS {
                if !held.pin(living()?, Some(Signal::STOP)) {
                    break;
                }
            }
        }
        let killed = held.kill();
        if (killed.is_empty() && held.refused == count) || Instant::now() >= deadline {
            return Ok(count);
        }
        await_deaths(killed);
        regrown = true;
    }
}

/// Processes that cannot be mistaken for others any more.
#[derive(Default)]
struct Held {
    pinned: HashMap<Pid, OwnedFd>,
    refused: usize,
}

impl Held {
    /// Pins those not held yet, and sends each of them `signal`; says whether there were any.
    fn pin(&mut self, processes: Vec<Process>, signal: Option<Signal>) -> bool {
        let before = self.pinned.len();
        for process in processes {
            if self.pinned.len() >= BATCH {
                break;
            }
            if self.pinned.contains_key(&process.pid) {
                continue;
            }
            let pidfd = match pidfd_open(process.pid, PidfdFlags::empty()) {
                Ok(pidfd) => pidfd,
                Err(Errno::SRCH) => continue,
                Err(_) => {
                    self.refused += 1;
                    continue;
                }
            };
            // The pid may have passed to another process between the listing and the pidfd.
            if procfs::process(process.pid).is_some_and(|now| now.started == process.started) {
                if let Some(signal) = signal {
                    // A refusal shows again at the kill, where it is counted.
                    pidfd_send_signal(&pidfd, signal).ok();
                }
                self.pinned.insert(process.pid, pidfd);
            }
        }
        self.pinned.len() > before
    }

    /// Kills all, and returns those whose death is to be expected.
    fn kill(&mut self) -> Vec<OwnedFd> {
        let mut killed = Vec::new();
        for (_, pidfd) in self.pinned.drain() {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Err(Errno::PERM) => self.refused += 1,
                Ok(()) | Err(_) => killed.push(pidfd),
            }
        }
        killed
    }
}

/// Waits until all are dead, reaped or not, for [`PASS`] at most. A pidfd is readable from the death on.
fn await_deaths(mut pidfds: Vec<OwnedFd>) {
    let deadline = Instant::now() + PASS;
    while !pidfds.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else { return };
        let mut polled: Vec<PollFd<'_>> =
            pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let mut dead: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        dead.reverse();
        pidfds.retain(|_| !dead.pop().unwrap_or(false));
    }
}
