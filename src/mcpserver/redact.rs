//! Definitions as they may be shown: everything that may be a secret is `***`.
//!
//! Secret is: the value of a header, also of `Authorization` and `Cookie` in a policy; the value of a variable, a policy or an
//! option of the command line whose name says so; the query of a URL; and a value of at least [`SHORTEST_SECRET`] characters that
//! `${VAR}` has put in, wherever it stands but in `command` and `cwd`, which are paths.

use serde_json::{Map, Value, json};
use url::Url;

use super::definition::{Definition, Isolation, Remote, Route, Stdio, Transport};
use super::{API_VERSION, Auth, AuthKind, KIND};

/// Stands where a secret was.
pub const HIDDEN: &str = "***";

/// The shortest value, in characters, that is hidden wherever it stands: shorter ones are words like `UTC`, which hide nothing
/// and are everywhere.
pub const SHORTEST_SECRET: usize = 8;

/// Names whose values are secret.
#[derive(Clone, Debug)]
pub struct SecretNames(Vec<String>);

/// In names of what is not shown in definitions, though it may be a list of names as well.
const HEADERS: &str = "HEADERS";

/// In names of what opens something.
const KEY: &str = "KEY";

/// Words that hold [`KEY`] and are none.
const NO_KEYS: [&str; 3] = ["KEYRING", "KEYBOARD", "KEYWORD"];

/// Headers that are secret besides those that say so by name. The last is the key for a collector.
const SECRET_HEADERS: [&str; 3] = ["AUTHORIZATION", "COOKIE", "X-HONEYCOMB-TEAM"];

impl SecretNames {
    /// Names that hold KEY, TOKEN, SECRET, PASSWORD or HEADERS, in any case, or one of `more`, as `redact` of
    /// `config.yaml` has them (`*ACCOUNT*`).
    pub fn new(more: &[String]) -> Self {
        let known = [KEY, "TOKEN", "SECRET", "PASSWORD"].into_iter().map(str::to_owned);
        let more = more.iter().map(|pattern| pattern.trim_matches('*').to_uppercase());
        Self(known.chain(more.filter(|name| !name.is_empty())).collect())
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        let name = name.to_uppercase();
        name.contains(HEADERS) || self.0.iter().any(|part| name.contains(part))
    }

    /// Whether `name` says for sure that what it names is secret: `API_KEY` does, `allowHeaders` and `KEYRING` do not.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        let name = name.to_uppercase();
        self.0.iter().any(|part| match &**part {
            KEY => NO_KEYS.iter().fold(name.clone(), |name, word| name.replace(word, "")).contains(KEY),
            part => name.contains(part),
        })
    }

    /// Whether the header `name` is secret: one whose name says so for sure, `Authorization`, or `Cookie`.
    pub fn is_secret_header(&self, name: &str) -> bool {
        let upper = name.to_uppercase();
        self.is_secret(name) || SECRET_HEADERS.iter().any(|known| upper.contains(known))
    }

    /// `value` with the values of secret names hidden, however deep.
    pub fn hide_in(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(self.hide_in_map(map)),
            Value::Array(items) => items.iter().map(|item| self.hide_in(item)).collect(),
            other => other.clone(),
        }
    }

    /// As [`hide_in`](Self::hide_in).
    pub fn hide_in_map(&self, map: &Map<String, Value>) -> Map<String, Value> {
        let hide = |name: &String, value: &Value| match value {
            _ if self.contains(name) => HIDDEN.into(),
            // `authorization: {rules: […]}` is a policy, and no header.
            Value::String(_) if self.is_secret_header(name) => HIDDEN.into(),
            value => self.hide_in(value),
        };
        map.iter().map(|(name, value)| (name.clone(), hide(name, value))).collect()
    }
}

impl Definition {
    /// The definition in the shape of its file, with its defaults and without its secrets.
    pub fn redacted(&self, names: &SecretNames) -> Value {
        let hiding = Hiding { names, values: self.hidden_values() };
        let mut spec = Map::new();
        let mut put = |key: &str, value: Value| {
            if value != Value::Null {
                spec.insert(key.to_owned(), value);
            }
        };
        put("type", self.transport.type_name().into());
        match &self.transport {
            Transport::Stdio(stdio) => hiding.stdio(stdio, &mut put),
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => hiding.remote(remote, &mut put),
        }
        put("description", unless_empty(self.description.clone()));
        put("toolPrefix", self.tool_prefix.as_ref().map(ToString::to_string).into());
        if let Some(family) = &self.family {
            put("family", json!({"name": family.name.as_str(), "instanceArg": family.instance_arg.as_str()}));
        }
        put("autoStart", self.auto_start.into());
        put("suspended", self.suspended.into());
        put("timeout", self.timeout.as_secs().into());
        put("callTimeout", self.call_timeout.map_or(0, |limit| limit.as_secs()).into());
        put(
            "isolation",
            match self.isolation {
                Isolation::Shared => "shared",
                Isolation::Session => "session",
            }
            .into(),
        );
        put(
            "route",
            match self.route {
                Route::Http => "http",
                Route::Mcp => "mcp",
            }
            .into(),
        );
        if !self.policies.is_empty() {
            put("policies", Value::Object(names.hide_in_map(&self.policies)));
        }
        if self.auth != Auth::default() {
            put("auth", auth(&self.auth));
        }
        json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name.as_str()},
            "spec": spec,
        })
    }

    /// The values that variables have put in and that are long enough to be secrets, as they may stand in texts; the
    /// longest first, as one may hold another.
    fn hidden_values(&self) -> Vec<String> {
        let long = self.substituted.iter().map(|value| value.expose().to_owned());
        let mut values: Vec<String> = long
            .filter(|value| value.chars().count() >= SHORTEST_SECRET)
            .flat_map(|value| in_url(&value).into_iter().chain([value]))
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }
}

/// `value` as it stands in the path of a URL.
pub(crate) fn in_url(value: &str) -> Option<String> {
    let mut url = Url::parse("http://h/").ok()?;
    url.path_segments_mut().ok()?.push(value);
    url.path().strip_prefix('/').map(str::to_owned)
}

fn unless_empty(text: String) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

struct Hiding<'a> {
    names: &'a SecretNames,
    values: Vec<String>,
}

impl Hiding<'_> {
    fn text(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN))
    }

    fn stdio(&self, stdio: &Stdio, put: &mut impl FnMut(&str, Value)) {
        put("command", stdio.command.as_str().into());
        put("args", self.arguments(&stdio.args).into());
        let env = stdio.env.iter().map(|(name, value)| {
            let shown = if self.names.contains(name) { HIDDEN.to_owned() } else { self.text(value.expose()) };
            (name.clone(), Value::from(shown))
        });
        put("env", Value::Object(env.collect()));
        put("inheritEnv", stdio.inherit_env.iter().map(|pattern| pattern.as_str()).collect());
        put("cwd", stdio.cwd.display().to_string().into());
    }

    /// `--token=x`, and `--token` with `x` as the next argument.
    fn arguments(&self, arguments: &[String]) -> Vec<String> {
        let mut secret_next = false;
        let mut shown = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let is_option = argument.starts_with('-');
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            let secret = self.names.contains(name);
            shown.push(match value {
                _ if secret_next && !is_option => HIDDEN.to_owned(),
                Some(_) if secret => format!("{name}={HIDDEN}"),
                _ => self.text(argument),
            });
            secret_next = is_option && secret && value.is_none();
        }
        shown
    }

    fn remote(&self, remote: &Remote, put: &mut impl FnMut(&str, Value)) {
        let mut url = remote.url.clone();
        if url.query().is_some() {
            url.set_query(Some(HIDDEN));
        }
        put("url", self.text(url.as_str()).into());
        let headers = remote.headers.iter().map(|(name, _)| (name.to_string(), HIDDEN.into()));
        put("headers", Value::Object(headers.collect()));
    }
}

/// None of it is a secret: credentials are in files.
fn auth(auth: &Auth) -> Value {
    let mut value = json!({
        "type": match auth.kind { AuthKind::None => "none", AuthKind::OAuth => "oauth" },
        "forwardToken": auth.forward_token,
        "requiredAudiences": auth.required_audiences,
    });
    if let Some(exchange) = &auth.token_exchange {
        value["tokenExchange"] = json!({
            "enabled": true,
            "tokenEndpoint": exchange.token_endpoint.as_str(),
            "expectedIssuer": exchange.expected_issuer.as_deref().unwrap_or_default(),
            "connectorId": exchange.connector_id.as_deref().unwrap_or_default(),
            "scopes": exchange.scopes.join(" "),
            "clientCredentialsFile": exchange.client_credentials_file,
        });
    }
    if let Some(server) = &auth.authorization_server {
        value["authorizationServer"] =
            json!({"issuer": server.issuer.as_str(), "scopes": server.scopes.join(" ")});
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcpserver::tests::definition;

    fn shown(spec: &str) -> String {
        definition(spec).redacted(&SecretNames::new(&["*ACCOUNT*".to_owned()]))["spec"].to_string()
    }

    #[test]
    fn everything_is_shown_but_secrets() {
        insta::assert_snapshot!(
            serde_json::to_string_pretty(
                &definition(
                    "type: stdio, command: x, args: [--api-key, s3cret, --token=s3cret, plain, --zone, \"${TZ}\", TOKEN=x], \
                     env: {A_KEY: s3cret, TZ: \"${TZ}\", B: \"x-${TOKEN}-y\", ACCOUNT: me, N: plain}, inheritEnv: [GIT_*], \
                     toolPrefix: t, family: {name: f, instanceArg: i}, policies: {a: {password: s3cret, b: 1}}, description: d"
                )
                .redacted(&SecretNames::new(&["*ACCOUNT*".to_owned()]))
            )
            .unwrap()
        );
    }

    #[test]
    fn headers_that_policies_set_are_hidden() {
        let shown = shown(
            "type: sse, url: \"http://h/\", policies: {requestHeaderModifier: {set: {Authorization: Bearer s3cret, cookie: s3cret, x-a: b}}, \
             authorization: {rules: [\"true\"]}}",
        );
        assert!(shown.contains(r#""Authorization":"***","cookie":"***","x-a":"b""#), "{shown}");
        assert!(shown.contains(r#""authorization":{"rules":["true"]}"#), "{shown}");
    }

    #[test]
    fn urls_and_headers_hide_their_secrets() {
        let shown = shown(
            "type: streamable-http, url: \"https://h/v1/${TOKEN}/mcp?key=s3cret\", headers: {X-Team: s3cret}",
        );
        assert!(shown.contains(r#""url":"https://h/v1/***/mcp?***","headers":{"x-team":"***"}"#), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("hunter22"), "{shown}");
    }
}
