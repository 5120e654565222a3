//! The calls of clients.

use maud::{Markup, html};

use super::super::calls::{End, Row};
use super::super::form::address;
use super::super::paging::Paged;
use super::super::text::{Cut, Said};
use super::frame::Place;
use super::{Frame, parts};

/// How much of what was said of a failure is shown, in characters.
const LONGEST_ERROR: usize = 300;

pub(in crate::admin::page) fn calls(frame: &Frame<'_>, server: &str, rows: &Paged<Row>) -> Markup {
    let content = html! {
        @if server.is_empty() {
            p { "What clients have asked for by name since the start, the newest first; the last " (crate::telemetry::calls::MOST_FINISHED) " are remembered." }
        } @else {
            p { "Of " a href={ "/ui/servers/" (server) } { (Said(server)) } "; " a href="/ui/calls" { "those of all servers" } }
        }
        div #calls data-live="" { (table(&rows.items, server.is_empty())) }
        (parts::pager(rows, "/ui/calls", &[("server", server)]))
    };
    frame.page(Place::Calls, &"Calls", &content)
}

/// Calls, each with its server where `with_server`.
pub(super) fn table(rows: &[Row], with_server: bool) -> Markup {
    html! {
        @if rows.is_empty() {
            p.note { "None yet." }
        } @else {
            table.cards {
                caption.hidden { "Calls" }
                thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "What" } @if with_server { th scope="col" { "Server" } } th scope="col" { "Took" } th scope="col" { "Result" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td.number { (parts::clock(row.at)) }
                            th scope="row" {
                                @if row.method == "tools/call" { a href=(address("/ui/tool", &[("name", &row.subject)])) { (parts::name(&row.subject)) } }
                                @else { (parts::name(&row.subject)) " " span.note { (Said(&row.method)) } }
                            }
                            @if with_server { td data-label="Server" { @match &row.server { Some(server) => a href={ "/ui/servers/" (server) } { (server) }, None => "Sidegate" } } }
                            td.number data-label="Took" {
                                @if row.end == End::UnderWay { (parts::rough(row.took.as_secs())) " so far" } @else { (parts::took(row.took)) }
                                @if let Some(upstream) = row.upstream { br; span.note { "server " (parts::took(upstream)) } }
                            }
                            td { (end(&row.end)) br; span.note { code { (row.id) } } }
                        }
                    }
                }
            }
        }
    }
}

fn end(end: &End) -> Markup {
    html! {
        @match end {
            End::UnderWay => span.state.busy { "under way" },
            End::Ok => span.state.good { "ok" },
            End::Cancelled => span.state.idle { "cancelled" },
            End::Failed(how, said) => {
                span.state.bad { (how.replace('_', " ")) }
                @if let Some(said) = said { " " span.note { (Cut(said, LONGEST_ERROR)) } }
            }
        }
    }
}
