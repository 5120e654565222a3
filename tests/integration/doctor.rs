//! `sidegate doctor`: what it finds, and what it says to do about it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::definitions::{self, built_in, remote, spec, with};
use super::support::sidegate::{Builder, Ended};
use super::support::{Sidegate, Upstream};

async fn doctor(builder: Builder, more: &[&str]) -> Ended {
    let config_dir = builder.config_dir();
    let arguments = [&["doctor", "--config-dir", config_dir.to_str().unwrap()], more].concat();
    builder.command(&arguments).await
}

/// The findings of a level about a subject, each as `message; advice`.
fn findings(report: &Value, level: &str, subject: &str) -> Vec<String> {
    let of_both = |finding: &&Value| finding["level"] == level && finding["subject"] == subject;
    let found = report["findings"].as_array().unwrap().iter().filter(of_both);
    let line = |finding: &Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{}; {}", text("message"), text("advice"))
    };
    found.map(line).collect()
}

/// A server that says this to everybody.
async fn says(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp?key=s3cret", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                // Whoever only connects says nothing.
                if stream.read(&mut request).await.is_ok_and(|size| size > 0) {
                    let head = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_healthy_instance_has_no_problem() {
    let upstream = Upstream::everything(&[]).await;
    let instance = Sidegate::builder()
        .definition("calc", &built_in())
        .definition("far", &remote(&upstream.url))
        .wait_for_servers()
        .start()
        .await;
    let runtime_dir = instance.ready.runtime_dir.to_str().unwrap();
    let files = Sidegate::builder()
        .definition("calc", &built_in())
        .definition("far", &remote(&upstream.url))
        .config("gateway: {mode: embedded}\n");
    let port = url::Url::parse(instance.url()).unwrap().port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let ended = doctor(files, &["--runtime-dir", runtime_dir, "--listen", &listen, "--output", "json"]).await;
    assert!(ended.status.success(), "{}", ended.stdout);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["problems"], &report["warnings"]), (&0.into(), &0.into()), "{report:#}");
    let ours = findings(&report, "ok", "listen");
    assert_eq!(ours, [format!("{listen} is the running instance's; ")]);
    assert!(findings(&report, "ok", "gateway")[0].contains("is ready"), "{report:#}");
    assert!(findings(&report, "ok", "server far")[0].ends_with("answers; "), "{report:#}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn every_problem_is_found_and_no_secret_is_shown() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let moved = says("308 Permanent Redirect\r\nlocation: http://elsewhere.example/mcp?key=s3cret").await;
    let builder = Sidegate::builder()
        .definition("here", &with(built_in(), "env: {PASSWORD: s3cret}"))
        .definition("missing", &definitions::stdio("no-such-command", &["--token", "s3cret"]))
        .definition("asleep", &with(definitions::stdio("no-such-command", &[]), "suspended: true"))
        .definition("nowhere", &with(definitions::stdio("true", &[]), "cwd: no/such/directory"))
        .definition("gone", &remote("http://127.0.0.1:1/mcp?key=s3cret"))
        .definition("locked", &with(remote(&says("401 Unauthorized").await), "headers: {X-Key: s3cret}"))
        .definition("moved", &remote(&moved))
        .definition("lost", &remote(&says("404 Not Found").await))
        .definition("other", &remote(&says("200 OK\r\ncontent-type: text/html").await))
        .definition("broken", &remote(&says("500 Oops").await))
        .definition("wrong", &spec("{type: stdio, comand: x, timeout: soon}"))
        .file("token", "s3cret")
        .env("GITHUB_TOKEN", "s3cret")
        .env("XDG_CACHE_HOME", "relative");
    let token = builder.config_dir().parent().unwrap().join("token");
    let config = format!(
        "listen: {listen}\naggregator: {{tokenFile: {:?}}}\ngateway: {{mode: agentgateway}}\n",
        token.to_str().unwrap()
    );
    let builder = builder.config(&config);
    for (directory, mode) in [("", 0o777), ("mcpservers", 0o775)] {
        let directory = builder.config_dir().join(directory);
        fs_err::set_permissions(directory, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    fs_err::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let killed = builder.config_dir().parent().unwrap().join("run/sidegate/killed");
    fs_err::create_dir_all(&killed).unwrap();
    drop(std::os::unix::net::UnixListener::bind(killed.join("control.sock")).unwrap());
    let directory = builder.config_dir().parent().unwrap().to_owned();
    let ended = doctor(builder.clone(), &["--offline"]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(!ended.stdout.contains("s3cret") && !ended.stderr.contains("s3cret"), "{}", ended.stdout);
    insta::assert_snapshot!("doctor", steady(&ended.stdout, &directory));

    let json = doctor(builder, &["--offline", "--output", "json"]).await;
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let count = |level: &str| {
        report["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == level).count()
    };
    assert_eq!(report["problems"], count("problem"));
    assert_eq!(report["warnings"], count("warning"));
    assert_eq!(findings(&report, "problem", "definitions").len(), 2, "{report:#}");
    drop(taken);
}

/// Without what differs from run to run: directories, ports, processes and platforms.
fn steady(text: &str, directory: &Path) -> String {
    let text = text.replace(directory.to_str().unwrap(), "DIR");
    let mut steady = String::new();
    for line in text.lines() {
        let line = match line.split_once(" was not found on PATH (") {
            Some((before, _)) => format!("{before} was not found on PATH (…)"),
            None => match line.split_once(" by pid ") {
                Some((before, _)) => format!("{before} by pid …"),
                None => line.to_owned(),
            },
        };
        let mut line = line.replace("linux-amd64", "PLATFORM").replace("linux-arm64", "PLATFORM");
        for host in ["127.0.0.1:"] {
            let mut parts = line.split(host);
            let mut out = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                out.push_str(host);
                out.push_str("PORT");
                out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
            }
            line = out;
        }
        if let Some((before, hash)) = line.split_once("DIR/run/sidegate/")
            && !hash.starts_with("killed")
        {
            line = format!(
                "{before}DIR/run/sidegate/HASH{}",
                hash.trim_start_matches(|c: char| c.is_ascii_hexdigit())
            );
        }
        steady.push_str(
            line.replace(super::support::sidegate::binary().to_str().unwrap(), "SIDEGATE").as_str(),
        );
        steady.push('\n');
    }
    steady
}

#[tokio::test]
async fn wrong_settings_are_findings() {
    let builder = Sidegate::builder().config("listen: nowhere\ngatway: {}\n");
    let ended = doctor(builder, &["--output", "json"]).await;
    assert_eq!(ended.status.code(), Some(1));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let wrong = findings(&report, "problem", "settings");
    assert!(
        wrong[0].contains("config.yaml:1:9: listen") && wrong[1].contains("did you mean \"gateway\""),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_restarts_is_noticed() {
    let instance = Sidegate::builder().start().await;
    rustix::process::kill_process(instance.gateway_pid().unwrap(), rustix::process::Signal::KILL).unwrap();
    let runtime_dir = instance.ready.runtime_dir.to_str().unwrap();
    super::support::eventually("the restart", async || {
        let ended =
            doctor(Sidegate::builder(), &["--runtime-dir", runtime_dir, "--listen", "127.0.0.1:0"]).await;
        ended.stdout.contains("warning  gateway: it had to be started again 1 time").then_some(())
    })
    .await;
    assert!(instance.stop().await.status.success());
}
