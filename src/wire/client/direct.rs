//! An origin that is dialled by its address, over plain HTTP: a gateway of ours, in nearly all cases.
//!
//! Who asks drives the connection ([`crate::http1`]), so that a call wakes nobody but its own task.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::error::ClientError;
use super::{Body, CONNECT, IDLE, MOST_IDLE};
use crate::http1;

type Connection = http1::Connection<TcpStream, Full<Bytes>>;

/// Connections to one address. Dropped, it closes those that are idle.
#[derive(Debug)]
pub(super) struct Direct {
    address: SocketAddr,
    /// As it stands in requests.
    host: HeaderValue,
    idle: Arc<http1::Idle<TcpStream, Full<Bytes>>>,
    /// Closes idle connections in time, once there can be any. Responses that are being read bring more, also later.
    sweep: OnceLock<AbortHandle>,
}

impl Direct {
    /// The way to `authority`, where that is an address.
    pub(super) fn to(authority: &Authority) -> Option<Self> {
        let port = authority.port_u16();
        let host = authority.host();
        let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        let value = match port {
            None | Some(80) => host,
            Some(_) => authority.as_str(),
        };
        Some(Self {
            address: SocketAddr::new(ip, port.unwrap_or(80)),
            host: HeaderValue::from_str(value).ok()?,
            idle: http1::Idle::new(IDLE, MOST_IDLE),
            sweep: OnceLock::new(),
        })
    }

    /// Sends a request; its URI needs no more than a path.
    ///
    /// It goes over an idle connection if there is one; if that took none of it, once more over a new one.
    pub(super) async fn request(
        &self,
        path: PathAndQuery,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, ClientError> {
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(header::HOST, self.host.clone());
        let request = match self.idle.take(Instant::now()) {
            None => request,
            Some(mut connection) => match connection.send(request).await {
                Ok(response) => return Ok(self.answer(response, connection)),
                Err(mut unsent) => match unsent.take_message() {
                    Some(request) => request,
                    None => return Err(ClientError::Send(unsent.into_error().into())),
                },
            },
        };
        let connecting = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            Connection::open(stream).await.map_err(io::Error::other)
        };
        let connecting = async {
            timeout(CONNECT, connecting).await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
        };
        let mut connection = connecting.await.map_err(|error| ClientError::Connect(error.into()))?;
        match connection.send(request).await {
            Ok(response) => Ok(self.answer(response, connection)),
            Err(unsent) => Err(ClientError::Send(unsent.into_error().into())),
        }
    }

    fn answer(&self, response: Response<hyper::body::Incoming>, connection: Connection) -> Response<Body> {
        self.sweep_idle();
        response.map(|incoming| Body::Carried(http1::Body::new(incoming, connection, Arc::clone(&self.idle))))
    }

    /// Sees to it that idle connections are closed in time. To be called when there will be one.
    fn sweep_idle(&self) {
        self.sweep.get_or_init(|| {
            let idle = Arc::clone(&self.idle);
            let sweeping = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE).await;
                    idle.close_expired(Instant::now());
                }
            });
            sweeping.abort_handle()
        });
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if let Some(sweep) = self.sweep.get() {
            sweep.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_dialled_directly() {
        for (authority, expected) in [
            ("127.0.0.1:15000", Some(("127.0.0.1:15000", "127.0.0.1:15000"))),
            ("10.0.0.1", Some(("10.0.0.1:80", "10.0.0.1"))),
            ("10.0.0.1:80", Some(("10.0.0.1:80", "10.0.0.1"))),
            ("[::1]:9", Some(("[::1]:9", "[::1]:9"))),
            ("localhost:9", None),
            ("gateway.test", None),
        ] {
            let direct = Direct::to(&authority.parse().unwrap());
            let found = direct.map(|direct| (direct.address, direct.host.clone()));
            let expected = expected.map(|(address, host)| (address.parse().unwrap(), host.parse().unwrap()));
            assert_eq!(found, expected, "{authority}");
        }
    }
}
