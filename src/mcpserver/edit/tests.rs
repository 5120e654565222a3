use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::mcpserver::tests::reader;

const HEAD: &str = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\n";

/// Files that are laid out in awkward ways. Each is edited right or refused.
fn corpus() -> Vec<(&'static str, String)> {
    let headed = |text: &str| format!("{HEAD}{text}");
    let plain = headed("spec:\n  type: stdio\n  command: x\n");
    let with = |text: &str| headed(&format!("spec:\n  type: stdio\n  command: x\n{text}"));
    vec![
        ("plain", plain.clone()),
        ("windows line ends", plain.replace('\n', "\r\n")),
        ("windows line ends, key there", with("  suspended: false\n").replace('\n', "\r\n")),
        ("old mac line ends", plain.replace('\n', "\r")),
        ("mixed line ends", headed("spec:\r\n  type: stdio\n  command: x\r\n")),
        ("byte order mark", format!("\u{feff}{plain}")),
        ("byte order mark and spec first", format!("\u{feff}spec: {{type: stdio, command: x}}\n{HEAD}")),
        ("no final newline", plain.trim_end().to_owned()),
        ("no final newline, key last", with("  suspended: false")),
        ("no final newline, flow", headed("spec: {type: stdio, command: x}")),
        ("tabs where they may be", headed("spec:\t# c\t\n  type:\tstdio\n  command:\tx\t# d\n  suspended:\tfalse\t# e\n")),
        ("tabs before comments", headed("spec:\t# c\n  type: stdio\t# d\n  command: x\t\n")),
        ("anchors and aliases", headed("spec: &spec\n  type: &t stdio\n  command: *t\n  suspended: &s false\n")),
        ("an alias of what is changed", with("  suspended: &s false\n  autoStart: *s\n")),
        ("an alias as the value", with("  autoStart: &s false\n  suspended: *s\n")),
        ("a merge key", format!("x: &x {{type: stdio}}\n{HEAD}spec:\n  <<: *x\n  command: x\n")),
        ("spec is an alias", headed("metadata: {labels: &x {type: stdio, command: x}}\nspec: *x\n")),
        ("quoted keys", headed("\"spec\":\n  'type': stdio\n  \"command\": x\n  \"suspended\": false\n")),
        ("escaped keys", headed("\"spe\\u0063\":\n  type: stdio\n  command: x\n")),
        ("flow", headed("spec: {type: stdio, command: x, suspended: false} # c\n")),
        ("flow, absent", headed("spec: { type: stdio, command: x } # c\n")),
        ("flow over lines", headed("spec: {\n    type: stdio, # c\n    command: x,\n  }\n")),
        ("flow below", headed("spec:\n  # c\n  {type: stdio,\n   command: x}\n")),
        ("flow anchored", headed("spec: &a { type: stdio, command: x }\n")),
        ("flow, first key anchored", headed("spec: {&a type: stdio, command: *a}\n")),
        ("flow, explicit keys", headed("spec: {? type : stdio, ? command : x}\n")),
        ("all in braces", "{apiVersion: sidegate.dev/v1alpha1, kind: MCPServer, spec: {type: stdio, command: x}}".to_owned()),
        ("json", "{\n\t\"apiVersion\": \"sidegate.dev/v1alpha1\",\n\t\"kind\": \"MCPServer\",\n\t\"spec\": {\n\t\t\"type\": \"stdio\",\n\t\t\"command\": \"x\"\n\t}\n}\n".replace('\t', "  ")),
        ("two documents", format!("{plain}---\n{plain}")),
        ("document marks", format!("%YAML 1.2\n--- # c\n{plain}...\n# end\n")),
        ("duplicate key", with("  suspended: false\n  suspended: false\n")),
        ("duplicate spec", format!("{plain}spec: {{type: stdio, command: y}}\n")),
        ("not a boolean", with("  suspended: yes\n")),
        ("text", with("  suspended: \"false\"\n")),
        ("other spellings", with("  suspended: FALSE\n")),
        ("nothing", with("  suspended:\n")),
        ("nothing and a comment", with("  suspended: # not yet\n  timeout: 5\n")),
        ("null", with("  suspended: ~ # c\n")),
        ("nothing in braces", headed("spec: {type: stdio, suspended:, command: x}\n")),
        ("explicit tag", with("  suspended: !!bool false # c\n")),
        ("tag and nothing", with("  suspended: !!null\n")),
        ("tag and anchor", with("  suspended: !!bool &a false\n")),
        ("wrong tag", with("  suspended: !!str false\n")),
        ("tagged mapping", headed("spec: !!map\n  type: stdio\n  command: x\n")),
        ("anchor on a line of its own", headed("spec:\n  &a\n  type: stdio\n  command: x\n")),
        ("one space", headed("spec:\n type: stdio\n command: x\n")),
        ("five spaces", headed("spec:\n     type: stdio\n     command: x\n")),
        ("eight spaces", headed("spec:\n        type: stdio\n        command: x\n        suspended: false\n")),
        ("indented from the start", plain.replace('\n', "\n  ").replacen("api", "  api", 1).trim_end_matches(' ').to_owned()),
        ("comment between key and value", with("  suspended:\n    # because\n    false\n")),
        ("comment above the first key", headed("spec:\n  # how it is reached\n  type: stdio\n  command: x\n")),
        ("comment with the key", headed("spec: # suspended: false\n  # suspended: false\n\n  type: stdio # suspended: false\n  command: x\n")),
        ("comment without indentation", headed("spec:\n# c\n  type: stdio\n  command: x\n# d\n")),
        ("empty lines", headed("spec:\n\n\n  type: stdio\n\n  command: x\n\n")),
        ("trailing spaces", headed("spec:   \n  type: stdio   \n  command: x   \n  suspended:   false   \n")),
        ("explicit keys", headed("? spec\n: type: stdio\n  command: x\n")),
        ("explicit keys inside", headed("spec:\n  ? type\n  : stdio\n  ? command\n  : x\n")),
        ("spec is not last", format!("spec:\n  type: stdio\n  command: x\n{HEAD}")),
        ("another suspended before", headed("metadata:\n  labels:\n    suspended: \"false\"\nspec:\n  type: stdio\n  command: x\n  env:\n    suspended: \"false\"\n")),
        ("looks like the key", headed("spec:\n  type: stdio\n  command: x\n  description: |\n    suspended: false\n    spec:\n")),
        ("folded text before", headed("spec:\n  description: >-\n    two\n    lines\n  type: stdio\n  command: x\n")),
        ("not ascii", headed("metadata:\n  labels: {é: 日本}\nspec:\n  type: stdio # 日本語 🦀\n  description: 'ü'\n  suspended: false # ß\n  command: x\n")),
        ("already so", with("  suspended: true # c\n")),
        ("already so, other spelling", with("  suspended: True\n")),
        ("unknown key", with("  commnd: x\n")),
        ("empty", String::new()),
        ("nul", format!("{plain}\u{0}")),
    ]
}

fn outcome(text: &str, suspended: bool) -> String {
    match suspend(&reader(), Path::new("time.yaml"), text.as_bytes(), suspended) {
        Ok(Some(new)) => new,
        Ok(None) => "(as it is)".to_owned(),
        Err(error) => format!("({error})"),
    }
}

#[test]
fn awkward_files_are_right_or_refused() {
    let visible = |text: &str| {
        text.replace("\r\n", "␍\n")
            .replace('\r', "␍")
            .replace('\t', "→")
            .replace('\u{feff}', "BOM")
            .replace('\0', "NUL")
            .replace(" \n", "·\n")
    };
    let mut report = String::new();
    for (name, text) in corpus() {
        report.push_str(&format!("=== {name}\n"));
        let after = outcome(&text, true);
        // Of a file that was edited, the lines that differ say it all.
        let old: Vec<&str> = text.split_inclusive('\n').collect();
        let new: Vec<&str> = after.split_inclusive('\n').collect();
        let same_front = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let left = old.len().min(new.len()) - same_front;
        let same_back =
            old.iter().rev().zip(new.iter().rev()).take(left).take_while(|(old, new)| old == new).count();
        let shown = |lines: &[&str], sign: char| -> String {
            lines[same_front..lines.len() - same_back]
                .iter()
                .map(|line| format!("{sign}{}\n", visible(line).trim_end_matches('\n')))
                .collect()
        };
        if after.starts_with('(') {
            report.push_str(&format!("{}\n", visible(&after)));
        } else {
            report.push_str(&shown(&old, '-'));
            report.push_str(&shown(&new, '+'));
        }
    }
    insta::assert_snapshot!(report);
}

#[test]
fn what_was_stopped_can_be_started_again() {
    for (name, text) in corpus() {
        let Ok(Some(stopped)) = suspend(&reader(), Path::new("time.yaml"), text.as_bytes(), true) else {
            continue;
        };
        let started = outcome(&stopped, false);
        assert_eq!(started.len(), stopped.len() + 1, "{name}: {started}");
        assert_eq!(outcome(&started, true), stopped, "{name}");
    }
}

/// Pieces that a file may be made of.
fn layout() -> impl Strategy<Value = String> {
    let eol = prop_oneof![4 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\r")];
    let space = prop_oneof![3 => Just(""), 1 => Just(" "), 1 => Just(" # suspended: true"), 1 => Just("\t")];
    let property = prop_oneof![6 => Just(""), 1 => Just("&a "), 1 => Just("!!map ")];
    let value = prop_oneof![
        3 => Just("false"), 1 => Just("False"), 1 => Just(""), 1 => Just("~"), 1 => Just("!!bool false"), 1 => Just("&s false"),
        1 => Just("*t"), 1 => Just("true"), 1 => Just("no")
    ];
    let key = prop_oneof![5 => Just("suspended"), 1 => Just("'suspended'"), 1 => Just("\"suspended\""), 1 => Just("? suspended")];
    let comment = prop_oneof![2 => Just(""), 1 => Just("# é\n"), 1 => Just("    # spec:\n"), 1 => Just("\n")];
    (eol, space, property, value, key, comment, 1..9usize, 0..5usize, any::<bool>(), any::<bool>()).prop_map(
        |(eol, space, property, value, key, comment, indent, at, flow, bom)| {
            let mut entries =
                vec!["type: stdio".to_owned(), "autoStart: &t false".to_owned(), "command: x".to_owned()];
            if at < 4 {
                entries.insert(at.min(3), format!("{key}: {value}"));
            }
            let spec = if flow {
                format!("{property}{{{}}}{space}\n", entries.join(", "))
            } else {
                let lines: String =
                    entries.iter().map(|entry| format!("{:indent$}{entry}{space}\n", "")).collect();
                format!("{property}{space}\n{comment}{lines}")
            };
            let text = format!("{HEAD}spec: {spec}").replace('\n', eol);
            if bom { format!("\u{feff}{text}") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_the_layout_only_this_changes(text in layout(), suspended: bool) {
        let path = Path::new("time.yaml");
        let old = reader().read(path, text.as_bytes());
        match suspend(&reader(), path, text.as_bytes(), suspended) {
            Ok(Some(new)) => {
                let old = old.unwrap();
                prop_assert_ne!(old.suspended, suspended);
                let edited = reader().read(path, new.as_bytes()).unwrap();
                prop_assert_eq!(edited, Definition { suspended, ..old });
                // What was there is there: comments included.
                prop_assert_eq!(new.matches('#').count(), text.matches('#').count());
                prop_assert_eq!(new.starts_with('\u{feff}'), text.starts_with('\u{feff}'));
            }
            Ok(None) => prop_assert_eq!(old.unwrap().suspended, suspended),
            Err(EditError::Invalid(_)) => prop_assert!(old.is_err()),
            Err(error) => prop_assert!(matches!(error, EditError::Refused { .. }), "{error}"),
        }
    }
}
