//! What to run: a command with its whole surroundings.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The variable that every process of a tree carries, with a value that is unique to the tree.
///
/// It is how a tree is found again when its guard was killed, and how tests count what is left of one.
pub const TREE_VARIABLE: &str = "SIDEGATE_TREE";

/// Where one of the command's standard streams leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// To `/dev/null`.
    #[default]
    Null,
    /// To a pipe whose other end the [`ChildTree`](super::ChildTree) holds.
    Piped,
    /// To wherever ours leads.
    Inherit,
}

/// The program that runs `__guard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Helper {
    /// The path of a `sidegate` binary. Trees are guarded.
    Program(PathBuf),
    /// There is none: the command leads a process group, and that group is killed when the tree is stopped or dropped.
    ///
    /// A descendant that leaves the group gets away, and nothing ends the group when this process is killed.
    None,
}

/// One command, complete: nothing of our own environment reaches it unless it is in here.
///
/// A `Spec` is used up by one start; whoever restarts a command makes a fresh one.
#[derive(Default)]
pub struct Spec {
    /// The command: looked up on the `PATH` of [`env`](Self::env), or relative to [`cwd`](Self::cwd) when it holds a slash.
    pub program: OsString,
    /// Its arguments, without the command itself.
    pub args: Vec<OsString>,
    /// Its whole environment, to which only [`TREE_VARIABLE`] is added.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; ours when `None`.
    pub cwd: Option<PathBuf>,
    /// Where its standard input comes from.
    pub stdin: Stream,
    /// Where its standard output goes.
    pub stdout: Stream,
    /// Where its standard error goes.
    pub stderr: Stream,
    /// The soft limit on open files (RLIMIT_NOFILE) to run it with; ours when `None`. Needs a guard.
    pub open_files: Option<u64>,
    /// Descriptors to pass on. The variable of the given name tells the command the number. Needs a guard.
    ///
    /// Our side of a descriptor is closed once the command runs, so that its other end sees when the command closes it.
    pub descriptors: Vec<(String, OwnedFd)>,
}

impl Spec {
    /// A command without arguments, environment or streams.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable; a later value of a name wins.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The value that the command will see for a variable.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }
}

/// Names only: arguments and values can hold secrets.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Spec")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("env", &names)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let spec = Spec::new("x").env("A", "1").env("A", "2");
        assert_eq!(spec.variable("A"), Some(OsStr::new("2")));
        assert_eq!(spec.variable("B"), None);
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let spec = Spec::new("x").arg("--token=hunter2").env("API_KEY", "hunter2");
        let text = format!("{spec:?}");
        assert!(text.contains("API_KEY") && !text.contains("hunter2"), "{text}");
    }
}
