//! How files come to be written, and how much of it is noticed.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, remote, spec, with};
use super::support::mcp_client::Http;
use super::support::watched::Watched;
use super::support::{McpClient, Sidegate, Upstream, eventually, within};

fn directory(sidegate: &Sidegate) -> PathBuf {
    sidegate.config_dir().join("mcpservers")
}

/// A server whose tools are called after this prefix.
fn server(prefix: &str) -> String {
    with(example("everything", &[]), &format!("toolPrefix: {prefix}"))
}

/// Waits for the one message of one change, after which all tools begin like this.
async fn renamed_to(watched: &mut Watched, prefix: &str) {
    let names = watched.changed().await;
    let begin = format!("x_{prefix}_");
    assert!(names.len() == 24 && names.iter().all(|name| name.starts_with(&begin)), "{names:?}");
}

#[tokio::test]
async fn however_an_editor_writes_it_is_one_change_of_one_server() {
    let mut watched = Watched::start(Sidegate::builder().definition("near", &server("first"))).await;
    let pid = watched.pid("first").await;
    let file = directory(&watched.sidegate).join("near.yaml");
    let beside = |name: &str| file.with_file_name(name);

    // In place: empty for a moment, then bit by bit.
    let text = server("truncated");
    let mut open = fs_err::OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    for piece in text.as_bytes().chunks(text.len() / 5) {
        open.write_all(piece).unwrap();
        tokio::task::yield_now().await;
    }
    drop(open);
    renamed_to(&mut watched, "truncated").await;

    // vim: a probe, the old file moved aside, the new one written in its place, the old one removed.
    fs_err::write(beside("4913"), "").unwrap();
    fs_err::remove_file(beside("4913")).unwrap();
    fs_err::rename(&file, beside("near.yaml~")).unwrap();
    fs_err::write(&file, server("vim")).unwrap();
    fs_err::remove_file(beside("near.yaml~")).unwrap();
    renamed_to(&mut watched, "vim").await;

    // emacs: a lock that leads nowhere, a backup that is a copy, the file written over.
    symlink("user@host.1:2", beside(".#near.yaml")).unwrap();
    fs_err::write(beside("#near.yaml#"), "half").unwrap();
    fs_err::copy(&file, beside("near.yaml~")).unwrap();
    fs_err::write(&file, server("emacs")).unwrap();
    fs_err::remove_file(beside("#near.yaml#")).unwrap();
    fs_err::remove_file(beside(".#near.yaml")).unwrap();
    renamed_to(&mut watched, "emacs").await;

    // Most others: a new file, renamed into place.
    fs_err::write(beside(".near.yaml.swp"), server("renamed")).unwrap();
    fs_err::rename(beside(".near.yaml.swp"), &file).unwrap();
    renamed_to(&mut watched, "renamed").await;

    assert_eq!(watched.pid("renamed").await, pid, "it was started again");
    watched.nothing_more().await;
}

#[tokio::test]
async fn the_next_generation_of_a_config_map_is_read() {
    let builder = Sidegate::builder();
    let at = |name: &str| builder.config_dir().join("mcpservers").join(name);
    let generation = |name: &str, text: &str| {
        fs_err::create_dir(at(name)).unwrap();
        fs_err::write(at(name).join("near.yaml"), text).unwrap();
    };
    generation("..2025_01", &server("first"));
    symlink("..2025_01", at("..data")).unwrap();
    symlink("..data/near.yaml", at("near.yaml")).unwrap();
    let mut watched = Watched::start(builder.clone()).await;
    let pid = watched.pid("first").await;

    generation("..2025_02", &server("second"));
    symlink("..2025_02", at("..data_tmp")).unwrap();
    fs_err::rename(at("..data_tmp"), at("..data")).unwrap();
    fs_err::remove_dir_all(at("..2025_01")).unwrap();
    renamed_to(&mut watched, "second").await;
    assert_eq!(watched.pid("second").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_directory_behind_a_link_can_be_exchanged() {
    let builder = Sidegate::builder();
    let config = builder.config_dir();
    let generation = |name: &str, text: &str| {
        fs_err::create_dir(config.join(name)).unwrap();
        fs_err::write(config.join(name).join("near.yaml"), text).unwrap();
    };
    fs_err::remove_dir(config.join("mcpservers")).unwrap();
    generation("one", &server("first"));
    symlink("one", config.join("mcpservers")).unwrap();
    let mut watched = Watched::start(builder.clone()).await;
    let pid = watched.pid("first").await;

    generation("two", &server("second"));
    symlink("two", config.join("next")).unwrap();
    fs_err::rename(config.join("next"), config.join("mcpservers")).unwrap();
    renamed_to(&mut watched, "second").await;
    fs_err::write(config.join("two/near.yaml"), server("third")).unwrap();
    renamed_to(&mut watched, "third").await;
    assert_eq!(watched.pid("third").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn two_hundred_edits_end_with_the_last_one() {
    let colour = |value: &str| with(example("everything", &[]), &format!("env: {{COLOUR: '{value}'}}"));
    let builder = Sidegate::builder()
        .definition("near", &colour("none"))
        .definition("other", &example("everything", &[]));
    let watched = Watched::start(builder).await;
    let other = watched.pid("other").await;

    // As fast as a person with a key stuck, or a script: they are not waited for.
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for number in 1..=200 {
        pace.tick().await;
        watched.sidegate.write_definition("near", &colour(&number.to_string()));
        if number % 20 == 0 {
            assert_eq!(watched.pid("other").await, other);
        }
    }
    eventually("the last value", async || {
        let answer = watched.client.call("x_near_env", json!({"name": "COLOUR"})).await;
        answer.raw().contains(r#""value":"200""#).then_some(())
    })
    .await;
    assert_eq!(watched.pid("other").await, other);
    eventually("the end of the others", async || {
        (watched.sidegate.processes_of("everything").len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_comes_back_at_once_is_the_same_server() {
    let watched = Watched::start(Sidegate::builder().definition("near", &server("near"))).await;
    for round in 0..5 {
        watched.sidegate.remove_definition("near");
        watched.sidegate.write_definition("near", &server(&format!("near-{round}")));
    }
    eventually("the last version", async || {
        let names = watched.client.tool_names().await;
        (names.len() == 24 && names.iter().all(|name| name.starts_with("x_near-4_"))).then_some(())
    })
    .await;
    eventually("one process", async || {
        (watched.sidegate.processes_of("everything").len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_renamed_is_another_server() {
    let watched = Watched::start(Sidegate::builder().definition("near", &example("everything", &[]))).await;
    let pid = watched.pid("near").await;
    let file = directory(&watched.sidegate).join("near.yaml");
    fs_err::rename(&file, file.with_file_name("other.yaml")).unwrap();
    let names = eventually("the new names", async || {
        let names = watched.client.tool_names().await;
        names.iter().any(|name| name.starts_with("x_other_")).then_some(names)
    })
    .await;
    assert_eq!(names.len(), 24, "{names:?}");
    assert_ne!(watched.pid("other").await, pid);
}

/// Nine lists of nine aliases each: 9^9 values.
fn bomb() -> String {
    let mut text = "a0: &a0 lol\n".to_owned();
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    text
}

#[rstest]
#[case::large(format!("# {}\n{}", "x".repeat(10_000_000), built_in()), "bytes large; at most 1024 KiB are read")]
#[case::unfolds(bomb(), "unfolds to more than")]
#[tokio::test]
async fn a_file_that_is_too_much_is_refused(#[case] text: String, #[case] why: &str) {
    let builder = Sidegate::builder().definition("near", &server("near")).definition("huge", &text);
    let mut watched = Watched::start(builder).await;
    let pid = watched.pid("near").await;
    let line = |stderr: &str| stderr.lines().any(|line| line.contains(why) && line.contains("huge.yaml"));
    assert!(line(&watched.sidegate.stderr()), "{}", watched.sidegate.stderr());

    // And where a server runs, it goes on.
    watched.sidegate.write_definition("near", &text);
    watched.sidegate.wait_for_stderr("the last good definition stays in use").await;
    assert_eq!(watched.pid("near").await, pid);
    watched.sidegate.write_definition("near", &server("mended"));
    renamed_to(&mut watched, "mended").await;
    assert_eq!(watched.pid("mended").await, pid);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_changes_nothing() {
    let mut watched = Watched::start(Sidegate::builder().definition("near", &server("near"))).await;
    let pid = watched.pid("near").await;
    let file = directory(&watched.sidegate).join("near.yaml");
    // Whoever runs this may read everything, so it is no file at all.
    fs_err::rename(&file, file.with_extension("aside")).unwrap();
    fs_err::create_dir(&file).unwrap();
    watched.sidegate.wait_for_stderr("the last good definition stays in use").await;
    assert_eq!(watched.pid("near").await, pid);
    fs_err::remove_dir(&file).unwrap();
    watched.sidegate.write_definition("near", &server("back"));
    renamed_to(&mut watched, "back").await;
    assert_eq!(watched.pid("back").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_thousand_files_are_read_at_start() {
    let far = Upstream::everything(&[]).await;
    let mut builder = Sidegate::builder();
    for number in 0..1000 {
        let text = match number % 100 {
            0 => remote(&far.url),
            1 => spec("{type: stdio}"),
            _ => with(remote(&far.url), "suspended: true"),
        };
        builder = builder.definition(&format!("s{number}"), &text);
    }
    let sidegate = builder.wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await.len(), 10 * 24);
    let http = Http::new(&sidegate.url().replace("/mcp", "/readyz"));
    assert_eq!(http.send(Method::GET, "", &[]).await.status(), StatusCode::OK);

    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command
        .args(["status", "--output", "json", "--runtime-dir"])
        .arg(&sidegate.ready.runtime_dir)
        .env_clear();
    let output = within("the status", command.output()).await.unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |state: &str| {
        status["servers"].as_array().unwrap().iter().filter(|server| server["state"] == state).count()
    };
    assert_eq!((count("connected"), count("invalid"), count("disconnected")), (10, 10, 980));
    sidegate.write_definition("late", &remote(&far.url));
    eventually("the new server", async || (client.tool_names().await.len() == 11 * 24).then_some(())).await;
}
