//! What of a definition is secret wherever it turns up, not only in the definition: whoever prints it.
//!
//! That is less than [`redacted`](Definition::redacted) hides. A header such as `X-Team: platform` is nobody's business where
//! the definition is shown, but its value is a word like others, and a log without it would be a riddle.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use serde_json::{Map, Value};

use super::definition::{Definition, Remote, Stdio, Transport};
use super::entry::Entry;
use super::name::ServerName;
use super::redact::{ABOUT_KEYS, SecretNames, in_url, is_header_option};
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

/// Values that are public, whoever holds them.
pub const PUBLIC_VALUES: [&str; 3] = ["localhost", "127.0.0.1", "sidegate"];

impl Definition {
    /// The values of this definition that nobody may see, in any text:
    ///
    /// - what `${VAR}` put into a header, a variable, an argument, or the URL behind its host;
    /// - the values of headers, variables, options, parameters of the URL and policies whose name is one of `names`, and of
    ///   variables of `environment` that `inheritEnv` passes on under such a name; of `Authorization` also what follows the
    ///   scheme, of `Cookie` each value. Where the name only says that these are headers, a word is none.
    ///
    /// What is public in `environment`, such as the value of `HOME`, is not among them.
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
        found.extend(names.values_in(&self.policies, environment));
        let put_in = self.substituted.iter().map(Secret::expose);
        found.extend(put_in.filter(|value| self.holds(value)).map(str::to_owned));
        found.retain(|value| !value.is_empty() && !is_public(value, environment));
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

impl Entry {
    /// The secrets of those `entries` that are right, but for names of servers: these have to be told apart.
    pub fn secrets_of(entries: &[Self], names: &SecretNames, environment: &Environment) -> Vec<Secret> {
        let servers: BTreeSet<&str> =
            entries.iter().filter_map(|entry| entry.name.as_ref()).map(ServerName::as_str).collect();
        let definitions = entries.iter().filter_map(|entry| entry.outcome.as_ref().ok());
        definitions
            .flat_map(|definition| definition.secrets(names, environment))
            .filter(|value| !servers.contains(value.expose()))
            .collect()
    }
}

impl SecretNames {
    /// The texts in `policies` that stand under one of these names, however deep, and those of headers that are secret.
    ///
    /// What stands under a name like `allowHeaders` counts by its own name: elements of lists there are names of headers.
    ///
    /// What is public in `environment` is not among them.
    pub fn values_in(&self, policies: &Map<String, Value>, environment: &Environment) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(policies, false, &mut found);
        found.retain(|value| !is_public(value, environment));
        found
    }

    /// The values of those `variables` whose names are among these, but for what is public in `environment`.
    pub fn values_of<'v>(
        &self,
        variables: impl IntoIterator<Item = (&'v OsStr, &'v OsStr)>,
        environment: &Environment,
    ) -> Vec<&'v str> {
        let named = variables.into_iter().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            self.says(name, value).then_some(value)
        });
        named.filter(|value| !is_public(value, environment)).collect()
    }

    fn collect(&self, map: &Map<String, Value>, all: bool, found: &mut Vec<String>) {
        for (name, value) in map {
            match value {
                Value::String(text) if self.is_secret_header(name) || self.says(name, text) => {
                    found.extend(parts_of_header(name, text));
                }
                value => {
                    let all = self.is_secret(name) || (all && !ABOUT_KEYS.contains(&&**name));
                    self.collect_value(value, all, found);
                }
            }
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

/// What is secret if the value of the header `name` is: all of it, what follows its scheme, and of cookies each.
pub(crate) fn parts_of_header(name: &str, value: &str) -> Vec<String> {
    let mut parts = vec![value.to_owned()];
    if name.to_uppercase().contains("COOKIE") {
        let values = value.split(';').filter_map(|cookie| Some(cookie.split_once('=')?.1.trim()));
        parts.extend(values.map(str::to_owned));
    } else if let Some((_, credentials)) = value.split_once(' ') {
        parts.push(credentials.trim().to_owned());
    }
    parts
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
    let env = stdio.env.iter().filter(|(name, value)| names.says(name, value.expose()));
    found.extend(env.map(|(_, value)| value.expose().to_owned()));
    let mut option = None;
    for argument in &stdio.args {
        let is_option = argument.starts_with('-');
        if let Some(name) = option.take()
            && !is_option
        {
            if names.says(name, argument) {
                found.push(argument.clone());
            } else if is_header_option(name) {
                named_in_header(argument, names, found);
            }
        }
        match argument.split_once('=') {
            Some((name, value)) if names.says(name, value) => found.push(value.to_owned()),
            Some((name, value)) if is_header_option(name) => named_in_header(value, names, found),
            Some(_) => {}
            None => option = is_option.then_some(argument.as_str()),
        }
    }
    let inherited = environment.iter().filter(|(name, _)| {
        name.to_str().is_some_and(|name| stdio.inherit_env.iter().any(|pattern| pattern.matches(name)))
    });
    found.extend(names.values_of(inherited, environment).into_iter().map(str::to_owned));
}

/// Of `Name: value` as an argument.
fn named_in_header(text: &str, names: &SecretNames, found: &mut Vec<String>) {
    if let Some((name, value)) = text.split_once(':')
        && (names.is_secret_header(name) || names.says(name, value))
    {
        found.extend(parts_of_header(name, value.trim()));
    }
}

fn named_in_remote(remote: &Remote, names: &SecretNames, found: &mut Vec<String>) {
    for (name, value) in &remote.headers {
        let name = name.as_str();
        let Ok(value) = value.to_str() else { continue };
        if names.is_secret_header(name) || names.says(name, value) {
            found.extend(parts_of_header(name, value));
        }
    }
    let parameters = remote.url.query_pairs().filter(|(name, value)| names.says(name, value));
    found.extend(parameters.map(|(_, value)| value.into_owned()));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::{definition, reader};

    #[rstest]
    #[case::variables_put_in("type: stdio, command: x, args: [\"u:${TOKEN}@h\"], env: {A: b}", &["hunter22"])]
    #[case::in_a_variable("type: stdio, command: x, env: {A: \"x-${TOKEN}\"}", &["hunter22"])]
    #[case::not_in_paths("type: stdio, command: \"${TOKEN}\", cwd: \"${TOKEN}\"", &[])]
    #[case::public("type: stdio, command: x, env: {TIME: \"${TZ}\"}", &[])]
    #[case::by_name("type: stdio, command: x, env: {A_KEY: one, N: no}, args: [--token, two, --secret=three, --zone=no]", &["one", "three", "two"])]
    #[case::options_without_value("type: stdio, command: x, args: [--token, --zone, no]", &[])]
    #[case::headers_as_arguments("type: stdio, command: x, args: [--header, \"Authorization: Bearer one\", \"--header=X-Api-Key:two\", -H, \"X-Team: no\"]", &["Bearer one", "one", "two"])]
    #[case::inherited("type: stdio, command: x, inheritEnv: [TOK*, T*]", &["hunter22"])]
    #[case::in_headers("type: sse, url: \"http://h/\", headers: {X-Team: \"${TOKEN}\", X-Other: no}", &["hunter22"])]
    #[case::authorization("type: sse, url: \"http://h/\", headers: {Authorization: Bearer one}", &["Bearer one", "one"])]
    #[case::cookies("type: sse, url: \"http://h/\", headers: {Cookie: \"a=one; b=two\"}", &["a=one; b=two", "one", "two"])]
    #[case::in_a_url("type: sse, url: \"http://h/${TOKEN}/mcp?token=one&v=no\"", &["hunter22", "one"])]
    #[case::not_its_host("type: sse, url: \"http://${TOKEN}/mcp\"", &[])]
    #[case::policies("type: sse, url: \"http://h/\", policies: {a: {apiKeys: [{is: one}], n: no}}", &["one"])]
    #[case::elements_below_headers("type: sse, url: \"http://h/\", policies: {cors: {allowHeaders: [content-type, X-B3], exposeHeaders: [Mcp-Session-Id]}, a: {headers: {X-Key: one, b: no}}}", &["one"])]
    #[case::headers_below_keys("type: sse, url: \"http://h/\", policies: {token: {headers: {x: [one]}}}", &["one"])]
    #[case::keys_and_what_is_about_them("type: sse, url: \"http://h/\", policies: {apiKey: {mode: optional, keys: [{key: one, metadata: {user: no, secret: two}}]}, backendAuth: {key: {file: /no}}}", &["one", "two"])]
    #[case::header_modifiers("type: sse, url: \"http://h/\", policies: {requestHeaderModifier: {set: {authorization: Bearer one, Cookie: a=two, x-a: no}}}", &["Bearer one", "a=two", "one", "two"])]
    #[case::rules_are_no_headers("type: sse, url: \"http://h/\", policies: {mcpAuthorization: {rules: [no]}}", &[])]
    #[case::words("type: stdio, command: x, env: {UV_KEYRING_PROVIDER: subprocess, KEYRING_B: a1, A_HEADERS: \"a: b\"}, args: [--headers, no, --headers=no]", &["a1", "a: b"])]
    #[case::public_by_name("type: stdio, command: x, env: {A_KEY: localhost, TOKEN: Europe/Berlin}", &[])]
    fn what_only_the_server_is_told_is_secret(#[case] spec: &str, #[case] expected: &[&str]) {
        let names = SecretNames::new(&[]);
        let environment = Environment::from_iter([("TZ", "Europe/Berlin"), ("TOKEN", "hunter22")]);
        let found = definition(spec).secrets(&names, &environment);
        assert_eq!(found.iter().map(Secret::expose).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_of_servers_are_no_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let head = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec:";
        let write = |name: &str, spec: &str| {
            std::fs::write(directory.path().join(name), format!("{head} {spec}\n")).unwrap();
        };
        write("a.yaml", "{type: stdio, command: x, env: {PGPASSWORD: postgres, PGKEY: hunter22}}");
        write("postgres.yaml", "wrong");
        let entries = reader().scan(directory.path()).unwrap().entries;
        let found = Entry::secrets_of(&entries, &SecretNames::new(&[]), &Environment::default());
        assert_eq!(found, [Secret::from("hunter22".to_owned())]);
    }

    #[test]
    fn variables_that_everybody_inherits_are_secret_by_name() {
        let environment = Environment::from_iter([
            ("UV_KEYRING_PROVIDER", "subprocess"),
            ("UV_PUBLISH_TOKEN", "hunter22"),
            ("UV_INDEX_PASSWORD", "somebody"),
            ("USER", "somebody"),
        ]);
        assert_eq!(SecretNames::new(&[]).values_of(environment.iter(), &environment), ["hunter22"]);
    }

    #[test]
    fn more_names_can_be_secret() {
        let names = SecretNames::new(&["*ACCOUNT*".to_owned(), "keyring".to_owned()]);
        let found = definition("type: stdio, command: x, env: {MY_ACCOUNT: me, A_KEYRING: file}")
            .secrets(&names, &Environment::default());
        assert_eq!(found, ["file", "me"].map(|value| Secret::from(value.to_owned())));
    }
}
