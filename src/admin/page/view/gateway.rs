//! The gateway.

use maud::{Markup, html};

use super::super::reloads::Reload;
use super::super::text::Said;
use super::frame::Place;
use super::{Frame, parts};
use crate::admin::status::{GatewayStatus, Status};

pub(in crate::admin::page) fn gateway(frame: &Frame<'_>, status: &Status, reloads: &[Reload]) -> Markup {
    let gateway = &status.gateway;
    let content = html! {
        div #gateway data-live="" { (facts(gateway)) }
        @if let Some(ports) = gateway.ports.filter(|_| gateway.mode == "agentgateway") {
            p {
                a href={ "http://127.0.0.1:" (ports.admin) "/ui/" } rel="noopener" { "agentgateway's own page" }
                " shows its routes. It has no password, and works in a browser on this machine only."
            }
        }
        section aria-labelledby="reloads-heading" {
            h2 #reloads-heading { "Changes of its configuration" }
            div #reloads data-live="" { (history(reloads)) }
        }
        section aria-labelledby="instance-heading" {
            h2 #instance-heading { "Instance" }
            dl {
                dt { "Endpoint" } dd { code { (Said(&status.url)) } }
                dt { "Sidegate" } dd { (status.version) ", process " (status.pid) }
                dt { "Started" } dd { (parts::ago(status.started_at)) }
                dt { "Config" } dd { code { (Said(&status.config_dir.to_string_lossy())) } }
                dt { "Runtime" } dd { code { (Said(&status.runtime_dir.to_string_lossy())) } }
            }
        }
    };
    frame.page(Place::Gateway, &"Gateway", &content)
}

fn facts(gateway: &GatewayStatus) -> Markup {
    html! {
        dl {
            dt { "Kind" } dd { (gateway.mode) @if let Some(version) = &gateway.version { " " (Said(version)) } ", " (Said(&gateway.reason)) }
            @if let Some(state) = &gateway.state {
                dt { "State" }
                dd {
                    (parts::state(state))
                    @if gateway.pid != 0 { " process " (gateway.pid) }
                    @if let Some(error) = &gateway.error { p.reason { (Said(error)) } }
                }
                dt { "Restarts, swaps" } dd { (gateway.restarts) ", " (gateway.swaps) }
            }
            @if let Some(ports) = &gateway.ports {
                dt { "Ports" } dd { "data " (ports.data) ", admin " (ports.admin) ", stats " (ports.stats) ", readiness " (ports.readiness) }
            }
            @if gateway.state.is_some() {
                dt { "Generation" } dd { code { (gateway.generation.as_deref().unwrap_or("none is in force")) } }
            }
        }
    }
}

fn history(reloads: &[Reload]) -> Markup {
    html! {
        @if reloads.is_empty() {
            p.note { "None were seen: a gateway that runs elsewhere has its configuration from somebody else." }
        } @else {
            table.cards {
                caption.hidden { "Changes, the newest first" }
                thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Generation" } } }
                tbody {
                    @for reload in reloads {
                        tr {
                            td.number { (parts::clock(reload.at)) }
                            td {
                                @match &reload.outcome {
                                    Ok(generation) => code { (generation) },
                                    Err(error) => { span.state.bad { "not in force" } p.reason { (Said(error)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
