//! What waits to be sent to a server from our side, one after the other: answers to its requests, and notifications.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::pauses::Pauses;
use crate::wire::client::{ClientError, Session};

/// Sends what comes until the session is lost; each within `limit`.
pub(super) async fn send_outbox(
    session: Arc<Session>,
    mut receiver: mpsc::Receiver<ByteString>,
    limit: Duration,
    lost: CancellationToken,
) {
    let sending = async {
        while let Some(text) = receiver.recv().await {
            match tokio::time::timeout(limit, deliver(&session, text)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "the server did not take an answer"),
                Err(_) => debug!("the server did not take an answer in time"),
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = lost.cancelled() => {}
    }
}

/// Sends an answer, or a notification; again where a gateway that ended has lost it. Whoever hears it twice is not harmed; who
/// never hears an answer waits for ever, and the call with it.
async fn deliver(session: &Session, text: ByteString) -> Result<(), ClientError> {
    let mut pauses = Pauses::new();
    loop {
        match session.send(text.clone()).await {
            Err(error) if !error.was_sent() || matches!(error, ClientError::Send(_)) => {}
            other => return other,
        }
        pauses.pass().await;
    }
}
