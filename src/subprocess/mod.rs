//! Child processes: one guarded tree, its output, and a supervisor that keeps one running.
//!
//! Owns every process that the program starts, from the look-up of a command to the end of its last descendant.
//! Knows nothing of gateways, of MCP and of configuration files: it is handed commands, readiness probes and stop
//! recipes.
//!
//! Three layers, each usable without the next:
//!
//! | layer | type | promises |
//! | --- | --- | --- |
//! | one tree | [`ChildTree`] | nothing of the tree outlives the value, this process, or the guard |
//! | its output | [`Output`] | the pipes are always drained; the last lines are at hand; no line is lost at exit |
//! | a long-running child | [`Supervisor`] | one tree at a time; readiness, restarts and stops that cannot race |
//!
//! # The guard
//!
//! A process group is not enough: a descendant leaves it with `setsid`, and a parent that is killed by SIGKILL ends
//! nobody. So each tree has a guard, the hidden `__guard` subcommand of the helper binary ([`Helper`]), between us and the
//! command. It is the subreaper of the tree, so no descendant gets away by orphaning itself, and it ends the tree
//! when the command ends, when we say so, or when we are gone. What happens when who dies:
//!
//! | who | what ends the tree |
//! | --- | --- |
//! | the command | the guard kills what the command left behind |
//! | this process, also by SIGKILL | the guard: its control socket and its pidfd of us both say so |
//! | the guard, by SIGKILL | this process, by a sweep over `/proc` (see [`ChildTree`]) |
//! | both in the same instant | nobody; the guard's process name differs from ours so that no `pkill NAME` does this |
//!
//! Not covered: processes that run as another user and refuse our signals (they are counted and logged), and
//! work that a command hands to a daemon, such as containers: those are no descendants.

mod backoff;
#[cfg(target_os = "linux")]
mod cull;
mod guard;
mod lookup;
mod output;
#[cfg(target_os = "linux")]
mod procfs;
mod spec;
mod stop;
mod supervisor;
mod tree;
#[cfg(target_os = "linux")]
mod usage;

pub use backoff::BackoffSettings;
pub use guard::{GUARD_SUBCOMMAND, guard_main};
pub use lookup::{LookupError, lookup};
pub use output::{LineFilter, LogFileSettings, Output, OutputSettings, Source, Tail};
pub use spec::{Helper, Spec, Stream, TREE_VARIABLE};
pub use stop::{Signal, Step, StopRecipe};
pub use supervisor::{
    BoxError, Failure, NeverReady, RestartPolicy, Running, Service, State, Supervisor, SupervisorSettings,
    Work,
};
pub use tree::{ChildTree, Ending, SpawnError, Stopped};
#[cfg(target_os = "linux")]
pub use usage::{Root, Usage, usage};
