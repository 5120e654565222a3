//! What is wrong with a file, where, and what to write instead.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use serde::Serialize;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong with a file.
///
/// Shown as `7:3: spec.commnd: unknown key; did you mean "command"?`. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Mistake {
    /// Where it is; `None` when the file as a whole is wrong.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The path of the key, such as `spec.args[0]`; empty for the document itself.
    pub key: String,
    /// What is wrong, a lower-case fragment.
    pub problem: String,
    /// What to write or do instead.
    pub advice: Option<String>,
}

impl Mistake {
    /// A mistake of a whole file.
    pub(crate) fn of_file(problem: impl Into<String>, advice: Option<String>) -> Self {
        Self { position: None, key: String::new(), problem: problem.into(), advice }
    }

    /// The mistake with the file in front, `time.yaml:7:3: …`, as editors and terminals link it.
    pub fn in_file<'a>(&'a self, path: &'a Path) -> impl fmt::Display + 'a {
        struct InFile<'a>(&'a Path, &'a Mistake);
        impl fmt::Display for InFile<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let separator = if self.1.position.is_some() { ":" } else { ": " };
                write!(f, "{}{separator}{}", self.0.display(), self.1)
            }
        }
        InFile(path, self)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Gathers the mistakes of one file.
///
/// Readers share it by reference; a file of garbage does not make a report of garbage, so only the first
/// [`Collector::MOST`] are kept.
#[derive(Debug, Default)]
pub(crate) struct Collector(RefCell<Vec<Mistake>>);

impl Collector {
    /// The most mistakes reported of one file.
    pub(crate) const MOST: usize = 100;

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(crate) fn push(&self, mistake: Mistake) {
        let mut mistakes = self.0.borrow_mut();
        if mistakes.len() < Self::MOST {
            mistakes.push(mistake);
        } else if mistakes.len() == Self::MOST {
            mistakes.push(Mistake::of_file("more mistakes than are shown", None));
        }
    }

    pub(crate) fn note(
        &self,
        position: Position,
        key: &str,
        problem: impl Into<String>,
        advice: impl Into<Option<String>>,
    ) {
        self.note_with(position, || key.to_owned(), problem, advice);
    }

    /// As [`Self::note`], for a path that is only made when the mistake is kept.
    pub(super) fn note_with(
        &self,
        position: Position,
        key: impl FnOnce() -> String,
        problem: impl Into<String>,
        advice: impl Into<Option<String>>,
    ) {
        let full = self.0.borrow().len() >= Self::MOST;
        self.push(Mistake {
            position: Some(position),
            key: if full { String::new() } else { key() },
            problem: problem.into(),
            advice: advice.into(),
        });
    }

    /// The mistakes in the order of the file, those of the whole file last.
    pub(crate) fn into_sorted(self) -> Vec<Mistake> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by_key(|mistake| (mistake.position.is_none(), mistake.position));
        mistakes
    }
}

/// `text` quoted for a message: escaped, so that a file cannot write control characters to a terminal, and cut.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `a, b or c`.
pub(crate) fn joined<'a>(words: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        Some((end, front)) if !front.is_empty() => format!("{} {last} {end}", front.join(", ")),
        Some((end, _)) => (*end).to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(position: Option<Position>) -> Mistake {
        Mistake { position, key: "spec.x".into(), problem: "wrong".into(), advice: Some("write y".into()) }
    }

    #[test]
    fn mistakes_read_like_compiler_messages() {
        let at = mistake(Some(Position { line: 7, column: 3 }));
        assert_eq!(at.in_file(Path::new("a.yaml")).to_string(), "a.yaml:7:3: spec.x: wrong; write y");
        assert_eq!(mistake(None).in_file(Path::new("a.yaml")).to_string(), "a.yaml: spec.x: wrong; write y");
    }

    #[test]
    fn mistakes_serialise_flat() {
        let at = mistake(Some(Position { line: 7, column: 3 }));
        assert_eq!(
            serde_json::to_value(&at).unwrap(),
            serde_json::json!({"line": 7, "column": 3, "key": "spec.x", "problem": "wrong", "advice": "write y"})
        );
    }

    #[test]
    fn reports_are_bounded_and_sorted() {
        let mistakes = Collector::default();
        for line in (1..=1000).rev() {
            mistakes.note(Position { line, column: 1 }, "k", "wrong", None);
        }
        let sorted = mistakes.into_sorted();
        assert_eq!(sorted.len(), Collector::MOST + 1);
        assert!(sorted[0].position < sorted[1].position);
        assert!(sorted.last().unwrap().position.is_none());
    }

    #[test]
    fn shown_text_is_escaped_and_cut() {
        assert_eq!(shown("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
        assert!(shown(&"é".repeat(1000)).len() < 200);
    }

    #[test]
    fn words_are_joined() {
        assert_eq!(joined(["a", "b", "c"], "or"), "a, b or c");
        assert_eq!(joined(["a"], "or"), "a");
        assert_eq!(joined([], "or"), "");
    }
}
