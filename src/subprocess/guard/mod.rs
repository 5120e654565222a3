//! The guard: a process between us and a command that ends the command's whole tree.
//!
//! `__guard PARENT_PID [--open-files N] -- COMMAND ARGS…` is a subcommand of the binary for this module's own use. Its
//! environment, working directory, standard output and standard error are those of the command. Its standard input
//! is one end of a stream socket pair, the control socket, on which this file's messages travel:
//!
//! - to the guard, first: [`Opening`], whose descriptors are the command's standard input and those to pass on;
//! - to the guard, then: single bytes, each the number of a signal for the command, or [`END`];
//! - from the guard: [`Report`]s, one a line: `started`, `status`, `gone`; or instead `not-run`, `no-guard`.
//!
//! The end of the stream is a message too: for the guard, that the tree is to end; for us, that the guard is dead, and,
//! when `gone` has not come before, that it was killed.
//!
//! Invariants, for as long as the guard lives:
//!
//! - no descendant of the command leaves the guard's subtree, by whatever it does, and `gone 0` means that none is left;
//! - the command's tree ends when the command does, when the parent does, and when the control socket is closed;
//! - the guard holds no end of the command's streams once the command runs, so their ends are seen on the other side;
//! - SIGTERM and SIGINT to the guard are passed on to the command; the guard itself goes when the tree has gone.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::str::FromStr;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(not(target_os = "linux"))]
use unsupported as platform;

/// The first argument that makes the binary a guard. `main` looks for it before it does anything else.
pub const GUARD_SUBCOMMAND: &str = "__guard";

/// Exit code of a guard that could not do its work (as `env` and `timeout` have it).
const GUARD_FAILED: u8 = 125;

/// A control byte: end the tree now. No signal has the number 0.
pub(super) const END: u8 = 0;

/// The most descriptors that can be passed on to a command.
pub(super) const MAX_DESCRIPTORS: usize = 8;

/// Runs as the guard, with the arguments that follow [`GUARD_SUBCOMMAND`], until the command's tree has ended.
///
/// To be called as the first thing in `main`: it installs signal handlers, and relies on there being no other thread.
/// The exit code is the command's, or 128 and the number of the signal that ended it; 127 or 126 when the
/// command is missing or cannot be run, 125 when the guard itself failed. It is for people: the parent learns of the end by
/// the control socket, where a code cannot be taken for a signal.
pub fn guard_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Invocation::parse(arguments) {
        Some(invocation) => platform::run(invocation),
        None => ExitCode::from(GUARD_FAILED),
    }
}

/// The guard's command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    /// The process that must be the guard's parent, and on whose death the tree ends.
    pub(super) parent: i32,
    /// The soft limit on open files for the command.
    pub(super) open_files: Option<u64>,
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
}

impl Invocation {
    const OPEN_FILES: &str = "--open-files";

    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![GUARD_SUBCOMMAND.into(), self.parent.to_string().into()];
        if let Some(limit) = self.open_files {
            args.extend([Self::OPEN_FILES.into(), limit.to_string().into()]);
        }
        args.extend(["--".into(), self.program.clone()]);
        args.extend(self.args.iter().cloned());
        args
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let parent = arguments.next()?.to_str()?.parse().ok()?;
        let mut open_files = None;
        let mut next = arguments.next()?;
        if next == Self::OPEN_FILES {
            open_files = Some(arguments.next()?.to_str()?.parse().ok()?);
            next = arguments.next()?;
        }
        if next != "--" {
            return None;
        }
        Some(Self { parent, open_files, program: arguments.next()?, args: arguments.collect() })
    }
}

/// The first message to the guard, together with its descriptors.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) stdin: OwnedFd,
    /// Each with the variable that tells the command its number.
    pub(super) descriptors: Vec<(String, OwnedFd)>,
}

impl Opening {
    /// The bytes that the descriptors (`stdin` first) travel with: the variables' names, one a line.
    pub(super) fn payload(&self) -> Vec<u8> {
        let mut payload: Vec<u8> = Vec::new();
        for (name, _) in &self.descriptors {
            payload.extend(name.bytes());
            payload.push(b'\n');
        }
        // Descriptors cannot travel without at least one byte.
        payload.push(b'\n');
        payload
    }

    pub(super) fn assemble(payload: &[u8], descriptors: Vec<OwnedFd>) -> Option<Self> {
        let names = std::str::from_utf8(payload).ok()?.strip_suffix('\n')?;
        let names: Vec<String> = names.lines().map(str::to_owned).collect();
        let mut descriptors = descriptors.into_iter();
        let stdin = descriptors.next()?;
        (descriptors.len() == names.len())
            .then(|| Self { stdin, descriptors: names.into_iter().zip(descriptors).collect() })
    }
}

/// What the guard tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The command runs, as this process.
    Started(u32),
    /// The command was not run, for this `errno`. The guard ends.
    NotRun(i32),
    /// The guard could not set itself up, for this `errno`. It ends, and has run nothing.
    NoGuard(i32),
    /// The command has ended, with this wait status (wait(2)).
    Status(i32),
    /// Nothing is left of the tree but this many processes that cannot be killed. The guard ends.
    Gone(usize),
}

impl Report {
    pub(super) fn to_line(self) -> String {
        match self {
            Self::Started(pid) => format!("started {pid}\n"),
            Self::NotRun(errno) => format!("not-run {errno}\n"),
            Self::NoGuard(errno) => format!("no-guard {errno}\n"),
            Self::Status(status) => format!("status {status}\n"),
            Self::Gone(left) => format!("gone {left}\n"),
        }
    }
}

/// A line on the control socket that no guard writes: the helper is some other program.
#[derive(Debug)]
pub(super) struct NoReport;

impl FromStr for Report {
    type Err = NoReport;

    fn from_str(line: &str) -> Result<Self, NoReport> {
        fn number<T: FromStr>(text: &str) -> Result<T, NoReport> {
            text.parse().map_err(|_| NoReport)
        }
        let (what, value) = line.split_once(' ').ok_or(NoReport)?;
        Ok(match what {
            "started" => Self::Started(number(value)?),
            "not-run" => Self::NotRun(number(value)?),
            "no-guard" => Self::NoGuard(number(value)?),
            "status" => Self::Status(number(value)?),
            "gone" => Self::Gone(number(value)?),
            _ => return Err(NoReport),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_survives() {
        for open_files in [None, Some(1024)] {
            let args = vec!["--".into(), "-x".into(), String::new().into()];
            let written = Invocation { parent: 7, open_files, program: "cmd".into(), args };
            let read = Invocation::parse(written.to_args().into_iter().skip(1)).unwrap();
            assert_eq!(read, written);
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for line in ["", "7", "7 --", "x -- cmd", "7 cmd", "7 --open-files -- cmd", "7 --open-files 1 cmd"] {
            assert_eq!(Invocation::parse(line.split_whitespace().map(OsString::from)), None, "{line}");
        }
    }

    #[test]
    fn reports_survive() {
        for report in
            [Report::Started(7), Report::NotRun(2), Report::NoGuard(1), Report::Status(-1), Report::Gone(0)]
        {
            assert_eq!(report.to_line().trim_end().parse::<Report>().unwrap(), report);
        }
        for line in ["", "started", "started x", "hello 1"] {
            assert!(line.parse::<Report>().is_err(), "{line:?}");
        }
    }

    #[test]
    fn names_and_descriptors_must_pair_up() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let opening = Opening { stdin: null(), descriptors: vec![("READY_FD".to_owned(), null())] };
        let payload = opening.payload();
        let read = Opening::assemble(&payload, vec![null(), null()]).unwrap();
        assert_eq!(read.descriptors.first().unwrap().0, "READY_FD");
        assert!(Opening::assemble(&payload, vec![null()]).is_none());
        assert!(Opening::assemble(b"\n", vec![]).is_none());
        assert!(Opening::assemble(b"\n", vec![null()]).unwrap().descriptors.is_empty());
    }
}
