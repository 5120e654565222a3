//! What a child sees of our environment.
//!
//! Servers get what programs need to find their files, their tools and the network, and nothing else: the environment
//! of a shell is full of secrets.

use std::ffi::OsString;

/// Passed on where they are set.
const NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "TMPDIR",
    "TZ",
    "SSH_AUTH_SOCK",
    // Certificate authorities, as the libraries of the day look for them.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    // Where language tools have their packages and versions.
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_CONFIG_FILE",
    "NVM_DIR",
    "PYENV_ROOT",
    "VOLTA_HOME",
    "JAVA_HOME",
];

/// Passed on where a name begins like this.
const PREFIXES: &[&str] = &["LC_", "XDG_", "DOCKER_", "UV_"];

/// As [`NAMES`], in any case: both are in use.
const NAMES_ANY_CASE: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "FTP_PROXY"];

/// As [`PREFIXES`], in any case.
const PREFIXES_ANY_CASE: &[&str] = &["NPM_CONFIG_"];

/// The variables of `ours` that a child gets: those of the default list, and those that `more` wants.
pub fn inherited_environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    more: impl Fn(&str) -> bool,
) -> Vec<(OsString, OsString)> {
    let wanted = |name: &str| is_default(name) || more(name);
    ours.into_iter().filter(|(name, _)| name.to_str().is_some_and(wanted)).collect()
}

fn is_default(name: &str) -> bool {
    let begins_like =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES_ANY_CASE.iter().any(|known| known.eq_ignore_ascii_case(name))
        || PREFIXES_ANY_CASE.iter().any(begins_like)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_need_is_passed_on_and_secrets_are_not() {
        let ours = [
            "PATH",
            "LC_ALL",
            "https_proxy",
            "NO_PROXY",
            "npm_config_registry",
            "UV_CACHE_DIR",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "path",
            "LC",
            "npm",
            "SIDEGATE_TREE",
            "TEAM_KEY",
            "é",
        ];
        let ours = ours.map(|name| (OsString::from(name), OsString::from("v")));
        let names: Vec<_> =
            inherited_environment(ours, |name| name == "TEAM_KEY").into_iter().map(|(n, _)| n).collect();
        assert_eq!(
            names,
            ["PATH", "LC_ALL", "https_proxy", "NO_PROXY", "npm_config_registry", "UV_CACHE_DIR", "TEAM_KEY"]
        );
    }
}
