//! Instances in code: the library's front door.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use sidegate::config::{GatewayMode, HostName, ManagementTools};
use sidegate::environment::Environment;
use sidegate::instance::{CallError, InstanceBuilder, ReadyWhen, StartError};
use sidegate::{Instance, Server};
use tempfile::TempDir;

use super::support::leaks::{self, Tag};
use super::support::mcp_client::Http;
use super::support::sidegate::binary;
use super::support::upstream::Upstream;
use super::support::{eventually, within};

/// Directories of a test's own, whose name every process carries that is started from there.
struct Surroundings {
    directory: TempDir,
    tag: Tag,
}

impl Surroundings {
    fn new() -> Self {
        let tag = Tag::random();
        let directory = tempfile::Builder::new().prefix(&format!("sidegate-test-{tag}-")).tempdir().unwrap();
        fs_err::create_dir(directory.path().join("tmp")).unwrap();
        Self { directory, tag }
    }

    fn tmp(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    fn environment(&self) -> Environment {
        let variables = [
            ("PATH", "/usr/bin:/bin".into()),
            ("HOME", self.directory.path().to_owned()),
            ("TMPDIR", self.tmp()),
        ];
        variables.into_iter().collect()
    }

    /// An instance whose children are guarded.
    fn builder(&self) -> InstanceBuilder {
        self.builder_without_helper().helper(binary())
    }

    fn builder_without_helper(&self) -> InstanceBuilder {
        Instance::builder().environment(self.environment()).ready_when(ReadyWhen::ServersConnected)
    }

    fn is_clean(&self) -> bool {
        fs_err::read_dir(self.tmp()).unwrap().next().is_none()
    }

    async fn nothing_is_left(&self) {
        leaks::none(&self.tag).await;
        assert!(
            self.is_clean(),
            "files are left: {:?}",
            fs_err::read_dir(self.tmp()).unwrap().collect::<Vec<_>>()
        );
    }
}

/// Where a host's log goes.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn example() -> Server {
    Server::stdio(binary()).arg("example-server")
}

#[tokio::test]
async fn an_instance_is_started_used_and_ended() {
    let surroundings = Surroundings::new();
    let upstream = Upstream::everything(&[]).await;
    let talking = r#"echo "hello from $WHO" >&2; exec "$0" example-server"#;
    let talking = Server::stdio("sh").args(["-c", talking, binary().to_str().unwrap()]).env("WHO", "$0 {a}");
    let remote = Server::http(&upstream.url).tool_prefix("far");
    let builder = surroundings.builder().server("talking", talking).server("remote", remote);
    let instance = within("the start", builder.start()).await.unwrap();

    let tools = instance.tools().await.unwrap();
    let tool = tools.iter().find(|tool| tool.name == "x_talking_calculate").unwrap();
    assert!(!tool.description.is_empty() && tool.definition["inputSchema"].is_object());
    let result = instance.call("x_talking_calculate", json!({"expression": "2*(3+4)"})).await.unwrap();
    assert!(!result.is_error() && result.text() == r#"{"value":14.0}"#, "{result:?}");
    assert_eq!(result.structured(), Some(&json!({"value": 14.0})));
    let result = instance.call("x_far_echo", json!({"text": "a$b"})).await.unwrap();
    assert_eq!(result.text(), r#"{"text":"a$b"}"#);
    let failed = instance.call("x_talking_calculate", json!({"expression": "2*"})).await.unwrap();
    assert!(failed.is_error());
    let unknown = instance.call("x_talking_none", json!({})).await.unwrap_err();
    assert!(matches!(unknown, CallError::Refused { code: -32602, .. }), "{unknown}");

    eventually("the log", async || {
        instance.logs("talking").unwrap().iter().any(|line| line.contains("hello from $0 {a}")).then_some(())
    })
    .await;
    assert_eq!(instance.logs("../talking").unwrap(), Vec::<String>::new());
    assert_eq!(instance.helper(), Some(binary().as_path()));
    assert!(instance.statuses().borrow().values().all(|status| status.state.is_up()));
    assert!(instance.url().starts_with("http://127.0.0.1:"));
    within("the end", instance.shutdown()).await;
    surroundings.nothing_is_left().await;
}

#[tokio::test]
async fn an_instance_that_listens_everywhere_can_be_called() {
    let surroundings = Surroundings::new();
    let token = tempfile::tempdir().unwrap();
    let builder = surroundings.builder().server("a", example()).token_file(token.path().join("token"));
    let builder = builder.listen(([0, 0, 0, 0], 0).into());
    let instance = within("the start", builder.start()).await.unwrap();
    let result = instance.call("x_a_calculate", json!({"expression": "1+1"})).await.unwrap();
    assert_eq!(result.json()["structuredContent"]["value"], 2.0);
    within("the end", instance.shutdown()).await;
}

#[tokio::test]
async fn without_a_helper_the_gateway_is_a_task() {
    let surroundings = Surroundings::new();
    let builder = surroundings.builder_without_helper().server("a", example());
    let instance = within("the start", builder.start()).await.unwrap();
    assert_eq!(instance.helper(), None);
    assert_eq!(
        (instance.info().gateway.mode, instance.info().gateway.pid),
        ("embedded", Some(std::process::id()))
    );
    let result = instance.call("x_a_calculate", json!({"expression": "1+1"})).await.unwrap();
    assert_eq!(result.json()["structuredContent"]["value"], 2.0);
    let processes = leaks::processes(&surroundings.tag);
    assert!(processes.iter().all(|process| process.command.ends_with("example-server")), "{processes:?}");
    within("the end", instance.shutdown()).await;
    surroundings.nothing_is_left().await;
}

/// What a host's subscriber is told has passed none of ours. This test is on one thread, and so is its subscriber.
#[tokio::test]
async fn the_log_of_a_host_holds_no_secret_of_a_server() {
    const SECRET: &str = "hunter22 hunter22";
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("sidegate=debug")
        .with_ansi(false)
        .with_writer(move || Lines(Arc::clone(&writer)));
    let _subscriber = tracing::subscriber::set_default(subscriber.finish());

    let surroundings = Surroundings::new();
    let talking =
        r#"echo "one $PASSWORD"; echo "two $PASSWORD"; echo "three $PASSWORD" >&2; exec "$0" example-server"#;
    let talking = Server::stdio("sh").args(["-c", talking, binary().to_str().unwrap()]);
    let builder = surroundings.builder().server("talking", talking.env("PASSWORD", SECRET));
    let instance = within("the start", builder.start()).await.unwrap();
    within("the end", instance.shutdown()).await;

    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    for line in ["(more of them are not shown): one ***", "is no MCP message: two ***", " three ***"] {
        assert!(log.contains(line), "{line} is not in:\n{log}");
    }
    assert!(!log.contains("hunter22"), "{log}");
}

#[tokio::test]
async fn a_dropped_instance_ends_and_leaves_nothing() {
    for helper in [Some(binary()), None] {
        let surroundings = Surroundings::new();
        // It has something to say to the end, and after it.
        let chatty = r#"(while echo busy >&2; do sleep 0.001; done) & exec "$0" example-server"#;
        let chatty = Server::stdio("sh").args(["-c", chatty, binary().to_str().unwrap()]);
        let mut builder = surroundings.builder_without_helper().server("a", chatty);
        if let Some(helper) = helper {
            builder = builder.helper(helper);
        }
        let instance = within("the start", builder.start()).await.unwrap();
        let url = instance.url().replace("/mcp", "/healthz");
        drop(instance);
        leaks::none(&surroundings.tag).await;
        eventually("an empty directory", async || surroundings.is_clean().then_some(())).await;
        let address = url.trim_start_matches("http://").trim_end_matches("/healthz");
        eventually("a closed port", async || tokio::net::TcpStream::connect(address).await.err()).await;
    }
}

#[test]
fn an_instance_that_ends_with_its_runtime_leaves_nothing() {
    let surroundings = Surroundings::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = surroundings.builder().server("a", example());
    let instance = runtime.block_on(async { within("the start", started.start()).await.unwrap() });
    drop(runtime);
    drop(instance);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        leaks::none(&surroundings.tag).await;
        eventually("an empty directory", async || surroundings.is_clean().then_some(())).await;
    });
}

#[tokio::test]
async fn servers_of_a_project_are_taken_over() {
    let surroundings = Surroundings::new();
    let file = surroundings.directory.path().join(".mcp.json");
    let servers = json!({"mcpServers": {
        "First One": {"command": binary(), "args": ["${SUBCOMMAND:-example-server}"]},
        "second": {"command": "${BINARY}", "args": ["example-server"]},
    }});
    fs_err::write(&file, servers.to_string()).unwrap();
    let environment = surroundings.environment().with("BINARY", binary().to_str().unwrap());
    let builder = surroundings.builder().environment(environment).mcp_json(&file).server("third", example());
    let instance = within("the start", builder.start()).await.unwrap();
    let statuses = instance.statuses().borrow().keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(statuses, ["first-one", "second", "third"]);
    within("the end", instance.shutdown()).await;
    surroundings.nothing_is_left().await;
}

#[tokio::test]
async fn a_directory_of_definitions_is_followed() {
    let surroundings = Surroundings::new();
    let definitions = surroundings.directory.path().join("config/mcpservers");
    fs_err::create_dir_all(&definitions).unwrap();
    let config_dir = surroundings.directory.path().join("config");
    let instance = within("the start", surroundings.builder().config_dir(&config_dir).start()).await.unwrap();
    assert_eq!(instance.definitions_dir(), definitions);
    let text = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {type: stdio, command: \"${SIDEGATE_EXE}\", args: [example-server]}\n";
    fs_err::write(definitions.join("late.yaml"), text).unwrap();
    let up = |statuses: &sidegate::reconciler::Statuses| statuses.values().any(|status| status.state.is_up());
    within("the server", instance.statuses().wait_for(up)).await.unwrap();
    within("the end", instance.shutdown()).await;
    assert!(definitions.join("late.yaml").exists());
    surroundings.nothing_is_left().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_runs() {
    let surroundings = Surroundings::new();
    let project = surroundings.directory.path().join(".mcp.json");
    fs_err::write(&project, r#"{"mcpServers": {"socket": {"type": "ws", "url": "ws://h"}}}"#).unwrap();
    let builder = || surroundings.builder();
    let missing = surroundings.directory.path().join("none.json");
    let mut said = Vec::new();
    for builder in [
        builder().server("Not A Name", example()),
        builder().server("a", example()).server("a", example()),
        builder().server("a", Server::http("ftp://h")),
        builder().server("a", Server::http("http://h").arg("x").timeout(Duration::from_secs(1000))),
        builder().mcp_json(&project),
        builder().mcp_json(&missing),
        builder().server("a", example()).config_dir("/c"),
        builder().listen(([0, 0, 0, 0], 0).into()),
        builder().server("a", Server::stdio("/nonexistent")).server("b", example()),
    ] {
        let error = within("the end of the start", builder.start()).await.unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let tmp = surroundings.directory.path().to_str().unwrap();
        // The runtime directory has a random name.
        let words = text.replace(tmp, "DIR");
        let words =
            words.split(' ').map(|word| if word.contains("sidegate-ephemeral-") { "FILE" } else { word });
        said.push(words.collect::<Vec<_>>().join(" "));
        surroundings.nothing_is_left().await;
    }
    insta::assert_snapshot!(said.join("\n\n"));
}

#[tokio::test]
async fn more_names_than_those_of_this_machine_are_served() {
    let surroundings = Surroundings::new();
    let builder = surroundings.builder().gateway(GatewayMode::Embedded);
    let builder = builder.allowed_host("one.example".parse().unwrap());
    let builder = builder.allowed_host("two.example".parse().unwrap());
    let instance = within("the start", builder.start()).await.unwrap();
    let http = Http::new(instance.url());
    for (host, status) in [
        ("one.example", StatusCode::BAD_REQUEST),
        ("two.example:8090", StatusCode::BAD_REQUEST),
        ("localhost", StatusCode::BAD_REQUEST),
        ("three.example", StatusCode::FORBIDDEN),
    ] {
        // What is served is looked at, and is no message.
        assert_eq!(http.send(Method::POST, "{}", &[("host", host)]).await.status(), status, "{host}");
    }
    within("the end", instance.shutdown()).await;
    assert!("http://one.example".parse::<HostName>().is_err());
}

#[tokio::test]
async fn a_token_is_made_and_sent() {
    let surroundings = Surroundings::new();
    let token = surroundings.directory.path().join("token");
    let builder = surroundings.builder().token_file(&token).management_tools(ManagementTools::Off);
    let instance = within("the start", builder.gateway(GatewayMode::Embedded).start()).await.unwrap();
    assert!(token.exists());
    assert_eq!(instance.tools().await.unwrap(), []);
    within("the end", instance.shutdown()).await;
}

#[tokio::test]
async fn a_server_that_is_never_there_ends_the_wait() {
    let surroundings = Surroundings::new();
    let silent = Server::stdio("sleep").arg("1000");
    let builder = surroundings.builder().server("silent", silent).ready_within(Duration::from_millis(300));
    let error = within("the end of the start", builder.start()).await.unwrap_err();
    assert!(matches!(&error, StartError::NotConnected { limit: Some(_), .. }), "{error}");
    assert_eq!(error.to_string(), "not all servers are ready after 300ms: silent is still starting");
    surroundings.nothing_is_left().await;
}

/// A test suite starts dozens of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_run_at_once() {
    const MANY: u32 = 32;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let surroundings = Surroundings::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..MANY {
        let builder = surroundings.builder().server("a", example());
        tasks.spawn(async move {
            let instance = builder.start().await.unwrap();
            let expression = format!("{number}*2");
            let result = instance.call("x_a_calculate", json!({"expression": expression})).await.unwrap();
            assert_eq!(result.structured().unwrap()["value"], f64::from(number * 2));
            instance
        });
    }
    let instances = within("all of them", tasks.join_all()).await;
    let ports = |instance: &Instance| {
        let ports = instance.info().gateway.ports;
        [ports.data, ports.admin, ports.stats, ports.readiness].map(Option::unwrap)
    };
    let all: std::collections::BTreeSet<u16> = instances.iter().flat_map(ports).collect();
    assert_eq!(all.len(), 4 * instances.len());
    let descriptors = fs_err::read_dir("/proc/self/fd").unwrap().count();
    assert!(descriptors < 50 * instances.len(), "{descriptors} descriptors");
    let ends = instances.into_iter().map(Instance::shutdown).collect::<tokio::task::JoinSet<_>>();
    within("the end of all", ends.join_all()).await;
    surroundings.nothing_is_left().await;
}
