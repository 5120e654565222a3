//! The guard on Linux: a subreaper in a session of its own, in one thread.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getppid, getrlimit,
    kill_process, pidfd_open, set_child_subreaper, setrlimit, setsid, wait,
};

use super::super::cull::cull;
use super::super::procfs;
use super::{END, GUARD_FAILED, Invocation, MAX_DESCRIPTORS, Opening, Report};

/// The process name, which must differ from the parent's: `pkill -9 sidegate` must not hit both of them at once.
const PROCESS_NAME: &str = "tree-guard";

/// For how long a child that is there, by `wait`, but not in the process table is looked for: with `hidepid` a child that
/// became another user stays hidden.
const UNLISTED_LIMIT: Duration = Duration::from_secs(30);

/// Signals that are passed on to the command.
const FORWARDED: [Signal; 2] = [Signal::TERM, Signal::INT];

pub(super) fn run(invocation: Invocation) -> ExitCode {
    let Ok(control) = take_control() else { return ExitCode::from(GUARD_FAILED) };
    let guard = match Guard::set_up(control, &invocation) {
        Ok(guard) => guard,
        Err((control, error)) => {
            report(&control, Report::NoGuard(errno(&error)));
            return ExitCode::from(GUARD_FAILED);
        }
    };
    match guard.start(invocation) {
        Ok((guard, command)) => guard.watch(command),
        Err((control, error)) => {
            report(&control, Report::NotRun(errno(&error)));
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

/// Moves the control socket away from standard input, where the command would inherit it.
fn take_control() -> io::Result<OwnedFd> {
    let control = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}

struct Guard {
    control: OwnedFd,
    parent: OwnedFd,
    opening: Opening,
    /// Readable after SIGCHLD.
    children: UnixStream,
    /// Each readable after its signal.
    forwarded: Vec<(Signal, UnixStream)>,
}

impl Guard {
    /// Everything that must hold before the command exists.
    fn set_up(control: OwnedFd, invocation: &Invocation) -> Result<Self, (OwnedFd, io::Error)> {
        let prepare = || {
            let parent = Pid::from_raw(invocation.parent).ok_or(Errno::INVAL)?;
            let parent_fd = pidfd_open(parent, PidfdFlags::empty())?;
            // The pidfd is the parent's only if the parent was alive after it was opened.
            if getppid() != Some(parent) {
                return Err(Errno::SRCH.into());
            }
            setsid()?;
            set_child_subreaper(Some(getpid()))?;
            // Without /proc orphans could not be found.
            procfs::processes()?;
            // Only a convenience for people: not worth failing for.
            std::fs::write("/proc/self/comm", PROCESS_NAME).ok();
            let children = on_signal(Signal::CHILD)?;
            let forwarded = FORWARDED
                .into_iter()
                .map(|signal| Ok((signal, on_signal(signal)?)))
                .collect::<io::Result<Vec<_>>>()?;
            Ok((parent_fd, receive_opening(&control)?, children, forwarded))
        };
        match prepare() {
            Ok((parent, opening, children, forwarded)) => {
                Ok(Self { control, parent, opening, children, forwarded })
            }
            Err(error) => Err((control, error)),
        }
    }

    /// Runs the command, and lets go of everything that is the command's.
    fn start(self, invocation: Invocation) -> Result<(Watch, Pid), (OwnedFd, io::Error)> {
        let Self { control, parent, opening, children, forwarded } = self;
        match spawn(invocation, opening) {
            Ok(command) => {
                report(&control, Report::Started(command.as_raw_nonzero().get().unsigned_abs()));
                Ok((Watch { control, parent, children, forwarded }, command))
            }
            Err(error) => {
                // Also when the command ran already, and only letting go of its streams failed.
                end_all(|_, _| {});
                Err((control, error))
            }
        }
    }
}

fn spawn(invocation: Invocation, opening: Opening) -> io::Result<Pid> {
    let mut command = Command::new(invocation.program);
    command.args(invocation.args).stdin(Stdio::from(opening.stdin));
    // `kill 0` in the command must not hit the guard.
    command.process_group(0);
    for (variable, descriptor) in &opening.descriptors {
        // Inheritable from here on: nothing else is spawned that could inherit it as well.
        fcntl_setfd(descriptor, FdFlags::empty())?;
        command.env(variable, descriptor.as_raw_fd().to_string());
    }
    let limit = getrlimit(Resource::Nofile);
    if let Some(current) = invocation.open_files {
        let current = limit.maximum.map_or(current, |maximum| current.min(maximum));
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })?;
    }
    let null = File::options().write(true).open("/dev/null")?;
    // The handle is let go: whoever is reaped is reaped by `wait`.
    let child = command.spawn()?;
    // The guard itself may need many, for pidfds.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(Pid::from_child(&child))
}

/// A guard whose command runs.
struct Watch {
    control: OwnedFd,
    parent: OwnedFd,
    children: UnixStream,
    forwarded: Vec<(Signal, UnixStream)>,
}

impl Watch {
    /// Waits for a reason to end the tree, and ends it.
    fn watch(self, command: Pid) -> ExitCode {
        let mut status = self.wait_for_reason(command);
        if let Some(status) = status {
            report(&self.control, Report::Status(status.as_raw()));
        }
        let left = end_all(|pid, ended| {
            if pid == command {
                status = Some(ended);
                report(&self.control, Report::Status(ended.as_raw()));
            }
        });
        report(&self.control, Report::Gone(left));
        match status {
            Some(status) => exit_code(status),
            None => ExitCode::from(GUARD_FAILED),
        }
    }

    /// Returns the command's wait status when its end is the reason, and nothing when the parent wants or is at an end.
    fn wait_for_reason(&self, command: Pid) -> Option<WaitStatus> {
        loop {
            let mut polled = vec![
                PollFd::new(&self.parent, PollFlags::IN),
                PollFd::new(&self.control, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            polled.extend(self.forwarded.iter().map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
            match poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            }
            let mut ready = polled.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
            let mut next = || ready.next().unwrap_or(false);
            let (parent_ended, told, children) = (next(), next(), next());
            if children {
                drain(&self.children);
                // Orphans of the command are the guard's to reap, also while the command runs.
                let mut status = None;
                reap(|pid, ended| {
                    if pid == command {
                        status = Some(ended);
                    }
                });
                if status.is_some() {
                    return status;
                }
            }
            if parent_ended || (told && self.obey(command).is_none()) {
                return None;
            }
            for (signal, stream) in &self.forwarded {
                if next() {
                    drain(stream);
                    pass_on(command, *signal);
                }
            }
        }
    }

    /// Does what the control socket says; `None` when that is the end.
    fn obey(&self, command: Pid) -> Option<()> {
        let mut orders = [0; 16];
        match recv(&self.control, &mut orders, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => None,
            Ok((_, count)) => {
                for order in orders.iter().take(count) {
                    if *order == END {
                        return None;
                    }
                    pass_on(command, Signal::from_named_raw(i32::from(*order))?);
                }
                Some(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Some(()),
            Err(_) => None,
        }
    }
}

/// Signals the command, which cannot be confused with another process: nobody but the guard can reap it.
fn pass_on(command: Pid, signal: Signal) {
    // A command that became another user refuses. It is killed in the end, or counted as left.
    kill_process(command, signal).ok();
}

/// Kills and reaps until there are no children; returns how many had to be left.
fn end_all(mut reaped: impl FnMut(Pid, WaitStatus)) -> usize {
    let deadline = Instant::now() + UNLISTED_LIMIT;
    loop {
        let own = getpid();
        let left = cull(|| {
            if reap(&mut reaped) {
                return Ok(Vec::new());
            }
            let mut found = procfs::descendants(&procfs::processes()?, false, |process| process.pid == own);
            found.retain(|process| process.alive);
            Ok(found)
        });
        match left {
            Ok(0) if reap(&mut reaped) => return 0,
            Ok(0) => {}
            Ok(left) => return left,
            // /proc could be read at the start; it is a passing lack of memory or descriptors.
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return 1;
        }
        // A child was not in the listing, which happens to one that was forked while the listing was made.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reaps all that have ended; true when there are no children any more.
fn reap(mut reaped: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => reaped(pid, status),
            Ok(None) => return false,
            Err(Errno::INTR) => {}
            // ECHILD: the kernel's word that nothing is left.
            Err(_) => return true,
        }
    }
}

/// A stream that becomes readable at each `signal`.
fn on_signal(signal: Signal) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal.as_raw(), writer)?;
    Ok(reader)
}

fn drain(mut stream: &UnixStream) {
    let mut buffer = [0; 64];
    while io::Read::read(&mut stream, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
}

fn receive_opening(control: &OwnedFd) -> io::Result<Opening> {
    let mut payload = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1 + MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(control, &mut [IoSliceMut::new(&mut payload)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    payload
        .get(..received.bytes)
        .and_then(|payload| Opening::assemble(payload, descriptors))
        .ok_or_else(|| Errno::PROTO.into())
}

fn report(control: &OwnedFd, report: Report) {
    // A parent that does not listen any more needs no report.
    send(control, report.to_line().as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok();
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(GUARD_FAILED))
}
