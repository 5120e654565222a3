use rstest::rstest;

use super::*;

const HOME: &str = "/home/user";

fn read_as(path: &str, text: &str) -> Import {
    read(Path::new(path), Some(Path::new(HOME)), text).unwrap()
}

/// What was made of a file, for people.
fn report(path: &str, text: &str) -> String {
    let import = read_as(path, text);
    let mut report = format!("{}\n", import.client);
    for server in import.servers {
        match server.outcome {
            Ok((name, spec)) => report.push_str(&format!("{}: {name} {spec}\n", server.original)),
            Err(why) => report.push_str(&format!("{}: refused: {why}\n", server.original)),
        }
        server.notes.attention.iter().for_each(|note| report.push_str(&format!("  ! {note}\n")));
        server.notes.information.iter().for_each(|note| report.push_str(&format!("  - {note}\n")));
    }
    report
}

#[test]
fn claude_code() {
    let text = r#"{
      "mcpServers": {
        "filesystem": {"command": "npx", "args": ["-y", "server-filesystem", "."], "env": {"KEY": "${KEY}", "DIR": "${DIR:-/tmp}", "PRICE": "$5"}},
        "Git Hub": {"type": "http", "url": "${BASE:-https://api.example.com}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}", "Accept": "application/json"}},
        "git_hub": {"type": "http", "url": "https://other.example.com/mcp"},
        "old": {"type": "sse", "url": "https://example.com/sse", "oauth": {"clientId": "x"}, "headersHelper": "./helper"},
        "socket": {"type": "ws", "url": "wss://example.com"},
        "nested": {"command": "x", "args": ["${A:-${B}}"]},
        "empty": {},
        "text": "x",
        "日本": {"command": "x"}
      }
    }"#;
    insta::assert_snapshot!(report("/src/app/.mcp.json", text));
}

#[test]
fn claude_desktop() {
    let text = r#"{"globalShortcut": "x", "mcpServers": {
      "time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"A": "${B}"}},
      "off": {"command": "x", "disabled": true, "autoApprove": ["a"], "timeout": 60, "cwd": "sub"}
    }}"#;
    insta::assert_snapshot!(report("/home/user/.config/Claude/claude_desktop_config.json", text));
}

#[test]
fn vs_code() {
    let text = r#"{
      // asked for once
      "inputs": [{"type": "promptString", "id": "api-key", "description": "API key", "password": true}],
      "servers": {
        "perplexity": {"type": "stdio", "command": "npx", "args": ["-y", "x", "${workspaceFolder}/data"], "env": {"KEY": "${input:api-key}", "NULL": null, "PORT": 80}},
        "env-file": {"command": "x", "envFile": "${workspaceFolder}/.env", "cwd": "tools", "dev": {"watch": "*"}},
        "remote": {"url": "https://example.com/mcp", "headers": {"X": "${env:X}"}}, /* no type */
        "events": {"url": "https://example.com/sse/?a"},
        "command": {"command": "${command:x.y}"},
      },
    }"#;
    insta::assert_snapshot!(report("/src/app/.vscode/mcp.json", text));
}

#[test]
fn vs_code_of_the_user() {
    let text = r#"{"editor.fontSize": 12, "mcp": {"inputs": [], "servers": {
      "home": {"command": "${userHome}/bin/x"}, "project": {"command": "x", "args": ["${workspaceFolder}"]}
    }}}"#;
    insta::assert_snapshot!(report("/home/user/.config/Code/User/settings.json", text));
}

#[test]
fn cursor() {
    let text = r#"{"mcpServers": {
      "a": {"command": "${workspaceFolder}/a", "env": {"K": "${env:K}"}},
      "b": {"url": "http://localhost:3000/sse", "auth": {"CLIENT_ID": "x"}}
    }}"#;
    insta::assert_snapshot!(format!(
        "{}\n{}",
        report("/src/app/.cursor/mcp.json", text),
        report("/home/user/.cursor/mcp.json", text)
    ));
}

#[rstest]
#[case("/a/.mcp.json", "{\"mcpServers\": {}}", Client::ClaudeCode)]
#[case("/a/claude_desktop_config.json", "{\"mcpServers\": {}}", Client::ClaudeDesktop)]
#[case("/a/.cursor/mcp.json", "{\"mcpServers\": {}}", Client::Cursor)]
#[case("/a/mcp.json", "{\"mcpServers\": {}}", Client::ClaudeCode)]
#[case("/a/mcp.json", "{\"mcpServers\": {\"a\": {\"command\": \"${env:A}\"}}}", Client::Cursor)]
#[case("/a/mcp.json", "{\"servers\": {}}", Client::VsCode)]
#[case("/a/settings.json", "{\"mcp\": {\"servers\": {}}}", Client::VsCode)]
fn files_show_whose_they_are(#[case] path: &str, #[case] text: &str, #[case] expected: Client) {
    assert_eq!(read_as(path, text).client, expected);
}

#[rstest]
#[case("")]
#[case("[]")]
#[case("{\"mcpServers\": []}")]
#[case("{\"a\": 1}")]
#[case("{\"mcp\": 5}")]
#[case("{\"mcpServers\": {")]
fn files_without_servers_are_errors(#[case] text: &str) {
    assert!(read(Path::new("/a/.mcp.json"), None, text).is_err());
}

#[rstest]
#[case("time", Ok("time"))]
#[case("My Server", Ok("my-server"))]
#[case("@scope/name", Ok("scope-name"))]
#[case("../../etc/passwd", Ok("etc-passwd"))]
#[case("a__b--c", Ok("a-b-c"))]
#[case("-a-", Ok("a"))]
#[case("é", Err(()))]
#[case("", Err(()))]
fn names_become_labels(#[case] original: &str, #[case] expected: Result<&str, ()>) {
    let name = name_for(original);
    assert_eq!(name.as_ref().map(ServerName::as_str).map_err(|_| ()), expected);
    assert_eq!(name_for(&"x-".repeat(100)).unwrap().as_str().len(), 63);
}

#[test]
fn no_reason_and_no_note_shows_a_secret() {
    let secret = "hunter22";
    let text = serde_json::json!({"servers": {
        "a": {"command": "x", "env": {"K": [secret]}},
        "b": {"url": "http://h", "headers": {"A": {secret: 1}, "Accept": secret}},
        "c": {"command": ["x", secret]},
        "d": {"command": "x", "apiKey": secret, "envFile": secret},
    }});
    let import = read_as("/a/mcp.json", &text.to_string());
    assert!(import.servers.iter().any(|server| server.outcome.is_ok()));
    let debug = format!("{import:?}");
    assert!(!debug.contains(secret), "{debug}");
}
