//! The inputs of the judges: the seeds of a fuzz target, the same with random edits, and random bytes.

use std::fmt;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

const CASES: u32 = 4000;

/// An input, shown as text.
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One change of a text.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, Vec<u8>),
    Remove(Index, usize),
    /// Copies a piece to another place.
    Copy(Index, usize, Index),
}

impl Edit {
    fn apply(&self, text: &mut Vec<u8>) {
        let piece = |text: &[u8], at: &Index, length: usize| {
            let start = at.index(text.len() + 1);
            start..(start + length).min(text.len())
        };
        match self {
            Self::Put(at, bytes) => {
                let at = at.index(text.len() + 1);
                text.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, length) => drop(text.drain(piece(text, at, *length))),
            Self::Copy(from, length, to) => {
                let copied = text[piece(text, from, *length)].to_vec();
                let to = to.index(text.len() + 1);
                text.splice(to..to, copied);
            }
        }
    }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let telling = proptest::sample::select(vec![
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        "null",
        "0",
        "é",
        "\u{feff}",
        "\u{85}",
        "#",
        "- ",
        "&a",
        "*a",
        "!!str ",
        "|",
        "${TOKEN}",
        "data",
        "id: ",
        "retry: ",
        "\"id\":1,",
    ]);
    prop_oneof![
        (any::<Index>(), telling).prop_map(|(at, text)| Edit::Put(at, text.into())),
        (any::<Index>(), proptest::collection::vec(any::<u8>(), 1..3))
            .prop_map(|(at, bytes)| Edit::Put(at, bytes)),
        (any::<Index>(), 1..12_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), 1..40_usize, any::<Index>())
            .prop_map(|(from, length, to)| Edit::Copy(from, length, to)),
    ]
}

/// Has `judge` look at the seeds of the fuzz target `target`, and at inputs that are made of them.
pub(crate) fn hold(target: &str, judge: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| fs_err::read(file).unwrap()).collect();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| judge(seed));

    let edited = (proptest::sample::select(seeds), proptest::collection::vec(any_edit(), 1..6));
    let edited = edited.prop_map(|(mut text, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut text));
        text
    });
    let random = proptest::collection::vec(any::<u8>(), 0..200);
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let input = prop_oneof![9 => edited, 1 => random].prop_map(Input);
    let outcome = runner.run(&input, |input| {
        judge(&input.0);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
