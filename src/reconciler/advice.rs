//! What somebody can do about a server that cannot be reached.
//!
//! Errors say what happened; what that means for a definition is known here, where definitions become sessions. Knows
//! nothing of what is done next.

use http::StatusCode;

use crate::aggregator::upstream::ConnectError;
use crate::wire::client::ClientError;

/// What can be done about an error, as the end of a sentence; `None` where the error says it, or nobody knows.
pub(super) fn advice(error: &ConnectError) -> Option<&'static str> {
    match error {
        ConnectError::Timeout(_) => Some("raise it if the server needs longer to start"),
        // What failed between the gateway and the server is told with a status as well.
        ConnectError::Client(ClientError::Status(status)) => of_connection(&status.to_string())
            .or_else(|| status.from_server.then(|| of_status(status.status)).flatten()),
        ConnectError::Client(ClientError::Protocol(_) | ClientError::Message(_)) => {
            Some("is spec.url the address of its MCP endpoint?")
        }
        ConnectError::Client(error) => of_connection(&error.to_string()),
        // The bridge tells what happened as an error of the request.
        ConnectError::Refused(text) if text.contains("was not found on PATH") => {
            Some("install it, or write its whole path as spec.command")
        }
        ConnectError::Refused(text) => of_connection(text),
        ConnectError::Circle(_) => Some("remove its definition (sidegate remove NAME)"),
        _ => None,
    }
}

fn of_status(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Some("put what it wants into spec.headers, such as Authorization")
        }
        StatusCode::NOT_FOUND => Some("is the path of spec.url right?"),
        StatusCode::METHOD_NOT_ALLOWED => Some("is the path of spec.url right, or is it of type: sse?"),
        status if status.is_server_error() => Some("look at the server's own log"),
        _ => None,
    }
}

/// The words are those of rustls and of the system, which come through a gateway as text.
fn of_connection(text: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 5] = [
        ("UnknownIssuer", "name the file with its authority's certificate in SSL_CERT_FILE"),
        ("InvalidContentType", "does it speak http rather than https?"),
        (
            "failed to lookup address information",
            "is the host of spec.url right, and can it be looked up here?",
        ),
        ("Connection refused", "does the server run, and at this address?"),
        ("connection closed before message completed", "look at the server's own log"),
    ];
    KNOWN.iter().find(|(words, _)| text.contains(words)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_known_has_advice() {
        let refused = |text: &str| advice(&ConnectError::Refused(text.to_owned()));
        assert!(
            refused("uvx was not found on PATH (/bin)").is_some_and(|advice| advice.contains("spec.command"))
        );
        assert!(refused("cannot connect: invalid peer certificate: UnknownIssuer").is_some());
        let unknown =
            "the gateway cannot connect: failed to lookup address information: Name or service not known";
        assert!(refused(unknown).is_some_and(|advice| advice.contains("host of spec.url")));
        assert_eq!(refused("the server exited with code 3"), None);
        assert!(advice(&ConnectError::Timeout(Duration::from_secs(30))).is_some());
        assert_eq!(advice(&ConnectError::Client(ClientError::NoAnswer)), None);
    }
}
