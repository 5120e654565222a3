//! The gateway.

use maud::{Markup, html};

use super::super::text::Said;
use super::frame::Place;
use super::{Frame, parts};
use crate::admin::status::{GatewayStatus, Status};

pub(in crate::admin::page) fn gateway(frame: &Frame<'_>, status: &Status) -> Markup {
    let gateway = &status.gateway;
    let content = html! {
        div #gateway data-live="" { (facts(gateway)) }
        @if let Some(ports) = gateway.ports.filter(|_| gateway.mode == "agentgateway") {
            p {
                a href={ "http://127.0.0.1:" (ports.admin) "/ui/" } rel="noopener" { "agentgateway's own page" }
                " shows its routes. It has no password, and works in a browser on this machine only."
            }
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
            @if let Some(reload) = &gateway.last_reload {
                dt { "Last reload" }
                dd {
                    (parts::ago(reload.at)) ", "
                    @match &reload.error { None => "in force", Some(error) => { "not in force: " (Said(error)) } }
                }
            }
        }
    }
}
