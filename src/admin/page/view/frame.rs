//! What is around every page: head, navigation, foot.

use maud::{DOCTYPE, Markup, Render, html};

/// What every page of a signed-in browser has.
#[derive(Clone, Copy)]
pub(in crate::admin::page) struct Frame<'a> {
    /// The secret that goes with forms.
    pub(in crate::admin::page) secret: &'a str,
    /// Whether there is something to sign out of.
    pub(in crate::admin::page) can_sign_out: bool,
}

/// Where one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Servers,
    Tools,
    Calls,
    Logs,
    Gateway,
}

const PLACES: [(Place, &str, &str); 5] = [
    (Place::Servers, "/ui", "Servers"),
    (Place::Tools, "/ui/tools", "Tools"),
    (Place::Calls, "/ui/calls", "Calls"),
    (Place::Logs, "/ui/logs", "Logs"),
    (Place::Gateway, "/ui/gateway", "Gateway"),
];

impl Frame<'_> {
    /// A whole page. `title` is its heading as well.
    pub(super) fn page(&self, place: Place, title: &dyn Render, content: &Markup) -> Markup {
        document(
            title,
            &html! {
                header.bar {
                    a.brand href="/ui" { "Sidegate" }
                    nav aria-label="Pages" {
                        ul {
                            @for (other, path, name) in PLACES {
                                li { a href=(path) aria-current=[(other == place).then_some("true")] { (name) } }
                            }
                        }
                    }
                    @if self.can_sign_out {
                        form.sign-out method="post" action="/ui/sign-out" {
                            (self.secret_field())
                            button type="submit" { "Sign out" }
                        }
                    }
                }
                main #content tabindex="-1" {
                    h1 { (title) }
                    (content)
                }
                footer {
                    p { "Sidegate " (env!("CARGO_PKG_VERSION")) }
                    p #connection role="status" data-script-only="" hidden {}
                    noscript { p { "This page does not follow by itself: scripts are off. Reload it to see what is new." } }
                }
            },
        )
    }

    /// The field without which a form does nothing.
    pub(super) fn secret_field(&self) -> Markup {
        html! { input type="hidden" name=(super::super::form::SECRET) value=(self.secret); }
    }
}

/// A document without navigation.
pub(super) fn bare(title: &dyn Render, content: &Markup) -> Markup {
    document(
        title,
        &html! {
            header.bar { a.brand href="/ui" { "Sidegate" } }
            main #content tabindex="-1" {
                h1 { (title) }
                (content)
            }
        },
    )
}

fn document(title: &dyn Render, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Sidegate" }
                link rel="stylesheet" href="/ui/style.css";
                script src="/ui/live.js" defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                (body)
            }
        }
    }
}
