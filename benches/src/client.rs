//! A client that costs little: one session, one call at a time, answers looked through and not parsed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;

/// No answer may take longer.
const LIMIT: Duration = Duration::from_secs(20);

/// The protocol version that all sessions ask for. One that all peers speak.
const VERSION: &str = "2025-06-18";

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Streamable HTTP.
    Http(String),
    /// Streamable HTTP behind a gateway that asks for a key.
    Keyed { url: String, key: &'static str },
    /// HTTP+SSE, as of 2024-11-05.
    Sse(String),
    /// A command, one process a session.
    Command(Vec<String>),
}

/// An open session.
pub(crate) struct Session {
    link: Link,
    next_id: u64,
    /// The tool to call, by the name it has here.
    tool: String,
}

enum Link {
    Http(Box<Http>),
    Sse { post: Box<Http>, events: Events },
    Pipe(Box<Pipe>),
}

impl Session {
    /// Opens a session and finds the tool called `echo`, whatever its name is here.
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let mut session = Self::initialize(target).await?;
        session.find_tool("echo").await?;
        Ok(session)
    }

    /// Opens a session.
    pub(crate) async fn initialize(target: &Target) -> Result<Self> {
        let link = timeout(LIMIT, Link::connect(target)).await.map_err(|_| "cannot connect in time")??;
        let mut session = Self { link, next_id: 1, tool: String::new() };
        let params = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}});
        session.ask("initialize", &params).await?;
        session.link.tell(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into()).await?;
        Ok(session)
    }

    /// Ends the session in order: servers may hold a process for it.
    pub(crate) async fn close(self) {
        if let Link::Http(mut http) = self.link
            && http.session.is_some()
        {
            // What a server does with it is its own business.
            let _ = timeout(LIMIT, http.send(Method::DELETE, Bytes::new())).await;
        }
    }

    /// Makes the tool whose name ends with `name` the one that is called.
    pub(crate) async fn find_tool(&mut self, name: &str) -> Result {
        let answer = self.ask("tools/list", &json!({})).await?;
        let tools = answer["result"]["tools"].as_array().ok_or("the list of tools is none")?;
        let names = tools.iter().filter_map(|tool| tool["name"].as_str());
        let found = names.clone().find(|found| found.ends_with(name));
        let listed = || names.clone().collect::<Vec<_>>().join(", ");
        self.tool = found.ok_or_else(|| format!("no tool is called {name}: {}", listed()))?.to_owned();
        Ok(())
    }

    /// Calls the tool; the answer must hold `payload`, which must need no escapes in JSON.
    pub(crate) async fn call(&mut self, payload: &[u8]) -> Result {
        let id = self.next_id();
        let mut body = BytesMut::with_capacity(payload.len() + self.tool.len() + 120);
        let head = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{}","arguments":{{"text":""#,
            self.tool
        );
        for part in [head.as_bytes(), payload, br#""}}}"#] {
            body.extend_from_slice(part);
        }
        let answer = self.exchange(id, body.freeze()).await?;
        if memmem::find(&answer, payload).is_none() {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
            return Err(format!("the answer does not hold what was sent: {shown}").into());
        }
        Ok(())
    }

    /// Asks anything.
    pub(crate) async fn ask(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next_id();
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self.exchange(id, body.to_string().into()).await?;
        let text = String::from_utf8_lossy(&answer);
        // Of an event stream, the line that holds the answer.
        let is_answer = |value: &Value| value["id"] == id;
        let lines = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line));
        let mut values = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let answer = values.find(is_answer).or_else(|| serde_json::from_str(&text).ok().filter(is_answer));
        let answer = answer.ok_or_else(|| format!("{method} was answered with {text:.300}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("{method} was refused: {error}").into()),
            None => Ok(answer),
        }
    }

    async fn exchange(&mut self, id: u64, body: Bytes) -> Result<Bytes> {
        timeout(LIMIT, self.link.exchange(id, body)).await.map_err(|_| "no answer in time")?
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Link {
    async fn connect(target: &Target) -> Result<Self> {
        Ok(match target {
            Target::Http(url) => Self::Http(Box::new(Http::connect(url).await?)),
            Target::Keyed { url, key } => {
                let mut http = Http::connect(url).await?;
                http.key = Some(HeaderValue::from_static(key));
                Self::Http(Box::new(http))
            }
            Target::Sse(url) => {
                let (events, path) = Events::open(url).await?;
                let mut post = Http::connect(url).await?;
                post.path = path.parse()?;
                Self::Sse { post: Box::new(post), events }
            }
            Target::Command(command) => Self::Pipe(Box::new(Pipe::start(command)?)),
        })
    }

    /// Sends a request, and gives what holds its answer.
    async fn exchange(&mut self, id: u64, body: Bytes) -> Result<Bytes> {
        match self {
            Self::Http(http) => http.post(body).await,
            Self::Sse { post, events } => {
                post.post(body).await?;
                events.with_id(id).await
            }
            Self::Pipe(pipe) => {
                pipe.write(&body).await?;
                pipe.line(id).await
            }
        }
    }

    async fn tell(&mut self, body: Bytes) -> Result {
        match self {
            Self::Http(http) | Self::Sse { post: http, .. } => http.post(body).await.map(drop),
            Self::Pipe(pipe) => pipe.write(&body).await,
        }
    }
}

/// A connection, and the session on it.
struct Http {
    sender: SendRequest<Full<Bytes>>,
    path: Uri,
    host: HeaderValue,
    session: Option<HeaderValue>,
    key: Option<HeaderValue>,
}

impl Http {
    async fn connect(url: &str) -> Result<Self> {
        let uri: Uri = url.parse()?;
        let host = uri.authority().ok_or("a URL without a host")?.as_str();
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by whoever sends.
        tokio::task::spawn_local(connection);
        let path = uri.path_and_query().ok_or("a URL without a path")?.as_str().parse()?;
        Ok(Self { sender, path, host: HeaderValue::from_str(host)?, session: None, key: None })
    }

    async fn send(&mut self, method: Method, body: Bytes) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.clone());
            headers.insert("mcp-protocol-version", HeaderValue::from_static(VERSION));
        }
        if let Some(key) = &self.key {
            headers.insert("x-sidegate-key", key.clone());
        }
        *request.method_mut() = method;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    async fn post(&mut self, body: Bytes) -> Result<Bytes> {
        let response = self.send(Method::POST, body).await?;
        let status = response.status();
        if self.session.is_none() {
            self.session = response.headers().get("mcp-session-id").cloned();
        }
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("HTTP {status}: {:.300}", String::from_utf8_lossy(&body)).into())
        }
    }
}

/// The event stream of HTTP+SSE.
struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    /// Opens it; gives the path to post to as well.
    async fn open(url: &str) -> Result<(Self, String)> {
        let response = Http::connect(url).await?.send(Method::GET, Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(format!("GET {url}: HTTP {}", response.status()).into());
        }
        let mut events = Self { body: response.into_body(), buffer: BytesMut::new() };
        let first = events.next().await?;
        let text = String::from_utf8_lossy(&first);
        let path = text.lines().find_map(|line| line.strip_prefix("data:")).ok_or("no endpoint was given")?;
        Ok((events, path.trim().to_owned()))
    }

    async fn next(&mut self) -> Result<Bytes> {
        let mut scanned = 0;
        loop {
            if let Some(end) = memmem::find(&self.buffer[scanned..], b"\n\n") {
                return Ok(self.buffer.split_to(scanned + end + 2).freeze());
            }
            scanned = self.buffer.len().saturating_sub(1);
            let frame = self.body.frame().await.ok_or("the event stream has ended")??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    async fn with_id(&mut self, id: u64) -> Result<Bytes> {
        loop {
            let event = self.next().await?;
            if has_id(&event, id) {
                return Ok(event);
            }
        }
    }
}

/// A child and its pipes.
struct Pipe {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Pipe {
    fn start(command: &[String]) -> Result<Self> {
        let [program, arguments @ ..] = command else { return Err("an empty command".into()) };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its pipes are missing".into());
        };
        Ok(Self { _child: child, stdin, stdout: BufReader::with_capacity(64 << 10, stdout) })
    }

    async fn write(&mut self, message: &[u8]) -> Result {
        let mut line = Vec::with_capacity(message.len() + 1);
        line.extend_from_slice(message);
        line.push(b'\n');
        Ok(self.stdin.write_all(&line).await?)
    }

    async fn line(&mut self, id: u64) -> Result<Bytes> {
        loop {
            let mut line = Vec::new();
            if self.stdout.read_until(b'\n', &mut line).await? == 0 {
                return Err("the server has ended".into());
            }
            if has_id(&line, id) {
                return Ok(line.into());
            }
        }
    }
}

/// Whether a message has an id, as most encoders write it: near its beginning or its end.
fn has_id(message: &[u8], id: u64) -> bool {
    const NEAR: usize = 200;
    let ends = [&message[..message.len().min(NEAR)], &message[message.len().saturating_sub(NEAR)..]];
    [format!("\"id\":{id}"), format!("\"id\": {id}")].iter().any(|wanted| {
        ends.iter().any(|part| {
            memmem::find_iter(part, wanted.as_bytes())
                .any(|at| !part.get(at + wanted.len()).is_some_and(u8::is_ascii_digit))
        })
    })
}
