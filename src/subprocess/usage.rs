//! What trees of processes use, as `/proc` shows it.

use std::io;

use rustix::process::Pid;

use super::procfs::{Process, descendants, processes};

/// Where a tree is found in the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    pid: u32,
    guard: Option<u32>,
}

impl Root {
    /// The process `pid` and what descends from it.
    pub fn at(pid: u32) -> Self {
        Self { pid, guard: None }
    }

    /// All that descends from the guard `guard`, itself not included: also what its parent has left behind. Without a guard
    /// as [`at`](Self::at).
    pub(super) fn guarded(pid: u32, guard: Option<u32>) -> Self {
        Self { pid, guard }
    }
}

/// What the processes of a tree use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many run.
    pub processes: u64,
    /// Their resident memory in bytes. What they share is counted for each.
    pub memory: u64,
    /// Their open file descriptors. Those of other users' processes cannot be counted.
    pub descriptors: u64,
}

impl Usage {
    /// What this process uses, without what it has started.
    pub fn own() -> Self {
        let mut usage = Self::default();
        usage.add(rustix::process::getpid());
        usage
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            processes: self.processes + other.processes,
            memory: self.memory + other.memory,
            descriptors: self.descriptors + other.descriptors,
        }
    }

    fn add(&mut self, pid: Pid) {
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        // One that has ended since it was seen uses nothing.
        let Ok(status) = std::fs::read_to_string(format!("{directory}/status")) else { return };
        let kibibytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.processes += 1;
        // A process whose memory is torn down has no such line any more.
        self.memory += kibibytes.unwrap_or_default() * 1024;
        let descriptors = std::fs::read_dir(format!("{directory}/fd")).map(Iterator::count);
        self.descriptors += u64::try_from(descriptors.unwrap_or_default()).unwrap_or(u64::MAX);
    }
}

/// What each of `roots` uses, in their order; by a single look at the process table. Blocks for some milliseconds.
///
/// # Errors
///
/// The table cannot be read.
pub fn usage(roots: &[Root]) -> io::Result<Vec<Usage>> {
    let table = processes()?;
    let of = |root: &Root| {
        let top = root.guard.unwrap_or(root.pid);
        let is_top = |process: &Process| u32::try_from(process.pid.as_raw_nonzero().get()) == Ok(top);
        let mut usage = Usage::default();
        for process in
            descendants(&table, root.guard.is_none(), is_top).iter().filter(|process| process.alive)
        {
            usage.add(process.pid);
        }
        usage
    };
    Ok(roots.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell with one child, both of which wait for the end of their input.
    fn tree() -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0; cat <&3 & echo; wait"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        child
    }

    #[test]
    fn a_tree_is_counted_as_a_whole() {
        let mut child = tree();
        let pid = child.id();
        let own = std::process::id();
        let found = usage(&[Root::at(pid), Root::guarded(pid, Some(pid)), Root::at(u32::MAX), Root::at(own)]);
        let found = found.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((found[0].processes, found[1].processes, found[2].processes), (2, 1, 0));
        assert!(found[0].memory > found[1].memory && found[1].memory >= 4096, "{found:?}");
        assert!(found[0].descriptors >= 6, "{found:?}");
        assert!(found[3].processes >= 3, "{found:?}");
    }

    #[test]
    fn what_this_process_uses_is_known() {
        let before = Usage::own();
        let opened: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = Usage::own();
        assert_eq!((before.processes, after.processes), (1, 1));
        assert!(after.memory > 1 << 20, "{after:?}");
        assert!(after.descriptors >= opened.len() as u64, "{after:?}");
    }
}
