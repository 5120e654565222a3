//! The server behind everything that is measured: it answers at once, so that it is never the limit.
//!
//! One thread, no sessions to look up, no tree of what was asked: `echo` gives its argument `text` back, byte for byte.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use crate::Result;

/// How much is read at once.
const LINE: usize = 64 << 10;

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    arguments: Arguments<'a>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: &'a RawValue,
}

#[derive(Deserialize)]
struct Initialize<'a> {
    #[serde(borrow, rename = "protocolVersion")]
    version: Cow<'a, str>,
}

/// What the server says.
struct Answers {
    /// The whole result of `tools/list`.
    tools: String,
}

impl Answers {
    /// `echo`, and as many more tools as it takes to be `tools`.
    fn new(tools: usize) -> Arc<Self> {
        let mut list = String::from(
            r#"{"tools":[{"name":"echo","description":"Gives its text back.","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}}"#,
        );
        for number in 1..tools {
            // Writing to a string does not fail.
            let _ = write!(
                list,
                r#",{{"name":"tool_{number}","description":"One of many tools, with a description of the usual length, which says what it does and when to use it.","inputSchema":{{"type":"object","properties":{{"path":{{"type":"string","description":"What it is about"}},"depth":{{"type":"integer","minimum":0}}}},"required":["path"]}}}}"#
            );
        }
        list.push_str("]}");
        Arc::new(Self { tools: list })
    }

    /// The answer to one message; `None` where it wants none.
    fn to(&self, text: &[u8]) -> std::result::Result<Option<String>, serde_json::Error> {
        let asked: Asked<'_> = serde_json::from_slice(text)?;
        let (Some(id), Some(method)) = (asked.id, asked.method) else { return Ok(None) };
        let params = asked.params.map_or("{}", RawValue::get);
        let result = match &*method {
            "initialize" => {
                let Initialize { version } = serde_json::from_str(params)?;
                let info = r#""serverInfo":{"name":"bench","version":"0"}"#;
                format!(r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},{info}}}"#).into()
            }
            "ping" => Cow::Borrowed("{}"),
            "tools/list" => Cow::Borrowed(self.tools.as_str()),
            "tools/call" => {
                let call: Call<'_> = serde_json::from_str(params)?;
                let text = call.arguments.text.get();
                let mut answer = String::with_capacity(text.len() + 160);
                let _ = write!(
                    answer,
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":{text}}}],"isError":false}}}}"#
                );
                return Ok(Some(answer));
            }
            _ => {
                let error = r#"{"code":-32601,"message":"there is no such method"}"#;
                return Ok(Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)));
            }
        };
        Ok(Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)))
    }
}

/// Serves streamable HTTP on a random port until it is killed. Says where on stdout, as one line of JSON.
pub(crate) async fn http(tools: usize) -> Result {
    let answers = Answers::new(tools);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let line = format!("{{\"url\":\"http://{}/mcp\"}}\n", listener.local_addr()?);
    std::io::stdout().write_all(line.as_bytes())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answers = Arc::clone(&answers);
                async move { Ok::<_, Infallible>(respond(&answers, request).await) }
            });
            // A client that goes away is none of our business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let status = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    match *request.method() {
        Method::POST => {}
        Method::DELETE => return status(StatusCode::OK),
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = request.into_body().collect().await else { return status(StatusCode::BAD_REQUEST) };
    match answers.to(&body.to_bytes()) {
        Err(_) => status(StatusCode::BAD_REQUEST),
        Ok(None) => status(StatusCode::ACCEPTED),
        Ok(Some(answer)) => {
            let mut response = Response::new(Full::from(answer));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert("mcp-session-id", HeaderValue::from_static("bench"));
            response
        }
    }
}

/// Serves stdin and stdout until the end of stdin.
pub(crate) fn stdio(tools: usize) -> Result {
    let answers = Answers::new(tools);
    let mut input = BufReader::with_capacity(LINE, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Some(mut answer) = answers.to(&line)? {
            answer.push('\n');
            output.write_all(answer.as_bytes())?;
            output.flush()?;
        }
        line.clear();
    }
    Ok(())
}
