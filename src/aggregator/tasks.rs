//! Tasks (2025-11-25, basic/utilities/tasks, experimental): passed through, each to its own client and server only.

use std::collections::HashSet;
use std::sync::Arc;

use bytestring::ByteString;

use super::ledger::TaskProgress;
use super::link::Link;
use super::request::ClientRequest;
use super::session::{ClientSession, PlacedCall};
use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};

/// The capability of servers that have tasks; clients are told of it where any server has it. Which tools have them the
/// tools say.
pub(super) const CAPABILITY: &str = r#""tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}"#;

/// Whether a method is about tasks that are there.
pub(super) fn is_about_tasks(method: &str) -> bool {
    method.starts_with("tasks/")
}

/// Remembers the task that an answer tells of, if it does.
pub(super) fn remember(session: &ClientSession, placed: &PlacedCall<'_>, answer: &Message) {
    let View::Response { outcome: Ok(result), .. } = answer.view() else { return };
    let task = json::members(result, ["task"]).ok().and_then(|[task]| task);
    let id = task.and_then(|task| json::members(task, ["taskId"]).ok()?[0]).and_then(json::string);
    if let Some(id) = id {
        let call = placed.call();
        let progress = TaskProgress { at_server: call.at_server(), token: call.token.clone() };
        placed.ledger.own_task(id.clone().into_owned(), &session.client, progress);
        session.begin_task(id.into_owned(), placed.link);
    }
}

/// Where a task is that a request is about.
///
/// # Errors
///
/// It is not this client's.
pub(super) fn link_of(session: &ClientSession, request: &ClientRequest<'_>) -> Result<Arc<Link>, RpcError> {
    let id = request.string("taskId", request.task_id)?;
    // The code that the specification gives (2025-11-25, basic/utilities/tasks, "Error Handling").
    session.task(&id).ok_or_else(|| request.invalid(&format_args!("task not found: {id}")))
}

/// The tasks of a client: of what each of its servers lists, those that it has begun.
pub(super) async fn list(session: &ClientSession, request: &ClientRequest<'_>) -> ByteString {
    let mut links: Vec<(Arc<Link>, HashSet<String>)> = Vec::new();
    for (id, link) in session.tasks() {
        match links.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &link)) {
            Some((_, ids)) => drop(ids.insert(id)),
            None => links.push((link, HashSet::from([id]))),
        }
    }
    let mut tasks = Vec::new();
    for (link, own) in links {
        let opened = session.client.closed.run_until_cancelled(session.upstream_of(&link)).await;
        let Some(Ok(upstream)) = opened else { continue };
        // One that cannot list its tasks has none in the list.
        let listed = upstream.tasks(link.limits()).await.unwrap_or_default();
        tasks.extend(listed.into_iter().filter(|(id, _)| own.contains(id)).map(|(_, raw)| raw));
    }
    let tasks: Vec<&str> = tasks.iter().map(|raw| &**raw).collect();
    rpc::result(request.id, &format!(r#"{{"tasks":[{}]}}"#, tasks.join(",")))
}
