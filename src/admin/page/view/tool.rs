//! One tool: what it says of itself, a form to call it, and what came of that.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::super::fields::{Field, Fields, Input};
use super::super::result::{Block, LONGEST_TEXT, Shown, pretty};
use super::super::text::{Cut, Said};
use super::super::tools::Tool;
use super::frame::Place;
use super::tools::home;
use super::{Frame, parts};

/// The longest schema that is shown, in characters.
const LONGEST_SCHEMA: usize = 100_000;

/// A form as it was sent, or an empty one.
#[derive(Debug)]
pub(in crate::admin::page) struct Filled {
    pub(in crate::admin::page) fields: Fields,
    /// The arguments as JSON, where they were sent so.
    pub(in crate::admin::page) json: Option<String>,
    /// What is wrong.
    pub(in crate::admin::page) mistake: Option<String>,
}

impl Filled {
    pub(in crate::admin::page) fn new(fields: Fields) -> Self {
        Self { fields, json: None, mistake: None }
    }
}

/// How a call came out, and how long it took.
type Came<'a> = (&'a Result<Shown, String>, Duration);

pub(in crate::admin::page) fn tool(
    frame: &Frame<'_>,
    tool: &Tool,
    filled: &Filled,
    came: Option<Came<'_>>,
) -> Markup {
    let entry = &tool.entry;
    let content = html! {
        p.note {
            @if let Some(title) = &entry.title { (parts::name(title)) ", " }
            (home(&entry.home))
            @for hint in &tool.hints { ", " (hint) }
        }
        @if !entry.description.is_empty() { div.description { (Cut(entry.description.trim(), LONGEST_TEXT)) } }
        @if let Some(came) = came { (result(came)) }
        section aria-labelledby="call-heading" {
            h2 #call-heading { "Call it" }
            @if let Some(mistake) = &filled.mistake { p.mistake role="alert" { "Not called: " (Said(mistake)) } }
            (fields(frame, &entry.name, &filled.fields))
            (raw(frame, tool, filled))
        }
        section aria-labelledby="schema-heading" {
            h2 #schema-heading { "Schemas" }
            (schema("Input", &pretty(&tool.input)))
            @if let Some(output) = &tool.output { (schema("Output", &pretty(output))) }
        }
    };
    frame.page(Place::Tools, &Said(&entry.name), &content)
}

fn fields(frame: &Frame<'_>, tool: &str, fields: &Fields) -> Markup {
    html! {
        form.call method="post" action="/ui/call#result" {
            (frame.secret_field())
            input type="hidden" name="tool" value=(tool);
            @if fields.fields.is_empty() { p.note { "It names no arguments." } }
            @for (index, entry) in fields.fields.iter().enumerate() { (field(index, entry)) }
            @if fields.left_out > 0 { p.note { (fields.left_out) " more can be given as JSON, below." } }
            button.primary type="submit" { "Call" }
        }
    }
}

fn field(index: usize, field: &Field) -> Markup {
    let (id, about) = (format!("field-{index}"), format!("about-{index}"));
    let (form_name, value) = (field.form_name(), field.value.as_str());
    let invalid = field.mistake.as_ref().map(|_| "true");
    // Not `required` in HTML: an empty text is a value, and the server judges anyway.
    let required = field.required.then_some("true");
    html! {
        div.field {
            label for=(id) { (parts::name(&field.name)) @if field.required { span.note { " required" } } }
            @match &field.input {
                Input::Choice(choices) => {
                    select id=(id) name=(form_name) aria-describedby=(about) aria-invalid=[invalid] aria-required=[required] {
                        option value="" { "–" }
                        @for choice in choices { option value=(choice) selected[choice == value] { (Said(choice)) } }
                    }
                }
                Input::Text => { textarea id=(id) name=(form_name) rows="1" aria-describedby=(about) aria-invalid=[invalid] aria-required=[required] { "\n" (value) } }
                Input::Json => { textarea.code id=(id) name=(form_name) rows="2" spellcheck="false" aria-describedby=(about) aria-invalid=[invalid] aria-required=[required] { "\n" (value) } }
                Input::Number | Input::Line => {
                    input id=(id) name=(form_name) value=(value) autocomplete="off" inputmode=[(field.input == Input::Number).then_some("decimal")] aria-describedby=(about) aria-invalid=[invalid] aria-required=[required];
                }
            }
            p.note id=(about) {
                @if let Some(mistake) = &field.mistake { strong.mistake { (Cut(mistake, 500)) } " " }
                span.type { (Cut(&field.hint, 500)) }
                @if !field.description.is_empty() { " " (Cut(&field.description, 4000)) }
            }
        }
    }
}

fn raw(frame: &Frame<'_>, tool: &Tool, filled: &Filled) -> Markup {
    // The only way to give what the schema does not name.
    let is_only_way = filled.fields.fields.is_empty() && takes_others(&tool.input);
    html! {
        details open[filled.json.is_some() || is_only_way] {
            summary { "Arguments as JSON" }
            form.call method="post" action="/ui/call#result" {
                (frame.secret_field())
                input type="hidden" name="tool" value=(tool.entry.name);
                div.field {
                    label for="json" { "A JSON object" }
                    textarea.code #json name="json" rows="6" spellcheck="false" { "\n" (filled.json.as_deref().unwrap_or("{}")) }
                }
                button type="submit" { "Call with JSON" }
            }
        }
    }
}

/// Whether a schema says that there may be more than it names.
fn takes_others(schema: &Value) -> bool {
    let others = &schema["additionalProperties"];
    others.is_object() || *others == true
}

fn result((outcome, took): Came<'_>) -> Markup {
    let head = match outcome {
        Ok(shown) if shown.is_error => ("bad", "The tool says that it failed"),
        Ok(_) => ("good", "Result"),
        Err(_) => ("bad", "No result"),
    };
    html! {
        section #result class={ "result " (head.0) } tabindex="-1" aria-labelledby="result-heading" data-focus="" {
            h2 #result-heading { (head.1) " " span.note { "after " (parts::took(took)) } }
            @match outcome {
                Err(why) => p { (Cut(why, LONGEST_TEXT)) },
                Ok(shown) => {
                    @if shown.blocks.is_empty() && shown.structured.is_none() { p.note { "It has no content." } }
                    @for block in &shown.blocks { (content(block)) }
                    @if let Some(structured) = &shown.structured {
                        h3 { "Structured content" }
                        pre tabindex="0" role="region" aria-label="Structured content" { (Cut(structured, LONGEST_TEXT)) }
                    }
                    details {
                        summary { "The whole result as JSON" }
                        pre tabindex="0" role="region" aria-label="The whole result" { (Cut(&shown.raw, LONGEST_TEXT)) }
                    }
                }
            }
        }
    }
}

fn content(block: &Block) -> Markup {
    html! {
        @match block {
            Block::Text(text) => pre.text tabindex="0" role="region" aria-label="Text" { (Cut(text, LONGEST_TEXT)) },
            Block::Image { source, about } => figure { img src=(source) alt=(about); figcaption.note { (Said(about)) } },
            Block::Other(about) => p.note { "[" (Cut(about, 2000)) "]" },
            Block::Resource { about, text } => {
                p.note { "[" (Cut(about, 2000)) "]" }
                pre.text tabindex="0" role="region" aria-label="Text of the resource" { (Cut(text, LONGEST_TEXT)) }
            }
        }
    }
}

fn schema(what: &str, text: &str) -> Markup {
    html! {
        details {
            summary { (what) }
            pre tabindex="0" role="region" aria-label={ (what) " schema" } { (Cut(text, LONGEST_SCHEMA)) }
        }
    }
}
