//! `scripts/refresh-pins` and `scripts/verify-pins` against a local server.

use std::process::{Command, Output, Stdio};

use super::release_server::{ReleaseServer, Reply, Seen, status, whole};
use super::*;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/binary_resolver/pins.rs");

fn digest_file(content: &str) -> Reply {
    whole(content.as_bytes())
}

/// A table of pins of its own, and a script run on it.
struct Table {
    temp: TempDir,
}

impl Table {
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn new() -> Option<Self> {
        let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
        if !python.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: the scripts need python3");
            return None;
        }
        let table = Self { temp: tempfile::tempdir().unwrap() };
        std::fs::copy(TABLE, table.path()).unwrap();
        Some(table)
    }

    fn path(&self) -> PathBuf {
        self.temp.path().join("pins.rs")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    async fn run(&self, script: &str, server: &ReleaseServer, arguments: &[&str]) -> Output {
        let mut command = Command::new(format!("{}/scripts/{script}", env!("CARGO_MANIFEST_DIR")));
        command.args(["--base", &server.url(), "--table"]).arg(self.path()).args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn two_platforms(seen: &Seen) -> Reply {
    match seen.path.as_str() {
        "/v1.3.0/agentgateway-linux-amd64.sha256" => {
            digest_file(&format!("{}  outputs/agentgateway-linux-amd64\n", "ab".repeat(32)))
        }
        "/v1.3.0/agentgateway-darwin-arm64.sha256" => digest_file(&"cd".repeat(32)),
        _ => status(404),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_added_in_its_place() {
    let Some(table) = Table::new() else { return };
    let server = ReleaseServer::start(two_platforms).await;
    let before = table.text();
    let output = table.run("refresh-pins", &server, &["1.3.0"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = format!(
        "    pin((1, 3, 0), Platform::LinuxAmd64, \"{}\"),\n    pin((1, 3, 0), Platform::DarwinArm64, \"{}\"),\n",
        "ab".repeat(32),
        "cd".repeat(32)
    );
    let next = "    pin((1, 4, 1), Platform::LinuxAmd64";
    assert_eq!(table.text(), before.replacen(next, &format!("{lines}{next}"), 1));

    // Again changes nothing.
    let again = table.run("refresh-pins", &server, &["v1.3.0"]).await;
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(table.text().matches("(1, 3, 0)").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_digest_that_changed_is_an_alarm() {
    let Some(table) = Table::new() else { return };
    let server = ReleaseServer::start(|seen| match seen.path.as_str() {
        "/v1.2.1/agentgateway-linux-amd64.sha256" => digest_file(&"ab".repeat(32)),
        _ => status(404),
    })
    .await;
    let before = table.text();
    let output = table.run("refresh-pins", &server, &["1.2.1"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("90f549c7"), "{}", stderr(&output));
    assert_eq!(table.text(), before);

    let output = table.run("refresh-pins", &server, &["1.2.1", "--replace"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(table.text().contains(&"ab".repeat(32)));
    assert!(table.text().contains("bbdf5ac36d531df6e1f3b54b8b6232e240883392e369f405ee5cca951d8c1a82"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_digest_or_not_there_is_not_written() {
    for answer in [Some("<html>not found</html>"), Some(""), None] {
        let Some(table) = Table::new() else { return };
        let server = ReleaseServer::start(move |_| answer.map_or_else(|| status(404), digest_file)).await;
        let before = table.text();
        let output = table.run("refresh-pins", &server, &["1.3.0"]).await;
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert_eq!(table.text(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_are_verified_by_downloading() {
    let Some(table) = Table::new() else { return };
    let good = content(60);
    let text = table.text().replace(
        "daca5cda76e8c5ab0c1a75912fecf2d6365095403f810db72029c49d14a37e7b",
        &sha256(&good).to_string(),
    );
    std::fs::write(table.path(), text).unwrap();
    let server = ReleaseServer::start(move |seen| match seen.path.as_str() {
        "/v1.5.0/agentgateway-linux-amd64" => whole(&good),
        "/v1.4.1/agentgateway-linux-amd64" => whole(b"something else"),
        _ => status(404),
    })
    .await;
    let output = table.run("verify-pins", &server, &["1.5.0"]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let output = table.run("verify-pins", &server, &["1.4.1"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&sha256(b"something else").to_string()) && text.contains("20f7b298"), "{text}");
    let output = table.run("verify-pins", &server, &["9.9.9"]).await;
    assert_eq!(output.status.code(), Some(1));
}
