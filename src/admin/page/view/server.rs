//! One server: its state, its tools and the end of its log.

use maud::{Markup, html};

use super::super::calls::Row;
use super::super::form::address;
use super::super::log::Tail;
use super::super::paging::Paged;
use super::super::text::Said;
use super::super::tools::Entry;
use super::frame::Place;
use super::tools::list;
use super::{Frame, calls, parts};
use crate::admin::status::ServerEntry;
use crate::mcpserver::log_name;

pub(in crate::admin::page) fn server(
    frame: &Frame<'_>,
    server: &ServerEntry,
    tools: &Paged<Entry>,
    calls: &Paged<Row>,
    log: &Tail,
) -> Markup {
    let content = html! {
        div #state data-live="" {
            p role="status" { (parts::state(&server.state)) " " span.note { (parts::ago(server.since)) } }
            (parts::reason(server))
            @if let Some(error) = server.last_error.as_ref().filter(|error| server.reason.as_deref() != Some(error.message.as_str())) {
                p.note { "Last error, " (parts::ago(error.at)) ": " (Said(&error.message)) }
            }
            (parts::operations(frame, server, "server"))
        }
        section aria-labelledby="tools-heading" {
            h2 #tools-heading { "Tools" }
            div #tools data-live="" {
                (list(tools, false))
                @if tools.pages > 1 {
                    p { a href=(address("/ui/tools", &[("server", &server.name)])) { "All " (parts::count(tools.all, "tool")) } }
                }
            }
        }
        section aria-labelledby="calls-heading" {
            h2 #calls-heading { "Calls" }
            div #calls data-live="" {
                (calls::table(&calls.items, false))
                @if calls.all > calls.items.len() {
                    p { a href=(address("/ui/calls", &[("server", &server.name)])) { "All " (parts::count(calls.all, "call")) } }
                }
            }
        }
        section aria-labelledby="log-heading" {
            h2 #log-heading { "Log" }
            div #log data-live="" { (parts::log(log_name(&server.name), log)) }
        }
    };
    frame.page(Place::Servers, &Said(&server.name), &content)
}
