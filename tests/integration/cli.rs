//! The command line: its help. What is said to mistakes is in `messages`.

use std::path::Path;
use std::process::Command;

/// What a command prints, and its exit code. The test's directory is shown as `DIR`, this platform as
/// `PLATFORM`.
fn run(arguments: &[&str], directory: &Path) -> String {
    run_at(100, arguments, directory)
}

/// In a terminal of this many columns.
fn run_at(columns: u16, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sidegate"))
        .args(arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", directory.join("home"))
        .env("XDG_RUNTIME_DIR", directory.join("run"))
        // Help is as wide as the terminal says, of which there is none.
        .env("COLUMNS", columns.to_string())
        .current_dir(directory)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
    let shown = format!("{}{}(exit {code})\n", text(&output.stdout), text(&output.stderr));
    let shown = shown.replace(directory.to_str().unwrap(), "DIR");
    shown.replace("-linux-amd64", "-PLATFORM").replace("-linux-arm64", "-PLATFORM")
}

/// The commands of which there is help.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["serve"],
    &["run"],
    &["stdio"],
    &["status"],
    &["list"],
    &["get"],
    &["tools"],
    &["call"],
    &["explain"],
    &["start"],
    &["stop"],
    &["restart"],
    &["logs"],
    &["add"],
    &["remove"],
    &["import"],
    &["doctor"],
    &["connect"],
    &["config"],
    &["config", "show"],
    &["config", "schema"],
    &["man"],
    &["completions"],
    &["validate"],
    &["gateway"],
    &["gateway", "fetch"],
    &["gateway", "path"],
    &["gateway", "verify"],
    &["gateway", "pins"],
    &["gateway", "restart"],
    &["gateway", "serve"],
    &["example-server"],
    &["version"],
];

#[test]
fn help() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let shown = run(&[command, &["--help"][..]].concat(), directory.path());
        let name = ["help", &command.join("_")].join("_");
        assert!(shown.contains("\nExample"), "{command:?} has no example");
        insta::assert_snapshot!(name.trim_end_matches('_'), shown);
    }
}

/// What stands below the options has lines of its own, which a terminal of the usual width must not break.
#[test]
fn help_fits_into_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let below = |columns| {
            let help = run_at(columns, &[command, &["--help"][..]].concat(), directory.path());
            let examples = help.split_once("\nExample").map(|(_, below)| below.to_owned());
            examples.unwrap_or_else(|| panic!("{command:?} has no example"))
        };
        assert_eq!(below(80), below(100), "{command:?}");
    }
}

/// A subcommand that nobody added to the list above is noticed here.
#[test]
fn help_of_every_command_is_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let commands = |command: &[&str]| -> Vec<String> {
        let help = run(&[command, &["--help"][..]].concat(), directory.path());
        let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    assert_eq!(
        commands(&[]),
        [
            "serve",
            "run",
            "stdio",
            "status",
            "list",
            "get",
            "tools",
            "call",
            "explain",
            "start",
            "stop",
            "restart",
            "logs",
            "add",
            "remove",
            "import",
            "connect",
            "doctor",
            "validate",
            "config",
            "gateway",
            "example-server",
            "man",
            "completions",
            "version",
            "help"
        ]
    );
    assert_eq!(commands(&["config"]), ["show", "schema", "help"]);
    assert_eq!(commands(&["gateway"]), ["fetch", "path", "verify", "pins", "restart", "serve", "help"]);
}
