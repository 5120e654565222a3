//! `sidegate connect`: what other clients are told, and their files.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::Sidegate;
use super::support::sidegate::binary;

/// A home directory, and a project in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs_err::create_dir(home.path("project")).unwrap();
        home
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs_err::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs_err::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    fn connect(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("connect").args(arguments).env_clear().env("HOME", self.0.path());
        command.env("XDG_RUNTIME_DIR", self.path("run")).current_dir(self.path("project")).output().unwrap()
    }

    /// What a command prints that has to succeed.
    fn done(&self, arguments: &[&str]) -> Value {
        let output = self.connect(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a command says that has to fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.connect(arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        self.shown(&output.stderr)
    }

    fn shown(&self, text: &[u8]) -> String {
        let text = String::from_utf8(text.to_vec()).unwrap();
        text.replace(self.0.path().to_str().unwrap(), "HOME").replace(binary().to_str().unwrap(), "SIDEGATE")
    }
}

const CLIENTS: &[&str] =
    &["claude", "claude-desktop", "cursor", "vscode", "codex", "gemini", "windsurf", "zed"];

#[test]
fn every_client_is_told_in_its_own_words() {
    let home = Home::new();
    let mut shown = String::new();
    for client in CLIENTS {
        for arguments in [&[*client][..], &[client, "--stdio"], &[client, "--scope", "project"]] {
            let output = home.connect(arguments);
            let (stdout, stderr) = (home.shown(&output.stdout), home.shown(&output.stderr));
            shown.push_str(&format!("$ sidegate connect {}\n{stderr}{stdout}\n", arguments.join(" ")));
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn what_is_written_is_what_is_shown_and_stays() {
    let home = Home::new();
    for client in CLIENTS {
        let first = home.done(&[client, "--write"]);
        assert_eq!((&first["result"], &first["backup"]), (&json!("written"), &Value::Null), "{client}");
        let file = first["file"].as_str().unwrap();
        let text = fs_err::read_to_string(file).unwrap();
        let written: Value = match file.ends_with(".toml") {
            true => {
                json!({"mcp_servers": {"sidegate": {"url": text.lines().nth(1).unwrap().split('"').nth(1)}}})
            }
            false => serde_json::from_str(&text).unwrap(),
        };
        assert_eq!(written[first["section"].as_str().unwrap()]["sidegate"], first["entry"], "{text}");
        assert_eq!(home.done(&[client, "--write"])["result"], "unchanged");
        assert_eq!(fs_err::read_to_string(file).unwrap(), text);
    }
    // Another way takes its place, and the file is kept each time.
    let other = home.done(&["cursor", "--write", "--stdio"]);
    assert_eq!(other["entry"]["args"], json!(["stdio"]));
    assert!(Path::new(other["backup"].as_str().unwrap()).exists());
}

#[test]
fn the_rest_of_a_file_stays_as_it_is() {
    let home = Home::new();
    let settings = "// mine\n{\n  \"theme\": \"dark\", // at night\n  \"context_servers\": {\n    /* old */\n    \"other\": {\"url\": \"http://h\"},\n  },\n}\n";
    home.write(".config/zed/settings.json", settings);
    assert_eq!(home.done(&["zed", "--write"])["backup"], json!(home.path(".config/zed/settings.json.bak")));
    insta::assert_snapshot!(home.read(".config/zed/settings.json"), @r#"
    // mine
    {
      "theme": "dark", // at night
      "context_servers": {
        /* old */
        "other": {"url": "http://h"},
        "sidegate": {
          "url": "http://127.0.0.1:8090/mcp"
        }
      },
    }
    "#);
    assert_eq!(home.read(".config/zed/settings.json.bak"), settings);

    let settings = "# mine\nmodel = \"o\"  # at night\n\n[mcp_servers.other]\nurl = \"http://h\"\n\n# last\n[tools]\nweb = true\n";
    home.write(".codex/config.toml", settings);
    assert_eq!(home.done(&["codex", "--write"])["backup"], json!(home.path(".codex/config.toml.bak")));
    let added = "\n[mcp_servers.sidegate]\nurl = \"http://127.0.0.1:8090/mcp\"\n";
    assert_eq!(home.read(".codex/config.toml").replacen(added, "", 1), settings);
    assert_eq!(home.read(".codex/config.toml.bak"), settings);
    home.write("project/.codex/config.toml", "a = 1\n[mcp_servers\n");

    home.write("project/.vscode/mcp.json", "{\"servers\": {\"sidegate\": {\"url\": \"x\" // why\n}}}");
    home.write(".cursor/mcp.json", "{\"mcpServers\": {");
    home.write(".gemini/settings.json", "{\"mcpServers\": []}");
    fs_err::create_dir_all(home.path(".codeium/windsurf/mcp_config.json")).unwrap();
    let refused = [
        &["vscode", "--write", "--scope", "project"][..],
        &["cursor", "--write"],
        &["gemini", "--write"],
        &["windsurf", "--write"],
        &["codex", "--write", "--scope", "project"],
        &["windsurf", "--scope", "project"],
        &["claude", "--name", "a b"],
    ];
    let refused: Vec<String> = refused.iter().map(|arguments| home.refused(arguments)).collect();
    insta::assert_snapshot!(refused.join("\n"));
    assert_eq!(home.read(".cursor/mcp.json"), "{\"mcpServers\": {");
}

#[tokio::test]
async fn the_instance_that_runs_is_what_clients_are_told_of() {
    let home = Home::new();
    let token = home.path("token");
    home.write("token", "0123456789abcdef\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs_err::set_permissions(&token, mode).unwrap();
    let instance = Sidegate::builder().env("SIDEGATE_AGGREGATOR_TOKEN_FILE", &token).start().await;
    let runtime_dir = instance.ready.runtime_dir.to_str().unwrap();
    let told = home.done(&["vscode", "--runtime-dir", runtime_dir]);
    assert_eq!(
        told["entry"],
        json!({"type": "http", "url": instance.url(), "headers": {"Authorization": "Bearer 0123456789abcdef"}})
    );
    let refused = home.refused(&["vscode", "--runtime-dir", runtime_dir, "--scope", "project"]);
    assert!(refused.contains("a token does not belong") && refused.contains("--stdio"), "{refused}");
    let told = home.done(&["vscode", "--runtime-dir", runtime_dir, "--scope", "project", "--stdio"]);
    assert!(!told.to_string().contains("0123456789abcdef"));
    instance.stop().await;
}
