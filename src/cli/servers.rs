//! Servers as people see them.

use sidegate::admin::status::ServerEntry;

use super::table::table;
use super::words::{duration, since};

/// A table of servers, and below it what somebody should know of each.
pub(super) fn text(servers: &[ServerEntry]) -> String {
    let rows = servers.iter().map(|server| {
        [server.name.clone(), server.state.clone(), since(server.since), server.tools.to_string()]
    });
    let notes: Vec<String> = servers.iter().flat_map(notes).collect();
    let table = table(["SERVER", "STATE", "SINCE", "TOOLS"], rows);
    if notes.is_empty() { table } else { format!("{table}\n\n{}", notes.join("\n")) }
}

/// What is wrong with a server, or was.
pub(super) fn notes(server: &ServerEntry) -> Vec<String> {
    let ServerEntry { name, state, .. } = server;
    let mut notes = Vec::new();
    if let Some(reason) = &server.reason {
        notes.push(note(&format!("{name} is {state}"), reason));
        if let Some(wait) = server.retry_in_seconds {
            let tries = server.failures.unwrap_or(1);
            let wait = duration(wait.ceil() as u64);
            notes.push(format!("  failed tries: {tries}, the next one is in {wait}"));
        }
    } else if let Some(error) = &server.last_error {
        notes.push(note(&format!("{name} failed {} ago", since(error.at)), &error.message));
    }
    if let Some(stale) = &server.stale {
        notes.push(note(&format!("{name} stays as it was before its file became wrong"), stale));
    }
    notes
}

/// `what: why`, on lines of their own where the reason has several.
pub(super) fn note(what: &str, why: &str) -> String {
    if why.contains('\n') {
        format!("{what}:\n  {}", why.replace('\n', "\n  "))
    } else {
        format!("{what}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use sidegate::admin::status::LastError;

    use super::*;

    fn server() -> ServerEntry {
        ServerEntry {
            name: "docs".to_owned(),
            state: "failed".to_owned(),
            since: 0,
            tools: 0,
            reason: None,
            failures: None,
            retry_in_seconds: None,
            stale: None,
            last_error: None,
        }
    }

    #[test]
    fn what_is_wrong_is_below_the_table() {
        let failed = ServerEntry {
            reason: Some("connection refused".to_owned()),
            failures: Some(1),
            retry_in_seconds: Some(11.2),
            last_error: Some(LastError { at: 0, message: "connection refused".to_owned() }),
            ..server()
        };
        assert_eq!(
            notes(&failed),
            ["docs is failed: connection refused", "  failed tries: 1, the next one is in 12 s"]
        );
        let stale = ServerEntry { stale: Some("a:1:1: x\na:2:1: y".to_owned()), ..server() };
        assert_eq!(
            notes(&stale),
            ["docs stays as it was before its file became wrong:\n  a:1:1: x\n  a:2:1: y"]
        );
        assert!(notes(&server()).is_empty());
    }
}
