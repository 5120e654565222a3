//! A client on a pair of pipes, joined to a streamable HTTP server.
//!
//! Each line of the input is one message and becomes one POST; whatever the server says, in answers, in their streams or
//! on the GET stream, becomes one line of the output. No message is changed: ids, tokens and unknown members are the
//! client's and the server's own. What stdio does not know stays here: the session's id, the version header, streams that
//! are resumed.
//!
//! - Requests run side by side. Notifications, and answers to the server's requests, are sent one after the other, in the
//!   order they came, so that whatever follows one finds it done. A cancellation follows its request.
//! - A line that is no message is answered with an error whose id is null, as JSON-RPC 2.0 section 5 has it.
//! - Memory is bounded: the input is not read further while [`UNSENT`] bytes of requests wait to be sent, and the server
//!   is not read further while the output does not take what is there already.
//! - A session that the server does not know any more is not opened again: subscriptions and log levels went with it, and
//!   the client could not know. The relay ends, and whoever started it starts it anew.
//!
//! Knows nothing of processes, signals, or where the server is from.

mod calls;
mod carrier;
mod old_clients;
mod outbox;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::debug;

use self::carrier::Carrier;
use self::outbox::outbox;
use super::client::{ClientConfig, ClientError, Pool};

/// Bytes of requests that may wait to be sent.
pub const UNSENT: usize = 64 << 20;

/// How long the end of the session, and a client that is slow to read what is left, are waited for.
const GOODBYE: Duration = Duration::from_secs(2);

/// Whom to join, and how long to wait at the end.
#[derive(Clone, Debug)]
pub struct PipeConfig {
    /// The connections to the server.
    pub pool: Pool,
    /// The server.
    pub server: ClientConfig,
    /// How long requests that are under way at the end of the input are waited for.
    pub drain: Duration,
}

/// Whether the relay shall end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No.
    Never,
    /// As if the input had ended.
    Drain,
    /// Requests that are under way get an error with this text.
    Now(String),
}

/// Why a relay has ended that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// Reading the input failed.
    #[error("the input cannot be read")]
    Input(#[source] io::Error),
    /// The server has ended the session.
    #[error("the session is over")]
    Session(#[source] ClientError),
}

/// Carries messages between a client and a server, until the input ends, nobody reads the output any more, or `stop` says
/// so.
///
/// At the end of the input, and for [`Stop::Drain`], requests that are under way have [`PipeConfig::drain`] to be
/// answered; another change of `stop` ends that. What is not answered then gets an error. The server's session is ended,
/// and everything that was begun has ended when this returns.
///
/// # Errors
///
/// [`PipeError`]
pub async fn relay<R, W>(
    input: R,
    output: W,
    config: PipeConfig,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), PipeError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let drain = config.drain;
    let (outbox, writer) = outbox();
    let carrier = Arc::new(Carrier::new(config, outbox.clone()));
    let mut writing = tokio::spawn(writer.run(output));

    let mut asked = stop.borrow_and_update().clone();
    let mut ended = Ok(());
    if asked == Stop::Never {
        tokio::select! {
            biased;
            () = outbox.closed() => asked = Stop::Now("the output is closed".to_owned()),
            () = changed(&mut stop) => asked = stop.borrow_and_update().clone(),
            error = carrier.lost() => ended = Err(PipeError::Session(error)),
            read = carrier.read_all(input) => ended = read.map_err(PipeError::Input),
        }
    }
    let mut why = match (&ended, asked) {
        (Err(error), _) => error.to_string(),
        (_, Stop::Now(why)) => why,
        _ => {
            debug!("waiting for what is under way");
            tokio::select! {
                biased;
                () = carrier.idle() => "it came after the end".to_owned(),
                () = outbox.closed() => "the output is closed".to_owned(),
                () = changed(&mut stop) => match &*stop.borrow() {
                    Stop::Now(why) => why.clone(),
                    Stop::Never | Stop::Drain => "it was interrupted".to_owned(),
                },
                error = carrier.lost() => {
                    let error = PipeError::Session(error);
                    let why = error.to_string();
                    ended = Err(error);
                    why
                }
                () = tokio::time::sleep(drain) => format!("it took longer than {} s after the end of the input", drain.as_secs()),
            }
        }
    };
    why.insert_str(0, "there is no answer: ");
    carrier.end(&why).await;
    // With the last handle the writer ends, when all is written.
    drop((carrier, outbox));
    if tokio::time::timeout(GOODBYE, &mut writing).await.is_err() {
        debug!("what is left is not read");
        writing.abort();
    }
    ended
}

/// Waits until somebody says something else. Where nobody is left to say so, for ever.
async fn changed(stop: &mut watch::Receiver<Stop>) {
    if stop.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
