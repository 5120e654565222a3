//! A new connection to a backend: TCP or a Unix socket, through a proxy where one is set, with TLS where it is spoken.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{Address, BackendId, HostPort};

/// The longest answer of a proxy to CONNECT, in bytes.
const CONNECT_ANSWER_LIMIT: usize = 8 * 1024;

/// A connection to a backend.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Dials. `tls` is the connector that goes with the backend's TLS settings.
pub(super) async fn dial(backend: &BackendId, tls: Option<&TlsConnector>) -> io::Result<Stream> {
    let target = match &backend.address {
        Address::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path).await?)),
        Address::Tcp(target) => target,
    };
    let stream = match &backend.tunnel {
        None => connect(target).await?,
        Some(proxy) if backend.tls.is_some() => tunnel(connect(proxy).await?, target).await?,
        // It reads from each request where that is to go.
        Some(proxy) => connect(proxy).await?,
    };
    match (&backend.tls, tls) {
        (Some(id), Some(connector)) => {
            Ok(Stream::Tls(Box::new(connector.connect(id.name.clone(), stream).await?)))
        }
        _ => Ok(Stream::Tcp(stream)),
    }
}

async fn connect(target: &HostPort) -> io::Result<TcpStream> {
    let port = target.port.get();
    // An address needs no look-up, which would go through a thread of its own.
    let stream = match target.host.parse() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await?,
        Err(_name) => TcpStream::connect((target.host.as_str(), port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// RFC 9110 section 9.3.6.
async fn tunnel(mut stream: TcpStream, target: &HostPort) -> io::Result<TcpStream> {
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    // The backend speaks only when it is spoken to, so nothing beyond the head can have come.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > CONNECT_ANSWER_LIMIT || stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other("the proxy's answer to CONNECT has no end"));
        }
    }
    let status = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match status.split(|byte| *byte == b' ').nth(1) {
        Some([b'2', _, _]) => Ok(stream),
        _ => Err(io::Error::other(format!("the proxy refuses CONNECT: {}", String::from_utf8_lossy(status)))),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
