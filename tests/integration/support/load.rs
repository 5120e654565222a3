//! Clients that call without a pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{McpClient, eventually, within};

/// Clients, each with a session of its own, that call `echo` again and again and panic when an answer is not theirs.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, which call these tools in turn.
    pub(crate) fn start(url: &str, clients: usize, tools: [&'static str; 2]) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (url, stop, calls) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let client = McpClient::connect(&url).await;
                let tool = tools[number % tools.len()];
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let payload = format!("{number}-{count}");
                    let answer = client.call(tool, json!({"payload": payload})).await;
                    assert!(answer.raw().contains(&payload), "{tool}: {answer:?}");
                    count += 1;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                client.delete().await;
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, calls, clients }
    }

    /// Waits until there are as many more answers as there are clients.
    pub(crate) async fn goes_on(&self) {
        let reached = self.calls.load(Ordering::Relaxed) + self.clients.len();
        eventually("more calls", async || {
            self.check();
            (self.calls.load(Ordering::Relaxed) >= reached).then_some(())
        })
        .await;
    }

    /// Fails where a call has failed.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert!(self.clients.iter().all(|client| !client.is_finished()), "a call was lost");
    }

    /// Ends the clients; each has had an answer to each of its calls.
    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            within("a client", client).await.unwrap();
        }
    }
}
