//! Telling clients that lists have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Aggregate, shown};

/// A change of the catalogue is announced when nothing more has changed for this long, so that what changes together
/// is announced once, but no later than `ANNOUNCE_AT_LATEST` after it began.
const ANNOUNCE_QUIET: Duration = Duration::from_millis(10);
const ANNOUNCE_AT_LATEST: Duration = Duration::from_millis(100);

impl Aggregate {
    /// Tells clients when lists have changed. Runs until `stop`.
    pub async fn announce_changes(&self, stop: CancellationToken) {
        let mut catalogues = self.registry.subscribe();
        let announcing = async {
            while catalogues.changed().await.is_ok() {
                let quiet = async {
                    while let Ok(Ok(())) = tokio::time::timeout(ANNOUNCE_QUIET, catalogues.changed()).await {}
                };
                // The limit itself is of no interest: either way the news is told now.
                let _ = tokio::time::timeout(ANNOUNCE_AT_LATEST, quiet).await;
                let latest = || Arc::clone(&catalogues.borrow_and_update());
                let catalogue = self.clients().tell_all(latest, |client, catalogue| {
                    client.tell(|kind| shown(client, catalogue, kind));
                });
                // Servers that have come are asked for what others were asked for. They answer when they like.
                drop(self.align_levels(&catalogue));
            }
        };
        // Ends with `stop`; there is nothing to tell any more then.
        let _ = stop.run_until_cancelled(announcing).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tokio_util::task::TaskTracker;

    use super::super::tests::request;
    use super::*;
    use crate::aggregator::limits::Limits;
    use crate::aggregator::link::Link;
    use crate::aggregator::member::Member;
    use crate::aggregator::offer::Offer;
    use crate::aggregator::registry::Registry;
    use crate::wire::server::{SESSION_ID, ServerConfig, StreamableHttp};

    async fn publish(registry: &Registry) -> Arc<Link> {
        let link = registry.link("a".parse().unwrap(), Limits::default());
        let offer = Arc::new(Offer::of_tools(&[r#"{"name":"t"}"#]).unwrap());
        let member = Member { prefix: "a".to_owned(), link: Arc::clone(&link), offer, family: None };
        registry.publish(member).await;
        link
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_of_every_list_that_is_not_the_one_it_knows() {
        let (registry, stop) = (Registry::new("x"), CancellationToken::new());
        let aggregate = Aggregate::new(Arc::clone(&registry), stop.clone());
        let server =
            StreamableHttp::new(aggregate, ServerConfig::default(), TaskTracker::new(), stop.clone());
        let announcer = Arc::clone(&server);
        tokio::spawn(async move { announcer.endpoint().announce_changes(stop).await });

        let initialize =
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
        let opened = Arc::clone(&server).handle(request("POST", None, initialize)).await;
        let session = opened.headers()[SESSION_ID].clone();
        let mut stream = Arc::clone(&server).handle(request("GET", Some(&session), "")).await.into_body();
        let mut told = async || {
            // The announcer waits for quiet; the clock of the test goes on when everybody waits.
            tokio::time::sleep(ANNOUNCE_AT_LATEST * 2).await;
            stream.frame().now_or_never().is_some()
        };

        assert!(!told().await, "nothing has changed");
        publish(&registry).await;
        assert!(told().await, "something new");
        let link = publish(&registry).await;
        assert!(!told().await, "the same list, made anew");
        registry.withdraw(&link).await;
        assert!(told().await, "the list that the client came with, after another one");
    }
}
