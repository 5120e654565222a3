//! What is left over after a test: processes that carry its tag.
//!
//! A tag is part of the instance's `HOME` and `TMPDIR`, which every child gets, however much of the rest of its
//! environment is cleaned away; `SIDEGATE_TEST_TAG` holds it too, for those who look at a process by hand. Zombies
//! have no environment and are not seen.

use std::fmt;

use super::{DEADLINE, POLL, random_hex};

/// A random text that marks all processes of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(String);

/// A process that carries a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) pid: i32,
    /// Its arguments, separated by blanks.
    pub(crate) command: String,
}

impl Tag {
    pub(crate) fn random() -> Self {
        Self(random_hex(8))
    }
}

impl Tagged {
    pub(crate) fn id(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.pid)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The processes whose environment contains `tag` now.
pub(crate) fn processes(tag: &Tag) -> Vec<Tagged> {
    let mut tagged = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        // A process may end between any two of these lines, and then it carries nothing any more.
        let Ok(environment) = fs_err::read(path.join("environ")) else { continue };
        if contains(&environment, tag.0.as_bytes()) {
            let command = fs_err::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
            tagged.push(Tagged { pid, command });
        }
    }
    tagged
}

/// Waits until no process carries `tag`; panics with those that still do at the deadline.
pub(crate) async fn none(tag: &Tag) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let left = processes(tag);
        if left.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "processes left over: {left:#?}");
        tokio::time::sleep(POLL).await;
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
