//! "Did you mean": the known word that a mistaken one is nearest to.

/// Longer words are not compared: nobody mistypes those, and the comparison is quadratic in length.
const LONGEST: usize = 48;

/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let folded = fold(word);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .filter_map(|candidate| {
            let other = fold(candidate);
            let distance = distance(&folded, &other);
            (distance <= 1 + folded.len().max(other.len()) / 4).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "X"?`, or nothing.
pub fn suggestion<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

/// Case and the choice between `-` and `_` are no distance at all.
fn fold(word: &str) -> Vec<u8> {
    word.bytes().map(|b| if b == b'-' { b'_' } else { b.to_ascii_lowercase() }).collect()
}

/// Edits between two words, a swap of neighbours being one edit (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_only_that() {
        let keys = ["auth_groups", "cluster", "description", "type"];
        assert_eq!(nearest("auth_gruops", keys), Some("auth_groups"));
        assert_eq!(nearest("Auth-Groups", keys), Some("auth_groups"));
        assert_eq!(nearest("tpye", keys), Some("type"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"a".repeat(500), keys), None);
    }
}
