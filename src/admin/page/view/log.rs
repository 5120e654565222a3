//! The logs.

use maud::{Markup, html};

use super::super::GATEWAY;
use super::super::form::address;
use super::super::log::Tail;
use super::frame::Place;
use super::{Frame, parts};
use crate::admin::status::Status;
use crate::mcpserver::log_name;

/// Servers that can be chosen from; the others' logs are linked from their own pages.
const MOST: usize = 500;

pub(in crate::admin::page) fn logs(frame: &Frame<'_>, status: &Status, shown: &str, log: &Tail) -> Markup {
    let servers = status.servers.iter().map(|server| log_name(&server.name));
    let content = html! {
        nav.choice aria-label="Logs" {
            ul {
                @for name in [GATEWAY].into_iter().chain(servers).take(MOST) {
                    li { a href=(address("/ui/logs", &[("of", name)])) aria-current=[(name == shown).then_some("true")] { (name) } }
                }
            }
        }
        div #log data-live="" { (parts::log(shown, log)) }
    };
    frame.page(Place::Logs, &"Logs", &content)
}
