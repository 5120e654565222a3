//! The catalogue: every tool there is, under its exposed name, as one immutable snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;

use super::link::Link;
use super::naming::{self, Named, NamingProblem};
use crate::mcpserver::ServerName;
use crate::wire::json;

/// One tool as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name at the server.
    pub name: String,
    /// The raw JSON object of `tools/list`.
    raw: ByteString,
}

impl Tool {
    /// Reads one element of the `tools` array of `tools/list`.
    ///
    /// # Errors
    ///
    /// It is no object with a name.
    pub fn parse(raw: ByteString) -> Result<Self, InvalidTool> {
        let [name] = json::members(&raw, ["name"]).map_err(|error| InvalidTool(error.to_string()))?;
        let name = name.and_then(json::string).ok_or_else(|| InvalidTool("it has no name".to_owned()))?;
        Ok(Self { name: name.into_owned(), raw })
    }

    /// The raw JSON object with another name; every other byte stays.
    fn renamed(&self, name: &str) -> ByteString {
        match json::members(&self.raw, ["name"]) {
            Ok([Some(old)]) => json::splice(&self.raw, [(json::span(&self.raw, old), &json::quoted(name))]),
            // Cannot be: `parse` has found it.
            _ => self.raw.clone(),
        }
    }
}

/// An element of `tools/list` that is no tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server lists something that is no tool: {0}")]
pub struct InvalidTool(String);

/// What one server brings into the catalogue.
#[derive(Clone, Debug)]
pub struct Member {
    /// What stands for the server in exposed names.
    pub prefix: String,
    /// The way to the server.
    pub link: Arc<Link>,
    /// Its tools, in its own order.
    pub tools: Arc<[Tool]>,
}

/// Where a call of an exposed name goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The way to the server.
    pub link: Arc<Link>,
    /// The tool's name there.
    pub tool: String,
}

/// All tools at one time. Never changed: a new one takes its place.
#[derive(Debug, Default)]
pub struct Catalogue {
    targets: HashMap<String, Target>,
    tools_result: ByteString,
    problems: Vec<NamingProblem>,
}

impl Catalogue {
    /// The catalogue of `members`, sorted by server name. Names begin with `lead`.
    pub fn build<'a>(lead: &str, members: impl Iterator<Item = (&'a ServerName, &'a Member)>) -> Self {
        let members: Vec<(&ServerName, &Member)> = members.collect();
        let named: Vec<Named<'_>> = members
            .iter()
            .map(|(server, member)| Named {
                server,
                prefix: &member.prefix,
                tools: member.tools.iter().map(|tool| tool.name.as_str()).collect(),
            })
            .collect();
        let (names, problems) = naming::expose(lead, &named);

        let mut targets = HashMap::new();
        let mut result = String::from(r#"{"tools":["#);
        for ((_, member), names) in members.iter().zip(names) {
            for (tool, name) in member.tools.iter().zip(names) {
                let Some(name) = name else { continue };
                if !targets.is_empty() {
                    result.push(',');
                }
                result.push_str(&tool.renamed(&name));
                targets.insert(name, Target { link: Arc::clone(&member.link), tool: tool.name.clone() });
            }
        }
        result.push_str("]}");
        Self { targets, tools_result: result.into(), problems }
    }

    /// Where calls of the exposed name `tool` go.
    pub fn target(&self, tool: &str) -> Option<&Target> {
        self.targets.get(tool)
    }

    /// The `result` of `tools/list`, as JSON text.
    pub fn tools_result(&self) -> &ByteString {
        &self.tools_result
    }

    /// How many tools there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// What a user should know of the names.
    pub fn problems(&self) -> &[NamingProblem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn member(server: &str, tools: &[&str]) -> (ServerName, Member) {
        let name: ServerName = server.parse().unwrap();
        let link = Link::new(name.clone(), super::super::link::Limits::default());
        let tools = tools.iter().map(|raw| Tool::parse((*raw).into()).unwrap()).collect();
        (name, Member { prefix: server.to_owned(), link, tools })
    }

    #[test]
    fn tools_are_listed_as_their_servers_describe_them() {
        let odd = r#"{ "x-vendor":1e400, "name" : "a\u0062" ,"inputSchema":{"name":"inner"},"é":null}"#;
        let members: BTreeMap<_, _> =
            [member("one", &[odd]), member("two", &[r#"{"name":"ab"}"#])].into_iter().collect();
        let catalogue = Catalogue::build("x", members.iter());
        let expected = concat!(
            r#"{"tools":[{ "x-vendor":1e400, "name" : "x_one_ab" ,"inputSchema":{"name":"inner"},"é":null},"#,
            r#"{"name":"x_two_ab"}]}"#
        );
        assert_eq!(&**catalogue.tools_result(), expected);
        assert_eq!(catalogue.target("x_one_ab").unwrap().tool, "ab");
        assert!(catalogue.target("ab").is_none());
        assert_eq!(catalogue.len(), 2);
    }

    #[test]
    fn nothing_is_an_empty_list() {
        let catalogue = Catalogue::build("x", [].into_iter());
        assert_eq!(&**catalogue.tools_result(), r#"{"tools":[]}"#);
        assert!(catalogue.is_empty());
    }

    #[test]
    fn what_is_no_tool_is_refused() {
        for raw in ["7", "{}", r#"{"name":7}"#, r#"{"name":"a","name":"b"}"#] {
            assert!(Tool::parse(raw.into()).is_err(), "{raw}");
        }
    }
}
