//! `add`, `remove` and `import`: what they write, what they refuse, and what a running instance makes of it.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::sidegate::binary;
use super::support::{McpClient, Sidegate, eventually};

/// A home with nothing in it.
struct Home(TempDir);

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn definitions(&self) -> PathBuf {
        self.path(".config/sidegate/mcpservers")
    }

    fn definition(&self, file: &str) -> String {
        let text = fs_err::read_to_string(self.definitions().join(file)).unwrap();
        text.replace(self.0.path().to_str().unwrap(), "HOME")
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs_err::read_dir(self.definitions()) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.0.path())
            .env("SET", "1")
            .current_dir(self.0.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.ended(self.command(binary()).args(arguments).output().unwrap())
    }

    fn ended(&self, output: Output) -> Ran {
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(self.0.path().to_str().unwrap(), "HOME")
        };
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn shown(ran: &Ran) -> String {
    format!("{}{}(exit {})", ran.stdout, ran.stderr, ran.code.unwrap())
}

#[test]
fn what_is_added_is_a_definition() {
    let home = Home::new();
    let ran = home.run(&[
        "add",
        "time",
        "--env",
        "TZ=${TZ:-UTC}",
        "--env",
        "A=b=c",
        "--description",
        "What time is it?",
        "--tool-prefix",
        "t",
        "--",
        "uvx",
        "mcp-server-time",
        "--local-timezone=UTC",
    ]);
    insta::assert_snapshot!(format!("{}\n\n{}", shown(&ran), home.definition("time.yaml")));
    let ran = home.run(&[
        "add",
        "docs",
        "--url",
        "https://docs.example.com/mcp",
        "--header",
        "Authorization: Bearer ${DOCS_TOKEN}",
        "--header",
        "X-Team=core",
        "--type",
        "sse",
    ]);
    insta::assert_snapshot!(format!("{}\n\n{}", shown(&ran), home.definition("docs.yaml")));
    let mode = fs_err::metadata(home.definitions().join("docs.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it may hold secrets");
    let validate = home.command(binary()).arg("validate").env("DOCS_TOKEN", "x").output().unwrap();
    assert!(validate.status.success(), "{validate:?}");
}

#[test]
fn programs_are_told_what_was_written() {
    let home = Home::new();
    let added = home.run(&["add", "a", "--url", "http://h/${NOPE}/${SET}", "--output", "json"]).expect(0);
    assert_eq!(
        added.json(),
        json!({"schema": 1, "name": "a", "path": "HOME/.config/sidegate/mcpservers/a.yaml", "unsetVariables": ["NOPE"]})
    );
    assert_eq!(added.stderr, "");
    let removed = home.run(&["remove", "a", "--output", "json"]).expect(0);
    assert_eq!(
        removed.json(),
        json!({"schema": 1, "name": "a", "path": "HOME/.config/sidegate/mcpservers/a.yaml"})
    );
    assert_eq!(home.files(), [""; 0]);
}

#[test]
fn relative_paths_are_meant_from_here() {
    let home = Home::new();
    fs_err::create_dir(home.path("tools")).unwrap();
    let add = |arguments: &[&str]| {
        let mut command = home.command(binary());
        command.arg("add").args(arguments).current_dir(home.path("tools"));
        home.ended(command.output().unwrap()).expect(0);
    };
    add(&["relative", "--", "./server.py", "data"]);
    add(&["given", "--cwd", "sub", "--", "server"]);
    add(&["looked-up", "--", "server"]);
    let cwd = |file: &str| {
        home.definition(file).lines().find_map(|line| Some(line.strip_prefix("  cwd: ")?.to_owned()))
    };
    assert_eq!(cwd("relative.yaml").as_deref(), Some("HOME/tools"));
    assert_eq!(cwd("given.yaml").as_deref(), Some("HOME/tools/sub"));
    assert_eq!(cwd("looked-up.yaml"), None);
}

#[test]
fn wrong_input_is_said_and_nothing_is_written() {
    let home = Home::new();
    home.write(".config/sidegate/mcpservers/taken.yml", "not even YAML: [");
    let long = "x".repeat(64);
    let commands: &[&[&str]] = &[
        &["add"],
        &["add", "a"],
        &["add", "a", "--"],
        &["add", "a", "--url", "http://h", "--", "x"],
        &["add", "a", "--url", "http://h", "--env", "A=b"],
        &["add", "a", "--header", "A=b", "--", "x"],
        &["add", "a", "--type", "stdio", "--url", "http://h"],
        &["add", "a", "--env", "A", "--", "x"],
        &["add", "a", "--env", "A=b", "--env", "A=c", "--", "x"],
        &["add", "a", "--url", "h"],
        &["add", "a", "--url", "ftp://h", "--header", "Host=x", "--tool-prefix", "1"],
        &["add", "a", "--url", "http://h/${"],
        &["add", "../a", "--", "x"],
        &["add", "a/b", "--", "x"],
        &["add", "..", "--", "x"],
        &["add", "Time", "--", "x"],
        &["add", "a.yaml", "--", "x"],
        &["add", &long, "--", "x"],
        &["add", "taken", "--", "x"],
        &["remove"],
        &["remove", "../a"],
        &["remove", "Taken"],
        &["remove", "takne"],
        &["import"],
        &["import", "missing.json"],
        &["import", ".config"],
    ];
    let report: Vec<_> = commands
        .iter()
        .map(|command| format!("$ sidegate {}\n{}", command.join(" "), shown(&home.run(command))))
        .collect();
    insta::assert_snapshot!(report.join("\n\n").replace(&long, "LONG"));
    assert_eq!(home.files(), ["taken.yml"]);
}

#[test]
fn a_link_is_removed_and_not_what_it_leads_to() {
    let home = Home::new();
    home.run(&["add", "a", "--", "x"]).expect(0);
    let kept = home.path("kept.yaml");
    fs_err::rename(home.definitions().join("a.yaml"), &kept).unwrap();
    symlink(&kept, home.definitions().join("a.yaml")).unwrap();
    home.run(&["add", "a", "--", "x"]).expect(1);
    home.run(&["remove", "a"]).expect(0);
    assert!(kept.is_file() && home.files().is_empty());
}

#[test]
fn files_of_one_name_are_not_chosen_between() {
    let home = Home::new();
    home.run(&["add", "a", "--", "x"]).expect(0);
    fs_err::copy(home.definitions().join("a.yaml"), home.definitions().join("a.YML")).unwrap();
    let ran = home.run(&["remove", "a"]).expect(1);
    assert!(ran.stderr.contains("a.YML and ") && ran.stderr.contains("keep one of them"), "{}", ran.stderr);
    assert_eq!(home.files(), ["a.YML", "a.yaml"]);
}

#[test]
fn of_many_that_add_the_same_server_one_does() {
    let home = Home::new();
    let children: Vec<_> = (0..8)
        .map(|index| {
            let url = format!("http://host-{index}/");
            let mut command = home.command(binary());
            command.args(["add", "same", "--url", &url]).stderr(std::process::Stdio::piped());
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ran: Vec<_> =
        children.into_iter().map(|child| home.ended(child.wait_with_output().unwrap())).collect();
    let winners: Vec<usize> = (0..8).filter(|&index| ran[index].code == Some(0)).collect();
    let [winner] = winners[..] else { panic!("{winners:?}") };
    assert!(home.definition("same.yaml").contains(&format!("http://host-{winner}/")));
    let losers = ran.iter().filter(|ran| ran.code == Some(1) && ran.stderr.contains("already exists"));
    assert_eq!(losers.count(), 7);
    assert_eq!(home.files(), ["same.yaml"]);
}

/// A user for whom permissions count: the root user has the right to pass over them taken away.
fn without_privileges(home: &Home) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return Some(home.command(binary()));
    }
    let mut command = home.command("setpriv");
    command.args(["--bounding-set", "-dac_override"]);
    command.arg(binary()).arg("version").output().is_ok_and(|output| output.status.success()).then(|| {
        let mut command = home.command("setpriv");
        command.args(["--bounding-set", "-dac_override"]).arg(binary());
        command
    })
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let home = Home::new();
    home.run(&["add", "a", "--", "x"]).expect(0);
    let Some(mut add) = without_privileges(&home) else { return };
    let Some(mut remove) = without_privileges(&home) else { return };
    let allow =
        |mode| fs_err::set_permissions(home.definitions(), std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let added = home.ended(add.args(["add", "b", "--", "x"]).output().unwrap());
    let removed = home.ended(remove.args(["remove", "a"]).output().unwrap());
    allow(0o755);
    for ran in [added, removed] {
        let ran = ran.expect(1);
        assert!(
            ran.stderr.contains("cannot be written: ") && ran.stderr.contains("hint: check its permissions"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(home.files(), ["a.yaml"]);
}

/// A full disk, as far as a process can tell: no file may grow.
#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let home = Home::new();
    home.run(&["add", "a", "--", "x"]).expect(0);
    let before = home.definition("a.yaml");
    let file = home.write(".mcp.json", r#"{"mcpServers": {"a": {"command": "y"}, "b": {"command": "y"}}}"#);
    let full = |arguments: &[&str]| {
        let mut shell = home.command("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(binary()).args(arguments);
        home.ended(shell.output().unwrap())
    };
    let added = full(&["add", "b", "--", "x"]).expect(1);
    assert!(added.stderr.contains("b.yaml could not be read or written: "), "{}", added.stderr);
    let imported = full(&["import", file.to_str().unwrap(), "--force"]).expect(1);
    assert_eq!(imported.stdout.matches("refused").count(), 2, "{}", imported.stdout);
    assert_eq!((home.files(), home.definition("a.yaml")), (vec!["a.yaml".to_owned()], before));
}

const CLAUDE: &str = r#"{"mcpServers": {
  "time": {"command": "uvx", "args": ["mcp-server-time"]},
  "Git Hub": {"type": "http", "url": "https://api.example.com/mcp", "headers": {"Authorization": "Bearer ${GITHUB_TOKEN}"}},
  "git-hub": {"command": "x"},
  "bad": {"type": "http", "url": "https://user:hunter22@example.com/"},
  "price": {"command": "./pay", "args": ["$5", "${SET}"], "timeout": 5}
}}"#;

#[test]
fn servers_of_another_client_are_imported() {
    let home = Home::new();
    home.write("app/.mcp.json", CLAUDE);
    let dry = home.run(&["import", "app/.mcp.json", "--dry-run"]).expect(1);
    assert_eq!(home.files(), [""; 0]);
    let first = home.run(&["import", "app/.mcp.json"]).expect(1);
    assert_eq!(home.files(), ["git-hub.yaml", "price.yaml", "time.yaml"]);
    let again = home.run(&["import", "app/.mcp.json"]).expect(1);
    insta::assert_snapshot!(
        [("a dry run", &dry), ("the first time", &first), ("again", &again)]
            .map(|(what, ran)| format!("=== {what}\n{}\n", shown(ran)))
            .concat()
    );
    insta::assert_snapshot!(
        ["git-hub", "price"].map(|name| home.definition(&format!("{name}.yaml"))).join("---\n")
    );
    for ran in [&dry, &first, &again] {
        assert!(!ran.stdout.contains("hunter22") && !ran.stderr.contains("hunter22"));
    }
}

#[test]
fn an_import_overwrites_only_when_told_to() {
    let home = Home::new();
    home.run(&["add", "time", "--", "mine"]).expect(0);
    let mine = home.definition("time.yaml");
    home.write("mcp.json", "{\n // VS Code\n \"servers\": {\"time\": {\"command\": \"uvx\",}},\n}");
    let refused = home.run(&["import", "mcp.json"]).expect(1);
    assert!(refused.stdout.contains("--force replaces it"), "{}", refused.stdout);
    home.run(&["import", "mcp.json", "--force", "--dry-run"]).expect(0);
    assert_eq!(home.definition("time.yaml"), mine);
    let ran = home.run(&["import", "mcp.json", "--force", "--output", "json"]).expect(0);
    let path = "HOME/.config/sidegate/mcpservers/time.yaml";
    assert_eq!(
        ran.json(),
        json!({"schema": 1, "client": "VS Code", "dryRun": false, "servers": [{
            "original": "time", "name": "time", "result": "replaced", "path": path, "backup": format!("{path}.bak"),
            "attention": [], "information": [],
        }]})
    );
    assert_eq!(home.definition("time.yaml.bak"), mine);
    assert!(home.definition("time.yaml").contains("command: uvx"));
    home.run(&["import", "mcp.json"]).expect(0);
}

#[rstest]
#[case::no_json("{\"mcpServers\": {\"a\": }}", "not JSON: expected value at line 1 column 22")]
#[case::no_servers("{}", "has neither \"mcpServers\" nor \"servers\"")]
#[case::empty("", "not JSON: EOF while parsing a value at line 1 column 0")]
fn a_file_without_servers_is_said(#[case] text: &str, #[case] expected: &str) {
    let home = Home::new();
    home.write("mcp.json", text);
    let ran = home.run(&["import", "mcp.json"]).expect(1);
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

/// Nothing is run: the command would leave a file.
#[test]
fn an_import_runs_nothing() {
    let home = Home::new();
    let servers =
        json!({"mcpServers": {"a": {"command": "touch", "args": [home.path("ran").to_str().unwrap()]}}});
    home.write(".mcp.json", &servers.to_string());
    home.run(&["import", ".mcp.json"]).expect(0);
    assert!(!home.path("ran").exists());
}

#[tokio::test]
async fn a_running_instance_follows() {
    let sidegate = Sidegate::builder().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await, [""; 0]);
    let home = Home::new();
    let config_dir = sidegate.config_dir();
    let config_dir = ["--config-dir", config_dir.to_str().unwrap()];
    let command = [binary().into_os_string().into_string().unwrap(), "example-server".to_owned()];

    home.run(&[&["add", "one"], &config_dir[..], &["--", &command[0], &command[1]]].concat()).expect(0);
    eventually("tools of the added server", async || {
        client.tool_names().await.iter().any(|tool| tool.starts_with("x_one_")).then_some(())
    })
    .await;

    let file = json!({"mcpServers": {"two": {"command": command[0], "args": [command[1]]}}});
    let file = home.write(".mcp.json", &file.to_string());
    home.run(&[&["import", file.to_str().unwrap()], &config_dir[..]].concat()).expect(0);
    eventually("tools of the imported server", async || {
        client.tool_names().await.iter().any(|tool| tool.starts_with("x_two_")).then_some(())
    })
    .await;

    home.run(&[&["remove", "one"], &config_dir[..]].concat()).expect(0);
    eventually("no tools of the removed server", async || {
        let names = client.tool_names().await;
        (!names.is_empty() && names.iter().all(|tool| tool.starts_with("x_two_"))).then_some(())
    })
    .await;
    sidegate.stop().await;
}
