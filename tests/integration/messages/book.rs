//! What a person reads, in one document: chapters of what was done and what was said to it, the same in every run.

use std::fmt::Write as _;

use super::super::support::Sidegate;
use super::super::support::mcp_client::RawResponse;
use super::super::support::sidegate::{Builder, Ended, binary};

/// Where somebody sits: a home and a configuration directory of their own, and nothing of this machine but PATH.
pub(super) fn place() -> Builder {
    let builder = Sidegate::builder();
    let config_dir = builder.config_dir();
    builder
        .env("SIDEGATE_CONFIG_DIR", config_dir)
        .env("SIDEGATE_LISTEN", "127.0.0.1:0")
        .env("SIDEGATE_GATEWAY_MODE", "embedded")
        // Nothing is downloaded in the background.
        .env("CI", "true")
        .env("COLUMNS", "100")
}

/// A chapter of the document.
pub(super) struct Chapter(String);

impl Chapter {
    pub(super) fn new(title: &str) -> Self {
        Self(format!("# {title}\n"))
    }

    /// Runs a command at `place`, and writes down what it said.
    pub(super) async fn command(&mut self, when: &str, place: &Builder, arguments: &[&str]) {
        let ended = place.clone().command(arguments).await;
        self.ended(when, place, arguments, &ended);
    }

    /// The same for commands that all mean one thing, told by what is typed.
    pub(super) async fn commands(&mut self, when: &str, place: &Builder, commands: &[&[&str]]) {
        let mut when = Some(when);
        for arguments in commands {
            let ended = place.clone().command(arguments).await;
            self.ended(when.take().unwrap_or_default(), place, arguments, &ended);
        }
    }

    /// Runs a line of shell, in which `"$0"` is the binary.
    pub(super) async fn shell(&mut self, when: &str, place: &Builder, line: &str) {
        let ended = place.clone().shell(line).await;
        self.said_by(when, place, &line.replace("\"$0\"", "sidegate"), &ended);
    }

    /// What a command has said that runs no more.
    fn ended(&mut self, when: &str, place: &Builder, arguments: &[&str], ended: &Ended) {
        // Whether a word has to be quoted must not depend on where temporary files are.
        let directory = directory(place);
        let typed: Vec<String> =
            arguments.iter().map(|word| typed(&word.replace(&directory, "DIR"))).collect();
        self.said_by(when, place, &format!("sidegate {}", typed.join(" ")), ended);
    }

    fn said_by(&mut self, when: &str, place: &Builder, typed: &str, ended: &Ended) {
        let complaints = complaints(&ended.stderr);
        // What ends a command is told after the log, whose lines come from several tasks in any order.
        let is_told = |line: &&str| !line.starts_with("WARN") && !line.starts_with("ERROR");
        let told: String = complaints.split_inclusive('\n').filter(is_told).collect();
        let said = format!("{}{told}", ended.stdout);
        let code = ended.status.code().map_or_else(|| ended.status.to_string(), |code| code.to_string());
        self.entry(when, &format!("$ {typed}\n{said}(exit {code})\n"), place);
    }

    /// What an instance has logged of this: the first complaint that speaks of it.
    pub(super) fn logged(&mut self, when: &str, place: &Builder, stderr: &str, of: &str) {
        let complaints = complaints(stderr);
        let entries = complaints.split_inclusive('\n').collect::<Vec<_>>();
        let is_new =
            |line: &&str| ["WARN", "ERROR", "error:", "warning:"].iter().any(|level| line.starts_with(level));
        let mut starts = (0..entries.len()).filter(|at| is_new(&entries[*at]));
        let whole = |at: usize| {
            let rest = entries[at + 1..]
                .iter()
                .take_while(|line| !is_new(line) && **line != "\n" && !line.starts_with("stop"));
            format!("{}{}", entries[at], rest.copied().collect::<String>())
        };
        let found = starts.find_map(|at| Some(whole(at)).filter(|entry| entry.contains(of)));
        let found = found.unwrap_or_else(|| panic!("nothing is said of {of:?}:\n{stderr}"));
        self.entry(when, &found, place);
    }

    /// What is answered to a request.
    pub(super) fn answered(&mut self, when: &str, place: &Builder, request: &str, response: &RawResponse) {
        let text = response.text().trim_end();
        self.entry(when, &format!("{request}\n{}\n{text}\n", response.status), place);
    }

    /// Any words.
    pub(super) fn said(&mut self, when: &str, place: &Builder, words: &str) {
        self.entry(when, &format!("{}\n", words.trim_end()), place);
    }

    fn entry(&mut self, when: &str, text: &str, place: &Builder) {
        if !when.is_empty() {
            write!(self.0, "\n## {when}\n").unwrap();
        }
        write!(self.0, "\n```text\n{}```\n", stable(text, place)).unwrap();
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// A word as it is typed.
fn typed(word: &str) -> String {
    match word.contains(|c: char| c.is_whitespace() || "'\"{}[]*?$".contains(c)) || word.is_empty() {
        true => format!("'{word}'"),
        false => word.to_owned(),
    }
}

/// What is wrong, and what is said besides: log lines of other levels are left out, the time of the rest as well.
fn complaints(stderr: &str) -> String {
    let lines = stderr.split_inclusive('\n').filter_map(|line| match line.split_once("Z ") {
        Some((time, rest)) if time.starts_with("20") && time.contains('T') => {
            let rest = rest.trim_start();
            (rest.starts_with("WARN") || rest.starts_with("ERROR")).then_some(rest)
        }
        _ => Some(line),
    });
    lines.collect()
}

/// Where all files of a place are.
fn directory(place: &Builder) -> String {
    place.config_dir().parent().unwrap().display().to_string()
}

/// The text without what differs from run to run and from machine to machine.
fn stable(text: &str, place: &Builder) -> String {
    let directory = directory(place);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut text = text
        .replace(&directory, "DIR")
        .replace(&binary().display().to_string(), "SIDEGATE")
        .replace(&format!("({path})"), "(PATH)")
        .replace(env!("CARGO_PKG_VERSION"), "VERSION")
        .replace("agentgateway-linux-amd64", "agentgateway-PLATFORM")
        .replace("agentgateway-linux-arm64", "agentgateway-PLATFORM")
        .replace("for linux-amd64 is", "for PLATFORM is")
        .replace("for linux-arm64 is", "for PLATFORM is");
    for (before, is_part, name) in [
        ("sidegate-ephemeral-", char::is_alphanumeric as fn(char) -> bool, "RANDOM"),
        ("127.0.0.1:", is_port, "PORT"),
        ("localhost:", is_port, "PORT"),
        ("pid ", |c| c.is_ascii_digit(), "PID"),
        // How much of a command line is shown depends on how long the paths in it are.
        ("taken by pid PID (", |c| c != ')', "COMMAND"),
        ("pid=", |c| c.is_ascii_digit(), "PID"),
        ("process ", |c| c.is_ascii_digit(), "PID"),
        ("the oldest began ", |c| c.is_ascii_digit(), "N"),
        ("try 2 in ", |c| c.is_ascii_digit() || c == '.', "N"),
        ("try 3 in ", |c| c.is_ascii_digit() || c == '.', "N"),
        ("next try in ", |c| c.is_ascii_digit() || c == '.', "N"),
        ("uptime=", |c| !c.is_whitespace(), "TIME"),
        ("generation=", |c| !c.is_whitespace(), "GENERATION"),
        ("code 3 after ", |c| c != ';', "TIME"),
        ("SHA-256 is ", |c| c.is_ascii_hexdigit(), "DIGEST"),
        ("(SHA-256 ", |c| c.is_ascii_hexdigit(), "DIGEST"),
        ("pinned is ", |c| c.is_ascii_hexdigit(), "DIGEST"),
        ("pinned ", |c| c.is_ascii_hexdigit(), "DIGEST"),
        ("run/sidegate/", |c| c.is_ascii_hexdigit(), "HASH"),
    ] {
        text = named(&text, before, is_part, name);
    }
    text
}

fn is_port(c: char) -> bool {
    c.is_ascii_digit()
}

/// Puts a name in the place of what follows `before`, but for ports that were chosen for a purpose.
fn named(text: &str, before: &str, is_part: fn(char) -> bool, name: &str) -> String {
    const CHOSEN_PORTS: [&str; 4] = ["0", "1", "8090", "9000"];
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(is_part);
        let length = part.len() - rest.len();
        out.push_str(before);
        // A digest is no word that begins with such a letter.
        let whole = name != "DIGEST" || length == 64;
        match length > 0 && whole && (name != "PORT" || !CHOSEN_PORTS.contains(&&part[..length])) {
            true => {
                out.push_str(name);
                out.push_str(rest);
            }
            false => out.push_str(part),
        }
    }
    out
}
