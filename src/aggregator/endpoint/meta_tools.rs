//! Calls of meta tools: what they look for is found here, and what they stand for goes the way of any other request.

use bytestring::ByteString;

use super::Aggregate;
use crate::aggregator::exposure;
use crate::aggregator::request::ClientRequest;
use crate::aggregator::session::ClientSession;
use crate::wire::message::Message;
use crate::wire::rpc::RpcError;
use crate::wire::server::Reply;

impl Aggregate {
    /// Answers a request of a client, which may be the call of a meta tool. `None` where there is no answer: it was
    /// cancelled.
    pub(super) async fn answer_or_meta(
        &self,
        session: &ClientSession,
        request: &ClientRequest<'_>,
        reply: &Reply,
    ) -> Option<Result<ByteString, RpcError>> {
        let client = &session.client;
        let Some(tool) = exposure::called(client, request) else {
            return self.answer_observed(session, request, reply).await;
        };
        if tool.only_looks() {
            let found = || exposure::found(tool, request, &self.catalogue(), &self.registry);
            return Some(Ok(self.answer_at_once(client, request, found)));
        }
        let relayed = match exposure::relayed(tool, request, &self.catalogue(), &self.registry) {
            Ok(relayed) => relayed,
            Err(refusal) => return Some(Ok(self.answer_at_once(client, request, || refusal))),
        };
        let message = match Message::from_text(relayed.text) {
            Ok(message) => message,
            Err(error) => return Some(Err(RpcError::from(&error))),
        };
        let request = match ClientRequest::parse(&message) {
            Ok(relayed) => ClientRequest { http: request.http, ..relayed },
            Err(error) => return Some(Err(error)),
        };
        // Whoever observes calls sees the one that was meant.
        let answer = self.answer_observed(session, &request, reply).await?;
        Some(answer.map(|answer| relayed.shape.result(answer)))
    }
}
