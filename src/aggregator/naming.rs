//! How tools, prompts and resources are called where everybody sees them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use super::offer::Kind;
use crate::mcpserver::ServerName;

/// Common clients refuse tool names that are longer than this, in characters.
pub const LONGEST_NAME: usize = 64;

/// What one server lists of one kind, as naming sees it.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// The server.
    pub server: &'a ServerName,
    /// What it lists, in its own order.
    pub candidates: Vec<&'a Candidate>,
}

/// What something that a server lists may be called: all that is known of its name without the other servers. Made once,
/// when a server comes, and looked at whenever any does.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its place in the server's list.
    pub at: usize,
    /// Its key at the server.
    pub key: ByteString,
    /// The usual name.
    full: Arc<str>,
    /// The name in which a prefix that it begins with is not repeated.
    short: Option<Arc<str>>,
    /// The server lists the same before.
    is_listed: bool,
}

impl Candidate {
    /// Whether this is a name that it may have.
    pub fn may_be_called(&self, name: &str) -> bool {
        *self.full == *name || self.short.as_deref() == Some(name)
    }
}

/// What the `keys` of a server may be called, in the same order.
///
/// A tool is called `<lead>_<prefix>_<tool>`; where its own name begins with the prefix already, that is not repeated,
/// unless two tools would then be called the same. URIs stay as they are.
pub fn candidates<'k>(
    lead: &str,
    kind: Kind,
    prefix: &str,
    keys: impl Iterator<Item = &'k ByteString>,
) -> Vec<Candidate> {
    let mut listed: HashSet<&str> = HashSet::new();
    let candidate = |(at, key): (usize, &'k ByteString)| {
        let (full, short) = match kind {
            Kind::Tool | Kind::Prompt => {
                (full(lead, prefix, key).into(), short(lead, prefix, key).map(Arc::from))
            }
            Kind::Resource | Kind::Template => (Arc::from(&**key), None),
        };
        Candidate { at, key: key.clone(), full, short, is_listed: !listed.insert(key) }
    };
    keys.enumerate().map(candidate).collect()
}

/// Something about names that a user should know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NamingProblem {
    /// A server lists the same twice; the first one counts.
    Twice {
        /// The server.
        server: ServerName,
        /// What it is.
        kind: Kind,
        /// Its key there.
        key: String,
    },
    /// The usual name was taken, so it is exposed under another one.
    Taken {
        /// The server.
        server: ServerName,
        /// What it is.
        kind: Kind,
        /// Its key there.
        key: String,
        /// The name that was taken.
        wanted: String,
        /// The name it has instead.
        exposed: String,
    },
    /// The servers of a family disagree on what the argument is called; their tools have their servers' names.
    FamilyDisagrees {
        /// The family.
        family: String,
    },
    /// A tool of a family that has its servers' names.
    NotShared {
        /// The family.
        family: String,
        /// The tool's name at its servers.
        key: String,
        /// Why.
        why: NotShared,
    },
    /// The name is longer than common clients take.
    TooLong {
        /// The server.
        server: ServerName,
        /// What it is.
        kind: Kind,
        /// The exposed name.
        exposed: String,
    },
}

/// Why a tool of a family is not one for all of its servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotShared {
    /// The servers describe it differently.
    #[error("its servers describe it differently")]
    Differs,
    /// It has an argument of the name already.
    #[error("it has an argument {0:?} of its own")]
    HasArgument(String),
    /// Its schema cannot take one more argument.
    #[error("its inputSchema is not that of an object")]
    Schema,
    /// Something else is called so.
    #[error("{0:?} is taken")]
    Taken(String),
}

impl fmt::Display for NamingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice { server, kind, key } => {
                let noun = kind.noun();
                write!(f, "server {server} lists the {noun} {key:?} twice; the first one is used")
            }
            Self::Taken { server, kind, key, wanted, exposed } => {
                let noun = kind.noun();
                write!(f, "{noun} {key:?} of server {server} is exposed as {exposed:?}: {wanted:?} is taken")
            }
            Self::FamilyDisagrees { family } => write!(
                f,
                "the servers of family {family} have different instanceArgs, so their tools have the servers' names"
            ),
            Self::NotShared { family, key, why } => {
                write!(f, "tool {key:?} of family {family} has the names of its servers: {why}")
            }
            Self::TooLong { server, kind, exposed } => write!(
                f,
                "{} name {exposed:?} of server {server} has more than {LONGEST_NAME} characters, \
                 which common clients refuse; set a shorter spec.toolPrefix",
                kind.noun()
            ),
        }
    }
}

/// The exposed name of each candidate of one server, in their order; `None` where it is left out.
pub type ExposedNames = Vec<Option<Arc<str>>>;

/// Exposed names of what `servers` list, which must be sorted by name: for each server in turn, for each of its candidates in
/// turn, the name or `None` where it is left out. The same input always gives the same names.
///
/// Of equal names the first server has it. A tool or prompt of another one gets that server's own name instead of its
/// prefix, a URI `<server>+` in front.
pub fn expose(lead: &str, kind: Kind, servers: &[Named<'_>]) -> (Vec<ExposedNames>, Vec<NamingProblem>) {
    // How many would have each short name, also as their full one: it is used where it is alone.
    let mut wanted: HashMap<&str, usize> = HashMap::new();
    let all = || servers.iter().flat_map(|server| server.candidates.iter());
    for short in all().filter_map(|candidate| candidate.short.as_deref()) {
        *wanted.entry(short).or_default() += 1;
    }
    if !wanted.is_empty() {
        for candidate in all() {
            if let Some(count) = wanted.get_mut(&*candidate.full) {
                *count += 1;
            }
        }
    }
    let mut problems = Vec::new();
    let mut taken: HashSet<Arc<str>> = HashSet::with_capacity(all().count());
    let mut names = Vec::with_capacity(servers.len());
    for Named { server, candidates } in servers {
        let mut exposed_names = Vec::with_capacity(candidates.len());
        for Candidate { key, full, short, is_listed, .. } in candidates {
            if *is_listed {
                let (server, key) = ((*server).clone(), key.to_string());
                problems.push(NamingProblem::Twice { server, kind, key });
                exposed_names.push(None);
                continue;
            }
            let short = short.as_ref().filter(|name| wanted.get(&***name) == Some(&1));
            let wanted = short.unwrap_or(full);
            let exposed = match taken.insert(Arc::clone(wanted)) {
                true => Arc::clone(wanted),
                false => {
                    let exposed: Arc<str> = other(lead, kind, server, key, &taken).into();
                    taken.insert(Arc::clone(&exposed));
                    let (wanted, exposed_name) = (wanted.to_string(), exposed.to_string());
                    let (server, key) = ((*server).clone(), key.to_string());
                    problems.push(NamingProblem::Taken { server, kind, key, wanted, exposed: exposed_name });
                    exposed
                }
            };
            exposed_names.push(Some(exposed));
        }
        names.push(exposed_names);
    }
    if matches!(kind, Kind::Tool | Kind::Prompt) {
        for (Named { server, .. }, names) in servers.iter().zip(&names) {
            // No text has more characters than bytes.
            let long = |name: &&Arc<str>| name.len() > LONGEST_NAME && name.chars().count() > LONGEST_NAME;
            for exposed in names.iter().flatten().filter(long) {
                let (server, exposed) = ((*server).clone(), exposed.to_string());
                problems.push(NamingProblem::TooLong { server, kind, exposed });
            }
        }
    }
    (names, problems)
}

/// The first free name of what cannot have the usual one.
fn other(lead: &str, kind: Kind, server: &ServerName, key: &str, taken: &HashSet<Arc<str>>) -> String {
    let numbered = |number: u64| match kind {
        Kind::Tool | Kind::Prompt => format!("{}_{number}", full(lead, server.as_str(), key)),
        // The number, too, stands before the URI: what is in front is all that differs.
        Kind::Resource | Kind::Template => format!("{server}+{number}+{key}"),
    };
    let first = match kind {
        Kind::Tool | Kind::Prompt => full(lead, server.as_str(), key),
        Kind::Resource | Kind::Template => format!("{server}+{key}"),
    };
    let mut names = std::iter::once(first.clone()).chain((2_u64..).map(numbered));
    names.find(|name| !taken.contains(name.as_str())).unwrap_or(first)
}

/// The exposed name of a tool that the servers of a family share.
pub fn of_family(lead: &str, family: &str, tool: &str) -> String {
    short(lead, family, tool).unwrap_or_else(|| full(lead, family, tool))
}

fn full(lead: &str, prefix: &str, tool: &str) -> String {
    format!("{lead}_{prefix}_{tool}")
}

fn short(lead: &str, prefix: &str, tool: &str) -> Option<String> {
    let rest = tool.strip_prefix(prefix)?;
    (rest.starts_with(['_', '-', '.']) && rest.len() > 1).then(|| format!("{lead}_{tool}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exposed<K: AsRef<str>>(
        kind: Kind,
        servers: &[(&str, &str, &[K])],
    ) -> (Vec<Option<String>>, Vec<NamingProblem>) {
        let owned: Vec<(ServerName, Vec<Candidate>)> = servers
            .iter()
            .map(|(name, prefix, keys)| {
                let keys: Vec<ByteString> = keys.iter().map(|key| key.as_ref().into()).collect();
                (name.parse().unwrap(), candidates("x", kind, prefix, keys.iter()))
            })
            .collect();
        let named: Vec<Named<'_>> = owned
            .iter()
            .map(|(server, candidates)| Named { server, candidates: candidates.iter().collect() })
            .collect();
        let (names, problems) = expose("x", kind, &named);
        (names.into_iter().flatten().map(|name| Some(name?.to_string())).collect(), problems)
    }

    fn names(servers: &[(&str, &str, &[&str])]) -> (Vec<Option<String>>, Vec<String>) {
        let (names, problems) = exposed(Kind::Tool, servers);
        (names, problems.iter().map(ToString::to_string).collect())
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[test]
    fn a_prefix_stands_before_each_name_once() {
        let (exposed, problems) = names(&[
            ("git", "git", &["status", "git_log", "github", "git_"]),
            ("wiki", "w", &["w_find", "wiki_find"]),
        ]);
        let expected =
            ["x_git_status", "x_git_log", "x_git_github", "x_git_git_", "x_w_find", "x_w_wiki_find"];
        assert_eq!(exposed, some(&expected));
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_prefix_is_repeated_where_two_names_would_be_equal() {
        let (exposed, problems) = names(&[("git", "git", &["git_log", "log"])]);
        assert_eq!(exposed, some(&["x_git_git_log", "x_git_log"]));
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_taken_name_goes_to_the_first_server() {
        let (exposed, problems) = names(&[("a", "p", &["t"]), ("b", "p", &["t"]), ("c", "p", &["t"])]);
        assert_eq!(exposed, some(&["x_p_t", "x_b_t", "x_c_t"]));
        assert_eq!(problems[0], r#"tool "t" of server b is exposed as "x_b_t": "x_p_t" is taken"#);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn a_tool_listed_twice_is_exposed_once() {
        let (exposed, problems) = names(&[("a", "a", &["t", "t"])]);
        assert_eq!(exposed, [Some("x_a_t".to_owned()), None]);
        assert_eq!(problems, [r#"server a lists the tool "t" twice; the first one is used"#]);
    }

    #[test]
    fn a_long_name_is_reported() {
        let long = "t".repeat(61);
        let (_, problems) = names(&[("a", "a", &[&long])]);
        assert!(problems[0].contains("more than 64 characters"), "{problems:?}");
    }

    #[test]
    fn a_uri_stays_as_it_is_but_for_later_servers() {
        let servers: &[(&str, &str, &[&str])] =
            &[("a", "p", &["f:1", "b+f:1"]), ("b", "p", &["f:1", "f:2", "f:2"]), ("c", "p", &["f:1"])];
        let (uris, problems) = exposed(Kind::Resource, servers);
        let uris: Vec<Option<&str>> = uris.iter().map(Option::as_deref).collect();
        let expected = [Some("f:1"), Some("b+f:1"), Some("b+2+f:1"), Some("f:2"), None, Some("c+f:1")];
        assert_eq!(uris, expected);
        assert_eq!(problems.len(), 3);
        let taken = r#"resource "f:1" of server c is exposed as "c+f:1": "f:1" is taken"#;
        assert_eq!(problems[2].to_string(), taken);
    }

    proptest! {
        /// Whatever servers are called and list, no two tools are exposed under one name.
        #[test]
        fn exposed_names_are_unique(
            servers in proptest::collection::btree_map(
                "[ab]{1,2}",
                ("[ab]{1,2}(_[ab])?", proptest::collection::vec("([ab]_?){1,3}", 0..5)),
                0..5,
            )
        ) {
            let servers: Vec<(&str, &str, &[String])> = servers
                .iter()
                .map(|(name, (prefix, tools))| (name.as_str(), prefix.as_str(), tools.as_slice()))
                .collect();
            let (names, _) = exposed(Kind::Tool, &servers);
            let mut exposed: Vec<String> = names.into_iter().flatten().collect();
            let count = exposed.len();
            exposed.sort();
            exposed.dedup();
            prop_assert_eq!(exposed.len(), count);
        }
    }
}
