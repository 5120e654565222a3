//! Pieces that several pages have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use maud::{Markup, html};

use super::super::Operation;
use super::super::form::address;
use super::super::log::Tail;
use super::super::paging::Paged;
use super::super::text::{Cut, Said};
use super::Frame;
use crate::admin::status::ServerEntry;

/// The longest line of a log that is shown, in characters.
const LONGEST_LINE: usize = 4000;

/// The longest reason that is shown, in characters.
const LONGEST_REASON: usize = 4000;

/// A point in time, as how long ago it was; the time itself is there for programs, and on pointing at it.
pub(super) fn ago(at: u64) -> Markup {
    let exact = exact(at);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    html! { time datetime=(exact) title=(exact) { (rough(now.saturating_sub(at))) " ago" } }
}

/// The time of day, in UTC; the day is there on pointing at it.
pub(super) fn clock(at: SystemTime) -> Markup {
    let exact = exact(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    // `2026-01-02T03:04:05Z`
    let clock = exact.get(11..19).unwrap_or_default();
    html! { time datetime=(exact) title=(exact) { (clock) } }
}

fn exact(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| DateTime::from_timestamp(at, 0));
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
}

/// A duration that changes seldom, so that what shows it need not be replaced all the time.
pub(super) fn rough(seconds: u64) -> String {
    match seconds {
        0..60 => "less than a minute".to_owned(),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A duration that was measured.
pub(super) fn took(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// `1 tool`, `2 tools`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A state, in a colour as well.
pub(super) fn state(name: &str) -> Markup {
    let kind = match name {
        "running" | "connected" | "ready" => "good",
        "starting" | "connecting" | "draining" | "backoff" | "degraded" => "busy",
        "failed" | "auth_required" | "invalid" | "unsupported" => "bad",
        _ => "idle",
    };
    html! { span class={ "state " (kind) } { (name.replace('_', " ")) } }
}

/// Why a server is as it is, and what comes next.
pub(super) fn reason(server: &ServerEntry) -> Markup {
    html! {
        @if let Some(reason) = &server.reason { p.reason { (Cut(reason, LONGEST_REASON)) } }
        @if let Some(stale) = &server.stale {
            p.reason { "The version before the last change runs on: " (Cut(stale, LONGEST_REASON)) }
        }
        @if let Some(seconds) = server.retry_in_seconds {
            p.note {
                @if let Some(failures) = server.failures { (failures) @if failures == 1 { " try" } @else { " tries" } " failed; " }
                "next one " @if seconds < 1.0 { "now" } @else { "in " (format!("{seconds:.0} s")) }
            }
        }
    }
}

/// The buttons of a server. `back` is where its forms lead back to.
pub(super) fn operations(frame: &Frame<'_>, server: &ServerEntry, back: &str) -> Markup {
    html! {
        div.operations {
            @for operation in Operation::of_state(&server.state) {
                form method="post" action={ "/ui/servers/" (server.name) "/" (operation.word()) } {
                    (frame.secret_field())
                    input type="hidden" name="back" value=(back);
                    button type="submit" id={ (operation.word()) "-" (server.name) } {
                        @match operation {
                            Operation::Start => "Start",
                            Operation::Stop => "Stop",
                            Operation::Restart => "Restart",
                        }
                        span.hidden { " " (server.name) }
                    }
                }
            }
        }
    }
}

/// The end of a log.
pub(super) fn log(name: &str, tail: &Tail) -> Markup {
    html! {
        @if tail.lines.is_empty() {
            p.note { "Nothing has been written yet." }
        } @else {
            @if tail.is_cut { p.note { "The last " (count(tail.lines.len(), "line")) ". All of it: " code { "sidegate logs " (name) } } }
            pre.log tabindex="0" role="region" aria-label={ "Log of " (name) } data-follow="" {
                @for line in &tail.lines { (Cut(line, LONGEST_LINE)) "\n" }
            }
        }
    }
}

/// The way to the other pages of a list.
pub(super) fn pager<T>(paged: &Paged<T>, path: &str, query: &[(&str, &str)]) -> Markup {
    let to = |page: usize| {
        let page = page.to_string();
        let query: Vec<(&str, &str)> = query.iter().copied().chain([("page", page.as_str())]).collect();
        address(path, &query)
    };
    html! {
        @if paged.pages > 1 {
            nav.pager aria-label="Pages of the list" {
                @if paged.page > 1 { a rel="prev" href=(to(paged.page - 1)) { "Previous" } }
                span { "Page " (paged.page) " of " (paged.pages) }
                @if paged.page < paged.pages { a rel="next" href=(to(paged.page + 1)) { "Next" } }
            }
        }
    }
}

/// A name that somebody chose, kept apart from the direction of the text around it.
pub(super) fn name(name: &str) -> Markup {
    html! { bdi { (Said(name)) } }
}
