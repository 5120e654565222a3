//! `${VAR}` in the strings of a definition.
//!
//! `${VAR}` is the variable's value and a mistake when it is unset; `${VAR:-default}` is the default when it is unset
//! or empty, as in a shell; `$$` is a dollar. Any other `$` stands for itself: commands and URLs hold them.

use crate::environment::{Environment, NotUnicode};
use crate::yaml::shown;

/// A text with its variables put in.
#[derive(Debug, PartialEq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The values that came from the environment, for redaction. Empty ones are left out.
    pub(super) values: Vec<String>,
}

/// Text that means itself when it is expanded.
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Why a text cannot be expanded. Names variables, never values or defaults.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("the variable {0} is not set")]
    Unset(String),
    #[error(transparent)]
    NotUnicode(#[from] NotUnicode),
    #[error("a \"${{\" without its \"}}\"")]
    Open,
    #[error("a \"${{\" inside of a \"${{…}}\"")]
    Nested,
    #[error("{} is no variable", shown(.0))]
    Malformed(String),
}

impl ExpandError {
    /// What to write instead.
    pub(super) fn advice(&self) -> Option<String> {
        match self {
            Self::Unset(name) => Some(format!("set it, or write ${{{name}:-default}}")),
            Self::NotUnicode(_) => None,
            Self::Open | Self::Nested | Self::Malformed(_) => {
                Some("write ${NAME} or ${NAME:-default}, and $$ for a dollar".to_owned())
            }
        }
    }
}

/// Puts the variables of `environment` into `text`.
pub(super) fn expand(text: &str, environment: &Environment) -> Result<Expanded, ExpandError> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), values: Vec::new() };
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.text.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix('$') {
            expanded.text.push('$');
            rest = after;
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = inside.find('}').ok_or(ExpandError::Open)?;
            substitute(&inside[..end], environment, &mut expanded)?;
            rest = &inside[end + 1..];
        } else {
            expanded.text.push('$');
            rest = after;
        }
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// The variables that `text` needs and that are not set, and the environment in which they are `stand_in`.
pub(super) fn assume(text: &str, environment: Environment, stand_in: &str) -> (Environment, Vec<String>) {
    let (mut environment, mut assumed) = (environment, Vec::new());
    while let Err(ExpandError::Unset(name)) = expand(text, &environment) {
        environment = environment.with(&name, stand_in);
        assumed.push(name);
    }
    (environment, assumed)
}

fn substitute(reference: &str, environment: &Environment, into: &mut Expanded) -> Result<(), ExpandError> {
    if reference.contains("${") {
        return Err(ExpandError::Nested);
    }
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        // Only up to the first character that is none of a name: what follows may be a default, which may be secret.
        let shown = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        return Err(ExpandError::Malformed(format!("${{{shown}…")));
    }
    let value = environment.get(name)?;
    match (value, default) {
        (None | Some(""), Some(default)) => into.text.push_str(&default.replace("$$", "$")),
        (Some(value), _) => {
            into.text.push_str(value);
            if !value.is_empty() {
                into.values.push(value.to_owned());
            }
        }
        (None, None) => return Err(ExpandError::Unset(name.to_owned())),
    }
    Ok(())
}

/// POSIX.1-2024 section 3.216: a letter or underscore, then letters, digits and underscores.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn environment() -> Environment {
        Environment::from_iter([("TZ", "Europe/Berlin"), ("EMPTY", ""), ("TRICKY", "${TZ} $$")])
    }

    #[rstest]
    #[case("", "")]
    #[case("plain", "plain")]
    #[case("${TZ}", "Europe/Berlin")]
    #[case("<${TZ}>${TZ}", "<Europe/Berlin>Europe/Berlin")]
    #[case("${TZ:-UTC}", "Europe/Berlin")]
    #[case("${ABSENT:-UTC}", "UTC")]
    #[case("${ABSENT:-}", "")]
    #[case("${ABSENT:-a:-b}", "a:-b")]
    #[case("${ABSENT:-a$$b}", "a$b")]
    #[case("${EMPTY}", "")]
    #[case("${EMPTY:-UTC}", "UTC")]
    #[case("$${TZ}", "${TZ}")]
    #[case("$$$$", "$$")]
    #[case("$$${TZ}", "$Europe/Berlin")]
    #[case("$TZ ^a$ $", "$TZ ^a$ $")]
    #[case::values_are_not_expanded_again("${TRICKY}", "${TZ} $$")]
    #[case("é${TZ}é", "éEurope/Berliné")]
    fn texts_expand(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(expand(text, &environment()).unwrap().text, expected);
    }

    #[rstest]
    #[case("${ABSENT}", "the variable ABSENT is not set")]
    #[case("${TZ", r#"a "${" without its "}""#)]
    #[case("${A:-${TZ}}", r#"a "${" inside of a "${…}""#)]
    #[case("${}", r#""${…" is no variable"#)]
    #[case("${1A}", r#""${1A…" is no variable"#)]
    #[case("${TZ-hunter22}", r#""${TZ…" is no variable"#)]
    #[case("${TZ:?hunter22}", r#""${TZ…" is no variable"#)]
    fn mistakes_are_named_without_values(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(expand(text, &environment()).unwrap_err().to_string(), expected);
    }

    #[test]
    fn unset_variables_can_be_assumed() {
        let (environment, assumed) = assume("${TZ} ${A} ${B:-x} ${C} ${A}", environment(), "1");
        assert_eq!(assumed, ["A", "C"]);
        assert_eq!(expand("${A}${C}${TZ}", &environment).unwrap().text, "11Europe/Berlin");
        assert_eq!(assume("${A:?}", environment, "1").1, [""; 0]);
    }

    #[test]
    fn values_of_the_environment_are_known() {
        let expanded = expand("${TZ} ${EMPTY} ${ABSENT:-x}", &environment()).unwrap();
        assert_eq!(expanded.values, ["Europe/Berlin"]);
    }

    proptest! {
        #[test]
        fn escaping_is_undone(text in ".*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &environment()).unwrap().text, text);
        }

        #[test]
        fn nothing_panics(text in "[${}A:\\-é]{0,30}") {
            let _ = expand(&text, &environment());
        }
    }
}
