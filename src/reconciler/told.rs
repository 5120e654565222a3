//! What clients are told of a server that they ask for: where it stands, why, and what to do about it.
//!
//! Read by models as often as by people, in the answer to a call: a line, which names what somebody can do. Knows nothing of
//! when it is told.

use crate::aggregator::standing::{Outlook, Standing};
use crate::mcpserver::{Definition, ServerName};

use super::state::ServerState;

/// The longest reason, in characters. Commands and the page tell the whole of it.
const LONGEST: usize = 300;

/// What failures are followed by.
const AGAIN: &str = " (it is tried again by itself)";

/// A server of which nothing is known yet.
pub(super) fn new(server: &ServerName) -> Standing {
    let prefixes = vec![server.to_string()];
    Standing { prefixes, state: ServerState::Starting.name(), outlook: Outlook::Coming, why: String::new() }
}

/// What may stand for a server in exposed names.
pub(super) fn prefixes(definition: &Definition) -> Vec<String> {
    let mut prefixes = vec![definition.name.to_string()];
    prefixes.extend(definition.tool_prefix.iter().map(|prefix| prefix.as_str().to_owned()));
    prefixes.extend(definition.family.iter().map(|family| family.name.as_str().to_owned()));
    prefixes
}

/// Says in `standing` where `server` stands now.
pub(super) fn tell(standing: &mut Standing, server: &ServerName, state: &ServerState) {
    let reason = |reason: &str, then: &str| format!("{}{then}", line(reason));
    let (outlook, why) = match state {
        ServerState::Running | ServerState::Connected | ServerState::Degraded { .. } => {
            (Outlook::Up, String::new())
        }
        ServerState::Starting | ServerState::Connecting => {
            (Outlook::Coming, "it is not ready yet; try again in a moment".to_owned())
        }
        ServerState::Failed { reason: why, .. } => (Outlook::Coming, reason(why, AGAIN)),
        ServerState::AuthRequired { reason: why, .. } => (Outlook::Coming, reason(why, AGAIN)),
        ServerState::Stopped | ServerState::Disconnected => {
            (Outlook::Resting, format!("`sidegate start {server}` starts it"))
        }
        ServerState::Invalid { reason: why } => (Outlook::Broken, reason(why, "")),
        ServerState::Unsupported { reason: why } => (Outlook::Broken, reason(why, "")),
    };
    *standing =
        Standing { prefixes: std::mem::take(&mut standing.prefixes), state: state.name(), outlook, why };
}

/// The text in one line, and not too long.
fn line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join("; ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_line_that_is_not_too_long() {
        let server: ServerName = "a".parse().unwrap();
        let mut standing = new(&server);
        let mut told = |reason: &str| {
            tell(&mut standing, &server, &ServerState::Invalid { reason: reason.to_owned() });
            standing.why.clone()
        };
        assert_eq!(told("a.yaml:1:1: wrong\n\n  a.yaml:2:1: too\n"), "a.yaml:1:1: wrong; a.yaml:2:1: too");
        let long = told(&"é".repeat(1000));
        assert_eq!(long, format!("{}…", "é".repeat(LONGEST)));
    }
}
