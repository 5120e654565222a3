//! The `spec` of a definition: each key's type and range, and the rules between keys.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::auth::{self, Auth};
use super::context::Context;
use super::definition::{Family, Isolation, Remote, Route, Stdio, Transport};
use super::{Definition, Secret, ServerName};
use crate::yaml::{Fields, Value};

/// The keys, in the order in which they are written.
pub(super) const KEYS: &[&str] = &[
    "type",
    "command",
    "args",
    "env",
    "inheritEnv",
    "cwd",
    "url",
    "headers",
    "description",
    "toolPrefix",
    "family",
    "autoStart",
    "suspended",
    "timeout",
    "callTimeout",
    "isolation",
    "route",
    "policies",
    "auth",
];

pub(super) const STDIO_ONLY: &[&str] = &["command", "args", "env", "inheritEnv", "cwd"];
pub(super) const REMOTE_ONLY: &[&str] = &["url", "headers"];

pub(super) const FAMILY_KEYS: &[&str] = &["name", "instanceArg"];

const LONGEST_DESCRIPTION: usize = 500;

/// Headers that the connection or the protocol owns.
const RESERVED_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Stdio,
    StreamableHttp,
    Sse,
}

/// Reads the value of `spec`. `None` only after mistakes; a definition given after mistakes is to be thrown away.
pub(super) fn read(value: &Value<'_>, name: ServerName, context: Context<'_>) -> Option<Definition> {
    let fields = value.fields(KEYS)?;
    let kinds = [("stdio", Kind::Stdio), ("streamable-http", Kind::StreamableHttp), ("sse", Kind::Sse)];
    let kind =
        fields.need("type", "add type: stdio, streamable-http or sse").and_then(|value| value.one_of(&kinds));
    check_transport_keys(&fields, kind);

    // Both are read whatever the type is: a mistake in a key that should not be there is a mistake as well.
    let stdio = stdio(&fields, &context, kind == Some(Kind::Stdio));
    let remote = remote(&fields, &context, matches!(kind, Some(Kind::StreamableHttp | Kind::Sse)));
    let transport = match kind {
        Some(Kind::Stdio) => stdio.map(Transport::Stdio),
        Some(Kind::StreamableHttp) => remote.map(Transport::StreamableHttp),
        Some(Kind::Sse) => remote.map(Transport::Sse),
        None => None,
    };

    let auth = fields.get("auth").map_or(Some(Auth::default()), |value| {
        let auth = auth::read(value, &context);
        if kind == Some(Kind::Stdio) && auth.as_ref().is_some_and(|auth| *auth != Auth::default()) {
            value.misplaced("only for streamable-http and sse", "remove it".to_owned());
        }
        auth
    });
    let flag = |key, default| fields.get(key).map_or(Some(default), Value::boolean);
    let auto_start = flag("autoStart", true);
    let suspended = flag("suspended", false);
    let description = fields.get("description").map_or(Some(String::new()), description);
    let timeout = fields.get("timeout").map_or(Some(30), |value| value.integer(1..=300, " of seconds"));
    let call_timeout = fields
        .get("callTimeout")
        .map_or(Some(0), |value| value.integer(0..=u64::from(u32::MAX), " of seconds"));
    let isolations = [("shared", Isolation::Shared), ("session", Isolation::Session)];
    let isolation =
        fields.get("isolation").map_or(Some(Isolation::Shared), |value| value.one_of(&isolations));
    let routes = [("http", Route::Http), ("mcp", Route::Mcp)];
    let route = fields.get("route").map_or(Some(Route::Http), |value| value.one_of(&routes));
    let tool_prefix = fields.get("toolPrefix").map_or(Some(None), |value| value.parsed().map(Some));
    let family = fields.get("family").map_or(Some(None), |value| family(value).map(Some));
    let policies = fields.get("policies").map_or(Some(serde_json::Map::new()), Value::json_map);

    Some(Definition {
        name,
        transport: transport?,
        description: description?,
        tool_prefix: tool_prefix?,
        family: family?,
        auto_start: auto_start?,
        suspended: suspended?,
        timeout: Duration::from_secs(timeout?),
        call_timeout: call_timeout.map(|seconds| (seconds > 0).then(|| Duration::from_secs(seconds)))?,
        isolation: isolation?,
        route: route?,
        policies: policies?,
        auth: auth?,
        substituted: context.into_substituted(),
    })
}

fn check_transport_keys(fields: &Fields<'_>, kind: Option<Kind>) {
    let (foreign, owner) = match kind {
        Some(Kind::Stdio) => (REMOTE_ONLY, "streamable-http and sse"),
        Some(Kind::StreamableHttp | Kind::Sse) => (STDIO_ONLY, "stdio"),
        None => return,
    };
    for value in foreign.iter().filter_map(|key| fields.get(key)) {
        value.misplaced(format!("only for {owner}"), "remove it, or change spec.type".to_owned());
    }
}

fn stdio(fields: &Fields<'_>, context: &Context<'_>, needed: bool) -> Option<Stdio> {
    let command = if needed {
        fields.need("command", "add the program to run, such as command: uvx")
    } else {
        fields.get("command")
    };
    let command = command.and_then(|value| {
        let command = process_text(value, context)?;
        if command.is_empty() {
            value.wrong("empty", "write the program to run".to_owned());
            return None;
        }
        Some(command)
    });
    let args = fields.get("args").map_or(Some(Vec::new()), |value| {
        let args: Vec<_> = value.list()?.iter().map(|arg| process_text(arg, context)).collect();
        args.into_iter().collect()
    });
    let env = fields.get("env").map_or(Some(Vec::new()), |value| {
        let env: Vec<_> =
            value.entries()?.into_iter().map(|(name, value)| variable(name, &value, context)).collect();
        env.into_iter().collect()
    });
    let inherit_env = fields.get("inheritEnv").map_or(Some(Vec::new()), |value| {
        let patterns: Vec<_> = value.list()?.iter().map(Value::parsed).collect();
        patterns.into_iter().collect()
    });
    let cwd = fields.get("cwd").map_or(Some(String::new()), |value| process_text(value, context));
    Some(Stdio {
        command: command?,
        args: args?,
        env: env?,
        inherit_env: inherit_env?,
        cwd: context.absolute(&cwd?),
    })
}

/// Expanded text that can be given to a process.
fn process_text(value: &Value<'_>, context: &Context<'_>) -> Option<String> {
    let text = context.expanded(value)?;
    if text.contains('\0') {
        value.wrong("holds a NUL character, which no process can be given", None);
        return None;
    }
    Some(text)
}

fn variable(name: &str, value: &Value<'_>, context: &Context<'_>) -> Option<(String, Secret)> {
    let text = process_text(value, context);
    if name.is_empty() || name.contains(['=', '\0']) {
        value.misplaced("not the name of an environment variable", None);
        return None;
    }
    Some((name.to_owned(), text?.into()))
}

fn remote(fields: &Fields<'_>, context: &Context<'_>, needed: bool) -> Option<Remote> {
    let value = if needed {
        fields.need("url", "add the server's endpoint, such as url: http://127.0.0.1:9000/mcp")
    } else {
        fields.get("url")
    };
    let url = value.and_then(|value| url(value, &context.expanded(value)?));
    let headers = fields.get("headers").map_or(Some(Vec::new()), |value| headers(value, context));
    Some(Remote { url: url?, headers: headers? })
}

fn url(value: &Value<'_>, text: &str) -> Option<Url> {
    const EXAMPLE: &str = "write it whole, such as http://127.0.0.1:9000/mcp";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            value.wrong(format!("not a URL: {error}"), EXAMPLE.to_owned());
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        value.wrong("neither http nor https", EXAMPLE.to_owned());
        return None;
    }
    let mut right = true;
    let mut wrong = |problem: &str, advice: &str| {
        value.wrong(problem, advice.to_owned());
        right = false;
    };
    if !url.username().is_empty() || url.password().is_some() {
        wrong("holds user info", "put it into spec.headers as Authorization");
    }
    if url.fragment().is_some() {
        wrong("holds a fragment, which is never sent", "remove it from the '#' on");
    }
    if url.port() == Some(0) {
        wrong("port 0 cannot be connected to", EXAMPLE);
    }
    right.then_some(url)
}

fn headers(value: &Value<'_>, context: &Context<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let mut right = true;
    for (name, value) in value.entries()? {
        match header(name, &value, context) {
            Some((name, _)) if headers.iter().any(|(other, _)| *other == name) => {
                value.misplaced("given twice; names of headers know no case", "keep one".to_owned());
                right = false;
            }
            Some(header) => headers.push(header),
            None => right = false,
        }
    }
    right.then_some(headers)
}

fn header(name: &str, value: &Value<'_>, context: &Context<'_>) -> Option<(HeaderName, HeaderValue)> {
    let content = context.expanded(value).and_then(|text| {
        let content = HeaderValue::from_str(&text).ok();
        if content.is_none() {
            value.wrong("not a header value", "write it on one line, without control characters".to_owned());
        }
        content
    });
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        value.misplaced("not the name of a header", "use letters, digits and '-'".to_owned());
        return None;
    };
    if is_reserved_header(name.as_str()) {
        value.misplaced("belongs to the connection and cannot be set", "remove it".to_owned());
        return None;
    }
    let mut content = content?;
    content.set_sensitive(true);
    Some((name, content))
}

/// Whether a header, in any case, belongs to the connection or to Sidegate.
pub(super) fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED_HEADERS.contains(&name.as_str()) || name.starts_with("x-sidegate-")
}

fn description(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let length = text.chars().count();
    if length > LONGEST_DESCRIPTION {
        value.wrong(
            format!("{length} characters long"),
            format!("write at most {LONGEST_DESCRIPTION} characters"),
        );
        return None;
    }
    Some(text.to_owned())
}

fn family(value: &Value<'_>) -> Option<Family> {
    let fields = value.fields(FAMILY_KEYS)?;
    let name = fields.need("name", "add it, a family needs name and instanceArg").and_then(Value::parsed);
    let instance_arg =
        fields.need("instanceArg", "add it, a family needs name and instanceArg").and_then(Value::parsed);
    Some(Family { name: name?, instance_arg: instance_arg? })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::{definition, mistakes};

    fn stdio_of(spec: &str) -> Stdio {
        match definition(spec).transport {
            Transport::Stdio(stdio) => stdio,
            other => panic!("{other:?}"),
        }
    }

    fn remote_of(spec: &str) -> Remote {
        match definition(spec).transport {
            Transport::StreamableHttp(remote) | Transport::Sse(remote) => remote,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults() {
        let definition = definition("type: stdio, command: uvx");
        assert_eq!(definition.name.as_str(), "time");
        assert!(definition.auto_start && !definition.suspended);
        assert_eq!((definition.timeout, definition.call_timeout), (Duration::from_secs(30), None));
        assert_eq!((definition.isolation, definition.route), (Isolation::Shared, Route::Http));
        assert!(definition.policies.is_empty() && definition.substituted.is_empty());
        let Transport::Stdio(stdio) = definition.transport else { panic!("not stdio") };
        assert_eq!(stdio.cwd, Path::new("/etc/sidegate"));
    }

    #[test]
    fn everything_is_read() {
        let definition = definition(
            "type: stdio, command: ./run, args: ['--zone=${TZ}', '$$5'], env: {KEY: '${TOKEN}', A: ''}, \
             inheritEnv: [NPM_CONFIG_*], cwd: ./servers, description: d, toolPrefix: t, \
             family: {name: clocks, instanceArg: zone}, autoStart: false, suspended: true, timeout: 5, \
             callTimeout: 60, isolation: session, route: mcp, policies: {timeout: {requestTimeout: 5s}}",
        );
        insta::assert_debug_snapshot!(definition);
        let Transport::Stdio(stdio) = definition.transport else { panic!("not stdio") };
        assert_eq!(stdio.args, ["--zone=Europe/Berlin", "$5"]);
        assert_eq!(stdio.env[0].1.expose(), "hunter22");
    }

    #[rstest]
    #[case("", "/etc/sidegate")]
    #[case("cwd: .", "/etc/sidegate")]
    #[case("cwd: a/./b", "/etc/sidegate/a/b")]
    #[case("cwd: ../x", "/etc/sidegate/../x")]
    #[case("cwd: /srv", "/srv")]
    #[case("cwd: '/srv/${TZ}'", "/srv/Europe/Berlin")]
    fn cwd_is_absolute(#[case] cwd: &str, #[case] expected: &str) {
        assert_eq!(stdio_of(&format!("type: stdio, command: x, {cwd}")).cwd.to_str(), Some(expected));
    }

    #[rstest]
    #[case("http://127.0.0.1:9000/mcp", "http://127.0.0.1:9000/mcp")]
    #[case("HTTPS://Example.COM:443", "https://example.com/")]
    #[case("http://[::1]:80/a b", "http://[::1]/a%20b")]
    #[case("https://h/mcp?key=${TOKEN}", "https://h/mcp?key=hunter22")]
    fn urls_are_normalised(#[case] url: &str, #[case] expected: &str) {
        assert_eq!(remote_of(&format!("type: sse, url: '{url}'")).url.as_str(), expected);
    }

    #[test]
    fn debug_shows_no_secret() {
        for spec in [
            "type: stdio, command: x, args: ['--key=${TOKEN}', '--key=hunter22'], env: {A: hunter22, B: '${TOKEN}'}",
            "type: sse, url: 'https://h/hunter22?k=${TOKEN}', headers: {Authorization: 'Bearer ${TOKEN}', A: hunter22}",
        ] {
            let definition = definition(spec);
            assert_eq!(definition.substituted, [Secret::from("hunter22".to_owned())]);
            let debug = format!("{definition:?}");
            assert!(!debug.contains("hunter22"), "{debug}");
        }
    }

    #[test]
    fn mistakes_show_no_secret() {
        for spec in [
            "type: sse, url: 'ftp://hunter22@h', headers: {A: \"hunter22\\n\", B: [hunter22]}",
            "type: sse, url: 'https://u:hunter22@h#hunter22', headers: {'A B': hunter22, A: '${X:-hunter22'}",
            "type: stdio, command: \"hunter22\\0\", args: [{k: hunter22}], env: {A: 1, B: '${hunter_22:?hunter22}'}",
        ] {
            let report = mistakes(spec);
            assert!(!report.contains("hunter22"), "{report}");
        }
    }

    #[test]
    fn mistakes_of_the_spec() {
        let report: String = [
            "",
            "command: uvx",
            "type: http, url: http://h/mcp",
            "type: stdoi, command: x",
            "type: [stdio]",
            "type: stdio",
            "type: stdio, command: ''",
            "type: stdio, command:",
            "type: stdio, command: 5",
            "type: stdio, command: \"a\\0\"",
            "type: stdio, command: x, args: --flag",
            "type: stdio, command: x, args: [8080, true, ~, [a], '${NOPE}']",
            "type: stdio, command: x, env: [A=b]",
            "type: stdio, command: x, env: {PORT: 8080, 'A=B': x, C: '${NOPE}', D: '${'}",
            "type: stdio, command: x, env: {A: b, A: c}",
            "type: stdio, command: x, inheritEnv: [A=B, '*X']",
            "type: stdio, command: x, url: http://h, headers: {A: b}",
            "type: stdio, command: x, auth: {type: oauth}",
            "type: streamable-http",
            "type: sse, command: x, args: [], env: {}, cwd: ., inheritEnv: []",
            "type: sse, url: 127.0.0.1:9000/mcp",
            "type: sse, url: localhost:9000",
            "type: sse, url: /mcp",
            "type: sse, url: 'http://'",
            "type: sse, url: 'http://h:99999'",
            "type: sse, url: 'http://h:0'",
            "type: sse, url: 'http://u:p@h/#f'",
            "type: sse, url: ftp://h",
            "type: sse, url: http://h, headers: {'A B': x, X-A: \"é\\n\", Content-Length: '1', x-b: '1', X-B: '2', x-sidegate-key: k}",
            "type: stdio, command: x, toolPrefix: 1st",
            "type: stdio, command: x, family: {name: clocks}",
            "type: stdio, command: x, family: clocks",
            "type: stdio, command: x, family: {name: 'a b', instanceArg: 'a b', instancearg: z}",
            "type: stdio, command: x, autoStart: yes, suspended: 'true'",
            "type: stdio, command: x, timeout: 0, callTimeout: -1",
            "type: stdio, command: x, timeout: 301, callTimeout: 1m",
            "type: stdio, command: x, isolation: shard, route: grpc",
            "type: stdio, command: x, policies: [], auth: oauth",
            "type: stdio, command: x, policies: {a: .inf}",
            "type: stdio, commnd: x, inherit_env: [], image: y",
        ]
        .iter()
        .map(|spec| format!("{spec}\n{}\n\n", mistakes(spec)))
        .collect();
        insta::assert_snapshot!(report);
    }

    #[test]
    fn a_description_counts_characters() {
        let spec = |length| format!("type: stdio, command: x, description: {}", "é".repeat(length));
        assert_eq!(definition(&spec(500)).description.chars().count(), 500);
        assert!(mistakes(&spec(501)).ends_with("501 characters long; write at most 500 characters"));
    }
}
