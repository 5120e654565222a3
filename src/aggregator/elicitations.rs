//! Errors that ask a client to have its user visit a page first.

use std::sync::Arc;

use super::client::Client;
use super::ledger::Ledger;
use crate::wire::json;

/// The code of such errors (2025-11-25, client/elicitation, "URL Elicitation Required Error").
const URL_ELICITATION_REQUIRED: &str = "-32042";

/// Remembers whose the elicitations of an error are: the server says later when they are complete.
pub(super) fn remember(client: &Arc<Client>, ledger: &Ledger, error: &str) {
    let Ok([Some(URL_ELICITATION_REQUIRED), Some(data)]) = json::members(error, ["code", "data"]) else {
        return;
    };
    let Ok([Some(elicitations)]) = json::members(data, ["elicitations"]) else { return };
    for elicitation in json::elements(elicitations).unwrap_or_default() {
        let id = json::members(elicitation, ["elicitationId"]).ok().and_then(|[id]| json::string(id?));
        if let Some(id) = id {
            ledger.own_elicitation(id.into_owned(), client);
        }
    }
}
