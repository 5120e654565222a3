//! Asks a data port which generation is in force.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::generation::Generation;
use super::key::GatewayKey;
use super::{GENERATION_PATH, KEY_HEADER};

/// A gateway that accepts and says nothing must not hold up the next question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
/// No generation is longer; a stranger's page may be.
const BODY_LIMIT: usize = 256;

/// What a data port said when it was asked for its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// This generation. Another nonce than the one asked for is another process: a predecessor or a stranger.
    Generation(String),
    /// 403: it holds another key, so it is another gateway.
    Forbidden,
    /// Another status: a gateway with no such route yet, or no gateway at all.
    Status(StatusCode),
    /// No answer, with the reason.
    Silent(String),
}

impl fmt::Display for ProbeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation(text) => write!(f, "it answered generation {text:?}"),
            Self::Forbidden => f.write_str("it answered 403, so it holds another key"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Silent(reason) => write!(f, "it did not answer: {reason}"),
        }
    }
}

/// Asks until the port answers `wanted` or `deadline` has passed, and then says what the last answer was.
pub(super) async fn await_generation(
    port: NonZeroU16,
    key: &GatewayKey,
    wanted: Generation,
    deadline: Instant,
) -> Result<(), ProbeAnswer> {
    let wanted = wanted.to_string();
    let mut pause = FIRST_PAUSE;
    loop {
        match ask(port, key).await {
            ProbeAnswer::Generation(text) if text == wanted => return Ok(()),
            answer if Instant::now() + pause >= deadline => return Err(answer),
            _ => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks once, on a connection of its own: a kept one may still lead to a process that has given up the port.
pub(super) async fn ask(port: NonZeroU16, key: &GatewayKey) -> ProbeAnswer {
    match timeout(ANSWER_TIMEOUT, try_ask(port, key)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => ProbeAnswer::Silent(error.to_string()),
        Err(_elapsed) => ProbeAnswer::Silent(format!("nothing within {ANSWER_TIMEOUT:?}")),
    }
}

async fn try_ask(
    port: NonZeroU16,
    key: &GatewayKey,
) -> Result<ProbeAnswer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(GENERATION_PATH)
        .header(header::HOST, "sidegate")
        .header(header::CONNECTION, "close")
        .header(KEY_HEADER, key.header_value())
        .body(Empty::<Bytes>::new())?;
    let call = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok(match status {
            StatusCode::FORBIDDEN => ProbeAnswer::Forbidden,
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await?.to_bytes();
                ProbeAnswer::Generation(String::from_utf8_lossy(&body).into_owned())
            }
            _ => ProbeAnswer::Status(status),
        })
    };
    tokio::pin!(call);
    tokio::select! {
        answer = &mut call => answer,
        // A connection that ends first has handed over what it had read.
        ended = connection => match call.await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(ended.err().map_or(error, Into::into)),
        },
    }
}
