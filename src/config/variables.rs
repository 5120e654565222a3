//! The variables with `SIDEGATE_` in front: all that are ours, and which one somebody meant who has set another.
//!
//! One that is misspelt would go unnoticed: it is set, and nothing happens.

use std::fmt;

use super::keys;
use crate::environment::Environment;
use crate::similar::nearest;

/// What all our variables begin with.
const OURS: &str = "SIDEGATE_";

/// Those that are no settings: where things are, how to log, and what the program tells its children.
pub const OTHERS: &[&str] = &[
    keys::CONFIG_DIR_VARIABLE,
    // Which instance a command is for; `sidegate run` sets it for its command, as the next one.
    "SIDEGATE_INSTANCE",
    "SIDEGATE_URL",
    // How to log.
    "SIDEGATE_LOG",
    // Stands for the binary in definitions.
    "SIDEGATE_EXE",
    // Tells stdio servers whose they are; see `instance::nesting`.
    "SIDEGATE_VIA",
    // Marks the processes of a tree.
    "SIDEGATE_TREE",
    // The binary that the fixtures for pytest and Node start.
    "SIDEGATE_BINARY",
];

/// What those of the tests and scripts of this project begin with.
pub const OF_THE_PROJECT: &[&str] =
    &["SIDEGATE_TEST_", "SIDEGATE_BENCH_", "SIDEGATE_CONFORMANCE_", "SIDEGATE_UPDATE_"];

/// A variable that looks like one of ours and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The one that was probably meant.
    pub meant: Option<&'static str>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the environment variable {} is none of Sidegate's and has no effect; {}",
            self.name,
            self.advice()
        )
    }
}

impl UnknownVariable {
    /// What to do.
    pub fn advice(&self) -> String {
        match self.meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => "the variable of a setting is its path, as SIDEGATE_GATEWAY_MODE is that of gateway.mode"
                .to_owned(),
        }
    }

    /// All that are set, by name.
    pub fn all(environment: &Environment) -> Vec<Self> {
        let names = environment.iter().map(|(name, _)| name.to_string_lossy());
        let unknown = names.filter(|name| name.starts_with(OURS) && !is_known(name));
        unknown.map(|name| Self { meant: meant(&name), name: name.into_owned() }).collect()
    }
}

/// Whether a variable is one of ours.
pub fn is_known(name: &str) -> bool {
    known().any(|known| known == name) || OF_THE_PROJECT.iter().any(|begin| name.starts_with(begin))
}

fn known() -> impl Iterator<Item = &'static str> {
    keys::ALL.iter().map(|key| key.variable).chain(OTHERS.iter().copied())
}

/// The one of ours that was probably meant: one that is written nearly so, one named after its flag, or the only one that ends
/// so.
fn meant(name: &str) -> Option<&'static str> {
    let flag = |key: &&keys::Key| {
        let flag = key.flag.map(|flag| flag.trim_start_matches('-').replace('-', "_").to_uppercase());
        flag.is_some_and(|flag| name.strip_prefix(OURS) == Some(&*flag))
    };
    let of_flag = || keys::ALL.iter().find(flag).map(|key| key.variable);
    let of_end = || {
        let end = name.strip_prefix(OURS).filter(|end| !end.is_empty())?;
        let is_end = |known: &&str| known.strip_suffix(end).is_some_and(|rest| rest.ends_with('_'));
        let mut ends = known().filter(is_end);
        ends.next().filter(|_| ends.next().is_none())
    };
    of_flag().or_else(|| nearest(name, known())).or_else(of_end)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("SIDEGATE_LISTN", Some("SIDEGATE_LISTEN"))]
    #[case("SIDEGATE_GATEWAY", Some("SIDEGATE_GATEWAY_MODE"))]
    #[case("SIDEGATE_GATEWAYMODE", Some("SIDEGATE_GATEWAY_MODE"))]
    #[case("SIDEGATE_MANAGEMENT_TOOLS", Some("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS"))]
    #[case("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOL", Some("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS"))]
    #[case("SIDEGATE_TOKEN_FILE", Some("SIDEGATE_AGGREGATOR_TOKEN_FILE"))]
    #[case("SIDEGATE_RUNTIMEDIR", Some("SIDEGATE_RUNTIME_DIR"))]
    #[case("SIDEGATE_PORT", None)]
    #[case("SIDEGATE_", None)]
    fn what_was_meant_is_guessed(#[case] name: &str, #[case] expected: Option<&str>) {
        let environment = Environment::from_iter([(name, "x"), ("SIDEGATE_LOG", "x"), ("LISTEN", "x")]);
        let unknown = UnknownVariable::all(&environment);
        assert_eq!(unknown.iter().map(|unknown| &*unknown.name).collect::<Vec<_>>(), [name]);
        assert_eq!(unknown[0].meant, expected);
    }

    #[test]
    fn what_is_ours_is_known() {
        let ours = known().chain(["SIDEGATE_TEST_AGENTGATEWAY", "SIDEGATE_UPDATE_DOCS"]);
        let environment = Environment::from_iter(ours.map(|name| (name, "x")));
        assert_eq!(UnknownVariable::all(&environment), []);
    }
}
