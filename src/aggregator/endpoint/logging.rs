//! `logging/setLevel`: each client says what it wants, and each server is asked for the most that anybody wants of it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::Aggregate;
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::level::Level;
use crate::aggregator::request::ClientRequest;
use crate::aggregator::session::ClientSession;
use crate::wire::json;
use crate::wire::rpc::RpcError;

/// How long a client that sets a level waits for servers to know of it. A slow one learns of it later.
const PATIENCE: Duration = Duration::from_secs(1);

impl Aggregate {
    /// Takes the level that a client wants.
    pub(super) async fn set_level(
        &self,
        session: &ClientSession,
        request: &ClientRequest<'_>,
    ) -> Result<(), RpcError> {
        let [raw] = json::members(request.params.unwrap_or("{}"), ["level"])
            .map_err(|error| request.invalid(&error))?;
        let raw = raw.ok_or_else(|| request.invalid(&"\"params.level\" is missing"))?;
        let level =
            Level::from_raw(raw).ok_or_else(|| request.invalid(&format_args!("{raw} is no level")))?;
        session.client.level.set(level);
        let mut asking = self.align_levels(&self.catalogue());
        asking.extend(session.own.set_level(level));
        let asking = join_all(asking);
        // Who has not answered by then answers nobody.
        let _ = tokio::time::timeout(PATIENCE, asking).await;
        Ok(())
    }

    /// Asks servers for other log levels where clients want others than they were asked for.
    pub(super) fn align_levels(&self, catalogue: &Catalogue) -> Vec<JoinHandle<()>> {
        let mut asking = Vec::new();
        for (name, member) in catalogue.servers() {
            // Where clients have sessions of their own, nobody logs in ours.
            if !member.offer.has("logging") || member.link.isolation().is_some() {
                continue;
            }
            if let Some(level) = self.clients().wanted_level(name)
                && member.link.ledger().level.set(level) != Some(level)
                && let Some(upstream) = member.link.current()
            {
                asking.push(upstream.align_level());
            }
        }
        asking
    }
}
