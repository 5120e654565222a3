//! Variables of other clients, in the words of ours.
//!
//! | client | in texts | unset |
//! | --- | --- | --- |
//! | Claude Code | `${NAME}`, `${NAME:-default}` | the text stays as it is |
//! | Claude Desktop | none | |
//! | VS Code, Cursor | `${env:NAME}`, `${userHome}`, `${workspaceFolder}`, … | empty |
//! | VS Code | `${input:id}`, asked for and remembered | |
//! | Sidegate | `${NAME}`, `${NAME:-default}`, `$$` | the definition is wrong |

use std::path::PathBuf;

use serde_json::Value;

use super::{Client, Notes};
use crate::mcpserver::expand::literal as escaped;

/// What the texts of one file may refer to.
pub(super) struct Variables<'v> {
    pub(super) client: Client,
    /// The project that the file belongs to; `None` for a file of the user.
    pub(super) project: Option<PathBuf>,
    /// VS Code's `inputs`.
    pub(super) inputs: &'v [Value],
}

impl Variables<'_> {
    /// `text` in our words.
    ///
    /// # Errors
    ///
    /// It refers to what only the client has; the reason is for people.
    pub(super) fn translated(&self, text: &str, notes: &mut Notes) -> Result<String, String> {
        let mut translated = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once("${") {
            translated.push_str(&escaped(before));
            let Some((reference, after)) = inside.split_once('}').filter(|_| self.client.has_variables())
            else {
                translated.push_str("$${");
                rest = inside;
                continue;
            };
            translated.push_str(&self.reference(reference, notes)?);
            rest = after;
        }
        translated.push_str(&escaped(rest));
        Ok(translated)
    }

    fn reference(&self, reference: &str, notes: &mut Notes) -> Result<String, String> {
        match self.client {
            Client::ClaudeDesktop => Ok(escaped(&format!("${{{reference}}}"))),
            Client::ClaudeCode => {
                let (name, default) = match reference.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (reference, None),
                };
                if !is_name(name) {
                    notes.attend(format!(
                        "${{{reference}}} is no variable for Claude Code, so it is kept as text"
                    ));
                    return Ok(escaped(&format!("${{{reference}}}")));
                }
                match default {
                    None => Ok(format!("${{{name}}}")),
                    Some(default) if default.contains("${") => {
                        Err(format!("the default of ${{{name}:-…}} refers to another variable"))
                    }
                    Some(default) => Ok(format!("${{{name}:-{}}}", escaped(default))),
                }
            }
            Client::VsCode | Client::Cursor => self.editors(reference, notes),
        }
    }

    /// The variables of VS Code, of which Cursor has some.
    fn editors(&self, reference: &str, notes: &mut Notes) -> Result<String, String> {
        if let Some(name) = reference.strip_prefix("env:") {
            // Unset is empty there.
            return if is_name(name) { Ok(format!("${{{name}:-}}")) } else { Err(unknown(reference)) };
        }
        if let Some(id) = reference.strip_prefix("input:") {
            return Ok(self.input(id, notes));
        }
        let project = || {
            self.project.as_ref().ok_or_else(|| {
                format!("${{{reference}}} depends on the folder that is open in the editor, and this file belongs to none")
            })
        };
        match reference {
            "userHome" => Ok("${HOME}".to_owned()),
            "workspaceFolder" => Ok(escaped(&project()?.to_string_lossy())),
            "workspaceFolderBasename" => {
                Ok(escaped(&project()?.file_name().unwrap_or_default().to_string_lossy()))
            }
            "pathSeparator" | "/" => Ok(std::path::MAIN_SEPARATOR_STR.to_owned()),
            _ => Err(unknown(reference)),
        }
    }

    /// What the editor asks its user for becomes a variable that the user sets.
    fn input(&self, id: &str, notes: &mut Notes) -> String {
        let declared = self.inputs.iter().find(|input| input["id"] == *id);
        let text = |key| declared.and_then(|input| input[key].as_str());
        let mut name: String = id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        if !is_name(&name) {
            name.insert(0, '_');
        }
        let what = text("description").map(|what| format!(" ({what})")).unwrap_or_default();
        notes.attend(format!("the editor asks for {id}{what}: set the variable {name} where Sidegate runs"));
        match text("default") {
            Some(default) if !default.contains(['$', '}']) => format!("${{{name}:-{default}}}"),
            _ => format!("${{{name}}}"),
        }
    }
}

fn unknown(reference: &str) -> String {
    format!("${{{reference}}} is known to the client alone")
}

/// POSIX.1-2024 section 3.216.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::environment::Environment;
    use crate::mcpserver::expand::expand;

    fn translated(client: Client, text: &str) -> Result<(String, usize), String> {
        let inputs =
            [json!({"id": "api-key", "description": "The key"}), json!({"id": "region", "default": "eu"})];
        let variables = Variables { client, project: Some("/src/app$".into()), inputs: &inputs };
        let mut notes = Notes::default();
        let text = variables.translated(text, &mut notes)?;
        Ok((text, notes.attention.len()))
    }

    #[rstest]
    #[case(Client::ClaudeCode, "Bearer ${TOKEN}", "Bearer ${TOKEN}", 0)]
    #[case(Client::ClaudeCode, "${A:-b}${C}", "${A:-b}${C}", 0)]
    #[case(Client::ClaudeCode, "${A:-$5}", "${A:-$$5}", 0)]
    #[case(Client::ClaudeCode, "$HOME ^a$ $$ ${", "$$HOME ^a$$ $$$$ $${", 0)]
    #[case(Client::ClaudeCode, "${env:A}", "$${env:A}", 1)]
    #[case(Client::ClaudeDesktop, "${A} $B ${", "$${A} $$B $${", 0)]
    #[case(Client::VsCode, "${env:A}/${userHome}${/}$x", "${A:-}/${HOME}/$$x", 0)]
    #[case(Client::VsCode, "${workspaceFolder}/a", "/src/app$$/a", 0)]
    #[case(Client::VsCode, "${workspaceFolderBasename}", "app$$", 0)]
    #[case(Client::VsCode, "${input:api-key} ${input:region}", "${API_KEY} ${REGION:-eu}", 2)]
    #[case(Client::VsCode, "${input:1st}", "${_1ST}", 1)]
    #[case(Client::Cursor, "${env:A}", "${A:-}", 0)]
    fn texts_are_translated(
        #[case] client: Client,
        #[case] text: &str,
        #[case] expected: &str,
        #[case] attention: usize,
    ) {
        assert_eq!(translated(client, text), Ok((expected.to_owned(), attention)));
    }

    #[rstest]
    #[case(Client::ClaudeCode, "${A:-${B}}")]
    #[case(Client::VsCode, "${command:pick}")]
    #[case(Client::VsCode, "${A}")]
    #[case(Client::VsCode, "${env:A B}")]
    #[case(Client::Cursor, "${file}")]
    fn what_only_the_client_knows_is_refused(#[case] client: Client, #[case] text: &str) {
        assert!(translated(client, text).is_err());
    }

    #[test]
    fn a_file_of_the_user_has_no_project() {
        let variables = Variables { client: Client::Cursor, project: None, inputs: &[] };
        let reason = variables.translated("${workspaceFolder}", &mut Notes::default()).unwrap_err();
        assert!(reason.contains("belongs to none"), "{reason}");
    }

    proptest! {
        #[test]
        fn texts_without_variables_mean_themselves(text in any::<String>()) {
            let (translated, _) = translated(Client::ClaudeDesktop, &text).unwrap();
            prop_assert_eq!(expand(&translated, &Environment::default()).unwrap().text, text);
        }

        #[test]
        fn what_is_translated_can_be_expanded(text in "([${}:-]|env:|input:|[AB]| ){0,20}") {
            let environment = Environment::from_iter([("A", "1"), ("B", "2"), ("AB", "3"), ("BA", "4")]);
            for client in [Client::ClaudeCode, Client::ClaudeDesktop, Client::VsCode, Client::Cursor] {
                if let Ok((text, _)) = translated(client, &text)
                    && let Err(error) = expand(&text, &environment)
                {
                    prop_assert!(error.to_string().ends_with("is not set"), "{text}: {error}");
                }
            }
        }
    }
}
