//! The reference: settings and definitions, made from their schemas, metrics, made from their definitions, and the command
//! line, made from its help.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;
use sidegate::telemetry::metrics::definitions::{ALL as METRICS, Attribute};
use sidegate::{config, mcpserver};

use super::support::generated;
use super::support::sidegate::binary;

/// A property of a schema that is no group of others.
struct Leaf {
    path: String,
    type_: String,
    default: String,
    description: String,
}

/// The properties below `schema`, in the order of the file, each with its path.
fn leaves(root: &Value, schema: &Value, path: &str, into: &mut Vec<Leaf>) {
    for (name, property) in schema["properties"].as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let target = property["$ref"].as_str().map(|reference| {
            root.pointer(reference.strip_prefix('#').unwrap())
                .unwrap_or_else(|| panic!("{path}: {reference}"))
        });
        let of = |key: &str| property.get(key).or_else(|| target.and_then(|target| target.get(key)));
        if of("properties").is_some() {
            leaves(root, target.unwrap_or(property), &path, into);
            continue;
        }
        into.push(Leaf {
            type_: type_of(property)
                .or_else(|| type_of(target?))
                .unwrap_or_else(|| panic!("{path}: no type")),
            default: of("default").map(|value| format!("`{value}`")).unwrap_or_default(),
            description: of("description")
                .and_then(Value::as_str)
                .unwrap_or_else(|| panic!("{path}: no description"))
                .replace('|', "\\|"),
            path,
        });
    }
}

/// What a property may be, in words.
fn type_of(property: &Value) -> Option<String> {
    let code = |word: &Value| format!("`{}`", word.as_str().unwrap());
    if let Some(words) = property.get("enum") {
        return Some(words.as_array().unwrap().iter().map(code).collect::<Vec<_>>().join(", "));
    }
    if let Some(word) = property.get("const") {
        return Some(code(word));
    }
    if let Some(choices) = property.get("anyOf") {
        let choices = choices.as_array().unwrap().iter().map(|choice| type_of(choice).unwrap());
        return Some(choices.collect::<Vec<_>>().join(" or "));
    }
    let type_ = property["type"].as_str()?;
    let items = property.get("items").map(|items| format!(" of {}s", items["type"].as_str().unwrap()));
    Some(format!("{type_}{}", items.unwrap_or_default()))
}

#[test]
fn settings() {
    let schema: Value = serde_json::from_str(config::SCHEMA).unwrap();
    let mut found = Vec::new();
    leaves(&schema, &schema, "", &mut found);
    let mut text = String::from(
        "# Settings\n\n\
        <!-- Made from src/config/schema.json and src/config/keys.rs by tests/integration/reference.rs. -->\n\n\
        `config.yaml` in the configuration directory (`~/.config/sidegate`, or `--config-dir`, or `SIDEGATE_CONFIG_DIR`). Every key is\n\
        optional; a key that is not known is an error. A flag goes before the environment variable, that before the file, the\n\
        file before the default. `sidegate config show` prints every value with where it comes from, `sidegate config schema` the\n\
        JSON Schema for editors.\n\n\
        | key | type | default | means |\n| --- | --- | --- | --- |\n",
    );
    for Leaf { path, type_, default, description } in &found {
        writeln!(text, "| `{path}` | {type_} | {default} | {description} |").unwrap();
    }
    text.push_str(
        "\n## Variables and flags\n\n| key | variable | flag of `sidegate serve` |\n| --- | --- | --- |\n",
    );
    for key in config::keys::ALL {
        let flag = key.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        writeln!(text, "| `{}` | `{}` | {flag} |", key.path, key.variable).unwrap();
    }
    text.push_str("\nThe last ones are no keys of the file: they say where an instance is, and one file may serve several.\n");
    generated::check("docs/reference/settings.md", &text);
}

#[test]
fn definitions() {
    let schema: Value = serde_json::from_str(mcpserver::SCHEMA).unwrap();
    let mut found = Vec::new();
    leaves(&schema, &schema, "", &mut found);
    let mut text = String::from(
        "# Definitions\n\n\
        <!-- Made from src/mcpserver/schema.json by tests/integration/reference.rs. -->\n\n\
        `mcpservers/<name>.yaml` in the configuration directory: one server a file, named by the file. The name is a DNS-1123 label. A\n\
        key that is not known is an error; all mistakes of a file are reported at once, each with line and column. In texts `${VAR}` is\n\
        taken from the environment and must be set, `${VAR:-default}` has a default, `$$` is a dollar. `sidegate validate` checks\n\
        the files, `sidegate config schema mcpserver` prints the JSON Schema for editors.\n\n\
        | key | type | default | means |\n| --- | --- | --- | --- |\n",
    );
    for Leaf { path, type_, default, description } in &found {
        writeln!(text, "| `{path}` | {type_} | {default} | {description} |").unwrap();
    }
    generated::check("docs/reference/definitions.md", &text);
}

/// The help of a command, and of those below it.
fn help(command: &[String], into: &mut String) {
    let mut asked = Command::new(binary());
    let output = asked.args(command).arg("--help").env_clear().env("COLUMNS", "100").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let title = ["sidegate", &command.join(" ")].join(" ");
    writeln!(into, "\n## {}\n\n```text\n{}\n```", title.trim_end(), lines.join("\n")).unwrap();
    let list = lines.iter().skip_while(|line| **line != "Commands:").skip(1);
    for name in list.map_while(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        help(&[command, &[name.to_owned()]].concat(), into);
    }
}

#[test]
fn command_line() {
    let mut text = String::from(
        "# Command line\n\n\
        <!-- Made from what `--help` says by tests/integration/reference.rs. -->\n\n\
        What `--help` says of each command; `-h` says less. `sidegate man DIR` writes the same as manual pages.\n",
    );
    help(&[], &mut text);
    generated::check("docs/reference/cli.md", &text);
}

#[test]
fn metrics() {
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let mut text = String::from(
        "# Metrics\n\n\
        <!-- Made from src/telemetry/metrics/definitions.rs by tests/integration/reference.rs. -->\n\n\
        What an instance counts and measures. Prometheus reads it from `GET /metrics`, beside `/mcp`: under the same rules for Host and\n\
        Origin and, where there is a token (`aggregator.tokenFile`), only with `Authorization: Bearer`. There, attributes are labels\n\
        with `_` for each dot, and `target_info` says what is asked. A series without a value is left out.\n\n\
        A gateway has metrics of its own, of routes and connections: at `http://127.0.0.1:<port>/metrics` with the port `stats` that\n\
        `sidegate status` shows, without a token.\n\n\
        | name | in Prometheus | kind | unit | attributes | means |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for metric in &METRICS {
        let keys: Vec<String> = metric.attributes.iter().map(|attribute| code(attribute.key)).collect();
        writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.prometheus_name(),
            metric.kind.name(),
            code(metric.unit),
            keys.join(", "),
            metric.description,
        )
        .unwrap();
    }
    text.push_str("\n## Attributes\n\n| attribute | of | means |\n| --- | --- | --- |\n");
    // One key may mean different things in different places.
    let mut attributes: Vec<(&Attribute, Vec<String>)> = Vec::new();
    for metric in &METRICS {
        for attribute in metric.attributes {
            match attributes.iter_mut().find(|(known, _)| *known == attribute) {
                Some((_, owners)) => owners.push(code(metric.name)),
                None => attributes.push((attribute, vec![code(metric.name)])),
            }
        }
    }
    for (attribute, owners) in attributes {
        writeln!(text, "| `{}` | {} | {} |", attribute.key, owners.join(", "), attribute.meaning).unwrap();
    }
    generated::check("docs/reference/metrics.md", &text);
}
