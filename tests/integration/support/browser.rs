//! A headless Chromium, spoken to over a pair of pipes (`--remote-debugging-pipe`: JSON texts that end with a zero byte).
//!
//! It has no network but loopback, no profile but one of its own, and ends when dropped.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{eventually, within};

/// A browser with one page.
pub(crate) struct Browser {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: String,
    last: u64,
    /// What has happened, apart from answers: method and parameters.
    events: VecDeque<(String, Value)>,
    _child: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser at `program`.
    pub(crate) async fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser's ends of the pipes are descriptors 3 and 4; a shell can put them there.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2 2>/dev/null"#])
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
                "--disable-sync",
                "--disable-background-networking",
                "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--no-proxy-server",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut browser = Self {
            input,
            output: BufReader::new(output),
            session: String::new(),
            last: 0,
            events: VecDeque::new(),
            _child: child,
            _profile: profile,
        };
        let target = browser.command("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.command("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.command(domain, json!({})).await;
        }
        browser
    }

    /// Sets the width of the window, and whether its user likes it dark.
    pub(crate) async fn look(&mut self, width: u32, dark: bool) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.command("Emulation.setEmulatedMedia", json!({"features": [scheme]})).await;
    }

    /// Opens an address and waits until it is loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        self.events.retain(|(method, _)| method != "Page.loadEventFired");
        let opened = self.command("Page.navigate", json!({"url": url})).await;
        assert_eq!(opened["errorText"], Value::Null, "{url}");
        self.loaded().await;
    }

    /// Does something that leads to another page, and waits until that is loaded.
    pub(crate) async fn go(&mut self, script: &str) {
        self.events.retain(|(method, _)| method != "Page.loadEventFired");
        self.run(script).await;
        self.loaded().await;
    }

    async fn loaded(&mut self) {
        within("the page", async {
            loop {
                let at = self.events.iter().position(|(method, _)| method == "Page.loadEventFired");
                if let Some(at) = at {
                    self.events.remove(at);
                    return;
                }
                self.read().await;
            }
        })
        .await;
    }

    /// The value of an expression in the page.
    pub(crate) async fn run(&mut self, script: &str) -> Value {
        let parameters = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.command("Runtime.evaluate", parameters).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{script}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, script: &str) {
        eventually(script, async || (self.run(script).await == true).then_some(())).await;
    }

    /// Presses a key: `Tab`, `Enter`.
    pub(crate) async fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = if key == "Enter" { 13 } else { 9 };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.command("Input.dispatchKeyEvent", event).await;
        }
    }

    /// A picture of the page, in Base64.
    pub(crate) async fn screenshot(&mut self) -> String {
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        self.command("Page.captureScreenshot", parameters).await["data"].as_str().unwrap().to_owned()
    }

    /// What the browser has complained about: errors and warnings of scripts, policies and requests.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.events.iter().filter_map(|(method, parameters)| match method.as_str() {
            "Log.entryAdded" => Some(parameters["entry"]["text"].to_string()),
            "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" => Some(parameters.to_string()),
            _ => None,
        });
        entries.collect()
    }

    /// Every address that was asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|(method, _)| method == "Network.requestWillBeSent");
        sent.map(|(_, parameters)| parameters["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.input.write_all(&text).await.unwrap();
        let id = self.last;
        within(method, async {
            loop {
                if let Some(mut answer) = self.read().await.filter(|answer| answer["id"] == id) {
                    assert_eq!(answer["error"], Value::Null, "{method}");
                    return answer["result"].take();
                }
            }
        })
        .await
    }

    /// Reads one message; gives it where it is an answer.
    async fn read(&mut self) -> Option<Value> {
        let mut text = Vec::new();
        let size = self.output.read_until(0, &mut text).await.unwrap();
        assert!(size > 0, "the browser has ended");
        text.pop();
        let mut message: Value = serde_json::from_slice(&text).unwrap();
        match message["method"].as_str().map(str::to_owned) {
            Some(method) => {
                self.events.push_back((method, message["params"].take()));
                None
            }
            None => Some(message),
        }
    }
}
