//! Suggestions for a misspelt command.

use clap::error::{ContextKind, ContextValue};

/// The error with the most similar command first, and without hidden names.
pub(crate) fn sorted(mut error: clap::Error) -> clap::Error {
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return error,
    };
    let Some(ContextValue::Strings(found)) = error.get(ContextKind::SuggestedSubcommand) else {
        return error;
    };
    let mut names = found.clone();
    names.retain(|name| !HIDDEN.contains(&name.as_str()));
    names.sort_by_key(|name| distance(&typed, name));
    names.dedup();
    error.insert(
        ContextKind::SuggestedSubcommand,
        ContextValue::Strings(names),
    );
    error
}

/// Other spellings of commands, which the help does not show.
const HIDDEN: [&str; 4] = ["training", "model", "datasets", "worker"];

/// Number of characters to insert, delete, replace or swap with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let above = &rows[i];
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = above[j] + usize::from(a != b);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            let is_swapped = i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b;
            if is_swapped {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::program::parser;

    #[test]
    fn the_most_similar_command_is_suggested_first() {
        let text = |typed: &str| {
            let error = parser()
                .try_get_matches_from(["visage", typed])
                .unwrap_err();
            sorted(error).to_string()
        };
        let trian = text("trian");
        assert!(trian.contains("'train', 'trainings'"), "{trian}");
        assert!(!trian.contains("'training'"), "{trian}");
        let prediction = text("prediction");
        assert!(prediction.contains("'predict'"), "{prediction}");
    }

    #[test]
    fn a_swap_is_one_step() {
        assert_eq!(distance("trian", "train"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
