//! The process table, as `/proc` shows it.
//!
//! A listing is not atomic: what forks while it is read may be missing. Callers repeat it until they have other
//! evidence that nothing is left.

use std::collections::HashMap;
use std::io;

use rustix::process::Pid;

/// One row of the process table (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    /// The parent's process id; 0 for those without one.
    pub(super) parent: i32,
    pub(super) session: i32,
    /// Whether it runs still: a zombie only waits for its parent, unless only its first thread has ended.
    pub(super) alive: bool,
    /// Start time in clock ticks since boot: with the pid it identifies a process for good.
    pub(super) started: u64,
}

/// All processes that can be seen.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        // One that ended since the listing has no row any more.
        found.extend(pid.and_then(process));
    }
    Ok(found)
}

/// The row of one process, unless it is gone.
pub(super) fn process(pid: Pid) -> Option<Process> {
    parse(pid, &std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// Whether a process was started with the variable `name=value`; not so when it is gone or another user's.
pub(super) fn carries(pid: Pid, variable: &[u8]) -> bool {
    std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == variable))
}

/// The rows of `table` that descend from a row that `is_root` picks, those included when `with_roots`.
pub(super) fn descendants(
    table: &[Process],
    with_roots: bool,
    is_root: impl Fn(&Process) -> bool,
) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process);
    }
    let roots: Vec<&Process> = table.iter().filter(|process| is_root(process)).collect();
    let mut seen: HashMap<Pid, Process> = HashMap::new();
    let mut queue = roots.clone();
    while let Some(next) = queue.pop() {
        for child in children.get(&next.pid.as_raw_nonzero().get()).into_iter().flatten() {
            if seen.insert(child.pid, **child).is_none() {
                queue.push(child);
            }
        }
    }
    if with_roots {
        seen.extend(roots.iter().map(|root| (root.pid, **root)));
    }
    seen.into_values().collect()
}

/// Reads a `stat` line. The command name is in parentheses and may itself hold spaces and parentheses.
fn parse(pid: Pid, line: &str) -> Option<Process> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    let threads = number(17)?;
    Some(Process {
        pid,
        alive: !matches!(*fields.first()?, "Z" | "X" | "x") || threads > 1,
        parent: number(1)?,
        session: number(3)?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, parent: i32) -> Process {
        Process { pid: Pid::from_raw(pid).unwrap(), parent, session: 1, alive: true, started: 0 }
    }

    fn pids(mut rows: Vec<Process>) -> Vec<i32> {
        rows.sort_by_key(|row| row.pid.as_raw_nonzero());
        rows.iter().map(|row| row.pid.as_raw_nonzero().get()).collect()
    }

    #[test]
    fn a_name_may_hold_anything() {
        let line = "42 (a) Z (b) S 7 42 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 9 9";
        let process = parse(Pid::from_raw(42).unwrap(), line).unwrap();
        assert_eq!((process.parent, process.session, process.alive, process.started), (7, 5, true, 1234));
    }

    #[test]
    fn a_zombie_is_dead_once_its_last_thread_is() {
        let line = |threads: u8| format!("42 (x) Z 7 42 5 0 -1 4 1 0 0 0 0 0 0 0 20 0 {threads} 0 1234 9 9");
        assert!(!parse(Pid::from_raw(42).unwrap(), &line(1)).unwrap().alive);
        assert!(parse(Pid::from_raw(42).unwrap(), &line(2)).unwrap().alive);
    }

    #[test]
    fn a_short_line_is_no_process() {
        assert_eq!(parse(Pid::from_raw(42).unwrap(), "42 (x) S 7 42"), None);
    }

    #[test]
    fn descendants_of_any_depth_are_found_in_any_order() {
        let table = [row(9, 8), row(2, 1), row(8, 2), row(3, 1), row(4, 3)];
        assert_eq!(pids(descendants(&table, false, |row| row.pid.as_raw_nonzero().get() == 2)), [8, 9]);
        assert_eq!(pids(descendants(&table, true, |row| row.pid.as_raw_nonzero().get() == 2)), [2, 8, 9]);
    }

    #[test]
    fn a_table_that_changed_while_it_was_read_ends_in_no_loop() {
        let table = [row(2, 3), row(3, 2)];
        assert_eq!(pids(descendants(&table, true, |row| row.pid.as_raw_nonzero().get() == 2)), [2, 3]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = rustix::process::getpid();
        assert!(processes().unwrap().iter().any(|process| process.pid == own && process.alive));
    }
}
