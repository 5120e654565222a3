//! What of a definition is secret wherever it turns up, not only in the definition: whoever prints it.
//!
//! That is less than [`redacted`](Definition::redacted) hides. A header such as `X-Team: platform` is nobody's business where
//! the definition is shown, but its value is a word like others, and a log without it would be a riddle.

use serde_json::{Map, Value};

use super::definition::{Definition, Remote, Stdio, Transport};
use super::redact::{SecretNames, in_url};
use super::secret::Secret;
use crate::environment::Environment;

/// Variables whose values are on every second line of a log and known to everybody on the machine.
const PUBLIC_VARIABLES: [&str; 16] = [
    "HOME",
    "USER",
    "LOGNAME",
    "PWD",
    "OLDPWD",
    "SHELL",
    "PATH",
    "LANG",
    "TZ",
    "TERM",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// Values that are public, whatever variable holds them.
const PUBLIC_VALUES: [&str; 3] = ["localhost", "127.0.0.1", "sidegate"];

/// Headers that are secret besides those that say so by name, in upper case.
const SECRET_HEADERS: [&str; 2] = ["AUTHORIZATION", "COOKIE"];

impl Definition {
    /// The values of this definition that nobody may see, in any text:
    ///
    /// - what `${VAR}` put into a header, a variable, an argument, or the URL behind its host; but for what is public in
    ///   `environment`, such as `HOME`;
    /// - the values of headers, variables, options, parameters of the URL and policies whose name is one of `names`, and of
    ///   variables of `environment` that `inheritEnv` passes on under such a name; of `Authorization` also what follows the
    ///   scheme, of `Cookie` each value.
    ///
    /// Short ones are among them: whoever hides values decides what is too short to be told from other text.
    pub fn secrets(&self, names: &SecretNames, environment: &Environment) -> Vec<Secret> {
        let mut found = Vec::new();
        match &self.transport {
            Transport::Stdio(stdio) => named_in_stdio(stdio, names, environment, &mut found),
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
                named_in_remote(remote, names, &mut found);
            }
        }
        found.extend(names.values_in(&self.policies));
        let put_in = self.substituted.iter().map(Secret::expose);
        let secret = put_in.filter(|value| self.holds(value) && !is_public(value, environment));
        found.extend(secret.map(str::to_owned));
        found.retain(|value| !value.is_empty());
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(Secret::from).collect()
    }

    /// Whether `value` is part of what only this server is told.
    fn holds(&self, value: &str) -> bool {
        match &self.transport {
            Transport::Stdio(Stdio { args, env, .. }) => {
                args.iter().any(|argument| argument.contains(value))
                    || env.iter().any(|(_, variable)| variable.expose().contains(value))
            }
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
                let in_header = |header: &http::HeaderValue| {
                    memchr::memmem::find(header.as_bytes(), value.as_bytes()).is_some()
                };
                remote.headers.iter().any(|(_, header)| in_header(header)) || is_behind_host(remote, value)
            }
        }
    }
}

impl SecretNames {
    /// The texts in `policies` that stand under one of these names, however deep.
    pub fn values_in(&self, policies: &Map<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(policies, false, &mut found);
        found
    }

    fn collect(&self, map: &Map<String, Value>, all: bool, found: &mut Vec<String>) {
        for (name, value) in map {
            self.collect_value(value, all || self.contains(name), found);
        }
    }

    fn collect_value(&self, value: &Value, all: bool, found: &mut Vec<String>) {
        match value {
            Value::String(text) if all => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| self.collect_value(item, all, found)),
            Value::Object(map) => self.collect(map, all, found),
            _ => {}
        }
    }
}

/// Whether a URL holds `value`, and not as the server's address.
fn is_behind_host(remote: &Remote, value: &str) -> bool {
    let url = remote.url.as_str();
    let holds = url.contains(value) || in_url(value).is_some_and(|value| url.contains(&value));
    // The URL parser writes hosts in lower case.
    let value = value.trim_end_matches('/').to_ascii_lowercase();
    holds && !remote.url.origin().ascii_serialization().contains(&value)
}

fn is_public(value: &str, environment: &Environment) -> bool {
    PUBLIC_VALUES.contains(&value)
        || PUBLIC_VARIABLES.iter().any(|name| environment.get(name).ok().flatten() == Some(value))
}

fn named_in_stdio(stdio: &Stdio, names: &SecretNames, environment: &Environment, found: &mut Vec<String>) {
    let env = stdio.env.iter().filter(|(name, _)| names.contains(name));
    found.extend(env.map(|(_, value)| value.expose().to_owned()));
    let mut secret_next = false;
    for argument in &stdio.args {
        let is_option = argument.starts_with('-');
        if secret_next && !is_option {
            found.push(argument.clone());
        }
        secret_next = false;
        match argument.split_once('=') {
            Some((name, value)) if names.contains(name) => found.push(value.to_owned()),
            Some(_) => {}
            None => secret_next = is_option && names.contains(argument),
        }
    }
    for (name, value) in environment.iter() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
            && names.contains(name)
            && stdio.inherit_env.iter().any(|pattern| pattern.matches(name))
        {
            found.push(value.to_owned());
        }
    }
}

fn named_in_remote(remote: &Remote, names: &SecretNames, found: &mut Vec<String>) {
    for (name, value) in &remote.headers {
        let name = name.as_str().to_uppercase();
        let Ok(value) = value.to_str() else { continue };
        if !names.contains(&name) && !SECRET_HEADERS.iter().any(|known| name.contains(known)) {
            continue;
        }
        found.push(value.to_owned());
        if name.contains("COOKIE") {
            let values = value.split(';').filter_map(|cookie| Some(cookie.split_once('=')?.1.trim()));
            found.extend(values.map(str::to_owned));
        } else if let Some((_, credentials)) = value.split_once(' ') {
            found.push(credentials.trim().to_owned());
        }
    }
    let parameters = remote.url.query_pairs().filter(|(name, _)| names.contains(name));
    found.extend(parameters.map(|(_, value)| value.into_owned()));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::definition;

    #[rstest]
    #[case::variables_put_in("type: stdio, command: x, args: [\"u:${TOKEN}@h\"], env: {A: b}", &["hunter22"])]
    #[case::in_a_variable("type: stdio, command: x, env: {A: \"x-${TOKEN}\"}", &["hunter22"])]
    #[case::not_in_paths("type: stdio, command: \"${TOKEN}\", cwd: \"${TOKEN}\"", &[])]
    #[case::public("type: stdio, command: x, env: {TIME: \"${TZ}\"}", &[])]
    #[case::by_name("type: stdio, command: x, env: {A_KEY: one, N: no}, args: [--token, two, --secret=three, --zone=no]", &["one", "three", "two"])]
    #[case::options_without_value("type: stdio, command: x, args: [--token, --zone, no]", &[])]
    #[case::inherited("type: stdio, command: x, inheritEnv: [TOK*, T*]", &["hunter22"])]
    #[case::in_headers("type: sse, url: \"http://h/\", headers: {X-Team: \"${TOKEN}\", X-Other: no}", &["hunter22"])]
    #[case::authorization("type: sse, url: \"http://h/\", headers: {Authorization: Bearer one}", &["Bearer one", "one"])]
    #[case::cookies("type: sse, url: \"http://h/\", headers: {Cookie: \"a=one; b=two\"}", &["a=one; b=two", "one", "two"])]
    #[case::in_a_url("type: sse, url: \"http://h/${TOKEN}/mcp?token=one&v=no\"", &["hunter22", "one"])]
    #[case::not_its_host("type: sse, url: \"http://${TOKEN}/mcp\"", &[])]
    #[case::policies("type: sse, url: \"http://h/\", policies: {a: {apiKeys: [{is: one}], n: no}}", &["one"])]
    fn what_only_the_server_is_told_is_secret(#[case] spec: &str, #[case] expected: &[&str]) {
        let names = SecretNames::new(&[]);
        let environment = Environment::from_iter([("TZ", "Europe/Berlin"), ("TOKEN", "hunter22")]);
        let found = definition(spec).secrets(&names, &environment);
        assert_eq!(found.iter().map(Secret::expose).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn more_names_can_be_secret() {
        let names = SecretNames::new(&["*ACCOUNT*".to_owned()]);
        let found = definition("type: stdio, command: x, env: {MY_ACCOUNT: me}")
            .secrets(&names, &Environment::default());
        assert_eq!(found, [Secret::from("me".to_owned())]);
    }
}
