//! One server of another client as the `spec` of a definition.

use std::path::Path;

use serde_json::{Map, Value};

use super::Notes;
use super::variables::Variables;
use crate::mcpserver::expand::literal as escaped;
use crate::mcpserver::spec::is_reserved_header;

/// Keys that change nothing about how the server is reached, or that its client alone understands.
const WITHOUT_MEANING: [&str; 8] =
    ["$schema", "alwaysAllow", "autoApprove", "dev", "gallery", "id", "name", "version"];

/// The `spec` of an entry.
///
/// # Errors
///
/// It cannot be carried over; the reason is for people, and holds no value that may be a secret.
pub(super) fn spec(entry: &Value, variables: &Variables<'_>, notes: &mut Notes) -> Result<Value, String> {
    let entry = entry.as_object().ok_or("it is no object")?;
    let kind = kind(entry, notes)?;
    let mut spec = Map::new();
    spec.insert("type".to_owned(), kind.into());
    let mut translate = |text: &str| variables.translated(text, notes);
    if kind == "stdio" {
        let command = entry.get("command").and_then(Value::as_str).ok_or("its command is no text")?;
        spec.insert("command".to_owned(), translate(command)?.into());
        if let Some(args) = entry.get("args").filter(|args| !args.is_null()) {
            let args = args.as_array().ok_or("its args are no list")?;
            let args: Result<Vec<Value>, String> = args
                .iter()
                .map(|arg| Ok(translate(&text(arg).ok_or("one of its args is no text")?)?.into()))
                .collect();
            insert(&mut spec, "args", Value::Array(args?));
        }
        insert(&mut spec, "env", texts(entry, "env", variables, notes)?);
        if let Some(cwd) = cwd(entry, variables, notes)? {
            spec.insert("cwd".to_owned(), cwd.into());
        }
    } else {
        let url = entry.get("url").and_then(Value::as_str).ok_or("its url is no text")?;
        spec.insert("url".to_owned(), translate(url)?.into());
        insert(&mut spec, "headers", texts(entry, "headers", variables, notes)?);
    }
    if let Some(description) = entry.get("description").and_then(Value::as_str)
        && description.chars().count() <= 500
    {
        insert(&mut spec, "description", description.into());
    }
    if entry.get("disabled") == Some(&Value::Bool(true)) {
        spec.insert("suspended".to_owned(), true.into());
        notes.say("it is disabled there, so it is suspended here; `suspended: false` starts it");
    }
    left_over(entry, kind, notes);
    Ok(Value::Object(spec))
}

fn kind(entry: &Map<String, Value>, notes: &mut Notes) -> Result<&'static str, String> {
    let said = entry.get("type").or_else(|| entry.get("transport")).and_then(Value::as_str);
    match said {
        Some("stdio") => Ok("stdio"),
        Some("http" | "streamable-http" | "streamableHttp" | "streamable_http") => Ok("streamable-http"),
        Some("sse") => Ok("sse"),
        Some(other) => Err(format!("its type {other:?} is none that Sidegate has")),
        None if entry.contains_key("command") => Ok("stdio"),
        None => {
            let url = entry.get("url").and_then(Value::as_str).ok_or("it has neither a command nor a url")?;
            // Without a type, clients try one transport after the other.
            let path = url.split(['?', '#']).next().unwrap_or_default();
            if path.trim_end_matches('/').ends_with("/sse") {
                notes.say("it has no type and its url ends in /sse, so it is taken for sse");
                Ok("sse")
            } else {
                Ok("streamable-http")
            }
        }
    }
}

/// Text, and what clients take for it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn texts(
    entry: &Map<String, Value>,
    key: &str,
    variables: &Variables<'_>,
    notes: &mut Notes,
) -> Result<Value, String> {
    let mut texts = Map::new();
    let Some(given) = entry.get(key).filter(|given| !given.is_null()) else { return Ok(Value::Null) };
    for (name, value) in given.as_object().ok_or_else(|| format!("its {key} is no object"))? {
        if key == "headers" && is_reserved_header(name) {
            notes.say(format!("the header {name} is left out: it belongs to the connection"));
            continue;
        }
        if value.is_null() {
            notes.attend(format!("{key}.{name} is null there, which takes it away; it is left out here"));
            continue;
        }
        let text = text(value).ok_or_else(|| format!("{key}.{name} is no text"))?;
        let text = variables.translated(&text, notes).map_err(|why| format!("{key}.{name}: {why}"))?;
        texts.insert(name.clone(), text.into());
    }
    Ok(Value::Object(texts))
}

/// Clients run servers in the project; our default is the configuration directory.
fn cwd(
    entry: &Map<String, Value>,
    variables: &Variables<'_>,
    notes: &mut Notes,
) -> Result<Option<String>, String> {
    let project = variables.project.as_ref().map(|project| escaped(&project.to_string_lossy()));
    match entry.get("cwd").filter(|cwd| !cwd.is_null()) {
        None => Ok(project),
        Some(cwd) => {
            let cwd = variables.translated(cwd.as_str().ok_or("its cwd is no text")?, notes)?;
            match project {
                Some(project) if Path::new(&cwd).is_relative() && !cwd.starts_with("${") => {
                    Ok(Some(Path::new(&project).join(cwd).to_string_lossy().into_owned()))
                }
                _ => Ok(Some(cwd)),
            }
        }
    }
}

fn left_over(entry: &Map<String, Value>, kind: &str, notes: &mut Notes) {
    const BOTH: [&str; 4] = ["type", "transport", "description", "disabled"];
    let known: &[&str] =
        if kind == "stdio" { &["command", "args", "env", "cwd"] } else { &["url", "headers"] };
    for key in entry.keys().map(String::as_str) {
        if BOTH.contains(&key) || known.contains(&key) {
            continue;
        }
        if WITHOUT_MEANING.contains(&key) {
            notes.say(format!("{key} is not carried over"));
        } else if key == "envFile" {
            notes.attend("envFile is not carried over: put its variables into spec.env");
        } else {
            notes.attend(format!("{key} is not carried over"));
        }
    }
}

fn insert(spec: &mut Map<String, Value>, key: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if !empty {
        spec.insert(key.to_owned(), value);
    }
}
