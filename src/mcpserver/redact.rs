//! Definitions as they may be shown: everything that may be a secret is `***`.
//!
//! Secret is: the value of a header, also of `Authorization` and `Cookie` in a policy, and of those that an option of the command
//! line holds; the value of a variable, a policy or an option of the command line whose name says so; the query of a URL; a value
//! of at least [`SHORTEST_SECRET`] characters that `${VAR}` has put in, wherever it stands but in `command` and `cwd`, which are
//! paths; and what [looks like a secret](redact), such as the password in a URL.
//!
//! Not secret are names, as of the headers in `allowHeaders`, words as in `UV_KEYRING_PROVIDER: subprocess`, and numbers of tokens,
//! as rate limits have them.

use serde_json::{Map, Value, json};
use url::Url;

use super::definition::{Definition, Isolation, Remote, Route, Stdio, Transport};
use super::{API_VERSION, Auth, AuthKind, KIND};
use crate::redact::redact;

pub use crate::redact::HIDDEN;

/// The shortest value, in characters, that is hidden wherever it stands: shorter ones are words like `UTC`, which hide nothing
/// and are everywhere.
pub const SHORTEST_SECRET: usize = 8;

/// What policies say of a key besides the key itself, as in `apiKey: {mode: optional, keys: [{key: …, metadata: …}]}`.
pub(super) const ABOUT_KEYS: [&str; 4] = ["mode", "file", "location", "metadata"];

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

    /// Whether `name` says that `value` is a secret. `UV_KEYRING_PROVIDER` and `allowHeaders` do so only if it is no word.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        self.is_secret(name) || (self.contains(name) && !is_word(value))
    }

    /// Policies with the values of secret names hidden, however deep.
    pub fn hide_in_map(&self, map: &Map<String, Value>) -> Map<String, Value> {
        self.hide_below(map, Below::Nothing)
    }

    fn hide_below(&self, map: &Map<String, Value>, below: Below) -> Map<String, Value> {
        let hide = |name: &String, value: &Value| {
            let below = match below {
                _ if self.is_counter(name, value) => Below::Nothing,
                _ if self.is_secret(name) => Below::Secret,
                Below::Secret if ABOUT_KEYS.contains(&&**name) => Below::Nothing,
                Below::Headers if name == "name" => Below::Nothing,
                Below::Nothing if self.contains(name) => Below::Headers,
                // `authorization: {rules: […]}` is a policy, and no header.
                Below::Nothing if value.is_string() && self.is_secret_header(name) => Below::Secret,
                below => below,
            };
            self.hide_value(value, below, false)
        };
        map.iter().map(|(name, value)| (name.clone(), hide(name, value))).collect()
    }

    fn hide_value(&self, value: &Value, below: Below, in_list: bool) -> Value {
        match value {
            Value::Object(map) => Value::Object(self.hide_below(map, below)),
            Value::Array(items) => items.iter().map(|item| self.hide_value(item, below, true)).collect(),
            // Lists of headers hold their names.
            Value::String(text)
                if below == Below::Nothing || (below == Below::Headers && in_list && is_name(text)) =>
            {
                redact(text).into()
            }
            Value::Number(_) if below == Below::Nothing => value.clone(),
            Value::String(_) | Value::Number(_) => HIDDEN.into(),
            Value::Bool(_) | Value::Null => value.clone(),
        }
    }

    /// Whether tokens are counted, as by `maxTokens: 10` of a rate limit.
    fn is_counter(&self, name: &str, value: &Value) -> bool {
        value.is_number() && name.to_uppercase().contains("TOKENS")
    }
}

/// What the value of a policy stands below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Nothing,
    /// A name that says that these are headers.
    Headers,
    /// The name of a secret.
    Secret,
}

/// Whether this may be the name of a header.
fn is_name(text: &str) -> bool {
    text == "*" || (text.len() < LONGEST_NAME && http::HeaderName::from_bytes(text.as_bytes()).is_ok())
}

/// Longer texts are no names of headers, in bytes.
const LONGEST_NAME: usize = 64;

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
        put("description", unless_empty(redact(&self.description).into_owned()));
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
        let text = self.values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN));
        redact(&text).into_owned()
    }

    fn stdio(&self, stdio: &Stdio, put: &mut impl FnMut(&str, Value)) {
        put("command", stdio.command.as_str().into());
        put("args", self.arguments(&stdio.args).into());
        let env = stdio.env.iter().map(|(name, value)| {
            let is_secret = self.names.says(name, value.expose());
            let shown = if is_secret { HIDDEN.to_owned() } else { self.text(value.expose()) };
            (name.clone(), Value::from(shown))
        });
        put("env", Value::Object(env.collect()));
        put("inheritEnv", stdio.inherit_env.iter().map(|pattern| pattern.as_str()).collect());
        put("cwd", stdio.cwd.display().to_string().into());
    }

    /// `--token=x`, and `--token` with `x` as the next argument; `--header "X-Team: x"` the same ways.
    fn arguments(&self, arguments: &[String]) -> Vec<String> {
        let mut option: Option<&str> = None;
        let mut shown = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let is_option = argument.starts_with('-');
            let named = option.take().filter(|_| !is_option);
            shown.push(match (named, argument.split_once('=')) {
                (Some(name), _) if self.names.says(name, argument) => HIDDEN.to_owned(),
                (Some(name), _) if is_header_option(name) => self.header(argument),
                (_, Some((name, value))) if self.names.says(name, value) => format!("{name}={HIDDEN}"),
                (_, Some((name, value))) if is_header_option(name) => {
                    format!("{name}={}", self.header(value))
                }
                _ => self.text(argument),
            });
            option = (is_option && !argument.contains('=')).then_some(argument);
        }
        shown
    }

    /// `Name: value`.
    fn header(&self, text: &str) -> String {
        match text.split_once(':') {
            Some((name, _)) if is_name(name) => format!("{name}: {HIDDEN}"),
            _ => self.text(text),
        }
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

/// Whether `value` may be a word of our language or the name of something, and so is in texts for other reasons: it has only
/// lower-case letters, with `-`, `_` and `.` between them.
pub(crate) fn is_word(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether an option of a command line is followed by a header, as with curl and `mcp-remote`.
pub(super) fn is_header_option(name: &str) -> bool {
    name == "-H" || (name.starts_with('-') && name.to_lowercase().trim_end_matches('s').ends_with("header"))
}

/// None of it is a secret, but what may stand in URLs: credentials are in files.
fn auth(auth: &Auth) -> Value {
    let mut value = json!({
        "type": match auth.kind { AuthKind::None => "none", AuthKind::OAuth => "oauth" },
        "forwardToken": auth.forward_token,
        "requiredAudiences": auth.required_audiences,
    });
    if let Some(exchange) = &auth.token_exchange {
        value["tokenExchange"] = json!({
            "enabled": true,
            "tokenEndpoint": redact(exchange.token_endpoint.as_str()),
            "expectedIssuer": redact(exchange.expected_issuer.as_deref().unwrap_or_default()),
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
    fn names_and_numbers_are_no_secrets() {
        let policies = r#"{"cors":{"allowHeaders":["content-type","X-B3","*"],"allowCredentials":true},"apiKey":{"mode":"optional","keys":["***",{"key":"***","metadata":{"user":"u"}}]},"backendAuth":{"key":{"file":"/run/k"}},"localRateLimit":[{"maxTokens":10,"fillInterval":"1s"}],"a":{"headers":[{"name":"x-a","value":"***"},"***"],"token":"***","pin":{"password":"***"}},"extAuthz":{"includeResponseHeaders":["x-user"],"addRequestHeaders":{"x-a":"***"}}}"#;
        let given = r#"{cors: {allowHeaders: [content-type, X-B3, "*"], allowCredentials: true}, apiKey: {mode: optional, keys: [s3cret, {key: s3cret, metadata: {user: u}}]}, backendAuth: {key: {file: /run/k}}, localRateLimit: [{maxTokens: 10, fillInterval: 1s}], a: {headers: [{name: x-a, value: s3cret}, "x-a: s3cret"], token: 1234, pin: {password: 5678}}, extAuthz: {includeResponseHeaders: [x-user], addRequestHeaders: {x-a: s3cret}}}"#;
        let shown = shown(&format!("type: sse, url: \"http://h/\", policies: {given}"));
        assert!(shown.contains(policies), "{shown}");
        let env = |shown: &str| shown.contains(r#""UV_KEYRING_PROVIDER":"subprocess","A_KEYRING":"***""#);
        let shown =
            self::shown("type: stdio, command: x, env: {UV_KEYRING_PROVIDER: subprocess, A_KEYRING: a1}");
        assert!(env(&shown), "{shown}");
    }

    /// Wherever somebody can write a secret so that it is seen to be one, it is not shown.
    #[rstest::rstest]
    #[case::argument("type: stdio, command: x, args: [--password, s3cret]")]
    #[case::argument_with_value("type: stdio, command: x, args: [--api-key=s3cret]")]
    #[case::assignment("type: stdio, command: x, args: [DB_PASSWORD=s3cret]")]
    #[case::header("type: stdio, command: x, args: [--header, \"X-Team: s3cret\"]")]
    #[case::header_with_value("type: stdio, command: x, args: [\"--header=X-Team:s3cret\"]")]
    #[case::header_of_curl("type: stdio, command: x, args: [-H, \"X-Team: s3cret\"]")]
    #[case::bearer("type: stdio, command: x, args: [\"Bearer s3cret-0123456789\"]")]
    #[case::url("type: stdio, command: x, args: [\"postgresql://u:s3cret@h/db\"]")]
    #[case::url_in_a_variable("type: stdio, command: x, env: {DATABASE_URL: \"postgresql://u:s3cret@h/db\"}")]
    #[case::variable("type: stdio, command: x, env: {A_TOKEN: s3cret}")]
    #[case::headers_in_a_variable("type: stdio, command: x, env: {A_HEADERS: \"x-team=s3cret\"}")]
    #[case::remote_header("type: sse, url: \"http://h/\", headers: {X-Team: s3cret}")]
    #[case::query("type: sse, url: \"http://h/?zone=s3cret\"")]
    #[case::description("type: sse, url: \"http://h/\", description: \"sign in with token=s3cret\"")]
    #[case::policy_url(
        "type: sse, url: \"http://h/\", policies: {extAuthz: {target: \"http://u:s3cret@h/\"}}"
    )]
    #[case::policy_header(
        "type: sse, url: \"http://h/\", policies: {requestHeaderModifier: {set: {authorization: s3cret}}}"
    )]
    #[case::token_endpoint(
        "type: streamable-http, url: \"http://h/\", auth: {type: oauth, forwardToken: true, tokenExchange: {enabled: true, tokenEndpoint: \"https://u:s3cret@h/t?k=s3cret\"}}"
    )]
    fn a_planted_secret_is_hidden(#[case] spec: &str) {
        let shown = shown(spec);
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains(HIDDEN), "{shown}");
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
