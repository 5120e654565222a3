//! A stdio MCP server that misbehaves in one chosen way and is correct otherwise.
//!
//! ```text
//! rude_server exit              ends at once with code 3 and a line on stderr
//! rude_server silent            reads everything, never answers
//! rude_server rubbish           prints only lines that are not JSON
//! rude_server noisy             prints such lines around correct answers
//! rude_server slow-init MS      answers `initialize` after MS milliseconds
//! rude_server duplicate         answers every request twice
//! rude_server wrong-id          answers every request after `initialize` under an id that nobody used
//! rude_server huge BYTES        the result of `tools/call` holds a text of that many bytes
//! rude_server dies-on-call      ends with code 4 in the middle of a `tools/call`
//! rude_server pages             lists its tools on three pages
//! rude_server hangs-list        lists its tools once, says that they have changed, and never lists them again
//! rude_server restless          says after each list of its tools that they have changed
//! rude_server weird-fields      unknown fields, unusual key order, numbers no parser would print the same way
//! ```
//!
//! Plain text in and out, with no MCP library: the answers of `weird-fields` are templates that are copied to the
//! wire byte for byte, so that a test can demand them back byte for byte. The exact texts are printed by
//! `rude_server print tools|result`.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::value::RawValue;

/// The `tools` array of `weird-fields`, and what it is meant to break: sorted keys, dropped vendor fields,
/// re-printed numbers and re-escaped strings.
const WEIRD_TOOLS: &str = r#"[{"x-vendor":{"z":1,"a":[1.0,1e2,-0.0,123456789012345678901234567890,1e400]},"name":"weird","inputSchema":{"type":"object","x-order":["b","a"],"properties":{"b":{"type":"number","maximum":1e400},"a":{}}},"description":"caf\u00e9 \u2603 🦀 \/ \u0000","execution":{"taskSupport":"optional"},"annotations":{"readOnlyHint":true,"x-cost":0.10},"_meta":{"example.com/key":null}},{ "name" : "spaced" , "inputSchema" : { "type" : "object" } }]"#;

/// The result of every `tools/call` of `weird-fields`.
const WEIRD_RESULT: &str = r#"{"structuredContent":{"z":1.0,"a":1e2,"big":123456789012345678901234567890,"tiny":1e-400,"nested":{"y":null,"x":[]}},"x-unknown":[true,{"deep":"\ud83e\udd80"}],"content":[{"text":"caf\u00e9 🦀 \/","x-extra":{},"type":"text"}],"_meta":{"b":2,"a":1},"isError":false}"#;

const PLAIN_TOOLS: &str =
    r#"[{"name":"poke","description":"Say something.","inputSchema":{"type":"object"}}]"#;

const LIST_CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

enum Mode {
    Exit,
    Silent,
    Rubbish,
    Noisy,
    SlowInit(Duration),
    Duplicate,
    WrongId,
    Huge(usize),
    DiesOnCall,
    Pages,
    HangsList,
    Restless,
    WeirdFields,
}

/// The parts of a request that decide its answer.
#[derive(serde::Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(default)]
    params: Params,
}

#[derive(Default, serde::Deserialize)]
struct Params {
    #[serde(rename = "protocolVersion")]
    protocol_version: Option<String>,
    cursor: Option<String>,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mode = match arguments[..] {
        ["print", "tools"] => return print(WEIRD_TOOLS),
        ["print", "result"] => return print(WEIRD_RESULT),
        ["exit"] => Mode::Exit,
        ["silent"] => Mode::Silent,
        ["rubbish"] => Mode::Rubbish,
        ["noisy"] => Mode::Noisy,
        ["slow-init", milliseconds] => Mode::SlowInit(Duration::from_millis(milliseconds.parse()?)),
        ["duplicate"] => Mode::Duplicate,
        ["wrong-id"] => Mode::WrongId,
        ["huge", bytes] => Mode::Huge(bytes.parse()?),
        ["dies-on-call"] => Mode::DiesOnCall,
        ["pages"] => Mode::Pages,
        ["hangs-list"] => Mode::HangsList,
        ["restless"] => Mode::Restless,
        ["weird-fields"] => Mode::WeirdFields,
        _ => {
            writeln!(io::stderr(), "rude_server: no such mode: {arguments:?}")?;
            return Ok(ExitCode::from(2));
        }
    };
    if let Mode::Exit = mode {
        writeln!(io::stderr(), "rude_server: refusing to work today")?;
        return Ok(ExitCode::from(3));
    }
    serve(&mode)
}

fn print(text: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn serve(mode: &Mode) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut stdout = io::stdout().lock();
    let mut listed = false;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match mode {
            Mode::Silent => continue,
            Mode::Rubbish => {
                writeln!(stdout, "Starting up… (this is not JSON)")?;
                continue;
            }
            _ => {}
        }
        let request: Request<'_> = serde_json::from_str(&line)?;
        // A notification, or an answer to a request that this server never made.
        let (Some(id), Some(method)) = (request.id, request.method.as_deref()) else { continue };
        if let (Mode::DiesOnCall, "tools/call") = (mode, method) {
            writeln!(io::stderr(), "rude_server: dying in the middle of a call")?;
            return Ok(ExitCode::from(4));
        }
        if let (Mode::SlowInit(delay), "initialize") = (mode, method) {
            std::thread::sleep(*delay);
        }
        let answer = answer(mode, method, &request.params);
        let unanswered = match mode {
            Mode::WrongId => method != "initialize",
            Mode::HangsList => method == "tools/list" && listed,
            _ => false,
        };
        let id = if unanswered { "987654321" } else { id.get() };
        let message = format!(r#"{{"jsonrpc":"2.0","id":{id},{answer}}}"#);
        match mode {
            Mode::Noisy => {
                write!(stdout, "[info] handling {method}\n\n{message}\n{{\"level\":\"info\"}}\n[1,2\n")?;
            }
            Mode::Duplicate => write!(stdout, "{message}\n{message}\n")?,
            Mode::HangsList | Mode::Restless if method == "tools/list" => {
                writeln!(stdout, "{message}\n{LIST_CHANGED}")?;
                listed = true;
            }
            _ => writeln!(stdout, "{message}")?,
        }
        stdout.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The `result` or `error` member of the answer.
fn answer(mode: &Mode, method: &str, params: &Params) -> String {
    match method {
        "initialize" => {
            let version = serde_json::json!(params.protocol_version.as_deref().unwrap_or("2025-11-25"));
            format!(
                r#""result":{{"protocolVersion":{version},"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"rude","version":"0"}}}}"#
            )
        }
        "ping" => r#""result":{}"#.to_owned(),
        "tools/list" => match mode {
            Mode::Pages => page(params.cursor.as_deref()),
            Mode::WeirdFields => {
                format!(r#""result":{{"x-list":{{"b":1,"a":2}},"tools":{WEIRD_TOOLS}}}"#)
            }
            _ => format!(r#""result":{{"tools":{PLAIN_TOOLS}}}"#),
        },
        "tools/call" => match mode {
            Mode::WeirdFields => format!(r#""result":{WEIRD_RESULT}"#),
            Mode::Huge(bytes) => text_result(&"x".repeat(*bytes)),
            _ => text_result("poked"),
        },
        _ => r#""error":{"code":-32601,"message":"method not found"}"#.to_owned(),
    }
}

/// Two tools a page; the cursors are opaque and need escaping in URLs and JSON alike.
fn page(cursor: Option<&str>) -> String {
    let (numbers, next) = match cursor {
        None => ([1, 2], Some("page/2?\"x\"")),
        Some("page/2?\"x\"") => ([3, 4], Some("page 3")),
        Some("page 3") => ([5, 6], None),
        Some(_) => return r#""error":{"code":-32602,"message":"no such cursor"}"#.to_owned(),
    };
    let tools =
        numbers.map(|n| format!(r#"{{"name":"page_{n}","inputSchema":{{"type":"object"}}}}"#)).join(",");
    let next = next.map(|next| format!(r#","nextCursor":{}"#, serde_json::json!(next))).unwrap_or_default();
    format!(r#""result":{{"tools":[{tools}]{next}}}"#)
}

fn text_result(text: &str) -> String {
    format!(r#""result":{{"content":[{{"type":"text","text":"{text}"}}]}}"#)
}
