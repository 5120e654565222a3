//! Before anything runs: arguments, settings, definitions, files of other clients.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::support::definitions::{built_in, spec};
use super::super::support::sidegate::Builder;
use super::book::{Chapter, place};

pub(super) async fn arguments() -> String {
    let mut chapter = Chapter::new("Arguments");
    let place = place().definition("taken", &built_in()).file("time.yaml", "");
    let long = "x".repeat(64);
    chapter
        .commands(
            "a word that is none of ours",
            &place,
            &[
                &["sevre"],
                &["serve", "--lisen", "127.0.0.1:0"],
                &["serve", "--gateway", "envoy"],
                &["config", "schema", "gateway"],
                &["completions", "tcsh"],
                &["connect", "emacs"],
                &["gateway"],
            ],
        )
        .await;
    chapter
        .commands(
            "a value of the wrong form",
            &place,
            &[
                &["serve", "--listen", "8090"],
                &["serve", "--gateway-version", "latest"],
                &["serve", "--upstream-url", "127.0.0.1:1"],
                &["serve", "--upstream-url", "ftp://127.0.0.1:1"],
                &["serve", "--upstream-url", "http://u:p@127.0.0.1:1/x?y#z"],
                &["add", "a", "--env", "A", "--", "x"],
                &["add", "../a", "--", "x"],
                &["add", "Time", "--", "x"],
                &["add", &long, "--", "x"],
                &["connect", "claude", "--name", "a b"],
                &["tools", "[z-a]"],
                &["explain", "yesterday"],
                &["logs", "-n", "many"],
            ],
        )
        .await;
    chapter
        .commands(
            "something is missing, or does not go with the rest",
            &place,
            &[
                &["add"],
                &["add", "a"],
                &["add", "a", "--url", "http://h", "--", "x"],
                &["add", "a", "--url", "http://h", "--env", "A=b"],
                &["add", "a", "--header", "A=b", "--", "x"],
                &["add", "a", "--env", "A=b", "--env", "A=c", "--", "x"],
                &["run"],
                &["serve", "--ephemeral", "--runtime-dir", "x"],
                &["connect", "windsurf", "--scope", "project"],
                &["remove"],
            ],
        )
        .await;
    chapter.command("others could reach the endpoint", &place, &["serve", "--listen", "0.0.0.0:0"]).await;
    let homeless = place.without_env("SIDEGATE_CONFIG_DIR").env("HOME", "here");
    chapter.commands("there is no home", &homeless, &[&["serve"], &["connect", "cursor"]]).await;
    chapter.text().replace(&long, "LONG")
}

pub(super) async fn settings() -> String {
    let mut chapter = Chapter::new("config.yaml and SIDEGATE_ variables");
    let wrong = "listen: 127.0.0.1\ngatewey: {}\ndrain: soon\nupstreamUrl: gateway\n\
        gateway: {mode: nginx, version: new, ports: {data: 70000, admin: 5000, stats: 5000}}\n\
        aggregator: {maxBody: 0, sessionIdle: 0s, maxSessions: 0, prefix: 1x, exposure: all, managementTools: yes,\n\
        \x20 allowedHosts: ['http://h'], allowedOrigins: [h]}\n\
        telemetry: {endpoint: h, protocol: udp, gatewaySpans: maybe}\nredact: TOKEN\n";
    chapter.command("all that can be wrong in it", &place().config(wrong), &["config", "show"]).await;
    chapter.command("it is not YAML", &place().config("listen: [\n"), &["serve"]).await;
    let place_with = |name: &str, value: &str| place().env(name, value);
    chapter.command("a variable is wrong", &place_with("SIDEGATE_DRAIN", "10"), &["serve"]).await;
    let unreadable = place().definition("a", &spec("{type: stdio, command: a, env: {A: '${BAD}'}}"));
    let bad = |what: &str| format!("{what}=$(printf '\\377') exec \"$0\" validate");
    chapter.shell("a variable of a definition is not UTF-8", &unreadable, &bad("BAD")).await;
    let bad = bad("SIDEGATE_DRAIN").replace("validate", "serve");
    chapter.shell("a variable is not UTF-8", &unreadable, &bad).await;
    let unknown = place_with("SIDEGATE_GATEWAY_MOD", "embedded").env("SIDEGATE_PORT", "1");
    let ended = unknown.clone().start().await.kill().await;
    chapter.logged("a name is nearly that of a variable", &unknown, &ended.stderr, "SIDEGATE_GATEWAY_MOD");
    chapter.logged("a name is not that of a variable", &unknown, &ended.stderr, "SIDEGATE_PORT");
    chapter.command("nearly, and nothing starts", &unknown.env("SIDEGATE_DRAIN", "10"), &["serve"]).await;
    chapter
        .command("it has no gateway elsewhere", &place_with("SIDEGATE_GATEWAY_MODE", "external"), &["serve"])
        .await;
    let file = place().file("a-file", "").env("SIDEGATE_CONFIG_DIR", "a-file");
    chapter.command("its directory is a file", &file, &["serve"]).await;
    let unreadable = place().config("");
    fs_err::remove_file(unreadable.config_dir().join("config.yaml")).unwrap();
    fs_err::create_dir(unreadable.config_dir().join("config.yaml")).unwrap();
    chapter.command("it is a directory", &unreadable, &["serve"]).await;
    for (when, text, mode) in [
        ("the token is in everybody's sight", "0123456789abcdef", 0o644),
        ("the token is too short", "0123", 0o600),
    ] {
        let place = place().file("token", text).env("SIDEGATE_AGGREGATOR_TOKEN_FILE", "token");
        let path = place.config_dir().with_file_name("token");
        fs_err::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        chapter.command(when, &place, &["serve"]).await;
    }
    let place = place().env("SIDEGATE_AGGREGATOR_TOKEN_FILE", "config");
    chapter.command("the token file is a directory", &place, &["serve"]).await;
    let place = place.env("SIDEGATE_AGGREGATOR_TOKEN_FILE", "/proc/token");
    chapter.command("the token file cannot be made", &place, &["serve"]).await;
    chapter.text()
}

/// Files with all kinds of mistakes.
fn wrong_definitions() -> Builder {
    let mut place = place();
    for (name, text) in [
        (
            "auth",
            "{type: sse, url: 'http://h', auth: {type: none, authorizationServer: {issuer: 'http://i'}}}",
        ),
        ("alias", "{type: stdio, command: a, args: &a [*a]}"),
        ("duplicate-key", "{type: stdio, command: a, command: b}"),
        ("family", "{type: stdio, command: a, family: {name: clocks}}"),
        ("family-argument", "{type: stdio, command: a, family: {name: clocks, instanceArg: 'a b'}}"),
        ("headers", "{type: sse, url: 'ftp://h', headers: {Host: x, 'A B': x, X-B: \"\\n\"}}"),
        ("no-command", "{type: stdio}"),
        ("no-type", "{command: a}"),
        ("not-yaml", "["),
        ("numbers", "{type: stdio, command: 5, timeout: 301, callTimeout: soon}"),
        ("other-keys", "{type: stdio, commnd: x, url: 'http://h'}"),
        ("prefix", "{type: stdio, command: a, toolPrefix: 1st, description: [a]}"),
        ("url", "{type: streamable-http, url: 'http://u:p@h:0/#f'}"),
        ("url-none", "{type: streamable-http, url: 'h/mcp'}"),
        (
            "variables",
            "{type: stdio, command: '${', args: ['${NOPE}', '${A${B}}', '${a b}'], inheritEnv: ['*X'], env: {'A=B': c}}",
        ),
    ] {
        place = place.definition(name, &spec(text));
    }
    place = place.definition("empty", "").definition("two", &format!("{0}---\n{0}", built_in()));
    place = place.definition("named", &built_in().replace("spec:", "metadata: {name: other}\nspec:"));
    place = place.definition("kind", "apiVersion: v1\nkind: Pod\n");
    let directory = place.config_dir().join("mcpservers");
    fs_err::write(directory.join("Bad Name.yaml"), built_in()).unwrap();
    fs_err::write(directory.join("twice.yaml"), built_in()).unwrap();
    fs_err::write(directory.join("twice.yml"), built_in()).unwrap();
    fs_err::write(directory.join("latin.yaml"), b"# \xe9\n").unwrap();
    fs_err::create_dir(directory.join("directory.yaml")).unwrap();
    symlink("nowhere", directory.join("link.yaml")).unwrap();
    place
}

pub(super) async fn definitions() -> String {
    let mut chapter = Chapter::new("Definitions");
    chapter.command("all that can be wrong in the files", &wrong_definitions(), &["validate"]).await;
    let wrong = place().file("time.yaml", &spec("{type: stdio, comand: uvx}"));
    chapter.command("the same for programs", &wrong, &["validate", "time.yaml", "--output", "json"]).await;
    let empty = place();
    chapter
        .commands(
            "there are none",
            &empty,
            &[&["validate"], &["list"], &["get", "time"], &["remove", "time"]],
        )
        .await;
    let removed = place();
    fs_err::remove_dir_all(removed.config_dir()).unwrap();
    chapter.commands("there is no directory", &removed, &[&["validate"], &["list"]]).await;
    chapter.command("a file is not there", &empty, &["validate", "missing.yaml"]).await;
    let taken = place().definition("taken", &built_in());
    chapter.command("a name is misspelt", &taken, &["validate", "takne"]).await;
    chapter
        .commands(
            "a name is taken, or not known",
            &taken,
            &[&["add", "taken", "--", "x"], &["get", "takne"], &["remove", "takne"], &["remove", "x"]],
        )
        .await;
    let twice = place().definition("a", &built_in());
    fs_err::write(twice.config_dir().join("mcpservers/a.yml"), built_in()).unwrap();
    chapter.command("two files define it", &twice, &["remove", "a"]).await;
    chapter
        .commands(
            "what is added would be wrong",
            &empty,
            &[
                &["add", "a", "--url", "h"],
                &["add", "a", "--url", "ftp://h", "--header", "Host=x", "--tool-prefix", "1"],
                &["add", "a", "--url", "http://h/${"],
                &["add", "a", "--url", "http://h/${NOPE}"],
                &["add", "a", "--", "sidegate", "stdio"],
            ],
        )
        .await;
    let file = place();
    fs_err::remove_dir(file.config_dir().join("mcpservers")).unwrap();
    fs_err::write(file.config_dir().join("mcpservers"), "").unwrap();
    chapter
        .commands(
            "the directory is a file",
            &file,
            &[&["serve"], &["validate"], &["list"], &["add", "a", "--", "x"]],
        )
        .await;
    // Nobody may write there, root neither.
    let sealed = place().env("SIDEGATE_CONFIG_DIR", "/proc/sidegate");
    chapter.commands("nothing may be written there", &sealed, &[&["serve"], &["add", "a", "--", "x"]]).await;
    chapter.text()
}

pub(super) async fn other_clients() -> String {
    let mut chapter = Chapter::new("Files of other clients");
    let at = place()
        .file("not.json", "{\"mcpServers\": {")
        .file("other.json", "{\"tools\": {}}")
        .file("empty.json", "{\"mcpServers\": {}}")
        .file(
            "servers.json",
            r#"{"mcpServers": {
                "My Server!": {"command": "x", "env": {"A": "${A:-${B}}"}},
                "list": {"command": "x", "args": "y"},
                "nothing": {},
                "socket": {"type": "ws", "url": "ws://h"},
                "number": {"command": 5},
                "file": {"command": "x", "envFile": ".env", "timeout": 5, "disabled": true},
                "bad-url": {"url": "h"}
            }}"#,
        );
    chapter
        .commands(
            "import",
            &at,
            &[
                &["import", "missing.json"],
                &["import", "not.json"],
                &["import", "other.json"],
                &["import", "empty.json"],
                &["import", "config"],
                &["import", "--dry-run", "servers.json"],
            ],
        )
        .await;
    let home = place().without_env("SIDEGATE_LISTEN");
    let at = |name: &str| home.config_dir().with_file_name("home").join(name);
    let write = |name: &str, text: &str| {
        fs_err::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs_err::write(at(name), text).unwrap();
    };
    write(".config/Code/User/mcp.json", "{\"servers\": {\"sidegate\": {\"url\": \"x\" // why\n}}}");
    write(".cursor/mcp.json", "{\"mcpServers\": {");
    write(".gemini/settings.json", "{\"mcpServers\": []}");
    write(".claude.json", "{\"mcpServers\": {}, \"mcpServers\": {}}");
    write(".config/zed/settings.json", "{\"context_servers\": {\"sidegate\": null, \"sidegate\": null}}");
    fs_err::create_dir_all(at(".codeium/windsurf/mcp_config.json")).unwrap();
    write(".codex/config.toml", "model = \"o\"\n[mcp_servers\n");
    chapter
        .commands(
            "connect: a file cannot be changed safely",
            &home,
            &[
                &["connect", "vscode", "--write"],
                &["connect", "cursor", "--write"],
                &["connect", "gemini", "--write"],
                &["connect", "claude", "--write"],
                &["connect", "zed", "--write"],
                &["connect", "windsurf", "--write"],
                &["connect", "codex", "--write"],
            ],
        )
        .await;
    let any = place();
    chapter
        .command("connect: it is not known where the instance will listen", &any, &["connect", "claude"])
        .await;
    let clients = place().without_env("SIDEGATE_LISTEN");
    chapter
        .commands(
            "connect: what a client has to be told",
            &clients,
            &[&["connect", "claude"], &["connect", "claude", "--write"], &["connect", "claude-desktop"]],
        )
        .await;
    let project = place().file(".mcp.json", "{\"mcpServers\": {").env("SIDEGATE_GATEWAY_MODE", "embedded");
    let instance = project.clone().arg("--project").start().await;
    instance.wait_for_stderr(".mcp.json").await;
    let ended = instance.stop().await;
    chapter.logged("serve --project: the file is no JSON", &project, &ended.stderr, ".mcp.json");
    let none = place();
    let ended = none.clone().arg("--project").start().await.stop().await;
    chapter.logged("serve --project: there is no file", &none, &ended.stderr, ".mcp.json");
    let project = place().definition("a", &built_in()).file(
        ".mcp.json",
        r#"{"mcpServers": {"a": {"command": "x"}, "b": {"type": "ws", "url": "ws://h"}, "c": {"command": "${INPUT}"}}}"#,
    );
    let instance = project.clone().arg("--project").wait_for_servers().start().await;
    let ended = instance.stop().await;
    chapter.logged(
        "serve --project: a server is in the configuration directory, too",
        &project,
        &ended.stderr,
        "mcpServers.a",
    );
    chapter.logged(
        "serve --project: a server is of a type that is not known",
        &project,
        &ended.stderr,
        "\"ws\"",
    );
    chapter.logged("serve --project: a variable is not set", &project, &ended.stderr, "INPUT");
    chapter.text()
}
