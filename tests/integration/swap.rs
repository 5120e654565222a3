//! One gateway takes another's place while calls are under way: none fails, no session is opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use sidegate::binary_resolver::Event;
use sidegate::config::{GatewayMode, Overrides, Settings};
use sidegate::environment::Environment;
use sidegate::instance::{DefinitionsFrom, Instance, InstanceOptions, Network, NewGateway};
use tempfile::TempDir;

use super::support::load::Load;
use super::support::optional::real_agentgateway;
use super::support::sidegate::private_dir;
use super::support::{McpClient, Upstream, example_path, within};

const CLIENTS: usize = 32;
const SWAPS: usize = 20;

/// An instance inside the test, with one server over stdio and one over HTTP.
async fn start(directory: &Path, upstream: &Upstream, gateway: &NewGateway) -> Instance {
    private_dir(directory);
    let definitions = directory.join("config/mcpservers");
    fs_err::create_dir_all(&definitions).unwrap();
    let everything = example_path("everything");
    let definition =
        |spec: &str| format!("apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {{{spec}}}\n");
    let child = definition(&format!("type: stdio, command: {:?}", everything.to_str().unwrap()));
    fs_err::write(definitions.join("child.yaml"), child).unwrap();
    let remote = definition(&format!("type: streamable-http, url: {:?}", upstream.url));
    fs_err::write(definitions.join("remote.yaml"), remote).unwrap();

    let environment: Environment =
        [("PATH", "/usr/bin:/bin"), ("HOME", directory.to_str().unwrap())].into_iter().collect();
    let (mode, binary) = match gateway {
        NewGateway::Binary(binary) => (GatewayMode::Agentgateway, Some(binary.clone())),
        _ => (GatewayMode::Embedded, None),
    };
    let overrides = Overrides {
        listen: Some(([127, 0, 0, 1], 0).into()),
        gateway_mode: Some(mode),
        gateway_binary: binary,
        runtime_dir: Some(directory.join("run")),
        ..Overrides::default()
    };
    let config_dir = directory.join("config");
    let instance = Instance::start(InstanceOptions {
        settings: Settings::load(&config_dir, &environment, &overrides).unwrap(),
        definitions: DefinitionsFrom::ConfigDir(config_dir),
        project: None,
        environment,
        helper: Some(env!("CARGO_BIN_EXE_sidegate").into()),
        listener: None,
        open_files: None,
        ephemeral: false,
        network: Network::Never,
        progress: Arc::new(|_: Event<'_>| {}),
    });
    let instance = within("the start", instance).await.unwrap();
    within("the servers", instance.settled()).await;
    instance
}

/// Swaps as told, again and again, while clients call without a pause.
async fn swap_under_load(first: NewGateway, others: &[NewGateway]) {
    let directory = TempDir::new().unwrap();
    let upstream = Upstream::everything(&[]).await;
    let instance = start(directory.path(), &upstream, &first).await;
    let url = instance.url().to_owned();
    let watcher = McpClient::connect(&url).await;
    let pids = async || {
        let child = watcher.call("x_child_pid", json!({})).await.text();
        (child, watcher.call("x_remote_pid", json!({})).await.text())
    };
    let before = pids().await;

    let load = Load::start(&url, CLIENTS, ["x_child_echo", "x_remote_echo"]);
    let mut last_pid = instance.gateway().borrow().pid.expect("it runs");
    for number in 0..SWAPS {
        load.goes_on().await;
        let next = others[number % others.len()].clone();
        let info = within("a swap", instance.replace_gateway(next, "test")).await.unwrap();
        let pid = info.pid.expect("it runs");
        assert_ne!(pid, last_pid);
        assert!(!Path::new(&format!("/proc/{last_pid}")).exists(), "the old gateway still runs");
        last_pid = pid;
    }
    load.end().await;
    assert_eq!(pids().await, before, "sessions were opened again");
    drop(watcher);
    let report = within("the shutdown", instance.shutdown()).await;
    assert_eq!(report.calls_cut, 0);
    let left: Vec<PathBuf> =
        fs_err::read_dir(directory.path().join("run")).unwrap().map(|e| e.unwrap().path()).collect();
    let left: Vec<_> = left
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| !["lock", "logs"].contains(name))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_gateways_swap_under_load() {
    swap_under_load(NewGateway::Embedded, &[NewGateway::Same]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_and_agentgateway_swap_under_load() {
    let Some(binary) = real_agentgateway() else { return };
    let agentgateway = NewGateway::Binary(binary);
    swap_under_load(NewGateway::Embedded, &[agentgateway.clone(), NewGateway::Same, NewGateway::Embedded])
        .await;
}

#[tokio::test]
async fn a_swap_that_fails_leaves_everything_as_it_was() {
    let directory = TempDir::new().unwrap();
    let upstream = Upstream::everything(&[]).await;
    let instance = start(directory.path(), &upstream, &NewGateway::Embedded).await;
    let before = instance.gateway().borrow().clone();
    let client = McpClient::connect(instance.url()).await;

    let missing = NewGateway::Binary(directory.path().join("missing"));
    within("the refusal", instance.replace_gateway(missing, "test")).await.unwrap_err();
    // It answers `--version` as agentgateway does, and can do nothing else.
    let fake = directory.path().join("fake");
    fs_err::write(&fake, "#!/bin/sh\n[ \"$1\" = --version ] && echo '{\"version\":\"1.2.1\"}' && exit 0\necho no >&2; exit 1\n").unwrap();
    let mut permissions = fs_err::metadata(&fake).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs_err::set_permissions(&fake, permissions).unwrap();
    within("the refusal", instance.replace_gateway(NewGateway::Binary(fake), "test")).await.unwrap_err();

    assert_eq!(*instance.gateway().borrow(), before);
    let answer = client.call("x_remote_echo", json!({"payload": "still here"})).await;
    assert!(answer.raw().contains("still here"), "{answer:?}");
    drop(client);
    within("the shutdown", instance.shutdown()).await;
}
