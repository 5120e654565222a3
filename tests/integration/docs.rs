//! Documents that can rot: what they show is run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sidegate::config::{Overrides, Settings};
use sidegate::environment::Environment;

use super::support::optional;
use super::support::sidegate::Sidegate;

/// A fenced block of a document.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
}

impl Block {
    /// The commands of a console, each with the output shown below it.
    fn commands(&self) -> Vec<(&str, String)> {
        let mut commands: Vec<(&str, String)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, String::new())),
                (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
                (None, None) => panic!("output before any command: {line}"),
            }
        }
        commands
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let markdown = |directory: PathBuf| {
        let entries = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    let places = ["", "docs", "docs/concepts", "docs/decisions", "docs/guides", "docs/reference"];
    let paths = places.map(|place| markdown(root().join(place))).concat();
    assert!(paths.len() > 20, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), fs_err::read_to_string(path).unwrap())).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language: language.to_owned(), text: inside.join("\n") + "\n" });
        }
    }
    blocks
}

fn readme() -> Vec<Block> {
    blocks(&fs_err::read_to_string(root().join("README.md")).unwrap())
}

fn sidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidegate")).args(arguments).output().unwrap()
}

#[test]
fn commands_that_are_shown_exist() {
    let mut seen = Vec::new();
    for (path, text) in documents() {
        let consoles = blocks(&text).into_iter().filter(|block| block.language == "console");
        let shown = consoles.flat_map(|block| {
            block.commands().into_iter().map(|(command, _)| command.to_owned()).collect::<Vec<_>>()
        });
        // In prose, what is in backquotes and is a whole command line.
        let prose = text.split('`').skip(1).step_by(2).filter(|code| !code.contains('\n')).map(str::to_owned);
        for command in shown.chain(prose.filter(|code| code.starts_with("sidegate "))) {
            // What follows two dashes is another program's.
            let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != "--").collect();
            match words.as_slice() {
                // A subcommand of its own, which clap does not know.
                ["sidegate", "__guard", ..] => {}
                ["sidegate", arguments @ ..] => {
                    // Flags before --help are checked, and nothing is run.
                    let output = sidegate(&[arguments, &["--help"]].concat());
                    let error = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{}: {command}: {error}", path.display());
                }
                [script, ..] if script.starts_with("./") => {
                    use std::os::unix::fs::PermissionsExt as _;
                    let mode = fs_err::metadata(root().join(script)).unwrap().permissions().mode();
                    assert_eq!(mode & 0o111, 0o111, "{}: {script} cannot be run", path.display());
                }
                _ => {}
            }
            seen.push(command);
        }
    }
    for wanted in
        ["./scripts/demo", "./scripts/test", "sidegate serve", "sidegate validate", "sidegate doctor"]
    {
        assert!(seen.iter().any(|command| command == wanted), "{wanted} is not shown any more: {seen:?}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let output = sidegate(&["man", directory.path().join("man1").to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in ["sidegate.1", "sidegate-serve.1", "sidegate-gateway-fetch.1"] {
        let text = fs_err::read_to_string(directory.path().join("man1").join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains("Example"), "{page}: {text}");
    }
    let refused = sidegate(&["man", "/dev/null/man1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be written to /dev/null/man1"));
}

#[test]
fn files_that_are_shown_are_valid() {
    let (mut definitions, mut configs) = (0, 0);
    let blocks = documents().into_iter().flat_map(|(_, text)| blocks(&text));
    for block in blocks.filter(|block| block.language == "yaml") {
        let directory = tempfile::tempdir().unwrap();
        if block.text.contains("kind: MCPServer") {
            let name = block.text.strip_prefix("# ").and_then(|text| text.split_once(':')).unwrap().0;
            let file = directory.path().join(name);
            fs_err::write(&file, &block.text).unwrap();
            let output = sidegate(&["validate", file.to_str().unwrap()]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            definitions += 1;
        } else {
            fs_err::write(directory.path().join("config.yaml"), &block.text).unwrap();
            let environment = Environment::from_iter([("HOME", "/home/user")]);
            let settings = Settings::load(directory.path(), &environment, &Overrides::default());
            assert!(settings.is_ok(), "{}", settings.unwrap_err());
            configs += 1;
        }
    }
    assert!(definitions >= 5 && configs >= 3, "{definitions} definitions, {configs} files of settings");
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in documents() {
        for (target, _) in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.starts_with("https://") {
                continue;
            }
            let target = path.parent().unwrap().join(file);
            assert!(target.exists(), "{}: there is no {}", path.display(), target.display());
        }
    }
}

/// The client of the README, as it stands there, gets the output that stands there.
#[tokio::test]
async fn the_client_that_is_shown_gets_what_is_shown() {
    if !optional::curl_runs() {
        return;
    }
    let blocks = readme();
    let console = blocks.iter().find(|block| block.text.contains("curl")).unwrap();
    let spec = "spec: {type: stdio, command: \"${SIDEGATE_EXE}\", args: [example-server]}";
    let definition = format!("apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\n{spec}\n");
    let sidegate = Sidegate::builder().definition("example", &definition).wait_for_servers().start().await;
    let commands = console.commands();
    let script: Vec<_> = commands
        .iter()
        .map(|(command, _)| command.replace("http://127.0.0.1:8090/mcp", sidegate.url()))
        .collect();
    assert_ne!(script[0], commands[0].0, "the script asks another instance");
    let mut bash = tokio::process::Command::new("bash");
    let output = bash.args(["-c", &script.join("\n")]).env("NO_PROXY", "*").kill_on_drop(true).output();
    let output = super::support::within("the end of the script", output).await.unwrap();
    let expected: String = commands.iter().map(|(_, output)| output.as_str()).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    sidegate.stop().await;
}
