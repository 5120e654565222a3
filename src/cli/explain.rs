//! `sidegate explain`.

use std::process::ExitCode;

use http::Method;
use sidegate::admin::calls::{Call, Calls};
use sidegate::environment::Environment;
use sidegate::telemetry::trace_context::TraceId;

use super::control::InstanceSelector;
use super::output::say;
use super::table::pairs;
use super::words::since;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidegate explain 0af7651916cd43dd8448eb211c80319c

The id of a call is in the _meta of its result, as sidegate.dev/callId; it is
the id of its trace. The last 1024 calls are remembered.

Exit codes: 0 it is known, 1 it is not known or something failed, 2 it is no id,
5 no instance runs.")]
pub(super) struct ExplainArguments {
    /// The id of the call
    #[arg(value_name = "CALL_ID")]
    id: String,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &ExplainArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let id = arguments.id.trim();
    let id = id.to_ascii_lowercase().parse::<TraceId>().map_err(|error| {
        Failure::text(Exit::Usage, format!("{id:?} is no id of a call: {error}"))
            .hint("it is in the _meta of the call's result, as sidegate.dev/callId")
    })?;
    let path = format!("/v1/calls/{id}");
    let value = arguments.instance.ask(environment, Method::GET, &path)?;
    match arguments.output {
        // As the instance says it, also what this version does not know.
        OutputFormat::Json => say(&value.to_string())?,
        OutputFormat::Text => {
            let calls: Calls = serde_json::from_value(value).map_err(|error| {
                Failure::text(
                    Exit::Failed,
                    format!("the instance says something else than expected: {error}"),
                )
                .hint("it may run another version of sidegate: restart it")
            })?;
            say(&calls.calls.iter().map(text).collect::<Vec<_>>().join("\n\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(call: &Call) -> String {
    let unknown = || "unknown".to_owned();
    let mut lines = vec![
        (
            "Call",
            format!("{} {}", call.method, call.subject.as_deref().unwrap_or_default()).trim().to_owned(),
        ),
        ("Id", call.id.clone()),
        ("Began", format!("{} ago", since(call.started_at_millis / 1000))),
        ("Outcome", outcome(call)),
        ("Client", format!("session {}, request {}", call.session, call.request_id)),
        (
            "Trace",
            match (&call.parent_span, call.exported) {
                (Some(span), true) => format!("exported, below the client's span {span}"),
                (None, true) => "exported; the client has begun none".to_owned(),
                (Some(span), false) => format!("the client's, span {span}; not exported"),
                (None, false) => "not exported".to_owned(),
            },
        ),
    ];
    match &call.server {
        Some(server) => {
            let route = call.route.clone().unwrap_or_else(unknown);
            lines.push(("Server", server.clone()));
            lines.push(("Route", route));
            lines
                .push(("Process", call.pid.map_or_else(|| "none of ours".to_owned(), |pid| pid.to_string())));
            lines.push(("Generation", call.generation.clone().unwrap_or_else(unknown)));
            lines.push(("Tries", call.tries.to_string()));
        }
        None => lines.push(("Server", "none: sidegate has answered itself".to_owned())),
    }
    let known = |time: Option<u64>| time.map_or_else(unknown, duration);
    lines.push(("Whole time", duration(call.whole_micros)));
    if call.server.is_some() {
        lines.push(("  queue", format!("{}, until it could be sent", duration(call.queue_micros))));
        lines.push(("  upstream", format!("{}, until the answer", known(call.upstream_micros))));
        lines.push(("    first byte", known(call.first_byte_micros)));
        lines.push(("    on the way", known(call.gateway_micros)));
        lines.push(("    server", known(call.server_micros)));
    }
    let mut text = pairs(lines);
    for hint in hints(call) {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text
}

fn outcome(call: &Call) -> String {
    let Some(outcome) = &call.outcome else { return "under way".to_owned() };
    let mut text = outcome.replace('_', " ");
    if let Some(kind) = call.error_type.as_ref().filter(|kind| *kind != outcome) {
        text.push_str(&format!(" ({kind})"));
    }
    if let Some(error) = &call.error {
        text.push_str(&format!(": {error}"));
    }
    text
}

/// What to do next.
fn hints(call: &Call) -> Vec<String> {
    let mut hints = Vec::new();
    let server = call.server.as_deref().unwrap_or_default();
    match (call.outcome.as_deref(), call.error_type.as_deref()) {
        (_, Some("not_connected")) => {
            hints.push(format!("`sidegate get {server}` says why it is not connected"))
        }
        (_, Some("timeout")) => {
            hints.push(format!("spec.callTimeout of {server} is the limit; progress begins it again"));
        }
        (_, Some("connection_lost" | "server_gone")) => {
            hints.push(format!("`sidegate logs {server}` has its last words"));
        }
        (Some("failed"), _) => hints.push("`sidegate doctor` looks for what is wrong".to_owned()),
        (Some("tool_error"), _) => hints.push("the tool itself has failed: its result says why".to_owned()),
        _ => {}
    }
    let quick = 10_000;
    if call.queue_micros > quick && call.queue_micros * 2 > call.whole_micros {
        hints.push(format!("most of the time it waited for a session with {server}"));
    }
    if call.server.is_some() && call.server_micros.is_none() {
        hints.push(
            "how the time is shared between the way and the server is known of stdio servers only".to_owned(),
        );
    }
    hints
}

/// Microseconds, in the unit that people read.
fn duration(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let micros_f = micros as f64;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros_f / 1e3),
        _ => format!("{:.2} s", micros_f / 1e6),
    }
}
