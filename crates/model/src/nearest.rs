//! The word that was probably meant.

/// The word that differs least from the one that was said, if it does not differ too much.
pub(crate) fn nearest<'w>(said: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let lower = said.to_ascii_lowercase();
    let distance = |word: &&str| edits(&lower, word);
    let best = words.into_iter().min_by_key(distance)?;
    (edits(&lower, best) <= (best.len() / 3).max(1)).then_some(best)
}

/// Letters to be put in, left out or exchanged to make one word of the other (Levenshtein's distance).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let exchanged = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_differs_least_is_found_and_nonsense_is_not() {
        let words = ["scheduler", "servers", "sctp", "tcp"];
        let near = |said| nearest(said, words);
        assert_eq!(near("schedular"), Some("scheduler"));
        assert_eq!(near("Server"), Some("servers"));
        assert_eq!(near("tpc"), None);
        assert_eq!(near("stcp"), Some("tcp"));
        assert_eq!(near("color"), None);
    }
}
