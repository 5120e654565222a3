//! The built binary as a process: `sidegate serve` in a directory of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::definitions::{example, remote};
use super::leaks::{self, Tag, Tagged};
use super::optional::FORBID_WATCHES;
use super::{Upstream, within};

/// A running instance. Killed when dropped; a test that panics shows its stderr.
#[derive(Debug)]
pub(crate) struct Sidegate {
    pub(crate) ready: Ready,
    pub(crate) tag: Tag,
    child: Child,
    stdout: Output,
    stderr: Output,
    directory: Arc<TempDir>,
}

/// The line that `serve --output json` prints.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Ready {
    pub(crate) schema: u32,
    pub(crate) url: String,
    pub(crate) pid: u32,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) gateway: Gateway,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Gateway {
    /// `agentgateway`, `embedded` or `external`.
    pub(crate) mode: String,
    pub(crate) version: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) ports: Ports,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Ports {
    pub(crate) data: Option<u16>,
    pub(crate) admin: Option<u16>,
    pub(crate) stats: Option<u16>,
    pub(crate) readiness: Option<u16>,
}

/// A command that runs. Killed when dropped; a test that panics shows its stderr.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) tag: Tag,
    child: Child,
    stdout: Output,
    stderr: Output,
    directory: Arc<TempDir>,
}

/// How an instance ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it printed on stdout besides the ready line.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(super) directory: Arc<TempDir>,
}

/// An instance before it is started: its files are there, its process is not. Clones share the files.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    directory: Arc<TempDir>,
    tag: Tag,
    listen: String,
    gateway: Vec<OsString>,
    arguments: Vec<OsString>,
    through_shell: bool,
    /// A line of shell that is run before it, as the root of namespaces of its own.
    own_namespaces: Option<String>,
    environment: Vec<(OsString, OsString)>,
}

impl Sidegate {
    /// An instance with the embedded gateway, no definitions and no `config.yaml`.
    pub(crate) fn builder() -> Builder {
        let tag = Tag::random();
        let directory = tempfile::Builder::new().prefix(&format!("sidegate-test-{tag}-")).tempdir().unwrap();
        for name in ["", "config/mcpservers", "home", "tmp", "run"] {
            private_dir(&directory.path().join(name));
        }
        let gateway = vec!["--gateway".into(), "embedded".into()];
        Builder {
            directory: Arc::new(directory),
            tag,
            listen: "127.0.0.1:0".to_owned(),
            gateway,
            arguments: Vec::new(),
            through_shell: false,
            own_namespaces: None,
            // Most tests are about the tools of servers alone, and about results byte for byte.
            environment: vec![
                ("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS".into(), "off".into()),
                ("SIDEGATE_TELEMETRY_CALL_IDS".into(), "false".into()),
            ],
        }
    }

    /// The aggregated endpoint.
    pub(crate) fn url(&self) -> &str {
        &self.ready.url
    }

    /// The endpoint of one server alone.
    pub(crate) fn server_url(&self, server: &str) -> String {
        format!("{}/{server}", self.ready.url)
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// Writes or replaces a definition in one step.
    pub(crate) fn write_definition(&self, name: &str, text: &str) {
        write_definition(self.directory.path(), name, text);
    }

    /// The gateway's process now, which need not be the one at start; `None` while there is none.
    pub(crate) fn gateway_pid(&self) -> Option<Pid> {
        self.process(|command| command.contains("-f ") && command.ends_with("/agentgateway.yaml"))
    }

    /// The guard of the gateway.
    pub(crate) fn gateway_guard(&self) -> Option<Pid> {
        let is_it = |command: &str| command.contains(" __guard ") && command.ends_with("/agentgateway.yaml");
        leaks::processes(&self.tag).iter().find(|process| is_it(&process.command)).and_then(Tagged::id)
    }

    /// A process of this instance, not a guard, whose arguments are as asked.
    pub(crate) fn process(&self, is_it: impl Fn(&str) -> bool) -> Option<Pid> {
        let is_it = |command: &str| !command.contains(" __guard ") && is_it(command);
        leaks::processes(&self.tag).iter().find(|process| is_it(&process.command)).and_then(Tagged::id)
    }

    /// The processes of this instance, not their guards, that are an example without arguments.
    pub(crate) fn processes_of(&self, example: &str) -> Vec<Tagged> {
        let program = format!("/{example}");
        let mut processes = leaks::processes(&self.tag);
        processes.retain(|one| one.command.ends_with(&program) && !one.command.contains(" __guard "));
        processes
    }

    /// What a file of the instance's directory holds; nothing when it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn remove_definition(&self, name: &str) {
        fs_err::remove_file(definition_path(self.directory.path(), name)).unwrap();
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until stderr contains `text`.
    pub(crate) async fn wait_for_stderr(&self, text: &str) {
        within(&format!("`{text}` on stderr"), self.stderr.wait_for(|stderr| stderr.contains(text))).await;
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        send(&self.child, signal);
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn stop(self) -> Ended {
        self.signal(rustix::process::Signal::TERM);
        self.wait().await
    }

    /// Sends SIGKILL and waits for the end of this process; its children may live a moment longer.
    pub(crate) async fn kill(self) -> Ended {
        self.signal(rustix::process::Signal::KILL);
        self.wait().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn wait(mut self) -> Ended {
        let status = within("the end of sidegate", self.child.wait()).await.unwrap();
        let (stdout, stderr) = (self.stdout.finish().await, self.stderr.finish().await);
        Ended { status, stdout, stderr, directory: Arc::clone(&self.directory) }
    }
}

impl Begun {
    /// Waits until stdout contains `text`.
    pub(crate) async fn wait_for_stdout(&self, text: &str) {
        within(&format!("`{text}` on stdout"), self.stdout.wait_for(|stdout| stdout.contains(text))).await;
    }

    /// The first line that it prints on stdout.
    pub(crate) async fn first_line(&mut self) -> String {
        within("a line on stdout", self.stdout.first_line()).await.expect("stdout is open")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        send(&self.child, signal);
    }

    /// Waits until it ends. The first line is not in [`Ended::stdout`] where it was taken.
    pub(crate) async fn wait(mut self) -> Ended {
        let status = within("the end of sidegate", self.child.wait()).await.unwrap();
        let (stdout, stderr) = (self.stdout.finish().await, self.stderr.finish().await);
        Ended { status, stdout, stderr, directory: Arc::clone(&self.directory) }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.stderr.text());
        }
    }
}

impl Ended {
    /// What is left where an instance may write: its temporary and runtime directories, and its home.
    pub(crate) fn files_left(&self) -> Vec<PathBuf> {
        let directories = ["tmp", "run", "home"].map(|name| self.directory.path().join(name));
        directories
            .iter()
            .flat_map(|directory| fs_err::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

impl Drop for Sidegate {
    fn drop(&mut self) {
        // `kill_on_drop` ends the process.
        if std::thread::panicking() {
            show(&self.stderr.text());
        }
    }
}

impl Builder {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.retain(|(known, _)| known != name.as_ref());
        self
    }

    pub(crate) fn listen(self, address: impl ToString) -> Self {
        Self { listen: address.to_string(), ..self }
    }

    /// Starts it through a shell, which is then what the signals of [`Sidegate`] go to.
    pub(crate) fn through_shell(self) -> Self {
        Self { through_shell: true, ..self }
    }

    /// Gives it a TMPDIR in memory, mounted with these options, which only it can see.
    pub(crate) fn own_tmpdir(self, options: &str) -> Self {
        Self {
            own_namespaces: Some(format!("mount -t tmpfs -o mode=700,{options} none \"$TMPDIR\"")),
            ..self
        }
    }

    /// No directory can be watched, as where others have taken all the watches that a user may have.
    pub(crate) fn without_watches(self) -> Self {
        Self { own_namespaces: Some(FORBID_WATCHES.to_owned()), ..self }
    }

    /// Uses a real agentgateway.
    pub(crate) fn agentgateway(self, binary: &Path) -> Self {
        let [mode, flag] = ["agentgateway", "--gateway-binary"].map(OsString::from);
        Self { gateway: vec!["--gateway".into(), mode, flag, binary.into()], ..self }
    }

    /// Uses the gateway that this mode means.
    pub(crate) fn gateway(self, mode: &str) -> Self {
        Self { gateway: vec!["--gateway".into(), mode.into()], ..self }
    }

    /// Uses the gateway that its settings say.
    pub(crate) fn gateway_of_settings(self) -> Self {
        Self { gateway: Vec::new(), ..self }
    }

    /// Starts no gateway; `url` is one that somebody else looks after.
    pub(crate) fn external_gateway(self, url: &str) -> Self {
        Self { gateway: vec!["--upstream-url".into(), url.into()], ..self }
    }

    /// Ready means that the servers have settled too.
    pub(crate) fn wait_for_servers(self) -> Self {
        self.arg("--wait").arg("servers")
    }

    pub(crate) fn definition(self, name: &str, text: &str) -> Self {
        write_definition(self.directory.path(), name, text);
        self
    }

    /// Defines the server `everything` twice: `far` over HTTP, and `near` as a child.
    pub(crate) async fn with_near_and_far(self) -> (Self, Upstream) {
        let far = Upstream::everything(&[]).await;
        let builder =
            self.definition("far", &remote(&far.url)).definition("near", &example("everything", &[]));
        (builder, far)
    }

    /// Writes `config.yaml`.
    pub(crate) fn config(self, text: &str) -> Self {
        fs_err::write(self.config_dir().join("config.yaml"), text).unwrap();
        self
    }

    /// Writes a file beside the instance's directories.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        fs_err::write(self.directory.path().join(name), text).unwrap();
        self
    }

    /// Writes a shell script beside the instance's directories.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs_err::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn tag(&self) -> &Tag {
        &self.tag
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(self) -> Sidegate {
        let (mut child, mut stdout, mut stderr) = self.spawn();
        let line = within("the ready line", stdout.first_line()).await;
        let Some(line) = line else {
            let status = within("the end of sidegate", child.wait()).await.unwrap();
            show(&stderr.finish().await);
            panic!("sidegate did not start: {status}");
        };
        let ready = match serde_json::from_str(&line) {
            Ok(ready) => ready,
            Err(error) => panic!("the ready line is not as it should be: {error}: {line}"),
        };
        Sidegate { ready, tag: self.tag, child, stdout, stderr, directory: self.directory }
    }

    /// Starts it and waits until it has ended, for starts that fail.
    pub(crate) async fn run(self) -> Ended {
        within("the end of sidegate", self.run_for_long()).await
    }

    /// Kills it a while after its start.
    pub(crate) async fn start_and_kill(self, after: Duration) -> Ended {
        let (mut child, mut stdout, mut stderr) = self.spawn();
        tokio::time::sleep(after).await;
        child.start_kill().unwrap();
        let status = within("the end of sidegate", child.wait()).await.unwrap();
        let (stdout, stderr) = (stdout.finish().await, stderr.finish().await);
        Ended { status, stdout, stderr, directory: self.directory }
    }

    /// As [`run`](Self::run), for starts that have a limit of their own, longer than that of a test's waits.
    pub(crate) async fn run_for_long(self) -> Ended {
        let (mut child, mut stdout, mut stderr) = self.spawn();
        let status = child.wait().await.unwrap();
        let (stdout, stderr) = (stdout.finish().await, stderr.finish().await);
        Ended { status, stdout, stderr, directory: self.directory }
    }

    /// Runs another command of the binary on these files.
    pub(crate) async fn command(self, arguments: &[&str]) -> Ended {
        self.begin(arguments).wait().await
    }

    /// Runs a line of shell on these files, in which `$0` is the binary.
    pub(crate) async fn shell(self, line: &str) -> Ended {
        self.begin_shell(line).wait().await
    }

    /// Starts a line of shell on these files, in which `$0` is the binary.
    pub(crate) fn begin_shell(self, line: &str) -> Begun {
        let mut command = Command::new("sh");
        command.args(["-c", line]).arg(binary());
        let (child, stdout, stderr) = self.spawn_with(command);
        Begun { tag: self.tag, child, stdout, stderr, directory: self.directory }
    }

    /// Starts another command of the binary on these files.
    pub(crate) fn begin(self, arguments: &[&str]) -> Begun {
        let mut command = self.executable();
        command.args(arguments);
        let (child, stdout, stderr) = self.spawn_with(command);
        Begun { tag: self.tag, child, stdout, stderr, directory: self.directory }
    }

    /// Another command of the binary on these files, which the caller starts with pipes of its own.
    pub(super) fn command_to_start(&self, arguments: &[&str]) -> (Command, Arc<TempDir>) {
        let mut command = self.executable();
        command.args(arguments);
        self.surround(&mut command);
        (command, Arc::clone(&self.directory))
    }

    fn spawn(&self) -> (Child, Output, Output) {
        let mut command = self.executable();
        command
            .args(["serve", "--ephemeral", "--output", "json", "--listen", &self.listen, "--config-dir"])
            .arg(self.config_dir())
            .args(&self.gateway)
            .args(&self.arguments);
        self.spawn_with(command)
    }

    fn executable(&self) -> Command {
        if let Some(before) = &self.own_namespaces {
            let mut unshare = Command::new("unshare");
            unshare.args(["-rm", "sh", "-c", &format!("{before} && exec \"$0\" \"$@\"")]).arg(binary());
            return unshare;
        }
        if !self.through_shell {
            return Command::new(binary());
        }
        // `wait`, as a shell replaces itself by its last command.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#""$0" "$@" & wait"#]).arg(binary());
        shell
    }

    fn spawn_with(&self, mut command: Command) -> (Child, Output, Output) {
        self.surround(&mut command);
        command.stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = Output::collect(child.stderr.take().unwrap());
        (child, stdout, stderr)
    }

    /// The environment of every command: nothing of ours but PATH, and the test's own directories.
    fn surround(&self, command: &mut Command) {
        let at = |name: &str| self.directory.path().join(name);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("SIDEGATE_TEST_TAG", self.tag.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
    }
}

/// What a process writes to a pipe, read as it comes so that the pipe never fills.
#[derive(Debug)]
pub(super) struct Output {
    text: watch::Receiver<String>,
    reader: tokio::task::JoinHandle<()>,
    /// How much of the text [`first_line`](Self::first_line) has given out.
    taken: usize,
}

impl Output {
    pub(super) fn collect(pipe: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (sender, text) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            // Whole lines; one that is drawn again ends where it begins anew.
            while let Ok(bytes @ [_, ..]) = pipe.fill_buf().await {
                let end = bytes.iter().position(|byte| b"\r\n".contains(byte));
                let taken = end.map_or(bytes.len(), |at| at + 1);
                line.extend_from_slice(&bytes[..taken]);
                pipe.consume(taken);
                if end.is_some() {
                    sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
                    line.clear();
                }
            }
            sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
        });
        Self { text, reader, taken: 0 }
    }

    pub(super) fn text(&self) -> String {
        self.text.borrow().clone()
    }

    async fn wait_for(&self, condition: impl FnMut(&String) -> bool) {
        self.text.clone().wait_for(condition).await.expect("the pipe is still open");
    }

    /// The first line without its end; `None` when the pipe is closed before there is one.
    async fn first_line(&mut self) -> Option<String> {
        let text = self.text.wait_for(|text| text.contains('\n')).await.ok()?;
        let (line, _) = text.split_once('\n')?;
        self.taken = line.len() + 1;
        Some(line.to_owned())
    }

    /// Everything that [`first_line`](Self::first_line) has not given out, up to the end of the pipe.
    pub(super) async fn finish(&mut self) -> String {
        within("the end of a pipe", &mut self.reader).await.unwrap();
        self.text.borrow()[self.taken..].to_owned()
    }
}

/// The binary under test. nextest says at run time where it is, as an archive of tests runs elsewhere than it was built.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("NEXTEST_BIN_EXE_sidegate")
        .map_or_else(|| env!("CARGO_BIN_EXE_sidegate").into(), PathBuf::from)
}

/// A directory that nobody else can write to, whatever the umask.
pub(crate) fn private_dir(path: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
    fs_err::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
}

pub(super) fn send(child: &Child, signal: rustix::process::Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    rustix::process::kill_process(pid.expect("it still runs"), signal).unwrap();
}

fn definition_path(directory: &Path, name: &str) -> PathBuf {
    directory.join("config/mcpservers").join(format!("{name}.yaml"))
}

/// The text is written beside the watched directory and renamed into it, so that nobody reads half of it.
fn write_definition(directory: &Path, name: &str, text: &str) {
    let whole = tempfile::NamedTempFile::new_in(directory).unwrap();
    fs_err::write(whole.path(), text).unwrap();
    whole.persist(definition_path(directory, name)).unwrap();
}

#[expect(clippy::print_stderr, reason = "the reader of a failed test needs it")]
pub(super) fn show(stderr: &str) {
    eprintln!("--- stderr of sidegate ---\n{stderr}--- end of stderr ---");
}
