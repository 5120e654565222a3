//! Variables that are set here: those that look like ours and are none, and those that stdio servers do not see.

use std::sync::Arc;

use sidegate::bridge::inherited_environment;
use sidegate::config::variables::UnknownVariable;
use sidegate::environment::Environment;
use sidegate::mcpserver::{Definition, SecretNames, Transport};

use super::Finding;

/// What shells and terminals keep for themselves.
const OF_THE_SHELL: &[&str] = &[
    "_",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "PS1",
    "LS_COLORS",
    "LESSOPEN",
    "LESSCLOSE",
    "COLUMNS",
    "LINES",
    "COLORTERM",
    "MAIL",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS",
    "NO_COLOR",
    "WINDOWID",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "HOSTNAME",
    "HOSTTYPE",
    "OSTYPE",
    "MACHTYPE",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "CI",
];
const OF_THE_SHELL_BEGIN: &[&str] =
    &["SIDEGATE_", "HIST", "BASH_", "ZSH_", "SSH_", "CARGO", "RUST", "VTE_", "GNOME_", "DBUS_"];

/// What looks like a variable of ours and is none.
pub(super) fn misspelt(environment: &Environment) -> impl Iterator<Item = Finding> {
    UnknownVariable::all(environment).into_iter().map(|unknown| {
        let message = format!("{} is set, and is none of Sidegate's variables", unknown.name);
        Finding::warning("environment", message, unknown.advice())
    })
}

/// The names, never the values, of what no stdio server gets.
pub(super) fn passed_on(definitions: &[Arc<Definition>], environment: &Environment) -> Option<Finding> {
    let stdio: Vec<_> = definitions
        .iter()
        .filter_map(|definition| match &definition.transport {
            Transport::Stdio(stdio) => Some((definition, stdio)),
            _ => None,
        })
        .collect();
    if stdio.is_empty() {
        return None;
    }
    let wanted = |name: &str| {
        stdio.iter().any(|(_, stdio)| {
            stdio.inherit_env.iter().any(|pattern| pattern.matches(name))
                || stdio.env.iter().any(|(known, _)| known == name)
        })
    };
    let all = || environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let passed = inherited_environment(all(), wanted);
    let put_in = |value: &str| {
        stdio
            .iter()
            .any(|(definition, _)| definition.substituted.iter().any(|secret| secret.expose() == value))
    };
    let shells = |name: &str| {
        OF_THE_SHELL.contains(&name) || OF_THE_SHELL_BEGIN.iter().any(|begin| name.starts_with(begin))
    };
    let missing: Vec<String> = environment
        .iter()
        .filter(|(name, _)| !passed.iter().any(|(known, _)| known == name))
        .filter_map(|(name, value)| Some((name.to_str()?, value.to_str().unwrap_or_default())))
        .filter(|(name, value)| !shells(name) && (value.is_empty() || !put_in(value)))
        .map(|(name, _)| name.to_owned())
        .collect();
    let subject = "environment";
    if missing.is_empty() {
        return Some(Finding::ok(subject, "stdio servers get all variables that are set"));
    }
    let message = format!("set, and passed on to no stdio server: {}", missing.join(", "));
    let secrets = SecretNames::new(&[]);
    Some(if missing.iter().any(|name| secrets.contains(name)) {
        let advice = "where a server needs one, name it in inheritEnv of its definition, or put it into env as ${NAME}";
        Finding::warning(subject, message, advice)
    } else {
        Finding::ok(subject, message)
    })
}
