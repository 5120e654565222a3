//! The commands that look at servers, and what they say to wrong input.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::support::definitions::{self, built_in, with};
use super::support::sidegate::binary;
use super::support::{Sidegate, eventually, within};

/// Runs a command in the environment of a user whose home is `home`.
async fn run_at(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("COLUMNS", "60")
        .stdin(Stdio::null());
    within(&arguments.join(" "), command.output()).await.unwrap()
}

/// Runs a command that talks to `instance`.
async fn run(instance: &Sidegate, arguments: &[&str]) -> Output {
    let runtime_dir = instance.ready.runtime_dir.to_str().unwrap();
    let rest = [arguments, &["--runtime-dir", runtime_dir]].concat();
    run_at(Path::new("/nonexistent"), &rest).await
}

/// What it printed for programs.
async fn json_of(instance: &Sidegate, arguments: &[&str]) -> Value {
    let output = run(instance, &[arguments, &["--output", "json"]].concat()).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Everything a user sees, and the exit code.
fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{}{}(exit {})\n", text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

/// What stays the same in every run: paths and numbers have names, columns are two blanks apart.
fn stable(text: &str, instance: &Sidegate) -> String {
    let status = |key: &str| instance.ready.runtime_dir.join(key).display().to_string();
    let text = text
        .replace(status("").trim_end_matches('/'), "RUNTIME")
        .replace(&instance.config_dir().display().to_string(), "CONFIG");
    let text = match text.split_once("Generation  ") {
        Some((before, after)) => {
            format!("{before}Generation  GENERATION\n{}", after.split_once('\n').unwrap().1)
        }
        None => text,
    };
    text.lines().map(|line| numbers_named(line) + "\n").collect()
}

fn numbers_named(line: &str) -> String {
    if line.starts_with("(exit ") {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut last = '\0';
    for next in line.chars() {
        let repeated = (next.is_ascii_digit() && last == 'N') || (next == ' ' && out.ends_with("  "));
        last = if next.is_ascii_digit() { 'N' } else { next };
        if !repeated {
            out.push(last);
        }
    }
    out
}

/// `value` with everything that differs from run to run replaced.
fn steady(value: &Value) -> Value {
    const VOLATILE: &[&str] = &[
        "url",
        "pageUrl",
        "pid",
        "startedAt",
        "uptimeSeconds",
        "configDir",
        "runtimeDir",
        "data",
        "admin",
        "stats",
        "readiness",
        "generation",
        "at",
        "since",
        "failures",
        "retryInSeconds",
        "file",
        "command",
        "cwd",
        "path",
    ];
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let shown = if VOLATILE.contains(&key.as_str()) { "…".into() } else { steady(value) };
                (key.clone(), shown)
            })
            .collect(),
        Value::Array(items) => items.iter().map(steady).collect(),
        Value::String(text) => match text.split_once("/config/mcpservers/") {
            Some((_, rest)) => format!("…/{rest}").into(),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

/// An instance with a server in each of the usual states.
async fn motley() -> Sidegate {
    let instance = Sidegate::builder()
        .definition("good", &with(built_in(), "env: {API_KEY: s3cret, TZ: UTC}"))
        .definition("gone", &definitions::remote("http://127.0.0.1:1/mcp?key=s3cret"))
        .definition("resting", &with(built_in(), "suspended: true"))
        .definition("wrong", &definitions::spec("{type: stdio, comand: x}"))
        .definition("Not A Name", &built_in())
        .wait_for_servers()
        .start()
        .await;
    eventually("the next try", async || {
        let status = json_of(&instance, &["status"]).await;
        status["servers"][0]["retryInSeconds"].is_number().then_some(())
    })
    .await;
    instance
}

#[tokio::test]
async fn status_says_where_everything_stands() {
    let instance = motley().await;
    let text = run(&instance, &["status"]).await;
    insta::assert_snapshot!("status", stable(&shown(&text), &instance));
    insta::assert_json_snapshot!("status_json", steady(&json_of(&instance, &["status"]).await));
    let widest = stdout(&text).lines().filter(|line| line.contains("running")).map(str::len).max();
    assert!(widest.unwrap() <= 60, "{}", stdout(&text));
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn status_counts_restarts_and_remembers_the_last_reload() {
    let instance = Sidegate::builder().start().await;
    let before = json_of(&instance, &["status"]).await;
    assert_eq!((&before["gateway"]["restarts"], &before["gateway"]["swaps"]), (&json!(0), &json!(0)));
    assert!(before["gateway"]["lastReload"]["at"].is_u64(), "{before}");

    rustix::process::kill_process(instance.gateway_pid().unwrap(), rustix::process::Signal::KILL).unwrap();
    let after = eventually("the gateway is ready again", async || {
        let status = json_of(&instance, &["status"]).await;
        let ready = status["gateway"]["restarts"] == 1 && status["gateway"]["state"] == "ready";
        ready.then_some(status)
    })
    .await;
    assert_ne!(after["gateway"]["pid"], before["gateway"]["pid"]);

    assert!(run(&instance, &["gateway", "restart"]).await.status.success());
    let swapped = json_of(&instance, &["status"]).await;
    assert_eq!((&swapped["gateway"]["restarts"], &swapped["gateway"]["swaps"]), (&json!(0), &json!(1)));
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_in_the_status() {
    let instance = Sidegate::builder().definition("good", &built_in()).wait_for_servers().start().await;
    let directory = instance.config_dir().join("mcpservers");
    fs_err::rename(&directory, instance.config_dir().join("away")).unwrap();
    fs_err::write(&directory, "no directory").unwrap();
    eventually("the problem", async || {
        let status = json_of(&instance, &["status"]).await;
        let problem = status["problems"]["directory"].as_str()?.contains("cannot be read");
        (problem && status["servers"][0]["state"] == "running").then_some(())
    })
    .await;
    assert!(shown(&run(&instance, &["status"]).await).contains("Problems:\n  the directory"));

    fs_err::remove_file(&directory).unwrap();
    fs_err::rename(instance.config_dir().join("away"), &directory).unwrap();
    eventually("no problem", async || {
        let status = json_of(&instance, &["status"]).await;
        status["problems"]["directory"].is_null().then_some(())
    })
    .await;
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn servers_are_listed_and_shown() {
    let instance = motley().await;
    let mut transcript = Vec::new();
    for command in [
        &["list"][..],
        &["get", "good"],
        &["get", "gone"],
        &["get", "wrong"],
        &["get", "goood"],
        &["get", "x"],
    ] {
        let output = run(&instance, command).await;
        let text = shown(&output).replace(&binary().display().to_string(), "SIDEGATE");
        assert!(!text.contains("s3cret"), "{text}");
        transcript.push(format!("$ sidegate {}\n{}", command.join(" "), stable(&text, &instance)));
    }
    insta::assert_snapshot!("list_and_get", transcript.join("\n"));
    insta::assert_json_snapshot!("list_json", steady(&json_of(&instance, &["list"]).await));
    insta::assert_json_snapshot!("get_json", steady(&json_of(&instance, &["get", "good"]).await));
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn without_an_instance_the_files_are_listed() {
    let home = tempfile::tempdir().unwrap();
    let definitions = home.path().join(".config/sidegate/mcpservers");
    let nothing = run_at(home.path(), &["list"]).await;
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{nothing:?}");

    fs_err::create_dir_all(&definitions).unwrap();
    // A line of any length stays one line.
    let described = format!("description: what it is for, {}and again", "said again ".repeat(10));
    fs_err::write(definitions.join("good.yaml"), with(built_in(), &described)).unwrap();
    fs_err::write(definitions.join("wrong.yaml"), "kind: nonsense").unwrap();
    let mut transcript = Vec::new();
    for command in [&["list"][..], &["list", "--output", "json"], &["get", "good"], &["status"]] {
        let text = shown(&run_at(home.path(), command).await);
        let text = text
            .replace(home.path().to_str().unwrap(), "HOME")
            .replace(&binary().display().to_string(), "SIDEGATE");
        let hash = text.split("run/sidegate/").nth(1).and_then(|rest| rest.split(':').next());
        let text = hash.map_or_else(|| text.clone(), |hash| text.replace(hash, "HASH"));
        transcript.push(format!("$ sidegate {}\n{text}", command.join(" ")));
    }
    insta::assert_snapshot!("without_an_instance", transcript.join("\n"));
}

#[tokio::test]
async fn an_instance_that_was_killed_is_none() {
    let instance = Sidegate::builder().start().await;
    let runtime_dir = instance.ready.runtime_dir.clone();
    // Holds the files.
    let _ended = instance.kill().await;
    let elsewhere = runtime_dir.join("elsewhere");
    for (directory, why) in
        [(&runtime_dir, "the last one was killed"), (&elsewhere, "there is no such directory")]
    {
        for command in [&["status"][..], &["list"], &["get", "x"], &["tools"], &["call", "x"]] {
            let arguments = [command, &["--runtime-dir", directory.to_str().unwrap()]].concat();
            let output = run_at(Path::new("/nonexistent"), &arguments).await;
            assert_eq!(output.status.code(), Some(5), "{output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(why) && said.contains("hint: start one with `sidegate serve"), "{said}");
        }
    }
}

/// Two servers with tools, and one without.
async fn with_tools() -> Sidegate {
    Sidegate::builder()
        .definition("calc", &built_in())
        .definition("near", &definitions::example("everything", &[]))
        .definition("gone", &definitions::remote("http://127.0.0.1:1/mcp"))
        .wait_for_servers()
        .start()
        .await
}

#[tokio::test]
async fn tools_are_listed_described_and_called() {
    let instance = with_tools().await;
    let commands: &[&[&str]] = &[
        &["tools", "x_calc_*"],
        &["tools", "x_calc_hash"],
        &["tools", "x_calc_hsah"],
        &["tools", "x_gone_search"],
        &["tools", "calc"],
        &["tools", "x_[b-a]"],
        &["tools", "x_[", "--output", "json"],
        &["call", "x_calc_calculate", "--arg", "expression=2*(3+4)"],
        &["call", "x_calc_calculate", "--json", r#"{"expression": "1/8"}"#],
        &["call", "x_calc_calculate", "--arg", "expression=2*("],
        &["call", "x_calc_calculate", "--arg", "expression=2*(", "--output", "json"],
        &["call", "x_calc_calculate", "--arg", "expresion=1"],
        &["call", "x_calc_calculate"],
        &["call", "x_calc_random_number", "--arg", "min=one"],
        &["call", "x_calc_calculate", "--arg", "expression"],
        &["call", "x_calc_calculate", "--json", "[1]"],
        &["call", "x_calc_calculate", "--json", "{"],
        &["call", "x_calc_calculat"],
        &["call", "x_gone_search"],
        &["call", "x_near_test_simple_text", "--output", "json"],
        &["call", "x_near_test_multiple_content_types"],
        &["call", "x_near_test_error_handling"],
        &["call", "x_near_test_tool_with_progress"],
    ];
    let mut transcript = Vec::new();
    for command in commands {
        let output = run(&instance, command).await;
        transcript.push(format!("$ sidegate {}\n{}", command.join(" "), shown(&output)));
    }
    insta::assert_snapshot!("tools_and_call", transcript.join("\n"));

    let all = run(&instance, &["tools"]).await;
    assert!(stdout(&all).contains("x_near_pid") && stdout(&all).contains("x_calc_uuid"), "{all:?}");
    assert!(shown(&all).contains("Servers without tools: gone ("), "{all:?}");
    let tools = json_of(&instance, &["tools", "x_calc_h*"]).await;
    assert_eq!(tools["tools"][0]["name"], "x_calc_hash");
    assert!(tools["tools"][0]["inputSchema"]["properties"].is_object(), "{tools}");
    assert!(instance.stop().await.status.success());
}

/// A command that calls a tool which takes longer than any test.
fn endless_call(instance: &Sidegate) -> Child {
    let mut command = Command::new(binary());
    command
        .args(["call", "x_near_sleep", "--arg", "ms=600000", "--runtime-dir"])
        .arg(&instance.ready.runtime_dir)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test]
async fn a_call_ends_with_its_instance() {
    let instance = with_tools().await;
    let child = endless_call(&instance);
    eventually("the call runs", async || {
        let counts = json_of(&instance, &["call", "x_near_sleep_counts"]).await;
        (counts["structuredContent"]["running"] == 1).then_some(())
    })
    .await;
    // Holds the files.
    let _ended = instance.kill().await;
    // Its stream is not waited for as long as that of a gateway, which comes back.
    let output = within("the end of the command", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.starts_with(b"error: the instance did not answer: "), "{output:?}");
}

#[tokio::test]
async fn ctrl_c_cancels_a_call_at_its_server() {
    let instance = with_tools().await;
    let counts =
        async || json_of(&instance, &["call", "x_near_sleep_counts"]).await["structuredContent"].clone();
    let child = endless_call(&instance);
    eventually("the call runs", async || (counts().await["running"] == 1).then_some(())).await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = within("the end of the command", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: the call was cancelled\n");
    eventually("the server knows", async || (counts().await["cancelled"] == 1).then_some(())).await;
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn json_comes_from_stdin_too() {
    use tokio::io::AsyncWriteExt as _;
    let instance = with_tools().await;
    let mut command = Command::new(binary());
    command
        .args(["call", "x_calc_calculate", "--json", "-", "--runtime-dir"])
        .arg(&instance.ready.runtime_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"expression": "6*7"}"#).await.unwrap();
    let output = within("the end of the command", child.wait_with_output()).await.unwrap();
    assert_eq!(stdout(&output), "{\n  \"value\": 42.0\n}\n");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn the_token_is_sent_where_there_is_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let builder = Sidegate::builder().definition("calc", &built_in()).file("token", "0123456789abcdef\n");
    let token = builder.config_dir().parent().unwrap().join("token");
    fs_err::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!("aggregator: {{tokenFile: {:?}}}\n", token.to_str().unwrap());
    let instance = builder.config(&config).wait_for_servers().start().await;
    let output = run(&instance, &["call", "x_calc_calculate", "--arg", "expression=6*7"]).await;
    assert!(stdout(&output).contains("42"), "{output:?}");

    fs_err::write(&token, "fedcba9876543210\n").unwrap();
    let output = run(&instance, &["tools"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(shown(&output).contains("hint: its token file has changed"), "{output:?}");
    fs_err::remove_file(&token).unwrap();
    let output = run(&instance, &["tools"]).await;
    assert!(shown(&output).contains("the token file"), "{output:?}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn logs_are_shown_and_followed() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let instance = with_tools().await;
    let write = async |text: &str| {
        let argument = format!("text={text}");
        let output = run(&instance, &["call", "x_near_stderr", "--arg", &argument]).await;
        assert!(output.status.success(), "{output:?}");
    };
    write("one").await;
    write("two").await;
    eventually("both lines", async || {
        (stdout(&run(&instance, &["logs", "near"]).await) == "one\ntwo\n").then_some(())
    })
    .await;
    assert_eq!(stdout(&run(&instance, &["logs", "near", "-n", "1"]).await), "two\n");
    let all = stdout(&run(&instance, &["logs"]).await);
    assert!(all.contains("near | two\n") && all.contains("gateway | "), "{all}");
    let json = stdout(&run(&instance, &["logs", "near", "-n", "1", "--output", "json"]).await);
    assert_eq!(json, "{\"name\":\"near\",\"line\":\"two\"}\n");

    let mut command = Command::new(binary());
    command
        .args(["logs", "near", "-f", "-n", "1", "--runtime-dir"])
        .arg(&instance.ready.runtime_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut following = command.spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(within("the last line", lines.next_line()).await.unwrap().unwrap(), "two");
    write("three").await;
    assert_eq!(within("a new line", lines.next_line()).await.unwrap().unwrap(), "three");
    // As when the file is full.
    let log = instance.ready.runtime_dir.join("logs/near.log");
    fs_err::rename(&log, log.with_extension("log.old")).unwrap();
    fs_err::write(&log, "four\n").unwrap();
    assert_eq!(within("a line of the next file", lines.next_line()).await.unwrap().unwrap(), "four");
    // Whoever reads no more ends it, at the next line.
    drop(lines);
    fs_err::write(&log, "four\nfive\n").unwrap();
    assert!(within("the end of the command", following.wait()).await.unwrap().success());

    let unknown = run(&instance, &["logs", "naer"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(shown(&unknown).contains("hint: did you mean \"near\"?"), "{unknown:?}");
    let unknown = shown(&run(&instance, &["logs", "calculator"]).await);
    assert!(unknown.contains("hint: there are logs of gateway, near\n"), "{unknown}");
    let silent = run(&instance, &["logs", "calc"]).await;
    assert!(silent.status.success() && shown(&silent).contains("calc has written nothing yet"), "{silent:?}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn without_a_runtime_directory_there_are_no_logs() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let output = run_at(directory.path(), &["logs", "--runtime-dir", &at("nowhere")]).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let output = run_at(directory.path(), &["logs", "--runtime-dir", &at("")]).await;
    assert!(output.status.success() && shown(&output).contains("nothing has been logged"), "{output:?}");
    let output = run_at(directory.path(), &["logs", "../../etc/passwd", "--runtime-dir", &at("")]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn settings_are_shown_with_their_origins() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/sidegate");
    fs_err::create_dir_all(&config).unwrap();
    let text = "drain: 5s\ntelemetry: {endpoint: \"http://user:s3cret@otel:4317\"}\n";
    fs_err::write(config.join("config.yaml"), text).unwrap();
    let mut transcript = Vec::new();
    for command in
        [&["config", "show", "--listen", "127.0.0.1:0"][..], &["config", "show", "--output", "json"]]
    {
        let output = Command::new(binary())
            .args(command)
            .env_clear()
            .env("HOME", home.path())
            .env("SIDEGATE_AGGREGATOR_PREFIX", "y")
            .env("SIDEGATE_RUNTIME_DIR", "/run/here")
            .output();
        let text = shown(&within("config show", output).await.unwrap());
        assert!(!text.contains("s3cret"), "{text}");
        let text = text.replace(home.path().to_str().unwrap(), "HOME");
        transcript.push(format!("$ sidegate {}\n{text}", command.join(" ")));
    }
    insta::assert_snapshot!("config_show", transcript.join("\n"));
}

#[tokio::test]
async fn schemas_and_completions_are_printed() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, title) in [
        (&["config", "schema"][..], "config.yaml of Sidegate"),
        (&["config", "schema", "mcpserver"], "MCPServer, a definition of Sidegate"),
    ] {
        let output = run_at(home.path(), arguments).await;
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["title"], title);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run_at(home.path(), &["completions", shell]).await;
        let script = stdout(&output);
        assert!(script.contains("sidegate") && script.contains("doctor"), "{shell}: {script}");
        assert!(!script.contains("__guard"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn the_instance_of_another_directory_is_named() {
    let instance = Sidegate::builder().start().await;
    // Beside that one, as those of two configuration directories are.
    let beside = instance.ready.runtime_dir.with_file_name("another");
    let output =
        run_at(Path::new("/nonexistent"), &["status", "--runtime-dir", beside.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let hint = format!(
        "hint: one runs in {0}: name it with --runtime-dir {0}\n",
        instance.ready.runtime_dir.display()
    );
    assert!(shown(&output).contains(&hint), "{output:?}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn a_server_with_a_similar_name_is_proposed() {
    let instance = Sidegate::builder().definition("calc", &built_in()).wait_for_servers().start().await;
    for (name, hint) in [("clac", "hint: did you mean \"calc\"?"), ("xyz", "hint: see `sidegate list`")] {
        let output = run(&instance, &["stop", name]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(shown(&output).contains(hint), "{output:?}");
    }
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn files_directories_and_names_are_validated() {
    let home = tempfile::tempdir().unwrap();
    let definitions = home.path().join(".config/sidegate/mcpservers");
    fs_err::create_dir_all(&definitions).unwrap();
    fs_err::write(definitions.join("good.yaml"), built_in()).unwrap();
    fs_err::write(definitions.join("wrong.yaml"), "kind: nonsense").unwrap();
    let directory = definitions.to_str().unwrap();
    for (argument, code, said) in [
        ("good", 0, "good.yaml: valid"),
        ("wrong", 3, "wrong.yaml:1:7: kind: unknown value"),
        (directory, 3, "good.yaml: valid"),
        ("missing", 3, "missing: the file does not exist"),
        (home.path().to_str().unwrap(), 0, "no definitions in"),
    ] {
        let output = run_at(home.path(), &["validate", argument]).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(shown(&output).contains(said), "{argument}: {output:?}");
    }
}
