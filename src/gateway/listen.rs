//! The four listeners and the connections that come in on them.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::config::Settings;
use super::error::{ServeError, Surface};
use super::state::Gateway;
use super::surfaces;
use crate::own_wakes::PolledAgain;

const BACKLOG: u32 = 1024;
/// After a failed accept, which is nearly always the limit of descriptors: it lasts until something is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All four, bound.
pub(super) struct Listeners {
    data: SocketAddr,
    bound: Vec<(Surface, TcpListener)>,
}

impl Listeners {
    /// Binds all or none, the data port first.
    pub(super) fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let data = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.data.get()));
        let surfaces = [
            (Surface::Data, data),
            (Surface::Admin, settings.admin),
            (Surface::Stats, settings.stats),
            (Surface::Readiness, settings.readiness),
        ];
        let bound = surfaces
            .into_iter()
            .map(|(surface, address)| match listen(address) {
                Ok(listener) => Ok((surface, listener)),
                Err(source) => Err(ServeError::Bind { surface, address, source }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { data, bound })
    }

    pub(super) fn data_address(&self) -> SocketAddr {
        self.data
    }

    /// Accepts on all of them until `shutdown`; calls in flight then run on until `cut`.
    pub(super) fn serve(
        self,
        gateway: &Arc<Gateway>,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
        cut: &CancellationToken,
    ) {
        for (surface, listener) in self.bound {
            let accepting = Accepting {
                surface,
                gateway: Arc::clone(gateway),
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
                cut: cut.clone(),
            };
            tasks.spawn(accepting.run(listener));
        }
    }
}

/// Listens beside a socket that holds the port bound without listening: the lease of whoever started this process.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[derive(Clone)]
struct Accepting {
    surface: Surface,
    gateway: Arc<Gateway>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    cut: CancellationToken,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _peer)) => {
                    drop(self.tasks.spawn(PolledAgain::new(self.clone().connection(stream))));
                }
                Err(error) => {
                    warn!(surface = %self.surface, error = &error as &dyn std::error::Error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let _open = (self.surface == Surface::Data).then(|| self.gateway.metrics.connection());
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = &error as &dyn std::error::Error, "connection was gone at once");
            return;
        }
        let service = service_fn(|request| async {
            Ok::<_, Infallible>(surfaces::answer(&self.gateway, self.surface, request).await)
        });
        // Kept connections of callers may be idle for as long as they like: they come from this host only.
        let mut serving = pin!(
            http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            biased;
            ended = serving.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = serving.as_mut() => ended,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            debug!(surface = %self.surface, error = &error as &dyn std::error::Error, "connection ended");
        }
    }
}
