//! The one way from a text to a [`Definition`]: the resource's envelope, and what all parts of it share.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::expand::{assume, expand};
use super::overlay::Overlay;
use super::project::Project;
use super::{Definition, Invalid, Secret, ServerName, spec};
use crate::environment::Environment;
use crate::yaml::{Collector, Fields, Mistake, Value, parse_bytes, shown};

/// The version of the resource that is written.
pub const API_VERSION: &str = "sidegate.dev/v1alpha1";

/// The kind of the resource.
pub const KIND: &str = "MCPServer";

/// Reads definitions. Every rule for them is applied here and nowhere else, whether they come from files or from tools.
#[derive(Clone, Debug)]
pub struct Reader {
    config_dir: PathBuf,
    environment: Environment,
    state: Option<PathBuf>,
    project: Option<Project>,
}

impl Reader {
    /// A reader that resolves relative paths against `config_dir` and `${VAR}` from `environment`.
    ///
    /// # Errors
    ///
    /// When `config_dir` is relative and there is no current directory, or it is empty.
    pub fn new(config_dir: &Path, environment: Environment) -> io::Result<Self> {
        Ok(Self { config_dir: std::path::absolute(config_dir)?, environment, state: None, project: None })
    }

    /// The reader, with `state` as the directory for what the operator wants of servers whose files cannot be written. It
    /// must belong to this configuration directory alone, and need not exist.
    #[must_use]
    pub fn with_state_dir(self, state: &Path) -> Self {
        Self { state: Some(state.to_owned()), ..self }
    }

    /// The reader, with the `.mcp.json` of a project as more definitions, which are never written: [`project_file`].
    ///
    /// Its commands run as the user, so it must be a file that somebody has asked for. What leads to one of `own`, where we
    /// listen now or usually, is left out.
    ///
    /// [`project_file`]: super::project_file
    #[must_use]
    pub fn with_project(self, file: &Path, home: Option<PathBuf>, own: Vec<SocketAddr>) -> Self {
        Self { project: Some(Project::new(file, home, own)), ..self }
    }

    pub(super) fn project(&self) -> Option<&Project> {
        self.project.as_ref()
    }

    /// The project's file, where there is to be one.
    pub fn project_file(&self) -> Option<&Path> {
        self.project.as_ref().map(Project::path)
    }

    /// This reader, in whose environment the variables that `spec` needs and that are not set have a stand-in; and their
    /// names.
    pub(super) fn assuming(&self, spec: &serde_json::Value) -> (Self, Vec<String>) {
        let mut reader = self.clone();
        let mut unset = Vec::new();
        for key in ["url", "command", "args", "env", "cwd", "headers"] {
            for text in texts(&spec[key]) {
                // A URL that is a variable is one from its beginning.
                let stand_in = if key == "url" && text.starts_with("${") { "http://unset" } else { "1" };
                let (environment, assumed) = assume(text, reader.environment, stand_in);
                reader.environment = environment;
                unset.extend(assumed);
            }
        }
        (reader, unset)
    }

    /// What is wanted of servers of the configuration directory.
    pub(super) fn overlay(&self) -> Option<Overlay> {
        self.state.as_deref().map(Overlay::new)
    }

    /// What is wanted of servers of the project's file, where there is to be one.
    pub(super) fn project_overlay(&self) -> Option<Overlay> {
        Some(Overlay::of_project(self.state.as_deref()?, self.project_file()?))
    }

    /// Where the definitions of the configuration directory are.
    pub fn definitions_dir(&self) -> PathBuf {
        self.config_dir.join("mcpservers")
    }

    /// Reads `content` as the content of the file `path`, whose stem is the server's name. The file is not touched.
    ///
    /// # Errors
    ///
    /// All mistakes of the content.
    pub fn read(&self, path: &Path, content: &[u8]) -> Result<Definition, Invalid> {
        let mistakes = Collector::default();
        let definition = self.definition(path, content, &mistakes);
        match definition {
            Some(definition) if mistakes.is_empty() => Ok(definition),
            _ => Err(Invalid { path: path.to_owned(), mistakes: mistakes.into_sorted() }),
        }
    }

    /// What `content` says, without variables put in, right or wrong.
    ///
    /// # Errors
    ///
    /// It is no YAML, or not what JSON can hold.
    pub(super) fn resource(&self, path: &Path, content: &[u8]) -> Result<serde_json::Value, Invalid> {
        let mistakes = Collector::default();
        let root = parse_bytes(content, &mistakes);
        let value = root.map_or(Some(serde_json::Value::Null), |root| Value::root(&root, &mistakes).json());
        match value {
            Some(value) if mistakes.is_empty() => Ok(value),
            _ => Err(Invalid { path: path.to_owned(), mistakes: mistakes.into_sorted() }),
        }
    }

    fn definition(&self, path: &Path, content: &[u8], mistakes: &Collector) -> Option<Definition> {
        let name = match name_of(path) {
            Ok(name) => Some(name),
            Err(mistake) => {
                mistakes.push(mistake);
                None
            }
        };
        let root = parse_bytes(content, mistakes);
        let Some(root) = root else {
            if mistakes.is_empty() {
                let advice = format!("write apiVersion: {API_VERSION}, kind: {KIND}, metadata and spec");
                mistakes.push(Mistake::of_file("the file is empty", Some(advice)));
            }
            return None;
        };
        let root = Value::root(&root, mistakes);
        let fields = root.fields(&["apiVersion", "kind", "metadata", "spec"])?;
        envelope(&fields, path, name.as_ref());
        let context = Context { reader: self, substituted: RefCell::default() };
        let spec = fields.need("spec", "add it with the server's type and its command or url")?;
        spec::read(spec, name?, context)
    }
}

/// The texts of a value that is one, or a list or an object of them.
fn texts(value: &serde_json::Value) -> Vec<&str> {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(text) => vec![text],
        Array(items) => items.iter().filter_map(|item| item.as_str()).collect(),
        Object(map) => map.values().filter_map(|value| value.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// The server's name, from the stem of its file.
pub(super) fn name_of(path: &Path) -> Result<ServerName, Mistake> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().map_err(|_| {
        let problem = format!("{} is not a server name", shown(&stem));
        let advice =
            "rename the file: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
        Mistake::of_file(problem, Some(advice.to_owned()))
    })
}

fn envelope(fields: &Fields<'_>, path: &Path, name: Option<&ServerName>) {
    if let Some(version) = fields.need("apiVersion", format!("add apiVersion: {API_VERSION}")) {
        version.one_of(&[(API_VERSION, ()), ("muster.giantswarm.io/v1alpha1", ())]);
    }
    if let Some(kind) = fields.need("kind", format!("add kind: {KIND}")) {
        kind.one_of(&[(KIND, ())]);
    }
    // The stem says who the server is; metadata may repeat it and hold what Kubernetes tools put there.
    let Some(metadata) = fields
        .get("metadata")
        .and_then(|value| value.fields(&["name", "namespace", "labels", "annotations"]))
    else {
        return;
    };
    if let Some(value) = metadata.get("name")
        && let (Some(text), Some(name)) = (value.text(), name)
        && text != name.as_str()
    {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let problem = format!("{} in the file of {:?}", shown(text), name.as_str());
        value.wrong(problem, format!("write {:?}, or rename {}", name.as_str(), shown(&file)));
    }
    if let Some(namespace) = metadata.get("namespace") {
        namespace.text();
    }
    for key in ["labels", "annotations"] {
        for (_, value) in metadata.get(key).and_then(Value::entries).unwrap_or_default() {
            value.text();
        }
    }
}

/// What the parts of a definition need besides their values.
pub(super) struct Context<'r> {
    reader: &'r Reader,
    substituted: RefCell<Vec<Secret>>,
}

impl Context<'_> {
    /// The value's text with its variables put in.
    pub(super) fn expanded(&self, value: &Value<'_>) -> Option<String> {
        match expand(value.text()?, &self.reader.environment) {
            Ok(expanded) => {
                let mut substituted = self.substituted.borrow_mut();
                for value in expanded.values.into_iter().map(Secret::from) {
                    if !substituted.contains(&value) {
                        substituted.push(value);
                    }
                }
                Some(expanded.text)
            }
            Err(error) => {
                value.wrong(error.to_string(), error.advice());
                None
            }
        }
    }

    /// `path`, relative to the configuration directory.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        // Collected again to drop the dots of "./x".
        self.reader.config_dir.join(path).components().collect()
    }

    /// The values put in so far.
    pub(super) fn into_substituted(self) -> Vec<Secret> {
        self.substituted.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::reader;

    fn report(path: &str, text: &str) -> String {
        match reader().read(Path::new(path), text.as_bytes()) {
            Ok(_) => "valid".to_owned(),
            Err(invalid) => invalid.to_string(),
        }
    }

    const MINIMAL: &str =
        "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {type: stdio, command: x}\n";

    #[rstest]
    #[case::minimal(MINIMAL)]
    #[case::muster(&MINIMAL.replace("sidegate.dev", "muster.giantswarm.io"))]
    #[case::kubernetes(&format!("{MINIMAL}metadata: {{name: time, namespace: default, labels: {{a: b}}, annotations: {{}}}}"))]
    #[case::windows_line_ends(&MINIMAL.replace('\n', "\r\n"))]
    #[case::bom(&format!("\u{feff}{MINIMAL}"))]
    #[case::json(
        r#"{"apiVersion":"sidegate.dev/v1alpha1","kind":"MCPServer","spec":{"type":"stdio","command":"x"}}"#
    )]
    #[case::marker(&format!("---\n{MINIMAL}...\n"))]
    fn files_that_are_right(#[case] text: &str) {
        assert_eq!(report("mcpservers/time.yaml", text), "valid");
    }

    #[test]
    fn all_mistakes_of_a_file_come_at_once() {
        let text = "\
apiVersion: sidegate.dev/v1
kind: Server
metadata:
  name: tme
spec:
  type: stdio
  commnd: uvx
  args: [--port, 8080, \"${NOPE}\"]
  env:
    TOKEN: ${ALSO_NOPE}
    TOKEN: x
  url: http://h
  timeout: 500
  toolPrefix: 1st
  family: {name: clocks}
";
        insta::assert_snapshot!(report("mcpservers/time.yaml", text));
    }

    #[test]
    fn mistakes_of_the_envelope() {
        let report: String = [
            ("time.yaml", ""),
            ("time.yaml", "# only a comment"),
            ("time.yaml", "just text"),
            ("time.yaml", "[]"),
            ("time.yaml", "{}"),
            ("time.yaml", "{{{"),
            ("time.yaml", "spec:\n  type: stdio\n command: x\n"),
            ("My Server.yaml", MINIMAL),
            ("Time.yaml", MINIMAL),
            ("time.yaml", &format!("{MINIMAL}metadata: {{name: clock}}\n")),
            ("time.yaml", &format!("{MINIMAL}metadata: {{uid: 1, labels: {{a: 1}}, name: 3}}\n")),
            ("time.yaml", &format!("{MINIMAL}status: {{}}\ncommand: x\n")),
            ("time.yaml", "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec:\n"),
        ]
        .iter()
        .map(|(path, text)| format!("{text:?}\n{}\n\n", report(path, text)))
        .collect();
        insta::assert_snapshot!(report);
    }

    proptest! {
        #[test]
        fn no_content_panics_and_every_refusal_has_a_reason(spec in "([a-zA-Z]{1,8}|type|command|url|env|auth|stdio|sse|[:,{}\\[\\] \n$\"'#&*!-]){0,60}") {
            let text = format!("{}\n  {spec}", MINIMAL.trim_end().replace(", command: x}", ""));
            for text in [text.as_str(), spec.as_str()] {
                if let Err(invalid) = reader().read(Path::new("time.yaml"), text.as_bytes()) {
                    prop_assert!(!invalid.mistakes.is_empty());
                }
            }
        }
    }
}
