//! What the commands that write definitions have in common. They work on files; a running instance notices by itself.

use std::net::SocketAddr;

use sidegate::config::{Overrides, Settings};
use sidegate::environment::Environment;
use sidegate::instance::definition_reader;
use sidegate::mcpserver::{Definitions, EditError, Mistake, Ourselves};
use url::Url;

use super::control::InstanceSelector;
use super::output::say_error;
use super::{ConfigDir, Exit, Failure};

/// How to see what has changed.
pub(super) fn how_to_see(config_dir: &ConfigDir) -> String {
    let dir = config_dir.flag();
    format!(
        "A running instance takes it over by itself: see `sidegate list{dir}`, or start one with `sidegate serve{dir}`."
    )
}

/// The definitions of the configuration directory.
pub(super) fn open(config_dir: &ConfigDir, environment: &Environment) -> Result<Definitions, Failure> {
    let config_dir = config_dir.resolve(environment)?;
    let helper = std::env::current_exe()?;
    Ok(Definitions::new(definition_reader(&config_dir, environment, Some(&helper))?))
}

/// Sidegate as the definition of a server may name it: the binary, the instance that runs, and the one that would.
pub(super) fn ourselves(config_dir: &ConfigDir, environment: &Environment) -> Result<Ourselves, Failure> {
    let directory = config_dir.resolve(environment)?;
    let selector = InstanceSelector::new(config_dir.clone(), None);
    // What is not known here of who runs is found when a session is opened.
    let running = super::runtime()?.block_on(selector.status_if_running(environment)).ok().flatten();
    let running = running.and_then(|status| address_of(&status.url));
    let usual = Settings::load(&directory, environment, &Overrides::default());
    let usual = usual.ok().map(|settings| settings.usual_listen);
    let addresses = running.into_iter().chain(usual).collect();
    Ok(Ourselves::new(Some(std::env::current_exe()?), &directory, addresses))
}

fn address_of(url: &str) -> Option<SocketAddr> {
    Url::parse(url).ok()?.socket_addrs(|| None).ok()?.pop()
}

/// What a failed operation on definitions tells its user.
pub(super) fn failure(error: EditError) -> Failure {
    let (exit, hint) = match &error {
        EditError::Invalid(invalid) => {
            // The file is not there, so only what was given can be wrong.
            let mistakes: Vec<_> = invalid.mistakes.iter().map(as_typed).collect();
            return Failure::text(Exit::Invalid, mistakes.join("\n"));
        }
        EditError::AlreadyExists { name, .. } => {
            (Exit::Failed, Some(format!("edit that file, or remove it first with `sidegate remove {name}`")))
        }
        EditError::NotWritable { .. } => (Exit::Failed, Some("check its permissions".to_owned())),
        _ => (Exit::Failed, None),
    };
    Failure::new(exit, error).maybe_hint(hint.as_deref())
}

/// A mistake of a definition that was given on the command line, where its keys have other names.
fn as_typed(mistake: &Mistake) -> String {
    const FLAGS: [(&str, &str); 6] = [
        ("spec.url", "--url"),
        ("spec.headers", "--header"),
        ("spec.env", "--env"),
        ("spec.cwd", "--cwd"),
        ("spec.description", "--description"),
        ("spec.toolPrefix", "--tool-prefix"),
    ];
    let flag = FLAGS.iter().find_map(|(key, flag)| {
        let rest = mistake.key.strip_prefix(key)?;
        match rest.strip_prefix('.') {
            Some(name) => Some(format!("{flag} {name}")),
            None => rest.is_empty().then(|| (*flag).to_owned()),
        }
    });
    let mut mistake = mistake.clone();
    if let Some(flag) = flag {
        mistake.key = flag;
    }
    mistake.to_string()
}

/// What somebody who writes a definition here and reads it elsewhere has to know.
pub(super) fn unset_variable(name: &str) -> String {
    format!("the variable {name} is not set here: set it where sidegate runs")
}

/// Warns of variables that are not set.
pub(super) fn warn_of_unset(variables: &[String]) {
    for name in variables {
        say_error(&format!("warning: {}", unset_variable(name)));
    }
}
