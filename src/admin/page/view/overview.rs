//! The first page: all servers, and what is wrong.

use maud::{Markup, html};

use super::super::form::address;
use super::super::paging::Paged;
use super::super::text::Said;
use super::frame::Place;
use super::{Frame, parts};
use crate::admin::status::{ServerEntry, Status};

pub(in crate::admin::page) fn overview(
    frame: &Frame<'_>,
    status: &Status,
    servers: &Paged<ServerEntry>,
) -> Markup {
    let content = html! {
        p #summary data-live="" role="status" { (summary(status)) }
        p { "Clients connect to " code { (Said(&status.url)) } }
        div #problems data-live="" { (problems(status)) }
        div #servers data-live="" {
            @if servers.items.is_empty() {
                p { "No servers are defined. " code { "sidegate add NAME -- COMMAND" } " or " code { "sidegate add NAME --url URL" } " adds one; so does a file in " code { (Said(&status.config_dir.join("mcpservers").to_string_lossy())) } "." }
            } @else {
                (table(frame, servers))
            }
        }
        (parts::pager(servers, "/ui", &[]))
    };
    frame.page(Place::Servers, &"Servers", &content)
}

/// `3 servers: 2 running, 1 failed. Gateway: …`
fn summary(status: &Status) -> Markup {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for server in &status.servers {
        match states.iter_mut().find(|(state, _)| *state == server.state) {
            Some((_, number)) => *number += 1,
            None => states.push((&server.state, 1)),
        }
    }
    states.sort_unstable();
    let gateway = &status.gateway;
    html! {
        (parts::count(status.servers.len(), "server"))
        @for (index, (state, number)) in states.iter().enumerate() {
            @if index == 0 { ": " } @else { ", " }
            (number) " " (state.replace('_', " "))
        }
        ". Gateway: " (gateway.mode)
        @if let Some(state) = &gateway.state { ", " (state) }
        "."
    }
}

fn problems(status: &Status) -> Markup {
    const MOST: usize = 50;
    let all: Vec<&String> = (status.problems.directory.iter())
        .chain(&status.problems.files)
        .chain(&status.problems.naming)
        .collect();
    html! {
        @if !all.is_empty() {
            section.problems aria-labelledby="problems-heading" {
                h2 #problems-heading { "Problems" }
                ul { @for problem in all.iter().take(MOST) { li { (Said(problem)) } } }
                @if all.len() > MOST { p.note { "and " (all.len() - MOST) " more; see " code { "sidegate status" } } }
            }
        }
    }
}

fn table(frame: &Frame<'_>, servers: &Paged<ServerEntry>) -> Markup {
    html! {
        table.cards {
            caption.hidden { "Servers" }
            thead { tr { th scope="col" { "Server" } th scope="col" { "State" } th scope="col" { "Tools" } th scope="col" { span.hidden { "Operations" } } } }
            tbody {
                @for server in &servers.items {
                    tr {
                        th scope="row" { a href={ "/ui/servers/" (server.name) } { (server.name) } }
                        td {
                            (parts::state(&server.state)) " " span.note { (parts::ago(server.since)) }
                            (parts::reason(server))
                        }
                        td.number data-label="Tools" { @if server.tools == 0 { "0" } @else { a href=(address("/ui/tools", &[("server", &server.name)])) { (server.tools) span.hidden { " tools of " (server.name) } } } }
                        td { (parts::operations(frame, server, "overview")) }
                    }
                }
            }
        }
    }
}
