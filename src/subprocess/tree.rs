//! One command and everything that it starts.
//!
//! Invariants:
//!
//! - once [`ChildTree::stop`] has returned `left: 0`, no process of the tree exists;
//! - a dropped tree ends too, only that nobody waits for it;
//! - [`ChildTree::spawn`] returns only when the command runs, or with the reason why it does not and nothing left behind;
//! - every method can be cancelled and called again.
//!
//! When the guard of a tree is killed, the tree is swept up from here: all that is in the guard's session, carries the
//! tree's [`TREE_VARIABLE`], or descends from such a process. What had left the session, dropped the variable and lost
//! its parent before the guard died is not found by that; the guard itself has no such gap.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::lookup::{LookupError, lookup};
use super::spec::{Helper, Spec, Stream, TREE_VARIABLE};
use super::stop::{Signal, Step, StopRecipe};

#[cfg(target_os = "linux")]
mod guarded;

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no file to run.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The working directory cannot be entered.
    #[error("working directory {} cannot be used", path.display())]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is there, and the kernel refused to run it: its interpreter is missing, or it is for another machine.
    #[error("{} could not be run", program.display())]
    NotRun {
        /// The file.
        program: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The helper binary could not be started.
    #[error("helper {} could not be started", helper.display())]
    Helper {
        /// The helper.
        helper: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The helper binary was started and did not behave as a guard.
    #[error("helper {} is no guard: {reason}", helper.display())]
    NoGuard {
        /// The helper.
        helper: PathBuf,
        /// What it did instead.
        reason: String,
    },
    /// The spec asks for what only a guard can do, and there is none.
    #[error("{0} needs the helper binary")]
    NeedsGuard(&'static str),
    /// No pipe, socket or process could be made.
    #[error("no resources to start a process")]
    Resources(#[from] io::Error),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited, with this code.
    Exited(i32),
    /// A signal of this number killed it.
    Killed(i32),
    /// Its guard was killed, so the command was too, and how it would have ended is not known.
    GuardLost,
}

impl Ending {
    /// Whether the command says that all is well: exit code 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    fn from_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Killed(signal),
            (None, None) => Self::GuardLost,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Killed(signal) => write!(f, "was killed by signal {signal}"),
            Self::GuardLost => f.write_str("was ended because its guard was killed"),
        }
    }
}

/// What a stop came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How the command ended.
    pub ending: Ending,
    /// How many processes had to be left alive, because they run as another user or hang in the kernel. 0 but in such
    /// cases. Without a guard it is always 0: what left the process group is not known of.
    pub left: usize,
}

/// A running command with all its descendants, and our ends of its standard streams.
#[derive(Debug)]
pub struct ChildTree {
    pid: u32,
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    #[cfg(target_os = "linux")]
    Guard(guarded::Guarded),
    Group(Group),
}

impl ChildTree {
    /// Starts the command of `spec` under a guard of `helper`, and returns when it runs.
    ///
    /// Needs a tokio runtime with I/O and time. When the future is dropped, whatever has been started is ended.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing runs then.
    pub async fn spawn(spec: Spec, helper: &Helper) -> Result<Self, SpawnError> {
        let cwd = spec.cwd.clone().unwrap_or_else(|| PathBuf::from("."));
        check_directory(&cwd).await?;
        let program = lookup(&spec.program, spec.variable("PATH"), &std::path::absolute(&cwd)?)?;
        let (stdin, our_stdin) = input(spec.stdin)?;
        let (stdout, our_stdout) = output(spec.stdout, rustix::stdio::stdout())?;
        let (stderr, our_stderr) = output(spec.stderr, rustix::stdio::stderr())?;
        let tag = format!("{:016x}", getrandom::u64().map_err(io::Error::other)?);
        let surroundings = |command: &mut Command| {
            command.env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
            command.env(TREE_VARIABLE, &tag).stdout(stdout).stderr(stderr);
            if let Some(cwd) = &spec.cwd {
                command.current_dir(cwd);
            }
        };
        let (pid, keeper) = match helper {
            #[cfg(target_os = "linux")]
            Helper::Program(helper) => {
                let mut command = Command::new(helper);
                surroundings(&mut command);
                let job = guarded::Job {
                    program,
                    args: spec.args,
                    open_files: spec.open_files,
                    opening: super::guard::Opening { stdin, descriptors: spec.descriptors },
                };
                let (pid, guarded) = guarded::Guarded::spawn(command, helper, job, tag).await?;
                (pid, Keeper::Guard(guarded))
            }
            #[cfg(not(target_os = "linux"))]
            Helper::Program(_) => return Err(SpawnError::NeedsGuard("guarding on this platform")),
            Helper::None => {
                if spec.open_files.is_some() {
                    return Err(SpawnError::NeedsGuard("a limit on open files"));
                }
                if !spec.descriptors.is_empty() {
                    return Err(SpawnError::NeedsGuard("passing descriptors on"));
                }
                let mut command = Command::new(&program);
                surroundings(&mut command);
                let (pid, group) = Group::spawn(command, program, spec.args, stdin)?;
                (pid, Keeper::Group(group))
            }
        };
        Ok(Self { pid, stdin: our_stdin, stdout: our_stdout, stderr: our_stderr, keeper })
    }

    /// The process id of the command itself, not of its guard.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process id of the guard, if there is one.
    pub fn guard_pid(&self) -> Option<u32> {
        match &self.keeper {
            #[cfg(target_os = "linux")]
            Keeper::Guard(guarded) => Some(guarded.pid()),
            Keeper::Group(_) => None,
        }
    }

    /// Where it is found in the process table.
    #[cfg(target_os = "linux")]
    pub fn root(&self) -> super::Root {
        super::Root::guarded(self.pid, self.guard_pid())
    }

    /// Our end of the command's standard input, once, if it is [`Stream::Piped`].
    pub fn take_stdin(&mut self) -> Option<pipe::Sender> {
        self.stdin.take()
    }

    /// Our end of the command's standard output, once, if it is [`Stream::Piped`].
    ///
    /// Whoever takes it must read it: a command blocks when the pipe is full. One that is never taken is closed with the tree.
    pub fn take_stdout(&mut self) -> Option<pipe::Receiver> {
        self.stdout.take()
    }

    /// Our end of the command's standard error, as [`take_stdout`](Self::take_stdout).
    pub fn take_stderr(&mut self) -> Option<pipe::Receiver> {
        self.stderr.take()
    }

    /// Waits for the end of the command itself; of what it leaves behind, [`stop`](Self::stop) tells.
    pub async fn wait(&mut self) -> Ending {
        match &mut self.keeper {
            #[cfg(target_os = "linux")]
            Keeper::Guard(guarded) => guarded.wait().await,
            Keeper::Group(group) => group.wait().await,
        }
    }

    /// Ends the tree by `recipe` and, whatever that leaves, by SIGKILL; returns when nothing is left.
    ///
    /// A command that has ended already, or does so on the way, cuts the recipe short.
    pub async fn stop(&mut self, recipe: &StopRecipe) -> Stopped {
        for step in recipe.steps() {
            match *step {
                Step::CloseStdin => self.stdin = None,
                Step::Signal(signal) => self.signal(signal).await,
                Step::Wait(limit) => {
                    if timeout_at(Instant::now() + limit, self.wait()).await.is_ok() {
                        break;
                    }
                }
            }
        }
        match &mut self.keeper {
            #[cfg(target_os = "linux")]
            Keeper::Guard(guarded) => guarded.end().await,
            Keeper::Group(group) => group.end().await,
        }
    }

    /// Sends a signal to the command; to none when it has ended.
    async fn signal(&mut self, signal: Signal) {
        match &mut self.keeper {
            #[cfg(target_os = "linux")]
            Keeper::Guard(guarded) => guarded.signal(signal).await,
            Keeper::Group(group) => group.signal(signal),
        }
    }
}

/// A command without a guard: a process group, and nothing that holds it together.
#[derive(Debug)]
struct Group {
    child: Child,
    /// The group's id, while it cannot have passed to another group.
    id: Option<rustix::process::Pid>,
    ending: Option<Ending>,
}

impl Group {
    fn spawn(
        mut command: Command,
        program: PathBuf,
        args: Vec<OsString>,
        stdin: OwnedFd,
    ) -> Result<(u32, Self), SpawnError> {
        let child = command.args(args).stdin(Stdio::from(stdin)).process_group(0).spawn();
        let child = child.map_err(|source| SpawnError::NotRun { program, source })?;
        let pid = child.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        Ok((pid, Self { child, id, ending: None }))
    }

    async fn wait(&mut self) -> Ending {
        if let Some(ending) = self.ending {
            return ending;
        }
        let ending = match self.child.wait().await {
            Ok(status) => Ending::from_status(status),
            Err(_) => Ending::GuardLost,
        };
        // At once: the id is the group's only while it has members, now that its leader is reaped.
        self.kill();
        self.ending = Some(ending);
        ending
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.id {
            // It may have ended a moment ago.
            rustix::process::kill_process(leader, signal).ok();
        }
    }

    fn kill(&mut self) {
        if let Some(group) = self.id.take() {
            // It may be empty by now.
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
    }

    async fn end(&mut self) -> Stopped {
        if let Some(group) = self.id {
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
        Stopped { ending: self.wait().await, left: 0 }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn check_directory(path: &Path) -> Result<(), SpawnError> {
    let refuse = |source| SpawnError::WorkingDirectory { path: path.to_owned(), source };
    let meta = tokio::fs::metadata(path).await.map_err(refuse)?;
    if meta.is_dir() { Ok(()) } else { Err(refuse(io::ErrorKind::NotADirectory.into())) }
}

/// The command's end of its standard input, and ours.
fn input(stream: Stream) -> io::Result<(OwnedFd, Option<pipe::Sender>)> {
    Ok(match stream {
        Stream::Null => (std::fs::File::open("/dev/null")?.into(), None),
        Stream::Inherit => (rustix::stdio::stdin().try_clone_to_owned()?, None),
        Stream::Piped => {
            let (reader, writer) = io::pipe()?;
            (reader.into(), Some(pipe::Sender::from_owned_fd(writer.into())?))
        }
    })
}

/// The command's end of one of its outputs, and ours.
fn output(stream: Stream, inherited: impl AsFd) -> io::Result<(Stdio, Option<pipe::Receiver>)> {
    Ok(match stream {
        Stream::Null => (Stdio::null(), None),
        Stream::Inherit => (inherited.as_fd().try_clone_to_owned()?.into(), None),
        Stream::Piped => {
            let (reader, writer) = io::pipe()?;
            (writer.into(), Some(pipe::Receiver::from_owned_fd(reader.into())?))
        }
    })
}
