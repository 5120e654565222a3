//! Which word was probably meant by one that is not known.

/// The one of `words` that `text` was probably meant to be. Capitals and what joins the parts of a word do not matter.
pub(crate) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const LONGEST: usize = 40;
    if text.len() > LONGEST {
        return None;
    }
    let plain = |word: &str| word.replace(['_', '-'], "").to_lowercase();
    let text = plain(text);
    words
        .map(|word| (strsim::damerau_levenshtein(&text, &plain(word)), word))
        .filter(|(distance, word)| *distance <= 2.min(word.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
