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
    let new = match put(&mut document, section, name, entry)? {
        true => printed(&document),
        false => {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
            let apart = if text.is_empty() { "" } else { newline };
            format!("{text}{end}{apart}{}", printed(&alone(section, name, entry)))
        }
    };
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

/// Puts it where it is already, or where its section is an inline table. Elsewhere nothing is done (`false`): the
/// library would put it above the comments that follow, and what is commented out there would become ours.
fn put(document: &mut DocumentMut, section: &str, name: &str, entry: &Value) -> Result<bool, Refusal> {
    let old = match document.get_mut(section) {
        None => return Ok(false),
        Some(Item::Table(servers)) => match servers.get_mut(name) {
            None => return Ok(false),
            Some(old) => old,
        },
        Some(Item::Value(toml_edit::Value::InlineTable(servers))) => {
            match servers.get_mut(name) {
                None => {
                    servers.insert(name, toml_edit::Value::InlineTable(inline(entry)));
                }
                Some(old) if is_commented(&Item::Value(old.clone())) => return Err(Refusal::Comments),
                // Inserted, it would take what is said above the old one with it.
                Some(old) => replace(old, entry),
            }
            return Ok(true);
        }
        Some(_) => return Err(Refusal::Layout),
    };
    if is_commented(old) {
        return Err(Refusal::Comments);
    }
    match old {
        Item::Table(old) => {
            let mut new = table(entry);
            // What is said above it, and its place.
            *new.decor_mut() = old.decor().clone();
            new.set_position(old.position());
            *old = new;
        }
        Item::Value(old) => replace(old, entry),
        old => *old = Item::Value(toml_edit::Value::InlineTable(inline(entry))),
    }
    Ok(true)
}

/// Puts the entry in the place of a value; what is beside it stays.
fn replace(old: &mut toml_edit::Value, entry: &Value) {
    let mut new = inline(entry);
    *new.decor_mut() = old.decor().clone();
    *old = toml_edit::Value::InlineTable(new);
}

/// Whether there are comments in what is replaced, its tables included. What is said above and beside it stays.
fn is_commented(old: &Item) -> bool {
    let (mut document, mut old) = (DocumentMut::new(), old.clone());
    match &mut old {
        Item::Table(table) => table.decor_mut().clear(),
        Item::Value(value) => value.decor_mut().clear(),
        Item::ArrayOfTables(_) | Item::None => {}
    }
    // `Display` of a table leaves out the tables in it; that of a document does not.
    document.insert("entry", old);
    let (text, said) = (document.to_string(), tables(document.as_table()));
    // A `#` in a key or a string counts: one more of it says something else. One more in a comment does not.
    text.match_indices('#').any(|(at, sign)| {
        let mut longer = text.clone();
        longer.insert_str(at, sign);
        !longer.parse::<DocumentMut>().is_ok_and(|longer| tables(longer.as_table()) != said)
    })
}

/// A document with nothing but the entry.
fn alone(section: &str, name: &str, entry: &Value) -> DocumentMut {
    let mut servers = Table::new();
    // Its own head would say nothing.
    servers.set_implicit(true);
    servers.insert(name, Item::Table(table(entry)));
    let mut document = DocumentMut::new();
    document.insert(section, Item::Table(servers));
    document
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
    #[case(
        "[profile]\na = 1\n# b = 2\n",
        "[profile]\na = 1\n# b = 2\n\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n"
    )]
    #[case(
        "[mcp_servers.x]\nurl = \"y\"\n# enabled = false\n\n[other]\na = 1",
        "[mcp_servers.x]\nurl = \"y\"\n# enabled = false\n\n[other]\na = 1\n\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n"
    )]
    #[case("# nothing yet", "# nothing yet\n\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n")]
    #[case(
        "mcp_servers.x.url = \"y\"\n",
        "mcp_servers.x.url = \"y\"\n\n[mcp_servers.sidegate]\nurl = \"http://h/mcp\"\n"
    )]
    #[case(
        "[mcp_servers.sidegate] # ours\nurl = \"http://h/#a\"\n\n[mcp_servers.sidegate.env]\n\"#\" = 'b#'\n# next\n[other]\n",
        "[mcp_servers.sidegate] # ours\nurl = \"http://h/mcp\"\n# next\n[other]\n"
    )]
    #[case(
        "mcp_servers = { sidegate = { url = \"y#z\" } } # why\n",
        "mcp_servers = { sidegate = { url = \"http://h/mcp\" } } # why\n"
    )]
    #[case(
        "[mcp_servers]\nsidegate = { url = \"y\" } # ours\n",
        "[mcp_servers]\nsidegate = { url = \"http://h/mcp\" } # ours\n"
    )]
    #[case(
        "mcp_servers = {\n  # ours\n  sidegate = { url = \"y\" },\n}\n",
        "mcp_servers = {\n  # ours\n  sidegate = { url = \"http://h/mcp\" },\n}\n"
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
    #[case(
        "[mcp_servers.sidegate]\nurl = \"y\"\n[mcp_servers.sidegate.env]\n# why\nA = \"b\"\n",
        "there are comments in the entry"
    )]
    #[case("# why\n[mcp_servers.sidegate.http_headers]\nA = \"b\"\n", "there are comments in the entry")]
    #[case("[[mcp_servers.sidegate]]\nurl = \"y\" # why\n", "there are comments in the entry")]
    #[case("[mcp_servers]\n# why\nsidegate.url = \"y\"\n", "there are comments in the entry")]
    #[case("[mcp_servers.sidegate]\nurl = \"\\u0023\" # why\n", "there are comments in the entry")]
    #[case("mcp_servers = { sidegate = {\n  url = \"y\", # why\n} }\n", "there are comments in the entry")]
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
