//! The values that are known to be secret, and texts without them.
//!
//! Whoever comes to know a secret says so with [`Secrets::learn`], before anybody can print it: what a definition gives to its
//! server, the endpoint's token, a gateway's key, headers for a collector. From then on it is `***` in every text that goes
//! through [`Secrets::redact`], together with what only looks like a secret; those are all texts of the log, of spans, of
//! labels, of errors and of what an instance says of itself.
//!
//! A value is found as it is, and as it stands in JSON, in a `Debug` text and in URLs. One of several lines is found line by
//! line. One that is shorter than [`SHORTEST_SECRET`] characters is not looked for: it would be found in the midst of words.
//!
//! What is known stays known, as a server that gets another token may still print the old one, up to the last
//! [`MOST_KNOWN`] values; our own, which [`Secrets::keep`] takes, have [`MOST_KEPT`] places of their own. All of them are
//! looked for at once, so it costs the same however many there are. To learn a new one costs time for all that are known:
//! whoever has many says them in one call.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use aho_corasick::AhoCorasick;
use arc_swap::ArcSwapOption;
use tracing::error;
use url::form_urlencoded;

use crate::mcpserver::{PUBLIC_VALUES, SHORTEST_SECRET, Secret, in_url};
use crate::redact::{suspicious, without};
use crate::subprocess::LineFilter;
use crate::sync::lock;

/// How many values are known at most. The one that nobody has said for the longest time goes for a new one.
pub const MOST_KNOWN: usize = 4096;

/// How many values of our own are known besides.
pub const MOST_KEPT: usize = 64;

/// Longer values are looked for piece by piece, in characters.
const LONGEST_PIECE: usize = 1024;

/// Values that are known to be secret. Cheap to clone; clones know the same.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Known>);

#[derive(Default)]
struct Known {
    values: Mutex<Values>,
    /// Finds each of them in each form; none where none is known.
    finder: ArcSwapOption<AhoCorasick>,
}

/// Of each list, the one that was said last is at the end.
#[derive(Default)]
struct Values {
    learnt: Vec<Secret>,
    kept: Vec<Secret>,
}

impl Secrets {
    /// From now on these are secret. Those that are known already count as new: they are still in use.
    pub fn learn<V: AsRef<str>>(&self, values: impl IntoIterator<Item = V>) {
        let mut known = lock(&self.0.values);
        if remember(&mut known.learnt, MOST_KNOWN, values) {
            self.look_for(&known);
        }
    }

    /// As [`learn`](Self::learn), for the few secrets that are our own: no number of others has them forgotten.
    pub fn keep<V: AsRef<str>>(&self, values: impl IntoIterator<Item = V>) {
        let mut known = lock(&self.0.values);
        if remember(&mut known.kept, MOST_KEPT, values) {
            self.look_for(&known);
        }
    }

    fn look_for(&self, known: &Values) {
        let all = known.learnt.iter().chain(&known.kept);
        let forms: BTreeSet<String> = all.flat_map(|value| forms(value.expose())).collect();
        match AhoCorasick::new(forms) {
            Ok(finder) => self.0.finder.store(Some(Arc::new(finder))),
            // What was known before stays hidden.
            Err(error) => error!("a new secret cannot be hidden in logs: {error}"),
        }
    }

    /// `text` with `***` where one of the values stands.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = Vec::new();
        self.find(text, &mut hidden);
        without(text, hidden)
    }

    /// `text` with `***` where one of the values stands, or what looks like a secret.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut hidden = Vec::new();
        self.find(text, &mut hidden);
        suspicious(text, &mut hidden);
        without(text, hidden)
    }

    /// Has the lines of a child redacted before anybody gets them.
    pub fn line_filter(&self) -> LineFilter {
        let secrets = self.clone();
        Arc::new(move |line| match secrets.redact(&line) {
            Cow::Owned(shown) => shown,
            Cow::Borrowed(_) => line,
        })
    }

    fn find(&self, text: &str, hidden: &mut Vec<Range<usize>>) {
        if let Some(finder) = &*self.0.finder.load() {
            // Also those that overlap: of none may a part be left.
            hidden.extend(finder.find_overlapping_iter(text).map(|found| found.range()));
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = lock(&self.0.values);
        write!(f, "Secrets({} of them)", known.learnt.len() + known.kept.len())
    }
}

/// Puts the pieces of `values` at the end of what is `known`. Whether one of them was not among it.
fn remember<V: AsRef<str>>(
    known: &mut Vec<Secret>,
    most: usize,
    values: impl IntoIterator<Item = V>,
) -> bool {
    let mut said = HashSet::new();
    let mut latest = Vec::new();
    for piece in values.into_iter().flat_map(|value| pieces(value.as_ref())) {
        if !PUBLIC_VALUES.contains(&&*piece) && said.insert(piece.clone()) {
            latest.push(Secret::from(piece));
        }
    }
    let before = known.len();
    known.retain(|value| !said.contains(value.expose()));
    let is_new = before - known.len() < latest.len();
    known.append(&mut latest);
    known.drain(..known.len().saturating_sub(most));
    is_new
}

/// The parts of a value that are looked for: its lines, and of those that are long each piece.
fn pieces(value: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for line in value.lines().map(str::trim) {
        let characters: Vec<char> = line.chars().collect();
        if characters.len() < SHORTEST_SECRET {
            continue;
        }
        // Of a rest that would be too short, as much as is looked for at all: pieces may overlap.
        let last = characters.len().saturating_sub(LONGEST_PIECE);
        let starts = (0..last).step_by(LONGEST_PIECE).chain([last]);
        let piece = |start: usize| characters.iter().skip(start).take(LONGEST_PIECE).collect();
        pieces.extend(starts.map(piece));
    }
    pieces
}

/// `value`, and how it stands in texts that have rules for quoting.
fn forms(value: &str) -> BTreeSet<String> {
    let in_quotes = |quoted: String| quoted.get(1..quoted.len() - 1).map(str::to_owned);
    let in_json = |text: &str| serde_json::to_string(text).ok().and_then(in_quotes);
    let json = in_json(value);
    // An error that quotes a message stands in JSON again.
    let twice = json.as_deref().and_then(in_json);
    let in_form = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    [Some(value.to_owned()), json, twice, in_quotes(format!("{value:?}")), in_url(value), Some(in_form)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn knowing(values: &[&str]) -> Secrets {
        let secrets = Secrets::default();
        secrets.learn(values);
        secrets
    }

    #[rstest]
    #[case("it is hunter22hunter22.", "it is ***.")]
    #[case("xhunter22hunter22x hunter22hunter22", "x***x ***")]
    #[case("hunter22hunter2", "hunter22hunter2")]
    #[case(r#"{"a":"p\"a\\ss/w ö"}"#, r#"{"a":"***"}"#)]
    #[case(r#"{"a":"{\"b\":\"p\\\"a\\\\ss/w ö\"}"}"#, r#"{"a":"{\"b\":\"***\"}"}"#)]
    #[case(r#"Err("p\"a\\ss/w ö")"#, r#"Err("***")"#)]
    #[case("at /p%22a%5Css%2Fw%20%C3%B6/x", "at /***/x")]
    #[case("?a=p%22a%5Css%2Fw+%C3%B6", "?a=***")]
    #[case("short: abc", "short: abc")]
    #[case("one that overlaps: hunter22hunter22next-secret", "one that overlaps: ***")]
    #[case("-----BEGIN\nfirst line of it\n-----END", "-----BEGIN\n***\n-----END")]
    #[case("", "")]
    fn what_is_known_is_hidden_in_every_form(#[case] text: &str, #[case] shown: &str) {
        let values =
            ["hunter22hunter22", "p\"a\\ss/w ö", "abc", "", "nter22next-secret", "\nfirst line of it\nx\n"];
        assert_eq!(knowing(&values).hide(text), shown);
    }

    #[test]
    fn what_is_known_and_what_looks_like_it_are_hidden_together() {
        let secrets = knowing(&["pass word"]);
        assert_eq!(secrets.redact("pass word, token=abc, url?a=b"), "***, token=***, url?a=b");
        assert_eq!(secrets.redact("token=pass word"), "token=***");
        assert_eq!(secrets.redact("http://h/?q=pass%20word"), "http://h/?q=***");
        assert_eq!(Secrets::default().redact("pass word, token=abc"), "pass word, token=***");
    }

    #[test]
    fn clones_know_the_same_and_nobody_is_told_what() {
        let secrets = Secrets::default();
        let clone = secrets.clone();
        secrets.learn(["hunter22"]);
        secrets.learn(["hunter22"]);
        assert_eq!(clone.hide("hunter22"), "***");
        assert_eq!(format!("{clone:?}"), "Secrets(1 of them)");
    }

    #[test]
    fn a_long_value_is_hidden_whole_and_the_oldest_are_forgotten() {
        for rest in ["", "rest", "a longer rest"] {
            let long = "x1".repeat(LONGEST_PIECE) + rest;
            assert_eq!(knowing(&[&long]).hide(&format!("<{long}>")), "<***>");
        }
        let secrets = knowing(&["the very first"]);
        let many: Vec<String> = (0..MOST_KNOWN).map(|number| format!("secret-{number}-")).collect();
        secrets.learn(&many);
        let shown = secrets.hide("the very first secret-0- secret-4095-").into_owned();
        assert_eq!(shown, "the very first *** ***");
    }

    #[test]
    fn what_is_in_use_is_not_forgotten_for_what_is_not() {
        let secrets = Secrets::default();
        secrets.keep(["the endpoint's token"]);
        secrets.learn(["still in use", "not used any more"]);
        let many: Vec<String> = (2..MOST_KNOWN).map(|number| format!("secret-{number}-")).collect();
        secrets.learn(&many);
        secrets.learn(["still in use"]);
        secrets.learn(["the last one"]);
        let shown =
            secrets.hide("the endpoint's token, still in use, the last one, not used any more").into_owned();
        assert_eq!(shown, "***, ***, ***, not used any more");
    }

    #[test]
    fn what_is_known_already_costs_no_search_anew() {
        let secrets = knowing(&["hunter22", "hunter23"]);
        let before = secrets.0.finder.load_full().unwrap();
        secrets.learn(["hunter22"]);
        assert!(Arc::ptr_eq(&before, &secrets.0.finder.load_full().unwrap()));
    }

    #[test]
    fn our_own_name_is_no_secret() {
        let secrets = knowing(&["sidegate", "localhost"]);
        assert_eq!(secrets.hide("sidegate::run at localhost"), "sidegate::run at localhost");
    }

    proptest::proptest! {
        #[test]
        fn no_text_around_it_lets_a_secret_through(
            before in "([a-z]|://|\\?|=|&|@|token|\"|eyJ|é| |hunter|:){0,12}",
            secret in "[ -~é]{8,20}",
        ) {
            let secret = secret.trim();
            proptest::prop_assume!(secret.chars().count() >= SHORTEST_SECRET);
            let secrets = knowing(&[secret]);
            let text = format!("{before}{secret}{before}");
            for shown in [secrets.hide(&text), secrets.redact(&text)] {
                proptest::prop_assert!(shown.contains("***") && !shown.contains(secret), "{shown}");
            }
        }
    }
}
