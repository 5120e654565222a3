//! How tools, prompts and resources are called where everybody sees them.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::offer::Kind;
use crate::mcpserver::ServerName;

/// Common clients refuse tool names that are longer than this, in characters.
pub const LONGEST_NAME: usize = 64;

/// What one server lists of one kind, as naming sees it.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// The server.
    pub server: &'a ServerName,
    /// What stands for it in exposed names: its prefix, or its own name.
    pub prefix: &'a str,
    /// The keys at the server, in its own order.
    pub keys: Vec<&'a str>,
}

/// Something about names that a user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

/// Exposed names of tools or prompts of `servers`, which must be sorted by name: for each server in turn, for each of
/// its keys in turn, the name or `None` where it is left out.
///
/// A tool is called `<lead>_<prefix>_<tool>`; where its own name begins with the prefix already, that is not repeated,
/// unless two tools would then be called the same. The same input always gives the same names.
pub fn expose(
    lead: &str,
    kind: Kind,
    servers: &[Named<'_>],
) -> (Vec<Vec<Option<String>>>, Vec<NamingProblem>) {
    // How many tools would have each full and each short name: a short name is used where it is alone.
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for server in servers {
        for key in &server.keys {
            *wanted.entry(full(lead, server.prefix, key)).or_default() += 1;
            if let Some(short) = short(lead, server.prefix, key) {
                *wanted.entry(short).or_default() += 1;
            }
        }
    }
    let usual = |server: &Named<'_>, key: &str| {
        let short = short(lead, server.prefix, key).filter(|name| wanted.get(name) == Some(&1));
        short.unwrap_or_else(|| full(lead, server.prefix, key))
    };
    let other = |server: &Named<'_>, key: &str| full(lead, server.server.as_str(), key);
    let numbered = |other: &str, number: u64| format!("{other}_{number}");
    let (names, mut problems) = assign(kind, servers, usual, other, numbered);
    for (server, names) in servers.iter().zip(&names) {
        for exposed in names.iter().flatten().filter(|name| name.chars().count() > LONGEST_NAME) {
            let (server, exposed) = (server.server.clone(), exposed.clone());
            problems.push(NamingProblem::TooLong { server, kind, exposed });
        }
    }
    (names, problems)
}

/// Exposed URIs, or URI templates, as [`expose`] does it for names: they stay as they are, but for those that an earlier
/// server has too, which get `<server>+` in front.
pub fn expose_uris(kind: Kind, servers: &[Named<'_>]) -> (Vec<Vec<Option<String>>>, Vec<NamingProblem>) {
    let usual = |_: &Named<'_>, uri: &str| uri.to_owned();
    let other = |server: &Named<'_>, uri: &str| format!("{}+{uri}", server.server);
    let numbered = |other: &str, number: u64| {
        // The number, too, stands before the URI: what is in front is all that differs.
        let (server, uri) = other.split_once('+').unwrap_or_default();
        format!("{server}+{number}+{uri}")
    };
    assign(kind, servers, usual, other, numbered)
}

fn assign(
    kind: Kind,
    servers: &[Named<'_>],
    usual: impl Fn(&Named<'_>, &str) -> String,
    other: impl Fn(&Named<'_>, &str) -> String,
    numbered: impl Fn(&str, u64) -> String,
) -> (Vec<Vec<Option<String>>>, Vec<NamingProblem>) {
    let mut problems = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut names = Vec::with_capacity(servers.len());
    for server in servers {
        let mut own: HashSet<&str> = HashSet::new();
        let mut exposed_names = Vec::with_capacity(server.keys.len());
        for key in &server.keys {
            if !own.insert(key) {
                let (server, key) = (server.server.clone(), (*key).to_owned());
                problems.push(NamingProblem::Twice { server, kind, key });
                exposed_names.push(None);
                continue;
            }
            let wanted = usual(server, key);
            let exposed = free(&taken, &wanted, || other(server, key), &numbered);
            taken.insert(exposed.clone());
            if exposed != wanted {
                let (server, key, exposed) = (server.server.clone(), (*key).to_owned(), exposed.clone());
                problems.push(NamingProblem::Taken { server, kind, key, wanted, exposed });
            }
            exposed_names.push(Some(exposed));
        }
        names.push(exposed_names);
    }
    (names, problems)
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

/// `usual` where it is free, else `other`, else `other` with the first free number.
fn free(
    taken: &HashSet<String>,
    usual: &str,
    other: impl Fn() -> String,
    numbered: impl Fn(&str, u64) -> String,
) -> String {
    if !taken.contains(usual) {
        return usual.to_owned();
    }
    let other = other();
    if !taken.contains(&other) {
        return other;
    }
    let mut numbered = (2_u64..).map(|number| numbered(&other, number));
    numbered.find(|name| !taken.contains(name)).unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(servers: &[(&str, &str, &[&str])]) -> (Vec<Option<String>>, Vec<String>) {
        let owned: Vec<(ServerName, &str, &[&str])> =
            servers.iter().map(|(name, prefix, tools)| (name.parse().unwrap(), *prefix, *tools)).collect();
        let named: Vec<Named<'_>> = owned
            .iter()
            .map(|(server, prefix, tools)| Named { server, prefix, keys: tools.to_vec() })
            .collect();
        let (names, problems) = expose("x", Kind::Tool, &named);
        (names.into_iter().flatten().collect(), problems.iter().map(ToString::to_string).collect())
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
        let names: Vec<ServerName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
        let named: Vec<Named<'_>> = [vec!["f:1", "b+f:1"], vec!["f:1", "f:2", "f:2"], vec!["f:1"]]
            .into_iter()
            .zip(&names)
            .map(|(keys, server)| Named { server, prefix: "p", keys })
            .collect();
        let (uris, problems) = expose_uris(Kind::Resource, &named);
        let uris: Vec<Option<&str>> = uris.iter().flatten().map(Option::as_deref).collect();
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
            let owned: Vec<(ServerName, String, Vec<String>)> =
                servers.into_iter().map(|(n, (p, t))| (n.parse().unwrap(), p, t)).collect();
            let named: Vec<Named<'_>> = owned
                .iter()
                .map(|(server, prefix, tools)| {
                    Named { server, prefix, keys: tools.iter().map(String::as_str).collect() }
                })
                .collect();
            let (names, _) = expose("x", Kind::Tool, &named);
            let mut exposed: Vec<String> = names.into_iter().flatten().flatten().collect();
            let count = exposed.len();
            exposed.sort();
            exposed.dedup();
            prop_assert_eq!(exposed.len(), count);
        }
    }
}
