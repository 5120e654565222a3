//! The texts in the source that people are meant to read, and whether a document has them.
//!
//! They are found by where they stand, without a parser: string literals in `#[error(…)]`, in the macros and functions
//! that tell somebody something, and in functions called `hint`. Only literals with words in them count.

use std::fmt;
use std::path::{Path, PathBuf};

/// What texts stand behind: the name, and the bracket that opens what belongs to it.
const PLACES: [(&str, char); 10] = [
    ("#[error(", '('),
    ("warn!(", '('),
    ("error!(", '('),
    ("Failure::text(", '('),
    (".hint(", '('),
    ("say_error(", '('),
    ("voice.say(", '('),
    ("voice.warn(", '('),
    ("RpcError::new(", '('),
    ("fn hint(", '{'),
];

/// A text in the source.
pub(super) struct Text {
    file: String,
    line: usize,
    /// As it stands there, with `{}` for each value.
    pub(super) words: String,
}

impl Text {
    /// Whether a document has it, with any values.
    pub(super) fn is_in(&self, document: &str) -> bool {
        let parts: Vec<&str> = self.words.split("{}").filter(|part| !part.is_empty()).collect();
        let Some((first, rest)) = parts.split_first() else { return true };
        document.match_indices(first).any(|(at, _)| {
            let mut after = &document[at + first.len()..];
            // Values are not longer than this; what is printed elsewhere does not count.
            const LONGEST: usize = 600;
            rest.iter().all(|part| {
                let near = after.char_indices().nth(LONGEST).map_or(after.len(), |(end, _)| end);
                let found = after[..near].find(part);
                if let Some(at) = found {
                    after = &after[at + part.len()..];
                }
                found.is_some()
            })
        })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.words)
    }
}

/// The package.
pub(super) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Text with one blank between words, as lines are broken where there is room.
pub(super) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All of them, in the order of files and lines.
pub(super) fn texts() -> Vec<Text> {
    let (root, mut files) = (root(), Vec::new());
    collect(&root.join("src"), &mut files);
    files.sort();
    files.iter().flat_map(|file| of_file(&root, file)).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        // What the example says is for people who try it, and is no message of the program.
        if is_test || path.ends_with("example_server") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn of_file(root: &Path, path: &Path) -> Vec<Text> {
    let source = fs_err::read_to_string(path).unwrap();
    let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let file = path.strip_prefix(root).unwrap().display().to_string();
    let mut found = Vec::new();
    let mut tokens = Tokens { source, at: 0 };
    while tokens.at < source.len() {
        let rest = &source[tokens.at..];
        let Some((place, open)) = PLACES.iter().find(|(place, _)| rest.starts_with(place)) else {
            tokens.next();
            continue;
        };
        tokens.at += place.len() - 1;
        // A function's body is behind its arguments and its result.
        while *open == '{' && !source[tokens.at..].starts_with('{') {
            tokens.next();
        }
        for (at, text) in tokens.within() {
            let words = words(&without_values(&text));
            let long = |word: &&str| word.chars().filter(|c| c.is_alphabetic()).count() > 1;
            if words.split(' ').filter(long).count() > 1 {
                found.push(Text { file: file.clone(), line: source[..at].matches('\n').count() + 1, words });
            }
        }
    }
    found
}

/// A walk over source text that knows strings, characters and comments.
struct Tokens<'s> {
    source: &'s str,
    at: usize,
}

impl Tokens<'_> {
    /// One step; gives where a string began, and what it says.
    fn next(&mut self) -> Option<(usize, String)> {
        let (rest, start) = (&self.source[self.at..], self.at);
        let first = rest.chars().next()?;
        if rest.starts_with("//") {
            self.at += rest.find('\n').unwrap_or(rest.len());
            return None;
        }
        if first == '\'' {
            // A character; else a lifetime.
            let escaped = rest.strip_prefix("'\\").and_then(|escaped| escaped.find('\''));
            let end = escaped.map(|end| end + 3);
            let plain = rest.char_indices().nth(2).filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
            self.at += end.or(plain).unwrap_or(1);
            return None;
        }
        if first == '"' {
            let mut text = String::new();
            let mut chars = rest.char_indices().skip(1);
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        self.at += at + 1;
                        return Some((start, text));
                    }
                    '\\' => match chars.next() {
                        Some((_, 'n' | '\n')) | None => text.push(' '),
                        Some((_, escaped)) => text.push(escaped),
                    },
                    c => text.push(c),
                }
            }
            self.at = self.source.len();
            return None;
        }
        self.at += first.len_utf8();
        None
    }

    /// The strings up to the bracket that closes the one that is here.
    fn within(&mut self) -> Vec<(usize, String)> {
        let (mut depth, mut found) = (0_usize, Vec::new());
        while let Some(next) = self.source[self.at..].chars().next() {
            match next {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            found.extend(self.next());
            if depth == 0 {
                break;
            }
        }
        found
    }
}

/// The text with `{}` for `{any:?}`; doubled braces are braces.
fn without_values(text: &str) -> String {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut parts = text.split('{');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("{}");
        out.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    out.replace('\u{1}', "{").replace('\u{2}', "}")
}
