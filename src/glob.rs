//! Patterns for names: `*` stands for any text, `?` for one character, `[a-c]` for one of some, `[!a-c]` for one of the others.

use std::fmt;

/// A pattern that is right. `Display` is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Char(char),
    Class { ranges: Vec<(char, char)>, negated: bool },
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidGlob {
    /// There is none.
    Empty,
    /// A `[` without its `]`.
    Open,
    /// Nothing between `[` and `]`.
    EmptyClass,
    /// A range whose end comes before its start.
    Backwards(char, char),
}

impl fmt::Display for InvalidGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Open => f.write_str("a \"[\" without its \"]\""),
            Self::EmptyClass => f.write_str("nothing between \"[\" and \"]\""),
            Self::Backwards(from, to) => write!(f, "the range {from}-{to} is backwards"),
        }
    }
}

impl std::error::Error for InvalidGlob {}

impl std::str::FromStr for Glob {
    type Err = InvalidGlob;

    fn from_str(text: &str) -> Result<Self, InvalidGlob> {
        if text.is_empty() {
            return Err(InvalidGlob::Empty);
        }
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            match next {
                // Two say no more than one, and cost more.
                '*' if parts.last() == Some(&Part::Any) => {}
                '*' => parts.push(Part::Any),
                '?' => parts.push(Part::One),
                '[' => {
                    let (inside, after) = rest.as_str().split_once(']').ok_or(InvalidGlob::Open)?;
                    rest = after.chars();
                    parts.push(class(inside)?);
                }
                other => parts.push(Part::Char(other)),
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn class(inside: &str) -> Result<Part, InvalidGlob> {
    let (inside, negated) = match inside.strip_prefix(['!', '^']) {
        Some(rest) => (rest, true),
        None => (inside, false),
    };
    let chars: Vec<char> = inside.chars().collect();
    let mut ranges = Vec::new();
    let mut rest = chars.as_slice();
    loop {
        rest = match rest {
            [] => break,
            [from, '-', to, ..] if from > to => {
                return Err(InvalidGlob::Backwards(*from, *to));
            }
            [from, '-', to, after @ ..] => {
                ranges.push((*from, *to));
                after
            }
            [one, after @ ..] => {
                ranges.push((*one, *one));
                after
            }
        };
    }
    if ranges.is_empty() { Err(InvalidGlob::EmptyClass) } else { Ok(Part::Class { ranges, negated }) }
}

impl Glob {
    /// Whether the pattern stands for a single name.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Char(_)))
    }

    /// Whether the whole of `name` is as the pattern says.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where the last `*` was, and how much of the name it has taken: only the last one is ever tried again.
        let mut star: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    star = Some((part, at));
                    part += 1;
                }
                Some(one) if one.is(name[at]) => {
                    part += 1;
                    at += 1;
                }
                _ => {
                    let Some((star_part, taken)) = star else { return false };
                    star = Some((star_part, taken + 1));
                    part = star_part + 1;
                    at = taken + 1;
                }
            }
        }
        self.parts[part..].iter().all(|part| *part == Part::Any)
    }
}

impl Part {
    fn is(&self, character: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Char(known) => *known == character,
            Self::Class { ranges, negated } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("x_time_now", "x_time_now", true)]
    #[case("x_time_now", "x_time_no", false)]
    #[case("x_*", "x_time_now", true)]
    #[case("*now", "x_time_now", true)]
    #[case("*time*", "x_time_now", true)]
    #[case("**", "", true)]
    #[case("*_*_*", "x_time", false)]
    #[case("x_t?me_now", "x_time_now", true)]
    #[case("?", "", false)]
    #[case("[a-c]x", "bx", true)]
    #[case("[!a-c]x", "bx", false)]
    #[case("[^a-c]x", "zx", true)]
    #[case("[a-]", "-", true)]
    #[case("a*b*c", "aXbYbZc", true)]
    #[case("é*", "éa", true)]
    fn patterns(#[case] glob: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(glob.parse::<Glob>().unwrap().matches(name), expected);
    }

    #[rstest]
    #[case("", InvalidGlob::Empty)]
    #[case("x_[a", InvalidGlob::Open)]
    #[case("[]", InvalidGlob::EmptyClass)]
    #[case("[!]", InvalidGlob::EmptyClass)]
    #[case("[z-a]", InvalidGlob::Backwards('z', 'a'))]
    fn what_is_no_pattern(#[case] glob: &str, #[case] expected: InvalidGlob) {
        assert_eq!(glob.parse::<Glob>(), Err(expected));
    }

    proptest! {
        #[test]
        fn nothing_panics(glob in "[a*?\\[\\]!-]{0,12}", name in "[a-]{0,12}") {
            if let Ok(glob) = glob.parse::<Glob>() {
                let _ = glob.matches(&name);
            }
        }
    }
}
