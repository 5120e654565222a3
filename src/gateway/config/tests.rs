use super::*;

const HEAD: &str = "config: {adminAddr: '127.0.0.1:35000', statsAddr: '127.0.0.1:35020', readinessAddr: '127.0.0.1:35021'}\n";

const ANSWER: &str =
    "{name: a, matches: [{path: {exact: /a}}], policies: {directResponse: {status: 200, body: ''}}}";

fn with_route(route: &str) -> String {
    format!("{HEAD}binds: [{{port: 35080, listeners: [{{name: sidegate, routes: [{route}]}}]}}]\n")
}

fn with_policy(policy: &str) -> String {
    with_route(&format!(
        "{{name: a, matches: [{{path: {{pathPrefix: /mcp/a}}}}], backends: [{{host: 'h:1'}}], \
         policies: {{urlRewrite: {{path: {{full: /mcp}}, authority: {{full: h}}}}, {policy}}}}}"
    ))
}

fn refusal(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

/// The example of the project's own notes on agentgateway, without what only agentgateway can do.
#[test]
fn the_example_is_served() {
    let config = Config::parse(include_str!("example.yaml")).unwrap();
    assert_eq!(config.settings.pool_idle_timeout, Duration::from_secs(3));
    assert_eq!(config.settings.log_level.as_deref(), Some("info"));
    let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["sidegate-generation", "time", "wiki", "cloud"]);
    let dump = String::from_utf8(config.dump().unwrap()).unwrap();
    assert!(dump.contains("\"backendTunnel\"") && dump.contains("unix:/run/user/1000"), "{dump}");
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_place() {
    let texts = [
        with_policy("localRateLimit: []"),
        with_policy("backendTLS: {alpn: [h2]}"),
        with_policy("authorization: {rules: ['true']}"),
        with_policy("transformations: {request: {set: {x: request.path}}}"),
        with_policy("backendTunnel: {proxy: {host: '[::1]:1'}}"),
        with_route("{name: a, matches: [{path: {regex: x}}]}"),
        with_route("{name: a, matches: [{path: {exact: /a}}], backends: [{mcp: {targets: []}}]}"),
        with_route("{name: a, matches: [{path: {exact: /a}}], backends: [{host: 'h:1'}]}"),
        with_route("{name: a, matches: [{path: {exact: /a}}]}"),
        format!("{HEAD}binds: [] # $HOME"),
        format!("{HEAD}binds: []"),
        with_route("").replace("127.0.0.1:35000", "0.0.0.0:35000"),
    ];
    let refusals: Vec<String> = texts.iter().map(|text| refusal(text)).collect();
    assert!(
        refusals.iter().all(|text| text.contains("the embedded gateway does not support")),
        "{refusals:#?}"
    );
    insta::assert_snapshot!("unsupported", refusals.join("\n"));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let texts = [
        String::new(),
        "config: {adminAddr: 1}\nbinds: [}".to_owned(),
        format!("{HEAD}binds: 7"),
        format!("{HEAD}{HEAD}"),
        with_policy("requestHeaderModifier: {set: {'a b': c}}"),
        with_policy("requestHeaderModifier: {set: {a: \"c\\n\"}}"),
        with_route(
            "{name: a, matches: [{path: {exact: /a}}], backends: [{host: 'h'}], policies: {urlRewrite: {path: {full: /}, authority: {full: h}}}}",
        ),
        with_route("").replace("port: 35080", "port: 0"),
        with_route(&[ANSWER.to_owned(), ANSWER.replace("exact: /a", "exact: /b")].join(", ")),
        with_route(&[ANSWER.to_owned(), ANSWER.replace("name: a", "name: b")].join(", ")),
        with_route("").replace("127.0.0.1:35000", "localhost:1"),
    ];
    let refusals: Vec<String> = texts.iter().map(|text| refusal(text)).collect();
    insta::assert_snapshot!("mistakes", refusals.join("\n"));
}

#[test]
fn a_doubled_dollar_is_one() {
    let text = with_policy("responseHeaderModifier: {set: {x-price: '$$5'}}");
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.routes[0].response.set[0].1, "$5");
}
