//! Text that others chose, as it is shown.
//!
//! Markup is no danger here: the templates escape whatever they are given. What is left are characters that are no text:
//! escape sequences of terminals in logs, control characters, and those that turn the direction of what follows, with
//! which a name can look like another one.

use std::borrow::Cow;

use maud::Render;

/// A text of a server, a user or a log, to be put into a template. Nothing in it is invisible, or acts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a>(pub(super) &'a str);

impl Render for Said<'_> {
    fn render_to(&self, buffer: &mut String) {
        clean(self.0).render_to(buffer);
    }
}

/// A text that is cut after a number of characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'a>(pub(super) &'a str, pub(super) usize);

impl Render for Cut<'_> {
    fn render_to(&self, buffer: &mut String) {
        let Self(text, limit) = *self;
        match text.char_indices().nth(limit) {
            Some((end, _)) => {
                Said(&text[..end]).render_to(buffer);
                format!("… ({} bytes more)", text.len() - end).render_to(buffer);
            }
            None => Said(text).render_to(buffer),
        }
    }
}

/// The text without escape sequences; what else is no text stands as its number.
fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_no_text) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => skip_sequence(&mut rest),
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\r' if rest.as_str().starts_with('\n') => {}
            next if is_no_text(next) => clean.push_str(&format!("⟨{:02X}⟩", u32::from(next))),
            next => clean.push(next),
        }
    }
    Cow::Owned(clean)
}

/// Whether a character is a control character, or turns the direction of text across the end of what it stands in.
fn is_no_text(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Skips what follows ESC (ECMA-48 section 5.3 and 5.6).
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.clone().next() {
        Some('[') => {
            rest.next();
            skip_control_sequence(rest);
        }
        // Strings: they last until BEL or ESC \. One without an end is cut short at the end of its line.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.clone().next().filter(|c| *c != '\n') {
                rest.next();
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    if rest.as_str().starts_with('\\') {
                        rest.next();
                    }
                    break;
                }
            }
        }
        // Two characters, or three where the second is an intermediate one.
        Some(' '..='/') => {
            rest.next();
            if rest.clone().next().is_some_and(|c| ('0'..='~').contains(&c)) {
                rest.next();
            }
        }
        Some('0'..='~') => {
            rest.next();
        }
        _ => {}
    }
}

/// Skips parameters, intermediate bytes and the final byte (ECMA-48 section 5.4).
fn skip_control_sequence(rest: &mut std::str::Chars<'_>) {
    while rest.clone().next().is_some_and(|c| (' '..='?').contains(&c)) {
        rest.next();
    }
    if rest.clone().next().is_some_and(|c| ('@'..='~').contains(&c)) {
        rest.next();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("plain\ttext\n", "plain\ttext\n")]
    #[case("\u{1b}[1;31mred\u{1b}[0m \u{1b}[2Jgone", "red gone")]
    #[case("\u{9b}31mred", "red")]
    #[case("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{7}!", "link!")]
    #[case("\u{1b}]0;no end\nnext line", "\nnext line")]
    #[case("\u{1b}(Bascii\u{1b}7", "ascii")]
    #[case("a\r\nb\rc\0d\u{7f}", "a\nb⟨0D⟩c⟨00⟩d⟨7F⟩")]
    #[case("safe\u{202e}gpj.exe", "safe⟨202E⟩gpj.exe")]
    #[case("\u{1b}", "")]
    #[case("\u{1b}[", "")]
    #[case("שלום عليكم 日本語 🦀", "שלום عليكم 日本語 🦀")]
    fn what_is_no_text_does_nothing(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(clean(text), expected);
    }

    #[test]
    fn markup_is_text() {
        let text = r#"<script>alert('&')</script>" onmouseover=x"#;
        let html = Said(text).render().into_string();
        assert_eq!(html, "&lt;script&gt;alert('&amp;')&lt;/script&gt;&quot; onmouseover=x");
        assert_eq!(Cut("a<b>c", 2).render().into_string(), "a&lt;… (3 bytes more)");
        assert_eq!(Cut("ab", 2).render().into_string(), "ab");
    }

    proptest! {
        #[test]
        fn nothing_invisible_is_left(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(is_no_text));
        }

        #[test]
        fn no_markup_is_left(text in any::<String>()) {
            let html = Said(&text).render().into_string();
            prop_assert!(!html.contains(['<', '>', '"']));
        }
    }
}
