//! A request of a client that is under way at a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::wire::stream::{EventStream, Weight};

/// Those who share the sessions with one server: everyone, or one client alone. Unequal for two servers, even where everyone
/// shares both.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharers(Arc<()>);

impl PartialEq for Sharers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A request of a client that is under way at a server.
#[derive(Debug)]
pub(super) struct Call {
    /// Fires when the client has cancelled it, or has gone.
    pub(super) cancelled: CancellationToken,
    /// The client's progress token, raw.
    pub(super) token: Option<ByteString>,
    /// Who shares the session that it goes over.
    pub(super) sharers: Sharers,
    /// Where messages that belong to it go.
    stream: Arc<EventStream>,
    /// Its id at the server, which is its progress token there, too. Ids begin with 1.
    at_server: AtomicU64,
    progressed: Notify,
}

impl Call {
    /// A call that was not sent yet.
    pub(super) fn new(
        cancelled: CancellationToken,
        token: Option<ByteString>,
        sharers: Sharers,
        stream: Arc<EventStream>,
    ) -> Self {
        Self { cancelled, token, sharers, stream, at_server: AtomicU64::new(0), progressed: Notify::new() }
    }

    /// The call's id at the server; 0 before it was sent.
    pub(super) fn at_server(&self) -> u64 {
        self.at_server.load(Ordering::Acquire)
    }

    pub(super) fn set_at_server(&self, id: u64) {
        self.at_server.store(id, Ordering::Release);
    }

    /// The server is at work: the time of the call begins again.
    pub(super) fn has_progressed(&self) {
        self.progressed.notify_one();
    }

    /// Waits for progress.
    pub(super) async fn progress(&self) {
        self.progressed.notified().await;
    }

    /// Passes a notification on to the call's client.
    pub(super) fn say(&self, text: ByteString) {
        self.stream.push(text, Weight::Droppable);
    }

    /// Sends what must arrive, as long as the call has no answer; says whether it has none.
    pub(super) fn try_say_for_sure(&self, text: ByteString) -> bool {
        self.stream.try_push(text, Weight::Required)
    }
}
