//! Where definitions are read from: a configuration directory, what is wanted of its servers, a project's file.

use std::io;
use std::path::{Path, PathBuf};

use super::ourselves::Ourselves;
use super::overlay::Overlay;
use super::project::Project;
use super::validator::Validator;
use super::{Definition, Invalid};
use crate::environment::Environment;

/// Reads definitions, whether they come from files or from tools.
#[derive(Clone, Debug)]
pub struct Reader {
    validator: Validator,
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
        Ok(Self { validator: Validator::new(config_dir, environment)?, state: None, project: None })
    }

    /// The reader, with `state` as the directory for what the operator wants of servers whose files cannot be written. It
    /// must belong to this configuration directory alone, and need not exist.
    #[must_use]
    pub fn with_state_dir(self, state: &Path) -> Self {
        Self { state: Some(state.to_owned()), ..self }
    }

    /// The reader, with the `.mcp.json` of a project as more definitions, which are never written: [`project_file`].
    ///
    /// Its commands run as the user, so it must be a file that somebody has asked for. What is one of
    /// `ourselves` is left out.
    ///
    /// [`project_file`]: super::project_file
    #[must_use]
    pub fn with_project(self, file: &Path, home: Option<PathBuf>, ourselves: Ourselves) -> Self {
        Self { project: Some(Project::new(file, home, ourselves)), ..self }
    }

    pub(super) fn validator(&self) -> &Validator {
        &self.validator
    }

    pub(super) fn project(&self) -> Option<&Project> {
        self.project.as_ref()
    }

    /// The project's file, where there is to be one.
    pub fn project_file(&self) -> Option<&Path> {
        self.project.as_ref().map(Project::path)
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
        self.validator.config_dir().join("mcpservers")
    }

    /// This reader, in whose environment the variables that `spec` needs and that are not set have a stand-in; and their
    /// names.
    pub(super) fn assuming(&self, spec: &serde_json::Value) -> (Self, Vec<String>) {
        let (validator, unset) = self.validator.assuming(spec);
        (Self { validator, ..self.clone() }, unset)
    }

    /// Reads `content` as the content of the file `path`, whose stem is the server's name. The file is not touched.
    ///
    /// # Errors
    ///
    /// All mistakes of the content.
    pub fn read(&self, path: &Path, content: &[u8]) -> Result<Definition, Invalid> {
        self.validator.read(path, content)
    }

    /// What `content` says, without variables put in, right or wrong.
    ///
    /// # Errors
    ///
    /// It is no YAML, or not what JSON can hold.
    pub(super) fn resource(&self, path: &Path, content: &[u8]) -> Result<serde_json::Value, Invalid> {
        self.validator.resource(path, content)
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
