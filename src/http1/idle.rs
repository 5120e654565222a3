//! The connections to one peer that nobody uses at the moment.
//!
//! Also owns the tasks that send what is left of a request after its response has ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Connection, Payload, Stream};
use crate::sync::lock;

/// The connections to one peer that nobody uses at the moment, the one used last at the end.
pub(crate) struct Idle<S: Stream, B: Payload> {
    connections: Mutex<Vec<(Connection<S, B>, Instant)>>,
    timeout: Duration,
    most: usize,
    /// One for each connection whose request is still being sent. They end with the last who uses these connections.
    finishing: Mutex<JoinSet<()>>,
}

impl<S: Stream, B: Payload> Idle<S, B> {
    /// None yet. They are not used any more after `timeout`; more than `most` are closed at once.
    pub(crate) fn new(timeout: Duration, most: usize) -> Arc<Self> {
        Arc::new(Self { connections: Mutex::default(), timeout, most, finishing: Mutex::default() })
    }

    /// One that is still open as far as one can tell, the one used last.
    pub(crate) fn take(&self, now: Instant) -> Option<Connection<S, B>> {
        loop {
            let (mut connection, since) = lock(&self.connections).pop()?;
            // The others have been idle for longer still; the sweep closes them.
            if now.duration_since(since) >= self.timeout {
                return None;
            }
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// One that is of use to others. Where there are enough, it is closed.
    pub(super) fn give_back(&self, connection: Connection<S, B>, now: Instant) {
        let mut idle = lock(&self.connections);
        if idle.len() < self.most {
            idle.push((connection, now));
        }
    }

    /// Sends what is left of a request whose response has ended, within the time that a connection may be idle; then the
    /// connection is of use to others.
    pub(super) fn finish(self: &Arc<Self>, mut connection: Connection<S, B>) {
        // A runtime that is ending runs no more tasks.
        let Ok(runtime) = Handle::try_current() else { return };
        let (idle, limit) = (Arc::downgrade(self), self.timeout);
        let finishing = async move {
            if timeout(limit, connection.finish()).await.is_ok()
                && connection.is_free()
                && let Some(idle) = idle.upgrade()
            {
                idle.give_back(connection, Instant::now());
            }
        };
        let mut tasks = lock(&self.finishing);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(finishing, &runtime);
    }

    /// Closes what has been idle for too long. Whether any is left.
    pub(crate) fn close_expired(&self, now: Instant) -> bool {
        let mut idle = lock(&self.connections);
        let fresh = idle.iter().position(|(_, since)| now.duration_since(*since) < self.timeout);
        let fresh = fresh.unwrap_or(idle.len());
        let expired: Vec<_> = idle.drain(..fresh).collect();
        let any_left = !idle.is_empty();
        // Closed outside the lock.
        drop(idle);
        drop(expired);
        any_left
    }
}

impl<S: Stream, B: Payload> std::fmt::Debug for Idle<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;

    async fn open_connection() -> (Connection<UnixStream, Full<Bytes>>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::open(ours).await.unwrap(), theirs)
    }

    #[tokio::test]
    async fn idle_connections_are_closed_in_time() {
        let idle = Idle::new(Duration::from_secs(3), 2);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let (old, mut old_peer) = open_connection().await;
        idle.give_back(old, start);
        let (young, _young_peer) = open_connection().await;
        idle.give_back(young, after(2));
        assert!(idle.close_expired(after(3)));
        assert_eq!(old_peer.read(&mut [0]).await.unwrap(), 0, "the old one is closed");
        assert!(idle.take(after(3)).is_some(), "the young one is kept");
        assert!(idle.take(after(3)).is_none());

        let (expired, _peer) = open_connection().await;
        idle.give_back(expired, after(3));
        assert!(idle.take(after(6)).is_none(), "not used without a sweep either");
        assert!(!idle.close_expired(after(6)));
    }
}
