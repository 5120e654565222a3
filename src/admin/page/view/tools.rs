//! The list of tools.

use maud::{Markup, html};

use super::super::form::address;
use super::super::paging::Paged;
use super::super::text::{Cut, Said};
use super::super::tools::{Entry, Home, Wish};
use super::frame::Place;
use super::{Frame, parts};

/// How much of a description stands in the list, in characters.
const SUMMARY: usize = 240;

pub(in crate::admin::page) fn tools(frame: &Frame<'_>, wish: Wish<'_>, found: &Paged<Entry>) -> Markup {
    let content = html! {
        form.search role="search" method="get" action="/ui/tools" {
            div.field { label for="q" { "Words" } input #q type="search" name="q" value=(Said(wish.words)); }
            div.field { label for="server" { "Server" } input #server name="server" value=(Said(wish.server)); }
            button type="submit" { "Find" }
        }
        p role="status" { (parts::count(found.all, "tool")) @if !wish.words.is_empty() || !wish.server.is_empty() { " found" } }
        (list(found, true))
        (parts::pager(found, "/ui/tools", &[("q", wish.words), ("server", wish.server)]))
    };
    frame.page(Place::Tools, &"Tools", &content)
}

/// Tools, each with its server where `with_home`.
pub(super) fn list(found: &Paged<Entry>, with_home: bool) -> Markup {
    html! {
        @if found.items.is_empty() {
            p.note { "None." }
        } @else {
            ul.tools {
                @for tool in &found.items {
                    li {
                        a href=(address("/ui/tool", &[("name", &tool.name)])) { (parts::name(&tool.name)) }
                        @if with_home { " " span.note { (home(&tool.home)) } }
                        p { (Cut(summary(&tool.description), SUMMARY)) }
                    }
                }
            }
        }
    }
}

pub(super) fn home(home: &Home) -> Markup {
    html! {
        @match home {
            Home::Server(server) => { "of " a href={ "/ui/servers/" (server) } { (server) } }
            Home::Family(servers) => {
                "of " @for (index, server) in servers.iter().enumerate() { @if index > 0 { ", " } a href={ "/ui/servers/" (server) } { (server) } }
            }
            Home::Ours => { "of Sidegate" }
        }
    }
}

/// The first paragraph.
fn summary(description: &str) -> &str {
    let description = description.trim_start();
    description.split("\n\n").next().unwrap_or_default()
}
