//! What a client has declared at `initialize`, and which requests of servers it therefore takes.

use bytestring::ByteString;

use super::behind;
use crate::wire::json;
use crate::wire::rpc::RpcError;

/// What a client has declared.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// The raw `capabilities`.
    pub(super) capabilities: ByteString,
    /// The raw `clientInfo`.
    pub(super) info: Option<ByteString>,
    /// It is a Sidegate, and wants to know who is behind us.
    pub(super) asks_behind: bool,
    sampling: bool,
    roots: bool,
    elicitation_form: bool,
    elicitation_url: bool,
}

impl Declared {
    /// Reads the `params` of `initialize`, a slice of `whole`.
    ///
    /// # Errors
    ///
    /// They are no object, or have a member twice.
    pub(super) fn parse(whole: &ByteString, params: &str) -> Result<Self, serde_json::Error> {
        let [capabilities, info] = json::members(params, ["capabilities", "clientInfo"])?;
        let capabilities = capabilities.filter(|raw| *raw != "null").unwrap_or("{}");
        let [sampling, roots, elicitation] =
            json::members(capabilities, ["sampling", "roots", "elicitation"])?;
        let is_declared = |raw: Option<&str>| raw.is_some_and(|raw| raw != "null" && raw != "false");
        let [form, url] = match elicitation.filter(|raw| raw.starts_with('{')) {
            Some(elicitation) => json::members(elicitation, ["form", "url"])?.map(is_declared),
            None => [false, false],
        };
        Ok(Self {
            capabilities: match capabilities {
                "{}" => ByteString::from_static("{}"),
                declared => whole.slice_ref(declared),
            },
            info: info.filter(|raw| raw.starts_with('{')).map(|info| whole.slice_ref(info)),
            asks_behind: behind::asks(params),
            sampling: is_declared(sampling),
            roots: is_declared(roots),
            // An empty object means forms, as before there were modes (2025-11-25, client/elicitation, "Capabilities").
            elicitation_form: is_declared(elicitation) && (form || !url),
            elicitation_url: url,
        })
    }

    /// Whether the client takes a request of a server.
    ///
    /// # Errors
    ///
    /// What the server gets as the answer.
    pub(super) fn check(&self, method: &str, params: Option<&str>) -> Result<(), RpcError> {
        let missing = |what: &str| {
            let why = format!("the client does not support {what}");
            Err(RpcError::new(RpcError::METHOD_NOT_FOUND, why))
        };
        match method {
            "sampling/createMessage" if !self.sampling => missing("sampling"),
            "roots/list" if !self.roots => missing("roots"),
            "elicitation/create" if !self.elicitation_form && !self.elicitation_url => missing("elicitation"),
            "elicitation/create" => {
                let mode = params.and_then(|params| json::members(params, ["mode"]).ok()?[0]);
                let is_url = mode.and_then(json::string).is_some_and(|mode| mode == "url");
                if if is_url { self.elicitation_url } else { self.elicitation_form } {
                    return Ok(());
                }
                // The code that the specification gives for modes (2025-11-25, client/elicitation, "Error Handling").
                let mode = if is_url { "url" } else { "form" };
                let why = format!("the client does not support elicitation in {mode} mode");
                Err(RpcError::new(RpcError::INVALID_PARAMS, why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_asked_for_what_it_has_declared() {
        let (sampling, roots) = (("sampling/createMessage", None), ("roots/list", None));
        let form = ("elicitation/create", Some(r#"{"message":""}"#));
        let url = ("elicitation/create", Some(r#"{"mode":"url"}"#));
        let (none, bad_mode) = (Some(RpcError::METHOD_NOT_FOUND), Some(RpcError::INVALID_PARAMS));
        for (capabilities, expected) in [
            ("{}", [none, none, none, none]),
            (r#"{"sampling":{},"roots":null}"#, [None, none, none, none]),
            (r#"{"roots":{"listChanged":true}}"#, [none, None, none, none]),
            (r#"{"elicitation":{}}"#, [none, none, None, bad_mode]),
            (r#"{"elicitation":{"form":{}}}"#, [none, none, None, bad_mode]),
            (r#"{"elicitation":{"url":{}}}"#, [none, none, bad_mode, None]),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, [none, none, None, None]),
        ] {
            let params: ByteString = format!(r#"{{"capabilities":{capabilities}}}"#).into();
            let declared = Declared::parse(&params, &params).unwrap();
            let codes = [sampling, roots, form, url]
                .map(|(method, params)| declared.check(method, params).err().map(|error| error.code));
            assert_eq!(codes, expected, "{capabilities}");
        }
    }
}
