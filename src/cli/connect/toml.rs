//! One entry put into somebody else's TOML file; every other byte stays.
//!
//! Invariants: what comes out is what went in, but for the entry, or it is refused; no comment is lost.

use serde_json::{Map, Value};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, TomlError};

use super::edit::{Edit, Refusal};

/// Sets `[section.name]` to `entry`.
pub(super) fn set(text: &str, section: &str, name: &str, entry: &Value) -> Result<Edit, Refusal> {
    // A byte order mark stays where it is.
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let mut document: DocumentMut = text.parse().map_err(|error| refused(text, &error))?;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    // Whatever the library thinks of a layout: a file that it would change by itself is not edited.
    let printed = |document: &DocumentMut| document.to_string().replace("\r\n", "\n").replace('\n', newline);
    let untouched = printed(&document);
    if untouched != text && untouched != format!("{text}{newline}") {
        return Err(Refusal::Layout);
    }
    let old = tables(document.as_table());
    match old.get(section) {
        Some(Value::Object(servers)) if servers.get(name) == Some(entry) => return Ok(Edit::Unchanged),
        None | Some(Value::Object(_)) => {}
        Some(_) => return Err(Refusal::NoTable(format!("{section:?}"))),
    }
    put(&mut document, section, name, entry)?;
    let new = printed(&document);
    let mut expected = Value::Object(old);
    expected[section][name] = entry.clone();
    let parsed: Result<DocumentMut, _> = new.parse();
    match parsed {
        Ok(parsed) if Value::Object(tables(parsed.as_table())) == expected => {
            Ok(Edit::Changed(format!("{mark}{new}")))
        }
        _ => Err(Refusal::Layout),
    }
}

fn put(document: &mut DocumentMut, section: &str, name: &str, entry: &Value) -> Result<(), Refusal> {
    let mut servers = Table::new();
    // Its own head would say nothing.
    servers.set_implicit(true);
    let servers = document.entry(section).or_insert(Item::Table(servers));
    if let Item::Value(toml_edit::Value::InlineTable(servers)) = servers {
        let is_commented = servers.get(name).is_some_and(|old| old.to_string().contains('#'));
        servers.insert(name, toml_edit::Value::InlineTable(inline(entry)));
        return if is_commented { Err(Refusal::Comments) } else { Ok(()) };
    }
    let Item::Table(servers) = servers else { return Err(Refusal::Layout) };
    match servers.get_mut(name) {
        None => {
            let new = table(entry);
            servers.insert(name, Item::Table(new));
        }
        Some(old) if old.to_string().contains('#') => return Err(Refusal::Comments),
        Some(Item::Table(old)) => {
            let mut new = table(entry);
            // What is said above it, and its place.
            *new.decor_mut() = old.decor().clone();
            new.set_position(old.position());
            *old = new;
        }
        Some(old) => *old = Item::Value(toml_edit::Value::InlineTable(inline(entry))),
    }
    Ok(())
}

/// The entry as a table with a head of its own; objects in it are inline tables.
fn table(entry: &Value) -> Table {
    let mut table = Table::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        if let Some(value) = toml(value) {
            table.insert(key, Item::Value(value));
        }
    }
    table
}

fn inline(entry: &Value) -> InlineTable {
    let members = entry.as_object().into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.as_str(), toml(value)?))).collect()
}

/// A value of an entry; `null` has no form.
fn toml(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().filter_map(toml).collect::<Array>().into(),
        Value::Object(_) => inline(value).into(),
    })
}

/// What a table says, to compare. Dates are their text.
fn tables(table: &dyn TableLike) -> Map<String, Value> {
    table.iter().map(|(key, item)| (key.to_owned(), said(item))).collect()
}

fn said(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => said_by(value),
        Item::Table(table) => Value::Object(tables(table)),
        Item::ArrayOfTables(items) => items.iter().map(|table| Value::Object(tables(table))).collect(),
    }
}

fn said_by(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => text.value().as_str().into(),
        toml_edit::Value::Integer(number) => (*number.value()).into(),
        toml_edit::Value::Float(number) => (*number.value()).into(),
        toml_edit::Value::Boolean(value) => (*value.value()).into(),
        toml_edit::Value::Datetime(date) => date.value().to_string().into(),
        toml_edit::Value::Array(items) => items.iter().map(said_by).collect(),
        toml_edit::Value::InlineTable(table) => Value::Object(tables(table)),
    }
}

fn refused(text: &str, error: &TomlError) -> Refusal {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let what = error.message().trim().replace('\n', "; ");
    Refusal::Syntax { format: "TOML", why: format!("{what} at line {line} column {column}") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn changed(text: &str) -> String {
        match set(text, "mcp_servers", "sidegate", &json!({"url": "http://h/mcp"})) {
            Ok(Edit::Changed(new)) => new,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[rstest]
    #[case("", "[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n")]
    #[case(
        "# mine\nmodel = \"o\" # the best\n",
        "# mine\nmodel = \"o\" # the best\n\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n"
    )]
    #[case(
        "a = 1\r\n[mcp_servers.x]\r\ncommand = 'y'\r\n",
        "a = 1\r\n[mcp_servers.x]\r\ncommand = 'y'\r\n\r\n[mcp_servers.sidegate]\r\nurl = \"http://h/mcp\"\r\n"
    )]
    #[case(
        "# ours\n[mcp_servers.sidegate]\ncommand = \"x\"\n\n[other]\nb  =  [ 1,2 ]\n",
        "# ours\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n\n[other]\nb  =  [ 1,2 ]\n"
    )]
    #[case(
        "mcp_servers = { x = { url = \"y\" } }\n",
        "mcp_servers = { x = { url = \"y\" } , sidegate = { url = \"http://h/mcp\" } }\n"
    )]
    #[case(
        "[mcp_servers]\nsidegate = { url = \"y\" }\n",
        "[mcp_servers]\nsidegate = { url = \"http://h/mcp\" }\n"
    )]
    fn every_other_byte_stays(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(changed(text), expected);
        assert_eq!(
            set(expected, "mcp_servers", "sidegate", &json!({"url": "http://h/mcp"})),
            Ok(Edit::Unchanged)
        );
        assert_eq!(changed(&format!("\u{feff}{text}")), format!("\u{feff}{expected}"));
    }

    #[rstest]
    #[case("a = 1\n[b\n", "it is not TOML: ")]
    #[case("a = 1\na = 2\n", "it is not TOML: ")]
    #[case("mcp_servers = 5\n", "\"mcp_servers\" is no table")]
    #[case("[[mcp_servers]]\n", "\"mcp_servers\" is no table")]
    #[case("[mcp_servers.sidegate]\nurl = \"y\" # why\n", "there are comments in the entry")]
    #[case("[mcp_servers.sidegate]\n# why\nurl = \"y\"\n", "there are comments in the entry")]
    fn what_cannot_be_edited_is_refused(#[case] text: &str, #[case] why: &str) {
        let refusal = set(text, "mcp_servers", "sidegate", &json!({"url": "u"})).unwrap_err().to_string();
        assert!(refusal.starts_with(why), "{refusal}");
    }

    #[test]
    fn a_mistake_has_its_place() {
        let refusal = set("a = 1\nb = [\n", "mcp_servers", "sidegate", &json!({})).unwrap_err().to_string();
        assert!(
            refusal.ends_with("at line 3 column 1") || refusal.contains("at line 2 column "),
            "{refusal}"
        );
    }
}
