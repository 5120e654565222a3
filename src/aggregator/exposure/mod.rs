//! How much of the catalogue the list of tools shows: every tool (`direct`), or a few that find and use the others
//! (`meta`), which costs a model's context the same however many tools there are.
//!
//! | part | owns |
//! | --- | --- |
//! | `tools` | the meta tools: their names, and how they describe themselves |
//! | `arguments` | what they are called with |
//! | `entry` | what the catalogue lists, as they show it |
//! | `rank` | which entries some words mean |
//! | `find` | the answers of those that list, filter and describe |
//! | `relayed` | the request that one of the others stands for, and its result as a tool's |
//!
//! Invariants: what can be called does not depend on what is listed; a call of `call_tool` is the call that it names,
//! under its own id and token, and goes the way of any other; the list of meta tools never changes, so nobody is told
//! that it has. The list of prompts and that of resources are shown in full: people pick from those, and no model reads them.
//!
//! One server alone (`/mcp/<server>`) is always shown as it is.

mod arguments;
mod entry;
mod find;
mod rank;
mod relayed;
mod tools;

use http::{HeaderMap, HeaderName};

use self::arguments::Refused;
use self::relayed::Relayed;
pub(super) use self::tools::meta_tools;
use self::tools::{Action, MetaTool};
use super::catalogue::Catalogue;
use super::client::Client;
use super::registry::Registry;
use super::request::ClientRequest;
use super::scope::Scope;
use crate::config::Exposure;
use crate::wire::json;
use crate::wire::rpc::RpcError;

/// The header with which a client says at `initialize` what it wants, `direct` or `meta`, whatever the settings say.
pub const EXPOSURE: HeaderName = HeaderName::from_static("x-sidegate-exposure");

/// Servers that the instructions name; of more only how many there are.
const MOST_NAMES: usize = 40;

/// What a client that sends `headers` gets to see; `usual` where it has not said.
///
/// # Errors
///
/// The header says something else, or says it twice, or wants of one server alone what there is not.
pub(super) fn chosen(headers: &HeaderMap, scope: &Scope, usual: Exposure) -> Result<Exposure, RpcError> {
    let wrong = |why: String| RpcError::new(RpcError::INVALID_REQUEST, format!("X-Sidegate-Exposure: {why}"));
    let mut values = headers.get_all(EXPOSURE).iter();
    let wanted = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => {
            let text = String::from_utf8_lossy(value.as_bytes());
            Some(text.trim().parse().map_err(|_| {
                let words: Vec<&str> = Exposure::ALL.iter().map(|(word, _)| *word).collect();
                wrong(format!("unknown value {text:?}; write {}", words.join(" or ")))
            })?)
        }
        (Some(_), Some(_)) => return Err(wrong("it stands twice; send it once".to_owned())),
    };
    match scope {
        Scope::All => Ok(wanted.unwrap_or(usual)),
        Scope::Server(_) if wanted == Some(Exposure::Meta) => {
            Err(wrong("one server alone shows its own tools; leave the header out, or use /mcp".to_owned()))
        }
        Scope::Server(_) => Ok(Exposure::Direct),
    }
}

/// What a client that sees the meta tools is told at `initialize`, as a raw JSON string: how to use them, and what the
/// servers say.
pub(super) fn instructions(catalogue: &Catalogue) -> String {
    let mut text = "The tools of several MCP servers are behind a few here. Find one with filter_tools (words, or a \
        pattern for its name) or list_tools, read its arguments with describe_tool, and call it with call_tool. \
        Resources and prompts work the same way: filter_resources, describe_resource, get_resource; filter_prompts, \
        describe_prompt, get_prompt."
        .to_owned();
    let names: Vec<&str> = catalogue.servers().map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        let (shown, more) = names.split_at(names.len().min(MOST_NAMES));
        text.push_str(&format!(" Servers at the moment: {}", shown.join(", ")));
        text.push_str(&if more.is_empty() { ".".to_owned() } else { format!(" and {} more.", more.len()) });
    }
    if let Some(servers) = catalogue.instructions().as_deref().and_then(json::string) {
        text.push_str("\n\n");
        text.push_str(&servers);
    }
    json::quoted(&text)
}

/// The meta tool that a request calls.
pub(super) fn called(client: &Client, request: &ClientRequest<'_>) -> Option<MetaTool> {
    if client.meta_tools.is_none() || request.method != "tools/call" {
        return None;
    }
    MetaTool::named(&json::string(request.name?)?)
}

/// The result of a meta tool that looks for something.
pub(super) fn found(
    tool: MetaTool,
    request: &ClientRequest<'_>,
    catalogue: &Catalogue,
    registry: &Registry,
) -> String {
    let found = tool.read(request).and_then(|arguments| match tool.action {
        Action::Describe => find::describe(tool, &arguments, catalogue, registry),
        Action::List | Action::Filter | Action::Use => find::list(tool, &arguments, catalogue),
    });
    found.unwrap_or_else(|refused| refused.result())
}

/// The request that a meta tool stands for which uses something.
///
/// # Errors
///
/// The result of the meta tool where it stands for none.
pub(super) fn relayed(
    tool: MetaTool,
    request: &ClientRequest<'_>,
    catalogue: &Catalogue,
    registry: &Registry,
) -> Result<Relayed, String> {
    let arguments = tool.read(request);
    let relayed =
        arguments.and_then(|arguments| relayed::request(tool, &arguments, request, catalogue, registry));
    relayed.map_err(|refused: Refused| refused.result())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (EXPOSURE, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[rstest]
    #[case(&[], Exposure::Direct)]
    #[case(&["meta"], Exposure::Meta)]
    #[case(&[" direct "], Exposure::Direct)]
    fn the_header_goes_before_the_settings(#[case] values: &[&str], #[case] expected: Exposure) {
        let chosen = |usual| chosen(&headers(values), &Scope::All, usual).unwrap();
        assert_eq!(chosen(Exposure::Direct), expected);
        let unsaid = values.is_empty();
        assert_eq!(chosen(Exposure::Meta), if unsaid { Exposure::Meta } else { expected });
    }

    #[rstest]
    #[case(&["all"], r#"unknown value "all"; write direct or meta"#)]
    #[case(&["META"], r#"unknown value "META"; write direct or meta"#)]
    #[case(&[""], r#"unknown value ""; write direct or meta"#)]
    #[case(&["meta", "meta"], "it stands twice; send it once")]
    fn what_the_header_cannot_say(#[case] values: &[&str], #[case] why: &str) {
        let error = chosen(&headers(values), &Scope::All, Exposure::Direct).unwrap_err();
        assert_eq!(error.message, format!("X-Sidegate-Exposure: {why}"));
    }

    #[test]
    fn one_server_alone_is_shown_as_it_is() {
        let scope = Scope::Server("a".parse().unwrap());
        assert_eq!(chosen(&headers(&[]), &scope, Exposure::Meta).unwrap(), Exposure::Direct);
        assert_eq!(chosen(&headers(&["direct"]), &scope, Exposure::Meta).unwrap(), Exposure::Direct);
        let error = chosen(&headers(&["meta"]), &scope, Exposure::Direct).unwrap_err();
        assert!(error.message.contains("use /mcp"), "{error}");
    }
}
