//! What those see who may not see more: the form to sign in, and refusals.

use maud::{Markup, html};

use super::super::answer::Refusal;
use super::super::text::Said;
use super::frame::bare;

/// The form that takes the token. `is_wrong` where another one was given.
pub(in crate::admin::page) fn sign_in(is_wrong: bool) -> Markup {
    bare(
        &"Sign in",
        &html! {
            @if is_wrong { p.mistake role="alert" { "That is not the token." } }
            form.call method="post" action="/ui/sign-in" {
                div.field {
                    label for="token" { "Token" }
                    input #token type="password" name="token" autocomplete="off" required aria-describedby="about-token";
                    p.note #about-token { "It stands in the file that " code { "aggregator.tokenFile" } " names; " code { "sidegate status" } " shows where that is." }
                }
                button.primary type="submit" { "Sign in" }
            }
        },
    )
}

/// Why a request was not answered with what it asked for.
pub(in crate::admin::page) fn refused(refusal: &Refusal) -> Markup {
    let title = match refusal {
        Refusal::NothingHere | Refusal::NotFound(_) => "Not found",
        Refusal::Failed(_) => "It did not work",
        _ => "Refused",
    };
    bare(
        &title,
        &html! {
            p role="alert" { (Said(&capitalised(&refusal.to_string()))) }
            p { a href="/ui" { "To the servers" } }
        },
    )
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), rest.as_str()))
}
