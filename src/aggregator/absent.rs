//! What a client is told who asks for something of a server that cannot be called: where it stands, why, and what to do.
//!
//! Exposed names are looked up in the catalogue alone: what begins like the names of a server may be another's all the same.
//! Only with a resource that nobody lists does it count whose it was ([`resource`](super::route::resource)).

use super::offer::Kind;
use super::registry::Registry;
use super::scope::ALL_PATH;
use super::standing::{Outlook, Standing};
use crate::mcpserver::ServerName;
use crate::similar::nearest;
use crate::sync::lock;
use crate::wire::rpc::RpcError;

/// The code of a resource that is not there (2025-11-25, server/resources, "Error Handling").
const RESOURCE_NOT_FOUND: i32 = -32002;

/// How many servers one message names.
const MOST_SERVERS: usize = 5;

impl Registry {
    /// Why a server cannot be asked.
    pub(super) fn not_connected(&self, server: &ServerName) -> RpcError {
        let standings = self.standings();
        let standings = standings.borrow();
        let standing = standings.get(server).filter(|standing| standing.outlook != Outlook::Up);
        let why = match standing {
            Some(standing) => told(server, standing),
            None => format!("server {server} is not connected"),
        };
        RpcError::new(RpcError::UPSTREAM, why)
    }

    /// What a client gets who asks for something that is not in the catalogue.
    pub(super) fn not_found(&self, kind: Kind, key: &str) -> RpcError {
        if let Some(error) = self.not_now(kind, key) {
            return error;
        }
        let code = match kind {
            // Unknown tools and prompts (2025-11-25, server/tools and server/prompts, "Error Handling").
            Kind::Tool | Kind::Prompt => RpcError::INVALID_PARAMS,
            Kind::Resource | Kind::Template => RESOURCE_NOT_FOUND,
        };
        let noun = kind.noun();
        let why = match self.perhaps(kind, key) {
            Some(perhaps) => format!("{noun} not found: {key}; {perhaps}"),
            None => format!("{noun} not found: {key}"),
        };
        RpcError::new(code, why)
    }

    /// What a client gets who asks for something of a server that has lost its session and gets no other, where it was in
    /// the catalogue before.
    pub(super) fn not_now(&self, kind: Kind, key: &str) -> Option<RpcError> {
        let owner = {
            let lost = lock(&self.entered).lost.clone();
            lost.into_iter().find(|(_, entry)| entry.may_give(&self.lead, kind, key))?.0
        };
        let standings = self.standings();
        let standings = standings.borrow();
        let standing = standings.get(&owner).filter(|standing| standing.outlook != Outlook::Up)?;
        let (noun, why) = (kind.noun(), told(&owner, standing));
        Some(RpcError::new(RpcError::UPSTREAM, format!("{noun} {key} cannot be used now: {why}")))
    }

    /// Which servers that cannot be called may have something, and why they cannot.
    pub(super) fn perhaps(&self, kind: Kind, key: &str) -> Option<String> {
        let standings = self.standings();
        let standings = standings.borrow();
        let likeness = |(server, standing): (&ServerName, &Standing)| match kind {
            Kind::Tool | Kind::Prompt => {
                let prefixes = standing.prefixes.iter().filter(|prefix| begins(&self.lead, prefix, key));
                prefixes.map(String::len).max()
            }
            Kind::Resource | Kind::Template => {
                let is_named = key.strip_prefix(server.as_str()).is_some_and(|rest| rest.starts_with('+'));
                if is_named {
                    Some(server.as_str().len())
                } else {
                    // A URI tells nothing of whose it is.
                    matches!(standing.outlook, Outlook::Coming | Outlook::Broken).then_some(0)
                }
            }
        };
        let best = standings.iter().filter_map(likeness).max()?;
        let of_best = standings.iter().filter(|entry| likeness(*entry) == Some(best));
        let away: Vec<_> = of_best.filter(|(_, standing)| standing.outlook != Outlook::Up).collect();
        match away.as_slice() {
            [] => None,
            [(server, standing)] => Some(told(server, standing)),
            several => {
                let named = several.iter().take(MOST_SERVERS);
                let mut names: Vec<String> =
                    named.map(|(server, standing)| format!("{server} ({})", standing.state)).collect();
                if several.len() > MOST_SERVERS {
                    names.push(format!("{} more", several.len() - MOST_SERVERS));
                }
                Some(format!("servers that may have it do not run now: {}", names.join(", ")))
            }
        }
    }

    /// What to say of the endpoint of a server that is not defined.
    pub fn no_server(&self, server: &str) -> String {
        let standings = self.standings();
        let standings = standings.borrow();
        match nearest(server, standings.keys().map(ServerName::as_str)) {
            Some(meant) => format!("there is no server {server:?}; did you mean {ALL_PATH}/{meant}?"),
            None => format!("there is no server {server:?}; see `sidegate list`"),
        }
    }
}

fn told(server: &ServerName, standing: &Standing) -> String {
    format!("server {server} is {}: {}", standing.state, standing.why)
}

/// Whether an exposed name begins like those of a server with this prefix.
fn begins(lead: &str, prefix: &str, name: &str) -> bool {
    let rest = name.strip_prefix(lead).and_then(|rest| rest.strip_prefix('_'));
    let rest = rest.and_then(|rest| rest.strip_prefix(prefix));
    rest.is_some_and(|rest| rest.starts_with(['_', '-', '.']))
}
