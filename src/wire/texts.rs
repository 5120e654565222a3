//! Generated JSON texts, of which it is known where everything stands: the other side of "splicing is parsing, editing and
//! printing". Printing a tree gives exactly the text that it was read as, with its spaces, escapes, key order, numbers of
//! any size and members that stand twice, so the tests need no parser to compare with.

use proptest::prelude::*;

/// A JSON value as it is written.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A number, a string or a word, as it is spelled.
    Atom(String),
    Array(Vec<Element>, Space),
    Object(Vec<Member>, Space),
}

/// Spaces between tokens.
type Space = String;

#[derive(Clone, Debug)]
pub(crate) struct Element {
    value: Node,
    around: [Space; 2],
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// What the key means.
    key: String,
    /// How it is spelled, with its quotes.
    spelled: String,
    value: Node,
    around: [Space; 4],
}

impl Node {
    /// A string without escapes.
    pub(crate) fn string(text: &str) -> Self {
        Self::Atom(format!("{text:?}"))
    }

    /// The text.
    pub(crate) fn print(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Atom(text) => out.push_str(text),
            Self::Array(elements, empty) => {
                out.push('[');
                for (index, Element { value, around: [before, after] }) in elements.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(before);
                    value.write(out);
                    out.push_str(after);
                }
                out.push_str(empty);
                out.push(']');
            }
            Self::Object(members, empty) => {
                out.push('{');
                for (index, Member { spelled, value, around, .. }) in members.iter().enumerate() {
                    let [before, after_key, before_value, after] = around;
                    out.push_str(if index > 0 { "," } else { "" });
                    for part in [before, spelled, after_key, ":", before_value] {
                        out.push_str(part);
                    }
                    value.write(out);
                    out.push_str(after);
                }
                out.push_str(empty);
                out.push('}');
            }
        }
    }

    /// The only value at a path of keys.
    pub(crate) fn at(&mut self, path: &[&str]) -> &mut Self {
        let [key, rest @ ..] = path else { return self };
        let Self::Object(members, _) = self else { panic!("{key}: no object") };
        members.iter_mut().find(|member| member.key == *key).unwrap().value.at(rest)
    }
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![4 => Just(Space::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// Strings that are easily read or printed otherwise than they were written.
fn spelled() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z{}\\[\\]:,]{1,4}",
        proptest::sample::select(vec![
            "é",
            "🦀",
            "\\u00e9",
            "\\/",
            "/",
            "\\\\",
            "\\\"",
            "\\n",
            "\\u0000",
            "\\ud83e\\udd80",
            "\\uD800",
            "\u{2028}",
            "\u{7f}",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn atom() -> impl Strategy<Value = Node> {
    let words = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "0.10",
        "1e400",
        "-1E+2",
        "1.0e-2",
        "18446744073709551616",
        "\"\"",
        "123456789012345678901234567890.123456789012345678901234567890",
    ];
    prop_oneof![proptest::sample::select(words.to_vec()).prop_map(str::to_owned), spelled()]
        .prop_map(Node::Atom)
}

/// Any value: also deeper than most parsers go.
pub(crate) fn any_node() -> impl Strategy<Value = Node> {
    let tree = atom().prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            (proptest::collection::vec((inner.clone(), [space(), space()]), 0..6), space()).prop_map(
                |(elements, empty)| {
                    let elements = elements.into_iter().map(|(value, around)| Element { value, around });
                    Node::Array(elements.collect(), empty)
                }
            ),
            (proptest::collection::vec(any_member(inner), 0..6), space())
                .prop_map(|(members, empty)| Node::Object(members, empty)),
        ]
    });
    (tree, prop_oneof![30 => Just(0), 1 => 1..500_usize]).prop_map(|(tree, more)| {
        (0..more).fold(tree, |value, _| {
            Node::Array(vec![Element { value, around: Default::default() }], Space::new())
        })
    })
}

/// A member with any key, also one that means something elsewhere.
fn any_member(value: impl Strategy<Value = Node> + 'static) -> impl Strategy<Value = Member> {
    let key = proptest::sample::select(vec!["id", "name", "params", "_meta", "progressToken", "a", "b", "é"]);
    key.prop_flat_map(spellings).prop_flat_map({
        let value = value.boxed();
        move |(key, spelled)| member(key, spelled, value.clone())
    })
}

/// A key, and a way to spell it.
fn spellings(key: &'static str) -> impl Strategy<Value = (String, String)> {
    proptest::collection::vec(proptest::bool::weighted(0.1), key.chars().count()).prop_map(move |escaped| {
        let letters = key.chars().zip(escaped).map(|(letter, escaped)| {
            if escaped { format!("\\u{:04x}", u32::from(letter)) } else { letter.to_string() }
        });
        (key.to_owned(), format!("\"{}\"", letters.collect::<String>()))
    })
}

fn member(key: String, spelled: String, value: impl Strategy<Value = Node>) -> impl Strategy<Value = Member> {
    (value, [space(), space(), space(), space()]).prop_map(move |(value, around)| Member {
        key: key.clone(),
        spelled: spelled.clone(),
        value,
        around,
    })
}

/// An object in which each of `wanted` stands once, in any order, among others that nobody looks for.
pub(crate) fn object_with(wanted: Vec<(&'static str, BoxedStrategy<Node>)>) -> impl Strategy<Value = Node> {
    let wanted: Vec<_> = wanted
        .into_iter()
        .map(|(key, value)| {
            spellings(key).prop_flat_map(move |(key, spelled)| member(key, spelled, value.clone())).boxed()
        })
        .collect();
    let other = proptest::sample::select(vec!["x", "y", "Name", "ID", ""]).prop_flat_map(spellings);
    let other = other.prop_flat_map(|(key, spelled)| member(key, spelled, any_node()));
    let members = (wanted, proptest::collection::vec(other, 0..4)).prop_map(|(mut members, others)| {
        members.extend(others);
        members
    });
    (members.prop_shuffle(), space()).prop_map(|(members, empty)| Node::Object(members, empty))
}
