use std::os::unix::fs::symlink;

use fs_err as fs;
use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::environment::Environment;
use crate::mcpserver::Ourselves;

const TIME: &str = "\
# what time it is
apiVersion: sidegate.dev/v1alpha1
kind: MCPServer
spec:
  type: stdio # over pipes
  command: x
";

/// A configuration directory and a state directory.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// As a process that has just started sees it.
    fn definitions(&self) -> Definitions {
        Definitions::new(self.reader())
    }

    fn reader(&self) -> Reader {
        let environment = Environment::from_iter([("TOKEN", "hunter22")]);
        Reader::new(&self.0.path().join("config"), environment)
            .unwrap()
            .with_state_dir(&self.0.path().join("state"))
    }

    /// A reader of the definitions and of the `.mcp.json` of a project, which has this text.
    fn reader_with(&self, project: &str, text: &str) -> Reader {
        let file = self.0.path().join(project).join(".mcp.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        self.reader().with_project(&file, None, Ourselves::default())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join("config/mcpservers").join(file)
    }

    fn with(self, file: &str, text: &str) -> Self {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path(file), text).unwrap();
        self
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What a scan says of the server's suspension.
    fn suspended(&self, name: &str) -> bool {
        let scan = self.reader().scan(&self.path("")).unwrap();
        let entry =
            scan.entries.into_iter().find(|entry| entry.name.as_ref() == Some(&server(name))).unwrap();
        entry.outcome.unwrap().suspended
    }

    /// A definition that can be read and not be written, whoever runs the test: a link to a file without a name.
    fn with_unwritable(self, file: &str, text: &str) -> (Self, std::fs::File) {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let mut held = tempfile::tempfile().unwrap();
        held.write_all(text.as_bytes()).unwrap();
        fs::create_dir_all(self.path("")).unwrap();
        symlink(format!("/proc/self/fd/{}", held.as_raw_fd()), self.path(file)).unwrap();
        (self, held)
    }
}

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn stdio() -> Value {
    json!({"type": "stdio", "command": "x"})
}

#[test]
fn a_server_is_suspended_in_its_file() {
    let place = Place::new().with("time.yaml", TIME);
    let definitions = place.definitions();
    let path = place.path("time.yaml");
    let stopped = definitions.suspend(&server("time"), true).unwrap();
    assert_eq!(stopped, Suspension { changed: true, stands_in: StandsIn::Definition(path.clone()) });
    assert_eq!(place.read("time.yaml"), TIME.replace("spec:\n", "spec:\n  suspended: true\n"));
    assert!(place.suspended("time"));
    let again = definitions.suspend(&server("time"), true).unwrap();
    assert_eq!(again, Suspension { changed: false, stands_in: StandsIn::Definition(path.clone()) });
    assert!(definitions.suspend(&server("time"), false).unwrap().changed);
    assert!(!place.suspended("time"));
    assert_eq!(place.files(), ["time.yaml"]);
}

#[test]
fn links_are_followed_and_stay() {
    let place = Place::new().with("other.txt", TIME);
    symlink("other.txt", place.path("link")).unwrap();
    symlink("link", place.path("time.yml")).unwrap();
    place.definitions().suspend(&server("time"), true).unwrap();
    assert!(place.suspended("time"));
    assert!(place.path("time.yml").is_symlink() && place.path("link").is_symlink());
    assert!(place.read("other.txt").contains("suspended: true"));
    assert_eq!(place.definitions().delete(&server("time")).unwrap(), place.path("time.yml"));
    assert_eq!(place.files(), ["link", "other.txt"]);
}

#[test]
fn what_cannot_be_written_is_kept_beside() {
    let (place, held) = Place::new().with_unwritable("time.yaml", TIME);
    let name = server("time");
    let stopped = place.definitions().suspend(&name, true).unwrap();
    assert!(
        stopped.changed && matches!(&stopped.stands_in, StandsIn::Overlay(path) if path.is_file()),
        "{stopped:?}"
    );
    assert!(place.suspended("time"));
    assert!(place.definitions().get(&name).unwrap().outcome.unwrap().suspended);
    assert!(!place.definitions().suspend(&name, true).unwrap().changed);
    // Back to what the file says: nothing has to be kept.
    let started = place.definitions().suspend(&name, false).unwrap();
    assert!(started.changed && matches!(started.stands_in, StandsIn::Definition(_)), "{started:?}");
    assert!(!place.suspended("time"));
    drop(held);
}

/// Runs `f` as a user for whom permissions count.
fn without_privileges(f: impl FnOnce() + Send) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Capabilities belong to a thread. Those of the root user pass over permissions.
            let mut sets = capabilities(None).unwrap();
            for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
                set.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            }
            set_capabilities(None, sets).unwrap();
            f();
        });
        thread.join().unwrap();
    });
}

#[rstest]
#[case::directory("", 0o555, 0o755)]
#[case::file("time.yaml", 0o444, 0o640)]
fn permissions_are_respected(#[case] what: &str, #[case] forbidden: u32, #[case] allowed: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new().with("time.yaml", TIME);
    let set = |mode| fs::set_permissions(place.path(what), std::fs::Permissions::from_mode(mode)).unwrap();
    let name = server("time");
    set(forbidden);
    without_privileges(|| {
        let definitions = place.definitions();
        let stopped = definitions.suspend(&name, true).unwrap();
        assert!(stopped.changed && matches!(stopped.stands_in, StandsIn::Overlay(_)), "{stopped:?}");
        let error = definitions.update(&name, &json!({"command": "go"})).unwrap_err();
        assert!(matches!(error, EditError::NotWritable { .. }), "{error}");
    });
    assert!(place.suspended("time"));
    assert_eq!((place.read("time.yaml"), place.files()), (TIME.to_owned(), vec!["time.yaml".to_owned()]));
    set(allowed);
    without_privileges(|| {
        let again = place.definitions().suspend(&name, true).unwrap();
        assert!(!again.changed && matches!(again.stands_in, StandsIn::Definition(_)), "{again:?}");
    });
    assert!(place.read("time.yaml").contains("suspended: true"));
    assert!(!place.0.path().join("state/suspended/time").exists());
}

#[test]
fn what_is_read_back_shows_no_secret() {
    let place =
        Place::new().with("time.yaml", &TIME.replace("command: x", "command: x\n  env: {A: hunter22}"));
    let debug = format!("{:?}", place.definitions().get(&server("time")).unwrap());
    assert!(!debug.contains("hunter22"), "{debug}");
}

#[test]
fn the_overlay_counts_more_until_the_file_can_be_written() {
    let (place, held) = Place::new().with_unwritable("time.yaml", TIME);
    let name = server("time");
    place.definitions().suspend(&name, true).unwrap();
    fs::remove_file(place.path("time.yaml")).unwrap();
    let place = place.with("time.yaml", TIME);
    assert!(place.suspended("time"), "the intent outlives the way the file is provided");
    assert!(!place.definitions().suspend(&name, true).is_ok_and(|done| done.changed));
    assert!(place.read("time.yaml").contains("suspended: true"), "it has moved into the file");
    let place = place.with("time.yaml", TIME);
    assert!(!place.suspended("time"), "nothing is left beside it");
    drop(held);
}

#[test]
fn intents_of_servers_that_are_gone_are_forgotten() {
    let (place, held) = Place::new().with("other.yaml", TIME).with_unwritable("time.yaml", TIME);
    place.definitions().suspend(&server("time"), true).unwrap();
    fs::remove_file(place.path("time.yaml")).unwrap();
    place.reader().scan(&place.path("")).unwrap();
    let place = place.with("time.yaml", TIME);
    assert!(!place.suspended("time"));
    drop(held);
}

#[test]
fn an_empty_directory_makes_nobody_forget() {
    let (place, held) = Place::new().with_unwritable("time.yaml", TIME);
    place.definitions().suspend(&server("time"), true).unwrap();
    fs::rename(place.path("time.yaml"), place.path("hidden")).unwrap();
    assert!(place.reader().scan(&place.path("")).unwrap().entries.is_empty());
    fs::rename(place.path("hidden"), place.path("time.yaml")).unwrap();
    assert!(place.suspended("time"));
    drop(held);
}

/// What a scan says of the suspension of the project's servers that it finds.
fn suspended_in_project(reader: &Reader) -> Vec<(String, bool)> {
    let entries = reader.scan(&reader.definitions_dir()).unwrap().entries.into_iter();
    let entries = entries.filter(|entry| Some(entry.path.as_path()) == reader.project_file());
    entries
        .filter_map(|entry| entry.outcome.ok())
        .map(|server| (server.name.to_string(), server.suspended))
        .collect()
}

#[test]
fn servers_of_different_projects_are_different_ones() {
    const DB: &str = r#"{"mcpServers": {"db": {"command": "x"}}}"#;
    let (place, held) = Place::new().with("other.yaml", TIME).with_unwritable("time.yaml", TIME);
    let (one, two) = (place.reader_with("one", DB), place.reader_with("two", DB));
    let db = |suspended: bool| [("db".to_owned(), suspended)];
    let stopped = Definitions::new(one.clone()).suspend(&server("db"), true).unwrap();
    assert!(stopped.changed && matches!(stopped.stands_in, StandsIn::Overlay(_)), "{stopped:?}");
    place.definitions().suspend(&server("time"), true).unwrap();
    assert_eq!(suspended_in_project(&two), db(false));

    // Who does not serve the project knows nothing of its servers.
    place.reader().scan(&place.path("")).unwrap();
    let two = place.reader_with("two", r#"{"mcpServers": {"else": {"command": "x"}}}"#);
    assert_eq!(suspended_in_project(&two), [("else".to_owned(), false)]);
    assert_eq!(suspended_in_project(&one), db(true));
    assert!(place.suspended("time"));
    assert!(Definitions::new(one.clone()).get(&server("db")).unwrap().outcome.unwrap().suspended);

    // Nor does a definition of the same name that counts in its place.
    let place = place.with("db.yaml", TIME);
    assert!(!place.suspended("db"));
    fs::remove_file(place.path("db.yaml")).unwrap();

    place.reader_with("one", r#"{"mcpServers": {"else": {"command": "x"}}}"#).scan(&place.path("")).unwrap();
    assert_eq!(suspended_in_project(&place.reader_with("one", DB)), db(false), "it was gone");
    drop(held);
}

#[rstest]
#[case::whole("{")]
#[case::entry(r#"{"mcpServers": {"db": {"type": "ws"}}}"#)]
fn what_runs_of_a_project_that_is_wrong_can_be_suspended_and_not_be_started(#[case] wrong: &str) {
    let place = Place::new();
    let right = r#"{"mcpServers": {"db": {"command": "x"}}}"#;
    let reader = place.reader_with("project", wrong);
    fs::create_dir_all(place.path("")).unwrap();
    let definitions = Definitions::new(reader.clone());
    let stopped = definitions.suspend(&server("db"), true).unwrap();
    assert!(stopped.changed && matches!(stopped.stands_in, StandsIn::Overlay(_)), "{stopped:?}");
    let scan = reader.scan(&place.path("")).unwrap();
    match scan.unread {
        Some(unread) => assert_eq!(unread.intents.get(&server("db")), Some(&true)),
        None => assert_eq!(scan.entries[0].intent, Some(true)),
    }
    let error = definitions.suspend(&server("db"), false).unwrap_err();
    assert!(matches!(&error, EditError::Invalid(invalid) if invalid.path.ends_with(".mcp.json")), "{error}");
    assert_eq!(suspended_in_project(&place.reader_with("project", right)), [("db".to_owned(), true)]);
}

#[test]
fn an_intent_that_cannot_be_read_is_a_mistake() {
    let (place, held) = Place::new().with_unwritable("time.yaml", TIME);
    place.definitions().suspend(&server("time"), true).unwrap();
    let file = place.0.path().join("state/suspended/time");
    fs::write(&file, "perhaps").unwrap();
    let scan = place.reader().scan(&place.path("")).unwrap();
    let report = scan.entries[0].outcome.as_ref().unwrap_err().to_string();
    assert!(
        report.contains(&format!("{}: ", file.display())) && report.ends_with("; remove that file"),
        "{report}"
    );
    drop(held);
}

#[test]
fn suspending_has_errors() {
    let place = Place::new().with("bad.yaml", "spec: [").with("two.yaml", TIME).with("two.YML", TIME);
    let place = place.with("odd.yaml", &TIME.replace("type: stdio", "? type\n  : stdio"));
    let suspend = |name: &str| place.definitions().suspend(&server(name), true).unwrap_err();
    assert!(matches!(suspend("none"), EditError::NotFound { .. }));
    assert!(matches!(suspend("two"), EditError::Ambiguous { paths, .. } if paths.len() == 2));
    assert!(matches!(suspend("odd"), EditError::Refused { .. }));
    let nowhere = Place::new();
    assert!(matches!(nowhere.definitions().suspend(&server("time"), true), Err(EditError::NotFound { .. })));
}

#[test]
fn a_server_whose_file_is_wrong_can_be_suspended_and_not_be_started() {
    let place = Place::new().with("bad.yaml", "spec: [");
    let bad = server("bad");
    let stopped = place.definitions().suspend(&bad, true).unwrap();
    assert!(stopped.changed && matches!(stopped.stands_in, StandsIn::Overlay(_)), "{stopped:?}");
    assert_eq!(place.read("bad.yaml"), "spec: [");
    assert!(matches!(place.definitions().suspend(&bad, false), Err(EditError::Invalid(_))));
}

#[test]
fn a_server_is_created_once() {
    let place = Place::new();
    let written = place.definitions().create(&server("time"), &stdio()).unwrap();
    assert_eq!(written, Written { path: place.path("time.yaml"), changed: true, backup: None });
    assert_eq!(
        place.read("time.yaml"),
        "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nmetadata: {name: time}\nspec:\n  type: stdio\n  command: x\n"
    );
    let error = place.definitions().create(&server("time"), &stdio()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("MCP server 'time' already exists: {}", place.path("time.yaml").display())
    );
    let place = place.with("other.YML", "not even YAML: [");
    let error = place.definitions().create(&server("other"), &stdio()).unwrap_err();
    assert!(matches!(error, EditError::AlreadyExists { .. }), "{error}");
    assert_eq!(place.files(), ["other.YML", "time.yaml"]);
}

#[test]
fn what_is_wrong_is_not_written_and_said_without_positions() {
    let place = Place::new();
    let value = json!({"type": "stdio", "commnd": "x", "timeout": 500, "env": {"A": "${NOPE}"}});
    let error = place.definitions().create(&server("time"), &value).unwrap_err();
    insta::assert_snapshot!(error.to_string().replace(place.0.path().to_str().unwrap(), "DIR"));
    let other = json!({"metadata": {"name": "clock"}, "spec": stdio()});
    assert!(matches!(place.definitions().create(&server("time"), &other), Err(EditError::Invalid(_))));
    for value in [json!(null), json!([]), json!("x"), json!({}), json!({"spec": null})] {
        let error = place.definitions().create(&server("time"), &value).unwrap_err();
        assert!(matches!(error, EditError::Invalid(_)), "{error}");
    }
    let error = place.definitions().create_text(&server("time"), "spec: 5").unwrap_err();
    assert!(error.to_string().contains("time.yaml:1:7: spec: "), "{error}");
    assert!(!place.path("").exists());
}

#[test]
fn variables_may_be_set_elsewhere() {
    let place = Place::new();
    let value = json!({
        "type": "sse", "url": "${BASE}/mcp", "headers": {"A": "Bearer ${TOKEN} ${KEY}", "B": "${BASE} ${OPT:-x}"}
    });
    assert!(place.definitions().create(&server("a"), &value).is_err());
    let (definitions, unset) = place.definitions().assuming_variables(&server("a"), &value);
    assert_eq!(unset, ["BASE", "KEY"]);
    definitions.create(&server("a"), &value).unwrap();
    assert!(place.read("a.yaml").contains("${BASE}/mcp"));
    let wrong = json!({"type": "sse", "url": "${BASE}/mcp", "headers": {"Host": "${KEY}"}});
    let (definitions, _) = place.definitions().assuming_variables(&server("b"), &wrong);
    assert!(matches!(definitions.create(&server("b"), &wrong), Err(EditError::Invalid(_))));
}

#[rstest]
#[case::scalars(json!({"command": "a b", "timeout": 5}), &["  command: a b\n", "# over pipes", "# what time", "  timeout: 5\n"])]
#[case::cleared(json!({"command": "go", "description": null}), &["  command: go\n", "# over pipes"])]
#[case::flow(json!({"args": ["a", "b c"], "env": {"A": "1"}}), &["  args: [a, b c]\n", "  env: {A: \"1\"}\n", "# over pipes"])]
#[case::resource(json!({"metadata": {"labels": {"a": "b"}}}), &["metadata: {labels: {a: b}}\n", "# over pipes"])]
#[case::other_type(json!({"type": "sse", "command": null, "url": "http://h/"}), &["  type: sse # over pipes\n", "  url: http://h/\n"])]
fn updates_keep_the_rest(#[case] patch: Value, #[case] expected: &[&str]) {
    let place = Place::new().with("time.yaml", TIME);
    let written = place.definitions().update(&server("time"), &patch).unwrap();
    assert_eq!((written.changed, written.backup.is_some()), (true, false));
    let text = place.read("time.yaml");
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let again = place.definitions().update(&server("time"), &patch).unwrap();
    assert!(!again.changed && place.read("time.yaml") == text);
}

#[test]
fn an_update_that_cannot_be_an_edit_keeps_the_old_text() {
    let text = format!("{TIME}  args:\n    - a # first\n");
    let place = Place::new().with("time.yaml", &text);
    let written = place.definitions().update(&server("time"), &json!({"args": ["b"]})).unwrap();
    assert_eq!(written.backup, Some(place.path("time.yaml.bak")));
    assert_eq!(place.read("time.yaml.bak"), text);
    assert!(place.read("time.yaml").ends_with("  command: x\n  args: [b]\n"));
    assert_eq!(
        place.reader().scan(&place.path("")).unwrap().entries.len(),
        1,
        "the old text is no definition"
    );
}

#[test]
fn updates_have_errors() {
    let place = Place::new().with("time.yaml", TIME).with("bad.yaml", "spec: [");
    let update = |name: &str, patch: Value| place.definitions().update(&server(name), &patch).unwrap_err();
    assert!(matches!(update("none", json!({})), EditError::NotFound { .. }));
    assert!(matches!(update("bad", json!({"command": "y"})), EditError::Invalid(_)));
    let error = update("time", json!({"comand": "y"})).to_string();
    assert!(error.ends_with("time.yaml: spec.comand: unknown key; did you mean \"command\"?"), "{error}");
    for patch in [
        json!({"command": null}),
        json!(5),
        json!([]),
        json!(null),
        json!({"spec": null}),
        json!({"kind": null}),
    ] {
        assert!(matches!(update("time", patch.clone()), EditError::Invalid(_)), "{patch}");
    }
    assert_eq!(place.read("time.yaml"), TIME);
    assert_eq!(place.files(), ["bad.yaml", "time.yaml"]);
}

#[test]
fn an_update_may_mend_a_definition() {
    let place = Place::new().with("time.yaml", &TIME.replace("command", "commnd"));
    place.definitions().update(&server("time"), &json!({"commnd": null, "command": "y"})).unwrap();
    assert!(place.definitions().get(&server("time")).unwrap().outcome.is_ok());
    assert!(place.read("time.yaml").contains("# over pipes"));
}

#[test]
fn a_definition_is_read_back() {
    let place = Place::new()
        .with("time.yml", &TIME.replace("command: x", "command: '${TOKEN}'"))
        .with("bad.yaml", "spec: 5\n");
    let stored = place.definitions().get(&server("time")).unwrap();
    assert_eq!(stored.path, place.path("time.yml"));
    assert_eq!(stored.resource.unwrap()["spec"], json!({"type": "stdio", "command": "${TOKEN}"}));
    assert!(stored.text.contains("# over pipes") && stored.outcome.is_ok());
    let bad = place.definitions().get(&server("bad")).unwrap();
    assert!(bad.outcome.is_err() && bad.resource == Some(json!({"spec": 5})));
    assert!(matches!(place.definitions().get(&server("none")), Err(EditError::NotFound { .. })));
}

#[test]
fn deleting_and_creating_starts_fresh() {
    let (place, held) = Place::new().with_unwritable("time.yaml", TIME);
    let definitions = place.definitions();
    definitions.suspend(&server("time"), true).unwrap();
    definitions.delete(&server("time")).unwrap();
    assert!(matches!(definitions.delete(&server("time")), Err(EditError::NotFound { .. })));
    definitions.create(&server("time"), &stdio()).unwrap();
    assert!(!place.suspended("time"));
    drop(held);
}

#[test]
fn a_server_may_be_defined_in_the_place_of_another() {
    let place = Place::new().with("time.yml", TIME);
    let definitions = place.definitions();
    let written = definitions.create_or_replace(&server("time"), &stdio()).unwrap();
    assert_eq!((written.path, written.backup), (place.path("time.yml"), Some(place.path("time.yml.bak"))));
    assert_eq!(place.read("time.yml.bak"), TIME);
    assert!(!definitions.create_or_replace(&server("time"), &stdio()).unwrap().changed);
    assert!(definitions.create_or_replace(&server("new"), &stdio()).unwrap().changed);
    assert_eq!(place.files(), ["new.yaml", "time.yml", "time.yml.bak"]);
}

/// Edits of one file by many at once: each is there in the end.
#[test]
fn writers_wait_for_each_other() {
    let place = Place::new().with("time.yaml", TIME);
    let definitions = place.definitions();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let definitions = definitions.clone();
            scope.spawn(move || {
                let patch = json!({"metadata": {"labels": {format!("l{index}"): "x"}}});
                definitions.update(&server("time"), &patch).unwrap();
            });
        }
    });
    let stored = definitions.get(&server("time")).unwrap();
    assert_eq!(stored.resource.unwrap()["metadata"]["labels"].as_object().unwrap().len(), 8);
    assert!(stored.text.contains("# over pipes"));
}
