//! Which of many described things some words mean.
//!
//! A word counts where it stands, name over title over description; the word itself over another form of it (`files` for
//! `file`); and the more, the fewer things have it. The same input always gives the same order: all of it is arithmetic
//! with whole numbers, and what is equal stays in the order of the catalogue. Knows nothing of MCP.

/// What a word is worth, by where it stands.
const IN_NAME: u64 = 6;
const IN_TITLE: u64 = 4;
const IN_DESCRIPTION: u64 = 2;

/// What another form of the word is worth, as a part of what the word itself is.
const FORM: u64 = 2;

/// Two words may be forms of one when they begin with the same so many letters…
const STEM: usize = 3;

/// … and the one that stands in a description is no shorter than the one that is looked for by more than this: `file` for
/// `filesystem` would be too much.
const ENDING: usize = 3;

/// The words that a thing is described with.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    name: Vec<String>,
    title: Vec<String>,
    description: Vec<String>,
}

impl Document {
    /// Takes the texts apart.
    pub(super) fn new(name: &str, title: &str, description: &str) -> Self {
        Self { name: words(name), title: words(title), description: words(description) }
    }

    /// What `word` is worth in it; 0 where it does not stand there.
    fn worth(&self, word: &str) -> u64 {
        [(&self.name, IN_NAME), (&self.title, IN_TITLE), (&self.description, IN_DESCRIPTION)]
            .into_iter()
            .map(|(field, worth)| field.iter().map(|known| likeness(word, known)).max().unwrap_or(0) * worth)
            .max()
            .unwrap_or(0)
    }
}

/// The places of those `documents` that have any of the words of `query`, the best first.
pub(super) fn rank(query: &str, documents: &[Document]) -> Vec<usize> {
    let mut scores = vec![0; documents.len()];
    let mut wanted = words(query);
    wanted.sort_unstable();
    wanted.dedup();
    for word in wanted {
        let worths: Vec<u64> = documents.iter().map(|document| document.worth(&word)).collect();
        let having = worths.iter().filter(|worth| **worth > 0).count();
        let rarity = documents.len().checked_div(having).and_then(usize::checked_ilog2).unwrap_or(0);
        for (score, worth) in scores.iter_mut().zip(worths) {
            *score += worth * (1 + u64::from(rarity));
        }
    }
    let mut found: Vec<usize> = (0..documents.len()).filter(|place| scores[*place] > 0).collect();
    found.sort_by_key(|place| std::cmp::Reverse(scores[*place]));
    found
}

/// The words of a text, in small letters: runs of letters and digits. `camelCase` is two.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut after_small = false;
    for letter in text.chars() {
        let ends = !letter.is_alphanumeric() || (after_small && letter.is_uppercase());
        if ends && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        }
        after_small = letter.is_lowercase();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// How much a word says that `wanted` is meant: [`FORM`] where it is the word, 1 where it may be a form of it, else 0.
fn likeness(wanted: &str, known: &str) -> u64 {
    if wanted == known {
        return FORM;
    }
    let is_form = if known.len() >= wanted.len() {
        wanted.len() >= STEM && known.starts_with(wanted)
    } else {
        known.len() >= STEM && wanted.len() - known.len() <= ENDING && wanted.starts_with(known)
    };
    // Not every script has spaces between its words.
    u64::from(is_form || (!wanted.is_ascii() && known.contains(wanted)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const TOOLS: [(&str, &str, &str); 8] = [
        ("x_time_get_current_time", "", "Get the current time in a zone"),
        ("x_time_convert_time", "", "Convert a time between zones"),
        ("x_fs_read_file", "Read a file", "Reads the contents of a file"),
        ("x_fs_write_file", "Write a file", "Creates a file, or overwrites one"),
        ("x_fs_list_directory", "", "Lists the files of a directory"),
        ("x_git_createBranch", "", "Creates a branch"),
        ("x_git_commit", "", "Records changes to the repository"),
        ("x_wetter_heute", "", "今天的天气预报"),
    ];

    fn found(query: &str) -> Vec<&'static str> {
        let documents: Vec<Document> =
            TOOLS.iter().map(|(name, title, text)| Document::new(name, title, text)).collect();
        rank(query, &documents).into_iter().map(|place| TOOLS[place].0).collect()
    }

    #[rstest]
    #[case("convert", &["x_time_convert_time"])]
    #[case("converting", &["x_time_convert_time"])]
    #[case("time", &["x_time_get_current_time", "x_time_convert_time"])]
    #[case("current time", &["x_time_get_current_time", "x_time_convert_time"])]
    // A name that has it all goes before a name that has some.
    #[case("write files", &["x_fs_write_file", "x_fs_read_file", "x_fs_list_directory"])]
    #[case("branch", &["x_git_createBranch"])]
    #[case("CREATE", &["x_git_createBranch", "x_fs_write_file"])]
    // A rare word counts more than one that most have.
    #[case("repository files", &["x_git_commit", "x_fs_read_file", "x_fs_write_file", "x_fs_list_directory"])]
    #[case("天气", &["x_wetter_heute"])]
    #[case("nothing", &[])]
    #[case("?! --", &[])]
    fn the_best_is_first(#[case] query: &str, #[case] expected: &[&str]) {
        let found = found(query);
        assert_eq!(&found[..expected.len().min(found.len())], expected);
        assert_eq!(found.is_empty(), expected.is_empty());
    }

    #[test]
    fn words_are_what_people_see_as_words() {
        for (text, expected) in [
            ("x_fs_read-file", vec!["x", "fs", "read", "file"]),
            ("createBranch", vec!["create", "branch"]),
            ("HTTPServer sha256", vec!["httpserver", "sha256"]),
            ("Größe: ÄÖ", vec!["größe", "äö"]),
            ("", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[rstest]
    #[case("file", "file", 2)]
    #[case("files", "file", 1)]
    #[case("file", "files", 1)]
    #[case("file", "filesystem", 1)]
    #[case("filesystem", "file", 0)]
    #[case("a", "ab", 0)]
    #[case("气", "天气预", 1)]
    fn forms_of_a_word(#[case] wanted: &str, #[case] known: &str, #[case] expected: u64) {
        assert_eq!(likeness(wanted, known), expected);
    }

    proptest! {
        /// What is found has a word of the query, each is found once, and the order does not depend on that of the words.
        #[test]
        fn any_words_give_one_order(query in "[a-c ]{0,12}", names in proptest::collection::vec("[a-c_]{0,8}", 0..12)) {
            let documents: Vec<Document> = names.iter().map(|name| Document::new(name, "", "")).collect();
            let found = rank(&query, &documents);
            let mut unique = found.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), found.len());
            for word in words(&query) {
                for (place, name) in names.iter().enumerate() {
                    prop_assert!(!words(name).contains(&word) || found.contains(&place));
                }
            }
            let backwards: Vec<String> = words(&query).into_iter().rev().collect();
            prop_assert_eq!(rank(&backwards.join(" "), &documents), found);
        }
    }
}
