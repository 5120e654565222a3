//! Where a client's request goes, and what is exchanged in it on the way.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::link::Link;
use super::member::{SharedTool, Target};
use super::offer::Kind;
use super::registry::Registry;
use super::request::{ClientRequest, Edit};
use super::scope::Scope;
use super::session::ClientSession;
use super::tasks;
use crate::wire::json;
use crate::wire::rpc::RpcError;

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) link: Arc<Link>,
    pub(super) edits: Vec<Edit>,
    /// The server's own URI of the resource that the request is about, where the client has another one.
    pub(super) own_uri: Option<String>,
}

impl Route {
    /// The route of a request that is relayed.
    ///
    /// # Errors
    ///
    /// What the client gets as the answer: nothing exposed is called so, or nobody can tell whom to ask.
    pub(super) fn of(
        request: &ClientRequest<'_>,
        session: &ClientSession,
        catalogue: &Catalogue,
        registry: &Registry,
    ) -> Result<Self, RpcError> {
        if tasks::is_about_tasks(request.method) {
            return Ok(Self::unchanged(&tasks::link_of(session, request)?));
        }
        if let Scope::Server(server) = &session.client.scope {
            let member = catalogue.server(server).ok_or_else(|| registry.not_connected(server))?;
            return Ok(Self::unchanged(&member.link));
        }
        // Methods that are not known here are told apart by what they begin with.
        match request.method.split_once('/').map(|(subject, _)| subject) {
            Some("tools") => Self::by_name(request, Kind::Tool, catalogue, registry),
            Some("prompts") => Self::by_name(request, Kind::Prompt, catalogue, registry),
            Some("resources") => Self::by_uri(request, request.uri, "uri", catalogue, registry),
            Some("completion") => Self::by_reference(request, catalogue, registry),
            _ => Err(not_found(request)),
        }
    }

    fn unchanged(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), edits: Vec::new(), own_uri: None }
    }

    fn to(target: &Target, edit: Edit) -> Self {
        Self { link: Arc::clone(&target.link), edits: vec![edit], own_uri: None }
    }

    fn by_name(
        request: &ClientRequest<'_>,
        kind: Kind,
        catalogue: &Catalogue,
        registry: &Registry,
    ) -> Result<Self, RpcError> {
        let name = request.string("name", request.name)?;
        let raw = request.name.unwrap_or_default();
        if kind == Kind::Tool
            && let Some(tool) = catalogue.shared_tool(&name)
        {
            return Self::by_argument(request, raw, tool);
        }
        match catalogue.target(kind, &name) {
            Some(target) => Ok(Self::to(target, request.replace(raw, &target.key))),
            None => Err(registry.not_found(kind, &name)),
        }
    }

    /// The call of a tool that several servers share.
    fn by_argument(request: &ClientRequest<'_>, raw: &str, tool: &SharedTool) -> Result<Self, RpcError> {
        let SharedTool { argument, members } = tool;
        let wanted = || {
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            request
                .invalid(&format_args!("\"params.arguments.{argument}\" must be one of {}", names.join(", ")))
        };
        let arguments = request.arguments.ok_or_else(wanted)?;
        let [value] =
            json::members(arguments, [argument.as_str()]).map_err(|error| request.invalid(&error))?;
        let name = value.and_then(json::string).ok_or_else(wanted)?;
        let target = members.get(&*name).ok_or_else(wanted)?;
        let member = json::member_to_remove(arguments, argument).map_err(|error| request.invalid(&error))?;
        let edits = vec![request.replace(raw, &target.key), request.remove(member.unwrap_or_default())];
        Ok(Self { link: Arc::clone(&target.link), edits, own_uri: None })
    }

    fn by_uri(
        request: &ClientRequest<'_>,
        raw: Option<&str>,
        what: &str,
        catalogue: &Catalogue,
        registry: &Registry,
    ) -> Result<Self, RpcError> {
        let Some(raw) = raw else {
            return Err(request.invalid(&format_args!("\"params.{what}\" is missing")));
        };
        let Some(uri) = json::string(raw) else {
            return Err(request.invalid(&format_args!("\"params.{what}\" is not a string")));
        };
        // Completion is about templates themselves.
        if let Some(target) = catalogue.target(Kind::Template, &uri) {
            let own_uri = Some(target.key.to_string());
            return Ok(Self { own_uri, ..Self::to(target, request.replace(raw, &target.key)) });
        }
        let (link, own) = resource(&uri, catalogue, registry)?;
        if own == uri {
            return Ok(Self::unchanged(link));
        }
        let edits = vec![request.replace(raw, &own)];
        Ok(Self { link: Arc::clone(link), edits, own_uri: Some(own.into_owned()) })
    }

    fn by_reference(
        request: &ClientRequest<'_>,
        catalogue: &Catalogue,
        registry: &Registry,
    ) -> Result<Self, RpcError> {
        let reference = request.reference.ok_or_else(|| request.invalid(&"\"params.ref\" is missing"))?;
        let [name, uri] =
            json::members(reference, ["name", "uri"]).map_err(|error| request.invalid(&error))?;
        if uri.is_some() {
            return Self::by_uri(request, uri, "ref.uri", catalogue, registry);
        }
        let raw = name.ok_or_else(|| request.invalid(&"\"params.ref\" has neither a name nor a uri"))?;
        let name =
            json::string(raw).ok_or_else(|| request.invalid(&"\"params.ref.name\" is not a string"))?;
        let target = catalogue.target(Kind::Prompt, &name);
        let target = target.ok_or_else(|| registry.not_found(Kind::Prompt, &name))?;
        Ok(Self::to(target, request.replace(raw, &target.key)))
    }
}

/// Where reading an exposed URI goes, and what it is called there: where the catalogue lists it, else to the only server that
/// has resources, which is asked for what it has never listed unless another one did before it was lost.
///
/// # Errors
///
/// What the client gets as the answer.
pub(super) fn resource<'c, 'u>(
    uri: &'u str,
    catalogue: &'c Catalogue,
    registry: &Registry,
) -> Result<(&'c Arc<Link>, Cow<'u, str>), RpcError> {
    if let Some(listed) = catalogue.listed_resource(uri) {
        return Ok(listed);
    }
    if let Some(error) = registry.not_now(Kind::Resource, uri) {
        return Err(error);
    }
    catalogue.any_resource(uri).ok_or_else(|| registry.not_found(Kind::Resource, uri))
}

fn not_found(request: &ClientRequest<'_>) -> RpcError {
    RpcError::new(RpcError::METHOD_NOT_FOUND, format!("method not found: {}", request.method))
}
