//! A project's `.mcp.json`: definitions beside those of the configuration directory, which are read and never written.
//!
//! The file is a stranger's: its commands run as the user. So it is read only where somebody has asked for it.
//!
//! Invariants: a server that the configuration directory defines too is that one, and somebody is told; a mistake has its
//! place in the file; a file that cannot be read as a whole says nothing of which servers there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::entry::{ContentHash, Entry};
use super::import::{self, Import, ImportError};
use super::ourselves::Ourselves;
use super::resource::complete;
use super::validator::Validator;
use super::{Definition, Invalid, ServerName};
use crate::yaml::{self, FileError, Mistake, Position};

/// The file's name.
pub(super) const FILE_NAME: &str = ".mcp.json";

/// The `.mcp.json` that counts for somebody in `directory`, which is absolute: the nearest one from there up to the root of
/// the repository. Where there is none, the one that would be at the root; outside of a repository, in `directory`.
pub fn project_file(directory: &Path) -> PathBuf {
    let Some(root) = directory.ancestors().find(|above| above.join(".git").exists()) else {
        return directory.join(FILE_NAME);
    };
    let within = directory.ancestors().take_while(|above| above.starts_with(root));
    let mut files = within.map(|above| above.join(FILE_NAME));
    files.find(|file| file.exists()).unwrap_or_else(|| root.join(FILE_NAME))
}

/// The project's file.
#[derive(Clone, Debug)]
pub(super) struct Project {
    path: PathBuf,
    /// Whose files belong to no project.
    home: Option<PathBuf>,
    /// Who we are: other clients find us there.
    ourselves: Ourselves,
}

/// What the project's file says of a server.
pub(super) struct Found {
    /// What it defines, without variables put in.
    pub(super) resource: Value,
    pub(super) outcome: Result<Definition, Invalid>,
}

impl Project {
    pub(super) fn new(path: &Path, home: Option<PathBuf>, ourselves: Ourselves) -> Self {
        Self { path: path.to_owned(), home, ourselves }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its servers, but for those whose names are `taken`, and for Sidegate, which other clients find there. A file that is
    /// not there has none.
    ///
    /// # Errors
    ///
    /// The file as a whole is wrong.
    pub(super) fn entries(
        &self,
        validator: &Validator,
        taken: impl Fn(&ServerName) -> Option<PathBuf>,
    ) -> Result<Vec<Entry>, Invalid> {
        let Some(file) = self.read()? else { return Ok(Vec::new()) };
        let entry = |name, outcome| Entry {
            path: self.path.clone(),
            name,
            hash: Some(file.hash),
            outcome,
            intent: None,
        };
        // Whose names are not those of mistakes: those are told without a name, and hide nothing.
        let right = file.import.servers.iter().filter_map(|server| server.outcome.as_ref().ok());
        let mut named: BTreeSet<ServerName> = right.map(|(name, _)| name.clone()).collect();
        let mut entries = Vec::new();
        for server in &file.import.servers {
            let original = &server.original;
            entries.push(match &server.outcome {
                Err(why) => {
                    let mistake = file.mistake(original, None, why.clone());
                    let name = import::name_for(original).ok();
                    let name = name.filter(|name| taken(name).is_none() && named.insert(name.clone()));
                    entry(name, Err(self.invalid(vec![mistake])))
                }
                Ok((_, spec)) if self.ourselves.is_entry(original, spec) => continue,
                Ok((name, spec)) => match taken(name) {
                    None => entry(
                        Some(name.clone()),
                        self.definition(validator, &file, original, name, spec).map(Arc::new),
                    ),
                    Some(other) => {
                        let problem = format!(
                            "{:?} is defined by {} too, which counts",
                            name.as_str(),
                            other.display()
                        );
                        let advice = Some("rename one of them".to_owned());
                        entry(None, Err(self.invalid(vec![file.mistake(original, advice, problem)])))
                    }
                },
            });
        }
        Ok(entries)
    }

    /// What it says of `name`, if it is there and right as a whole.
    pub(super) fn find(&self, validator: &Validator, name: &ServerName) -> Option<Found> {
        let file = self.read().ok()??;
        file.import.servers.iter().find_map(|server| match &server.outcome {
            Ok((known, spec)) if known == name => {
                let outcome = self.definition(validator, &file, &server.original, name, spec);
                Some(Found { resource: complete(name, spec), outcome })
            }
            _ => None,
        })
    }

    /// Why it does not say what `name` is, where it may define it all the same: the file is wrong as a whole, or the entry
    /// that would be called so.
    pub(super) fn fault(&self, name: &ServerName) -> Option<Invalid> {
        let file = match self.read() {
            Ok(file) => file?,
            Err(invalid) => return Some(invalid),
        };
        file.import.servers.iter().find_map(|server| match &server.outcome {
            Err(why) if import::name_for(&server.original).as_ref() == Ok(name) => {
                Some(self.invalid(vec![file.mistake(&server.original, None, why.clone())]))
            }
            _ => None,
        })
    }

    fn definition(
        &self,
        validator: &Validator,
        file: &File,
        original: &str,
        name: &ServerName,
        spec: &Value,
    ) -> Result<Definition, Invalid> {
        // In flow style the value is written in full, also what is wrong with it.
        let text = yaml::emit::flow(&complete(name, spec));
        let read = validator.read(Path::new(&format!("{name}.yaml")), text.as_bytes());
        read.map_err(|mut invalid| {
            for mistake in &mut invalid.mistakes {
                file.place(mistake, original);
            }
            invalid.mistakes.sort_by_key(|mistake| mistake.position);
            self.invalid(invalid.mistakes)
        })
    }

    fn invalid(&self, mistakes: Vec<Mistake>) -> Invalid {
        Invalid { path: self.path.clone(), mistakes }
    }

    fn read(&self) -> Result<Option<File>, Invalid> {
        let content = match yaml::read_file(&self.path) {
            Ok(content) => content,
            Err(FileError::Absent) => return Ok(None),
            Err(error) => return Err(self.invalid(vec![error.mistake()])),
        };
        let text = String::from_utf8_lossy(&content);
        match import::read(&self.path, self.home.as_deref(), &text) {
            Ok(import) => {
                Ok(Some(File { hash: ContentHash::of(&content), plain: import::plain(&text), import }))
            }
            Err(ImportError::Unreadable(invalid)) => Err(invalid),
            Err(ImportError::NotJson { source, .. }) => {
                let why = source.to_string();
                let why = why.split(" at line ").next().unwrap_or_default();
                let mut mistake = Mistake::of_file(format!("not JSON: {why}"), None);
                mistake.position = Some(Position { line: source.line(), column: source.column().max(1) });
                Err(self.invalid(vec![mistake]))
            }
            Err(ImportError::NoServers { .. }) => {
                let advice = "write {\"mcpServers\": {}} where there is none".to_owned();
                Err(self.invalid(vec![Mistake::of_file("no \"mcpServers\"", Some(advice))]))
            }
        }
    }
}

/// The file as it was read.
struct File {
    hash: ContentHash,
    /// The text without what JSON does not have, every character where it was.
    plain: String,
    import: Import,
}

impl File {
    fn mistake(&self, original: &str, advice: Option<String>, problem: String) -> Mistake {
        let mut mistake = Mistake::of_file(problem, advice);
        self.place(&mut mistake, original);
        mistake
    }

    /// Puts a mistake, which has a place in a `spec`, where it stands in the file.
    fn place(&self, mistake: &mut Mistake, original: &str) {
        let below = mistake.key.strip_prefix("spec").unwrap_or_default().to_owned();
        let keys = below.split(['.', '[', ']']).filter(|key| !key.is_empty());
        let servers =
            ["mcpServers", "servers"].into_iter().find(|key| yaml::place_of(&self.plain, &[key]).is_some());
        let servers = servers.unwrap_or("mcpServers");
        let path: Vec<&str> = [servers, original].into_iter().chain(keys).collect();
        // What the file leaves to a default has no place but that of its server.
        mistake.position =
            (1..=path.len()).rev().find_map(|length| yaml::place_of(&self.plain, &path[..length]));
        mistake.key = format!("{servers}.{original}{below}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::environment::Environment;
    use crate::mcpserver::Reader;

    #[test]
    fn the_nearest_file_up_to_the_root_of_the_repository_counts() {
        let outside = tempfile::tempdir().unwrap();
        let at = |path: &str| outside.path().join(path);
        fs::create_dir_all(at("repository/a/b")).unwrap();
        fs::write(at(FILE_NAME), "").unwrap();
        assert_eq!(
            project_file(&at("repository/a/b")),
            at("repository/a/b/.mcp.json"),
            "outside of a repository"
        );
        fs::create_dir(at("repository/.git")).unwrap();
        assert_eq!(project_file(&at("repository/a/b")), at("repository/.mcp.json"), "where it would be");
        fs::write(at("repository/.mcp.json"), "").unwrap();
        assert_eq!(project_file(&at("repository/a/b")), at("repository/.mcp.json"));
        fs::write(at("repository/a/.mcp.json"), "").unwrap();
        assert_eq!(project_file(&at("repository/a/b")), at("repository/a/.mcp.json"));
        assert_eq!(project_file(&at("repository")), at("repository/.mcp.json"));
    }

    /// What a scan with this file finds, and what is in its place where it is wrong as a whole.
    fn found(text: &str, others: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir(at("mcpservers")).unwrap();
        for name in others {
            let spec =
                "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {type: stdio, command: x}\n";
            fs::write(at(&format!("mcpservers/{name}.yaml")), spec).unwrap();
        }
        fs::write(at(FILE_NAME), text).unwrap();
        let environment = Environment::from_iter([("TOKEN", "hunter22")]);
        let reader = Reader::new(directory.path(), environment).unwrap().with_project(
            &at(FILE_NAME),
            None,
            Ourselves::new(
                None,
                directory.path(),
                vec![([127, 0, 0, 1], 41234).into(), ([127, 0, 0, 1], 8090).into()],
            ),
        );
        let scan = reader.scan(&at("mcpservers")).unwrap();
        let mut report = String::new();
        for entry in &scan.entries {
            let name = entry.name.as_ref().map_or("-", ServerName::as_str);
            match &entry.outcome {
                Ok(definition) => report.push_str(&format!("{name}: {:?}\n", definition.transport)),
                Err(invalid) => report.push_str(&format!("{name}: {invalid}\n")),
            }
        }
        if let Some(unread) = scan.unread {
            report.push_str(&format!("unread: {}\n", unread.invalid));
        }
        assert!(!report.contains("hunter22"), "{report}");
        report.replace(directory.path().to_str().unwrap(), "")
    }

    #[test]
    fn servers_come_with_their_mistakes_in_place() {
        let text = r#"{
  // which are these
  "mcpServers": {
    "good": {"command": "x", "args": ["${TOKEN}"]},
    "bad url": {
      "type": "http",
      "url": "ftp://h", "headers": {"A": "${NONE}", "B C": "x"}
    },
	"tabs":	{"command": "x", "env": {"A=B": "x"}},
    "socket": {"type": "ws"},
    "time": {"command": "y"},
    "": {"command": "y"},
  }
}"#;
        insta::assert_snapshot!(found(text, &["time"]));
    }

    #[test]
    fn sidegate_is_none_of_its_own_servers() {
        let text = r#"{"mcpServers": {
            "a": {"command": "/usr/bin/sidegate", "args": ["stdio"]}, "b": {"url": "http://localhost:8090/mcp"},
            "c": {"url": "http://[::1]:8090/mcp/time"}, "d": {"url": "http://127.0.0.1:8091/mcp"},
            "e": {"command": "sidegate", "args": ["example-server"]}, "f": {"url": "http://example.com:8090/mcp"},
            "g": {"url": "http://127.0.0.1:41234/mcp"}, "sidegate": {"url": "http://127.0.0.1:8092/mcp"}
        }}"#;
        let found = found(text, &[]);
        let names: Vec<&str> = found.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["d", "e", "f"], "{found}");
    }

    #[test]
    fn a_mistake_hides_no_server_and_is_not_hidden() {
        let lines = |text: &str, others: &[&str]| -> Vec<String> {
            found(text, others).lines().map(str::to_owned).collect()
        };
        let [bad, good] = [r#""my server": {"type": "ws"}"#, r#""my-server": {"command": "x"}"#];
        let both = lines(&format!("{{\"mcpServers\": {{{bad}, {good}}}}}"), &[]);
        assert!(both[0].starts_with("-: ") && both[0].contains("mcpServers.my server"), "{both:?}");
        assert!(both[1].starts_with("my-server: Stdio"), "{both:?}");
        let turned = lines(&format!("{{\"mcpServers\": {{{good}, {bad}}}}}"), &[]);
        assert!(turned[0].starts_with("my-server: Stdio"), "{turned:?}");
        assert!(turned[1].starts_with("-: ") && turned[1].contains("rename one of them"), "{turned:?}");

        let time = r#"{"mcpServers": {"time": {"type": "ws"}}}"#;
        let taken = lines(time, &["time"]);
        assert!(taken[0].starts_with("time: ") && taken[1].starts_with("-: "), "{taken:?}");
        assert!(lines(time, &[])[0].starts_with("time: "), "alone, it is what its name says");
        let two = lines(r#"{"mcpServers": {"a b": {"type": "ws"}, "a-b": {"type": "ws"}}}"#, &[]);
        assert!(two[0].starts_with("a-b: ") && two[1].starts_with("-: "), "{two:?}");
    }

    #[test]
    fn a_file_that_is_wrong_as_a_whole_says_nothing_of_servers() {
        let report: Vec<String> = ["{\"mcpServers\": {\n  \"a\": }}", "{}", "", "[]"]
            .iter()
            .map(|text| format!("{text}\n{}", found(text, &["time"])))
            .collect();
        insta::assert_snapshot!(report.join("\n"));
    }
}
